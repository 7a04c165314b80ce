"""Small networks that bounds and splits leave open, whose claims z3 proves or refutes.

Margins that are attained exactly: no bound with room for rounding reaches them. Counterexamples so narrow that the
attack passes by. And claims that hold by so little that only more splits than were allowed prove them.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.certify.counterexamples import refuted_over_the_reals
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.network import Network, Node, evaluate, evaluate_exact
from prune_verify.checker.rules import BINARY32, REAL
from tests.certify.small_problems import DOMAIN, additive, effort, forget_room, prove
from tests.checker.random_networks import mlp

pytestmark = pytest.mark.prover

WITHOUT = {"splits": 1000, "solver_seconds": 0.0}
WITH = {"splits": 1000, "solver_seconds": 20.0}


def _linear(source: int, weight: np.ndarray, bias: np.ndarray | float = 0.0) -> Node:
    rows = np.asarray(weight, dtype=np.float32)
    arrays = {"weight": rows, "bias": np.broadcast_to(bias, len(rows)).astype(np.float32)}
    return Node("Linear", (source,), (len(rows),), {"axis": (-1,)}, arrays)


def _distances(seed: int, size: int) -> Network:
    """Label 1 leads label 0 by the sum of |d . x| for some whole vectors d: 0 at x = 0, nowhere below."""
    vectors = np.random.default_rng(seed).integers(-3, 4, (size, size))
    both = np.concatenate([vectors, -vectors])
    last = np.stack([np.zeros(2 * size), np.ones(2 * size)])
    nodes = Node("Input", (), (size,)), _linear(0, both), Node("Relu", (1,), (2 * size,)), _linear(2, last)
    return Network(nodes, 3)


def _spike(place: tuple[float, ...], width: float) -> Network:
    """Label 1 leads label 0 by 1/2, but near ``place``, where it is behind."""
    size, near = len(place), np.array(place)
    both = np.concatenate([np.eye(size), -np.eye(size)])
    nodes = (
        Node("Input", (), (size,)),
        _linear(0, both, np.concatenate([-near, near])),
        Node("Relu", (1,), (2 * size,)),
        _linear(2, np.full((1, 2 * size), -1 / width), 1.0),
        Node("Relu", (3,), (1,)),
        _linear(4, np.array([[0.0], [-1.0]]), np.array([0.0, 0.5])),
    )
    return Network(nodes, 5)


def _asked(network: Network, arithmetic: str = REAL, margin: Fraction = Fraction(0)) -> tuple[Problem, Claim]:
    """The claim that label 1 leads label 0 by a margin on the ball of radius 1/2 around 0."""
    x = np.zeros((1, *network.input_shape), dtype=np.float32)
    problem = Problem(network, network, None, DOMAIN, forget=LabelledRows(x, np.zeros(1, dtype=np.int64)))
    return problem, Claim("forget", arithmetic, "relaxation", radius=Fraction(1, 2), margin=margin)


EXACT = [(0, 2), (1, 2), *(pytest.param(seed, size, marks=pytest.mark.slow) for size in (3, 4) for seed in (0, 1))]


@pytest.mark.parametrize(("seed", "size"), EXACT)
def test_a_margin_that_is_attained_rests_on_z3_by_name(seed: int, size: int) -> None:
    network = _distances(seed, size)
    problem, claim = _asked(network)
    (logits,) = evaluate_exact(network, np.zeros((1, size)))
    assert logits[0] == logits[1]
    open_, _ = prove(problem, claim, effort(**WITHOUT))
    assert (open_.outcome.unknowns, open_.points) == ((0,), {})
    assert -1e-3 < open_.best[0] < 0
    found, proof = prove(problem, claim, effort(**WITH))
    assert (found.outcome.proved, found.method, proof.smt.tolist()) == (1, "relaxation+smt", [0])
    (name,) = found.outcome.assumptions
    assert name.startswith("z3_unsat:")


def test_a_margin_that_is_attained_is_not_proved_in_binary32() -> None:
    found, _ = prove(*_asked(_distances(0, 2), BINARY32), effort(**WITH))
    assert found.outcome.unknowns == (0,)
    assert not found.outcome.assumptions


PLACES = [(0.3, -0.2), (0.11, 0.37, -0.21), (-0.4, -0.13)]


@pytest.mark.parametrize("place", PLACES)
def test_a_narrow_counterexample_is_found_by_z3_and_confirmed(place: tuple[float, ...]) -> None:
    network = _spike(place, 0.01)
    problem, claim = _asked(network)
    missed, _ = prove(problem, claim, effort(**WITHOUT))
    assert (missed.outcome.unknowns, missed.points) == ((0,), {})
    found, _ = prove(problem, claim, effort(**WITH))
    assert (found.outcome.unknowns, found.why) == ((0,), {})
    x = found.points[0]
    assert (np.abs(x) <= 0.5).all()
    logits = evaluate(network, x[np.newaxis])[0]
    assert logits[1] < logits[0]
    assert refuted_over_the_reals(claim, 0, network, network, x)


def test_what_holds_by_little_is_proved_by_more_splits_without_an_assumption() -> None:
    """Fewer splits are allowed than a tree needs; once z3 has said that there is a proof, more are."""
    problem = additive(mlp(3, 4, 9, 9, 3))
    claim = Claim("forget", REAL, "relaxation", radius=Fraction("0.4"))
    crown, seen = forget_room(problem, claim)
    record = int((seen - crown).argmax())
    claim = replace(claim, margin=Fraction(float(crown[record] + 0.8 * (seen - crown)[record])))
    little = effort(splits=8, solver_seconds=0.0)
    assert record in prove(problem, claim, little)[0].outcome.unknowns
    found, proof = prove(problem, claim, effort(splits=8, solver_seconds=20.0))
    assert record not in found.outcome.unknowns
    assert record in proof.trees
    assert (found.outcome.assumptions, found.method, found.stages["z3"]) == ((), "relaxation", 1)
