"""A second checker in exact rationals, written from ``certs/SPEC.md`` alone: slow, short, and without float arithmetic.

It shares no function with the product. Networks come in as the node list of the product's loader (data, not judgement);
the patched network, its digest, the separation rules, the interval pass, the relaxation, the proof container, split trees and the weights of
minimality are written again here. Numbers are ``fractions.Fraction``, so no rounding has to be argued about: E of section 5.1
is the only term that speaks of float32. Section numbers are those of ``certs/SPEC.md``.

Covered in bounds: Linear over the last axis, Relu, Reshape, and Add, Sub or Mul of equal shapes (Mul by a constant). Anything
else is refused, and so is method ``relaxation+smt``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, prod

BINARY32 = "ieee754-binary32"
U, TINY, HUGE = Fraction(1, 2**24), Fraction(1, 2**100), Fraction(2**127)
HEAD_SLACK, CAP_LOSS, LEAST_TAU = Fraction(1, 2**18), Fraction(1, 2**21), Fraction(1, 2**100)
FLT_MAX, BLOCK = 3.4028234663852886e38, 256
FOLDED = ("Add", "Sub", "Mul", "Max", "Min")


class RefusedError(Exception):
    """The files do not give the claim."""


def require(holds: bool, why: str) -> None:
    if not holds:
        raise RefusedError(why)


@dataclass(frozen=True)
class Node:
    """One node of section 2.1; ``arrays`` are (shape, little-endian float32 bytes)."""

    op: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    ints: dict = field(default_factory=dict)
    arrays: dict = field(default_factory=dict)

    def values(self, name: str) -> list[Fraction]:
        data = self.arrays[name][1]
        return [Fraction(v) for v in struct.unpack(f"<{len(data) // 4}f", data)]


@dataclass(frozen=True)
class Graph:
    nodes: tuple[Node, ...]
    output: int


def lowered(network) -> Graph:
    """The product's node list, as data."""

    def node(n) -> Node:
        arrays = {name: (tuple(a.shape), a.astype("<f4").tobytes()) for name, a in n.arrays.items()}
        return Node(n.op, tuple(n.inputs), tuple(n.shape), dict(n.ints), arrays)

    return Graph(tuple(map(node, network.nodes)), network.output)


# --- 2.2 digest ---


def digest(graph: Graph) -> str:  # noqa: C901 - the section, in its order
    order, stack = [0], [graph.output]
    while stack:
        waiting = [i for i in graph.nodes[stack[-1]].inputs if i not in order and i not in stack]
        if waiting:
            stack.append(waiting[0])
        elif (done := stack.pop()) not in order:
            order.append(done)
    order = [i for i in order if graph.nodes[i].op != "Constant" or i == graph.output]
    out = hashlib.sha256(b"prune-verify/network/v1\0")

    def put(*fields: bytes) -> None:
        for data in fields:
            out.update(struct.pack("<Q", len(data)) + data)

    def ints(values) -> bytes:
        return struct.pack(f"<{len(values)}q", *values)

    for index in order:
        node = graph.nodes[index]
        put(node.op.encode())
        for source in node.inputs:
            if source in order:
                put(ints([order.index(source)]))
                continue
            shape, data = graph.nodes[source].arrays["value"]
            while node.op in FOLDED and shape[:1] == (1,):
                shape = shape[1:]
            put(b"constant tensor", ints(shape), data)
        put(b"", ints(node.shape))
        for name in sorted(node.ints):
            put(name.encode(), ints(node.ints[name]))
        put(b"")
        for name in sorted(node.arrays):
            put(name.encode(), ints(node.arrays[name][0]), node.arrays[name][1])
        put(b"")
    return out.hexdigest()


# --- 3 patch.json and the patched network ---


def number(text) -> float:
    require(isinstance(text, str) and re.fullmatch("[0-9a-f]{8}", text) is not None, "8 hex digits")
    (value,) = struct.unpack(">f", bytes.fromhex(text))
    require(abs(value) <= FLT_MAX, "a finite float32")
    return value


@dataclass(frozen=True)
class Gate:
    label: int
    gamma: Fraction
    box: list  # (coordinate, low or None, high or None), floats


@dataclass(frozen=True)
class Patch:
    labels: int
    allowed: list
    forgotten: list
    tau: float
    shift: float
    slack: float
    gates: list
    layers: list | None = None


def object_of_unique_members(pairs):
    require(len({k for k, _ in pairs}) == len(pairs), "duplicate members")
    return dict(pairs)


def read_patch(data: bytes, base: Graph) -> Patch:
    """Section 3: the closed form, and what is refused."""
    try:
        p = json.loads(data.decode("utf-8"), object_pairs_hook=object_of_unique_members)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    size, labels = prod(base.nodes[0].shape), prod(base.nodes[base.output].shape)
    common = {"formatVersion", "family", "baseNetwork", "labels", "site", "conflicts", "disclosed"}
    learned = p.get("family") == "learned"
    own = {"layers"} if learned else {"forgottenClasses", "tau", "shift", "slack", "gates"}
    require(set(p) == common | own and p["formatVersion"] == 1 and p["site"] == "input", "the members of section 3")
    require(p["baseNetwork"] == digest(base) and p["labels"] == labels, "the base")
    if learned:
        return Patch(labels, list(range(labels)), [], 0, 0, 0, [], [read_layer(x) for x in p["layers"]])
    forgotten = p["forgottenClasses"]
    allowed = [j for j in range(labels) if j not in forgotten]
    require(forgotten == sorted(set(forgotten)) and all(0 <= c < labels for c in forgotten), "classes")
    gates = [read_gate(g, size, allowed) for g in p["gates"]]
    require(p["family"] == ("box" if gates else "class-cap"), "family")
    require(len(allowed) > (1 if gates else 0) and bool(gates or forgotten), "labels that stay")
    edges = sum((low is not None) + (high is not None) for g in gates for _, low, high in g.box)
    count = sum(len(g.box) for g in gates)
    bits = 32 * edges + count * (size - 1).bit_length()
    require(p["disclosed"] == {"coordinates": count, "bits": bits}, "disclosed")
    tau, shift, slack = (number(p[name]) for name in ("tau", "shift", "slack"))
    require(tau > 0 and shift >= 0 and slack >= 0, "constants of the head")
    return Patch(labels, allowed, forgotten, tau, shift, slack, gates)


def read_layer(layer: dict) -> tuple:
    out, width = layer["shape"]
    weight, bias = (base64.b64decode(layer[name], validate=True) for name in ("weight", "bias"))
    require(len(weight) == 4 * out * width and len(bias) == 4 * out, "sizes of a layer")
    require(all(abs(v) <= FLT_MAX for (v,) in struct.iter_unpack("<f", weight + bias)), "finite weights")
    return {"weight": ((out, width), weight), "bias": ((out,), bias)}


def read_gate(gate: dict, size: int, allowed: list) -> Gate:
    require(set(gate) == {"label", "gamma", "intervals", "records"} and gate["label"] in allowed, "gate")
    gamma = number(gate["gamma"])
    box = [(j, low and number(low), high and number(high)) for j, low, high in gate["intervals"]]
    require(gamma >= 2.0**-126 and bool(box), "a slope of at least 2^-126, and intervals")
    places = [j for j, _, _ in box]
    require(places == sorted(set(places)) and places[0] >= 0 and places[-1] < size, "coordinates")
    require(all((low, high) != (None, None) for _, low, high in box), "an edge")
    require(all(low is None or high is None or low <= high for _, low, high in box), "low <= high")
    return Gate(gate["label"], Fraction(gamma), box)


class Builder:
    """Appends the nodes of section 3 to those of the base."""

    def __init__(self, base: Graph) -> None:
        self.nodes = list(base.nodes)

    def add(self, op: str, inputs: list, shape: tuple, arrays=None, **ints) -> int:
        self.nodes.append(Node(op, tuple(inputs), tuple(shape), ints, arrays or {}))
        return len(self.nodes) - 1

    def constant(self, values: list, *shape: int) -> int:
        return self.add("Constant", [], shape, {"value": (shape, struct.pack(f"<{len(values)}f", *values))})

    def flat(self, source: int) -> int:
        shape = self.nodes[source].shape
        return source if len(shape) == 1 else self.add("Reshape", [source], (prod(shape),))

    def gather(self, source: int, indices: list, *shape: int) -> int:
        return self.add("Gather", [source], shape, axis=(0,), indices=tuple(indices), index_shape=shape)


def rebuilt(base: Graph, patch: Patch) -> Graph:
    new = Builder(base)
    logits = new.flat(base.output)
    if patch.layers is not None:
        value = new.flat(0)
        for place, arrays in enumerate(patch.layers):
            out, width = arrays["weight"][0]
            require((width,) == new.nodes[value].shape, "width of a layer")
            source = new.add("Relu", [value], (width,)) if place else value
            value = new.add("Linear", [source], (out,), arrays, axis=(-1,))
        require(new.nodes[value].shape == (patch.labels,), "one output per label")
        output = new.add("Add", [logits, value], (patch.labels,))
    else:
        kept = new.gather(logits, patch.allowed, len(patch.allowed)) if patch.forgotten else logits
        output = joint_head(new, patch, kept) if patch.gates else kept
        if patch.forgotten:
            output = class_head(new, patch, logits, output)
    if len(base.nodes[base.output].shape) != 1:
        output = new.add("Reshape", [output], base.nodes[base.output].shape)
    return Graph(tuple(new.nodes), output)


def literals(gate: Gate) -> list:
    highs = [(j, 1.0, high) for j, _, high in gate.box if high is not None]
    return highs + [(j, -1.0, -low) for j, low, _ in gate.box if low is not None]


def joint_head(new: Builder, patch: Patch, logits: int) -> int:
    source, k = new.flat(0), len(patch.allowed)
    order = sorted(patch.gates, key=lambda g: len(literals(g)))
    parts = []
    for start in range(0, len(order), BLOCK):
        lists = [literals(g) for g in order[start : start + BLOCK]]
        shape = (len(lists[-1]), len(lists))
        padded = [row + [(0, 1.0, FLT_MAX)] * (shape[0] - len(row)) for row in lists]
        cells = [padded[column][slot] for slot in range(shape[0]) for column in range(shape[1])]
        value = new.gather(source, [j for j, _, _ in cells], *shape)
        if any(sign < 0 for _, sign, _ in cells):
            value = new.add("Mul", [value, new.constant([s for _, s, _ in cells], *shape)], shape)
        value = new.add("Sub", [value, new.constant([e for _, _, e in cells], *shape)], shape)
        value = new.add("Relu", [value], shape)
        parts.append(new.add("ReduceSum", [value], shape[1:], axes=(0,), keepdims=(0,)))
    n = len(order)
    violation = parts[0] if len(parts) == 1 else new.add("Concat", parts, (n,), axis=(0,))
    scaled = new.add("Mul", [violation, new.constant([float(g.gamma) for g in order], n)], (n,))
    g = new.add("Relu", [new.add("Sub", [new.constant([1.0]), scaled], (n,))], (n,))
    minus = [-1.0 if gate.label == label else 0.0 for label in patch.allowed for gate in order]
    arrays = {"weight": ((k, n), struct.pack(f"<{k * n}f", *minus)), "bias": ((k,), struct.pack("<f", 1.0) * k)}
    o = new.add("Relu", [new.add("Linear", [g], (k,), arrays, axis=(-1,))], (k,))
    opened = new.add("Sub", [new.constant([1.0]), o], (k,))
    lowered_by = new.add("Mul", [opened, new.constant([patch.shift])], (k,))
    moved = new.add("Sub", [logits, lowered_by], (k,))
    others = new.gather(moved, [j for y in range(k) for j in range(k) if j != y], k, k - 1)
    best = new.add("ReduceMax", [others], (k,), axes=(1,), keepdims=(0,))
    below = new.add("Sub", [best, new.constant([patch.tau])], (k,))
    lifted = new.add("Mul", [o, new.constant([patch.slack])], (k,))
    return new.add("Min", [logits, new.add("Add", [below, lifted], (k,))], (k,))


def class_head(new: Builder, patch: Patch, logits: int, kept: int) -> int:
    best = new.add("ReduceMax", [kept], (1,), axes=(0,), keepdims=(1,))
    size = new.add("Mul", [new.add("Abs", [best], (1,)), new.constant([2.0**-20])], (1,))
    cap = new.add("Sub", [best, new.add("Add", [new.constant([patch.tau]), size], (1,))], (1,))
    n = len(patch.forgotten)
    capped = new.add("Min", [new.gather(logits, patch.forgotten, n), cap], (n,))
    joined = new.add("Concat", [kept, capped], (patch.labels,), axis=(0,))
    place = patch.allowed + patch.forgotten
    return new.gather(joined, [place.index(j) for j in range(patch.labels)], patch.labels)


# --- 4 gates ---


def ends(domain: tuple, j: int) -> tuple:
    low, high = domain
    return (low[0], high[0]) if len(low) == 1 else (low[j], high[j])


def gate_open(gate: Gate, row: list, radius: Fraction, domain: tuple) -> bool:
    """4.1"""
    for j, low, high in gate.box:
        least, most = ends(domain, j)
        below, above = max(least, row[j] - radius), min(most, row[j] + radius)
        if (high is not None and above > Fraction(high)) or (low is not None and below < Fraction(low)):
            return False
    return True


def gate_closed(gate: Gate, row: list, radius: Fraction, arithmetic: str) -> bool:
    """4.2"""
    total = Fraction(0)
    for j, low, high in gate.box:
        total += max(
            Fraction(0),
            row[j] - radius - Fraction(high) if high is not None else Fraction(0),
            Fraction(low) - row[j] - radius if low is not None else Fraction(0),
        )
    least, terms = 1 / gate.gamma, 2 * len(gate.box) + 4
    if arithmetic == BINARY32:
        least = least * (1 + terms * U) + terms * Fraction(1, 2**126)
    return total >= least


def fewest(forget: list, retain: list, weights: list, radius: Fraction, cover: int, retained: Fraction) -> int:
    """4.9: weights are (record, units of 2^-20)."""
    loads = [Fraction(0)] * len(forget[0])
    for record, weight in weights:
        apart = [
            retain[record][j] - retained > max(row[j] for row in forget) + radius
            or retain[record][j] + retained < min(row[j] for row in forget) - radius
            for j in range(len(loads))
        ]
        require(sum(apart) >= cover, "a weight on a record that cannot be separated")
        loads = [load + Fraction(weight, 2**20) * a for load, a in zip(loads, apart, strict=True)]
    total = sum(Fraction(weight, 2**20) for _, weight in weights)
    return max(0, ceil(cover * total - sum(max(Fraction(0), load - 1) for load in loads)))


def covers(gate: Gate, forget: list, retain: list, radius: Fraction, cover: int, retained: Fraction) -> bool:
    """4.9: every retained ball that ``cover`` coordinates separate from the hull is separated so often from the box."""
    for row in retain:
        high = [max(values) + radius for values in zip(*forget, strict=True)]
        low = [min(values) - radius for values in zip(*forget, strict=True)]
        hull = sum(x - retained > b or x + retained < a for x, a, b in zip(row, low, high, strict=True))
        box = sum(
            (top is not None and row[j] - retained > top) or (bottom is not None and row[j] + retained < bottom)
            for j, bottom, top in gate.box
        )
        if hull >= cover > box:
            return False
    return True


# --- 5.1 interval pass ---


def gamma(n: int) -> Fraction:
    return n * U / (1 - n * U)


class Enclosures:
    """Low and high of every node, flat; E; and whether some case has nothing left."""

    def __init__(self, graph: Graph, arithmetic: str) -> None:
        self.graph, self.arithmetic = graph, arithmetic
        self.low, self.high, self.lost, self.sums, self.empty = [], [], [], {}, False

    def size(self, index: int) -> list:
        return [max(abs(a), abs(b)) for a, b in zip(self.low[index], self.high[index], strict=True)]

    def narrow(self, index: int, low: list, high: list) -> None:
        self.low[index] = [max(a, b) for a, b in zip(self.low[index], low, strict=True)]
        self.high[index] = [min(a, b) for a, b in zip(self.high[index], high, strict=True)]
        self.empty |= any(a > b for a, b in zip(self.low[index], self.high[index], strict=True))
        self.high[index] = [max(a, b) for a, b in zip(self.low[index], self.high[index], strict=True)]

    def append(self, index: int, box: tuple) -> None:
        node = self.graph.nodes[index]
        low, high, lost = self.step(index, node, box)
        if self.arithmetic == BINARY32:
            low = [a - e for a, e in zip(low, lost, strict=True)]
            high = [b + e for b, e in zip(high, lost, strict=True)]
            require(all(a > -HUGE and b < HUGE for a, b in zip(low, high, strict=True)), "no overflow")
        self.low.append(low)
        self.high.append(high)
        self.lost.append(lost)

    def step(self, index: int, node: Node, box: tuple) -> tuple:
        none = [Fraction(0)] * prod(node.shape)
        if node.op == "Input":
            return [*box[0]], [*box[1]], none
        if node.op == "Constant":
            value = node.values("value")
            return value, value, none
        ins = [(self.low[i], self.high[i], self.size(i)) for i in node.inputs]
        require(all(len(low) == len(none) for low, _, _ in ins) or node.op == "Linear", "equal shapes")
        low, high, size = ins[0]
        if node.op == "Linear":
            return self.linear(index, node, low, high, size)
        if node.op == "Relu":
            zero = Fraction(0)
            return [max(a, zero) for a in low], [max(b, zero) for b in high], [TINY] * len(low)
        if node.op == "Reshape":
            return low, high, none
        require(node.op in ("Add", "Sub", "Mul"), "an operator of this reference")
        low2, high2, size2 = ins[1]
        if node.op == "Mul":
            both = [[a * b for a in (p, q) for b in (r, s)] for p, q, r, s in zip(low, high, low2, high2, strict=True)]
            total = [a * b for a, b in zip(size, size2, strict=True)]
            lost = [U * t + (2 + max(size) + max(size2)) * TINY for t in total]
            out = [min(v) for v in both], [max(v) for v in both]
        else:
            if node.op == "Sub":
                low2, high2 = [-v for v in high2], [-v for v in low2]
            total = [a + b for a, b in zip(size, size2, strict=True)]
            lost = [2 * U * t + 3 * TINY for t in total]
            out = [a + b for a, b in zip(low, low2, strict=True)], [a + b for a, b in zip(high, high2, strict=True)]
        read = [i for i in node.inputs if i in self.sums]
        if read:  # rewritten graphs
            parts = [self.sums[i][0] if i in self.sums else self.size(i) for i in node.inputs]
            both = zip(*parts, strict=True)
            total = [a * b for a, b in both] if node.op == "Mul" else [a + b for a, b in both]
            n = max(self.sums[i][1] for i in read) + 4
            self.sums[index] = total, n
            lost = [e + gamma(n + 4) * t + 4 * (n + 4) * TINY for e, t in zip(lost, total, strict=True)]
        return *out, lost

    def linear(self, index: int, node: Node, low: list, high: list, size: list) -> tuple:
        (out, width), _ = node.arrays["weight"]
        require(node.ints["axis"] == (-1,) and len(low) == width, "Linear over a row")
        w = node.values("weight")
        rows = [w[i * width : (i + 1) * width] for i in range(out)]
        bias = node.values("bias") if "bias" in node.arrays else [Fraction(0)] * out
        require("alpha" not in node.arrays and "beta" not in node.arrays, "no alpha and beta here")
        total = [
            sum(abs(v) * s for v, s in zip(row, size, strict=True)) + abs(b) for row, b in zip(rows, bias, strict=True)
        ]
        n = width + 4
        tiny = n * ((2 + max(map(abs, w), default=Fraction(0)) + max(size)) * 2 + 3) * TINY
        self.sums[index] = total, max(n, out)
        least = [
            sum((v * (p if v > 0 else q) for v, p, q in zip(row, low, high, strict=True)), b)
            for row, b in zip(rows, bias, strict=True)
        ]
        most = [
            sum((v * (q if v > 0 else p) for v, p, q in zip(row, low, high, strict=True)), b)
            for row, b in zip(rows, bias, strict=True)
        ]
        return least, most, [gamma(n) * t + tiny for t in total]


# --- 5.2 relaxation ---


def walk(  # noqa: C901 - the table of the section
    known: Enclosures, start: int, c: list, slopes: dict, shifts: dict, cut: dict
) -> Fraction:
    """A lower bound of c . value; ``cut`` are boxes after the cases of a leaf."""
    graph, total, open_nodes = known.graph, Fraction(0), {start: c}

    def box(i: int) -> tuple:
        return cut.get(i, (known.low[i], known.high[i]))

    for index in range(start, -1, -1):
        a = open_nodes.pop(index, None)
        if a is None:
            continue
        node, parts = graph.nodes[index], []
        if node.op in ("Input", "Constant"):
            total += sum(min(v * p, v * q) for v, p, q in zip(a, *box(index), strict=True))
            continue
        if known.arithmetic == BINARY32:
            total -= sum(abs(v) * e for v, e in zip(a, known.lost[index], strict=True))
        if node.op == "Linear":
            (out, width), _ = node.arrays["weight"]
            w = node.values("weight")
            parts = [[sum(a[i] * w[i * width + j] for i in range(out)) for j in range(width)]]
            total += sum(v * b for v, b in zip(a, node.values("bias"), strict=True)) if "bias" in node.arrays else 0
        elif node.op == "Relu":
            line = []
            for j, (v, p, q) in enumerate(zip(a, *box(node.inputs[0]), strict=True)):
                x, m = relu(v, p, q, slopes.get(index, {}).get(j), shifts.get((index, j), Fraction(0)))
                line.append(x)
                total += m
            parts = [line]
        elif node.op == "Reshape":
            parts = [a]
        elif node.op in ("Add", "Sub"):
            parts = [a, [-v for v in a] if node.op == "Sub" else a]
        else:
            constant = [i for i in node.inputs if graph.nodes[i].op == "Constant"]
            require(node.op == "Mul" and bool(constant), "a factor that is constant")
            scaled = [v * k for v, k in zip(a, graph.nodes[constant[0]].values("value"), strict=True)]
            parts = [[Fraction(0)] * len(a) if i == constant[0] else scaled for i in node.inputs]
        for source, part in zip(node.inputs, parts, strict=True):
            open_nodes[source] = (
                [x + y for x, y in zip(open_nodes[source], part, strict=True)] if source in open_nodes else part
            )
    return total


def relu(a: Fraction, low: Fraction, high: Fraction, slope, shift: Fraction) -> tuple:
    if low >= 0:
        line = a
    elif high <= 0:
        line = Fraction(0)
    elif a >= 0:
        crown = Fraction(int(high > -low * (1 + Fraction(1, 1024))))
        line = a * (crown if slope is None else slope)
    else:
        line = a * high / (high - low)
    line += shift
    points = [low, high] + ([Fraction(0)] if low < 0 < high else [])
    return line, min(a * max(x, 0) - line * x for x in points)


def enclosures(
    graph: Graph, box: tuple, arithmetic: str, within: Enclosures | None = None, slopes: dict | None = None
) -> Enclosures:
    known, relaxed = Enclosures(graph, arithmetic), []
    known.empty = within.empty if within else False
    read = {node.inputs[0] for node in graph.nodes if node.op == "Relu"}
    for index, node in enumerate(graph.nodes):
        known.append(index, box)
        if within:
            known.narrow(index, within.low[index], within.high[index])
        below = any(relaxed[i] for i in node.inputs)
        if below and index in read:
            low, high = [*known.low[index]], [*known.high[index]]
            for j, (p, q) in enumerate(zip(known.low[index], known.high[index], strict=True)):
                if p < 0 < q:
                    one = [Fraction(int(i == j)) for i in range(len(low))]
                    low[j] = walk(known, index, one, slopes or {}, {}, {})
                    high[j] = -walk(known, index, [-v for v in one], slopes or {}, {}, {})
            known.narrow(index, low, high)
            require(within is not None or not known.empty, "enclosures that agree")
        relaxed.append(node.op == "Relu" or below)
    return known


# --- 5.3 and 5.4: goals and proofs ---


@dataclass(frozen=True)
class Question:
    """``boxes`` [records] of (low, high); ``clauses`` [records][clauses][atoms] of (c, least); ``strict``."""

    graph: Graph
    arithmetic: str
    boxes: list
    clauses: list
    strict: bool = False


LISTS = {
    "choices": "i",
    "combinations": "f",
    "hinted": "i",
    "smt": "i",
    "trees": "i",
    "steps": "i",
    "cuts": "f",
    "multipliers": "f",
}


def read_proof(data: bytes) -> dict:
    first, _, body = data.partition(b"\n")
    require(first == b"prune-verify/proof/v2 " + hashlib.sha256(body).hexdigest().encode(), "the first line")
    line, _, values = body.partition(b"\n")
    header = json.loads(line, object_pairs_hook=object_of_unique_members)
    require(
        json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == line,
        "canonical header",
    )
    found, start = {name: header[name] for name in ("arithmetic", "kind", "method", "network", "records")}, 0
    for array in header["arrays"]:
        kind = {"i4": "i", "f4": "f"}[array["dtype"]]
        count = prod(array["shape"])
        numbers = struct.unpack(f"<{count}{kind}", values[start : start + 4 * count])
        require(kind == "i" or all(abs(v) <= FLT_MAX for v in numbers), "finite numbers")
        found[array["name"]] = list(numbers) if kind == "i" else [Fraction(v) for v in numbers]
        start += 4 * count
    require(start == len(values) and list(LISTS) == [a["name"] for a in header["arrays"]][: len(LISTS)], "the arrays")
    return found


def slope_sets(proof: dict) -> list:
    """The sets: by Relu node, by place."""
    sets: list = []
    for name, places in proof.items():
        if name.startswith("active/"):
            values = proof["slopes/" + name[7:]]
            for row in range(len(values) // len(places)):
                if row == len(sets):
                    sets.append({})
                sets[row][int(name[7:])] = dict(zip(places, values[row * len(places) :], strict=False))
    return sets


def decide(question: Question, proof: dict) -> list:
    """Which goals are proved: [records][clauses]."""
    q, sets = question, slope_sets(proof)
    count = len(q.clauses[0])
    goals = len(q.boxes) * count
    choices = proof["choices"] or [0] * goals
    require(len(choices) == goals and not proof["smt"], "one choice per goal, no z3")
    roots = [enclosures(q.graph, box, q.arithmetic) for box in q.boxes]
    reader = Trees(q, proof, sets)
    trees = {goal: reader.tree(goal, roots[goal // count]) for goal in proof["trees"]}
    require(
        not reader.steps and reader.paid in (len(proof["multipliers"]), reader.paid * (not proof["multipliers"])),
        "nothing left over",
    )
    proved = []
    for goal in range(goals):
        if goal in trees:
            proved.append(trees[goal])
            continue
        hinted = [sets[proof["hinted"].index(goal)]] if goal in proof["hinted"] else []
        proved.append(
            choices[goal] >= 0
            and any(reader.holds(goal, choices[goal], roots[goal // count], s, {}, {}) for s in [{}, *hinted])
        )
    return [proved[i * count : (i + 1) * count] for i in range(len(q.boxes))]


class Trees:
    def __init__(self, question: Question, proof: dict, sets: list) -> None:
        self.q, self.proof, self.sets, self.paid = question, proof, sets, 0
        numbers = proof["steps"]
        self.steps = [tuple(numbers[i : i + 3]) for i in range(0, len(numbers), 3)]

    def holds(self, goal: int, choice: int, known: Enclosures, slopes: dict, shifts: dict, cut: dict) -> bool:
        count = len(self.q.clauses[0])
        atoms = self.q.clauses[goal // count][goal % count]
        if choice < len(atoms):
            factors = [Fraction(int(i == choice)) for i in range(len(atoms))]
        else:
            start = (choice - len(atoms)) * len(atoms)
            factors = self.proof["combinations"][start : start + len(atoms)]
            require(len(factors) == len(atoms) and any(factors), "a combination of something")
        c = [sum(f * atom[0][i] for f, atom in zip(factors, atoms, strict=True)) for i in range(len(atoms[0][0]))]
        least = sum(f * atom[1] for f, atom in zip(factors, atoms, strict=True))
        bound = walk(known, self.q.graph.output, c, slopes, shifts, cut)
        return bound > least if self.q.strict else bound >= least

    def tree(self, goal: int, known: Enclosures, cuts: tuple = (), splits: tuple = ()) -> bool:
        require(bool(self.steps), "a leaf for every case")
        kind, first, second = self.steps.pop(0)
        if kind == 0:
            given = self.proof["multipliers"][self.paid : self.paid + len(splits)]
            self.paid += len(splits)
            shifts: dict = {}
            for place, value in zip(splits, given or [Fraction(0)] * len(splits), strict=True):
                shifts[place] = shifts.get(place, Fraction(0)) + value
            cut, empty = narrowed(known, cuts)
            return empty or self.holds(goal, first, known, self.sets[second] if second >= 0 else {}, shifts, cut)
        if kind == 3:
            cut, empty = narrowed(known, cuts)
            within = Enclosures(known.graph, known.arithmetic)
            within.low, within.high, within.empty = [*known.low], [*known.high], empty
            for node, (low, high) in cut.items():
                within.low[node], within.high[node] = low, high
            box = within.low[0], within.high[0]
            tightened = enclosures(known.graph, box, known.arithmetic, within, self.sets[first] if first >= 0 else {})
            return self.tree(goal, tightened, (), splits)
        if kind == 1:
            require(self.q.graph.nodes[first].op == "Relu", "a Relu")
            node, value, splits = self.q.graph.nodes[first].inputs[0], Fraction(0), (*splits, (first, second))
            place = second
        else:
            require(kind == 2, "a step")
            node, place, value = 0, first, self.proof["cuts"][second]
        sides = [self.tree(goal, known, (*cuts, (node, place, value, below)), splits) for below in (True, False)]
        return all(sides)


def narrowed(known: Enclosures, cuts: tuple) -> tuple:
    found: dict = {}
    for node, place, value, below in cuts:
        low, high = found.get(node, ([*known.low[node]], [*known.high[node]]))
        if below:
            high[place] = min(high[place], value)
        else:
            low[place] = max(low[place], value)
        found[node] = low, high
    empty = known.empty or any(a > b for low, high in found.values() for a, b in zip(low, high, strict=True))
    return {
        node: (low, [max(a, b) for a, b in zip(low, high, strict=True)]) for node, (low, high) in found.items()
    }, empty
