"""Smallest covers: equal to brute force on small problems, and honest about what is not known in time."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from prune_verify.bounds.minimal import minimal_cover

pytestmark = pytest.mark.prover


def test_covers_are_smallest_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        count, balls, cover = (int(v) for v in rng.integers((1, 1, 1), (9, 14, 4)))
        separates = rng.random((count, balls)) < rng.uniform(0.1, 0.8)
        needs = np.minimum(separates.sum(axis=0), cover)
        found = minimal_cover(separates, cover, 10.0)
        sets = (c for size in range(count + 1) for c in combinations(range(count), size))
        smallest = next(c for c in sets if (separates[list(c)].sum(axis=0) >= needs).all())
        assert (separates[list(found.selected)].sum(axis=0) >= needs).all()
        assert len(found.selected) == found.lower_bound == len(smallest)
        assert found.optimal


def test_balls_that_nothing_separates_are_left_to_the_caller() -> None:
    separates = np.array([[True, False, False], [True, False, True]])
    found = minimal_cover(separates, 1, 1.0)
    assert (found.selected, found.lower_bound) == ((1,), 1)
    assert minimal_cover(np.zeros((2, 3), dtype=np.bool_), 2, 1.0).selected == ()


def test_more_balls_than_are_asked_at_first() -> None:
    rng = np.random.default_rng(1)
    separates = rng.random((12, 3000)) < 0.5
    separates[:4] = False
    separates[np.arange(3000) % 3 + 9, np.arange(3000)] = True
    found = minimal_cover(separates, 1, 20.0)
    needs = np.minimum(separates.sum(axis=0), 1)
    assert (separates[list(found.selected)].sum(axis=0) >= needs).all()
    assert found.optimal
    assert len(found.selected) <= 3


def test_out_of_time_the_bound_stays_a_bound() -> None:
    rng = np.random.default_rng(2)
    separates = rng.random((60, 400)) < 0.15
    found = minimal_cover(separates, 3, 0.2)
    needs = np.minimum(separates.sum(axis=0), 3)
    assert (separates[list(found.selected)].sum(axis=0) >= needs).all()
    assert 3 <= found.lower_bound <= len(found.selected)
    assert not found.optimal
