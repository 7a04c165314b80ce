"""Rule M by points: no additive patch that forgets shifts less; the evidence is closed; who may use the rule."""

from __future__ import annotations

import base64
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linprog

from prune_verify.certify.minimal import prove_shift_minimality
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import (
    CheckError,
    MalformedInputError,
    ProofError,
    SubjectMismatchError,
    UnsupportedVersionError,
)
from prune_verify.checker.network import Network, Node, evaluate, evaluate_exact
from prune_verify.checker.patch import Gate, Interval, JointPatch, LearnedPatch, Patch, ShiftPatch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.shift_minimality import NEAR, decide_shift_minimality, emit_points
from tests.checker.random_networks import mlp

F32 = np.float32
DOMAIN = Domain((Fraction(0),), (Fraction(1),))
BASE = mlp(1, 5, 6, 3)
RADIUS, MARGIN = Fraction(1, 32), Fraction(1, 8)
CLAIM = Claim("minimality", REAL, "shift-point", radius=RADIUS, margin=MARGIN)
X = np.random.default_rng(5).uniform(0.2, 0.8, (2, 5)).astype(F32)
LABELS = evaluate(BASE, X).argmax(axis=1).astype(np.int64)
OPEN = tuple(Interval(j, F32(0), None) for j in range(5, 11))
APART = int(np.abs(X[0] - X[1]).argmax())


def exact(point: np.ndarray, label: int, margin: Fraction = MARGIN, base: Network = BASE) -> Fraction:
    """L at a point, from the exact logits."""
    logits = evaluate_exact(base, point.reshape(1, -1).astype(F32))[0]
    return (logits[label] - max(v for j, v in enumerate(logits) if j != label) + margin) / 2


def below(value: Fraction) -> np.float32:
    """The greatest float32 that is not above."""
    found = F32(float(value))
    return np.nextafter(found, F32(-np.inf)) if Fraction(float(found)) > value else found


def shifts(*sizes: np.float32) -> np.ndarray:
    """Half up for another label and half down for the record's."""
    found = np.zeros((len(sizes), 3), F32)
    for row, (size, label) in enumerate(zip(sizes, LABELS, strict=False)):
        found[row, label], found[row, (label + 1) % 3] = -size, size
    return found


def patch(*sizes: np.float32, **changed: object) -> ShiftPatch:
    """Gates that are open on a record's ball and closed on the other's, by the input; the ReLUs restrict nothing."""
    gates = tuple(Gate(int(LABELS[i]), F32(64), (around(i), *OPEN), (i,)) for i in range(len(sizes)))
    return replace(ShiftPatch(3, gates, ("input", "relu-0"), shifts(*sizes)), **changed)


def around(record: int, reach: float = 0.05) -> Interval:
    """An interval of the input where the records are farthest apart, about one of them."""
    return Interval(APART, F32(X[record, APART] - F32(reach)), F32(X[record, APART] + F32(reach)))


def problem(made: Patch, base: Network = BASE) -> Problem:
    forget = LabelledRows(X, LABELS)
    return Problem(base, build(base, made), made, DOMAIN, forget=forget, retain=forget)


CENTRES = [exact(x, int(y)) for x, y in zip(X, LABELS, strict=True)]
LEAST = problem(patch(*(below(c) for c in CENTRES)))
GOOD = emit_points(X)


# --- how much is enough ---


@pytest.mark.parametrize(
    ("sentence", "factor", "proved"),
    [
        ("exactly the bound", Fraction(1), 2),
        ("within the factor", Fraction(1) / NEAR, 2),
        ("a hair beyond the factor", Fraction(1) / NEAR * (1 + Fraction(1, 2**20)), 0),
        ("twice as much", Fraction(2), 0),
        ("less than any patch that forgets", Fraction(1, 2), 2),
    ],
)
def test_shifts_up_to_the_bound_are_proved(sentence: str, factor: Fraction, proved: int) -> None:
    found = decide_shift_minimality(problem(patch(*(below(c * factor) for c in CENTRES))), CLAIM, GOOD, "p")
    assert (found.total, found.proved, found.unknowns) == (2, proved, () if proved else (0, 1)), sentence


def test_the_bound_is_decided_exactly() -> None:
    """Both sides of greatest (1 - 2^-10) = L, told apart by one ulp of the shift and by 2^-80 of the margin."""
    size = below(CENTRES[0] / NEAR)
    above = np.nextafter(size, F32(np.inf))
    for shift, expected in ((size, ()), (above, (0,))):
        assert decide_shift_minimality(problem(patch(shift, F32(0))), CLAIM, GOOD, "p").unknowns == expected
    equal = 2 * Fraction(float(above)) * NEAR - 2 * exact(X[0], int(LABELS[0]), Fraction(0))
    for margin, expected in ((equal, ()), (equal - Fraction(1, 2**80), (0,))):
        claim = replace(CLAIM, margin=margin)
        assert decide_shift_minimality(problem(patch(above, F32(0))), claim, GOOD, "p").unknowns == expected


def test_the_greatest_number_counts_whatever_its_sign_and_label() -> None:
    size = below(CENTRES[0])
    for place in range(3):
        for sign in (1, -1):
            large = shifts(size, F32(0))
            large[0, place] = sign * size * F32(1.01)
            assert decide_shift_minimality(problem(patch(size, F32(0), shifts=large)), CLAIM, GOOD, "p").unknowns == (
                0,
            )


def test_each_gate_is_judged_by_its_own_point_and_shift() -> None:
    small, large = (below(c) for c in CENTRES)
    for sizes, expected in (((small * 2, large), (0,)), ((small, large * 2), (1,)), ((F32(0), F32(0)), ())):
        assert decide_shift_minimality(problem(patch(*sizes)), CLAIM, GOOD, "p").unknowns == expected
    swapped = emit_points(X[::-1])
    assert decide_shift_minimality(LEAST, CLAIM, swapped, "p").unknowns == (0, 1)


OVERLAPS = [
    ("the same gate twice", (0, 0), lambda a, b: (a, a), (0, 1)),
    ("a second gate that is wide enough for the other ball", (0, 1), lambda a, b: (a, replace(b, intervals=(around(1, 0.9),))), (0,)),
    ("a second gate whose support alone reaches the ball", (0, 1), lambda a, b: (a, replace(b, gamma=F32(0.5))), (0,)),
    ("gates that are open on one ball each", (0, 1), lambda a, b: (a, b), ()),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "records", "change", "unknowns"), OVERLAPS, ids=[row[0] for row in OVERLAPS])
def test_gates_that_may_be_open_together_add_up(sentence: str, records, change, unknowns: tuple[int, ...]) -> None:
    """Each gate shifts the least for its record alone; together on one ball they shift more than any patch has to."""
    made = patch(*(below(c) for c in CENTRES))
    one, other = change(*made.gates)
    sizes = shifts(*(below(c) for c in CENTRES))[list(records)]
    found = decide_shift_minimality(
        problem(replace(made, gates=(one, other), shifts=sizes)), CLAIM, emit_points(X[list(records)]), "p"
    )
    assert found.unknowns == unknowns, sentence


# --- which points count ---

OUTSIDE = [
    ("on the ball's edge", X[0] + F32(0.03125), 1),
    ("an ulp beyond the ball's edge in one coordinate", None, 0),
    ("far away", X[0] + F32(0.1), 0),
    ("the record of the other gate", X[1], 0),
    ("NaN", np.full(5, np.nan, F32), 0),
    ("infinity", np.array([np.inf, *X[0, 1:]], F32), 0),
    ("minus infinity", np.array([-np.inf, *X[0, 1:]], F32), 0),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "point", "proved"), OUTSIDE, ids=[row[0] for row in OUTSIDE])
def test_a_point_counts_in_the_ball_only(sentence: str, point: np.ndarray | None, proved: int) -> None:
    centres = np.round(X * 32).astype(F32) / 32  # so that x + r is a float32 number
    forget, zero = LabelledRows(centres, LABELS), patch(F32(0))
    at = Problem(BASE, build(BASE, zero), zero, DOMAIN, forget=forget)
    if sentence == "on the ball's edge":
        point = centres[0] + F32(RADIUS)
    elif point is None:
        point = centres[0] + F32(RADIUS)
        point[3] = np.nextafter(point[3], F32(9))
    found = decide_shift_minimality(at, replace(CLAIM, margin=Fraction(1000)), emit_points(point[np.newaxis]), "p")
    assert found.proved == proved, sentence


@pytest.mark.parametrize(
    ("centre", "corner", "proved"),
    [
        (0.01, F32(0), 1),
        (0.01, np.nextafter(F32(0), F32(-1)), 0),
        (0.01, F32(-0.01), 0),
        (0.99, F32(1), 1),
        (0.99, np.nextafter(F32(1), F32(2)), 0),
    ],
)
def test_a_point_beyond_the_domain_does_not_count(centre: float, corner: np.float32, proved: int) -> None:
    """The ball is cut to D, whose ends belong to it: a corner of the ball outside of D says nothing."""
    row = np.array([[centre, 0.5, 0.5, 0.5, 0.5]], F32)
    zero = patch(F32(0))
    at = Problem(BASE, build(BASE, zero), zero, DOMAIN, forget=LabelledRows(row, LABELS[:1]))
    point = row.copy()
    point[0, 0] = corner
    assert decide_shift_minimality(at, replace(CLAIM, margin=Fraction(1000)), emit_points(point), "p").proved == proved


@pytest.mark.parametrize(
    ("sentence", "changed"),
    [
        ("no record", {"records": ()}),
        ("a record that is none", {"records": (2,)}),
        ("a record of another label", {"label": int((LABELS[0] + 1) % 3)}),
        ("a record of another ball first", {"records": (1, 0)}),
    ],
)
def test_a_gate_needs_a_record_of_its_label_whose_ball_holds_the_point(sentence: str, changed: dict) -> None:
    made = patch(F32(0), F32(0))
    made = replace(made, gates=(replace(made.gates[0], **changed), made.gates[1]))
    assert decide_shift_minimality(problem(made), CLAIM, GOOD, "p").unknowns == (0,), sentence


def test_the_domain_may_differ_by_coordinate() -> None:
    domain = Domain((Fraction(0),) * 4 + (Fraction(float(X[0, 4])),), (Fraction(1),) * 5)
    zero = patch(F32(0))
    at = Problem(BASE, build(BASE, zero), zero, domain, forget=LabelledRows(X, LABELS))
    lower, upper = X[0].copy(), X[0].copy()
    lower[4], upper[3] = np.nextafter(X[0, 4], F32(0)), np.nextafter(X[0, 3], F32(0))
    assert decide_shift_minimality(at, CLAIM, emit_points(lower[np.newaxis]), "p").proved == 0
    assert decide_shift_minimality(at, CLAIM, emit_points(upper[np.newaxis]), "p").proved == 1


# --- the evidence is closed, and only shift patches over the reals have this rule ---


def document(points: object, version: object = 1) -> bytes:
    return canonical_json({"formatVersion": version, "points": points})


def text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


POINTS = [text(x.astype("<f4")) for x in X]
ROWS = [
    ("honest", CLAIM, GOOD, None),
    ("the same written out", CLAIM, document(POINTS), None),
    ("binary32, of which exact logits say nothing", replace(CLAIM, arithmetic=BINARY32), GOOD, (UnsupportedVersionError, "claim minimality")),
    ("another kind", replace(CLAIM, kind="forget"), GOOD, (UnsupportedVersionError, "claim forget")),
    ("no margin", replace(CLAIM, margin=None), GOOD, (ProofError, "claim minimality")),
    ("not JSON", CLAIM, b"x", (MalformedInputError, "p")),
    ("empty", CLAIM, b"", (MalformedInputError, "p")),
    ("spaces", CLAIM, GOOD.replace(b",", b", "), (MalformedInputError, "p")),
    ("a member too many", CLAIM, canonical_json({"formatVersion": 1, "points": POINTS, "z": 1}), (MalformedInputError, "p")),
    ("a member too few", CLAIM, canonical_json({"formatVersion": 1}), (MalformedInputError, "p")),
    ("another version", CLAIM, document(POINTS, 2), (UnsupportedVersionError, "p/formatVersion")),
    ("a version in words", CLAIM, document(POINTS, "1"), (MalformedInputError, "p/formatVersion")),
    ("a point too few", CLAIM, document(POINTS[:1]), (ProofError, "p/points")),
    ("no points", CLAIM, document([]), (ProofError, "p/points")),
    ("a point too many", CLAIM, document([*POINTS, POINTS[0]]), (MalformedInputError, "p/points")),
    ("points as one text", CLAIM, document(POINTS[0]), (MalformedInputError, "p/points")),
    ("a number", CLAIM, document([POINTS[0], 7]), (MalformedInputError, "p/points/1")),
    ("a list of numbers", CLAIM, document([[0, 0, 0, 0, 0], POINTS[1]]), (MalformedInputError, "p/points/0")),
    ("float64", CLAIM, document([POINTS[0], text(X[1].astype("<f8"))]), (MalformedInputError, "p/points/1")),
    ("float16", CLAIM, document([text(X[0].astype("<f2")), POINTS[1]]), (MalformedInputError, "p/points/0")),
    ("a coordinate too few", CLAIM, document([text(X[0, :4].astype("<f4")), POINTS[1]]), (MalformedInputError, "p/points/0")),
    ("base64 without its padding", CLAIM, document([POINTS[0].rstrip("="), POINTS[1]]), (MalformedInputError, "p/points/0")),
    ("base64 of the URL kind", CLAIM, document([POINTS[0], "-_" + POINTS[1][2:]]), (MalformedInputError, "p/points/1")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "claim", "data", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_rules(sentence: str, claim: Claim, data: bytes, expected: tuple[type[CheckError], str] | None) -> None:
    if expected is None:
        assert decide_shift_minimality(LEAST, claim, data, "p").proved == 2
        return
    with pytest.raises(expected[0]) as refusal:
        decide_shift_minimality(LEAST, claim, data, "p")
    assert refusal.value.path == expected[1], sentence


@pytest.mark.parametrize(
    ("sentence", "changed"),
    [("no radius", {"radius": None}), ("a margin of 0", {"margin": Fraction(0)}), ("less", {"margin": Fraction(-1)})],
)
def test_less_asked_for_proves_less(sentence: str, changed: dict) -> None:
    """Without a ball no point counts; with a smaller margin a smaller shift would do."""
    assert decide_shift_minimality(LEAST, replace(CLAIM, **changed), GOOD, "p").unknowns == (0, 1), sentence


def test_big_endian_points_are_other_points() -> None:
    swapped = document([text(x.astype(">f4")) for x in X])
    assert decide_shift_minimality(LEAST, CLAIM, swapped, "p").proved == 0


JOINT = JointPatch(3, (), F32(1), F32(64), F32(256), (Gate(0, F32(64), (around(0),), (0,)),))
LEARNED = LearnedPatch(3, ((np.zeros((3, 5), F32), np.zeros(3, F32)),))


@pytest.mark.parametrize("made", [JOINT, LEARNED], ids=["box", "learned"])
def test_other_families_have_other_rules(made: Patch) -> None:
    with pytest.raises(ProofError) as refusal:
        decide_shift_minimality(problem(made), CLAIM, GOOD, "p")
    assert refusal.value.path == "patch.json/family"


def test_the_deployed_file_has_to_have_the_shifts_of_the_patch() -> None:
    """What is judged is what is deployed: a patch.json with smaller shifts than the network is refused."""
    shipped = build(BASE, patch(*(below(3 * c) for c in CENTRES)))
    forged = Problem(BASE, shipped, LEAST.patch, DOMAIN, forget=LEAST.forget)
    with pytest.raises(SubjectMismatchError) as refusal:
        decide_shift_minimality(forged, CLAIM, GOOD, "p")
    assert refusal.value.path == "patched.onnx"


# --- against brute force ---


@pytest.mark.parametrize("seed", range(6))
def test_no_affine_patch_that_forgets_on_the_ball_shifts_less(seed: int) -> None:
    """A linear program finds the affine P of least |P| over the ball's corners that forgets there: never below L."""
    rng = np.random.default_rng(seed)
    base = mlp(seed, 2, 4, 3)
    centre = rng.uniform(0.2, 0.8, 2)
    corners = np.array([centre + float(RADIUS) * np.array(way) for way in ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 0))])
    corners = corners.astype(F32)
    logits = evaluate(base, corners).astype(np.float64)
    label = int(logits[-1].argmax())
    need = max(exact(corner, label, base=base) for corner in corners)
    best = min(_least_affine(corners, logits, label, target) for target in range(3) if target != label)
    assert best >= float(need) - 1e-6
    # and half of it up, half of it down does, in the greatest number, with no more
    constant = np.zeros(3)
    rival = int(np.where(np.arange(3) == label, -np.inf, logits[0]).argmax())
    constant[label], constant[rival] = -float(need), float(need)
    moved = logits + constant
    if len({int(np.where(np.arange(3) == label, -np.inf, row).argmax()) for row in logits}) == 1:
        assert (np.delete(moved, label, axis=1).max(axis=1) - moved[:, label] >= float(MARGIN) - 1e-5).all()


def _least_affine(corners: np.ndarray, logits: np.ndarray, label: int, target: int) -> float:
    """Least greatest |P_j| of P = A x + b that puts ``target`` above ``label`` by the margin on every corner."""
    rows, most = [], []
    for corner, z in zip(corners.astype(np.float64), logits, strict=True):
        values = np.zeros((3, 10))
        for j in range(3):
            values[j, 3 * j : 3 * j + 2], values[j, 3 * j + 2] = corner, 1
        rows.append(values[label] - values[target])
        most.append(z[target] - z[label] - float(MARGIN))
        for j in range(3):
            for sign in (1, -1):
                row = sign * values[j]
                row[9] = -1
                rows.append(row)
                most.append(0.0)
    found = linprog(np.eye(10)[9], A_ub=np.array(rows), b_ub=np.array(most), bounds=[(None, None)] * 10, method="highs")
    return float(found.fun)


def test_the_prover_finds_points_inside_that_prove_at_least_what_the_centre_does() -> None:
    found = decide_shift_minimality(LEAST, CLAIM, prove_shift_minimality(LEAST, CLAIM), "p")
    assert found.proved == 2
    larger = problem(patch(*(below(c * Fraction(101, 100)) for c in CENTRES)))
    assert decide_shift_minimality(larger, CLAIM, GOOD, "p").proved == 0
    assert decide_shift_minimality(larger, CLAIM, prove_shift_minimality(larger, CLAIM), "p").proved == 2


# --- why only over the reals ---


def _cancelling() -> Network:
    """Logits (2^24 x + x - 2^24 x, 0, 0): x over the reals, and 0 in float32 where the sum is taken in this order."""
    hidden = {"weight": np.array([[2**24], [1], [-(2**24)]], F32), "bias": np.zeros(3, F32)}
    last = {"weight": np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]], F32)}
    nodes = [Node("Input", (), (1,)), Node("Linear", (0,), (3,), {"axis": (-1,)}, hidden), Node("Linear", (1,), (3,), {"axis": (-1,)}, last)]  # fmt: skip
    return Network(tuple(nodes), 2)


def test_in_float32_a_smaller_shift_can_forget() -> None:
    """The reason why binary32 is refused: L from exact logits is 0.5625, and 0.25 is enough for the program."""
    base, point = _cancelling(), np.ones((1, 1), F32)
    assert exact(point[0], 0, base=base) == Fraction(9, 16)
    hidden = F32(2**24) + F32(1)
    program = np.array([hidden - F32(2**24), 0, 0], F32)  # one admissible order
    assert program[0] == 0
    shifted = program + np.array([-0.25, 0.25, 0], F32)
    assert shifted[1] - shifted[0] >= MARGIN
