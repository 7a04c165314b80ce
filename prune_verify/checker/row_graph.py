"""What the lowering of ONNX works on: operands that know where the batch axis is, and a builder of nodes.

A tensor that depends on the network's input is a :class:`Row`: a node of the per-row representation
and the place of the batch axis in the ONNX tensor. A layout such as [features, batch] is therefore
the same per-row value as [batch, features], and an operator that touches the batch axis itself can be
told from one that does not. All other tensors are constants; a shape vector that contains the unknown
batch size is an object array with ``None`` in that place.

Source: THREATS T24; ONNX broadcasting rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import CheckError, LimitError, MalformedInputError, UnsupportedVersionError
from prune_verify.checker.network import Array, Node

__all__ = ["Attribute", "Builder", "Floats", "GraphNode", "LoadLimits", "Operand", "Row", "Step", "shown"]

Floats = npt.NDArray[np.float32]
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | Array


@dataclass(frozen=True)
class LoadLimits:
    """What a network may need at most; part of the auditor's policy.

    Args:
        max_bytes: length of the file.
        max_nodes: number of ONNX nodes.
        max_elements: numbers in one tensor or in one row of one value.
        max_total: numbers in all values of one row and all folded constants together.
        max_rank: axes of a tensor.

    """

    max_bytes: int = 2**28
    max_nodes: int = 100_000
    max_elements: int = 2**26
    max_total: int = 2**30
    max_rank: int = 8


@dataclass(frozen=True)
class Row:
    """A tensor that depends on the input.

    Args:
        index: node of the per-row representation.
        axis: the batch axis in the ONNX tensor; None where a fixed batch of one was squeezed away.

    """

    index: int
    axis: int | None


Operand = Row | Array


@dataclass(frozen=True, eq=False)
class GraphNode:
    """One ONNX node, freed from its protobuf.

    Args:
        op: operator of the default domain.
        version: opset in which the definition in force was introduced.
        place: file and node, for errors.
        inputs: names, empty for an absent optional input.
        outputs: names, empty for an absent optional output.
        attributes: by name; names and types are those of the operator's schema.

    """

    op: str
    version: int
    place: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


def shown(dims: Sequence[int | None]) -> str:
    """Dimensions ``dims`` as text, the unknown batch size as ``N``."""
    return "[" + ", ".join("N" if d is None else str(d) for d in dims) + "]"


class Builder:
    """Appends nodes (``op``, ``inputs``, ``shape``, ``ints``, ``arrays``) and keeps account of their sizes.

    Args:
        row_shape: per-row shape of the input.
        batch: the fixed batch size, or None when it is symbolic.
        limits: sizes allowed.
        place: the file, for errors.

    """

    def __init__(self, row_shape: tuple[int, ...], batch: int | None, limits: LoadLimits, place: str) -> None:
        self.batch = batch
        self.limits = limits
        self.nodes: list[Node] = []
        self._total = 0
        self.add(place, "Input", (), row_shape)

    def charge(self, place: str, dims: Sequence[int]) -> None:
        """Refuse a tensor of ``dims`` above the limits before anybody allocates it."""
        if any(d < 1 for d in dims):
            raise MalformedInputError(place, "dimensions", "at least 1", shown(dims))
        count = prod(dims)
        if len(dims) > self.limits.max_rank:
            raise LimitError(place, "rank of a tensor", f"at most {self.limits.max_rank}", str(len(dims)))
        if count > self.limits.max_elements:
            raise LimitError(place, "numbers in a tensor", f"at most {self.limits.max_elements}", str(count))
        self._total += count
        if self._total > self.limits.max_total:
            raise LimitError(place, "numbers in all tensors", f"at most {self.limits.max_total}", str(self._total))

    def add(
        self,
        place: str,
        op: str,
        inputs: tuple[int, ...],
        shape: tuple[int, ...],
        ints: dict[str, tuple[int, ...]] | None = None,
        arrays: dict[str, Floats] | None = None,
    ) -> int:
        """Index of a new node; its arrays become contiguous and read-only."""
        self.charge(place, shape)
        frozen = {}
        for name, value in (arrays or {}).items():
            array = np.array(value, dtype=np.float32, order="C")
            array.setflags(write=False)
            frozen[name] = array
        self.nodes.append(Node(op, inputs, shape, dict(ints or {}), frozen))
        return len(self.nodes) - 1


@dataclass
class Step:
    """The lowering of one ONNX node: its operands, its attributes and its errors.

    Methods make errors (fields ``rule``, ``expected``, ``got``), read the attribute ``name`` (or ``default``) or the
    operand at ``place`` (of ``rank`` or ``least_rank``), turn ``value`` [...], ``values``, ``axis`` or ``spot`` into
    those of rows, and emit nodes (``op``, ``inputs``, ``shape``, ``ints``, ``arrays``).

    Args:
        builder: receives the nodes.
        node: the ONNX node.
        args: operands in order, None for an absent optional input.
        opset: version of the default domain.
        read: the attributes that were read; the others are refused.

    """

    builder: Builder
    node: GraphNode
    args: tuple[Operand | None, ...]
    opset: int
    read: set[str] = field(default_factory=set)

    # errors: returned, so that callers write ``raise step.refuse(...)``

    def refuse(self, rule: str, expected: str = "", got: str = "") -> CheckError:
        """A valid use that this checker does not know."""
        return UnsupportedVersionError(self.node.place, rule, expected, got)

    def malformed(self, rule: str, expected: str = "", got: str = "") -> CheckError:
        """A use that ONNX does not allow."""
        return MalformedInputError(self.node.place, rule, expected, got)

    def mixes(self, got: str) -> CheckError:
        """An operation across the batch axis, or one that depends on the size of the batch."""
        return UnsupportedVersionError(
            self.node.place, "rows of a batch are independent", "an operation within each row", got
        )

    # attributes

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        self.read.add(name)
        value = self.node.attributes.get(name, default)
        if not isinstance(value, int):
            raise self.malformed(f"attribute {name}", "an integer", type(value).__name__)
        return value

    def number(self, name: str, default: float) -> np.float32:
        """A float attribute."""
        self.read.add(name)
        value = self.node.attributes.get(name, default)
        if not isinstance(value, float):
            raise self.malformed(f"attribute {name}", "a float", type(value).__name__)
        return np.float32(value)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        self.read.add(name)
        value = self.node.attributes.get(name, default)
        if not isinstance(value, str):
            raise self.malformed(f"attribute {name}", "a string", type(value).__name__)
        return value

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, or None when the attribute is absent."""
        self.read.add(name)
        value = self.node.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, tuple):
            raise self.malformed(f"attribute {name}", "a list of integers", type(value).__name__)
        return tuple(int(v) for v in value)

    # operands

    def optional(self, place: int) -> Operand | None:
        """The operand, or None when the node has none there."""
        return self.args[place] if place < len(self.args) else None

    def operand(self, place: int) -> Operand:
        """The operand, which must be there."""
        value = self.optional(place)
        if value is None:
            raise self.malformed(f"input {place}", "a value", "none")
        return value

    def row(self, place: int) -> Row:
        """The operand, which must depend on the network's input."""
        value = self.operand(place)
        if not isinstance(value, Row):
            raise self.refuse(f"input {place}", "a value that depends on the network's input", "a constant")
        return value

    def constant(self, place: int) -> Array:
        """The operand, which must be a constant of any type."""
        value = self.operand(place)
        if isinstance(value, Row):
            raise self.refuse(f"input {place}", "a constant", "a value that depends on the network's input")
        return value

    def floats(self, place: int) -> Floats:
        """The operand, which must be a float32 constant."""
        value = self.constant(place)
        if value.dtype != np.float32:
            raise self.malformed(f"type of input {place}", "float32", _kind(value))
        return value.astype(np.float32, copy=False)

    def indices(self, place: int) -> npt.NDArray[np.int64]:
        """The operand, which must be a constant of integers without the unknown batch size."""
        value = self.constant(place)
        if value.dtype != np.int64:
            raise self.refuse(f"input {place}", "constant integers", _kind(value))
        return value.astype(np.int64, copy=False)

    def dims(self, place: int) -> list[int | None]:
        """The operand as a list of dimensions, None for the unknown batch size."""
        value = self.constant(place)
        if value.ndim > 1 or value.dtype not in (np.int64, object):
            raise self.malformed(f"input {place}", "a vector of integers", f"{_kind(value)}, rank {value.ndim}")
        return [None if v is None else int(v) for v in value.reshape(-1).tolist()]

    def axes(self, place: int) -> tuple[int, ...] | None:
        """The axes from the attribute (older opsets) or the input (newer ones), None when absent."""
        if "axes" in self.node.attributes or self.optional(place) is None:
            return self.integers("axes")
        value = self.indices(place)
        if value.ndim > 1:
            raise self.malformed(f"input {place}", "a vector of axes", f"rank {value.ndim}")
        return tuple(int(v) for v in value.reshape(-1).tolist())

    def axis(self, value: int, rank: int) -> int:
        """An axis counted from the front."""
        if not -rank <= value < rank:
            raise self.malformed("axis", f"within rank {rank}", str(value))
        return value % rank

    def distinct(self, values: Sequence[int], rank: int) -> list[int]:
        """Axes counted from the front, ascending, no axis twice."""
        result = sorted({self.axis(v, rank) for v in values})
        if len(result) != len(values):
            raise self.malformed("axes", "no axis twice", str(tuple(values)))
        return result

    # rows

    def shape(self, row: Row) -> tuple[int, ...]:
        """Per-row shape."""
        return self.builder.nodes[row.index].shape

    def rank(self, row: Row) -> int:
        """Number of axes of the ONNX tensor."""
        return len(self.shape(row)) + (row.axis is not None)

    def tensor_dims(self, row: Row) -> list[int | None]:
        """Dimensions of the ONNX tensor, None for the unknown batch size."""
        dims: list[int | None] = list(self.shape(row))
        if row.axis is not None:
            dims.insert(row.axis, self.builder.batch)
        return dims

    def batch_first(self, place: int, least_rank: int) -> Row:
        """The operand, which must be a row-dependent tensor [batch, channel, ...] of at least that rank."""
        row = self.row(place)
        if row.axis != 0:
            raise self.mixes(f"batch axis at {row.axis}, where the operator has its channels or space")
        if self.rank(row) < least_rank:
            raise self.malformed(f"rank of input {place}", f"at least {least_rank}", str(self.rank(row)))
        return row

    def emit(
        self,
        op: str,
        inputs: tuple[int, ...],
        shape: tuple[int, ...],
        axis: int | None,
        ints: dict[str, tuple[int, ...]] | None = None,
        arrays: dict[str, Floats] | None = None,
    ) -> Row:
        """A new row-dependent value whose batch axis stands at ``axis``."""
        return Row(self.builder.add(self.node.place, op, inputs, shape, ints, arrays), axis)

    def emit_constant(self, value: Floats) -> int:
        """Index of a constant node."""
        return self.builder.add(self.node.place, "Constant", (), value.shape, {}, {"value": value})

    def reshaped(self, row: Row, dims: Sequence[int | None], axis: int | None) -> Row:
        """The same numbers in the ONNX shape ``dims``, the batch at ``axis``; no node where the shape stays."""
        shape = tuple(d for i, d in enumerate(dims) if i != axis and d is not None)
        if shape == self.shape(row):
            return Row(row.index, axis)
        return self.emit("Reshape", (row.index,), shape, axis)

    def row_constant(self, value: Array, spot: int | None, place: int) -> Floats:
        """A constant without the axis that meets the batch axis, which stands ``spot`` axes from the right."""
        array = value
        if array.dtype != np.float32:
            raise self.malformed(f"type of input {place}", "float32", _kind(array))
        if spot is not None and array.ndim > spot:
            if array.shape[-1 - spot] != 1:
                raise self.mixes(f"a constant of shape {array.shape} that gives each row its own numbers")
            array = array.squeeze(axis=-1 - spot)
        return array.astype(np.float32, copy=False)

    def broadcast(self) -> tuple[tuple[int, ...], tuple[int, ...], int | None]:
        """Operands of an element-wise operator as node indices, the per-row shape, and the batch axis of the result."""
        operands = [self.operand(i) for i in range(len(self.args))]
        rows = [o for o in operands if isinstance(o, Row)]
        if not rows:
            raise self.refuse(
                "arithmetic on constants", "a value that depends on the network's input", "constants only"
            )
        spots = {self.rank(r) - 1 - r.axis for r in rows if r.axis is not None}
        if len(spots) > 1:
            raise self.mixes("operands whose batch axes do not meet")
        spot = next(iter(spots), None)
        indices = []
        for place, operand in enumerate(operands):
            if not isinstance(operand, Row):
                indices.append(self.emit_constant(self.row_constant(operand, spot, place)))
                continue
            if operand.axis is None and spot is not None and self.rank(operand) > spot:
                raise self.mixes("an operand without a batch axis against one with it")
            indices.append(operand.index)
        rank = max(self.rank(o) if isinstance(o, Row) else o.ndim for o in operands)
        shape = self._common_shape([self.builder.nodes[i].shape for i in indices])
        return tuple(indices), shape, None if spot is None else rank - 1 - spot

    def _common_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        rank = max(len(s) for s in shapes)
        padded = [(1,) * (rank - len(s)) + s for s in shapes]
        result = tuple(max(column) for column in zip(*padded, strict=True))
        for shape in padded:
            if any(d not in (1, full) for d, full in zip(shape, result, strict=True)):
                raise self.malformed("broadcasting", "shapes that fit", " and ".join(str(s) for s in shapes))
        return result


def _kind(value: Array) -> str:
    return "a shape with the unknown batch size" if value.dtype == object else str(value.dtype)
