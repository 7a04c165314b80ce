"""Patches: their parameters, and the patched network rebuilt from a base and a patch.

The checker never analyses the patch nodes that the owner shipped. It rebuilds the patched network
from the base and the parameters in ``patch.json`` and compares canonical digests (THREATS T17), so
the rules may speak of the form below and nothing else has to be believed.

Joint head (MATHS 3.2), for the logits z, the labels A that are not forgotten as a class, a gate's
violation d, and one closedness o_y per label::

    d = sum of ReLU(x_j - high_j) + ReLU(low_j - x_j)      g = ReLU(1 - gamma d)
    o_y = ReLU(1 - sum of the g of label y)                G_y = 1 - o_y
    m_y = max over j in A, j != y, of (z_j - M G_j)        N'_y = Min(z_y, (m_y - tau) + K o_y)
    last, for forgotten classes c:  m = max over A of N'   N'_c = Min(z_c, m - (tau + 2^-20 |m|))

Each line is its own node, in that order: ``K o`` is added last and never merged with z, because
(z + K) - K is not z in floating point (MATHS 3.3). The 1 - G of MATHS is o itself: one rounding less.
A literal is one half of an interval, ``s x_j <= edge``; gates are padded with literals whose edge is
the greatest float32, which no finite input violates.

Source: MATHS 3.2, 3.3, 4.1, 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.network import Network, Node

__all__ = ["Block", "Gate", "Interval", "JointPatch", "LearnedPatch", "Patch", "blocks", "build"]

BLOCK_GATES = 256
NEVER_VIOLATED = np.finfo(np.float32).max
CAP_SLOPE = np.float32(2.0**-20)


@dataclass(frozen=True)
class Interval:
    """One coordinate of a box: ``low <= x_j <= high``; an absent edge does not restrict.

    Args:
        coordinate: index into the flattened input row.
        low: float32 edge or None.
        high: float32 edge or None.

    """

    coordinate: int
    low: np.float32 | None
    high: np.float32 | None


@dataclass(frozen=True)
class Gate:
    """A box gate on few coordinates of the graph input.

    Args:
        label: the label that the gate suppresses.
        gamma: float32 slope; the support of the gate reaches 1/gamma (l1 violation) beyond the box.
        intervals: ascending by coordinate, one per coordinate.
        records: indices of the forget records that the gate is for (a hint: containment is checked).

    """

    label: int
    gamma: np.float32
    intervals: tuple[Interval, ...]
    records: tuple[int, ...]

    @property
    def literals(self) -> int:
        """Number of half-spaces."""
        return sum((i.low is not None) + (i.high is not None) for i in self.intervals)


@dataclass(frozen=True)
class JointPatch:
    """Families ``box`` and ``class-cap``: gates on few coordinates under the joint head.

    Args:
        labels: number k of logits of the base.
        forgotten_classes: ascending labels that the patched network never answers.
        tau: float32 margin of the head.
        shift: M of MATHS 3.2 (float32); 0 without gates.
        slack: K of MATHS 3.2 (float32); 0 without gates.
        gates: in the order of ``patch.json``.

    """

    labels: int
    forgotten_classes: tuple[int, ...]
    tau: np.float32
    shift: np.float32
    slack: np.float32
    gates: tuple[Gate, ...]

    @property
    def family(self) -> str:
        """The name of the family in files."""
        return "box" if self.gates else "class-cap"

    @property
    def allowed(self) -> tuple[int, ...]:
        """The set A: labels that are not forgotten as a class."""
        return tuple(j for j in range(self.labels) if j not in self.forgotten_classes)


@dataclass(frozen=True, eq=False)
class LearnedPatch:
    """Family ``learned``: a ReLU chain P from the input to the logits, with N' = N + P.

    Args:
        labels: number k of logits of the base.
        layers: (weight [out, in], bias [out]) pairs, float32; a ReLU stands between consecutive layers.

    """

    labels: int
    layers: tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], ...]
    family: str = field(default="learned", init=False)


Patch = JointPatch | LearnedPatch


@dataclass(frozen=True, eq=False)
class Block:
    """Gates of similar size, as the tensors of one batch of nodes.

    Args:
        gates: indices into ``JointPatch.gates``.
        coordinates: [slots, gates]: the x_j that each literal reads.
        signs: float32 [slots, gates] of 1 and -1, or None where all are 1.
        edges: float32 [slots, gates]; a literal is violated by ``sign x - edge`` when that is positive.

    """

    gates: tuple[int, ...]
    coordinates: npt.NDArray[np.int64]
    signs: npt.NDArray[np.float32] | None
    edges: npt.NDArray[np.float32]


def _literals(gate: Gate) -> list[tuple[int, float, np.float32]]:
    """The gate's half-spaces as (coordinate, sign, edge): a lower edge is an upper one on -x, and negation is exact."""
    highs = [(i.coordinate, 1.0, i.high) for i in gate.intervals if i.high is not None]
    lows = [(i.coordinate, -1.0, np.float32(-i.low)) for i in gate.intervals if i.low is not None]
    return highs + lows


def blocks(patch: JointPatch) -> list[Block]:
    """The gates sorted by their number of literals and cut into blocks, padded within a block only."""
    order = sorted(range(len(patch.gates)), key=lambda g: (patch.gates[g].literals, g))
    result = []
    for start in range(0, len(order), BLOCK_GATES):
        chosen = order[start : start + BLOCK_GATES]
        slots = patch.gates[chosen[-1]].literals
        coordinates = np.zeros((slots, len(chosen)), dtype=np.int64)
        signs = np.ones((slots, len(chosen)), dtype=np.float32)
        edges = np.full((slots, len(chosen)), NEVER_VIOLATED, dtype=np.float32)
        for column, index in enumerate(chosen):
            for slot, literal in enumerate(_literals(patch.gates[index])):
                coordinates[slot, column], signs[slot, column], edges[slot, column] = literal
        mixed = bool((signs < 0).any())
        result.append(Block(tuple(chosen), coordinates, signs if mixed else None, edges))
    return result


class _Builder:
    """Appends nodes to a base network."""

    def __init__(self, base: Network) -> None:
        self.nodes = list(base.nodes)

    def shape(self, index: int) -> tuple[int, ...]:
        return self.nodes[index].shape

    def add(self, op: str, inputs: list[int], shape: tuple[int, ...], **ints: tuple[int, ...]) -> int:
        self.nodes.append(Node(op, tuple(inputs), shape, dict(ints)))
        return len(self.nodes) - 1

    def constant(self, value: npt.ArrayLike) -> int:
        array = np.ascontiguousarray(value, dtype=np.float32)
        array.setflags(write=False)
        self.nodes.append(Node("Constant", (), array.shape, {}, {"value": array}))
        return len(self.nodes) - 1

    def linear(self, source: int, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> int:
        arrays = {"weight": np.ascontiguousarray(weight), "bias": np.ascontiguousarray(bias)}
        for array in arrays.values():
            array.setflags(write=False)
        self.nodes.append(Node("Linear", (source,), (weight.shape[0],), {"axis": (-1,)}, arrays))
        return len(self.nodes) - 1

    def flat(self, source: int) -> int:
        shape = self.shape(source)
        size = int(np.prod(shape, dtype=np.int64))
        return source if shape == (size,) else self.add("Reshape", [source], (size,))

    def gather(self, source: int, indices: npt.NDArray[np.int64]) -> int:
        return self.add(
            "Gather",
            [source],
            indices.shape,
            axis=(0,),
            indices=tuple(int(i) for i in indices.reshape(-1)),
            index_shape=indices.shape,
        )


def _closedness(new: _Builder, patch: JointPatch) -> int:
    """Nodes of the gates: the value o [labels in A], exactly 1 where all gates of the label are closed."""
    source = new.flat(0)
    parts: list[int] = []
    order: list[int] = []
    for block in blocks(patch):
        shape = block.edges.shape
        gathered = new.gather(source, block.coordinates)
        if block.signs is not None:
            gathered = new.add("Mul", [gathered, new.constant(block.signs)], shape)
        above = new.add("Sub", [gathered, new.constant(block.edges)], shape)
        violated = new.add("Relu", [above], shape)
        parts.append(new.add("ReduceSum", [violated], shape[1:], axes=(0,), keepdims=(0,)))
        order += block.gates
    count = len(order)
    violation = parts[0] if len(parts) == 1 else new.add("Concat", parts, (count,), axis=(0,))
    gamma = new.constant([patch.gates[g].gamma for g in order])
    one = new.constant(1.0)
    scaled = new.add("Mul", [violation, gamma], (count,))
    openness = new.add("Relu", [new.add("Sub", [one, scaled], (count,))], (count,))
    allowed = patch.allowed
    minus = np.zeros((len(allowed), count), dtype=np.float32)
    for column, index in enumerate(order):
        minus[allowed.index(patch.gates[index].label), column] = -1.0
    total = new.linear(openness, minus, np.ones(len(allowed), dtype=np.float32))
    return new.add("Relu", [total], (len(allowed),))


def _record_head(new: _Builder, patch: JointPatch, logits: int) -> int:
    """Nodes of the joint head over A: N' [labels in A]."""
    width = (len(patch.allowed),)
    closed = _closedness(new, patch)
    opened = new.add("Sub", [new.constant(1.0), closed], width)
    lowered = new.add("Sub", [logits, new.add("Mul", [opened, new.constant(patch.shift)], width)], width)
    others = np.array([[j for j in range(width[0]) if j != y] for y in range(width[0])], dtype=np.int64)
    best = new.add("ReduceMax", [new.gather(lowered, others)], width, axes=(1,), keepdims=(0,))
    below = new.add("Sub", [best, new.constant(patch.tau)], width)
    lifted = new.add("Mul", [closed, new.constant(patch.slack)], width)
    return new.add("Min", [logits, new.add("Add", [below, lifted], width)], width)


def _class_head(new: _Builder, patch: JointPatch, logits: int, allowed: int) -> int:
    """Nodes of the cap on the forgotten classes: all k logits in the base's order."""
    classes = patch.forgotten_classes
    best = new.add("ReduceMax", [allowed], (1,), axes=(0,), keepdims=(1,))
    size = new.add("Mul", [new.add("Abs", [best], (1,)), new.constant(CAP_SLOPE)], (1,))
    drop = new.add("Add", [new.constant(patch.tau), size], (1,))
    cap = new.add("Sub", [best, drop], (1,))
    forgotten = new.gather(logits, np.array(classes, dtype=np.int64))
    capped = new.add("Min", [forgotten, cap], (len(classes),))
    joined = new.add("Concat", [allowed, capped], (patch.labels,), axis=(0,))
    place = {label: i for i, label in enumerate(patch.allowed + classes)}
    return new.gather(joined, np.array([place[j] for j in range(patch.labels)], dtype=np.int64))


def build(base: Network, patch: Patch) -> Network:
    """The patched network: the nodes of the base untouched, and the patch's nodes after them.

    Args:
        base: the base network.
        patch: parameters; a ``JointPatch`` or a ``LearnedPatch``.

    Returns:
        The patched network, whose digest a deployed file must have.

    Raises:
        MalformedInputError: the patch does not fit the base.

    """
    size = int(np.prod(base.input_shape, dtype=np.int64))
    if patch.labels != base.labels:
        raise MalformedInputError(
            "patch.json/labels", "the base's number of labels", str(base.labels), str(patch.labels)
        )
    new = _Builder(base)
    logits = new.flat(base.output)
    if isinstance(patch, LearnedPatch):
        output = _learned(new, patch, logits)
    else:
        worst = max((i.coordinate for g in patch.gates for i in g.intervals), default=0)
        if worst >= size:
            raise MalformedInputError(
                "patch.json/gates", "coordinates of the base's input", f"below {size}", str(worst)
            )
        allowed = logits
        if patch.forgotten_classes:
            allowed = new.gather(logits, np.array(patch.allowed, dtype=np.int64))
        output = _record_head(new, patch, allowed) if patch.gates else allowed
        if patch.forgotten_classes:
            output = _class_head(new, patch, logits, output)
    if base.output_shape != (base.labels,):
        output = new.add("Reshape", [output], base.output_shape)
    return Network(tuple(new.nodes), output)


def _learned(new: _Builder, patch: LearnedPatch, logits: int) -> int:
    """Nodes of a learned patch: N + P [labels]."""
    value = new.flat(0)
    for place, (weight, bias) in enumerate(patch.layers):
        if weight.shape[1:] != new.shape(value):
            path = f"patch.json/layers/{place}"
            raise MalformedInputError(path, "width of the layer before", str(new.shape(value)), str(weight.shape))
        value = new.linear(value if place == 0 else new.add("Relu", [value], new.shape(value)), weight, bias)
    if new.shape(value) != (patch.labels,):
        raise MalformedInputError("patch.json/layers", "one output per label", str(patch.labels), str(new.shape(value)))
    return new.add("Add", [logits, value], (patch.labels,))
