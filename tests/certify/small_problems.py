"""Problems with small random networks for the tests of the prover, and how much their claims leave on either side."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from prune_verify.certify.elaborate import Effort, Elaborated, prove_bounded
from prune_verify.certify.settle import Limits
from prune_verify.checker.bounded_claims import decide_bounded, goals_of
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.goals import Goals
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.patch import LearnedPatch
from prune_verify.checker.proof import Proof, emit, parse
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds

DOMAIN = Domain((Fraction(-2),), (Fraction(2),))


def rows_of(network: Network, count: int, seed: int = 2) -> LabelledRows:
    """Records in [-1, 1], with the labels that the network answers."""
    x = np.random.default_rng(seed).uniform(-1, 1, (count, *network.input_shape)).astype(np.float32)
    return LabelledRows(x, evaluate(network, x).argmax(axis=1))


def additive(base: Network, size: int = 6, scale: float = 1.0, seed: int = 2, count: int = 5) -> Problem:
    """A base with a learned patch, whose last label gains."""
    rng, inputs, labels = np.random.default_rng(seed), int(np.prod(base.input_shape)), base.labels
    first = (scale * rng.standard_normal((size, inputs))).astype(np.float32), rng.standard_normal(size)
    last = (scale * rng.standard_normal((labels, size))).astype(np.float32), np.linspace(-3 * scale, 3 * scale, labels)
    patch = LearnedPatch(labels, tuple((weight, bias.astype(np.float32)) for weight, bias in (first, last)))
    rows = rows_of(base, count)
    return Problem(base, build(base, patch), patch, DOMAIN, forget=rows, retain=rows)


def foreign(base: Network, scale: float, seed: int = 3, count: int = 5) -> Problem:
    """A patched network of foreign making: the base with its weights moved by about ``scale``."""
    rng, nodes = np.random.default_rng(seed), []
    for node in base.nodes:
        moved = {
            name: array + (scale * rng.standard_normal(array.shape)).astype(np.float32)
            for name, array in node.arrays.items()
            if name in ("weight", "bias")
        }
        nodes.append(replace(node, arrays={**node.arrays, **moved}))
    rows = rows_of(base, count)
    return Problem(base, Network(tuple(nodes), base.output), None, DOMAIN, forget=rows, retain=rows)


def crown_gaps(goals: Goals) -> np.ndarray:
    """How far rule crown proves each clause by its best atom: [records, clauses]."""
    every = np.arange(goals.records)
    objectives, least = goals.constraint(every)
    intervals = crown_intervals(goals.network, *goals.boxes(every), goals.arithmetic)
    flat = np.ascontiguousarray(objectives).reshape(-1, goals.network.labels)
    rows = np.repeat(every, goals.clauses * goals.atoms)
    found = lower_bounds(goals.network, intervals, flat, Hints(), goals.arithmetic, rows)
    return (found.reshape(least.shape) - least).max(axis=2)


def seen_gaps(goals: Goals, points: int = 400, seed: int = 0) -> np.ndarray:
    """The least by which each clause holds at random points and corners of its box: [records, clauses]."""
    rng, every = np.random.default_rng(seed), np.arange(goals.records)
    low, high = goals.boxes(every)
    objectives, least = goals.constraint(every)
    worst = np.full(least.shape[:2], np.inf)
    for place in range(points):
        share = rng.random(low.shape) if place % 2 else rng.integers(0, 2, low.shape)
        logits = evaluate(goals.network, (low + share * (high - low)).astype(np.float32)).astype(np.float64)
        worst = np.minimum(worst, (np.einsum("rcal,rl->rca", objectives, logits) - least).max(axis=2))
    return worst


def effort(**limits: object) -> Effort:
    """Little of it, and z3 only where it is asked for."""
    return Effort(limits=Limits(**{"splits": 400, "seconds": 20.0, "solver_seconds": 0.0, **limits}))


def checked(problem: Problem, claim: Claim, found: Elaborated) -> Proof:
    """The proof, once the checker says of its bytes what the prover says of it."""
    named = replace(claim, method=found.method)
    assert decide_bounded(problem, named, found.proof, "p") == found.outcome
    proof = parse(found.proof, "p")
    assert emit(proof) == found.proof
    assert proof.method == found.method
    left = set(found.outcome.unknowns)
    assert found.outcome.total == found.outcome.proved + len(left)
    assert set(found.points) | set(found.why) == left
    assert set(found.best) == left
    return proof


def prove(problem: Problem, claim: Claim, given: Effort | None = None) -> tuple[Elaborated, Proof]:
    """What the prover finds for a claim, and the proof in it."""
    found = prove_bounded(problem, claim, effort=given or effort())
    return found, checked(problem, claim, found)


def forget_room(problem: Problem, claim: Claim) -> tuple[np.ndarray, np.ndarray]:
    """For each record the margin that rule crown proves, and the least that was seen."""
    goals = goals_of(problem, replace(claim, margin=Fraction(0)))
    return crown_gaps(goals)[:, 0], seen_gaps(goals)[:, 0]
