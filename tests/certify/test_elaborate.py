"""Proofs of claims: by rule crown, by optimised slopes, by splits, by z3; and none for what does not hold."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from prune_verify.bounds.engine import BoundEngine
from prune_verify.bounds.errors import BoundsError
from prune_verify.certify import elaborate
from prune_verify.certify.chunks import chunks, joined, read_report, settle_chunk
from prune_verify.certify.elaborate import prove_bounded
from prune_verify.certify.settle import Limits
from prune_verify.checker import bounded_claims
from prune_verify.checker.bounded_claims import decide_bounded, goals_of
from prune_verify.checker.claim import Claim, Problem
from prune_verify.checker.errors import ProofError, UnsupportedVersionError
from prune_verify.checker.goals import decide_goals
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import BINARY32, REAL
from tests.certify.small_problems import additive, checked, effort, foreign, forget_room, prove
from tests.checker.random_networks import mlp

pytestmark = pytest.mark.prover

BOTH = pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
FEW = additive(mlp(3, 4, 9, 9, 3))  # splits go over the input
WIDE = additive(mlp(7, 18, 8, 8, 3, scale=0.5), scale=0.5)  # slopes, then splits over signs
FORGET = Claim("forget", REAL, "relaxation", radius=Fraction("0.2"))
CROWN, SEEN = forget_room(WIDE, FORGET)


def _optimised() -> np.ndarray:
    """The margin that the checker proves for each record with optimised slopes, by the better atom."""
    goals = goals_of(WIDE, replace(FORGET, margin=Fraction(0)))
    every = np.arange(goals.records)
    low, high = goals.boxes(every)
    intervals, engine = crown_intervals(goals.network, low, high, REAL), BoundEngine(goals.network)
    found = []
    for atom in range(goals.atoms):
        rows = goals.constraint(every)[0][:, 0, atom]
        ends = low.astype(np.float32), high.astype(np.float32)
        result = engine.lower_bounds(rows[:, np.newaxis].astype(np.float32), *ends, method="alpha-crown")
        slopes = Hints({node: values[0] for node, values in result.slopes.items()})
        found.append(lower_bounds(goals.network, intervals, rows, slopes, REAL))
    return np.max(found, axis=0)


@BOTH
def test_what_crown_proves_needs_no_slopes(arithmetic: str) -> None:
    claim = replace(FORGET, arithmetic=arithmetic, margin=Fraction(float(CROWN.min())) - Fraction(1, 1000))
    found, proof = prove(WIDE, claim)
    assert (found.outcome.total, found.outcome.proved, found.method) == (5, 5, "relaxation")
    assert not proof.slopes
    assert not proof.trees.size
    assert {name for name, count in found.stages.items() if count} <= {"crown-ibp", "crown"}


@BOTH
def test_optimised_slopes_prove_more_and_only_useful_ones_are_sent(arithmetic: str) -> None:
    best = _optimised()
    record = int((best - CROWN).argmax())
    margin = Fraction(float(CROWN[record] + best[record]) / 2)
    claim = replace(FORGET, arithmetic=arithmetic, margin=margin)
    found, proof = prove(WIDE, claim, effort(splits=0))
    assert record in proof.hinted
    assert found.stages["alpha"] == len(proof.hinted)
    assert all(WIDE.patched.nodes[node].op == "Relu" for node in proof.slopes)
    assert not set(proof.hinted.tolist()) & set(found.outcome.unknowns)
    assert not found.outcome.assumptions
    bare = emit(replace(proof, hinted=proof.hinted[:0], active={}, slopes={}))
    left = set(decide_bounded(WIDE, claim, bare, "p").unknowns)
    assert left == set(found.outcome.unknowns) | set(proof.hinted.tolist())


def _middle(share: float) -> tuple[int, Claim]:
    """The record with most room between what crown proves and what was seen, and a margin within that room."""
    record = int((SEEN - CROWN).argmax())
    return record, replace(FORGET, margin=Fraction(float(CROWN[record] + share * (SEEN - CROWN)[record])))


@BOTH
def test_splits_prove_more_than_slopes(arithmetic: str) -> None:
    record, claim = _middle(0.5)
    claim = replace(claim, arithmetic=arithmetic)
    assert float(_optimised()[record]) < float(claim.margin)
    found, proof = prove(WIDE, claim)
    assert record in proof.trees
    assert record not in found.outcome.unknowns
    assert found.stages["splits"] == len(proof.trees)
    without = prove(WIDE, claim, effort(splits=0))[0]
    assert set(without.outcome.unknowns) == set(found.outcome.unknowns) | set(proof.trees.tolist())


def _few(share: float) -> tuple[int, Claim]:
    """The same for the network of few inputs, about which z3 answers fast."""
    claim = replace(FORGET, radius=Fraction("0.4"))
    crown, seen = forget_room(FEW, claim)
    record = int((seen - crown).argmax())
    return record, replace(claim, margin=Fraction(float(crown[record] + share * (seen - crown)[record])))


def test_z3_decides_what_splits_leave_open_and_the_assumption_is_named() -> None:
    record, claim = _few(0.6)
    found, proof = prove(FEW, claim, effort(splits=0, solver_seconds=20.0))
    assert found.method == "relaxation+smt"
    assert record in proof.smt
    assert record not in found.outcome.unknowns
    assert len(found.outcome.assumptions) == len(proof.smt)
    assert all(name.startswith("z3_unsat:") for name in found.outcome.assumptions)
    assert proof.choices[proof.smt].tolist() == [-1] * len(proof.smt)


def test_what_z3_proves_is_elaborated_by_more_splits_where_they_are_enough() -> None:
    record, claim = _few(0.8)
    least = 1
    while record not in prove(FEW, claim, effort(splits=least))[1].trees:
        least *= 2
    assert least > 1
    found, proof = prove(FEW, claim, effort(splits=least // 2, solver_seconds=20.0))
    assert record in proof.trees
    assert record not in found.outcome.unknowns
    assert not found.outcome.assumptions
    assert found.stages["z3"] == 1


def test_in_binary32_z3_is_no_proof() -> None:
    record, claim = _few(0.6)
    found, _ = prove(FEW, replace(claim, arithmetic=BINARY32), effort(splits=0, solver_seconds=20.0))
    assert record in found.outcome.unknowns
    assert found.method == "relaxation"
    assert not found.outcome.assumptions
    assert found.why[record] == "z3 proves it over the reals, and no splits were found that do"


def test_no_more_records_rest_on_z3_than_the_checker_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = replace(FORGET, radius=Fraction("0.3"), margin=Fraction(-12))
    given = effort(splits=0, solver_seconds=20.0)
    every = prove(FEW, claim, given)[1].smt
    assert len(every) > 1
    monkeypatch.setattr(elaborate, "MAX_SMT_RECORDS", 1)
    monkeypatch.setattr(bounded_claims, "MAX_SMT_RECORDS", 1)
    found, proof = prove(FEW, claim, given)
    assert proof.smt.tolist() == every[:1].tolist()
    assert set(every[1:].tolist()) <= set(found.outcome.unknowns)


@BOTH
@pytest.mark.parametrize("problem", [FEW, WIDE], ids=["few", "wide"])
def test_what_does_not_hold_is_refuted_by_a_point_that_breaks_it_or_unknown(problem: Problem, arithmetic: str) -> None:
    _, seen = forget_room(problem, FORGET)
    claim = replace(FORGET, arithmetic=arithmetic, margin=Fraction(float(np.median(seen))) + Fraction(1, 100))
    false = np.flatnonzero(seen < float(claim.margin))
    found, _ = prove(problem, claim)
    assert set(false.tolist()) <= set(found.outcome.unknowns)
    assert found.points
    forget = problem.rows("forget")
    for record, x in found.points.items():
        middle = forget.x[record].astype(np.float64)
        assert (np.abs(x.astype(np.float64) - middle) <= 0.2 + 1e-15).all()
        logits, label = evaluate(problem.patched, x[np.newaxis])[0].astype(np.float64), forget.y[record]
        assert np.delete(logits, label).max() - logits[label] < float(claim.margin)
    blind, _ = prove(problem, claim, effort(restarts=0))
    assert set(false.tolist()) <= set(blind.outcome.unknowns)
    assert not blind.points


class Missing:
    """No bound engine on this machine."""

    def __init__(self, network: Network) -> None:
        raise BoundsError(str(network.output))


@BOTH
def test_without_the_bound_engine_rule_crown_and_splits_still_serve(arithmetic: str) -> None:
    record, claim = _middle(0.5)
    found, proof = prove(WIDE, replace(claim, arithmetic=arithmetic), replace(effort(), engine=Missing))
    assert record in proof.trees
    assert found.stages["alpha"] == 0
    claim = replace(claim, arithmetic=arithmetic, margin=Fraction(float(CROWN[record])) - Fraction(1, 1000))
    found, proof = prove(WIDE, claim, replace(effort(splits=0), engine=Missing))
    assert record not in found.outcome.unknowns
    assert not proof.hinted.size


NEAR = foreign(mlp(7, 18, 8, 8, 3, scale=0.5), 0.01)
LABEL = Claim("retain_label", REAL, "relaxation", radius=Fraction("0.01"))
CLOSE = Claim("retain_close", REAL, "relaxation", radius=Fraction("0.1"))
KINDS = [
    ("an additive patch is bounded alone", WIDE, replace(CLOSE, delta=Fraction(8)), replace(CLOSE, delta=Fraction(1, 100))),
    ("a foreign pair is bounded together", NEAR, replace(CLOSE, delta=Fraction("0.8")), replace(CLOSE, delta=Fraction(1, 1000))),
    ("labels under an additive patch", additive(mlp(7, 18, 8, 8, 3, scale=0.5), scale=0.05), LABEL, replace(LABEL, radius=Fraction(2))),
    ("labels of a foreign pair", NEAR, LABEL, replace(LABEL, radius=Fraction(2))),
    ("a band", WIDE, replace(FORGET, kind="band", band=(Fraction(-40), Fraction(40))), replace(FORGET, kind="band", band=(Fraction(0), Fraction(1, 10)))),
    ("forgetting", FEW, replace(FORGET, margin=Fraction(-40)), replace(FORGET, margin=Fraction(40))),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("sentence", "problem", "holds", "fails"), KINDS, ids=[row[0] for row in KINDS])
def test_kinds_of_claims(sentence: str, problem: Problem, holds: Claim, fails: Claim, arithmetic: str) -> None:
    found, proof = prove(problem, replace(holds, arithmetic=arithmetic))
    assert (found.outcome.proved, found.outcome.unknowns) == (5, ())
    assert proof.network == goals_of(problem, holds).network.digest()
    wrong = problem.already_wrong() if holds.kind in ("forget", "band") else ()
    assert found.outcome.already_wrong == wrong
    found, _ = prove(problem, replace(fails, arithmetic=arithmetic), effort(splits=20, seconds=2.0))
    assert found.outcome.proved < 5
    assert found.points


@BOTH
def test_splits_serve_claims_of_several_clauses(arithmetic: str) -> None:
    """Deltas from loose to tight: fewer and fewer records, and somewhere between trees beside plain choices."""
    trees, shares = 0, []
    for delta in ("6", "3", "2.5", "2", "1.5", "0.1"):
        claim = replace(CLOSE, arithmetic=arithmetic, delta=Fraction(delta), radius=Fraction("0.2"))
        found, proof = prove(WIDE, claim)
        trees += len(proof.trees)
        shares.append(found.outcome.proved)
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (5, 0)
    assert trees > 0


def test_the_same_bytes_twice() -> None:
    for problem, claim in ((WIDE, _middle(0.5)[1]), (FEW, replace(FORGET, margin=Fraction(1))), (WIDE, KINDS[0][2])):
        first, second = (prove_bounded(problem, claim, effort=effort()) for _ in range(2))
        assert first.proof == second.proof
        assert first.outcome == second.outcome
        assert first.points.keys() == second.points.keys()
        assert all((first.points[record] == second.points[record]).all() for record in first.points)


PIECES = [
    ("slopes and trees", WIDE, replace(FORGET, margin=Fraction(float(np.median(_optimised() + CROWN)) / 2))),
    ("trees over signs", WIDE, _middle(0.3)[1]),
    ("trees over the input", FEW, replace(FORGET, margin=Fraction(-11), radius=Fraction("0.3"))),
    ("several clauses", WIDE, replace(CLOSE, delta=Fraction("2.5"), radius=Fraction("0.2"))),
    ("base and patched network side by side", NEAR, replace(CLOSE, delta=Fraction("0.6"))),
]


@pytest.mark.parametrize(("sentence", "problem", "claim"), PIECES, ids=[row[0] for row in PIECES])
def test_pieces_of_any_size_come_to_the_same(sentence: str, problem: Problem, claim: Claim, monkeypatch) -> None:
    outcomes = []
    for size in (1, 2, 128):
        monkeypatch.setattr(elaborate, "chunks", partial(chunks, size=size))
        outcomes.append(prove(problem, claim, effort(splits=16))[0].outcome)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0].proved > 0


def _sizes(rng: np.random.Generator, records: int) -> list[int]:
    sizes = []
    while sum(sizes) < records:
        sizes.append(int(rng.integers(1, records - sum(sizes) + 1)))
    return sizes


@pytest.mark.parametrize("seed", range(12))
def test_a_joined_proof_decides_what_its_parts_decide(seed: int) -> None:
    """Random goals in pieces of random sizes: hints, trees, cuts, multipliers and lemmas all move to their own goals."""
    rng = np.random.default_rng(seed)
    _, problem, claim = PIECES[seed % len(PIECES)]
    if claim.kind == "forget":
        crown, seen = forget_room(problem, claim)
        claim = replace(claim, margin=Fraction(float(rng.choice(crown + rng.uniform(0, 1) * (seen - crown)))))
    goals, engine = goals_of(problem, claim), BoundEngine
    limits, parts, expected, first = Limits(splits=40, solver_seconds=0, seed=seed), [], [], 0
    for size in _sizes(rng, goals.records):
        piece = next(iter(chunks(_part(goals, first, size), claim.kind, limits, engine, size=size)))
        report = read_report(settle_chunk(piece).data, piece.goals())
        parts.append(report.proof)
        decided = decide_goals(piece.goals(), report.proof, "p")
        assert (decided.all(axis=1) == report.proved).all()
        expected.append(decided)
        first += size
    whole = joined(goals, claim.kind, parts)
    again = parse(emit(whole), "p")
    np.testing.assert_array_equal(decide_goals(goals, again, "p"), np.concatenate(expected))
    assert len(again.steps) == sum(len(part.steps) for part in parts)
    assert again.sets == sum(part.sets for part in parts)


def _part(goals, first: int, size: int):
    """Some of the goals, numbered from 0."""
    return replace(
        goals,
        records=size,
        boxes=lambda records: goals.boxes(records + first),
        constraint=lambda records: goals.constraint(records + first),
    )


REFUSED = [
    ("a claim without a radius", replace(FORGET, radius=None, margin=Fraction(1)), ProofError, "claim forget"),
    ("a claim without a margin", FORGET, ProofError, "claim forget"),
    ("a claim without a delta", CLOSE, ProofError, "claim retain_close"),
    ("a claim without a band", replace(FORGET, kind="band"), ProofError, "claim band"),
    ("a kind that has no goals", replace(FORGET, kind="locality"), UnsupportedVersionError, "claim locality"),
]


@pytest.mark.parametrize(("sentence", "claim", "error", "path"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_decided_at_all_is_refused(sentence: str, claim: Claim, error: type, path: str) -> None:
    with pytest.raises(error) as refusal:
        prove_bounded(WIDE, claim, effort=effort())
    assert refusal.value.path == path


def test_a_report_that_was_lost_leaves_its_records_open() -> None:
    _, claim = _middle(0.5)
    goals = goals_of(WIDE, claim)
    report = read_report(b"", goals)
    assert not report.proved.any()
    assert set(report.why) == set(range(5))
    assert not decide_goals(goals, joined(goals, "forget", [report.proof]), "p").any()


def test_progress_is_told_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elaborate, "chunks", partial(chunks, size=2))
    told = []
    claim = replace(FORGET, margin=Fraction(-40))
    found = prove_bounded(WIDE, claim, effort=effort(), progress=lambda *step: told.append(step))
    checked(WIDE, claim, found)
    assert told == [("forget (real), records", done, 5) for done in (2, 4, 5)]
