"""Each binary32 rule of checker/rules.py under millions of float32 rows placed where it is tightest: no violation.

Per row its own parameters: the side conditions are met exactly at their bound (computed from the row itself and rounded
to the nearest float32 that meets them), sums run in random orders, with and without fused multiply-add, with and
without flushing of subnormals. The same rows find violations as soon as a rule's rounding terms are left out, so that
the rows are where the rule is tight. Tolerance 0: what float64 cannot tell is decided in rationals.

Source: MATHS 3.2, 3.3, 4.1 and the end of 5; certs/SPEC.md sections 4.1 to 4.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker import rules
from prune_verify.checker.errors import ProofError
from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.patch import NEVER_VIOLATED, Gate, Interval, JointPatch
from prune_verify.checker.rebuild import build

F32, F64 = np.float32, np.float64
U, TINY = 2.0**-24, 2.0**-126
CHUNK = 100_000
FEW, MANY = 100_000, 10_000_000
SAFE = 1 + 2.0**-50
CAP_SLOPE = F32(2.0**-20)
Floats = np.ndarray


@dataclass(frozen=True)
class Unit:
    """One way to compute in float32; every result is that of a real machine."""

    flush: bool
    fused: bool

    def kept(self, x: Floats) -> Floats:
        return np.where(np.abs(x) < TINY, F32(0), x) if self.flush else x

    def add(self, a: Floats, b: Floats) -> Floats:
        return self.kept(self.kept(a) + self.kept(b))

    def mul(self, a: Floats, b: Floats) -> Floats:
        return self.kept(self.kept(a) * self.kept(b))

    def multiply_add(self, a: Floats, b: Floats, c: Floats) -> Floats:
        """a b + c with one rounding, or two where this unit does not fuse."""
        if not self.fused:
            return self.add(self.mul(a, b), c)
        product = F64(self.kept(a)) * F64(self.kept(b))  # exact: 48 bits
        other = F64(self.kept(c))
        total = product + other
        back = total - product
        lost = (product - (total - back)) + (other - back)  # exact
        even = (total.view(np.int64) & 1) == 0
        odd = np.where(even & (lost != 0), np.nextafter(total, np.where(lost > 0, np.inf, -np.inf)), total)
        return self.kept(F32(np.where(np.isfinite(total), odd, total)))

    def sum(self, rng: np.random.Generator, terms: Floats) -> Floats:
        """The sum over the last axis in a random order per row: one after the other, or as a tree."""
        parts = list(np.moveaxis(rng.permuted(terms, axis=-1), -1, 0))
        tree = rng.random() < 0.5
        while len(parts) > 1:
            first = self.add(parts.pop(0), parts.pop(0))
            parts.insert(len(parts) if tree else 0, first)
        return parts[0]


def up32(x: Floats) -> Floats:
    """The least float32 that is not below a float64."""
    near = F32(x)
    return np.where(F64(near) < x, np.nextafter(near, F32(np.inf)), near)


def drawn(rng: np.random.Generator, size: tuple[int, ...], values: tuple[float, ...]) -> Floats:
    return F32(rng.choice(np.array(values, dtype=F32), size))


@dataclass(frozen=True)
class Rows:
    """What one chunk found: how many rows met the premises, and how many of these violate the conclusion."""

    met: int
    violations: int


# --- gates ---


def gate_value(unit: Unit, rng: np.random.Generator, x: Floats, edge: Floats, gamma: Floats) -> Floats:
    """g of one gate per row; ``x`` times its sign and ``edge``: [rows, literals], padded as build pads."""
    pad = rng.integers(0, 4)
    padding = np.full((len(x), pad), NEVER_VIOLATED, dtype=F32)
    literals = np.concatenate([x, np.repeat(x[:, :1], pad, axis=1)], axis=1)
    above = unit.add(literals, -np.concatenate([edge, padding], axis=1))
    violation = unit.sum(rng, np.maximum(above, F32(0)))
    return np.maximum(unit.multiply_add(-violation, gamma, np.ones_like(gamma)), F32(0))


def gate_closed(rng: np.random.Generator, count: int, unit: Unit, weak: bool) -> Rows:
    """Violations of at least T, as little above it as float32 inputs allow; weak: T = 1/gamma."""
    slots, scale = int(rng.integers(1, 7)), 2.0 ** rng.choice([-123, -60, -3, 0, 7, 110, 127])
    grid, terms = scale * 2.0**-26, 2 * slots + 4
    gamma = np.maximum(F32(1 / (scale * rng.uniform(0.02, 3, count))), F32(TINY))
    reach = 1 / F64(gamma)
    need = reach if weak else (reach * (1 + terms * U) + terms * TINY) * SAFE
    edge = F32(np.round(rng.uniform(-1, 1, (count, slots)) * scale / grid) * grid)
    share = np.where(
        rng.random((count, slots)) < 0.3,
        rng.integers(-1, 3, (count, slots)) * grid,
        rng.random((count, slots)) * 1.2 / slots * reach[:, np.newaxis],
    )
    x = F32(np.round((edge + share) / grid) * grid)
    for _ in range(4):  # the last literal takes what is left
        rest = np.maximum(F64(x[:, :-1]) - F64(edge[:, :-1]), 0).sum(axis=1)
        last = np.maximum(F64(x[:, -1]) - F64(edge[:, -1]), 0)
        wanted = up32(np.ceil((F64(edge[:, -1]) + np.maximum(need - rest, 0)) / grid) * grid)
        x[:, -1] = np.where(rest + last < need, np.maximum(wanted, np.nextafter(x[:, -1], F32(np.inf))), wanted)
    exact = np.maximum(F64(x) - F64(edge), 0).sum(axis=1)  # exact: multiples of the grid below 2^5 scale
    met = (exact >= need) & np.isfinite(x).all(axis=1)
    if not weak:
        _agrees_with_the_rule(x, edge, gamma, met)
    signs = rng.choice(np.array([-1, 1], dtype=F32), x.shape)  # a lower edge is an upper one on -x, by a factor of -1
    literals = unit.mul(unit.mul(x, signs), signs)
    g = gate_value(unit, rng, literals, edge, gamma)
    return Rows(int(met.sum()), int((met & (g != 0)).sum()))


def _agrees_with_the_rule(x: Floats, edge: Floats, gamma: Floats, met: Floats) -> None:
    """Some of the rows, as the checker decides them."""
    for row in range(0, len(x), len(x) // 4):
        intervals = tuple(Interval(j, None, e) for j, e in enumerate(edge[row]))
        gate = Gate(0, gamma[row], intervals, ())
        found = rules.gates_closed(gate, x[row][:, np.newaxis], Fraction(0), (rules.BINARY32,))[rules.BINARY32][0]
        assert found or not met[row]


def gate_open(rng: np.random.Generator, count: int, unit: Unit, weak: bool) -> Rows:
    """Inputs in the box, at and next to its edges; weak: one literal violated by one ulp."""
    slots, scale = int(rng.integers(1, 7)), F32(2.0 ** rng.choice([-140, -126, -20, 0, 20, 120]))
    edge = F32(rng.uniform(-1, 1, (count, slots))) * scale
    edge = np.where(
        rng.random(edge.shape) < 0.1, drawn(rng, edge.shape, (0.0, -0.0, 2.0**-149, -(2.0**-149), TINY)), edge
    )
    inside = edge - np.abs(F32(rng.standard_normal(edge.shape))) * scale
    x = np.where(rng.random(edge.shape) < 0.5, edge, np.minimum(inside, edge))
    x = np.where(rng.random(edge.shape) < 0.3, np.nextafter(edge, F32(-np.inf)), x)
    if weak:
        x[:, 0] = np.nextafter(edge[:, 0], F32(np.inf))
    met = np.isfinite(x).all(axis=1) & (weak | (x <= edge).all(axis=1))
    gamma = F32(2.0 ** rng.uniform(-120, 127, count))
    g = gate_value(unit, rng, x, edge, gamma)
    return Rows(int(met.sum()), int((met & (g != 1)).sum()))


def label_sum(unit: Unit, rng: np.random.Generator, g: Floats) -> Floats:
    """o of one label per row: 1 and the terms -g in any order, products with 0 and -1 among them."""
    zeros = np.zeros((len(g), int(rng.integers(0, 3))), dtype=F32)
    terms = np.concatenate([np.ones((len(g), 1), dtype=F32), -g, zeros], axis=1)
    return np.maximum(unit.sum(rng, terms), F32(0))


def label_sums(rng: np.random.Generator, count: int, unit: Unit, weak: bool) -> Rows:
    """One gate open and the others anything gives 0, all closed gives 1; weak: no gate quite open."""
    gates = int(rng.integers(1, 9))
    near = (0.0, 2.0**-149, TINY, U, U / 2, 0.5, 1 - U, 1 - 2 * U, 1.0)
    g = np.where(rng.random((count, gates)) < 0.5, drawn(rng, (count, gates), near), F32(rng.random((count, gates))))
    if weak:
        g = np.where(rng.random((count, gates)) < 0.6, F32(0), np.minimum(g, F32(1 - U)))
        met = (g > 0).any(axis=1)
        return Rows(int(met.sum()), int((met & (label_sum(unit, rng, g) != 0)).sum()))
    g[np.arange(count), rng.integers(0, gates, count)] = 1
    bad = label_sum(unit, rng, g) != 0
    all_closed = label_sum(unit, rng, np.zeros_like(g))
    return Rows(count, int((bad | (all_closed != 1)).sum()))


# --- the joint head ---


def head_value(unit: Unit, z: Floats, o: Floats, tau: Floats, shift: Floats, slack: Floats) -> Floats:
    """N' of the labels of A per row."""
    opened = unit.add(np.ones_like(o), -o)
    lowered = unit.multiply_add(-opened, shift[:, np.newaxis], z)
    best = np.stack([np.delete(lowered, y, axis=1).max(axis=1) for y in range(z.shape[1])], axis=1)
    below = unit.add(best, -tau[:, np.newaxis])
    return np.minimum(z, unit.multiply_add(slack[:, np.newaxis], o, below))


def logits(rng: np.random.Generator, count: int) -> Floats:
    """Logits of A with ties, near ties, wide and narrow spreads, far from and near to 0."""
    labels, scale = int(rng.integers(2, 7)), 2.0 ** rng.choice([-128, -90, -20, 0, 3, 20, 50])
    z = F32(rng.uniform(-1, 1, (count, labels)) * scale)
    if rng.random() < 0.6:  # a large common part
        z = F32(
            rng.uniform(-1, 1, (count, 1)) * scale * 2.0 ** rng.integers(0, 6) + F64(z) * 2.0 ** -rng.integers(0, 25)
        )
    low, high = z.min(axis=1, keepdims=True), z.max(axis=1, keepdims=True)
    ends = np.where(rng.random(z.shape) < 0.5, low, high)
    ends = np.where(
        rng.random(z.shape) < 0.4, np.clip(np.nextafter(ends, drawn(rng, z.shape, (np.inf, -np.inf))), low, high), ends
    )
    return np.where(rng.random(z.shape) < rng.choice([0, 0.5, 1]), ends, z)


def constants(rng: np.random.Generator, z: Floats, weak: bool) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """tau, and M and K at the bound of the side conditions of rule 4.4; R and Z are those of the row. Weak: s = 0."""
    spread = np.nextafter(F64(z).max(axis=1) - F64(z).min(axis=1), np.inf)
    size = np.abs(F64(z)).max(axis=1)
    kind = rng.choice(4)
    factor = rng.uniform(0.4, 4, len(z))
    tau = (size * U * factor, spread * factor, size * factor * 2.0**-10, np.full(len(z), 2.0**-100))[kind]
    tau = np.maximum(F32(tau), F32(2.0**-100))
    part, t = (0.0 if weak else 2.0**-18), F64(tau)
    slack = up32((2 * spread + 2 * t + 2 * part * size) / (1 - 2 * part) * SAFE)
    for _ in range(4):
        rounding = part * (F64(slack) + size)
        shift = up32((spread + t + rounding) * SAFE)
        short = F64(slack) < (spread + F64(shift) + t + rounding) * SAFE
        slack = np.where(short, np.nextafter(slack, F32(np.inf)), slack)
    assert not short.any()
    return tau, shift, slack, spread, size


def _decided_by_the_rule(z: Floats, found: tuple[Floats, ...], weak: bool) -> None:
    """Some of the rows meet the side conditions as the checker decides them, and not with the next lower M."""
    gate = Gate(0, F32(1), (Interval(0, None, F32(0)),), ())
    for row in range(0, len(z), len(z) // 4):
        tau, shift, slack = (values[row] for values in found[:3])
        spread, size = (Fraction(float(values[row])) for values in found[3:])
        arithmetic = rules.REAL if weak else rules.BINARY32
        patch = JointPatch(z.shape[1], (), tau, shift, slack, (gate,))
        rules.joint_head(patch, spread, size, arithmetic)
        lower = np.nextafter(np.nextafter(shift, F32(0)), F32(0))
        with pytest.raises(ProofError):
            rules.joint_head(JointPatch(z.shape[1], (), tau, lower, slack, (gate,)), spread, size, arithmetic)


def closedness(rng: np.random.Generator, z: Floats) -> Floats:
    """o of every label: exactly 0 or 1, or anything between; of one label at least exactly 1."""
    between = np.where(
        rng.random(z.shape) < 0.5,
        F32(rng.random(z.shape)),
        drawn(rng, z.shape, (U, 2.0**-149, TINY, 2 * U, 1 - U, 0.5)),
    )
    o = np.where(rng.random(z.shape) < 0.25, between, drawn(rng, z.shape, (0.0, 1.0)))
    o[np.arange(len(z)), rng.integers(0, z.shape[1], len(z))] = 1
    return o


def _others(values: Floats) -> Floats:
    """For each label the maximum of the other labels."""
    return np.stack([np.delete(values, y, axis=1).max(axis=1) for y in range(values.shape[1])], axis=1)


def _head_rows(item: int) -> Callable[[np.random.Generator, int, Unit, bool], Rows]:
    def attacked(rng: np.random.Generator, count: int, unit: Unit, weak: bool) -> Rows:
        z = unit.kept(logits(rng, count))
        found = constants(rng, z, weak)
        _decided_by_the_rule(z, found, weak)
        o = closedness(rng, z)
        patched = head_value(unit, z, o, *found[:3])
        if item == 1:
            met, bad = o == 1, patched != z
        elif item == 2:
            met, bad = o == 0, patched > unit.add(_others(patched), -found[0][:, np.newaxis])
        else:
            answer, rows = z.argmax(axis=1), np.arange(count)
            met = (o[rows, answer] == 1)[:, np.newaxis]
            bad = (patched.argmax(axis=1) != answer)[:, np.newaxis]
            assert (patched <= z).all()  # whatever the gates are
        return Rows(int(met.any(axis=1).sum()), int((met & bad).any(axis=1).sum()))

    return attacked


def head_margin(rng: np.random.Generator, count: int, unit: Unit, weak: bool) -> Rows:
    """The exact margin of an open label is at least tau - u (Z + tau) - 2^-126; weak: tau."""
    z = unit.kept(logits(rng, count))
    found = constants(rng, z, weak=False)
    o = closedness(rng, z)
    patched = head_value(unit, z, o, *found[:3])
    tau, size = found[0], found[4]
    met = o == 0
    best = _others(patched)
    left = F64(tau) if weak else F64(tau) - U * (size + F64(tau)) - TINY
    near = met & (F64(best) - F64(patched) < left[:, np.newaxis] * (1 + 2.0**-40)) & (left > 0)[:, np.newaxis]
    bad = 0
    for row, label in np.argwhere(near)[:5000].tolist():
        exact_tau, magnitude = Fraction(float(tau[row])), Fraction(float(size[row]))
        bound = exact_tau if weak else exact_tau - rules.U * (magnitude + exact_tau) - Fraction(1, 2**126)
        bad += Fraction(float(best[row, label])) - Fraction(float(patched[row, label])) < bound
        if bad > 3:
            break
    return Rows(int(met.any(axis=1).sum()), bad)


# --- the class cap ---


def cap_value(unit: Unit, z: Floats, best: Floats, tau: Floats) -> Floats:
    """N'_c of the forgotten classes, for m = ``best``."""
    drop = unit.multiply_add(np.abs(best), CAP_SLOPE, tau)
    return np.minimum(z, unit.add(best, -drop)[:, np.newaxis])


def class_cap(rng: np.random.Generator, count: int, unit: Unit, weak: bool) -> Rows:
    """Any finite logits: the exact margin is at least tau (1 - 2^-21); weak: tau."""
    span = rng.choice(np.array([-149, -100, -20, 0, 20, 100, 127.9]), (count, 1))
    z = F32(rng.uniform(-1, 1, (count, 6)) * 2.0**span)
    extreme = (3.4028234e38, -3.4028234e38, 0.0, -0.0, 2.0**-149, -(2.0**-149), TINY, 1.0)
    z = np.where(rng.random(z.shape) < 0.2, drawn(rng, z.shape, extreme), z)
    z = unit.kept(z)
    best = z[:, :3].max(axis=1)
    ratio = 2.0 ** rng.uniform(-30, 6, count)
    tau = np.maximum(F32(np.minimum(np.abs(F64(best)) * ratio, 2.0**100)), F32(2.0**-100))
    tau = np.where(rng.random(count) < 0.3, F32(2.0 ** rng.uniform(-100, 40, count)), tau)
    capped = cap_value(unit, z[:, 3:], best, tau)
    worst = capped.max(axis=1)
    left = F64(tau) * (1.0 if weak else 1 - 2.0**-21)
    bad = 0
    for row in np.flatnonzero(F64(best) - F64(worst) < left * (1 + 2.0**-40))[:5000].tolist():
        bound = Fraction(float(tau[row])) * (1 if weak else 1 - Fraction(1, 2**21))
        bad += worst[row] != -np.inf and Fraction(float(best[row])) - Fraction(float(worst[row])) < bound
    return Rows(count, bad)


RULES: tuple[tuple[str, Callable[[np.random.Generator, int, Unit, bool], Rows]], ...] = (
    ("4.1 gate_open: g = 1", gate_open),
    ("4.2 gate_closed: g = 0", gate_closed),
    ("4.3 label sums: o = 0 and o = 1", label_sums),
    ("4.4 joint_head (1): a closed label keeps its logit", _head_rows(1)),
    ("4.4 joint_head (2): an open label loses by tau", _head_rows(2)),
    ("4.4 joint_head (3): the answer stays", _head_rows(3)),
    ("4.5 head_margin", head_margin),
    ("4.6 class_cap", class_cap),
)
IDS = [row[0] for row in RULES]
UNITS = [Unit(flush, fused) for flush in (False, True) for fused in (False, True)]


def attack(rule: Callable[..., Rows], rows: int, *, weak: bool, seed: int) -> Rows:
    """All rows in chunks; every way to compute has its turn."""
    rng, met, bad = np.random.default_rng(seed), 0, 0
    pieces = max(rows // CHUNK, 64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for piece in range(pieces):
            found = rule(rng, rows // pieces, UNITS[piece % len(UNITS)], weak)
            met, bad = met + found.met, bad + found.violations
    return Rows(met, bad)


@pytest.mark.parametrize(("sentence", "rule"), RULES, ids=IDS)
def test_no_row_violates_the_rule(sentence: str, rule: Callable[..., Rows]) -> None:
    found = attack(rule, FEW, weak=False, seed=1)
    assert found.violations == 0, sentence
    assert found.met > FEW // 3


@pytest.mark.slow
@pytest.mark.parametrize(("sentence", "rule"), RULES, ids=IDS)
def test_no_row_of_ten_million_violates_the_rule(sentence: str, rule: Callable[..., Rows]) -> None:
    found = attack(rule, MANY, weak=False, seed=2)
    assert found.violations == 0, sentence
    assert found.met > MANY // 3


@pytest.mark.parametrize(("sentence", "rule"), RULES, ids=IDS)
def test_the_rows_find_a_violation_without_the_rounding_terms(sentence: str, rule: Callable[..., Rows]) -> None:
    """Beside the rule's own bound there is nothing to spare that the rows would not find."""
    assert attack(rule, FEW, weak=True, seed=1).violations > 0, sentence


def test_the_formulas_here_are_the_nodes_of_build() -> None:
    """Gates, label sums, head and cap of this file and of the rebuilt network, on numbers whose sums are exact."""
    rng, unit = np.random.default_rng(3), Unit(flush=False, fused=False)
    size, labels = 4, 5
    base = Network(
        (
            Node("Input", (), (size,)),
            Node("Linear", (0,), (labels,), {"axis": (-1,)}, {"weight": F32(rng.integers(-8, 9, (labels, size)) / 4)}),
        ),
        1,
    )
    for _ in range(50):
        gates = tuple(
            Gate(
                int(rng.integers(0, 4)),
                F32(2.0 ** rng.integers(-1, 4)),
                tuple(Interval(j, F32(-0.5), F32(rng.integers(0, 9) / 8)) for j in range(int(rng.integers(1, 5)))),
                (),
            )
            for _ in range(int(rng.integers(1, 5)))
        )
        patch = JointPatch(labels, (4,), F32(0.5), F32(64), F32(256), gates)
        x = F32(rng.integers(-16, 17, (64, size)) / 8)
        z = evaluate(base, x)
        o = np.ones((64, 4), dtype=F32)
        for label in {gate.label for gate in gates}:
            opened = []
            for gate in (gate for gate in gates if gate.label == label):
                columns = x[:, : len(gate.intervals)]
                literals = np.concatenate([columns, -columns], axis=1)
                edges = np.array([[*(i.high for i in gate.intervals), *(-i.low for i in gate.intervals)]], dtype=F32)
                opened.append(gate_value(unit, rng, literals, np.repeat(edges, 64, axis=0), np.full(64, gate.gamma)))
            o[:, label] = label_sum(unit, rng, np.stack(opened, axis=1))
        one = np.ones(64, dtype=F32)
        expected = head_value(unit, z[:, :4], o, one * patch.tau, one * patch.shift, one * patch.slack)
        capped = cap_value(unit, z[:, 4:], expected.max(axis=1), one * patch.tau)
        np.testing.assert_array_equal(evaluate(build(base, patch), x), np.concatenate([expected, capped], axis=1))


def test_the_fused_product_rounds_once() -> None:
    """multiply_add against exact rationals, on products that cancel and on double roundings."""
    rng = np.random.default_rng(4)
    a, b = F32(rng.standard_normal(3000)), F32(2.0 ** rng.integers(-20, 20, 3000) * rng.standard_normal(3000))
    c = np.where(rng.random(3000) < 0.5, -(a * b), F32(rng.standard_normal(3000)))
    c = np.where(rng.random(3000) < 0.3, c * F32(2.0**-25), c)
    found = Unit(flush=False, fused=True).multiply_add(a, b, c)
    for value, x, y, w in zip(found, a, b, c, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(w))
        error = abs(Fraction(float(value)) - exact)
        for neighbour in (np.nextafter(value, F32(np.inf)), np.nextafter(value, F32(-np.inf))):
            assert error <= abs(Fraction(float(neighbour)) - exact)
