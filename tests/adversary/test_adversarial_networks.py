"""Networks that tell their environment by its float32: a binary32 claim about them is refused or true, everywhere.

Every construction answers one label over the reals and another in some float32 (T8, T21, T27), after Jia and Rinard
(arXiv 2003.03021). For each the real claim is proved, the float32 claim about the same label is not, and an execution is
shown that the real claim is wrong about. Whatever float32 claim is proved holds in all executions: onnxruntime at each
level of optimisation, sums in many orders, fused or not, with wide accumulators, with and without flushed subnormals.
Tolerance 0. What mixes rows is refused by the loader (T24).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prune_verify.checker.errors import ProofError, UnsupportedVersionError
from prune_verify.checker.interval import Intervals, interval_pass
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node, apply_node, windows
from prune_verify.checker.relaxation import beats, crown_intervals
from prune_verify.checker.rules import BINARY32, REAL
from tests.bounds.small_networks import NETWORKS
from tests.checker.random_networks import every_operator, mlp

pytestmark = pytest.mark.prover
F32, F64 = np.float32, np.float64
TINY = 2.0**-126
Array = np.ndarray


# --- one execution of many ---


@dataclass(frozen=True)
class Execution:
    """A float32 machine: in which order it sums, what it fuses, whether it flushes subnormals.

    Args:
        order: ``file`` (left to right, bias last), ``bias first``, ``random``, ``tree``, ``rising`` or ``falling`` (by
            size), ``cancelling`` (positive terms, then negative), or ``wide`` (a float64 accumulator, rounded once).
        fused: products are added with one rounding.
        flush: subnormal inputs and results of arithmetic are zero.
        seed: of the random order.

    """

    order: str
    fused: bool
    flush: bool
    seed: int = 0

    def kept(self, x: Array) -> Array:
        x = F32(x)
        return np.where(np.abs(x) < TINY, F32(0), x) if self.flush else x

    def products(self, factors: Array, values: Array, addend: Array | None) -> Array:
        """Sum over the last axis of factors times values, and the addend [..., 1] as one more term."""
        left, right = np.broadcast_arrays(self.kept(factors), self.kept(values))
        if addend is not None:
            more = np.broadcast_to(self.kept(addend), (*left.shape[:-1], 1))
            left, right = np.concatenate([left, more], -1), np.concatenate([right, np.ones_like(more)], -1)
        if self.order == "wide":
            return self.kept((F64(left) * F64(right)).sum(axis=-1))
        left, right = self._ordered(left, right)
        if self.order == "tree":
            return self._tree(self.kept(left * right))
        total = np.zeros(left.shape[:-1], dtype=F32)
        for place in range(left.shape[-1]):
            a, b = left[..., place], right[..., place]
            more = F64(a) * F64(b) + F64(total) if self.fused else total + self.kept(a * b)
            total = self.kept(more)
        return total

    def _ordered(self, left: Array, right: Array) -> tuple[Array, Array]:
        size = F64(left) * F64(right)
        match self.order:
            case "bias first":
                return np.roll(left, 1, -1), np.roll(right, 1, -1)
            case "random":
                places = np.random.default_rng(self.seed).permuted(
                    np.broadcast_to(np.arange(size.shape[-1]), size.shape), axis=-1
                )
            case "rising" | "falling":
                places = np.argsort(np.abs(size) * (1 if self.order == "rising" else -1), axis=-1, kind="stable")
            case "cancelling":
                places = np.argsort(-size, axis=-1, kind="stable")
            case _:
                return left, right
        return np.take_along_axis(left, places, -1), np.take_along_axis(right, places, -1)

    def _tree(self, terms: Array) -> Array:
        parts = list(np.moveaxis(terms, -1, 0))
        while len(parts) > 1:
            odd = parts[-1:] if len(parts) % 2 else []
            parts = [self.kept(a + b) for a, b in zip(parts[::2], parts[1::2], strict=False)] + odd
        return parts[0]

    def run(self, network: Network, x: Array) -> list[Array]:
        """The value of every node for rows of inputs."""
        values: list[Array] = []
        with np.errstate(all="ignore"):
            for node in network.nodes:
                values.append(F32(x) if node.op == "Input" else self._node(node, [values[i] for i in node.inputs]))
        return values

    def _node(self, node: Node, inputs: list[Array]) -> Array:
        match node.op:
            case "Constant":
                return node.arrays["value"][np.newaxis]
            case "Linear":
                return self._linear(node, inputs[0])
            case "Conv":
                return self._conv(node, inputs[0])
            case "BatchNorm":
                return self._batch_norm(node, inputs[0])
            case "ReduceSum":
                return self._reduced(node, inputs[0])
            case "AveragePool":
                return self.kept(apply_node(node, [F64(inputs[0])]))
            case "Add" | "Sub" | "Mul":
                return self.kept(
                    apply_node(node, [F64(self.kept(v)) for v in inputs])
                )  # one rounding of the exact result
        return F32(apply_node(node, [F64(v) for v in inputs]))  # picks one of its inputs

    def _linear(self, node: Node, x: Array) -> Array:
        axis, weight = node.ints["axis"][0], node.arrays["weight"]
        bias = node.arrays.get("bias")
        rows = np.moveaxis(x, axis, -1)[..., np.newaxis, :]
        if "alpha" not in node.arrays and "beta" not in node.arrays:
            found = self.products(weight, rows, None if bias is None else bias[:, np.newaxis])
        else:
            found = self.products(weight, rows, None)
            found = self.kept(found * self.kept(node.arrays.get("alpha", F32(1))))
            if bias is not None:
                found = self.kept(found + self.kept(self.kept(bias) * self.kept(node.arrays.get("beta", F32(1)))))
        return np.moveaxis(found, -1, axis)

    def _conv(self, node: Node, x: Array) -> Array:
        weight, group = node.arrays["weight"], node.ints["group"][0]
        rank = weight.ndim - 2
        view = windows(x, weight.shape[2:], node.ints["strides"], node.ints["pads"], node.ints["dilations"], F32(0))
        batch, out = view.shape[0], view.shape[2 : 2 + rank]
        inner = np.moveaxis(view.reshape(batch, group, weight.shape[1], *view.shape[2:]), 2, 2 + rank)
        columns = inner.reshape(batch, group, int(np.prod(out)), -1)
        kernels = weight.reshape(group, weight.shape[0] // group, -1)
        bias = node.arrays.get("bias")
        found = np.concatenate(
            [
                self.products(
                    kernels[g], columns[:, g, :, np.newaxis],
                    None if bias is None else bias.reshape(group, -1)[g][:, np.newaxis],
                )
                for g in range(group)
            ],
            axis=-1,
        )  # fmt: skip
        return np.moveaxis(found, -1, 1).reshape(batch, weight.shape[0], *out)

    def _batch_norm(self, node: Node, x: Array) -> Array:
        tail = (-1, *(1,) * (x.ndim - 2))
        scale, bias, mean, variance = (
            self.kept(node.arrays[n]).reshape(tail) for n in ("scale", "bias", "mean", "variance")
        )
        slope = self.kept(scale / self.kept(np.sqrt(self.kept(variance + node.arrays["epsilon"]))))
        if self.fused:
            return self.kept(self.kept(self.kept(self.kept(x) - mean) * slope) + bias)
        return self.kept(self.kept(self.kept(x) * slope) + self.kept(bias - self.kept(mean * slope)))

    def _reduced(self, node: Node, x: Array) -> Array:
        axes = [a + 1 for a in node.ints["axes"]]
        moved = np.moveaxis(x, axes, range(-len(axes), 0))
        flat = moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)
        found = self.products(np.ones((), dtype=F32), flat, None)
        return found.reshape(x.shape[0], *node.shape)


ORDERS = ("file", "bias first", "tree", "rising", "falling", "cancelling", "wide")


def executions(randoms: int = 12) -> Iterator[Execution]:
    """All orders, fused and not, flushing and not."""
    for fused in (False, True):
        for flush in (False, True):
            yield from (Execution(order, fused, flush) for order in ORDERS)
            yield from (Execution("random", fused, flush, seed) for seed in range(randoms))


def onnxruntime_logits(data: bytes, x: Array) -> list[Array]:
    """Logits of the deployed program at each level of optimisation, with and without flushed subnormals."""
    import onnxruntime
    import torch

    found = []
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_EXTENDED, levels.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.intra_op_num_threads = level, 1
        options.log_severity_level = 4
        for flush in (False, True):
            torch.set_flush_denormal(flush)
            try:
                session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
                (logits,) = session.run(None, {"x": x})
            finally:
                torch.set_flush_denormal(False)
            found.append(logits.reshape(len(x), -1))
    return found


# --- constructions ---


def model(nodes: list[onnx.NodeProto], constants: dict[str, Array], shape: tuple[int, ...], labels: int = 2) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", labels])],
        [
            numpy_helper.from_array(np.ascontiguousarray(v, dtype=v.dtype if v.dtype == np.int64 else F32), k)
            for k, v in constants.items()
        ],
    )
    return bytes(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def chain(*layers: tuple[list, list] | str) -> bytes:
    """Gemm layers (weight, bias) with ReLUs where ``relu`` stands between."""
    nodes, constants, value = [], {}, "x"
    for place, layer in enumerate(layers):
        name = "y" if place == len(layers) - 1 else f"h{place}"
        if layer == "relu":
            nodes.append(node("Relu", value, name))
        else:
            constants |= {f"w{place}": np.array(layer[0], dtype=F32), f"b{place}": np.array(layer[1], dtype=F32)}
            nodes.append(node("Gemm", f"{value} w{place} b{place}", name, transB=1))
        value = name
    return model(nodes, constants, (len(layers[0][0][0]),))


def absorbed(scale: float) -> bytes:
    """(x + scale) - scale, amplified: 0 over float32 where scale is large."""
    nodes = [node("Add", "x c", "a"), node("Sub", "a c", "d"), node("Gemm", "d w b", "y", transB=1)]
    return model(nodes, {"c": np.array([scale]), "w": np.array([[1000.0], [0.0]]), "b": np.array([0.0, 250.0])}, (1,))


def zero_sum(amplified: float) -> bytes:
    """Jia and Rinard: a sum that is 0 over the reals and 1 in size in some orders, amplified by both signs."""
    weight = [2.0**24, 1.0, -(2.0**24), -1.0]
    return chain(([weight, [-w for w in weight]], [0, 0]), "relu", ([[0, 0], [amplified, amplified]], [1, 0]))


def thirds() -> bytes:
    """x times 1/3 (rounded) times 3, minus x: what the rounding of the first product leaves, amplified by 2^26."""
    third = F32(1) / F32(3)
    nodes = [
        node("Mul", "x c", "a"),
        node("Mul", "a d", "b"),
        node("Sub", "b x", "e"),
        node("Gemm", "e w v", "y", transB=1),
    ]
    constants = {
        "c": np.array([third]),
        "d": np.array([F32(3)]),
        "w": np.array([[2.0**26], [0.0]]),
        "v": np.array([0.0, 1.5]),
    }
    return model(nodes, constants, (1,))


def unfused() -> tuple[bytes, Array]:
    """a b - fl(a b): 0 with two roundings and not with one, nor over the reals."""
    a, b = F32(1 + 2.0**-12), F32(1 + 2.0**-12)
    return chain(([[a, -1.0]], [0]), ([[2.0**26], [0.0]], [0, 1])), np.array([b, a * b], dtype=F32)


def many_tenths(count: int) -> bytes:
    """The sum of many equal numbers minus what it is over the reals, amplified."""
    total = float(F32(0.1)) * count
    return chain(([[1.0] * count], [-total]), ([[-1000.0], [1000.0]], [1, 0]))


def batch_norm(mean: float, variance: float, other: float) -> bytes:
    """BatchNorm of a value beside a large mean; its second channel is a constant between."""
    parameters = {"s": [1, 1], "b": [0, other], "m": [mean, 0], "v": [variance, 1]}
    nodes = [node("BatchNormalization", "x s b m v", "y", epsilon=0.0)]
    return model(nodes, {k: np.array(v, dtype=F32) for k, v in parameters.items()}, (2,))


def convolution() -> bytes:
    """A Conv whose window cancels over the reals, amplified; the second label is a constant."""
    weight = np.array([[[2.0**25, 1, 1, -(2.0**25), -2]]])
    nodes = [node("Conv", "x w", "c"), node("Flatten", "c", "f"), node("Gemm", "f v b", "y", transB=1)]
    return model(nodes, {"w": weight, "v": np.array([[0.0], [-1000.0]]), "b": np.array([100.0, 0.0])}, (1, 5))


def reduced() -> bytes:
    """ReduceSum of numbers that cancel over the reals."""
    nodes = [
        node("Mul", "x c", "m"), node("ReduceSum", "m a", "s", keepdims=1), node("Gemm", "s v b", "y", transB=1)
    ]  # fmt: skip
    constants = {
        "c": np.array([2.0**26, 3, -(2.0**26), -3]),
        "a": np.array([1], dtype=np.int64),
        "v": np.array([[0.0], [-1000.0]]),
        "b": np.array([100.0, 0.0]),
    }
    return model(nodes, constants, (4,))


ONE, FOUR = np.ones(1, F32), np.ones(4, F32)
FUSED, FUSED_X = unfused()
# Rows: sentence, model, record, the label that the reals give.
CONSTRUCTIONS: list[tuple[str, bytes, Array, int]] = [
    ("x + 1e8 - 1e8", absorbed(1e8), ONE, 0),
    ("x + 1e13 - 1e13", absorbed(1e13), ONE, 0),
    ("Jia and Rinard: a sum that is 0 in some orders", zero_sum(1e6), FOUR, 0),
    ("a cancelling pair of large weights and a small one", chain(([[1e9, 0.5, -1e9]], [0]), ([[0], [1000]], [250, 0])), np.ones(3, F32), 1),
    ("weights of 1e30 that overflow when squared", chain(([[1e30]], [0]), ([[1e30], [0]], [0, 1])), ONE, 0),
    ("partial sums that overflow", chain(([[3e38, 3e38, -3e38, -3e38], [0, 0, 0, 0]], [1e30, 0])), FOUR, 0),
    ("weights of 1e-40, amplified", chain(([[1e-40]], [0]), ([[1e30]], [0]), ([[1e10], [0]], [0, 0.5])), ONE, 0),
    ("a product of 2^-127, amplified", chain(([[2.0**-63]], [0]), ([[2.0**100]], [0]), ([[2.0**27], [0]], [0, 0.5])), np.full(1, 2.0**-64, F32), 0),
    ("an input of 2^-127, amplified", chain(([[2.0**100]], [0]), ([[2.0**27], [0]], [0, 0.5])), np.full(1, 2.0**-127, F32), 0),
    ("products below the least float32, amplified", chain(([[2.0**-75]], [0]), ([[2.0**100]], [0]), ([[2.0**50], [0]], [0, 0.5])), np.full(1, 2.0**-75, F32), 0),
    ("a third times three", thirds(), np.full(1, 1.1, F32), 0),
    ("what one rounding keeps and two lose", FUSED, FUSED_X, 0),
    ("a sum of 3000 tenths", many_tenths(3000), np.full(3000, 0.1, F32), 0),
    ("BatchNorm with a large mean and a tiny variance", batch_norm(1e6, 1e-10, 7000.0), np.array([1e6 + 0.0625, 0], F32), 1),
    ("BatchNorm with a larger mean", batch_norm(2.0**30, 1e-8, 1.1e6), np.array([2.0**30 + 128, 0], F32), 0),
    ("a Conv that cancels", convolution(), np.ones((1, 5), F32), 0),
    ("a ReduceSum that cancels", reduced(), FOUR, 0),
]  # fmt: skip
IDS = [row[0] for row in CONSTRUCTIONS]
# What float64 cannot tell either: no claim in either arithmetic.
BEYOND = [
    ("Jia and Rinard with weights of 1e30", chain(([[1e30, 1, -1e30, -1]], [0]), ([[0], [-1e8]], [1, 0])), FOUR),
    ("x + 1e30 - 1e30", absorbed(1e30), ONE),
]  # fmt: skip


def separated(network: Network, point: Array, first: int, second: int, arithmetic: str) -> bool:
    """Whether the checker proves that one label beats another at a point, by enclosures or by relaxation."""
    box = F64(point)[np.newaxis]
    try:
        low, high = interval_pass(network, box, box, arithmetic).output()
    except ProofError:
        return False
    return bool(low[0, first] > high[0, second]) or beats(network, box, box, first, (second,), arithmetic)


def enclosures(network: Network, point: Array) -> Intervals | None:
    """Enclosures in binary32, or None where the checker refuses because of a value or a factor out of range."""
    return enclosed(network, point, point)


def enclosed(network: Network, low: Array, high: Array) -> Intervals | None:
    """The same for a box."""
    try:
        return interval_pass(network, low, high, BINARY32)
    except ProofError as error:
        if "2^127" in error.expected or "2^100" in error.expected or error.rule.endswith("factors in float32"):
            return None
        raise


def all_logits(data: bytes, network: Network, rows: Array) -> list[Array]:
    found = [one.run(network, rows)[network.output].reshape(len(rows), -1) for one in executions()]
    return found + onnxruntime_logits(data, rows)


@pytest.mark.parametrize(("sentence", "data", "point", "answer"), CONSTRUCTIONS, ids=IDS)
def test_the_real_claim_is_proved_and_false_in_some_float32(
    sentence: str, data: bytes, point: Array, answer: int
) -> None:
    network = load_network(data, "net.onnx").network
    assert separated(network, point, answer, 1 - answer, REAL), sentence
    assert not separated(network, point, answer, 1 - answer, BINARY32)
    logits = np.concatenate(all_logits(data, network, point[np.newaxis]))
    kept = np.isfinite(logits).all(axis=1) & (logits[:, answer] > logits[:, 1 - answer])
    assert not kept.all()


@pytest.mark.parametrize(("sentence", "data", "point", "answer"), CONSTRUCTIONS, ids=IDS)
def test_every_value_of_every_execution_is_enclosed_or_refused(
    sentence: str, data: bytes, point: Array, answer: int
) -> None:
    network = load_network(data, "net.onnx").network
    box = F64(point)[np.newaxis]
    known = enclosures(network, box)
    if known is None:
        return
    rows = point[np.newaxis]
    for one in executions():
        _require_enclosed(network, known, one.run(network, rows), sentence)
    low, high = known.output()
    for logits in onnxruntime_logits(data, rows):
        assert (low <= logits).all()
        assert (logits <= high).all()


@pytest.mark.parametrize(("sentence", "data", "point"), BEYOND, ids=[row[0] for row in BEYOND])
def test_what_float64_cannot_tell_is_claimed_in_no_arithmetic(sentence: str, data: bytes, point: Array) -> None:
    network = load_network(data, "net.onnx").network
    for first, second in ((0, 1), (1, 0)):
        for arithmetic in (REAL, BINARY32):
            assert not separated(network, point, first, second, arithmetic), sentence


def _require_enclosed(network: Network, known: Intervals, values: list[Array], sentence: str) -> None:
    for place, value in enumerate(values):
        assert (known.lower[place] <= value).all(), (sentence, network.nodes[place].op)
        assert (value <= known.upper[place]).all(), (sentence, network.nodes[place].op)


# --- the same networks where a float32 claim follows: it has to be true ---

# Rows: sentence, model, record, radius of the box.
PROVED: list[tuple[str, bytes, Array, float]] = [
    ("x + 1 - 1", absorbed(1.0), ONE, 0.01),
    ("x + 1e4 - 1e4", absorbed(1e4), ONE, 0.01),
    ("a sum that cancels, little amplified", zero_sum(0.001), FOUR, 0.0),
    ("a sum of 30 tenths", many_tenths(30), np.full(30, 0.1, F32), 0.0),
    ("BatchNorm with a moderate mean", batch_norm(16.0, 1e-10, 4000.0), np.array([16.0625, 0], F32), 0.001),
    ("weights of 1e-40 that nothing amplifies", chain(([[1e-40]], [0]), ([[1e10], [0]], [0, 0.5])), ONE, 0.5),
    ("large weights that do not cancel", chain(([[1e13, 1e13]], [0]), "relu", ([[1e13], [0]], [0, 1e20])), np.ones(2, F32), 0.25),
    ("a Conv whose window does not cancel", convolution(), np.array([[1, 1, 1, -1, 1]], F32), 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "data", "point", "radius"), PROVED, ids=[row[0] for row in PROVED])
def test_what_is_proved_in_binary32_holds_in_every_execution(
    sentence: str, data: bytes, point: Array, radius: float
) -> None:
    network, rng = load_network(data, "net.onnx").network, np.random.default_rng(2)
    low, high = F64(point)[np.newaxis] - radius, F64(point)[np.newaxis] + radius
    known = interval_pass(network, low, high, BINARY32)
    ends = known.output()
    first, second = (0, 1) if ends[0][0, 0] > ends[1][0, 1] else (1, 0)
    assert ends[0][0, first] > ends[1][0, second] or beats(network, low, high, first, (second,), BINARY32), sentence
    rows = _float32_inside(low, high, rng, 16)
    for one in executions(4):
        values = one.run(network, rows)
        _require_enclosed(network, known, values, sentence)
        logits = values[network.output].reshape(len(rows), -1)
        assert (logits[:, first] > logits[:, second]).all()
    for logits in onnxruntime_logits(data, rows):
        assert (logits[:, first] > logits[:, second]).all()


def _float32_inside(low: Array, high: Array, rng: np.random.Generator, count: int) -> Array:
    """Float32 corners and inner points of one box."""
    share = rng.random((count, *low.shape[1:]))
    share = np.where(rng.random((count,) + (1,) * (low.ndim - 1)) < 0.5, np.round(share), share)
    x = F32(low + share * (high - low))
    x = np.where(x < low, np.nextafter(x, F32(np.inf)), x)
    return np.where(x > high, np.nextafter(x, F32(-np.inf)), x)


# --- random networks at all scales ---

RANDOM: list[tuple[str, Callable[[int], Network]]] = [
    ("every operator with a relaxation", every_operator),
    ("a chain", lambda seed: mlp(seed, 5, 9, 9, 3)),
    ("a wide chain of large weights", lambda seed: mlp(seed, 60, 40, 3, scale=1e5)),
    ("a chain of tiny weights", lambda seed: mlp(seed, 6, 6, 3, scale=1e-22)),
]


@pytest.mark.parametrize(("name", "make"), RANDOM, ids=[row[0] for row in RANDOM])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [0.0, 1e-4, 0.5])
def test_tightened_enclosures_hold_every_execution(
    name: str, make: Callable[[int], Network], seed: int, width: float
) -> None:
    """Rule crown in binary32: the enclosures it tightens, and the claims that follow."""
    network, rng = make(seed), np.random.default_rng(seed)
    middle = F64(F32(rng.standard_normal((1, *network.input_shape))))
    low, high = middle - width, middle + width
    known = crown_intervals(network, low, high, BINARY32)
    rows = _float32_inside(low, high, rng, 8)
    best = int(known.output()[0][0].argmax())
    proved = [j for j in range(network.labels) if j != best and beats(network, low, high, best, (j,), BINARY32)]
    for one in executions(3):
        values = one.run(network, rows)
        _require_enclosed(network, known, values, name)
        logits = values[network.output].reshape(len(rows), -1)
        assert (logits[:, [best]] > logits[:, proved]).all()


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("scale", [1e-19, 1.0, 1e4])
def test_every_operator_is_enclosed_in_every_execution(name: str, scale: float) -> None:
    """All operators of the table, their weights at three scales, in boxes and at points."""
    rng = np.random.default_rng(6)
    weights = ("weight", "bias", "scale")
    nodes = [
        Node(n.op, n.inputs, n.shape, n.ints, {k: F32(v * scale) if k in weights else v for k, v in n.arrays.items()})
        for n in NETWORKS[name].nodes
    ]
    network = Network(tuple(nodes), NETWORKS[name].output)
    for width in (0.0, 0.1):
        middle = F64(F32(rng.standard_normal((1, *network.input_shape))))
        low, high = middle - width, middle + width
        known = enclosed(network, low, high)
        assert (known is None) == (scale < 2.0**-20 and name == "BatchNorm")
        if known is None:
            continue
        rows = _float32_inside(low, high, rng, 6)
        for one in executions(3):
            _require_enclosed(network, known, one.run(network, rows), name)


def test_the_executions_differ_and_agree_on_exact_sums() -> None:
    """The emulation is not one machine under many names, and where nothing rounds it is the exact result."""
    network = load_network(zero_sum(1.0), "net.onnx").network
    answers = {tuple(one.run(network, FOUR[np.newaxis])[1].reshape(-1).tolist()) for one in executions()}
    assert len(answers) > 3
    exact = mlp(0, 4, 3)
    x = np.array([[1, 2, -4, 0.5]], F32)
    rounded = [
        Node(n.op, n.inputs, n.shape, n.ints, {k: np.round(v * 4) / 4 for k, v in n.arrays.items()})
        for n in exact.nodes
    ]
    simple = Network(tuple(rounded), exact.output)
    expected = F64(x) @ F64(simple.nodes[1].arrays["weight"]).T + F64(simple.nodes[1].arrays["bias"])
    for one in executions():
        np.testing.assert_array_equal(one.run(simple, x)[1], expected)


# --- networks that look at the other rows of a batch ---

ROW = {"a": np.array([0], dtype=np.int64), "s": np.array([1, -1], dtype=np.int64)}
MIXED: list[tuple[str, list[onnx.NodeProto], dict[str, Array], str]] = [
    ("answers by the mean of the batch", [node("ReduceMean", "x", "m", axes=[0], keepdims=1), node("Sub", "x m", "y")], {}, "node 0 (ReduceMean)"),
    ("answers by the greatest row", [node("ReduceMax", "x", "m", axes=[0], keepdims=1), node("Sub", "x m", "y")], {}, "node 0 (ReduceMax)"),
    ("answers as the first row of the batch", [node("Gather", "x a", "g", axis=0), node("Add", "x g", "y")], ROW, "node 0 (Gather)"),
    ("detects a batch of one by a reshape", [node("Reshape", "x s", "r"), node("ReduceMax", "r", "m", axes=[1]), node("Add", "x m", "y")], ROW, "node 0 (Reshape)"),
    ("normalises by the statistics of the batch", [helper.make_node("BatchNormalization", ["x", "o", "z", "z", "o"], ["y", "p", "q"], training_mode=1)], {"o": np.ones(2, F32), "z": np.zeros(2, F32)}, "node 0 (BatchNormalization)"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "nodes", "constants", "place"), MIXED, ids=[row[0] for row in MIXED])
def test_a_network_that_mixes_rows_is_refused(
    sentence: str, nodes: list[onnx.NodeProto], constants: dict[str, Array], place: str
) -> None:
    with pytest.raises(UnsupportedVersionError) as caught:
        load_network(model(nodes, constants, (2,)), "net.onnx")
    assert caught.value.path == f"net.onnx: {place}"
