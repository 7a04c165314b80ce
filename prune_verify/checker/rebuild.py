"""The patched network, rebuilt from a base and the parameters of a patch.

The checker never analyses the patch nodes that the owner shipped. It rebuilds the patched network
from the base and the parameters in ``patch.json`` and compares canonical digests (THREATS T17), so
the rules may speak of the form below and nothing else has to be believed.

Joint head (MATHS 3.2), for the logits z, the labels A that are not forgotten as a class, a gate's
violation d, and one closedness o_y per label::

    d = sum of ReLU(x_j - high_j) + ReLU(low_j - x_j)      g = ReLU(1 - gamma d)
    o_y = ReLU(1 - sum of the g of label y)                G_y = 1 - o_y
    m_y = max over j in A, j != y, of (z_j - M G_j)        N'_y = Min(z_y, (m_y - tau) + K o_y)
    last, for forgotten classes c:  m = max over A of N'   N'_c = Min(z_c, m - (tau + 2^-20 |m|))

A head whose gates hold a margin between low and high, with m_y = max over j != y of z_j::

    N'_y = Max(Min(z_y, min over its gates of (m_y + high) + K (1 - g)), max over them of (m_y + low) - K (1 - g))

An additive patch is N' = N + P: a chain of layers, or the sum of g_i shift_i over gates.

Each line is its own node, in that order: ``K o`` is added last and never merged with z, because
(z + K) - K is not z in floating point (MATHS 3.3). The 1 - G of MATHS is o itself: one rounding less.
A literal is one half of an interval, ``s x_j <= edge``; gates are padded with literals whose edge is
the greatest float32, which no finite input violates.

Source: MATHS 3.2, 3.3, 4.1, 4.3.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.network import Network, Node, canonical_order
from prune_verify.checker.patch import INPUT, JointPatch, LearnedPatch, Patch, ShiftPatch, blocks

__all__ = [
    "CAP_SLOPE",
    "build",
    "coordinates_of",
    "difference_network",
    "hold_ends",
    "hold_order",
    "hold_slots",
    "site_nodes",
    "site_size",
]

CAP_SLOPE = np.float32(2.0**-20)


def site_nodes(base: Network, sites: tuple[str, ...]) -> tuple[int, ...]:
    """The nodes of the base that the sites name.

    Raises:
        MalformedInputError: no sites, one twice, or a name that is not ``input`` or ``relu-k`` of this base.

    """
    relus = [i for i in canonical_order(base) if base.nodes[i].op == "Relu"]
    known = {INPUT: 0} | {f"relu-{place}": index for place, index in enumerate(relus)}
    if not sites or len(set(sites)) != len(sites) or not set(sites) <= set(known):
        expected = f"some of input and relu-0 to relu-{len(relus) - 1}, each once" if relus else "input"
        raise MalformedInputError("patch.json/site", "sites of gates", expected, ", ".join(sites) or "none")
    return tuple(known[site] for site in sites)


def site_size(base: Network, sites: tuple[str, ...]) -> int:
    """How many coordinates the sites have."""
    return sum(prod(base.nodes[index].shape) for index in site_nodes(base, sites))


def coordinates_of(base: Network, patch: Patch) -> int:
    """How many coordinates the gates of a patch can choose from."""
    return site_size(base, (INPUT,) if isinstance(patch, LearnedPatch) else patch.sites)


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


def _openness(new: _Builder, patch: JointPatch | ShiftPatch, nodes: tuple[int, ...]) -> tuple[int, list[int]]:
    """Nodes of the gates: the value g [gates], and which gate each of its elements is."""
    values = [new.flat(index) for index in nodes]
    size = sum(prod(new.shape(index)) for index in values)
    source = values[0] if len(values) == 1 else new.add("Concat", values, (size,), axis=(0,))
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
    scaled = new.add("Mul", [violation, gamma], (count,))
    return new.add("Relu", [new.add("Sub", [new.constant(1.0), scaled], (count,))], (count,)), order


def _record_head(new: _Builder, patch: JointPatch, logits: int, nodes: tuple[int, ...]) -> int:
    """Nodes of the joint head over A: N' [labels in A]."""
    openness, order = _openness(new, patch, nodes)
    width, allowed = (len(patch.allowed),), patch.allowed
    minus = np.zeros((width[0], len(order)), dtype=np.float32)
    for column, index in enumerate(order):
        minus[allowed.index(patch.gates[index].label), column] = -1.0
    closed = new.add("Relu", [new.linear(openness, minus, np.ones(width, dtype=np.float32))], width)
    opened = new.add("Sub", [new.constant(1.0), closed], width)
    lowered = new.add("Sub", [logits, new.add("Mul", [opened, new.constant(patch.shift)], width)], width)
    below = new.add("Sub", [_rivals(new, lowered), new.constant(patch.tau)], width)
    lifted = new.add("Mul", [closed, new.constant(patch.slack)], width)
    return new.add("Min", [logits, new.add("Add", [below, lifted], width)], width)


def _rivals(new: _Builder, logits: int) -> int:
    """Nodes of the greatest logit other than each one."""
    width = new.shape(logits)
    others = np.array([[j for j in range(width[0]) if j != y] for y in range(width[0])], dtype=np.int64)
    return new.add("ReduceMax", [new.gather(logits, others)], width, axes=(1,), keepdims=(0,))


def hold_slots(patch: JointPatch, order: list[int]) -> tuple[list[int], npt.NDArray[np.int64]]:
    """The labels that have gates, and the elements of ``order`` that are each one's: [labels, slots].

    Where a label has fewer, its first one stands again, which changes no greatest value.
    """
    gated = sorted({gate.label for gate in patch.gates})
    own = [[i for i, g in enumerate(order) if patch.gates[g].label == label] for label in gated]
    slots = max(map(len, own))
    return gated, np.array([row + row[:1] * (slots - len(row)) for row in own], dtype=np.int64)


def hold_ends(patch: JointPatch, order: list[int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The ends between which each gate holds the margin: float32 [gates] each, in ``order``."""
    held = [patch.gates[g].hold or (np.float32(0), np.float32(0)) for g in order]
    return np.array([low for low, _ in held], dtype=np.float32), np.array([high for _, high in held], dtype=np.float32)


def _hold_head(new: _Builder, patch: JointPatch, logits: int, nodes: tuple[int, ...]) -> int:
    """Nodes of the head that holds margins: N'_y = Max(Min(z_y, min over its gates of upper), max of lower).

    With m the greatest other logit: upper = (m + high) + K (1 - g), lower = (m + low) - K (1 - g); upper is computed
    as -((-high - m) - K (1 - g)), which rounds the same and lets a greatest value stand for a least one.
    """
    openness, order = _openness(new, patch, nodes)
    count = (len(order),)
    best = new.gather(_rivals(new, logits), np.array([patch.gates[g].label for g in order], dtype=np.int64))
    loose = new.add("Sub", [new.constant(1.0), openness], count)
    loose = new.add("Mul", [loose, new.constant(patch.slack)], count)
    low, high = hold_ends(patch, order)
    (gated, slots), ends = hold_slots(patch, order), []
    for near in (
        new.add("Sub", [new.constant(-high), best], count),
        new.add("Add", [best, new.constant(low)], count),
    ):
        far = new.add("Sub", [near, loose], count)
        ends.append(new.add("ReduceMax", [new.gather(far, slots)], (len(gated),), axes=(1,), keepdims=(0,)))
    upper = new.add("Sub", [new.constant(0.0), ends[0]], (len(gated),))
    own = new.gather(logits, np.array(gated, dtype=np.int64))
    held = new.add("Max", [new.add("Min", [own, upper], (len(gated),)), ends[1]], (len(gated),))
    joined = new.add("Concat", [logits, held], (patch.labels + len(gated),), axis=(0,))
    return new.gather(joined, hold_order(patch.labels, gated))


def hold_order(labels: int, gated: list[int]) -> npt.NDArray[np.int64]:
    """Where each label's logit stands after those of the ``gated`` labels were appended to all ``labels``."""
    return np.array([labels + gated.index(j) if j in gated else j for j in range(labels)], dtype=np.int64)


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
        patch: parameters.

    Returns:
        The patched network, whose digest a deployed file must have.

    Raises:
        MalformedInputError: the patch does not fit the base.

    """
    if patch.labels != base.labels:
        raise MalformedInputError(
            "patch.json/labels", "the base's number of labels", str(base.labels), str(patch.labels)
        )
    new = _Builder(base)
    logits = new.flat(base.output)
    if isinstance(patch, JointPatch):
        output = _joint(new, patch, logits, _site_nodes_that_fit(base, patch))
    else:
        output = new.add("Add", [logits, _added(new, base, patch)], (base.labels,))
    if base.output_shape != (base.labels,):
        output = new.add("Reshape", [output], base.output_shape)
    return Network(tuple(new.nodes), output)


def _site_nodes_that_fit(base: Network, patch: JointPatch | ShiftPatch) -> tuple[int, ...]:
    """The nodes that the gates read."""
    size = site_size(base, patch.sites)
    worst = max((i.coordinate for g in patch.gates for i in g.intervals), default=0)
    if worst >= size:
        raise MalformedInputError("patch.json/gates", "coordinates of the sites", f"below {size}", str(worst))
    return site_nodes(base, patch.sites)


def _joint(new: _Builder, patch: JointPatch, logits: int, nodes: tuple[int, ...]) -> int:
    """Nodes of the heads of a joint patch [labels]."""
    allowed = logits
    if patch.forgotten_classes:
        allowed = new.gather(logits, np.array(patch.allowed, dtype=np.int64))
    if patch.gates:
        allowed = (_hold_head if patch.holds else _record_head)(new, patch, allowed, nodes)
    return _class_head(new, patch, logits, allowed) if patch.forgotten_classes else allowed


def _shift(new: _Builder, patch: ShiftPatch, nodes: tuple[int, ...]) -> int:
    """Nodes of what a shift patch adds [labels]: exact zeros where all gates are closed."""
    openness, order = _openness(new, patch, nodes)
    columns = np.ascontiguousarray(patch.shifts[order].T)
    return new.linear(openness, columns, np.zeros(patch.labels, dtype=np.float32))


def _chain(new: _Builder, patch: LearnedPatch) -> int:
    """Nodes of what a learned patch adds [labels]."""
    value = new.flat(0)
    for place, (weight, bias) in enumerate(patch.layers):
        if weight.shape[1:] != new.shape(value):
            path = f"patch.json/layers/{place}"
            raise MalformedInputError(path, "width of the layer before", str(new.shape(value)), str(weight.shape))
        value = new.linear(value if place == 0 else new.add("Relu", [value], new.shape(value)), weight, bias)
    if new.shape(value) != (patch.labels,):
        raise MalformedInputError("patch.json/layers", "one output per label", str(patch.labels), str(new.shape(value)))
    return value


def _added(new: _Builder, base: Network, patch: LearnedPatch | ShiftPatch) -> int:
    """Nodes of what an additive patch adds [labels]."""
    if isinstance(patch, LearnedPatch):
        return _chain(new, patch)
    return _shift(new, patch, _site_nodes_that_fit(base, patch))


def difference_network(base: Network, patch: LearnedPatch | ShiftPatch) -> Network:
    """What an additive patch adds to the logits, alone: N' - N, from the input to one number per label.

    Raises:
        MalformedInputError: the patch does not fit the base.

    """
    last = 0 if isinstance(patch, LearnedPatch) else max(_site_nodes_that_fit(base, patch))
    new = _Builder(Network(base.nodes[: last + 1], last))
    output = _added(new, base, patch)
    return Network(tuple(new.nodes), output)
