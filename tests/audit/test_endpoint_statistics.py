"""The statistics against published values, against their definition, and against what happens in many runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from prune_verify.audit.endpoint_statistics import Share, clopper_pearson, detection, least_trials, upper_bound

pytestmark = pytest.mark.prover

# Two-sided 95 % intervals that tables of Clopper and Pearson list, to four places.
PUBLISHED = [
    (0, 10, 0.0000, 0.3085),
    (1, 10, 0.0025, 0.4450),
    (5, 10, 0.1871, 0.8129),
    (10, 10, 0.6915, 1.0000),
    (2, 20, 0.0123, 0.3170),
    (10, 100, 0.0490, 0.1762),
    (0, 100, 0.0000, 0.0362),
    (50, 100, 0.3983, 0.6017),
]


@pytest.mark.parametrize(("deviations", "trials", "lower", "upper"), PUBLISHED)
def test_intervals_are_those_of_the_tables(deviations: int, trials: int, lower: float, upper: float) -> None:
    assert tuple(round(end, 4) for end in clopper_pearson(deviations, trials, 0.95)) == (lower, upper)


@pytest.mark.parametrize("trials", [1, 7, 59, 299, 2995])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_ends_of_intervals_are_where_the_tails_are_what_they_say(trials: int, confidence: float) -> None:
    for deviations in sorted({0, 1, trials // 3, trials - 1, trials}):
        bound = upper_bound(deviations, trials, confidence)
        lower, upper = clopper_pearson(deviations, trials, confidence)
        tail = (1 - confidence) / 2
        if deviations < trials:
            assert binom.cdf(deviations, trials, bound) == pytest.approx(1 - confidence, rel=1e-6)
            assert binom.cdf(deviations, trials, upper) == pytest.approx(tail, rel=1e-6)
        else:
            assert (bound, upper) == (1.0, 1.0)
        if deviations:
            assert binom.sf(deviations - 1, trials, lower) == pytest.approx(tail, rel=1e-6)
        else:
            assert lower == 0.0


def test_without_a_trial_nothing_is_bounded() -> None:
    assert (upper_bound(0, 0, 0.95), clopper_pearson(0, 0, 0.95)) == (1.0, (0.0, 1.0))


LEAST = [(0.01, 0.95, 299), (0.05, 0.95, 59), (0.001, 0.95, 2995), (0.01, 0.99, 459), (0.5, 0.95, 5), (0.99, 0.5, 1)]


@pytest.mark.parametrize(("share", "confidence", "trials"), LEAST)
def test_the_least_number_of_queries_is_the_least(share: float, confidence: float, trials: int) -> None:
    assert least_trials(share, confidence) == trials
    assert 1 - (1 - share) ** trials >= confidence
    assert trials == 1 or 1 - (1 - share) ** (trials - 1) < confidence
    assert Share(trials, 0, confidence).bound <= share
    assert trials == 1 or Share(trials - 1, 0, confidence).bound > share


def test_the_probability_of_detection_is_that_of_the_formula() -> None:
    assert detection(0.01, 299) == pytest.approx(1 - 0.99**299)
    assert (detection(0.0, 100), detection(1.0, 1), detection(1.0, 0), detection(0.5, 0)) == (0.0, 1.0, 0.0, 0.0)
    assert detection(1e-12, 10**6) == pytest.approx(1e-6, rel=1e-5)


@pytest.mark.parametrize(("share", "trials"), [(0.01, 50), (0.01, 299), (0.05, 20), (0.3, 3)])
def test_deviations_are_found_as_often_as_is_said(share: float, trials: int) -> None:
    """A hundred thousand audits; the frequency lies in its own exact interval of 99.99 %."""
    runs = 100_000
    found = int((np.random.default_rng(1).binomial(trials, share, size=runs) > 0).sum())
    lower, upper = clopper_pearson(found, runs, 0.9999)
    assert lower <= detection(share, trials) <= upper
    assert upper - lower < 0.02


BOLD = {
    "the same share always": lambda budget, left, last: budget / left,
    "more after small inputs": lambda budget, left, last: budget / left * np.where(last < 0.5, 1.8, 0.4),
    "all at the end": lambda budget, left, last: np.where(left > 3, 0.0, budget / left),
    "all at the start": lambda budget, left, last: np.minimum(budget, 0.5),
}


@pytest.mark.parametrize("strategy", BOLD)
def test_a_server_that_learns_from_the_queries_is_let_through_no_more_often_than_is_said(strategy: str) -> None:
    """Each step's deviating share is chosen from what was asked before, and its mean always exceeds the bound.

    Inputs are uniform on [0, 1], and the server deviates below the share. It wins if no deviation is seen.
    """
    trials, confidence, runs = 40, 0.9, 100_000
    bound = upper_bound(0, trials, confidence)
    asked = np.random.default_rng(2).random((runs, trials))
    budget, wins, last = np.full(runs, bound * trials * 1.0001), np.ones(runs, dtype=bool), np.full(runs, 0.5)
    for step in range(trials):
        left = trials - step
        share = np.clip(BOLD[strategy](budget, left, last), np.maximum(0, budget - (left - 1)), np.minimum(1, budget))
        share = budget if left == 1 else share
        wins &= asked[:, step] >= share
        budget, last = budget - share, asked[:, step]
    assert np.allclose(budget, 0)
    assert clopper_pearson(int(wins.sum()), runs, 0.9999)[0] <= 1 - confidence
    if strategy == "the same share always":  # the bound is attained, so that the test could fail
        assert clopper_pearson(int(wins.sum()), runs, 0.9999)[1] >= (1 - confidence) * 0.99
