"""Rule M against brute force: no box with fewer intervals than the proved bound exists; the evidence is closed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from prune_verify.certify.minimal import prove_minimality
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError, MalformedInputError, ProofError, UnsupportedVersionError
from prune_verify.checker.minimality import UNIT, decide_minimality, emit_weights, separable
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import REAL
from tests.checker.random_networks import mlp

DOMAIN = Domain((Fraction(0),), (Fraction(1),))
BASE = mlp(1, 5, 6, 3)
RADIUS, RETAINED = Fraction("0.1"), Fraction("0.05")
F32 = np.float32


def _problem(seed: int, coordinates: tuple[int, ...], count: int = 12) -> Problem:
    rng = np.random.default_rng(seed)
    forget = rng.uniform(0.2, 0.8, (1, 5)).astype(F32)
    retain = rng.uniform(0, 1, (count, 5)).astype(F32)
    reach = F32(0.1 + 2.0**-20)
    intervals = tuple(Interval(j, F32(forget[0, j] - reach), F32(forget[0, j] + reach)) for j in coordinates)
    gate = Gate(0, F32(100), intervals, (0,))
    patch = JointPatch(3, (), F32(1), F32(2000), F32(5000), (gate,))
    rows = LabelledRows(forget, np.zeros(1, np.int64)), LabelledRows(retain, np.ones(count, np.int64))
    return Problem(BASE, build(BASE, patch), patch, DOMAIN, forget=rows[0], retain=rows[1])


CLAIM = Claim("minimality", REAL, "covering-dual", radius=RADIUS, cover=(1, RETAINED))


def _smallest(problem: Problem, cover: int) -> tuple[int, ...]:
    """The fewest coordinates that separate every retained ball that can be separated, by brute force."""
    forget, retain = problem.forget.flat()[0], problem.retain.flat()
    apart = np.array(
        [
            [abs(Fraction(float(v)) - Fraction(float(c))) > RADIUS + RETAINED for v, c in zip(row, forget, strict=True)]
            for row in retain
        ]
    )
    apart = apart[apart.sum(axis=1) >= cover]
    for size in range(6):
        for chosen in combinations(range(5), size):
            if (apart[:, list(chosen)].sum(axis=1) >= cover).all():
                return chosen
    raise AssertionError


@pytest.mark.parametrize("cover", [1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_the_bound_never_passes_the_least_size_and_is_found_by_the_prover(seed: int, cover: int) -> None:
    claim = replace(CLAIM, cover=(cover, RETAINED))
    smallest = _smallest(_problem(seed, (0,)), cover)
    sizes = [tuple(range(size)) for size in range(1, 6)] + [smallest, tuple({*smallest, 0, 1})]
    for coordinates in filter(None, sizes):
        size, fewest = len(coordinates), len(smallest)
        problem = _problem(seed, coordinates)
        rng = np.random.default_rng(seed)
        for _ in range(10):
            weights = tuple((r, int(rng.integers(0, 2 * UNIT))) for r in range(12))
            try:
                outcome = decide_minimality(problem, claim, emit_weights([weights]), "p")
            except ProofError:
                continue
            assert outcome.proved == 0 or size <= fewest
        data = prove_minimality(problem, claim)
        proved = decide_minimality(problem, claim, data, "p").proved
        assert proved == 0 or size <= fewest


def test_the_prover_often_reaches_the_least_size() -> None:
    reached = 0
    for seed in range(12):
        problem = _problem(seed, _smallest(_problem(seed, (0,)), 1) or (0,))
        reached += decide_minimality(problem, CLAIM, prove_minimality(problem, CLAIM), "p").proved
    assert reached >= 8


def test_a_gate_that_does_not_hold_its_records_is_not_minimal() -> None:
    problem = _problem(0, (0, 1))
    wide = decide_minimality(problem, replace(CLAIM, radius=Fraction("0.2")), prove_minimality(problem, CLAIM), "p")
    assert wide.proved == 0


def test_separation_at_exactly_the_radii_is_none() -> None:
    forget, reach = np.array([[0.5, 0.5]], F32), Fraction(1, 4)
    retain = np.array([[0.75, 0.75 + 2**-20], [0.25, 0.25 - 2**-20]], F32)
    assert separable(forget, retain, reach / 2, reach / 2).tolist() == [[False, True], [False, True]]
    assert separable(forget, retain, reach / 2, reach / 2 - Fraction(1, 2**80)).all()


PROBLEM = _problem(0, (0, 1))
GOOD = emit_weights([((0, UNIT),)])


def _json(value: object) -> bytes:
    return canonical_json({"formatVersion": 1, "gates": value})


ROWS = [
    ("weights", CLAIM, GOOD, None),
    ("no weights prove nothing", CLAIM, emit_weights([()]), None),
    ("a weight of 0", CLAIM, emit_weights([((0, 0),)]), None),
    ("another kind", replace(CLAIM, kind="forget"), GOOD, (UnsupportedVersionError, "claim forget")),
    ("no cover", replace(CLAIM, cover=None), GOOD, (ProofError, "claim minimality")),
    ("no radius", replace(CLAIM, radius=None), GOOD, (ProofError, "claim minimality")),
    ("not JSON", CLAIM, b"x", (MalformedInputError, "p")),
    ("another version", CLAIM, canonical_json({"formatVersion": 2, "gates": []}), (UnsupportedVersionError, "p/formatVersion")),
    ("a gate too few", CLAIM, _json([]), (ProofError, "p/gates")),
    ("a gate too many", CLAIM, _json([[], []]), (ProofError, "p/gates")),
    ("no list", CLAIM, _json([7]), (MalformedInputError, "p/gates/0")),
    ("no pair", CLAIM, _json([[7]]), (MalformedInputError, "p/gates/0")),
    ("three numbers", CLAIM, _json([[[1, 2, 3]]]), (MalformedInputError, "p/gates/0")),
    ("a Boolean weight", CLAIM, _json([[[1, True]]]), (MalformedInputError, "p/gates/0")),
    ("a negative weight", CLAIM, _json([[[1, -1]]]), (ProofError, "p/gates/0")),
    ("a record that is none", CLAIM, _json([[[12, 1]]]), (ProofError, "p/gates/0")),
    ("a negative record", CLAIM, _json([[[-1, 1]]]), (ProofError, "p/gates/0")),
    ("a record twice", CLAIM, _json([[[1, 1], [1, 1]]]), (ProofError, "p/gates/0")),
    ("records that descend", CLAIM, _json([[[2, 1], [1, 1]]]), (ProofError, "p/gates/0")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "claim", "data", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_rules(sentence: str, claim: Claim, data: bytes, expected: tuple[type[CheckError], str] | None) -> None:
    if expected is None:
        assert decide_minimality(PROBLEM, claim, data, "p").total == 1
        return
    with pytest.raises(expected[0]) as refusal:
        decide_minimality(PROBLEM, claim, data, "p")
    assert refusal.value.path == expected[1]


def test_a_record_that_nothing_separates_may_not_be_weighed() -> None:
    problem = _problem(0, (0, 1))
    problem.retain.x[3] = problem.forget.x[0]
    with pytest.raises(ProofError) as refusal:
        decide_minimality(problem, CLAIM, _json([[[3, 1]]]), "p")
    assert (refusal.value.path, refusal.value.got) == ("p/gates/0", "record 3")
    assert decide_minimality(problem, CLAIM, prove_minimality(problem, CLAIM), "p").total == 1


def test_a_gate_of_records_that_are_none_is_refused() -> None:
    problem = _problem(0, (0, 1))
    gate = replace(problem.patch.gates[0], records=(1,))
    problem.patch = replace(problem.patch, gates=(gate,))
    with pytest.raises(ProofError) as refusal:
        decide_minimality(problem, CLAIM, GOOD, "p")
    assert refusal.value.path == "p/gates/0"


def test_a_gate_of_several_records_is_judged_by_their_hull() -> None:
    """Both ends of the hull count, and a gate that holds only some of its records is not minimal."""
    forget, retain = np.array([[0.25, 0.5], [0.5, 0.25]], F32), np.array([[0.625, 0.125], [0.375, 0.375]], F32)
    reach = Fraction(1, 32)
    assert separable(forget, retain, reach, reach).tolist() == [[True, True], [False, False]]
    problem = _problem(0, (0,))
    rng = np.random.default_rng(5)
    x = np.stack([problem.forget.x[0], rng.uniform(0.2, 0.8, 5).astype(F32)])
    problem.forget = LabelledRows(x, np.zeros(2, np.int64))
    gate = problem.patch.gates[0]
    apart = separable(x, problem.retain.flat(), RADIUS, RETAINED)[:, 0]
    problem.retain = LabelledRows(problem.retain.x[apart], problem.retain.y[apart])  # which coordinate 0 separates
    weights = ((0, UNIT),)
    for records, expected in (((0,), 1), ((0, 1), 0), ((1,), 0)):
        problem.patch = replace(problem.patch, gates=(replace(gate, records=records),))
        assert decide_minimality(problem, CLAIM, emit_weights([weights]), "p").proved == expected
    problem.patch = replace(problem.patch, gates=(replace(gate, records=(0, 2)),))
    with pytest.raises(ProofError) as refusal:
        decide_minimality(problem, CLAIM, emit_weights([weights]), "p")
    assert refusal.value.path == "p/gates/0"


@pytest.mark.parametrize(
    ("sentence", "change", "expected"),
    [
        ("the smallest gate for this cover", lambda _: None, 1),
        ("a retained ball that a second coordinate separates, and the gate does not", lambda p: p.retain.x.__setitem__((0, 0), p.forget.x[0, 0]), 0),
        ("a retained ball at exactly the edge and the radius", lambda p: p.retain.x.__setitem__((0, 0), p.patch.gates[0].intervals[0].high + F32(0.0625)), 0),
        ("a retained ball that nothing separates does not count", lambda p: p.retain.x.__setitem__(0, p.forget.x[0]), 1),
        ("a record of another label in the gate", lambda p: p.forget.y.__setitem__(0, 1), 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_gate_is_one_of_those_that_it_is_compared_with(sentence: str, change, expected: int) -> None:
    """One forget ball; two retained balls that coordinate 0 separates and another coordinate as well."""
    claim = replace(CLAIM, cover=(1, Fraction(1, 16)))
    problem = _problem(0, (0,))
    x = np.tile(problem.forget.x[0], (2, 1))
    x[:, 0] += F32(0.4)
    x[0, 1] += F32(0.4)
    x[1, 2] += F32(0.4)
    problem.retain = LabelledRows(x, np.ones(2, np.int64))
    change(problem)
    assert decide_minimality(problem, claim, emit_weights([((1, UNIT),)]), "p").proved == expected
