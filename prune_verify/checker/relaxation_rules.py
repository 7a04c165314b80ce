"""The rules by which the relaxation kernel replaces a node's value by its inputs, one per operator.

Linear nodes: :func:`carried` gives the coefficients of the inputs, :func:`offset` the constant part; what float64 may
lose in them is charged by the kernel (:func:`prune_verify.checker.interval.node_cost`). All other nodes choose a
linear function L of their inputs and pay the least value of ``A f(x) - L x`` over the enclosures. The lemmas:

relu    the difference is piecewise linear with its one breakpoint at 0, so that it is least at an end or at 0; any L
difference  of two ReLUs: relu of the difference of their inputs, of either sign; any L
clip    the same with the breakpoints at the clip's own ends, and abs with one at 0; any L
max     for A < 0 the difference is the least over i of ``(A - L_i) x_i - sum over the others of L_j x_j``, each
        separable; any L. For A >= 0, with L = A at one place and 0 elsewhere, it is at least 0, as max x >= x_k.
min     is max of the negated inputs, negated

Source: MATHS 5.2; certs/SPEC.md section 5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from prune_verify.checker.errors import UnsupportedVersionError
from prune_verify.checker.interval import U64, Box, Floats
from prune_verify.checker.network import Network, Node, apply_node, windows

__all__ = ["carried", "constants", "difference", "largest", "offset", "piecewise", "relu"]

_LEAN = 1 + 2.0**-10  # rule crown takes slope 1 where high exceeds -low by this much: no tie hangs on a last bit

Shape = tuple[int, ...]
Some = Floats | NDArray[np.float32] | None


# --- linear nodes ---


def constants(network: Network, node: Node) -> Callable[[str], Floats]:
    """The constant tensors of a node by name in float64; ``value``: the constant factor of a Mul."""

    def get(name: str) -> Floats:
        if name in node.arrays:
            return node.arrays[name].astype(np.float64)
        factor = next(network.nodes[i] for i in node.inputs if network.nodes[i].op == "Constant")
        return factor.arrays[name].astype(np.float64)

    return get


def offset(network: Network, node: Node) -> Floats | None:
    """The part of a linear node's value that does not depend on its inputs, to be broadcast to ``node.shape``.

    Exact but for BatchNorm: beta times bias has 48 bits.
    """
    get = constants(network, node)
    if node.op == "BatchNorm":
        tail = (1,) * (len(node.shape) - 1)
        shift: Floats = get("bias") - get("mean") * _normal(get)
        return shift.reshape(-1, *tail)
    if "bias" not in node.arrays:
        return None
    bias = get("bias") * get("beta") if "beta" in node.arrays else get("bias")
    if node.op == "Conv":
        return bias.reshape(-1, *(1,) * (len(node.shape) - 1))
    return bias if node.ints["axis"][0] == -1 else bias.reshape(-1, 1)


def _normal(get: Callable[[str], Floats]) -> Floats:
    """The factor of a batch normalization: scale / sqrt(variance + epsilon)."""
    factor: Floats = get("scale") / np.sqrt(get("variance") + get("epsilon"))
    return factor


def carried(  # noqa: C901, PLR0911 - a table of operators
    network: Network, node: Node, coefficient: Floats, get: Callable[[str], Floats]
) -> list[Floats]:
    """The coefficients of a linear node's inputs, from its own.

    Args:
        network: the network.
        node: of it.
        coefficient: A [rows, *node.shape]: float64 (or, for :mod:`exact`, objects that add and multiply exactly).
        get: constant tensors of the node by name in the same kind of numbers; ``value``: a constant factor.

    Returns:
        One array [rows, *shape] per input.

    Raises:
        UnsupportedVersionError: no rule for this operator.

    """
    rows, shapes = len(coefficient), [network.nodes[i].shape for i in node.inputs]
    match node.op:
        case "Linear":
            return [_through_weight(node, coefficient, get)]
        case "Conv":
            return [_through_kernels(node, coefficient, shapes[0], get)]
        case "BatchNorm":
            return [coefficient * _normal(get).reshape(-1, *(1,) * (len(node.shape) - 1))]
        case "Add" | "Sub":
            second = -coefficient if node.op == "Sub" else coefficient
            return [_folded(coefficient, shapes[0]), _folded(second, shapes[1])]
        case "Mul":
            return _product(network, node, coefficient, get)
        case "Reshape":
            return [coefficient.reshape(rows, *shapes[0])]
        case "Transpose":
            return [coefficient.transpose(0, *(int(p) + 1 for p in np.argsort(node.ints["perm"])))]
        case "Concat":
            axis = node.ints["axis"][0]
            return np.split(coefficient, np.cumsum([shape[axis] for shape in shapes])[:-1], axis + 1)
        case "Gather":
            return [_scattered(node, coefficient, shapes[0])]
        case "AveragePool":
            return [_averaged(node, coefficient, shapes[0])]
        case "ReduceSum":
            kept = coefficient.reshape(rows, *(1 if i in node.ints["axes"] else n for i, n in enumerate(shapes[0])))
            return [np.broadcast_to(kept, (rows, *shapes[0]))]
    raise UnsupportedVersionError("network", "relaxation: operator", "one with a relaxation rule", node.op)


def _through_weight(node: Node, coefficient: Floats, get: Callable[[str], Floats]) -> Floats:
    """A W, over the contracted axis. alpha W is exact in float64 (48 bits)."""
    weight = get("weight") * get("alpha") if "alpha" in node.arrays else get("weight")
    axis = node.ints["axis"][0]
    moved = coefficient if axis == -1 else np.moveaxis(coefficient, axis, -1)
    found: Floats = moved @ weight
    return found if axis == -1 else np.moveaxis(found, -1, axis)


def _through_kernels(node: Node, coefficient: Floats, shape: Shape, get: Callable[[str], Floats]) -> Floats:
    """The transposed convolution, group by group: each kernel element's share, put back at its place."""
    weight, group = get("weight"), node.ints["group"][0]
    rows, out = len(coefficient), coefficient.shape[2:]
    kernels = weight.reshape(group, weight.shape[0] // group, -1)
    columns = np.swapaxes(kernels, 1, 2) @ coefficient.reshape(rows, group, kernels.shape[1], prod(out))
    columns = columns.reshape(rows, shape[0], *weight.shape[2:], *out)
    return _put_back(columns, node, weight.shape[2:], shape, node.ints["dilations"])


def _put_back(columns: Floats, node: Node, kernel: Shape, shape: Shape, dilations: Shape) -> Floats:
    """Windows [rows, channel, *kernel, *out] added up where they came from: [rows, *shape]. The adjoint of windows."""
    rank, pads = len(kernel), node.ints["pads"]
    space = [n + pads[i] + pads[rank + i] for i, n in enumerate(shape[1:])]
    total = np.zeros((len(columns), shape[0], *space), dtype=columns.dtype)
    out = columns.shape[2 + rank :]
    for offsets in np.ndindex(*kernel):
        place = tuple(
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, s, n in zip(offsets, dilations, node.ints["strides"], out, strict=True)
        )
        total[(slice(None), slice(None), *place)] += columns[(slice(None), slice(None), *offsets)]
    inner = tuple(slice(pads[i], pads[i] + n) for i, n in enumerate(shape[1:]))
    return total[(slice(None), slice(None), *inner)]


def _averaged(node: Node, coefficient: Floats, shape: Shape) -> Floats:
    """Average pooling: each window's coefficient, divided by how many numbers the window holds."""
    kernel, rank = node.ints["kernel"], len(node.ints["kernel"])
    fill = 1 if node.ints["count_include_pad"][0] else 0
    mask = np.ones((1, 1, *shape[1:]), dtype=np.int64)
    seen = windows(mask, kernel, node.ints["strides"], node.ints["pads"], (1,) * rank, fill)
    count = seen.sum(axis=tuple(range(-rank, 0)))
    each = (coefficient / count).reshape(*coefficient.shape[:2], *(1,) * rank, *coefficient.shape[2:])
    columns = np.broadcast_to(each, (*coefficient.shape[:2], *kernel, *coefficient.shape[2:]))
    return _put_back(columns, node, kernel, shape, (1,) * rank)


def _product(network: Network, node: Node, coefficient: Floats, get: Callable[[str], Floats]) -> list[Floats]:
    """A constant factor times a value; the constant itself gets nothing."""
    factors = [network.nodes[i] for i in node.inputs]
    place = next((i for i, factor in enumerate(factors) if factor.op == "Constant"), None)
    if place is None:
        raise UnsupportedVersionError("network", "relaxation: operator", "Mul by a constant", "Mul of two values")
    found = [np.zeros((len(coefficient), *factor.shape), dtype=coefficient.dtype) for factor in factors]
    found[1 - place] = _folded(coefficient * get("value"), factors[1 - place].shape)
    return found


def _folded(coefficient: Floats, shape: Shape) -> Floats:
    """The coefficient summed over the axes along which an input of ``shape`` was broadcast."""
    lifted = (1,) * (coefficient.ndim - 1 - len(shape)) + shape
    axes = tuple(i + 1 for i, (n, m) in enumerate(zip(coefficient.shape[1:], lifted, strict=True)) if n != m)
    summed: Floats = coefficient.sum(axis=axes, keepdims=True) if axes else coefficient
    return summed.reshape(len(coefficient), *shape)


def _scattered(node: Node, coefficient: Floats, shape: Shape) -> Floats:
    """An element taken several times gets the sum of its coefficients."""
    axis, indices = node.ints["axis"][0], np.array(node.ints["indices"], dtype=np.int64)
    rows, head, tail = coefficient.shape[0], prod(shape[:axis]), prod(shape[axis + 1 :])
    found = np.zeros((shape[axis], rows, head, tail), dtype=coefficient.dtype)
    np.add.at(found, indices, np.moveaxis(coefficient.reshape(rows, head, len(indices), tail), 2, 0))
    return np.moveaxis(found, 0, 2).reshape(rows, *shape)


# --- nodes of one input with breakpoints ---


def relu(coefficient: Floats, box: Box, slope: Some, shift: Some) -> tuple[Floats, Floats]:
    """Rule relu: ``A max(x, 0) >= L x + m`` for any finite L.

    Args:
        coefficient: A [rows, *shape].
        box: enclosure of x, low <= high.
        slope: L / A for unstable neurons where A >= 0; None or NaN: rule crown, 1 if high > -(1 + 2^-10) low, else 0.
        shift: is added to L (the multipliers of splits); None: 0.

    Returns:
        L and m; both have at most four roundings, m relative to its size.

    """
    low, high = box
    unstable = (low < 0) & (high > 0)
    crown = (high > -low * _LEAN).astype(np.float64)
    chosen = crown if slope is None else np.where(np.isnan(slope), crown, slope)
    chord = high / np.where(unstable, high - low, 1.0)
    line = np.where(unstable, coefficient * np.where(coefficient >= 0, chosen, chord), 0.0)
    line = np.where(low >= 0, coefficient, line)
    if shift is not None:
        line = np.asarray(line + shift, dtype=np.float64)
    below, above = (np.where(end > 0, (coefficient - line) * end, -(line * end)) for end in box)
    least = np.minimum(below, above)
    return line, np.where(unstable, np.minimum(least, 0.0), least)


def difference(coefficient: Floats, apart: Box, one: Box, other: Box) -> tuple[Floats, Floats]:
    """Rule difference: ``A (max(x', 0) - max(x, 0)) >= L (x' - x) + m`` for d = x' - x in an enclosure.

    The left side lies between ``A min(d, 0)`` and ``A max(d, 0)``: for A >= 0 it is at least ``-A max(-d, 0)``, for
    A < 0 at least ``A max(d, 0)``, so that rule relu serves. Where both signs are settled it is ``A d`` or 0.

    Args:
        coefficient: A [rows, *shape].
        apart: enclosure of d.
        one: enclosure of x'.
        other: enclosure of x.

    Returns:
        L and m, rounded as those of rule relu.

    """
    sign = np.where(coefficient >= 0, -1.0, 1.0)
    low, high = np.where(sign > 0, apart[0], -apart[1]), np.where(sign > 0, apart[1], -apart[0])
    line, least = relu(-np.abs(coefficient), (low, high), None, None)
    active, idle = (one[0] >= 0) & (other[0] >= 0), (one[1] <= 0) & (other[1] <= 0)
    settled = active | idle
    return np.where(settled, np.where(active, coefficient, 0.0), sign * line), np.where(settled, 0.0, least)


def piecewise(node: Node, coefficient: Floats, box: Box) -> tuple[Floats, Floats]:
    """Rules clip and abs: with ``coefficient`` A, A f(x) >= L x + m, f piecewise linear with breakpoints of its own.

    Returns:
        L, the chord of f over the enclosure times A; and m, with its rounding paid.

    """
    low, high = box
    breaks = [0.0] if node.op == "Abs" else [float(array) for array in node.arrays.values()]
    width = np.where(high > low, high - low, 1.0)
    line = coefficient * ((apply_node(node, [high]) - apply_node(node, [low])) / width)
    points = [low, high, *(np.clip(point, low, high) for point in breaks)]
    found = []
    for point in points:
        one, other = coefficient * apply_node(node, [point]), line * point
        found.append(one - other - 8 * U64 * (np.abs(one) + np.abs(other)))
    return line, np.minimum.reduce(found)


# --- the largest (or least) of several ---


def _candidates(node: Node, boxes: list[Box]) -> Box:
    """The enclosures of what a node chooses from: [rows, *node.shape, candidates], padding below everything."""
    ends = list[Floats]()
    for end in (0, 1):
        arrays = [box[end] for box in boxes]
        if node.op == "MaxPool":
            rank, ints = len(node.ints["kernel"]), node.ints
            least = -2 * max(float(np.abs(end).max(initial=0.0)) for end in boxes[0]) - 1
            seen = windows(arrays[0], ints["kernel"], ints["strides"], ints["pads"], ints["dilations"], least)
            ends.append(seen.reshape(*seen.shape[: 2 + rank], -1).astype(np.float64))
        elif node.op == "ReduceMax":
            axes = tuple(a + 1 for a in node.ints["axes"])
            last = np.moveaxis(arrays[0], axes, range(-len(axes), 0))
            ends.append(last.reshape(len(last), *node.shape, -1))
        else:
            lifted = [a.reshape(len(a), *(1,) * (len(node.shape) + 1 - a.ndim), *a.shape[1:]) for a in arrays]
            rows = max(len(a) for a in lifted)
            ends.append(np.stack([np.broadcast_to(a, (rows, *node.shape)) for a in lifted], axis=-1))
    return (ends[0], ends[1]) if node.op != "Min" else (-ends[1], -ends[0])


def largest(network: Network, node: Node, coefficient: Floats, boxes: list[Box]) -> tuple[list[Floats], Floats]:
    """Rules max and min over ``boxes`` [...]: with ``coefficient`` A, A max(x) >= sum L_i x_i + m.

    L stands at the candidate k whose lower end is greatest: all of A where A >= 0 or no other reaches it. Otherwise
    ``max(x) <= max(x_k, h)``, h the greatest upper end of the others, lies below its chord over x_k (of two candidates:
    ``x_c + max(x_k - x_c, 0)`` below the chord over the difference).

    Returns:
        The coefficients of the inputs, and m [rows, *node.shape] with its rounding paid.

    """
    sign = -1.0 if node.op == "Min" else 1.0
    coefficient = sign * coefficient
    low, high = _candidates(node, boxes)
    low, high = (np.broadcast_to(end, (len(coefficient), *end.shape[1:])) for end in (low, high))
    best = np.arange(low.shape[-1]) == low.argmax(axis=-1, keepdims=True)
    k_low, k_high = (np.where(best, end, 0.0).sum(axis=-1) for end in (low, high))
    rest_low, rest = (np.where(best, -np.inf, end).max(axis=-1) for end in (low, high))
    pair = low.shape[-1] == 2  # noqa: PLR2004 - a chord over the difference of two
    below, above = k_low - rest, k_high - (rest_low if pair else rest)
    crossing = (coefficient < 0) & (below < 0)
    share = np.where(crossing, np.maximum(above, 0.0) / np.where(crossing, np.maximum(above, 0.0) - below, 1.0), 1.0)
    other = np.where(crossing & pair, 1 - share, 0.0)
    line = coefficient[..., np.newaxis] * np.where(best, share[..., np.newaxis], other[..., np.newaxis])
    least = np.where(crossing, _least(coefficient, line, low, high), 0.0)
    return [sign * part for part in _returned(network, node, line)], least


def _least(coefficient: Floats, line: Floats, low: Floats, high: Floats) -> Floats:
    """Lower bound of ``A max(x) - L x`` over a box for A < 0: the least over who is largest, all parts separable."""
    apart = np.minimum(-(line * low), -(line * high))
    steep = coefficient[..., np.newaxis] - line
    chosen = np.minimum(steep * low, steep * high)
    total = apart.sum(axis=-1, keepdims=True)
    size = np.abs(apart).sum(axis=-1) + np.abs(chosen).max(axis=-1)
    found: Floats = (total - apart + chosen).min(axis=-1)
    lost: Floats = 8 * (line.shape[-1] + 4) * U64 * size
    return found - lost


def _returned(network: Network, node: Node, line: Floats) -> list[Floats]:
    """Coefficients [rows, *node.shape, candidates] put back to the inputs they came from."""
    shapes, rows = [network.nodes[i].shape for i in node.inputs], len(line)
    if node.op == "MaxPool":
        kernel, rank = node.ints["kernel"], len(node.ints["kernel"])
        moved = np.moveaxis(line.reshape(*line.shape[:-1], *kernel), range(-rank, 0), range(2, 2 + rank))
        return [_put_back(moved, node, kernel, shapes[0], node.ints["dilations"])]
    if node.op == "ReduceMax":
        axes = tuple(node.ints["axes"])
        kept = tuple(n for i, n in enumerate(shapes[0]) if i not in axes)
        split = line.reshape(rows, *kept, *(shapes[0][a] for a in axes))
        return [np.moveaxis(split, range(-len(axes), 0), tuple(a + 1 for a in axes))]
    return [_folded(line[..., place], shape) for place, shape in enumerate(shapes)]
