"""ROC curves, areas and rates: ties, closed forms, coverage of the intervals, refusals."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from prune_verify.measure.attack_input import AttackInputError
from prune_verify.measure.roc import auc, clopper_pearson, roc, tpr_at

pytestmark = pytest.mark.prover


def test_ties_are_one_step():
    curve = roc(np.array([2.0, 1.0, 1.0]), np.array([1.0, 0.0]))
    assert curve.false_positive.tolist() == [0, 0, 0.5, 1]
    assert curve.true_positive.tolist() == [0, pytest.approx(1 / 3), 1, 1]


def test_scores_that_are_all_equal_give_the_diagonal():
    curve = roc(np.zeros(5), np.zeros(3))
    assert curve.false_positive.tolist() == curve.true_positive.tolist() == [0, 1]
    found = auc(np.zeros(5), np.zeros(3))
    assert found.value == 0.5
    assert found.low < 0.3
    assert found.high > 0.7


def test_area_under_the_curve_is_the_area():
    rng = np.random.default_rng(1)
    members, others = rng.integers(0, 8, 70).astype(float), rng.integers(0, 6, 90).astype(float)
    curve = roc(members, others)
    expected = roc_auc_score(np.repeat([1, 0], [70, 90]), np.concatenate([members, others]))
    assert np.trapezoid(curve.true_positive, curve.false_positive) == pytest.approx(expected)
    assert auc(members, others).value == pytest.approx(expected)
    assert auc(np.exp(members), np.exp(others)) == auc(members, others)


def test_mirrored_scores_mirror_the_area_and_its_interval():
    rng = np.random.default_rng(2)
    members, others = rng.normal(1, 1, 40), rng.normal(size=60)
    one, other = auc(members, others), auc(-members, -others)
    assert (one.value, one.low, one.high) == pytest.approx((1 - other.value, 1 - other.high, 1 - other.low))


def test_delong_agrees_with_the_bootstrap():
    rng = np.random.default_rng(3)
    members, others = rng.normal(0.7, 1.3, 150), rng.normal(size=200)
    found = auc(members, others)
    again = [auc(rng.choice(members, 150), rng.choice(others, 200)).value for _ in range(1500)]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(again, [0.025, 0.975])), abs=0.008)


def test_complete_separation_is_not_certainty():
    """Of ten disjoint pairs that were all won, the chance of winning is above 0.025 ** (1 / 10), and no more is known."""
    found = auc(np.arange(10.0) + 100, np.arange(10.0))
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025**0.1)
    worst = auc(np.arange(10.0), np.arange(10.0) + 100)
    assert (worst.low, worst.value, worst.high) == (0, 0, pytest.approx(1 - 0.025**0.1))


def test_one_member_says_nothing_of_the_area():
    found = auc(np.array([3.0]), np.arange(10.0))
    assert (found.low, found.high) == (0, 1)


def test_areas_are_covered_as_often_as_is_said():
    """Binormal scores: the area is Phi(shift / sqrt 2)."""
    rng = np.random.default_rng(4)
    for shift in (0.0, 1.0):
        truth = norm.cdf(shift / np.sqrt(2))
        found = [auc(rng.normal(shift, 1, 60), rng.normal(size=90)) for _ in range(400)]
        covered = np.mean([one.low <= truth <= one.high for one in found])
        assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("members", [5, 12, 25])
def test_areas_of_few_members_are_covered_too(members):
    """DeLong's interval alone covers 74 % of areas of 0.983 from five members, and 90 % from twenty-five."""
    rng = np.random.default_rng(14)
    for shift in (0.0, 1.0, 3.0):
        truth = norm.cdf(shift / np.sqrt(2))
        found = [auc(rng.normal(shift, 1, members), rng.normal(size=300)) for _ in range(200)]
        assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.925
        assert np.mean([one.high - one.low for one in found]) < 2 / np.sqrt(members)


@pytest.mark.parametrize(("count", "rate"), [(400, 0.1), (100, 0.01), (1000, 0.001)])
def test_rates_are_covered_at_least_as_often_as_is_said(count, rate):
    """Exponential scores, members three times as long: at a rate f the truth is f ** (1 / 3)."""
    rng = np.random.default_rng(5)
    truth = rate ** (1 / 3)
    found = [tpr_at(rng.exponential(3.0, 120), rng.exponential(1.0, count), rate) for _ in range(400)]
    assert all(one.low <= one.value <= one.high for one in found)
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.94
    widths = np.array([one.high - one.low for one in found])
    assert widths.mean() < (0.35 if rate == 0.1 else 0.75)  # covers because it is right, not because it is everything


def test_an_interval_that_ignores_the_threshold_would_cover_too_rarely():
    """Why the threshold's own sampling is counted: Clopper and Pearson at the estimated threshold alone is not enough."""
    rng = np.random.default_rng(6)
    truth, hits = 0.01 ** (1 / 3), 0
    for _ in range(300):
        members, others = rng.exponential(3.0, 400), rng.exponential(1.0, 100)
        low, high = clopper_pearson(int((members > np.sort(others)[-2]).sum()), 400, 0.95)
        hits += low <= truth <= high
    assert hits / 300 < 0.6


def test_rates_without_a_signal_stay_at_the_false_positive_rate():
    rng = np.random.default_rng(7)
    found = tpr_at(rng.normal(size=2000), rng.normal(size=2000), 0.01)
    assert found.low <= 0.01 <= found.high


def test_rates_with_ties_count_no_more_non_members_than_allowed():
    """Half of the non-members share the highest score, so no threshold but one above all stays below 10 %."""
    members, others = np.ones(50), np.concatenate([np.ones(50), np.zeros(50)])
    found = tpr_at(members, others, 0.1)
    assert (found.value, found.low) == (0, 0)
    assert tpr_at(members, others, 0.5).value == 1


def test_labels_of_ties_may_be_exchanged_without_effect():
    rng = np.random.default_rng(8)
    members, others = rng.integers(0, 5, 80).astype(float), rng.integers(0, 4, 120).astype(float)
    one, other = (tpr_at(rng.permutation(members), rng.permutation(others), 0.05) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(("non_members", "answered"), [(999, False), (1000, True), (1001, True)])
def test_a_rate_needs_as_many_non_members_as_resolve_it(non_members, answered):
    found = tpr_at(np.arange(20.0), np.arange(float(non_members)), 0.001)
    assert (found is not None) == answered


def test_labels_permuted_at_random_give_no_area():
    rng = np.random.default_rng(9)
    scores = rng.exponential(size=200)
    covered = 0
    for _ in range(200):
        order = rng.permutation(200)
        found = auc(scores[order[:80]], scores[order[80:]])
        covered += found.low <= 0.5 <= found.high
    assert covered >= 182


BAD = [
    ("no members", lambda: auc(np.zeros(0), np.zeros(2)), "members: expected at least one score"),
    ("no non-members", lambda: roc(np.zeros(2), np.zeros(0)), "non_members: expected at least one score"),
    ("a score is not a number", lambda: auc(np.array([1, np.nan]), np.zeros(2)), "members: expected finite numbers, found nan at [1]"),
    ("an infinite score", lambda: tpr_at(np.zeros(2), np.array([np.inf]), 0.1), "non_members: expected finite numbers, found inf at [0]"),
    ("scores in two dimensions", lambda: auc(np.zeros((2, 2)), np.zeros(2)), "members: expected shape [any], found [2, 2]"),
    ("confidence of one", lambda: auc(np.zeros(2), np.zeros(2), confidence=1), "confidence: expected a number in (0, 1), found 1"),
    ("rate of zero", lambda: tpr_at(np.zeros(2), np.zeros(2), 0), "rate: expected a false-positive rate in (0, 1), found 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_refused(call, text):
    with pytest.raises(AttackInputError) as refused:
        call()
    assert str(refused.value).startswith(text)
