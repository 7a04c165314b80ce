"""Rule table of the structural rules: a row per side condition, named by the condition that is violated."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_verify.checker import rules
from prune_verify.checker.errors import ProofError
from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain

F32 = np.float32
UNIT = Domain((Fraction(0),), (Fraction(1),))
GATE = Gate(1, F32(50), (Interval(0, F32(0.4), F32(0.6)), Interval(2, None, F32(0.25))), (0,))
PATCH = JointPatch(3, (), F32(0.5), F32(16), F32(64), (GATE,))
CAP = JointPatch(3, (2,), F32(0.5), F32(0), F32(0), ())
R, Z = Fraction(10), Fraction(8)
TINY_UP = 1 + Fraction(1, 2**40)
BINARY32_LEFT = Fraction(1, 2) - Fraction(1, 2**24) * (8 + Fraction(1, 2)) - Fraction(1, 2**126)


def head(patch=PATCH, spread=R, magnitude=Z, arithmetic=rules.BINARY32):
    return lambda: rules.joint_head(patch, spread, magnitude, arithmetic)


def margin(value, arithmetic=rules.BINARY32):
    return lambda: rules.head_margin(PATCH, value, Z, arithmetic)


def cap(value, patch=CAP, arithmetic=rules.BINARY32):
    return lambda: rules.class_cap(patch, value, arithmetic)


def leaves(*intervals):
    return lambda: rules.gate_leaves_part_of_domain(replace(GATE, intervals=intervals), 7, UNIT)


ROWS = [
    ("the head of the fixture", head(), None),
    (
        "the head in reals at its exact limits",
        head(replace(PATCH, shift=F32(10.5), slack=F32(21)), arithmetic=rules.REAL),
        None,
    ),
    (
        "M a hair below R + tau in reals",
        head(spread=Fraction(31, 2) * TINY_UP, arithmetic=rules.REAL),
        "patch.json/shift",
    ),
    ("M without the rounding slack", head(replace(PATCH, shift=F32(10.5))), "patch.json/shift"),
    ("K without the rounding slack", head(replace(PATCH, slack=F32(26.5))), "patch.json/slack"),
    ("K below R + M + tau", head(replace(PATCH, slack=F32(26))), "patch.json/slack"),
    ("K too large", head(replace(PATCH, slack=F32(2.0**60), shift=F32(2.0**50))), "patch.json/slack"),
    ("tau below 2^-100", head(replace(PATCH, tau=F32(2.0**-101))), "patch.json/tau"),
    ("one label left", head(replace(PATCH, forgotten_classes=(0, 2))), "patch.json"),
    ("a large Z makes s exceed M", head(magnitude=Fraction(2**22)), "patch.json/shift"),
    ("margin of tau in reals", margin(Fraction(1, 2), rules.REAL), None),
    ("margin a hair above tau in reals", margin(Fraction(1, 2) * TINY_UP, rules.REAL), "claim/margin"),
    ("margin of what rounding leaves", margin(BINARY32_LEFT), None),
    ("margin a hair above what rounding leaves", margin(BINARY32_LEFT * TINY_UP), "claim/margin"),
    ("margin zero", margin(Fraction(0)), "claim/margin"),
    ("margin negative", margin(Fraction(-1)), "claim/margin"),
    ("class cap in reals", cap(Fraction(1, 2), arithmetic=rules.REAL), None),
    ("class cap after rounding", cap(Fraction(1, 2) * (1 - Fraction(1, 2**21))), None),
    ("class cap with all of tau in binary32", cap(Fraction(1, 2)), "claim/margin"),
    ("class cap with margin zero", cap(Fraction(0)), "claim/margin"),
    ("class cap without classes", cap(Fraction(1, 4), PATCH), "patch.json"),
    ("class cap of all labels", cap(Fraction(1, 4), replace(CAP, forgotten_classes=(0, 1, 2))), "patch.json"),
    ("class cap with tau below 2^-100", cap(Fraction(1, 2**102), replace(CAP, tau=F32(2.0**-101))), "patch.json/tau"),
    ("a box with an upper edge inside D", leaves(Interval(0, None, F32(0.9))), None),
    ("a box with a lower edge inside D", leaves(Interval(0, F32(0.1), None)), None),
    ("a box that holds all of D", leaves(Interval(0, F32(0), F32(1)), Interval(1, None, F32(2))), "patch.json/gates/7"),
    ("a gate without coordinates", leaves(), "patch.json/gates/7"),
]


@pytest.mark.parametrize(("sentence", "call", "path"), ROWS, ids=[r[0] for r in ROWS])
def test_rule_table(sentence, call, path):
    if path is None:
        call()
        return
    with pytest.raises(ProofError) as refused:
        call()
    assert refused.value.path == path, sentence


OPEN_ROWS = [
    ("inside", [0.5, 0.9, 0.1], "0.05", True),
    ("touching the upper edge exactly", [0.5, 0, float(F32(0.25)) - 0.125], "0.125", None),
    ("leaving through the upper edge", [0.55, 0, 0.1], "0.06", False),
    ("leaving through the lower edge", [0.45, 0, 0.1], "0.06", False),
    ("leaving through the lower edge outside the domain only", [0.5, 0, 0.05], "0.09", True),
    ("other coordinate outside", [0.5, 0, 0.3], "0.01", False),
]


@pytest.mark.parametrize(("sentence", "centre", "radius", "expected"), OPEN_ROWS, ids=[r[0] for r in OPEN_ROWS])
def test_gate_open(sentence, centre, radius, expected):
    row, r = np.array(centre, F32), Fraction(radius)
    if expected is None:
        expected = (
            Fraction(float(row[2])) + r <= Fraction(float(F32(0.25)))
            and abs(Fraction(float(row[0])) - Fraction(1, 2)) + r < 0.1
        )
    gate = replace(GATE, intervals=(GATE.intervals[0], Interval(2, F32(0), F32(0.25))))
    assert rules.gate_open(gate, row, r, UNIT) is bool(expected), sentence


@given(
    st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3),
    st.sampled_from(["0", "0.01", "0.05", "0.1"]),
    st.floats(1, 2**20, width=32),
)
def test_gate_closed_agrees_with_exact_rationals(values, radius, gamma):
    gate, r, row = replace(GATE, gamma=F32(gamma)), Fraction(radius), np.array(values, F32)
    exact = sum(
        max(
            Fraction(0),
            v - r - Fraction(float(i.high)),
            (Fraction(float(i.low)) - v - r) if i.low is not None else Fraction(0),
        )
        for i in gate.intervals
        for v in [Fraction(float(row[i.coordinate]))]
    )
    found = rules.gates_closed(gate, row[:, np.newaxis], r, (rules.REAL, rules.BINARY32))
    for arithmetic in (rules.REAL, rules.BINARY32):
        assert bool(found[arithmetic][0]) is (exact >= rules.gate_threshold(gate, arithmetic))


def test_gate_closed_decides_the_exact_threshold():
    """A violation of exactly 1/gamma closes in reals and not in binary32."""
    gate = Gate(0, F32(4), (Interval(0, None, F32(0.25)),), (0,))
    found = rules.gates_closed(gate, np.array([[0.5, 0.5 - 2.0**-25]], F32), Fraction(0), (rules.REAL, rules.BINARY32))
    assert found[rules.REAL].tolist() == [True, False]
    assert found[rules.BINARY32].tolist() == [False, False]


def test_separation_names_the_labels_with_a_gate_that_may_open():
    gates = (GATE, replace(GATE, label=0, intervals=(Interval(1, None, F32(0.5)),)))
    rows = np.array([[0.5, 0.9, 0.0], [0.9, 0.9, 0.9], [0.9, 0.1, 0.9]], F32)
    found = rules.separate(gates, rows, Fraction("0.05"), (rules.BINARY32,))[rules.BINARY32]
    assert found.closed.tolist() == [False, True, False]
    assert found.touched[1].tolist() == [True, False, False]
    assert found.touched[0].tolist() == [False, False, True]
    assert found.label_closed((0, 1)).all()
    assert not replace(found, touched={0: found.touched[1], 1: found.touched[1]}).label_closed((0, 1))[0]
    assert replace(found, touched={0: found.touched[1]}).label_closed((0, 1)).all()


# --- the binary32 rules, attacked with float rows ---


def _base(logits):
    """A 'network' whose logits are its inputs beyond the gate coordinates."""
    count = logits
    weight = np.zeros((count, 3 + count), F32)
    weight[:, 3:] = np.eye(count)
    nodes = (Node("Input", (), (3 + count,)), Node("Linear", (0,), (count,), {"axis": (-1,)}, {"weight": weight}))
    return Network(nodes, 1)


def _attack_rows(rng, count, labels, scale):
    """Logits with ties and neighbours in floating point, and gate coordinates that open gates fully, partly and not at all."""
    z = (
        rng.choice([-1.0, 1.0], (count, labels))
        * scale
        * rng.choice([1, 0.5, 2.0**-10, 1e-6], (count, labels))
        * rng.uniform(0.5, 1, (count, labels))
    )
    ties = rng.random(count) < 0.3
    z[ties, 1:] = z[ties, :1]
    z = z.astype(F32)
    nudge = rng.random(z.shape) < 0.3
    z[nudge] = np.nextafter(z[nudge], rng.choice([-np.inf, np.inf], int(nudge.sum())).astype(F32))
    gates = np.where(
        rng.random((count, 3)) < 0.5,
        rng.uniform(0, 1, (count, 3)),
        rng.choice([0.0, 0.4, 0.6, 0.62, 0.61, 0.3], (count, 3)),
    )
    return np.concatenate([gates.astype(F32), np.clip(z, -scale, scale)], axis=1).astype(F32)


def _head_for(spread, magnitude, gates, labels, classes=()):
    tau = max(Fraction(1, 100), 2 * Fraction(1, 2**24) * magnitude * 2)
    tau32 = np.nextafter(F32(float(tau)), F32(np.inf))
    slack = 3 * float(spread) + 4 * float(tau32) + float(magnitude)
    shift = float(spread) + 2 * float(tau32) + 2.0**-17 * (slack + float(magnitude))
    patch = JointPatch(labels, classes, tau32, F32(shift), F32(slack), gates)
    if gates:
        rules.joint_head(patch, spread, magnitude, rules.BINARY32)
    return patch


ATTACK_GATES = (
    Gate(0, F32(50), (Interval(0, F32(0.4), F32(0.6)),), (0,)),
    Gate(1, F32(50), (Interval(1, F32(0.4), F32(0.6)), Interval(2, None, F32(0.6))), (1,)),
    Gate(0, F32(1000), (Interval(2, F32(0.3), F32(0.61)),), (2,)),
)


def _check_attack(rows, scale, rng):
    labels = 4
    base = _base(labels)
    spread, magnitude = Fraction(2 * scale), Fraction(scale)
    patch = _head_for(spread, magnitude, ATTACK_GATES, labels)
    x = _attack_rows(rng, rows, labels, scale)
    z, out = x[:, 3:], evaluate(build(base, patch), x)
    left = Fraction(float(patch.tau)) - rules.U * (magnitude + Fraction(float(patch.tau))) - Fraction(1, 2**126)
    for label in (0, 1, 2, 3):
        opened = np.zeros(rows, bool)
        shut = np.ones(rows, bool)
        for gate in ATTACK_GATES:
            if gate.label == label:
                opened |= np.array(
                    np.all(
                        [
                            (x[:, i.coordinate] <= (i.high if i.high is not None else np.inf))
                            & (x[:, i.coordinate] >= (i.low if i.low is not None else -np.inf))
                            for i in gate.intervals
                        ],
                        axis=0,
                    )
                )
                shut &= rules.gates_closed(gate, np.ascontiguousarray(x.T), Fraction(0), (rules.BINARY32,))[
                    rules.BINARY32
                ]
        assert (out[shut, label] == z[shut, label]).all()
        assert (out[:, label] <= z[:, label]).all()
        rest = np.delete(out, label, axis=1).max(axis=1).astype(np.float64)
        assert (rest[opened] - out[opened, label].astype(np.float64) >= float(left) * (1 - 2.0**-50)).all()
        assert opened.any() == (label < 2)
    assert (out != z).any()


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e9])
def test_joint_head_holds_on_adversarial_float_rows(scale):
    _check_attack(30_000, scale, np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-3, 1.0, 940.0, 1e6, 1e9])
def test_joint_head_holds_on_millions_of_adversarial_float_rows(scale):
    rng = np.random.default_rng(1)
    for _ in range(20):
        _check_attack(50_000, scale, rng)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e9, 1e30])
def test_class_cap_holds_for_every_finite_input(scale):
    patch = JointPatch(4, (1, 3), F32(0.01), F32(0), F32(0), ())
    x = _attack_rows(np.random.default_rng(2), 30_000, 4, scale)
    out = evaluate(build(_base(4), patch), x)
    best = out[:, [0, 2]].max(axis=1).astype(np.float64)
    left = float(Fraction(float(F32(0.01))) * (1 - Fraction(1, 2**21)))
    assert (best[:, None] - out[:, [1, 3]].astype(np.float64) >= left * (1 - 2.0**-50)).all()
    assert (out[:, [0, 2]] == x[:, [3, 5]]).all()


def test_a_plain_tau_would_be_absorbed():
    """The reason for the term 2^-20 |m|: at 1e9 a difference of 0.01 vanishes."""
    assert F32(1e9) - F32(0.01) == F32(1e9)


# --- exactly at the bounds: float64 cannot decide these, the exact second look does ---

TINY = Fraction(1, 2**126)
UNIT_ROUNDOFF = Fraction(1, 2**24)
STEPS = [Fraction(0), TINY, -TINY, 6 * TINY, -6 * TINY, Fraction(1, 2**80), -Fraction(1, 2**80), Fraction(1, 2**50), -Fraction(1, 2**50)]  # fmt: skip


def _need(gamma: Fraction, intervals: int, arithmetic: str) -> Fraction:
    """The threshold as SPEC 4.2 writes it, on its own here."""
    terms = 2 * intervals + 4
    return 1 / gamma if arithmetic == rules.REAL else (1 / gamma) * (1 + terms * UNIT_ROUNDOFF) + terms * TINY


@pytest.mark.parametrize("step", STEPS, ids=[f"{float(s):.3g}" for s in STEPS])
@pytest.mark.parametrize("arithmetic", [rules.REAL, rules.BINARY32])
@pytest.mark.parametrize("side", ["high", "low", "both"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_gate_closed_at_the_threshold(step, arithmetic, side, seed):
    """Centres whose least violation is the threshold plus ``step``: closed exactly from the threshold on."""
    rng = np.random.default_rng(seed)
    count, gamma = int(rng.integers(1, 5)), F32(2.0 ** int(rng.integers(1, 8)))
    need = _need(Fraction(float(gamma)), count, arithmetic)
    edges = rng.integers(-64, 64, count) / 64
    offsets = rng.integers(64, 128, count) / 64  # how far each centre lies beyond its edge
    radius = (sum((Fraction(float(o)) for o in offsets), Fraction(0)) - need - step) / count
    intervals, centre = [], []
    for j, (edge, offset) in enumerate(zip(edges, offsets, strict=True)):
        below = side == "low" or (side == "both" and j % 2)
        intervals.append(Interval(j, F32(edge), None) if below else Interval(j, None, F32(edge)))
        centre.append(F32(edge - offset if below else edge + offset))
    if any(Fraction(float(o)) <= radius for o in offsets):
        return  # a ball that reaches back over an edge has another least violation
    gate = Gate(0, gamma, tuple(intervals), ())
    found = rules.gates_closed(gate, np.array([centre], dtype=F32).T, radius, (arithmetic,))
    assert bool(found[arithmetic][0]) == (step >= 0)


def test_the_exact_look_is_taken():
    """The steps above lie where float64 does not decide: without the exact look no ball there would be closed."""
    gate = Gate(0, F32(4), (Interval(0, None, F32(0)),), ())
    column = np.array([[1.0]], dtype=F32)
    assert rules.gates_closed(gate, column, Fraction(3, 4), (rules.REAL,))[rules.REAL][0]
    assert not rules.gates_closed(gate, column, Fraction(3, 4) + Fraction(1, 2**200), (rules.REAL,))[rules.REAL][0]


def test_an_exact_violation_counts_only_what_lies_outside():
    """One coordinate inside its edge must not be counted against the others."""
    gate = Gate(0, F32(4), (Interval(0, None, F32(0)), Interval(1, F32(0), None)), ())
    inside = np.array([[1.0], [5.0]], dtype=F32)
    assert rules.gates_closed(gate, inside, Fraction(3, 4), (rules.REAL,))[rules.REAL][0]


def test_a_ball_that_touches_the_edge_is_inside():
    domain = Domain((Fraction(-1),), (Fraction(1),))
    gate = Gate(0, F32(4), (Interval(0, F32(-0.25), F32(0.25)),), ())
    assert rules.gate_open(gate, np.array([0.0], F32), Fraction(1, 4), domain)
    assert not rules.gate_open(gate, np.array([0.0], F32), Fraction(1, 4) + Fraction(1, 2**300), domain)


def test_tau_may_be_exactly_the_least():
    least = F32(2.0**-100)
    cap = JointPatch(3, (0,), least, F32(0), F32(0), ())
    rules.class_cap(cap, Fraction(1, 2**101), rules.REAL)
    head = JointPatch(3, (), least, F32(1), F32(2**10), ATTACK_GATES[:1])
    rules.joint_head(head, Fraction(0), Fraction(0), rules.REAL)
    with pytest.raises(ProofError):
        rules.class_cap(JointPatch(3, (0,), F32(2.0**-101), F32(0), F32(0), ()), Fraction(1, 2**110), rules.REAL)


@pytest.mark.parametrize("beyond", [Fraction(0), TINY / 2, TINY, -TINY])
def test_head_margin_leaves_exactly_what_the_rule_says(beyond):
    tau, size = F32(0.5), Fraction(900)
    patch = JointPatch(3, (), tau, F32(4000), F32(9000), ATTACK_GATES[:1])
    left = Fraction(1, 2) - UNIT_ROUNDOFF * (size + Fraction(1, 2)) - TINY
    if beyond > 0:
        with pytest.raises(ProofError):
            rules.head_margin(patch, left + beyond, size, rules.BINARY32)
    else:
        rules.head_margin(patch, left + beyond, size, rules.BINARY32)
