"""Exact intervals of paired answers, and calibration errors that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.measure.calibration import brier, calibration_error, paired, reliability, strict
from prune_verify.measure.roc import clopper_pearson

pytestmark = pytest.mark.prover
F = np.float32
COUNTS = st.integers(0, 30)


def logits_of(shares) -> np.ndarray:
    return np.log(np.array(shares, dtype=np.float64)).astype(F)


def test_a_tie_is_no_answer_and_neither_is_no_number() -> None:
    assert strict(np.array([[1, 2, 0], [2, 2, 0], [np.nan, 1, 0], [0, 0, 3]], dtype=F)).tolist() == [1, -1, -1, 2]


@pytest.mark.parametrize(
    ("first_only", "second_only", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 2**5), (0, 5, 2 / 2**5), (3, 3, 1.0), (10, 2, 2 * (1 + 12 + 66) / 2**12)],
)
def test_mcnemar_is_the_exact_binomial(first_only, second_only, p) -> None:
    n = 40
    first, second = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    second[:first_only] = False
    first[first_only : first_only + second_only] = False
    found = paired(first, second)
    assert (found.first_only, found.second_only) == (first_only, second_only)
    assert found.difference == (second_only - first_only) / n
    assert found.p_value == pytest.approx(p)


def test_two_networks_that_agree_everywhere_may_still_differ_elsewhere() -> None:
    same = np.ones(100, dtype=bool)
    low, high = paired(same, same).interval
    assert low == -high < 0
    assert high == clopper_pearson(0, 100, 0.975)[1]


@given(COUNTS, COUNTS, st.integers(1, 60))
def test_the_difference_lies_in_its_interval(lost, won, both) -> None:
    first = np.array([True] * lost + [False] * won + [True] * both)
    second = np.array([False] * lost + [True] * won + [True] * both)
    found = paired(first, second)
    assert found.interval[0] <= found.difference <= found.interval[1]
    assert 0 <= found.p_value <= 1


def test_a_network_that_is_as_right_as_it_says_has_no_calibration_error() -> None:
    logits, y = logits_of([[0.8, 0.2]] * 100), np.array([0] * 80 + [1] * 20)
    rows = np.random.default_rng(0).permutation(100)
    curve = reliability(logits[rows], y[rows])
    assert curve.rows.sum() == 100
    assert np.allclose(curve.confidence, 0.8, atol=1e-6)
    sure = reliability(logits_of([[1 - 1e-9, 1e-9]] * 40), np.zeros(40, dtype=np.int64))
    assert sure.error() < 1e-6


def test_a_network_that_is_always_sure_and_half_right_is_off_by_a_half() -> None:
    logits = np.tile(np.array([[50, 0]], dtype=F), (1000, 1))
    y = np.arange(1000) % 2
    found = calibration_error(logits, y, 0)
    assert found.value == pytest.approx(0.5, abs=0.02)
    assert found.interval[0] < 0.5 < found.interval[1]


def test_bins_have_equal_mass_even_where_confidences_are_not_spread() -> None:
    rng = np.random.default_rng(1)
    curve = reliability(rng.normal(size=(1000, 3)).astype(F), rng.integers(0, 3, 1000))
    assert len(curve.rows) == 15
    assert set(curve.rows.tolist()) <= {66.0, 67.0}
    assert (np.diff(curve.confidence) > 0).all()


@pytest.mark.parametrize(("y", "score"), [(0, 0.3**2 + 0.2**2 + 0.1**2), (2, 0.7**2 + 0.2**2 + 0.9**2)])
def test_the_brier_score_is_over_all_labels(y, score) -> None:
    found = brier(logits_of([[0.7, 0.2, 0.1]] * 10), np.full(10, y), 0)
    assert found.value == pytest.approx(score, rel=1e-5)
    assert found.interval == pytest.approx((score, score), rel=1e-5)  # all records alike: nothing to resample


def test_the_brier_score_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(2)
    logits, y = rng.normal(size=(200, 2)).astype(F), rng.integers(0, 2, 200)
    share = np.exp(logits[:, 1].astype(float)) / np.exp(logits.astype(float)).sum(axis=1)
    assert brier(logits, y, 0).value == pytest.approx(2 * brier_score_loss(y, share))


def test_the_same_seed_gives_the_same_intervals() -> None:
    rng = np.random.default_rng(3)
    logits, y = rng.normal(size=(50, 3)).astype(F), rng.integers(0, 3, 50)
    assert calibration_error(logits, y, 5) == calibration_error(logits, y, 5)
    assert brier(logits, y, 5) != brier(logits, y, 6)


@given(st.integers(1, 80), st.integers(2, 4), st.integers(0, 1000))
def test_the_calibration_error_is_that_of_the_definition(count, labels, seed) -> None:
    """Beside a loop over bins, record by record."""
    rng = np.random.default_rng(seed)
    logits, y = rng.normal(size=(count, labels)).astype(F), rng.integers(0, labels, count)
    shares = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    order = sorted(range(count), key=lambda i: (shares[i].max(), i))
    bins = min(15, count)
    gaps = 0.0
    for b in range(bins):
        inside = order[count * b // bins : count * (b + 1) // bins]
        confident = sum(float(shares[i].max()) for i in inside)
        right = sum(int(shares[i].argmax() == y[i]) for i in inside)
        gaps += abs(confident - right)
    assert reliability(logits, y).error() == pytest.approx(gaps / count)
