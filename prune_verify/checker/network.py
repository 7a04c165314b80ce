"""The frozen intermediate representation of a network, its digest, and its evaluation.

A :class:`Network` is a list of nodes in topological order. Every value is *per row*: the batch
axis is not part of any shape, so nothing in this representation can mix the rows of a batch (the
loader refuses what does, THREATS T24). Values that do not depend on the input are ``Constant``.

The digest is taken over the nodes in the order of a depth-first walk from the output, so that it
depends neither on names, nor on the order in a file, nor on dead nodes; shared and repeated
subgraphs stay different, because two runs of the same nodes may differ in floating point while
one shared value cannot (MATHS 2, claim RX).

Source: MATHS 1; ONNX operator documentation for the meaning of each operator.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isqrt, prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError

__all__ = [
    "Array",
    "Network",
    "Node",
    "apply_node",
    "canonical_order",
    "evaluate",
    "evaluate_all",
    "evaluate_exact",
    "windows",
]

Array = npt.NDArray[np.generic]  # type: ignore[explicit-any] # numpy's own alias has it


@dataclass(frozen=True, eq=False)
class Node:
    """One operation on per-row values.

    Args:
        op: a key of the table below.
        inputs: indices of earlier nodes.
        shape: per-row shape of the result.
        ints: integer attributes by name.
        arrays: constant tensors by name; float32, C-contiguous and read-only.

    ==============  =====================================  =====================================================
    op              ints                                   arrays
    ==============  =====================================  =====================================================
    Input
    Constant                                               value
    Linear          axis (-1 or -2: contracted axis)       weight [out, in]; bias [out], alpha [], beta [] optional
    Conv            strides, pads (begin.., end..),        weight [out, in/group, k..]; bias [out] optional
                    dilations, group
    BatchNorm                                              scale, bias, mean, variance [c], epsilon [] (axis 0)
    Relu, Abs
    Add, Sub, Mul   (two inputs, broadcast; Mul: at least one is a Constant)
    Max, Min        (two or more inputs, broadcast)
    Clip                                                   lower [], upper [] (either may be absent)
    Reshape         (to ``shape``)
    Transpose       perm
    Concat          axis
    Gather          axis, indices, index_shape
    MaxPool         kernel, strides, pads, dilations
    AveragePool     kernel, strides, pads, count_include_pad
    ReduceMax,      axes, keepdims
    ReduceSum
    ==============  =====================================  =====================================================

    """

    op: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    ints: dict[str, tuple[int, ...]] = field(default_factory=dict)
    arrays: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Network:
    """A network from one input to one output.

    Args:
        nodes: topological order; node 0 is the ``Input`` and the only one.
        output: index of the node whose value is the logits.

    """

    nodes: tuple[Node, ...]
    output: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Per-row shape of the input."""
        return self.nodes[0].shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Per-row shape of the output."""
        return self.nodes[self.output].shape

    @property
    def labels(self) -> int:
        """Number of labels: the count of output numbers per row."""
        return prod(self.output_shape)

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical form; equal for equal graphs whatever their names and order."""
        order = [i for i in canonical_order(self) if self.nodes[i].op != "Constant" or i == self.output]
        number = {node: place for place, node in enumerate(order)}
        hasher = hashlib.sha256(b"prune-verify/network/v1\0")
        for index in order:
            node = self.nodes[index]
            _put(hasher, node.op.encode())
            for source in node.inputs:
                if source in number:
                    _put(hasher, struct.pack("<q", number[source]))
                else:  # a constant stands where it is used: one tensor or two equal ones are the same network
                    value = self.nodes[source].arrays["value"]
                    _put_array(hasher, "constant tensor", _broadcast_form(value) if node.op in _FOLD else value)
            _put(hasher, b"")
            _put(hasher, struct.pack(f"<{len(node.shape)}q", *node.shape))
            for name in sorted(node.ints):
                values = node.ints[name]
                _put(hasher, name.encode())
                _put(hasher, struct.pack(f"<{len(values)}q", *values))
            _put(hasher, b"")
            for name in sorted(node.arrays):
                _put_array(hasher, name, node.arrays[name])
            _put(hasher, b"")
        return hasher.hexdigest()


def live_nodes(network: Network) -> set[int]:
    """The nodes that the output depends on."""
    found, open_ = set[int](), [network.output]
    while open_:
        index = open_.pop()
        if index not in found:
            found.add(index)
            open_ += network.nodes[index].inputs
    return found


def node_key(node: Node, inputs: tuple[int, ...]) -> tuple[object, ...]:
    """What a node computes from ``inputs``: equal keys, equal functions of the same values, bit for bit."""
    arrays = tuple((name, value.shape, value.astype("<f4").tobytes()) for name, value in sorted(node.arrays.items()))
    return node.op, inputs, node.shape, tuple(sorted(node.ints.items())), arrays


def _broadcast_form(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The tensor without leading axes of length one, which broadcasting would supply (the result's shape is hashed)."""
    while value.ndim and value.shape[0] == 1:
        value = value[0]
    return value


def _put(hasher: hashlib._Hash, data: bytes) -> None:
    """Feed one length-prefixed field, so that no two lists of fields give the same bytes."""
    hasher.update(struct.pack("<Q", len(data)))
    hasher.update(data)


def _put_array(hasher: hashlib._Hash, name: str, array: npt.NDArray[np.float32]) -> None:
    _put(hasher, name.encode())
    _put(hasher, struct.pack(f"<{array.ndim}q", *array.shape))
    _put(hasher, array.astype("<f4").tobytes())


def canonical_order(network: Network) -> list[int]:
    """Post-order of a depth-first walk from the output; the input always comes first."""
    order, seen = [0], {0}
    stack: list[tuple[int, int]] = [] if network.output == 0 else [(network.output, 0)]
    while stack:
        index, place = stack.pop()
        inputs = network.nodes[index].inputs
        while place < len(inputs) and inputs[place] in seen:
            place += 1
        if place < len(inputs):
            stack += [(index, place + 1), (inputs[place], 0)]
        else:
            seen.add(index)
            order.append(index)
    return order


# --- evaluation: one table for float32, float64 and exact rationals (object arrays of Fraction) ---


def _to_fractions(array: Array) -> Array:
    flat = np.empty(array.size, dtype=object)
    flat[:] = [Fraction(float(v)) for v in array.reshape(-1).tolist()]
    return flat.reshape(array.shape)


def _lift(value: Array, rank: int) -> Array:
    """Insert axes of length one after the batch axis so that the per-row rank is ``rank``."""
    missing = rank + 1 - value.ndim
    return value.reshape(value.shape[:1] + (1,) * missing + value.shape[1:]) if missing else value


def _linear(node: Node, get: Callable[[str], Array], x: Array) -> Array:
    axis = node.ints["axis"][0]
    y: Array = np.dot(x if axis == -1 else np.moveaxis(x, axis, -1), get("weight").T)
    if "alpha" in node.arrays:
        y = np.multiply(y, get("alpha"))
    if "bias" in node.arrays:
        y = np.add(y, np.multiply(get("bias"), get("beta")) if "beta" in node.arrays else get("bias"))
    return y if axis == -1 else np.moveaxis(y, -1, axis)


def windows(
    x: Array, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int], fill: object
) -> Array:
    """``x`` [batch, channel, *space] in windows [batch, channel, *out, *kernel], padded with ``fill``.

    ``kernel``, ``strides``, ``pads`` (all at the starts, then all at the ends) and ``dilations`` are those of ONNX.
    """
    rank = len(kernel)
    width = [(0, 0), (0, 0), *((pads[i], pads[rank + i]) for i in range(rank))]
    padded = np.pad(x, width, constant_values=np.array(fill, dtype=x.dtype)) if any(pads) else x
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    step = tuple(slice(None, None, s) for s in strides) + tuple(slice(None, None, d) for d in dilations)
    return view[(slice(None), slice(None), *step)]


def _conv(node: Node, get: Callable[[str], Array], x: Array) -> Array:
    weight, group = get("weight"), node.ints["group"][0]
    rank = weight.ndim - 2
    view = windows(
        x, weight.shape[2:], node.ints["strides"], node.ints["pads"], node.ints["dilations"], x.dtype.type(0)
    )
    batch, out = view.shape[0], view.shape[2 : 2 + rank]
    inner = view.reshape(batch, group, weight.shape[1], *view.shape[2:])
    inner = np.moveaxis(inner, 2, 2 + rank)  # [batch, group, *out, channel, *kernel]
    columns = inner.reshape(batch, group, prod(out), prod(weight.shape[1:]))
    kernels = weight.reshape(group, weight.shape[0] // group, -1)
    parts = [np.dot(columns[:, g], kernels[g].T) for g in range(group)]
    y = np.moveaxis(np.concatenate(parts, axis=-1), -1, 1).reshape(batch, weight.shape[0], *out)
    return np.asarray(np.add(y, get("bias").reshape(-1, *(1,) * rank))) if "bias" in node.arrays else y


def _exact_root(value: Fraction) -> Fraction:
    root = Fraction(isqrt(value.numerator), isqrt(value.denominator)) if value >= 0 else Fraction(-1)
    if root * root != value:
        raise UnsupportedVersionError(
            "BatchNormalization", "exact evaluation", "variance + epsilon to be a rational square", str(value)
        )
    return root


def _batch_norm(get: Callable[[str], Array], x: Array) -> Array:
    """Compute x s' + (bias - mean s') with s' = scale / sqrt(variance + epsilon), as onnxruntime does."""
    spread: Array = np.add(get("variance"), get("epsilon"))
    root = np.array([_exact_root(v) for v in spread], dtype=object) if spread.dtype == object else np.sqrt(spread)
    slope: Array = np.divide(get("scale"), root)
    shift: Array = np.subtract(get("bias"), np.multiply(get("mean"), slope))
    tail = (1,) * (x.ndim - 2)
    y: Array = np.add(np.multiply(x, slope.reshape(-1, *tail)), shift.reshape(-1, *tail))
    return y


def _clip(node: Node, get: Callable[[str], Array], x: Array) -> Array:
    y: Array = np.maximum(x, get("lower")) if "lower" in node.arrays else x
    return np.asarray(np.minimum(y, get("upper"))) if "upper" in node.arrays else y


def _pool(node: Node, x: Array) -> Array:
    kernel, pads = node.ints["kernel"], node.ints["pads"]
    rank = len(kernel)
    last = tuple(range(-rank, 0))
    if node.op == "MaxPool":
        # padding never wins: the loader refuses windows that hold nothing else
        low = -np.inf if x.dtype != object else min(x.reshape(-1).tolist(), default=Fraction(0))
        best: Array = np.max(windows(x, kernel, node.ints["strides"], pads, node.ints["dilations"], low), axis=last)
        return best
    ones = (1,) * rank
    total = windows(x, kernel, node.ints["strides"], pads, ones, x.dtype.type(0)).sum(axis=last)
    mask = np.ones((1, 1, *x.shape[2:]), dtype=np.int64)
    fill = 1 if node.ints["count_include_pad"][0] else 0
    count = windows(mask, kernel, node.ints["strides"], pads, ones, fill).sum(axis=last)
    mean: Array = np.divide(total, count.astype(x.dtype))  # of Fraction and int: a Fraction
    return mean


def _reduce(node: Node, x: Array) -> Array:
    axes = tuple(a + 1 for a in node.ints["axes"])
    keep = bool(node.ints["keepdims"][0])
    y: Array = (np.max if node.op == "ReduceMax" else np.sum)(x, axis=axes, keepdims=keep)
    return y


_FOLD: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
}


def _apply(node: Node, get: Callable[[str], Array], xs: list[Array]) -> Array:  # noqa: C901, PLR0911, PLR0912 - a table of operators
    """Value of one node for a batch; ``xs`` are the inputs' values, batch axis first."""
    if node.op in _FOLD:
        result, *rest = [_lift(x, len(node.shape)) for x in xs]
        for other in rest:
            result = _FOLD[node.op](result, other)
        return result
    x = xs[0]
    match node.op:
        case "Linear":
            return _linear(node, get, x)
        case "Conv":
            return _conv(node, get, x)
        case "BatchNorm":
            return _batch_norm(get, x)
        case "Relu":
            return np.asarray(np.maximum(x, np.zeros((), x.dtype)))
        case "Abs":
            return np.asarray(np.abs(x))
        case "Clip":
            return _clip(node, get, x)
        case "Reshape":
            return x.reshape(x.shape[0], *node.shape)
        case "Transpose":
            return x.transpose(0, *(p + 1 for p in node.ints["perm"]))
        case "Concat":
            rows = next((v.shape[0] for v in xs if v.shape[0] != 1), 1)
            return np.concatenate([np.broadcast_to(v, (rows, *v.shape[1:])) for v in xs], node.ints["axis"][0] + 1)
        case "Gather":
            index = np.array(node.ints["indices"], dtype=np.int64).reshape(node.ints["index_shape"])
            return np.take(x, index, axis=node.ints["axis"][0] + 1)
        case "MaxPool" | "AveragePool":
            return _pool(node, x)
        case "ReduceMax" | "ReduceSum":
            return _reduce(node, x)
    raise UnsupportedVersionError("network", "operator", "one of the table in network.py", node.op)


def apply_node(node: Node, xs: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Value of one node in float64, for the values ``xs`` of its inputs [batch, *shape]; warnings are the caller's."""
    result: npt.NDArray[np.float64] = _apply(node, lambda name: node.arrays[name].astype(np.float64), list(xs))  # type: ignore[assignment]
    return result


def evaluate_all(network: Network, x: Array) -> list[Array]:
    """Value of every node for a batch of inputs.

    Args:
        network: the network.
        x: [batch, *input_shape]; float32, float64, or an object array of ``Fraction`` for exact evaluation.

    Returns:
        One array per node, [batch, *node.shape] ([1, *node.shape] for constants), of the dtype of ``x``.

    Raises:
        MalformedInputError: the input has another shape or type.

    """
    if not x.ndim or x.shape[1:] != network.input_shape:
        raise MalformedInputError("input", "shape of a row", str(network.input_shape), str(x.shape[1:]))
    if x.dtype not in (np.float32, np.float64, object):
        raise MalformedInputError("input", "type of the numbers", "float32, float64 or fractions", str(x.dtype))
    with np.errstate(all="ignore"):  # an overflow is an infinity for the caller to see, never a warning
        return _values(network, x)


def _values(network: Network, x: Array) -> list[Array]:
    exact = x.dtype == object
    values: list[Array] = []
    for node in network.nodes:

        def get(name: str, node: Node = node) -> Array:
            array = node.arrays[name]
            return _to_fractions(array) if exact else array.astype(x.dtype)

        if node.op == "Input":
            values.append(x)
        elif node.op == "Constant":
            values.append(get("value")[np.newaxis])
        else:
            values.append(_apply(node, get, [values[i] for i in node.inputs]))
    return values


def evaluate(network: Network, x: Array) -> Array:
    """Logits for a batch in the arithmetic of ``x`` (one summation order of many): [batch, labels]."""
    value = evaluate_all(network, x)[network.output]
    return np.broadcast_to(value, (x.shape[0], *value.shape[1:])).reshape(x.shape[0], network.labels)


def evaluate_exact(network: Network, x: Array) -> list[list[Fraction]]:
    """Logits over the exact rationals for ``x`` [batch, *input_shape]: a list of fractions per row. Slow.

    Raises:
        UnsupportedVersionError: a square root in the network is irrational.

    """
    rational = x if x.dtype == object else _to_fractions(x)
    return [[Fraction(v) for v in row] for row in evaluate(network, rational).tolist()]
