"""The attack: points of the box in float32, planted counterexamples found, the same points every time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from prune_verify.certify.attack import Attack, gaps_at, inner_box
from prune_verify.checker.goals import Goals
from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.rules import REAL
from tests.checker.random_networks import every_choice, mlp

pytestmark = pytest.mark.prover


def _goals(network: Network, least: np.ndarray, radius: float = 0.5, seed: int = 0, records: int = 3) -> Goals:
    """A clause for each label, that its logit is at least so much."""
    middle = np.random.default_rng(seed).uniform(-1, 1, (records, *network.input_shape))
    rows = np.eye(network.labels)[:, np.newaxis]
    ends = np.asarray(least, dtype=np.float64)[:, np.newaxis]

    def constraint(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.broadcast_to(rows, (len(chosen), *rows.shape)), np.broadcast_to(ends, (len(chosen), *ends.shape))

    def boxes(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return middle[chosen] - radius, middle[chosen] + radius

    return Goals(network, REAL, records, network.labels, 1, boxes, constraint)


def _every(goals: Goals) -> np.ndarray:
    return np.arange(goals.records)


def _inside(goals: Goals, record: int, x: np.ndarray) -> bool:
    """Exactly."""
    low, high = (end.reshape(-1).tolist() for end in goals.boxes(np.array([record])))
    values = [Fraction(v) for v in x.reshape(-1).tolist()]
    return all(Fraction(a) <= v <= Fraction(b) for a, v, b in zip(low, values, high, strict=True))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [0.5, 1e-7, 0.1])
def test_points_lie_in_the_box_and_break_a_clause(seed: int, radius: float) -> None:
    network = every_choice(seed) if seed % 3 == 2 else mlp(seed, 4, 8, 3)
    goals = _goals(network, np.full(3, 1e3), radius, seed)
    found = Attack(seed=seed).run(goals, _every(goals))
    assert set(found) == {0, 1, 2}
    for record, x in found.items():
        assert x.dtype == np.float32
        assert x.shape == network.input_shape
        assert _inside(goals, record, x)
        assert gaps_at(goals, np.array([record]), x[np.newaxis]).min() < 0


def test_where_nothing_fails_nothing_is_found() -> None:
    goals = _goals(mlp(0, 4, 8, 3), np.full(3, -1e3))
    assert Attack().run(goals, _every(goals)) == {}


def test_only_the_records_that_are_asked_about_are_attacked() -> None:
    goals = _goals(mlp(0, 4, 8, 3), np.full(3, 1e3))
    assert set(Attack().run(goals, np.array([2]))) == {2}


PLACES = [(0.75, -0.5), (0.2, 0.3), (-0.9, -0.9)]


def _planted(place: tuple[float, ...], width: float) -> Network:
    """One output: how far the point is from ``place`` in the 1-norm, up to ``width``."""
    size = len(place)
    weight = np.concatenate([np.eye(size), -np.eye(size)]).astype(np.float32)
    bias = np.concatenate([-np.array(place), np.array(place)]).astype(np.float32)
    nodes = (
        Node("Input", (), (size,)),
        Node("Linear", (0,), (2 * size,), {"axis": (-1,)}, {"weight": weight, "bias": bias}),
        Node("Relu", (1,), (2 * size,)),
        Node("Linear", (2,), (1,), {"axis": (-1,)}, {"weight": np.ones((1, 2 * size), np.float32), "bias": np.array([-width], np.float32)}),
    )  # fmt: skip
    return Network(nodes, 3)


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_counterexample_is_found(place: tuple[float, ...]) -> None:
    """The goal fails on a hundredth of the box's volume, away from its middle and its corners."""
    network = _planted(place, 0.2)
    rows = np.ones((1, 1, 1))

    def boxes(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((len(chosen), 2), -1.0), np.full((len(chosen), 2), 1.0)

    goals = Goals(
        network, REAL, 1, 1, 1, boxes, lambda chosen: (rows[np.newaxis][chosen], np.zeros((len(chosen), 1, 1)))
    )
    found = Attack(restarts=8, steps=60).run(goals, _every(goals))
    assert np.abs(found[0] - place).sum() < 0.2


def test_the_seed_decides_what_is_drawn() -> None:
    goals = _goals(mlp(3, 6, 12, 3), np.full(3, 0.0), 1.0)
    once, again, other = (Attack(seed=seed, steps=0).run(goals, _every(goals)) for seed in (7, 7, 8))
    assert once.keys() == again.keys() != set()
    assert all((once[record] == again[record]).all() for record in once)
    descended = [Attack(seed=seed, restarts=3)._descend for seed in (7, 8)]
    from prune_verify.certify.attack import _module

    first, second = (descend(_module(goals.network), goals, _every(goals)) for descend in descended)
    assert (first != second).any()
    assert set(other) <= {0, 1, 2}


def test_each_clause_is_gone_for() -> None:
    """Labels 0 and 1 cannot fail; among many clauses the one that can is found with as many restarts as clauses."""
    network = mlp(1, 4, 6, 3)
    for label in range(3):
        least = np.full(3, -1e3)
        least[label] = 1e3
        goals = _goals(network, least)
        found = Attack(restarts=3).run(goals, _every(goals))
        assert set(found) == {0, 1, 2}
        for record, x in found.items():
            gaps = gaps_at(goals, np.array([record]), x[np.newaxis])[0]
            assert np.flatnonzero(gaps < 0).tolist() == [label]


def test_a_clause_holds_as_far_as_its_best_atom_does() -> None:
    network = mlp(2, 3, 5, 3)
    rows = np.array([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [-1, 0, 0]]])
    least = np.array([[0.25, -0.5], [1.0, np.inf]])
    goals = Goals(
        network, REAL, 2, 2, 2, lambda _: None,
        lambda chosen: (np.repeat(rows[np.newaxis], len(chosen), 0), np.repeat(least[np.newaxis], len(chosen), 0)),
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    y = evaluate(network, x).astype(np.float64)
    expected = np.stack([np.maximum(y[:, 0] - 0.25, y[:, 1] + 0.5), y[:, 2] - 1.0], axis=1)
    np.testing.assert_array_equal(gaps_at(goals, np.arange(2), x), expected)


ENDS = [
    ("numbers of float32 stay", 0.25, 0.5, (0.25, 0.5)),
    ("others move inwards", 0.1, 0.3, (np.float32(0.1), np.nextafter(np.float32(0.3), np.float32(0)))),
    ("an end just beyond a number of float32", np.nextafter(0.25, 1), np.nextafter(0.5, 0), (np.nextafter(np.float32(0.25), np.float32(1)), np.nextafter(np.float32(0.5), np.float32(0)))),
    ("a point between two numbers is empty", 0.1, 0.1, None),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "low", "high", "expected"), ENDS, ids=[row[0] for row in ENDS])
def test_the_box_within(sentence: str, low: float, high: float, expected: tuple | None) -> None:
    below, above = inner_box(np.array([low]), np.array([high]))
    if expected is None:
        assert below[0] > above[0]
        return
    assert (below[0], above[0]) == expected
    assert Fraction(low) <= Fraction(float(below[0])) <= Fraction(float(above[0])) <= Fraction(high)
