"""A second reading of hidden sites, gates that hold margins, shifts and least shifts, from certs/SPEC.md alone.

Beside tests/reference_checker.py, in rationals and plain Python; nothing here imports the product.
Source: certs/SPEC.md sections 3, 4.10 and 4.11.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from tests.reference_checker import (
    BLOCK,
    FLT_MAX,
    Builder,
    Enclosures,
    Graph,
    digest,
    literals,
    number,
    object_of_unique_members,
    read_gate,
    require,
)


@dataclass(frozen=True)
class Form:
    """A patch of section 3 whose gates read sites, hold margins, or add shifts."""

    labels: int
    sites: list  # nodes
    gates: list
    records: list  # of each gate
    holds: list | None  # (low, high) of each gate
    shifts: list | None  # of each gate, [labels]
    slack: float = 0.0


def relus(base: Graph) -> list:
    """The Relu nodes in the order of section 2.2."""
    order, stack = [0], [base.output]
    while stack:
        waiting = [i for i in base.nodes[stack[-1]].inputs if i not in order]
        if waiting:
            stack.append(waiting[0])
        elif (done := stack.pop()) not in order:
            order.append(done)
    return [i for i in order if base.nodes[i].op == "Relu"]


def site_nodes(base: Graph, site: object) -> list:
    if site == "input":
        return [0]
    known = {"input": 0} | {f"relu-{k}": node for k, node in enumerate(relus(base))}
    require(isinstance(site, list) and bool(site) and site != ["input"], "a list of sites")
    require(all(isinstance(name, str) and name in known for name in site), "sites of the base")
    require(len(set(site)) == len(site), "each site once")
    return [known[name] for name in site]


def read(data: bytes, base: Graph) -> Form:
    """Section 3: families linear-region, and box whose gates hold margins or read sites (then without ``holds``)."""
    try:
        p = json.loads(data.decode("utf-8"), object_pairs_hook=object_of_unique_members)
    except ValueError:
        p = None
    require(isinstance(p, dict), "an object")
    shifted, labels = p.get("family") == "linear-region", prod(base.nodes[base.output].shape)
    common = {"formatVersion", "family", "baseNetwork", "labels", "site", "gates", "disclosed"}
    own = {"shifts"} if shifted else {"forgottenClasses", "tau", "shift", "slack", "conflicts"}
    require(set(p) == common | own and p["formatVersion"] == 1, "the members of section 3")
    require(p["family"] in ("box", "linear-region") and p["labels"] == labels, "family and labels")
    require(p["baseNetwork"] == digest(base) and bool(p["gates"]), "the base, and gates")
    sites = site_nodes(base, p["site"])
    size = sum(prod(base.nodes[i].shape) for i in sites)
    held = [gate.get("hold") for gate in p["gates"]]
    plain = [{k: v for k, v in gate.items() if k != "hold"} for gate in p["gates"]]
    gates = [read_gate(gate, size, list(range(labels))) for gate in plain]
    holds = shifts = None
    more = 0
    if any("hold" in gate for gate in p["gates"]):
        require(not shifted and all(isinstance(end, list) and len(end) == 2 for end in held), "hold in every gate")
        holds = [(number(low), number(high)) for low, high in held]
        require(not p["forgottenClasses"] and number(p["tau"]) == number(p["shift"]) == 0, "no other head")
        more = 2 * len(gates)
    if shifted:
        values = base64.b64decode(p["shifts"], validate=True)
        require(len(values) == 4 * labels * len(gates), "a shift for every gate and label")
        numbers = [v for (v,) in struct.iter_unpack("<f", values)]
        require(all(abs(v) <= FLT_MAX for v in numbers), "finite shifts")
        shifts = [numbers[i * labels : (i + 1) * labels] for i in range(len(gates))]
        more = len(numbers)
    count = sum(len(g.box) for g in gates)
    edges = sum((low is not None) + (high is not None) for g in gates for _, low, high in g.box)
    bits = 32 * (edges + more) + count * (size - 1).bit_length()
    require(p["disclosed"] == {"coordinates": count, "bits": bits}, "disclosed")
    records = [gate["records"] for gate in p["gates"]]
    return Form(labels, sites, gates, records, holds, shifts, 0.0 if shifted else number(p["slack"]))


def openness(new: Builder, form: Form) -> tuple[int, list]:
    """g of all gates, and which gate each element is."""
    parts = [new.flat(i) for i in form.sites]
    sizes = [new.nodes[i].shape[0] for i in parts]
    source = parts[0] if len(parts) == 1 else new.add("Concat", parts, (sum(sizes),), axis=(0,))
    never = 2.0**62 if form.shifts is not None else FLT_MAX
    order = sorted(range(len(form.gates)), key=lambda g: len(literals(form.gates[g])))
    sums = []
    for start in range(0, len(order), BLOCK):
        lists = [literals(form.gates[g]) for g in order[start : start + BLOCK]]
        shape = (len(lists[-1]), len(lists))
        cells = [(row + [(0, 1.0, never)] * (shape[0] - len(row)))[slot] for slot in range(shape[0]) for row in lists]
        value = new.gather(source, [j for j, _, _ in cells], *shape)
        if any(sign < 0 for _, sign, _ in cells):
            value = new.add("Mul", [value, new.constant([s for _, s, _ in cells], *shape)], shape)
        value = new.add("Sub", [value, new.constant([e for _, _, e in cells], *shape)], shape)
        value = new.add("Relu", [value], shape)
        sums.append(new.add("ReduceSum", [value], shape[1:], axes=(0,), keepdims=(0,)))
    n = (len(order),)
    violation = sums[0] if len(sums) == 1 else new.add("Concat", sums, n, axis=(0,))
    slopes = new.constant([float(form.gates[g].gamma) for g in order], *n)
    scaled = new.add("Mul", [violation, slopes], n)
    return new.add("Relu", [new.add("Sub", [new.constant([1.0]), scaled], n)], n), order


def hold_head(new: Builder, form: Form, logits: int) -> int:
    opened, order = openness(new, form)
    n, k = (len(order),), form.labels
    rivals = new.gather(logits, [j for y in range(k) for j in range(k) if j != y], k, k - 1)
    rivals = new.add("ReduceMax", [rivals], (k,), axes=(1,), keepdims=(0,))
    m = new.gather(rivals, [form.gates[g].label for g in order], *n)
    far = new.add("Sub", [new.constant([1.0]), opened], n)
    far = new.add("Mul", [far, new.constant([form.slack])], n)
    gated = sorted({gate.label for gate in form.gates})
    own = [[i for i, g in enumerate(order) if form.gates[g].label == label] for label in gated]
    most = max(len(places) for places in own)
    slots = [place for places in own for place in places + places[:1] * (most - len(places))]

    def greatest(value: int) -> int:
        taken = new.gather(new.add("Sub", [value, far], n), slots, len(gated), most)
        return new.add("ReduceMax", [taken], (len(gated),), axes=(1,), keepdims=(0,))

    lows, highs = ([form.holds[g][end] for g in order] for end in (0, 1))
    upper = greatest(new.add("Sub", [new.constant([-v for v in highs], *n), m], n))
    upper = new.add("Sub", [new.constant([0.0]), upper], (len(gated),))
    lower = greatest(new.add("Add", [m, new.constant(lows, *n)], n))
    held = new.add("Min", [new.gather(logits, gated, len(gated)), upper], (len(gated),))
    held = new.add("Max", [held, lower], (len(gated),))
    joined = new.add("Concat", [logits, held], (k + len(gated),), axis=(0,))
    return new.gather(joined, [k + gated.index(j) if j in gated else j for j in range(k)], k)


def rebuilt(base: Graph, form: Form) -> Graph:
    """The patched network of a form with ``holds`` or ``shifts``."""
    new, k = Builder(base), form.labels
    logits = new.flat(base.output)
    if form.shifts is None:
        output = hold_head(new, form, logits)
    else:
        opened, order = openness(new, form)
        weight = [form.shifts[g][j] for j in range(k) for g in order]
        arrays = {
            "weight": ((k, len(order)), struct.pack(f"<{len(weight)}f", *weight)),
            "bias": ((k,), bytes(4 * k)),
        }
        added = new.add("Linear", [opened], (k,), arrays, axis=(-1,))
        output = new.add("Add", [logits, added], (k,))
    if len(base.nodes[base.output].shape) != 1:
        output = new.add("Reshape", [output], base.nodes[base.output].shape)
    return Graph(tuple(new.nodes), output)


def hold_conditions(form: Form, spread: Fraction, magnitude: Fraction, rounding: Fraction) -> bool:
    """4.11: low <= high, and K large enough; ``rounding`` is 0 in reals and 2^-18 in binary32."""
    size = max(abs(Fraction(end)) for ends in form.holds for end in ends)
    slack = Fraction(form.slack)
    enough = slack >= spread + 2 * size + rounding * (slack + magnitude) and slack < 2**60
    return enough and all(low <= high for low, high in form.holds)


def least_shifts(form: Form, base: Graph, points: list, rows: list, radius: Fraction, margin: Fraction) -> list:
    """4.10 with D = [0, 1]: for each gate whether it is proved; ``rows`` are (values, label), all rationals."""
    found = []
    for place, (gate, records, point) in enumerate(zip(form.gates, form.records, points, strict=True)):
        finite = all(abs(v) <= FLT_MAX for v in point)
        if not finite or not records or records[0] >= len(rows) or rows[records[0]][1] != gate.label:
            found.append(False)
            continue
        x, centre = [Fraction(v) for v in point], rows[records[0]][0]
        inside = all(0 <= v <= 1 and abs(v - c) <= radius for v, c in zip(x, centre, strict=True))
        known = Enclosures(base, "real")
        for index in range(len(base.nodes)):
            known.append(index, (x, x))
        z = known.low[base.output]
        rival = max(v for j, v in enumerate(z) if j != gate.label)
        need = (z[gate.label] - rival + margin) / 2
        found.append(inside and need >= greatest_added(form, base, place, centre, radius) * Fraction(1023, 1024))
    return found


def greatest_added(form: Form, base: Graph, place: int, centre: list, radius: Fraction) -> Fraction:
    """4.10: what a gate and all others that 4.2 does not close on the ball add to one logit at most."""
    known = Enclosures(base, "real")
    box = [max(c - radius, Fraction(0)) for c in centre], [min(c + radius, Fraction(1)) for c in centre]
    for index in range(max(form.sites) + 1):
        known.append(index, box)
    low, high = ([v for i in form.sites for v in ends[i]] for ends in (known.low, known.high))
    sums = [Fraction(0)] * form.labels
    for other, (gate, shift) in enumerate(zip(form.gates, form.shifts, strict=True)):
        away = Fraction(0)
        for j, bottom, top in gate.box:
            away += 0 if top is None else max(Fraction(0), low[j] - Fraction(top))
            away += 0 if bottom is None else max(Fraction(0), Fraction(bottom) - high[j])
        if other == place or away < 1 / Fraction(gate.gamma):
            sums = [total + abs(Fraction(v)) for total, v in zip(sums, shift, strict=True)]
    return max(sums)


def read_points(data: bytes, size: int) -> list:
    value = json.loads(data.decode("utf-8"), object_pairs_hook=object_of_unique_members)
    require(set(value) == {"formatVersion", "points"} and value["formatVersion"] == 1, "the evidence of 4.10")
    points = [base64.b64decode(text, validate=True) for text in value["points"]]
    require(all(len(p) == 4 * size for p in points), "a float32 for every input")
    return [[v for (v,) in struct.iter_unpack("<f", p)] for p in points]
