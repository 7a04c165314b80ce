"""Lowering of the ONNX layers: matrix products, convolution, normalisation, pooling and reductions.

Each function is one operator of the table in lower_onnx.py: it reads the operands and attributes of
one :class:`Step` and gives the per-row value, or refuses. Whatever contracts or reduces over the
batch axis is refused (THREATS T24).

Source: the ONNX operator specifications, opset 7 and up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from prune_verify.checker.network import Array, Node
from prune_verify.checker.row_graph import Floats, Row, Step

__all__ = [
    "average_pool",
    "batch_normalization",
    "conv",
    "fold_biases",
    "gemm",
    "global_average_pool",
    "matmul",
    "max_pool",
    "reduce_max",
    "reduce_mean",
    "reduce_sum",
]


def _linear(step: Step, row: Row, weight: Floats, axis: int, arrays: dict[str, Floats] | None = None) -> Row:
    """Emit ``Linear`` with ``weight`` [out, in] contracting the per-row axis ``axis``; the batch axis stays."""
    shape = step.shape(row)
    if shape[axis] != weight.shape[1]:
        raise step.malformed("inner dimensions", str(weight.shape[1]), str(shape[axis]))
    out = shape[:-1] + weight.shape[:1] if axis == -1 else (*shape[:-2], weight.shape[0], shape[-1])
    return step.emit("Linear", (row.index,), out, row.axis, {"axis": (axis,)}, {"weight": weight, **(arrays or {})})


def matmul(step: Step) -> Row:
    """MatMul of a value and a constant matrix, in either order."""
    left, right = step.operand(0), step.operand(1)
    if isinstance(left, Row) and isinstance(right, Row):
        raise step.refuse("product", "a constant matrix on one side", "two values that depend on the network's input")
    const_first = isinstance(right, Row)
    row, weight = step.row(int(const_first)), step.floats(int(not const_first))
    rank = step.rank(row)
    while 2 < weight.ndim <= rank and weight.shape[0] == 1:  # noqa: PLR2004 - down to a matrix
        weight = weight[0]
    if weight.ndim != 2:  # noqa: PLR2004 - a matrix
        raise step.refuse("constant of a product", "one matrix", f"shape {weight.shape}")
    contracted = max(rank - 2, 0) if const_first else rank - 1
    if rank == 0 or row.axis == contracted:
        raise step.mixes("a product that sums over the batch axis")
    last = not const_first or rank == 1 or row.axis == rank - 1
    return _linear(step, row, weight if const_first else weight.T, -1 if last else -2)


def gemm(step: Step) -> Row:
    """Gemm of a value and a constant matrix, in either order, with a constant addend."""
    left, right = step.operand(0), step.operand(1)
    if isinstance(left, Row) and isinstance(right, Row):
        raise step.refuse("product", "a constant matrix on one side", "two values that depend on the network's input")
    turned = (step.integer("transA", 0), step.integer("transB", 0))
    at = int(isinstance(right, Row))  # the value is A (0) or B (1)
    row, weight = step.row(at), step.floats(1 - at)
    if step.rank(row) != 2 or weight.ndim != 2:  # noqa: PLR2004 - matrices
        raise step.malformed("ranks", "2 and 2", f"{step.rank(row)} and {weight.ndim}")
    if row.axis is None or row.axis ^ bool(turned[at]) != at:
        raise step.mixes("a product that sums over the batch axis")
    # B is [in, out] unless turned, A is [out, in] unless turned; Linear wants [out, in]
    oriented = weight.T if bool(turned[1 - at]) == bool(at) else weight
    arrays = {}
    if (alpha := step.number("alpha", 1.0)) != 1:
        arrays["alpha"] = np.array(alpha, dtype=np.float32)
    beta = step.number("beta", 1.0)
    if (addend := step.optional(2)) is not None:
        if isinstance(addend, Row):
            raise step.refuse("input 2", "a constant", "a value that depends on the network's input")
        arrays["bias"] = _gemm_bias(step, addend, at, oriented.shape[0])
        if beta != 1:
            arrays["beta"] = np.array(beta, dtype=np.float32)
    return replace(_linear(step, row, oriented, -1, arrays), axis=at)


def _gemm_bias(step: Step, addend: Array, batch_axis: int, out: int) -> Floats:
    if addend.ndim > 2:  # noqa: PLR2004 - a matrix
        raise step.malformed("rank of input 2", "at most 2", str(addend.ndim))
    bias = step.row_constant(addend, 1 - batch_axis, 2)
    if bias.shape not in ((), (1,), (out,)):
        raise step.malformed("shape of input 2", f"one number per output ({out})", str(addend.shape))
    return np.broadcast_to(bias, (out,))


def fold_biases(nodes: Sequence[Node]) -> list[Node]:
    """Merge each Linear or Conv without bias into the Add of a per-output constant that alone reads it.

    Runtimes fuse these pairs, and exporters write either form; the representation has one. All nodes must
    reach the output: then a layer that an Add reads is not the output itself.
    """
    readers = [0] * len(nodes)
    for node in nodes:
        for source in node.inputs:
            readers[source] += 1
    result = list(nodes)
    for index, node in enumerate(nodes):
        if node.op != "Add":
            continue
        for layer, addend in (node.inputs, node.inputs[::-1]):
            if readers[layer] == 1 and nodes[addend].op == "Constant" and nodes[layer].shape == node.shape:
                bias = _per_output(nodes[layer], nodes[addend].arrays["value"])
                if bias is not None:
                    result[index] = replace(nodes[layer], arrays={**nodes[layer].arrays, "bias": bias})
    return result


def _per_output(layer: Node, value: Floats) -> Floats | None:
    """The constant as one number per output of the layer, or None when it is not that."""
    if layer.op not in ("Linear", "Conv") or layer.arrays.keys() != {"weight"}:
        return None
    axis = layer.ints["axis"][0] if layer.op == "Linear" else -len(layer.shape)
    if any(d != 1 for i, d in enumerate(value.shape) if i - value.ndim != axis):
        return None
    bias = np.array(np.broadcast_to(value.reshape(-1), layer.arrays["weight"].shape[:1]))
    bias.setflags(write=False)
    return bias


def batch_normalization(step: Step) -> Row:
    """BatchNormalization with stored statistics."""
    row = step.batch_first(0, 2)
    step.number("momentum", 0.9)  # steers training only
    if step.integer("training_mode", 0):
        raise step.refuse("training_mode", "0", "statistics of the batch")
    if step.integer("spatial", 1) != 1:
        raise step.refuse("spatial", "1", "0")
    channels = step.shape(row)[0]
    arrays = {name: step.floats(i + 1) for i, name in enumerate(("scale", "bias", "mean", "variance"))}
    for name, array in arrays.items():
        if array.shape != (channels,):
            raise step.malformed(f"shape of {name}", f"({channels},)", str(array.shape))
    arrays["epsilon"] = np.array(step.number("epsilon", 1e-5), dtype=np.float32)
    if not bool(np.all(arrays["variance"] + arrays["epsilon"] > 0)):
        raise step.malformed("variance + epsilon", "positive numbers", "zero or less")
    return step.emit("BatchNorm", (row.index,), step.shape(row), 0, {}, arrays)


# --- windows ---


@dataclass(frozen=True)
class _Window:
    """Resolved geometry of a convolution or a pooling; one entry per spatial axis, pads begins first."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    out: tuple[int, ...]


def _positive(step: Step, name: str, rank: int) -> tuple[int, ...]:
    values = step.integers(name)
    if values is None:
        return (1,) * rank
    if len(values) != rank or min(values) < 1:
        raise step.malformed(f"attribute {name}", f"{rank} positive integers", str(values))
    return values


def _padding(step: Step, space: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Explicit pads, begins first, with ``auto_pad`` resolved."""
    rank, mode, pads = len(space), step.text("auto_pad", "NOTSET"), step.integers("pads")
    if mode == "NOTSET":
        pads = (0,) * (2 * rank) if pads is None else pads
        if len(pads) != 2 * rank or min(pads) < 0:
            raise step.malformed("attribute pads", f"{2 * rank} integers of at least 0", str(pads))
        return pads
    if pads is not None and any(pads):
        raise step.malformed("attribute pads", f"none beside auto_pad {mode}", str(pads))
    if mode == "VALID":
        return (0,) * (2 * rank)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise step.malformed("attribute auto_pad", "NOTSET, VALID, SAME_UPPER or SAME_LOWER", mode)
    total = [max((-(-n // s) - 1) * s + r - n, 0) for n, r, s in zip(space, reach, strides, strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return tuple(small + large) if mode == "SAME_UPPER" else tuple(large + small)


def _window(step: Step, shape: tuple[int, ...], kernel: tuple[int, ...]) -> _Window:
    """Geometry of windows over the per-row shape [channel, *space]."""
    space, rank = shape[1:], len(kernel)  # the callers have compared the ranks
    strides, dilations = _positive(step, "strides", rank), _positive(step, "dilations", rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _padding(step, space, reach, strides)
    padded = [n + pads[i] + pads[rank + i] for i, n in enumerate(space)]
    step.builder.charge(step.node.place, (shape[0], *padded))
    spare = [n - r for n, r in zip(padded, reach, strict=True)]
    if min(spare) < 0:
        raise step.malformed("window", f"at most the padded space {tuple(padded)}", str(tuple(reach)))
    if step.integer("ceil_mode", 0) and any(n % s for n, s in zip(spare, strides, strict=True)):
        raise step.refuse("ceil_mode", "windows that end with the padded space", "a window beyond it")
    out = tuple(n // s + 1 for n, s in zip(spare, strides, strict=True))
    return _Window(kernel, strides, pads, dilations, out)


def conv(step: Step) -> Row:
    """Conv in one or more spatial dimensions with constant weights."""
    row, weight = step.batch_first(0, 3), step.floats(1)
    channels, group = step.shape(row)[0], step.integer("group", 1)
    if weight.ndim != step.rank(row):
        raise step.malformed("rank of the weights", str(step.rank(row)), str(weight.ndim))
    if group < 1 or weight.shape[0] % group or weight.shape[1] * group != channels:
        raise step.malformed("channels", f"{channels} in {group} groups", str(weight.shape))
    kernel = step.integers("kernel_shape")
    if kernel is not None and kernel != weight.shape[2:]:
        raise step.malformed("attribute kernel_shape", str(weight.shape[2:]), str(kernel))
    window = _window(step, step.shape(row), weight.shape[2:])
    arrays = {"weight": weight}
    if step.optional(2) is not None:
        arrays["bias"] = step.floats(2)
        if arrays["bias"].shape != weight.shape[:1]:
            raise step.malformed("shape of the bias", str(weight.shape[:1]), str(arrays["bias"].shape))
    ints = {"strides": window.strides, "pads": window.pads, "dilations": window.dilations, "group": (group,)}
    return step.emit("Conv", (row.index,), (weight.shape[0], *window.out), 0, ints, arrays)


def _pool_window(step: Step, row: Row) -> _Window:
    shape = step.shape(row)
    if step.integers("kernel_shape") is None:
        raise step.malformed("attribute kernel_shape", "given", "none")
    window = _window(step, shape, _positive(step, "kernel_shape", len(shape) - 1))
    rank = len(window.kernel)
    for i, (size, kernel) in enumerate(zip(shape[1:], window.kernel, strict=True)):
        if max(window.pads[i], window.pads[rank + i]) >= kernel:
            raise step.malformed("attribute pads", f"below the kernel {window.kernel}", str(window.pads))
        # a dilated window may step over all the data: its maximum would be that of nothing
        start = np.arange(window.out[i], dtype=np.int64) * window.strides[i] - window.pads[i]
        first = -(np.minimum(start, 0) // window.dilations[i])
        if bool(np.any((first >= kernel) | (start + first * window.dilations[i] >= size))):
            raise step.refuse("window", "some data in every window", "padding only")
    return window


def max_pool(step: Step) -> Row:
    """MaxPool without indices."""
    row = step.batch_first(0, 3)
    if step.integer("storage_order", 0):
        raise step.refuse("storage_order", "0", "1")
    window = _pool_window(step, row)
    ints = {"kernel": window.kernel, "strides": window.strides, "pads": window.pads, "dilations": window.dilations}
    return step.emit("MaxPool", (row.index,), (step.shape(row)[0], *window.out), 0, ints)


def average_pool(step: Step) -> Row:
    """AveragePool without dilation."""
    row = step.batch_first(0, 3)
    window = _pool_window(step, row)
    if max(window.dilations) > 1:
        raise step.refuse("dilations", "1", str(window.dilations))
    counted = int(step.integer("count_include_pad", 0) != 0)
    return _average(step, row, window, counted)


def _average(step: Step, row: Row, window: _Window, counted: int) -> Row:
    ints = {"kernel": window.kernel, "strides": window.strides, "pads": window.pads, "count_include_pad": (counted,)}
    return step.emit("AveragePool", (row.index,), (step.shape(row)[0], *window.out), 0, ints)


def global_average_pool(step: Step) -> Row:
    """GlobalAveragePool: an average pooling whose window is all of the space."""
    row = step.batch_first(0, 3)
    space = step.shape(row)[1:]
    ones = (1,) * len(space)
    return _average(step, row, _Window(space, ones, (0,) * (2 * len(space)), ones, ones), 0)


# --- reductions ---


def _reduced_axes(step: Step, row: Row) -> list[int] | None:
    """The ONNX axes to reduce, never the batch axis; None when the node is an identity."""
    axes, rank = step.axes(1), step.rank(row)
    keep_all = step.integer("noop_with_empty_axes", 0)
    if not axes and keep_all:
        return None
    result = step.distinct(axes, rank) if axes else list(range(rank))
    if row.axis in result:
        raise step.mixes("a reduction over the batch axis")
    return result


def _reduce(step: Step, op: str) -> Row:
    row, keep = step.row(0), int(step.integer("keepdims", 1) != 0)
    axes = _reduced_axes(step, row)
    if axes is None:
        return row
    mine = [a - (row.axis is not None and a > row.axis) for a in axes]
    kept = [1 if i in mine else d for i, d in enumerate(step.shape(row)) if keep or i not in mine]
    axis = None if row.axis is None else row.axis - (0 if keep else sum(a < row.axis for a in axes))
    return step.emit(op, (row.index,), tuple(kept), axis, {"axes": tuple(mine), "keepdims": (keep,)})


def reduce_max(step: Step) -> Row:
    """ReduceMax over axes of a row."""
    return _reduce(step, "ReduceMax")


def reduce_sum(step: Step) -> Row:
    """ReduceSum over axes of a row."""
    return _reduce(step, "ReduceSum")


def reduce_mean(step: Step) -> Row:
    """ReduceMean over all of the space of [batch, channel, *space]: how exporters write a global average pooling."""
    row, keep = step.row(0), step.integer("keepdims", 1)
    axes = _reduced_axes(step, row)
    if axes is None:
        return row
    rank = step.rank(row)
    if row.axis != 0 or rank < 3 or axes != list(range(2, rank)):  # noqa: PLR2004 - batch and channel stand before
        raise step.refuse("axes of ReduceMean", "all the spatial axes of [batch, channel, *space]", str(axes))
    pooled = global_average_pool(step)
    return pooled if keep else step.reshaped(pooled, [None, step.shape(row)[0]], 0)
