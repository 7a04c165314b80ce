"""A convolutional and a residual network, patched by an addition and by other weights: proved and checked."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker.bounded_claims import decide_bounded, goals_of
from prune_verify.checker.claim import Claim, Problem
from prune_verify.checker.network import Network
from prune_verify.checker.rules import BINARY32, REAL
from tests.certify.small_problems import additive, crown_gaps, effort, foreign, prove, seen_gaps
from tests.checker.random_networks import Builder

pytestmark = pytest.mark.prover

COUNT = 3


def convolutional(seed: int = 0) -> Network:
    """Two convolutions and two dense layers on 1 x 8 x 8."""
    b = Builder(seed, 1, 8, 8, scale=0.4)
    step = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": (1,)}
    first = b.add("Conv", (0,), (3, 4, 4), {"weight": b.numbers(3, 1, 3, 3), "bias": b.numbers(3)}, **step)
    second = b.add("Conv", (b.relu(first),), (4, 2, 2), {"weight": b.numbers(4, 3, 3, 3), "bias": b.numbers(4)}, **step)
    flat = b.add("Reshape", (b.relu(second),), (16,))
    output = b.linear(b.relu(b.linear(flat, 6)), 3)
    return Network(tuple(b.nodes), output)


def residual(seed: int = 4) -> Network:
    """A connection past two layers, on 18 numbers."""
    b = Builder(seed, 18, scale=0.4)
    first = b.relu(b.linear(0, 8))
    inner = b.linear(b.relu(b.linear(first, 8)), 8)
    output = b.linear(b.relu(b.add("Add", (inner, first), (8,))), 3)
    return Network(tuple(b.nodes), output)


def _patched(make, how: str) -> Problem:
    base = make()
    return additive(base, 5, 0.15, count=COUNT) if how == "additive" else foreign(base, 0.02, count=COUNT)


def _edges(problem: Problem, claim: Claim) -> list[tuple[float, Fraction]]:
    """For each record a radius that is just too large for rule crown, and how far the labels are from moving there."""
    found = []
    for record in range(COUNT):
        low, high = Fraction(0), Fraction(1)
        for _ in range(9):
            middle = (low + high) / 2
            failing = crown_gaps(goals_of(problem, replace(claim, radius=middle)))[record].min() < 0
            low, high = (low, middle) if failing else (middle, high)
        found.append((float(seen_gaps(goals_of(problem, replace(claim, radius=high)), 100)[record].min()), high))
    return found


def _needs_effort(problem: Problem, kind: str) -> Claim:
    """A claim that holds wherever it was looked, beyond what rule crown proves of some record."""
    claim = Claim(kind, REAL, "relaxation", radius=Fraction("0.2"))
    if kind == "retain_label":
        return replace(claim, radius=max(_edges(problem, claim))[1])
    free = {"margin": Fraction(0)} if kind == "forget" else {"delta": Fraction(0)}
    goals = goals_of(problem, replace(claim, **free))
    crown, seen = crown_gaps(goals).min(axis=1), seen_gaps(goals).min(axis=1)
    record = int((seen - crown).argmax())
    end = Fraction(float(crown[record] + 0.1 * (seen - crown)[record]))
    return replace(claim, margin=end) if kind == "forget" else replace(claim, delta=-end)


@pytest.mark.parametrize("kind", ["forget", "retain_label", "retain_close"])
@pytest.mark.parametrize("how", ["additive", "foreign"])
@pytest.mark.parametrize("make", [convolutional, residual])
def test_claims_beyond_rule_crown_are_proved_and_checked(make, how: str, kind: str) -> None:
    problem = _patched(make, how)
    claim = _needs_effort(problem, kind)
    open_ = np.flatnonzero((crown_gaps(goals_of(problem, claim)) < 0).any(axis=1))
    assert open_.size
    for arithmetic in (REAL, BINARY32):
        asked = replace(claim, arithmetic=arithmetic)
        found, proof = prove(problem, asked, effort(splits=300, seconds=10.0))
        gained = [record for record in open_.tolist() if record not in found.outcome.unknowns]
        assert gained
        helped = set((np.concatenate([proof.hinted, proof.trees]) // goals_of(problem, asked).clauses).tolist())
        assert not found.outcome.assumptions
        if goals_of(problem, asked).partners:  # rule difference proves more without slopes, and not in integers
            continue
        assert set(gained) <= helped
        integers = decide_bounded(replace(problem, exact=True), asked, found.proof, "p")
        assert set(integers.unknowns) <= set(found.outcome.unknowns)
