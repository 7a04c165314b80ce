"""Small networks of the checker's kind, built by hand, with one operator each; used by the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prune_verify.checker.network import Network, Node

Floats = npt.NDArray[np.float32]
RNG = np.random.default_rng(7)


def numbers(*shape: int) -> Floats:
    return RNG.standard_normal(shape).astype(np.float32)


class Builder:
    """Appends nodes; every method returns the index of the new node."""

    def __init__(self, *shape: int) -> None:
        self.nodes = [Node("Input", (), shape)]

    def add(
        self,
        op: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        arrays: dict[str, Floats] | None = None,
        **ints: Sequence[int],
    ) -> int:
        self.nodes.append(Node(op, tuple(inputs), tuple(shape), {k: tuple(v) for k, v in ints.items()}, arrays or {}))
        return len(self.nodes) - 1

    def constant(self, value: npt.ArrayLike) -> int:
        array = np.asarray(value, dtype=np.float32)
        return self.add("Constant", (), array.shape, {"value": array})

    def linear(self, source: int, width: int, *, bias: bool = True) -> int:
        arrays = {"weight": numbers(width, self.nodes[source].shape[-1]) / 2}
        if bias:
            arrays["bias"] = numbers(width) / 2
        return self.add("Linear", (source,), (*self.nodes[source].shape[:-1], width), arrays, axis=(-1,))

    def relu(self, source: int) -> int:
        return self.add("Relu", (source,), self.nodes[source].shape)

    def network(self, source: int, labels: int = 3) -> Network:
        """Flatten, ReLU layer, logits."""
        size = int(np.prod(self.nodes[source].shape))
        flat = self.add("Reshape", (source,), (size,))
        output = self.linear(self.relu(self.linear(flat, 5)), labels)
        return Network(tuple(self.nodes), output)


def mlp(*widths: int) -> Network:
    b = Builder(widths[0])
    value = 0
    for place, width in enumerate(widths[1:]):
        value = b.linear(b.relu(value) if place else value, width)
    return Network(tuple(b.nodes), value)


def _conv(
    channels: tuple[int, int], pads: tuple[int, ...], group: int = 1, rank: int = 2, strides: tuple[int, ...] = ()
) -> Network:
    b = Builder(channels[0], *(6,) * rank)
    kernel = (3,) * rank
    steps = strides or (1,) * rank
    out = [(6 + pads[i] + pads[rank + i] - 3) // steps[i] + 1 for i in range(rank)]
    arrays = {"weight": numbers(channels[1], channels[0] // group, *kernel) / 3, "bias": numbers(channels[1])}
    conv = b.add(
        "Conv", (0,), (channels[1], *out), arrays, strides=steps, pads=pads, dilations=(1,) * rank, group=(group,)
    )
    return b.network(b.relu(conv))


def _pool(op: str, pads: tuple[int, ...], **ints: Sequence[int]) -> Network:
    b = Builder(2, 6, 6)
    out = tuple((6 + pads[i] + pads[2 + i] - 3) // 2 + 1 for i in range(2))
    return b.network(b.add(op, (0,), (2, *out), kernel=(3, 3), strides=(2, 2), pads=pads, **ints))


def _one(
    op: str,
    shape: tuple[int, ...],
    result: tuple[int, ...],
    arrays: dict[str, Floats] | None = None,
    **ints: Sequence[int],
) -> Network:
    b = Builder(*shape)
    return b.network(b.add(op, (0,), result, arrays, **ints))


def _batch_norm() -> Network:
    arrays = {
        "scale": numbers(2),
        "bias": numbers(2),
        "mean": numbers(2),
        "variance": numbers(2) ** 2 + 1,
        "epsilon": np.float32(1e-5) * np.ones((), np.float32),
    }
    return _one("BatchNorm", (2, 3, 3), (2, 3, 3), arrays)


def _two(op: str, constant: Floats | None = None, *, first: bool = False, wide: bool = False) -> Network:
    b = Builder(4)
    other = b.constant(constant) if constant is not None else b.linear(0, 1 if wide else 4)
    return b.network(b.add(op, (other, 0) if first else (0, other), (4,)))


def _many(op: str) -> Network:
    b = Builder(4)
    parts = [0, b.constant(numbers(4)), b.linear(0, 4), b.constant(np.float32(0.2)), b.linear(0, 1)]
    return b.network(b.add(op, parts, (4,)))


def _concat(*, constant: bool) -> Network:
    b = Builder(4)
    parts = [0, b.constant(numbers(2)) if constant else b.linear(0, 2), b.linear(0, 3)]
    return b.network(b.add("Concat", parts, (9,), axis=(0,)))


def _constant_part() -> Network:
    b = Builder(4)
    folded = b.add("Relu", (b.constant(numbers(4)),), (4,))
    return b.network(b.add("Add", (0, folded), (4,)))


def _linear_on(axis: int) -> Network:
    arrays = {
        "weight": numbers(5, 4 if axis == -1 else 3),
        "bias": numbers(5),
        "alpha": np.array(0.5, np.float32),
        "beta": np.array(2, np.float32),
    }
    return _one("Linear", (3, 4), (3, 5) if axis == -1 else (5, 4), arrays, axis=(axis,))


def _residual() -> Network:
    b = Builder(4)
    inner = b.linear(b.relu(b.linear(0, 4)), 4)
    return b.network(b.add("Add", (b.relu(b.linear(0, 4)), inner), (4,)))


NETWORKS: dict[str, Network] = {
    "a chain": mlp(4, 6, 6, 3),
    "a residual sum": _residual(),
    "Conv with the same padding at both ends": _conv((2, 4), (1, 1, 1, 1)),
    "Conv with uneven padding": _conv((2, 4), (0, 1, 1, 0)),
    "Conv with groups and strides": _conv((2, 4), (1, 1, 1, 1), group=2, strides=(2, 2)),
    "Conv with one axis": _conv((2, 4), (1, 1), rank=1),
    "BatchNorm": _batch_norm(),
    "MaxPool with padding": _pool("MaxPool", (1, 1, 1, 1), dilations=(1, 1)),
    "MaxPool without padding": _pool("MaxPool", (0, 0, 0, 0), dilations=(1, 1)),
    "AveragePool, padding not counted": _pool("AveragePool", (1, 1, 1, 1), count_include_pad=(0,)),
    "AveragePool, padding counted": _pool("AveragePool", (1, 1, 1, 1), count_include_pad=(1,)),
    "Abs": _one("Abs", (4,), (4,)),
    "Clip with both ends": _one(
        "Clip", (4,), (4,), {"lower": np.array(0.1, np.float32), "upper": np.array(0.4, np.float32)}
    ),
    "Clip from below": _one("Clip", (4,), (4,), {"lower": np.array(0.3, np.float32)}),
    "Clip from above": _one("Clip", (4,), (4,), {"upper": np.array(0.3, np.float32)}),
    "Transpose": _one("Transpose", (2, 3, 2), (2, 2, 3), perm=(2, 0, 1)),
    "Gather with repetitions": _one("Gather", (3, 4), (3, 2, 2), axis=(1,), indices=(0, 3, 3, 1), index_shape=(2, 2)),
    "Gather without repetitions": _one("Gather", (4,), (3,), axis=(0,), indices=(3, 0, 2), index_shape=(3,)),
    "ReduceMax over two axes": _one("ReduceMax", (2, 3, 2), (3,), axes=(0, 2), keepdims=(0,)),
    "ReduceSum": _one("ReduceSum", (2, 3), (1, 3), axes=(0,), keepdims=(1,)),
    "Linear on the last axis of a matrix": _linear_on(-1),
    "Linear on the last but one axis": _linear_on(-2),
    "Add of two values": _two("Add"),
    "Sub of two values, one narrower": _two("Sub", wide=True),
    "Max of two values": _two("Max"),
    "Min of two values, one narrower": _two("Min", wide=True),
    "Add of a constant": _two("Add", numbers(4)),
    "Sub of a constant": _two("Sub", numbers(1)),
    "Sub from a constant": _two("Sub", numbers(4), first=True),
    "Mul by a constant": _two("Mul", numbers(4)),
    "Max of values and constants": _many("Max"),
    "Min of values and constants": _many("Min"),
    "Concat of values": _concat(constant=False),
    "Concat with a constant": _concat(constant=True),
    "a part that does not depend on the input": _constant_part(),
}
