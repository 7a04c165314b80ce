"""Proofs found: by rule crown alone, by optimised slopes, by z3; and none for what does not hold."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.bounds.errors import BoundsError
from prune_verify.certify import elaborate
from prune_verify.certify.elaborate import prove_forget, prove_retain_close
from prune_verify.certify.slopes import forget_hints
from prune_verify.checker.bounded_claims import decide_bounded
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.errors import ProofError
from prune_verify.checker.network import evaluate_exact
from prune_verify.checker.patch import LearnedPatch, build
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.region import Domain
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import BINARY32, REAL
from tests.checker.random_networks import mlp

pytestmark = pytest.mark.prover

DOMAIN = Domain((Fraction(-2),), (Fraction(2),))
RADIUS = Fraction("0.3")
BASE = mlp(3, 4, 9, 9, 3)
RNG = np.random.default_rng(2)
X = RNG.uniform(-1, 1, (5, 4)).astype(np.float32)
FIRST = RNG.standard_normal((6, 4)).astype(np.float32), RNG.standard_normal(6).astype(np.float32)
LAST = RNG.standard_normal((3, 6)).astype(np.float32), np.array([-6, 0, 6], np.float32)
PATCH = LearnedPatch(3, (FIRST, LAST))
PATCHED = build(BASE, PATCH)
ROWS = LabelledRows(X, np.zeros(5, dtype=np.int64))
PROBLEM = Problem(BASE, PATCHED, PATCH, DOMAIN, forget=ROWS, retain=ROWS)
FORGET = Claim("forget", REAL, "relaxation", radius=RADIUS)
CLOSE = Claim("retain_close", REAL, "relaxation", radius=RADIUS)


def _bound(record: int, arithmetic: str, slopes: dict[int, np.ndarray], competitor: int) -> float:
    """The checker's bound of N'_j - N'_0 on one ball."""
    lower, upper = DOMAIN.ball(X[record : record + 1], RADIUS)
    intervals = crown_intervals(PATCHED, lower, upper, arithmetic)
    objective = np.eye(3)[[competitor]] - np.eye(3)[[0]]
    return float(lower_bounds(PATCHED, intervals, objective, Hints(slopes), arithmetic)[0])


def _margins(record: int, arithmetic: str) -> tuple[Fraction, Fraction, Fraction]:
    """What rule crown proves on a ball, what optimised slopes prove, and the least margin seen at its corners."""
    rows, labels = X[record : record + 1], ROWS.y[record : record + 1]
    (hint,) = forget_hints(PATCHED, rows, labels, RADIUS, DOMAIN)
    crown = _bound(record, arithmetic, {}, hint.competitor)
    alpha = _bound(record, arithmetic, {k: v[np.newaxis] for k, v in hint.slopes.items()}, hint.competitor)
    ends = [[float(v) - 0.3, float(v) + 0.3] for v in rows[0]]
    logits = evaluate_exact(PATCHED, np.array(np.meshgrid(*ends)).reshape(4, -1).T.clip(-2, 2))
    return Fraction(crown), Fraction(max(crown, alpha)), min(max(z[1:]) - z[0] for z in logits)


MARGINS = {a: [_margins(record, a) for record in range(5)] for a in (REAL, BINARY32)}


def _checked(problem: Problem, claim: Claim, found: tuple) -> object:
    """The outcome, once it is what the checker says of the bytes."""
    data, outcome, method = found
    assert decide_bounded(problem, replace(claim, method=method), data, "p") == outcome
    assert emit(parse(data, "p")) == data
    assert parse(data, "p").method == method
    return outcome


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
def test_what_crown_proves_needs_no_slopes(arithmetic: str) -> None:
    margin = min(crown for crown, _, _ in MARGINS[arithmetic]) - Fraction(1, 10**6)
    claim = replace(FORGET, arithmetic=arithmetic, margin=margin)
    found = prove_forget(PROBLEM, claim)
    outcome = _checked(PROBLEM, claim, found)
    assert (outcome.total, outcome.proved, outcome.unknowns) == (5, 5, ())
    assert found[2] == "relaxation"
    assert not parse(found[0], "p").slopes


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
def test_optimised_slopes_prove_more_and_only_useful_ones_are_sent(arithmetic: str, monkeypatch) -> None:
    monkeypatch.setattr(elaborate, "solve", lambda *_: "unknown")
    gains = [alpha - crown for crown, alpha, _ in MARGINS[arithmetic]]
    record = int(np.argmax([float(g) for g in gains]))
    assert gains[record] > 0
    crown, alpha, _ = MARGINS[arithmetic][record]
    margin = (crown + alpha) / 2
    claim = replace(FORGET, arithmetic=arithmetic, margin=margin)
    found = prove_forget(PROBLEM, claim)
    outcome = _checked(PROBLEM, claim, found)
    assert record not in outcome.unknowns
    proof = parse(found[0], "p")
    assert record in proof.hinted
    assert proof.slopes
    assert all(PATCHED.nodes[node].op == "Relu" for node in proof.slopes)
    assert not set(proof.hinted.tolist()) & set(outcome.unknowns)
    assert not outcome.assumptions
    # the same proof without its slopes leaves the record open
    bare = emit(replace(proof, hinted=proof.hinted[:0], active={}, slopes={}))
    assert record in decide_bounded(PROBLEM, claim, bare, "p").unknowns


def _between() -> tuple[int, Fraction]:
    """A record, and a margin that no slopes found prove although it holds at all corners by far."""
    rooms = [least - alpha for _, alpha, least in MARGINS[REAL]]
    record = int(np.argmax([float(room) for room in rooms]))
    return record, MARGINS[REAL][record][1] + rooms[record] / 10


def test_z3_decides_what_bounds_leave_open_and_the_assumption_is_named() -> None:
    record, margin = _between()
    claim = replace(FORGET, margin=margin)
    found = prove_forget(PROBLEM, claim, timeout=20)
    outcome = _checked(PROBLEM, claim, found)
    proof = parse(found[0], "p")
    assert found[2] == "relaxation+smt"
    assert record in proof.smt
    assert record not in outcome.unknowns
    assert len(outcome.assumptions) == len(proof.smt)
    assert all(name.startswith("z3_unsat:") for name in outcome.assumptions)


def test_z3_is_not_asked_about_binary32() -> None:
    record, margin = _between()
    claim = replace(FORGET, arithmetic=BINARY32, margin=margin)
    found = prove_forget(PROBLEM, claim, timeout=20)
    outcome = _checked(PROBLEM, claim, found)
    assert record in outcome.unknowns
    assert found[2] == "relaxation"
    assert not outcome.assumptions


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
def test_what_does_not_hold_stays_unknown(arithmetic: str) -> None:
    least = min(m for _, _, m in MARGINS[REAL])
    claim = replace(FORGET, arithmetic=arithmetic, margin=least + Fraction(1, 100))
    outcome = _checked(PROBLEM, claim, prove_forget(PROBLEM, claim, timeout=20))
    worst = [m for _, _, m in MARGINS[REAL]].index(least)
    assert worst in outcome.unknowns


def _unbounded(*_args: object, **_options: object) -> list:
    text = "no bounds"
    raise BoundsError(text)


def test_without_auto_lirpa_the_runner_up_and_rule_crown_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elaborate, "forget_hints", _unbounded)
    monkeypatch.setattr(elaborate, "retain_hints", _unbounded)
    monkeypatch.setattr(elaborate, "solve", lambda *_: "unknown")
    for arithmetic in (REAL, BINARY32):
        claim = replace(FORGET, arithmetic=arithmetic, margin=Fraction(-100))
        assert _checked(PROBLEM, claim, prove_forget(PROBLEM, claim)).proved == 5
        claim = replace(claim, margin=Fraction(100))
        assert _checked(PROBLEM, claim, prove_forget(PROBLEM, claim)).proved == 0
    claim = replace(CLOSE, delta=Fraction(1, 1000))
    assert _checked(PROBLEM, claim, prove_retain_close(PROBLEM, claim)).proved == 0


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
def test_retained_logits_that_stay_close(arithmetic: str) -> None:
    shares = []
    for delta in ("100", "14", "12", "10", "0.001"):
        claim = replace(CLOSE, arithmetic=arithmetic, delta=Fraction(delta))
        found = prove_retain_close(PROBLEM, claim)
        outcome = _checked(PROBLEM, claim, found)
        assert found[2] == "relaxation"
        assert outcome.total == outcome.proved + len(outcome.unknowns) == 5
        shares.append(outcome.proved)
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (5, 0)


def test_slopes_help_where_crown_leaves_a_retained_record_open() -> None:
    """Somewhere between what crown and what optimised slopes prove, a hint is sent and proves its record."""
    hinted = 0
    for delta in np.linspace(6, 16, 21):
        claim = replace(CLOSE, delta=Fraction(float(delta)))
        found = prove_retain_close(PROBLEM, claim)
        outcome = _checked(PROBLEM, claim, found)
        proof = parse(found[0], "p")
        assert not set(proof.hinted.tolist()) & set(outcome.unknowns)
        hinted += len(proof.hinted)
    assert hinted > 0


@pytest.mark.parametrize("prove", [prove_forget, prove_retain_close])
def test_a_claim_without_a_radius_is_refused(prove) -> None:
    kind = "forget" if prove is prove_forget else "retain_close"
    with pytest.raises(ProofError):
        prove(PROBLEM, Claim(kind, REAL, "relaxation", margin=Fraction(1), delta=Fraction(1)))
