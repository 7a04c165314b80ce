"""Interval pass: an enclosure of every value of a network over boxes, in the arithmetic of a claim.

``real`` encloses the exact network over the stored weights. ``ieee754-binary32`` encloses what any
execution in float32 computes, in any order of summation, with or without fused multiply-add, with subnormal numbers
kept or flushed to zero: each node's enclosure is widened by E, a bound on the rounding that the node itself can add.
An execution that could overflow is refused, so that every value enclosed is finite.

Runtimes rewrite graphs when they load them: a factor moves into the weights before or after it, a batch normalization
into its convolution, an addition into the sum that it is added to. E covers these as well (rule ``rewritten``),
for factors between 2^-20 and 2^20 in size; others are refused in binary32.

The pass runs in float64. For a sum of n products of float64 numbers, in any order,
|computed - exact| <= (n+4) 2^-53 sum |terms| + n 2^-1022; the radius used here is more than twice that,
computed in float64, which covers the rounding of the radius itself for n < 2^40.

Source: MATHS 5.2 (float64 and float32 rounding); certs/SPEC.md section 5.1; Higham, Accuracy and Stability of
Numerical Algorithms, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import LimitError, ProofError
from prune_verify.checker.network import Network, Node, apply_node

__all__ = [
    "Intervals",
    "enclose",
    "interval_pass",
    "logit_spread",
    "node_cost",
    "node_rounding",
    "require_ieee_float64",
    "sum_rounding",
]

BINARY32 = "ieee754-binary32"
U64 = 2.0**-53
U32 = 2.0**-24
TINY32 = 2.0**-100  # what flushing may lose at one place: 2^-126 times factors of at most 2^20, with room
TINY64 = 2.0**-1020
_OVERFLOW = 2.0**127
_SUMS = 2.0**100  # absolute terms of a sum: below 2^127 also before a factor of 2^-20
_FACTORS = 2.0**-20, 2.0**20
_NORMAL = 2.0**-126
_LEAST_VARIANCE = 2.0**-100
_MOST_TERMS = 2**20

Floats = npt.NDArray[np.float64]
Box = tuple[Floats, Floats]


@dataclass(frozen=True, eq=False)
class Intervals:
    """Enclosures of every node's value, in the network's order.

    Args:
        lower: one float64 array [rows, *node.shape] per node ([1, *node.shape] for constants).
        upper: the same; upper ends.
        logits: index of the network's output.
        sums: of nodes that add up products: for each element the sum of absolute terms, and how many terms.
        gains: of nodes that factors may be moved through: the most that weights and factors up to there multiply to.
        empty: [rows]: two enclosures of one value had nothing in common: no execution is in this case.
        apart: by ``Relu`` node of a pair of networks: the partner's node, and an enclosure of the difference of
            their inputs.

    """

    lower: list[Floats]
    upper: list[Floats]
    logits: int
    empty: npt.NDArray[np.bool_]
    sums: dict[int, tuple[Floats, int]] = field(default_factory=dict)
    apart: dict[int, tuple[int, Box]] = field(default_factory=dict)
    gains: dict[int, float] = field(default_factory=dict)

    def box(self, node: int) -> Box:
        """The enclosure of one node."""
        return self.lower[node], self.upper[node]

    def narrow(self, node: int, box: Box) -> None:
        """Intersect a node's enclosure with another one; an empty row keeps a point."""
        low, high = np.maximum(self.lower[node], box[0]), np.minimum(self.upper[node], box[1])
        crossed = low > high
        if crossed.any():
            self.empty[:] |= crossed.reshape(len(crossed), -1).any(axis=1)
        self.lower[node], self.upper[node] = low, np.maximum(low, high)

    def output(self) -> Box:
        """The enclosure of the logits: two arrays [rows, labels]."""
        lower, upper = self.box(self.logits)
        return lower.reshape(lower.shape[0], -1), upper.reshape(upper.shape[0], -1)


def require_ieee_float64() -> None:
    """Establish that float64 rounds to nearest and keeps subnormals here; other code in the process may change that.

    Raises:
        LimitError: the rounding bounds of this checker do not hold in this process.

    """
    least, one, half = np.array([2.0**-1074]), np.array([1.0]), np.array([U64])
    kept = bool((least + 0.0 != 0.0).all()) and bool((least * one != 0.0).all())
    nearest = bool((one + half == 1.0).all()) and bool((one + 1.5 * half == 1.0 + 2 * U64).all())
    if not (kept and nearest and bool((-one - half == -1.0).all())):
        raise LimitError("float64", "arithmetic of this process", "round to nearest, subnormals kept", "something else")


def _magnitude(box: Box) -> Floats:
    return np.maximum(np.abs(box[0]), np.abs(box[1]))


def _gamma32(terms: int) -> float:
    """Upper bound of n u / (1 - n u)."""
    if terms > _MOST_TERMS:
        raise LimitError("network", "terms of one sum", f"at most {_MOST_TERMS}", str(terms))
    return float(terms * U32 / (1 - terms * U32) * (1 + 2.0**-50))


@dataclass(frozen=True, eq=False)
class _Step:
    """One node over boxes: the enclosure of its exact function, and E, the rounding that float32 may add.

    ``reach`` bounds every intermediate result (the sum of the absolute terms of a sum). ``total`` bounds, for every
    element, the sum of the absolute values of what is added up there, and ``terms`` how many numbers meet in one sum,
    forwards (inputs of an element) or backwards (elements that an input goes into); 0 where nothing is added up.
    """

    lower: Floats
    upper: Floats
    rounding: Floats | float = 0.0
    reach: float = 0.0
    total: Floats | float = 0.0
    terms: int = 0


def _exactly(node: Node, inputs: list[Box]) -> _Step:
    """A node that is monotone in each input and rounds nothing."""
    lower, upper = (apply_node(node, [box[end] for box in inputs]) for end in (0, 1))
    rounding = 0.0 if node.op in _MOVES else TINY32  # a comparison may flush what it returns
    if node.op not in ("Gather", "Max", "Min", "MaxPool"):  # no input goes into two elements
        return _Step(lower, upper, rounding)
    largest = replace(node, op="Max") if node.op == "Min" else node
    total = apply_node(largest, [_magnitude(box) for box in inputs])
    return _Step(lower, upper, rounding, total=total, terms=prod(node.ints.get("kernel", node.shape)))


_MOVES = ("Reshape", "Transpose", "Concat", "Gather")


def _absolute(_: Node, inputs: list[Box]) -> _Step:
    low, high = inputs[0]
    return _Step(np.maximum(np.maximum(low, -high), 0.0), _magnitude(inputs[0]), TINY32)


def _weighted(node: Node, inputs: list[Box]) -> _Step:
    """Linear and Conv: positive weights meet the one end, negative weights the other."""
    low, high = inputs[0]
    weight = node.arrays["weight"]
    scale = float(np.abs(node.arrays["alpha"])) if "alpha" in node.arrays else 1.0
    if "alpha" in node.arrays and float(node.arrays["alpha"]) < 0:
        low, high = high, low
    plain = {name: array for name, array in node.arrays.items() if name == "alpha"}

    def run(part: npt.NDArray[np.float32], x: Floats) -> Floats:
        return apply_node(replace(node, arrays={**plain, "weight": part}), [x])

    positive, negative = np.maximum(weight, np.float32(0)), np.minimum(weight, np.float32(0))
    absolute = np.abs(run(np.abs(weight), _magnitude(inputs[0])))
    shift, size = _bias(node, absolute.ndim)
    terms = prod(weight.shape[1:]) + 4
    total = absolute + size
    radius = 2 * (2 * terms + 8) * U64 * total + terms * TINY64 * (2.0 + scale)
    lower = run(positive, low) + run(negative, high) + shift - radius
    upper = run(positive, high) + run(negative, low) + shift + radius
    largest = float(np.abs(weight).max(initial=0.0)) * max(scale, 1.0)
    reach = float(_magnitude(inputs[0]).max(initial=0.0))
    shifted = float(np.abs(node.arrays["beta"])) if "beta" in node.arrays else 1.0
    lost = terms * ((2.0 + largest + reach) * (1.0 + scale) + 2.0 + shifted) * TINY32
    rounding = _gamma32(terms) * total * (1 + 2.0**-20) + lost
    most = float(total.max(initial=0.0)) * max(1.0, 1.0 / scale if scale else 1.0)
    backwards = weight.shape[0] * prod(weight.shape[2:])
    return _Step(lower, upper, rounding, most, total, max(terms, backwards))


def _bias(node: Node, rank: int) -> tuple[Floats | float, Floats | float]:
    """The bias (times beta) and its absolute value, shaped to the node's value [batch, ...]."""
    if "bias" not in node.arrays:
        return 0.0, 0.0
    bias = node.arrays["bias"].astype(np.float64)
    if "beta" in node.arrays:
        bias = bias * float(node.arrays["beta"])
    if node.op == "Conv":
        bias = bias.reshape(-1, *(1,) * (rank - 2))
    elif node.ints["axis"][0] == -2:  # noqa: PLR2004 - the contracted axis of the table in network.py
        bias = bias.reshape(-1, 1)
    return bias, np.abs(bias)


def _batch_norm(node: Node, inputs: list[Box]) -> _Step:
    """(x - mean) s' + bias with s' = scale / sqrt(variance + epsilon); three float64 roundings in s'."""
    arrays = {name: array.astype(np.float64) for name, array in node.arrays.items()}
    tail = (1,) * (inputs[0][0].ndim - 2)
    slope, mean, bias = (
        value.reshape(-1, *tail)
        for value in (arrays["scale"] / np.sqrt(arrays["variance"] + arrays["epsilon"]), arrays["mean"], arrays["bias"])
    )
    ends = [(end - mean) * slope + bias for end in inputs[0]]
    size = (_magnitude(inputs[0]) + np.abs(mean)) * np.abs(slope)
    radius = 32 * U64 * (size + np.abs(bias)) + TINY64
    rounding = (6 * U32 * size + 2 * U32 * np.abs(bias)) * (1 + 2.0**-20)
    tiny = 8 * (2.0 + np.abs(slope) + _magnitude(inputs[0]) + np.abs(mean)) * TINY32
    reach = max(float((size + np.abs(bias)).max(initial=0.0)), float(np.abs(slope).max(initial=0.0)))
    total = size + np.abs(bias)
    return _Step(np.minimum(*ends) - radius, np.maximum(*ends) + radius, rounding + tiny, reach, total, 16)


def _sum_of_two(node: Node, inputs: list[Box]) -> _Step:
    """Add and Sub: one rounding, or two."""
    (low, high), (other_low, other_high) = inputs
    if node.op == "Sub":
        other_low, other_high = other_high, other_low
    lower = np.nextafter(apply_node(node, [low, other_low]), -np.inf)
    upper = np.nextafter(apply_node(node, [high, other_high]), np.inf)
    total = apply_node(replace(node, op="Add"), [_magnitude(box) for box in inputs])
    rounding = 2 * total * U32 * (1 + 2.0**-20) + 3 * TINY32  # a constant may become part of a bias first
    return _Step(lower, upper, rounding, total=total, terms=_broadcast(node, inputs))


def _broadcast(node: Node, inputs: list[Box]) -> int:
    """How many elements one number of an input goes into at most, or 0 if each goes into one."""
    most = max(prod(node.shape) // max(1, prod(low.shape[1:])) for low, _ in inputs)
    return most if most > 1 else 0


def _product(node: Node, inputs: list[Box]) -> _Step:
    """Mul, where one factor is a constant: one rounding; a subnormal factor may be flushed first."""
    ends = [apply_node(node, [a, b]) for a in inputs[0] for b in inputs[1]]
    lower = np.nextafter(np.minimum.reduce(ends), -np.inf)
    upper = np.nextafter(np.maximum.reduce(ends), np.inf)
    reach = sum(float(_magnitude(box).max(initial=0.0)) for box in inputs)
    total = _magnitude((lower, upper))
    rounding = total * U32 * (1 + 2.0**-20) + (2.0 + reach) * TINY32
    return _Step(lower, upper, rounding, total=total, terms=_broadcast(node, inputs) + 1)


def _summed(node: Node, inputs: list[Box]) -> _Step:
    """ReduceSum and AveragePool: sums (and one division) of n terms."""
    if node.op == "AveragePool":
        terms = prod(node.ints["kernel"])
    else:
        terms = prod(inputs[0][0].shape[a + 1] for a in node.ints["axes"])
    low, high = (apply_node(node, [end]) for end in inputs[0])
    size = apply_node(node, [_magnitude(inputs[0])])
    radius = 2 * (terms + 8) * U64 * size + terms * TINY64
    rounding = _gamma32(terms + 2) * size * (1 + 2.0**-20) + (terms + 2) * 2 * TINY32
    return _Step(low - radius, high + radius, rounding, float(size.max(initial=0.0)) * terms, size, terms + 2)


_STEPS: dict[str, Callable[[Node, list[Box]], _Step]] = {
    "Linear": _weighted,
    "Conv": _weighted,
    "BatchNorm": _batch_norm,
    "Abs": _absolute,
    "Add": _sum_of_two,
    "Sub": _sum_of_two,
    "Mul": _product,
    "ReduceSum": _summed,
    "AveragePool": _summed,
    **dict.fromkeys(
        (
            "Relu", "Max", "Min", "Clip", "Reshape", "Transpose",
            "Concat", "Gather", "MaxPool", "ReduceMax",
        ),
        _exactly,
    ),
}  # fmt: skip


def _require_factors(network: Network, index: int) -> None:
    """Refuse factors with which flushing or a rewriting would lose more than E says (T21).

    Raises:
        ProofError: a factor that is 0 alone, subnormal, or not between 2^-20 and 2^20 in size.

    """
    node = network.nodes[index]
    factors = [node.arrays[name].reshape(1) for name in ("alpha", "beta") if name in node.arrays]
    if node.op == "Mul":
        factors += [network.nodes[i].arrays["value"] for i in node.inputs if network.nodes[i].op == "Constant"]
    if node.op == "BatchNorm":
        spread = node.arrays["variance"].astype(np.float64) + float(node.arrays["epsilon"])
        scale = node.arrays["scale"].astype(np.float64)
        if not (spread >= _LEAST_VARIANCE).all() or ((scale != 0) & (np.abs(scale) < _NORMAL)).any():
            expected = "variance + epsilon from 2^-100, no subnormal scale"
            raise ProofError(f"node {index} (BatchNorm)", "interval pass: factors in float32", expected, "others")
        factors.append((scale / np.sqrt(spread)).astype(np.float32))
    for factor in factors:
        size = np.abs(factor.astype(np.float64))
        bad = (size > _FACTORS[1]) | ((size < _FACTORS[0]) & ((size != 0) | (factor.size == 1)))
        if bad.any():
            expected, got = "size from 2^-20 to 2^20", f"{float(factor.reshape(-1)[int(np.argmax(bad))]):g}"
            raise ProofError(f"node {index} ({node.op})", "interval pass: factors in float32", expected, got)


def _require_finite_weights(network: Network, index: int, result: Intervals) -> None:
    """Refuse weights that a runtime may make infinite by moving factors into them, however small the inputs are.

    Raises:
        ProofError: weights and the factors before and after them, no other operator between, multiply to 2^100.

    """
    node = network.nodes[index]
    if node.op not in (*_MOVES, "Add", "Sub", "Mul", "Linear", "Conv", "BatchNorm"):
        return
    sizes = [np.abs(node.arrays[name]).max(initial=0.0) for name in ("weight", "alpha") if name in node.arrays]
    if node.op == "Mul":
        sizes = [
            np.abs(network.nodes[i].arrays["value"]).max() for i in node.inputs if "value" in network.nodes[i].arrays
        ]
    if node.op == "BatchNorm":
        spread = node.arrays["variance"].astype(np.float64) + float(node.arrays["epsilon"])
        sizes = [np.abs(node.arrays["scale"] / np.sqrt(spread)).max(initial=0.0)]
    gain = max(result.gains.get(i, 1.0) for i in node.inputs)
    for size in sizes:
        gain *= max(float(size), 1.0)
    if not gain < _SUMS:
        path, expected = f"node {index} ({node.op})", "below 2^100"
        raise ProofError(path, "interval pass: weights times factors in float32", expected, f"{gain:.3g}")
    result.gains[index] = gain


def _rewritten(network: Network, index: int, result: Intervals, step: _Step) -> Floats | float:
    """What more float32 may lose where a runtime makes one sum of a node and the sum that it reads.

    Weights times a factor are rounded once more each, and a second addend takes part in every order of the sum. Notes
    the sum of absolute terms of the node, for those that read it.
    """
    node, extra = network.nodes[index], 0.0
    if node.op in ("Linear", "Conv"):
        result.sums[index] = np.asarray(step.total), step.terms
        return extra
    read = [(i, result.sums[i]) for i in node.inputs if i in result.sums]
    if not read or node.op not in ("BatchNorm", "Mul", "Add", "Sub"):
        return extra
    absolute = replace(node, op="Add") if node.op == "Sub" else node
    arrays = dict(node.arrays)
    if node.op == "BatchNorm":
        arrays |= {name: np.abs(arrays[name]) for name in ("scale", "bias")} | {"mean": -np.abs(arrays["mean"])}
    sizes = [result.sums[i][0] if i in result.sums else _magnitude(result.box(i)) for i in node.inputs]
    total = apply_node(replace(absolute, arrays=arrays), sizes)
    terms = max(count for _, (_, count) in read) + 4
    result.sums[index] = total * (1 + 2.0**-40), terms
    return sum_rounding(result.sums[index][0], terms)


def sum_rounding(total: Floats, terms: int) -> Floats:
    """What float32 may lose in a sum of absolute terms that come to ``total`` (any shape), one more addend included."""
    lost: Floats = _gamma32(terms + 4) * total * (1 + 2.0**-20) + (terms + 4) * 4 * TINY32
    return lost


def node_cost(network: Network, index: int, known: Intervals, arithmetic: str) -> tuple[Floats | float, int]:
    """What one unit of coefficient on a node's value may lose when it is carried over to the node's inputs.

    The coefficient of an input is a float64 sum over the elements that it goes into. Times the input it is off
    by at most (terms + 4) 2^-53 sum |A_i| total_i over all inputs together; twice that is charged, and E.

    Args:
        network: the network.
        index: of a node, any but ``Input`` and ``Constant``.
        known: enclosures of its inputs.
        arithmetic: ``real`` or ``ieee754-binary32``.

    Returns:
        The loss per unit of each element, and how many terms may underflow in one sum (0: nothing is added up).

    """
    node = network.nodes[index]
    step = _STEPS[node.op](node, [known.box(i) for i in node.inputs])
    float64 = 2 * (step.terms + 8) * U64 * step.total
    if arithmetic != BINARY32:
        return float64, step.terms
    return float64 + step.rounding + _rewritten(network, index, known, step), step.terms


def node_rounding(network: Network, index: int, known: Intervals, arithmetic: str) -> Floats | float:
    """E: how far float32 may take a node's value from the exact function of the computed inputs.

    Args:
        network: the network.
        index: of a node, any but ``Input`` and ``Constant``.
        known: enclosures of its inputs.
        arithmetic: ``real`` (E is 0) or ``ieee754-binary32``.

    """
    if arithmetic != BINARY32:
        return 0.0
    node = network.nodes[index]
    step = _STEPS[node.op](node, [known.box(i) for i in node.inputs])
    return step.rounding + _rewritten(network, index, known, step)


def interval_pass(network: Network, lower: Floats, upper: Floats, arithmetic: str) -> Intervals:
    """Enclose every value of ``network`` over boxes.

    Args:
        network: the network.
        lower: float64 [rows, *input_shape]: lower ends of the boxes.
        upper: the same; upper ends.
        arithmetic: ``real`` or ``ieee754-binary32``.

    Returns:
        The enclosures.

    Raises:
        ProofError: a value may overflow (or does already in float64).
        LimitError: float64 is not IEEE 754 in this process, or a sum is too long.

    """
    require_ieee_float64()
    result = Intervals([], [], network.output, np.zeros(len(lower), dtype=np.bool_))
    for index in range(len(network.nodes)):
        enclose(network, index, result, (lower, upper), arithmetic)
    return result


def enclose(network: Network, index: int, result: Intervals, domain: Box, arithmetic: str) -> None:
    """Append the enclosure of the next node, made from those of its inputs.

    Args:
        network: the network.
        index: of the node: the number of enclosures that ``result`` has.
        result: the enclosures so far.
        domain: the boxes of the input.
        arithmetic: ``real`` or ``ieee754-binary32``.

    Raises:
        ProofError: a value may overflow (or does already in float64).
        LimitError: a sum is too long.

    """
    node = network.nodes[index]
    with np.errstate(all="ignore"):  # what overflows is refused below
        low, high = _enclosed(network, index, result, domain, arithmetic)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ProofError(f"node {index} ({node.op})", "interval pass: finite values", "no overflow", "overflow")
    if arithmetic == BINARY32 and max(-low.min(initial=0.0), high.max(initial=0.0)) >= _OVERFLOW:
        raise ProofError(f"node {index} ({node.op})", "interval pass: no overflow in float32", "below 2^127", "more")
    result.lower.append(low)
    result.upper.append(high)


def _enclosed(network: Network, index: int, result: Intervals, domain: Box, arithmetic: str) -> Box:
    node = network.nodes[index]
    if node.op == "Input":
        return domain
    if node.op == "Constant":
        value = node.arrays["value"].astype(np.float64)[np.newaxis]
        return value, value
    if arithmetic == BINARY32:
        _require_factors(network, index)
        _require_finite_weights(network, index, result)
    step = _STEPS[node.op](node, [result.box(i) for i in node.inputs])
    if arithmetic != BINARY32:
        return step.lower, step.upper
    if not step.reach < _SUMS:  # partial sums are bounded by the sum of absolute terms (MATHS 3.3, finite logits)
        path, got = f"node {index} ({node.op})", f"{step.reach:.3g}"
        raise ProofError(path, "interval pass: absolute terms of a float32 sum", "below 2^100", got)
    rounding = step.rounding + _rewritten(network, index, result, step)
    return np.nextafter(step.lower - rounding, -np.inf), np.nextafter(step.upper + rounding, np.inf)


def logit_spread(network: Network, intervals: Intervals, labels: tuple[int, ...]) -> float:
    """R: an upper bound of max - min of the logits of ``labels`` over all boxes; ProofError where there is none."""
    lower, upper = intervals.output()
    if upper.shape[1] != network.labels:
        raise ProofError("intervals", "one enclosure per logit", str(network.labels), str(upper.shape[1]))
    chosen = list(labels)
    spread = upper[:, chosen].max(axis=1) - lower[:, chosen].min(axis=1)
    return float(np.nextafter(spread.max(), np.inf))
