"""Lowering of the ONNX operators that move numbers and compute none, and of arithmetic on shapes.

They work on values and on constants alike; constants are folded. A value's batch axis is followed
through every change of shape and must come out whole: a reshape is accepted only if the product of
the dimensions before the batch axis, and so the place of each row in memory, stays the same (T24).

Source: the ONNX operator specifications, opset 7 and up.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from prune_verify.checker.network import Array
from prune_verify.checker.row_graph import Operand, Row, Step, shown

__all__ = [
    "cast",
    "concat",
    "flatten",
    "gather",
    "pad",
    "reshape",
    "shape",
    "slice_vector",
    "squeeze",
    "transpose",
    "unsqueeze",
]

_FLOAT, _INT32, _INT64 = 1, 6, 7  # numbers of types in TensorProto
_EXACT_INTEGERS = 2**24  # float32 has every integer up to here


def _resolve(step: Step, target: Sequence[int | None], source: Sequence[int | None]) -> list[int | None]:
    """Dimensions after a reshape with ``-1`` resolved; at most one is None, the unknown batch size."""
    have = prod(d for d in source if d is not None)
    known = prod(d for d in target if d is not None and d != -1)
    symbols, free = sum(d is None for d in target), sum(d == -1 for d in target)
    if free > 1 or known < 1 or any(d is not None and d < -1 for d in target):
        raise step.malformed("target shape", "positive dimensions and at most one -1", shown(target))
    missing = sum(d is None for d in source) - symbols
    if free and missing == 0 and have % known == 0:
        return [have // known if d == -1 else d for d in target]
    if missing == free and have == known:
        return [None if d == -1 else d for d in target]
    if None in source or symbols:
        raise step.mixes(f"{shown(source)} as {shown(target)}")
    raise step.malformed("target shape", f"{have} numbers", shown(target))


def _batch_place(step: Step, row: Row, dims: Sequence[int | None]) -> int | None:
    """Where the batch axis stands in ``dims``: what lies before it and behind it must not change."""
    batch = step.builder.batch
    before = prod(step.shape(row)[: row.axis or 0])
    places = [i for i, d in enumerate(dims) if d == batch]
    exact = [i for i in places if prod(d for d in dims[:i] if d is not None) == before]
    if exact:
        return exact[0]
    if batch == 1:  # one row: any axis of length one serves, or none
        return places[0] if places else None
    raise step.mixes(f"{shown(step.tensor_dims(row))} as {shown(dims)}")


def _to_dims(step: Step, value: Operand, target: Sequence[int | None]) -> Operand:
    """The value in another shape."""
    if isinstance(value, Row):
        dims = _resolve(step, target, step.tensor_dims(value))
        return step.reshaped(value, dims, _batch_place(step, value, dims))
    return value.reshape([d for d in _resolve(step, target, value.shape) if d is not None])


def _dims_of(step: Step, value: Operand) -> list[int | None]:
    return step.tensor_dims(value) if isinstance(value, Row) else list(value.shape)


def reshape(step: Step) -> Operand:
    """Reshape; a target of 0 copies the source's dimension unless ``allowzero``."""
    value, target = step.operand(0), step.dims(1)
    source = _dims_of(step, value)
    if not step.integer("allowzero", 0):
        if any(d == 0 and i >= len(source) for i, d in enumerate(target)):
            raise step.malformed("target shape", "a source dimension for every 0", shown(target))
        target = [source[i] if d == 0 else d for i, d in enumerate(target)]
    return _to_dims(step, value, target)


def _joined(step: Step, dims: Sequence[int | None]) -> int | None:
    count = prod(d for d in dims if d is not None)
    if None in dims and count != 1:
        raise step.mixes(f"the batch axis joined with others of {shown(dims)}")
    return None if None in dims else count


def flatten(step: Step) -> Operand:
    """Flatten to a matrix."""
    row = step.row(0)
    dims, axis = step.tensor_dims(row), step.integer("axis", 1)
    axis = axis if axis == len(dims) else step.axis(axis, len(dims))
    return _to_dims(step, row, [_joined(step, dims[:axis]), _joined(step, dims[axis:])])


def squeeze(step: Step) -> Operand:
    """Squeeze of named axes of length one."""
    value, axes = step.operand(0), step.axes(1)
    dims = _dims_of(step, value)
    if axes is None:
        if None in dims:
            raise step.mixes("no axes named: the batch axis would vanish for a batch of one")
        axes = tuple(i for i, d in enumerate(dims) if d == 1)
    gone = step.distinct(axes, len(dims))
    if isinstance(value, Row) and value.axis in gone and step.builder.batch != 1:
        raise step.mixes("a squeeze of the batch axis")
    if any(dims[a] != 1 for a in gone):
        raise step.malformed("squeezed axes", "length 1", shown([dims[a] for a in gone]))
    kept = [d for i, d in enumerate(dims) if i not in gone]
    if not isinstance(value, Row):
        return value.reshape([d for d in kept if d is not None])
    axis = None if value.axis is None or value.axis in gone else value.axis - sum(a < value.axis for a in gone)
    return step.reshaped(value, kept, axis)


def unsqueeze(step: Step) -> Operand:
    """Unsqueeze: new axes of length one."""
    value, axes = step.operand(0), step.axes(1)
    if axes is None:
        raise step.malformed("axes", "given", "none")
    dims = _dims_of(step, value)
    rank = len(dims) + len(axes)
    new = step.distinct(axes, rank)
    old = [i for i in range(rank) if i not in new]
    result: list[int | None] = [1] * rank
    for place, dim in zip(old, dims, strict=True):
        result[place] = dim
    if not isinstance(value, Row):
        step.builder.charge(step.node.place, [1] * rank)
        return value.reshape([d for d in result if d is not None])
    return step.reshaped(value, result, None if value.axis is None else old[value.axis])


def transpose(step: Step) -> Operand:
    """Transpose; one that only moves the batch axis is no operation on a row."""
    value, perm = step.operand(0), step.integers("perm")
    rank = len(_dims_of(step, value))
    perm = tuple(reversed(range(rank))) if perm is None else perm
    if sorted(perm) != list(range(rank)):
        raise step.malformed("attribute perm", f"an order of {rank} axes", str(perm))
    if not isinstance(value, Row):
        return value.transpose(perm)
    axis = None if value.axis is None else perm.index(value.axis)
    mine = tuple(p - (value.axis is not None and p > value.axis) for p in perm if p != value.axis)
    if mine == tuple(range(len(mine))):
        return Row(value.index, axis)
    shape = step.shape(value)
    return step.emit("Transpose", (value.index,), tuple(shape[p] for p in mine), axis, {"perm": mine})


def concat(step: Step) -> Operand:
    """Concat along an axis of the row."""
    parts = [step.operand(i) for i in range(len(step.args))]
    ranks = {len(_dims_of(step, p)) for p in parts}
    if len(ranks) != 1:
        raise step.malformed("ranks", "equal ranks", str(sorted(ranks)))
    rank = ranks.pop()
    axis = step.axis(step.integer("axis", 0), rank)
    places = {p.axis for p in parts if isinstance(p, Row)}
    if not places:
        return _concat_constants(step, [p for p in parts if not isinstance(p, Row)], axis)
    batch_axis = places.pop()
    if places or batch_axis == axis:
        raise step.mixes("a concatenation along the batch axis or of unlike layouts")
    if step.builder.batch != 1 and not all(isinstance(p, Row) for p in parts):
        raise step.mixes("a constant with a batch axis of its own")
    spot = None if batch_axis is None else rank - 1 - batch_axis
    inputs = tuple(
        p.index if isinstance(p, Row) else step.emit_constant(step.row_constant(p, spot, i))
        for i, p in enumerate(parts)
    )
    shapes = [step.builder.nodes[i].shape for i in inputs]
    mine = axis - (batch_axis is not None and axis > batch_axis)
    if len({s[:mine] + s[mine + 1 :] for s in shapes}) != 1:
        raise step.malformed("shapes", "equal but for the axis", " and ".join(str(s) for s in shapes))
    shape = (*shapes[0][:mine], sum(s[mine] for s in shapes), *shapes[0][mine + 1 :])
    return step.emit("Concat", inputs, shape, batch_axis, {"axis": (mine,)})


def _concat_constants(step: Step, parts: Sequence[Array], axis: int) -> Array:
    if len({p.dtype == np.float32 for p in parts}) != 1 or any(p.dtype == np.bool_ for p in parts):
        raise step.malformed("types", "equal types", ", ".join(str(p.dtype) for p in parts))
    if len({p.shape[:axis] + p.shape[axis + 1 :] for p in parts}) != 1:
        raise step.malformed("shapes", "equal but for the axis", " and ".join(str(p.shape) for p in parts))
    step.builder.charge(step.node.place, [sum(p.size for p in parts)])  # repeated doubling would exhaust memory
    return np.concatenate(parts, axis=axis)


def gather(step: Step) -> Operand:
    """Gather with constant indices, never along the batch axis."""
    value, indices = step.operand(0), step.indices(1)
    dims = _dims_of(step, value)
    axis = step.axis(step.integer("axis", 0), len(dims))
    if isinstance(value, Row) and axis == value.axis:
        raise step.mixes("a gather along the batch axis")
    size = dims[axis] or 0
    if indices.size and not (-size <= int(indices.min()) and int(indices.max()) < size):
        raise step.malformed("indices", f"within {size}", f"{int(indices.min())} to {int(indices.max())}")
    indices = np.where(indices < 0, indices + size, indices)
    if not isinstance(value, Row):
        _require_shape_vector(step, value)
        return np.asarray(np.take(value, indices, axis=axis), dtype=value.dtype)  # also for one lone None
    mine = axis - (value.axis is not None and axis > value.axis)
    shape = step.shape(value)
    batch_axis = value.axis
    if batch_axis is not None and batch_axis > axis:
        batch_axis += indices.ndim - 1
    out = (*shape[:mine], *indices.shape, *shape[mine + 1 :])
    step.builder.charge(step.node.place, out)
    flat = tuple(int(i) for i in indices.reshape(-1).tolist())
    ints = {"axis": (mine,), "indices": flat, "index_shape": tuple(indices.shape)}
    return step.emit("Gather", (value.index,), out, batch_axis, ints)


def pad(step: Step) -> Operand:
    """Pad with one number, as concatenation with constants: what older exporters write before a pooling."""
    row, rank = step.row(0), step.rank(step.row(0))
    if (mode := step.text("mode", "constant")) != "constant":
        raise step.refuse("mode", "constant", mode)
    if "pads" in step.node.attributes:  # below opset 11
        widths, fill = list(step.integers("pads") or ()), step.number("value", 0.0)
    else:
        widths = [int(v) for v in step.indices(1).reshape(-1).tolist()]
        filling = np.zeros(1, dtype=np.float32) if step.optional(2) is None else step.floats(2).reshape(-1)
        if filling.size != 1:
            raise step.malformed("constant_value", "one number", str(filling.size))
        fill = np.float32(filling[0])
    axes = range(rank) if step.optional(3) is None else [step.axis(int(a), rank) for a in step.indices(3).reshape(-1)]
    if len(widths) != 2 * len(axes) or len(set(axes)) != len(axes) or min(widths, default=0) < 0:
        raise step.malformed("pads", "two integers of at least 0 for each axis", str(tuple(widths)))
    for place, axis in enumerate(axes):
        row = _padded(step, row, axis, (widths[place], widths[len(axes) + place]), fill)
    return row


def _padded(step: Step, row: Row, axis: int, widths: tuple[int, int], fill: np.float32) -> Row:
    if not any(widths):
        return row
    if axis == row.axis:
        raise step.mixes("new rows of padding")
    mine = axis - (row.axis is not None and axis > row.axis)
    shape = step.shape(row)
    inputs = [row.index]
    for place, width in zip((0, 2), widths, strict=True):
        if width:
            block = (*shape[:mine], width, *shape[mine + 1 :])
            step.builder.charge(step.node.place, block)
            inputs.insert(place, step.emit_constant(np.full(block, fill, dtype=np.float32)))
    out = (*shape[:mine], shape[mine] + sum(widths), *shape[mine + 1 :])
    return step.emit("Concat", tuple(inputs), out, row.axis, {"axis": (mine,)})


# --- shape vectors ---


def _require_shape_vector(step: Step, value: Array) -> None:
    if value.dtype not in (np.int64, object) or value.ndim != 1:
        raise step.refuse("arithmetic on constants", "a vector of dimensions", f"{value.dtype}, rank {value.ndim}")


def shape(step: Step) -> Operand:
    """Shape as a vector, None standing for the unknown batch size."""
    dims = _dims_of(step, step.operand(0))
    start, end = step.integer("start", 0), step.integer("end", len(dims))
    chosen = dims[slice(start, end)]
    if None not in chosen:
        return np.array(chosen, dtype=np.int64)
    vector = np.empty(len(chosen), dtype=object)
    vector[:] = chosen
    return vector


def slice_vector(step: Step) -> Operand:
    """Slice of a shape vector."""
    vector = step.constant(0)
    _require_shape_vector(step, vector)
    if step.node.version < 10:  # noqa: PLR2004 - attributes before opset 10, inputs from then on
        starts, ends, axes, steps = step.integers("starts"), step.integers("ends"), step.integers("axes"), None
    else:
        starts, ends = tuple(step.indices(1).reshape(-1).tolist()), tuple(step.indices(2).reshape(-1).tolist())
        axes = None if step.optional(3) is None else tuple(step.indices(3).reshape(-1).tolist())
        steps = None if step.optional(4) is None else tuple(step.indices(4).reshape(-1).tolist())
    if not starts or not ends or len(starts) != 1 or len(ends) != 1 or axes not in (None, (0,), (-1,)):
        raise step.malformed("slice of a vector", "one start, one end, axis 0", f"{starts}, {ends}, {axes}")
    if steps not in (None, (1,)):
        raise step.refuse("steps", "1", str(steps))
    return vector[slice(int(starts[0]), int(ends[0]))]


def cast(step: Step) -> Operand:
    """Cast that changes no number."""
    value, to = step.operand(0), step.integer("to", 0)
    step.integer("saturate", 1)  # for float8 only
    step.text("round_mode", "up")  # for float8 only
    if isinstance(value, Row) or value.dtype == np.float32:
        if to != _FLOAT:
            raise step.refuse("cast", "float32", f"type {to}")
        return value
    if value.dtype not in (np.int64, object) or to not in (_FLOAT, _INT32, _INT64):
        raise step.refuse("cast", "of integers to int64, int32 or float32", f"{value.dtype} to type {to}")
    if to == _INT64:
        return value
    if (
        value.dtype == object
        or not value.size
        or any(abs(int(v)) > _EXACT_INTEGERS for v in value.reshape(-1).tolist())
    ):
        raise step.refuse("cast", f"some integers within {_EXACT_INTEGERS}", "others or none")
    return value.astype(np.float32) if to == _FLOAT else value
