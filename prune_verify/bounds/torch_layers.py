"""The few layers that networks are translated into, and the index maps and matrices they are made from.

auto_LiRPA 0.3 loses the contribution of an index that a Gather repeats, so a map with repetitions is
a 0/1 matrix here, and one without is an ``index_select``.

Source: auto_LiRPA 0.3, ``BoundGather.bound_backward`` (scatter, which overwrites).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_verify.bounds.errors import UnsupportedNetworkError
from prune_verify.checker.network import Network, Node, evaluate_all, windows

__all__ = [
    "Affine",
    "Reshaped",
    "Scaled",
    "Select",
    "alone",
    "candidates",
    "index_layer",
    "index_map",
    "matrix",
    "size_of",
]

_LARGEST_MATRIX = 2**26
_MATRIX_RANK = 2
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def size_of(shape: Sequence[int]) -> int:
    """Number of values of a per-row shape."""
    return int(np.prod(shape, dtype=np.int64))


def _tensor(array: npt.NDArray[np.generic], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64)).to(dtype)


def _constant(array: npt.NDArray[np.generic] | None, dtype: torch.dtype) -> nn.Parameter | None:
    return None if array is None else nn.Parameter(_tensor(array, dtype), requires_grad=False)


class Reshaped(nn.Module):
    """The same numbers as [batch, *shape]."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """X [batch, ...] as [batch, *shape]."""
        return torch.flatten(x, 1) if len(self.shape) == 1 else x.reshape(-1, *self.shape)


class Affine(nn.Module):
    """x -> W x + b on flattened rows, [batch, *shape].

    Args:
        weight: float64 [out, in].
        bias: float64 [out] or None.
        shape: of a row of the result.
        dtype: of the parameters.

    """

    def __init__(self, weight: Doubles, bias: Doubles | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(_tensor(weight, dtype), requires_grad=False)
        self.bias = _constant(bias, dtype)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """X [batch, ...] to [batch, *shape]."""
        flat = x if x.ndim == _MATRIX_RANK else torch.flatten(x, 1)
        y = nn.functional.linear(flat, self.weight, self.bias)
        return y if len(self.shape) == 1 else y.reshape(-1, *self.shape)


class Select(nn.Module):
    """Chosen numbers of flattened rows, at ``index`` [n], each at most once, as [batch, *shape]."""

    def __init__(self, index: Ints, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("index", torch.from_numpy(index))
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """X [batch, ...] to [batch, *shape]."""
        flat = x if x.ndim == _MATRIX_RANK else torch.flatten(x, 1)
        y = torch.index_select(flat, 1, self.get_buffer("index"))
        return y if len(self.shape) == 1 else y.reshape(-1, *self.shape)


class Scaled(nn.Module):
    """x -> scale x + shift, number by number, in ``dtype``.

    Either is [*shape] or None (a batch axis of 1 would confuse auto_LiRPA).
    """

    def __init__(self, scale: Doubles | None, shift: Doubles | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = _constant(scale, dtype)
        self.shift = _constant(shift, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """X [batch, *shape] to [batch, *shape]."""
        y = x if self.scale is None else x * self.scale
        return y if self.shift is None else y + self.shift


def alone(node: Node, source_shape: tuple[int, ...], *, bias: bool) -> Network:
    """The node as a network of its own, with or without its bias.

    Args:
        node: any.
        source_shape: per-row shape of its input.
        bias: keep the bias.

    """
    arrays = {name: array for name, array in node.arrays.items() if bias or name != "bias"}
    return Network((Node("Input", (), source_shape), Node(node.op, (0,), node.shape, node.ints, arrays)), 1)


def index_map(node: Node, source_shape: tuple[int, ...]) -> Ints:
    """Where each number of a node that only moves numbers of ``source_shape`` comes from: flat source indices."""
    places = np.arange(size_of(source_shape), dtype=np.float64).reshape(1, *source_shape)  # whole numbers stay exact
    return evaluate_all(alone(node, source_shape, bias=True), places)[1].reshape(-1).astype(np.int64)


def candidates(node: Node, source_shape: tuple[int, ...]) -> Ints:
    """Flat source indices [candidates, size of the result] among which ``ReduceMax`` or ``MaxPool`` finds its maximum.

    Padding of a pool is never the greatest: a padded place stands for another place of its window.

    Args:
        node: of one of these operators.
        source_shape: per-row shape of its input.

    """
    places = np.arange(size_of(source_shape), dtype=np.int64).reshape(source_shape)
    if node.op == "ReduceMax":
        axes = node.ints["axes"]
        moved = np.moveaxis(places, axes, range(len(axes)))
        return moved.reshape(size_of([source_shape[a] for a in axes]), -1)
    kernel = node.ints["kernel"]
    view = windows(places[np.newaxis], kernel, node.ints["strides"], node.ints["pads"], node.ints["dilations"], -1)
    rows = view.reshape(size_of(node.shape), size_of(kernel)).astype(np.int64)
    return np.where(rows < 0, rows.max(axis=1, keepdims=True), rows).T


def _require_matrix(what: str, columns: int, rows: int) -> None:
    if columns * rows > _LARGEST_MATRIX:
        text = f"{what} from {columns} to {rows} numbers is too large for a matrix"
        raise UnsupportedNetworkError(text)


def matrix(node: Node, source_shape: tuple[int, ...], dtype: torch.dtype) -> Affine:
    """Any linear node as a matrix: its own weight where it is one, else its values on unit rows.

    Args:
        node: any linear one.
        source_shape: per-row shape of its input.
        dtype: of the weight.

    Raises:
        UnsupportedNetworkError: the matrix would have more than 2^26 numbers.

    """
    columns, rows = size_of(source_shape), size_of(node.shape)
    _require_matrix(node.op, columns, rows)
    zero = np.zeros((1, *source_shape), dtype=np.float64)
    bias = evaluate_all(alone(node, source_shape, bias=True), zero)[1].reshape(-1).astype(np.float64)
    if node.op == "Linear" and len(source_shape) == 1 and "alpha" not in node.arrays:
        weight = node.arrays["weight"].astype(np.float64)
    else:
        units = np.eye(columns, dtype=np.float64).reshape(columns, *source_shape)
        values = evaluate_all(alone(node, source_shape, bias=False), units)[1]
        weight = values.reshape(columns, rows).T.astype(np.float64)
    return Affine(weight, bias if bias.any() else None, node.shape, dtype)


def index_layer(index: Ints, source_shape: tuple[int, ...], shape: tuple[int, ...], dtype: torch.dtype) -> nn.Module:
    """A layer that puts the source's number ``index[i]`` at place i of ``shape``.

    Args:
        index: int64 [n], flat source indices.
        source_shape: per-row shape of the source.
        shape: of the result.
        dtype: of a weight, where there is one.

    Raises:
        UnsupportedNetworkError: the map repeats a place and its matrix would have more than 2^26 numbers.

    """
    columns = size_of(source_shape)
    if np.array_equal(index, np.arange(columns)):
        return Reshaped(shape)
    if len(np.unique(index)) == len(index):
        return Select(np.ascontiguousarray(index), shape)
    _require_matrix("an index map", columns, len(index))
    weight = np.zeros((len(index), columns))
    weight[np.arange(len(index)), index] = 1.0
    return Affine(weight, None, shape, dtype)
