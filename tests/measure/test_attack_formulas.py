"""The published formulas written down a second time, one network and one record after the other: the same numbers.

Nothing here is imported from the product but what is tested: probabilities come from the softmax, densities from
scipy.stats, sums are loops.
"""

from bisect import bisect_right
from itertools import combinations_with_replacement, product
from math import ceil, exp, inf, log

import numpy as np
import pytest

pytest.importorskip("scipy")

from scipy.stats import mannwhitneyu, norm
from scipy.stats import t as student

from prune_verify.measure.attack_ensembles import forgetting_score, klom, u_lira
from prune_verify.measure.attack_relative import rmia_offline, rmia_online
from prune_verify.measure.attack_scores import ATTACKS, Observations
from prune_verify.measure.roc import auc, roc, tpr_at

pytestmark = pytest.mark.prover


def softmax(logits):
    terms = [exp(z) for z in logits]
    return [term / sum(terms) for term in terms]


def phi(logits, label):
    """log(p / (1 - p)), as in section VI of arXiv 2112.03570."""
    p = softmax(logits)[label]
    return log(p / (1 - p))


@pytest.fixture(scope="module", params=[12, 80], ids=["few shadows", "many shadows"])
def observations(request):
    rng = np.random.default_rng(request.param)
    shadows, records, labels, population = request.param, 9, 3, 17
    inside = np.zeros((shadows, records), dtype=bool)
    for r in range(records):
        inside[rng.permutation(shadows)[: shadows // 2], r] = True
    own = rng.integers(0, labels, records)
    return Observations(
        labels=own,
        target=rng.normal(0, 2, (records, labels)),
        shadows=rng.normal(0, 2, (shadows, records, labels)) + 1.5 * inside[..., None] * np.eye(labels)[own],
        inside=inside,
        population=rng.normal(0, 2, (population, labels)),
        population_labels=rng.integers(0, labels, population),
        population_shadows=rng.normal(0, 2, (shadows, population, labels)),
    )


def sides(observations):
    """Margins of each record over the shadows with and without it, and over all records the spread about their means."""
    found = {}
    for name, wanted in (("in", True), ("out", False)):
        lists = [
            [phi(observations.shadows[s, r], label) for s in range(len(observations.shadows)) if observations.inside[s, r] == wanted]
            for r, label in enumerate(observations.labels)
        ]  # fmt: skip
        squares = sum((value - sum(values) / len(values)) ** 2 for values in lists for value in values)
        common = (squares / sum(len(values) - 1 for values in lists)) ** 0.5
        found[name] = [
            (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) >= 30 else common) for values in lists
        ]
    return found


def test_lira(observations):
    found = sides(observations)
    online, offline, unlike = [], [], []
    for r, label in enumerate(observations.labels):
        seen = phi(observations.target[r], label)
        online.append(log(norm.pdf(seen, *found["in"][r]) / norm.pdf(seen, *found["out"][r])))
        offline.append(1 - norm.sf(seen, *found["out"][r]))  # 1 - Pr[Z > phi]
        mean, deviation = found["out"][r]
        new = deviation * (1 + 1 / (len(observations.shadows) // 2)) ** 0.5
        unlike.append(2 * norm.sf(abs(seen - mean), 0, new))
    assert ATTACKS["lira-online"](observations) == pytest.approx(online)
    assert norm.cdf(ATTACKS["lira-offline"](observations)) == pytest.approx(offline)
    assert 2 * norm.sf(ATTACKS["unlike-non-member"](observations)) == pytest.approx(unlike)


def test_unlike_outputs(observations):
    """Mahalanobis' distance of log-probabilities without the last label, with the covariance among the shadows' own."""
    count, labels = len(observations.labels), observations.target.shape[1]

    def centred(logits):
        return np.log(softmax(logits)) - np.mean(np.log(softmax(logits)))

    outer, freedom, means = np.zeros((labels, labels)), 0, []
    for r in range(count):
        values = [
            centred(observations.shadows[s, r])
            for s in range(len(observations.shadows))
            if not observations.inside[s, r]
        ]
        means.append(sum(values) / len(values))
        outer += sum(np.outer(value - means[r], value - means[r]) for value in values)
        freedom += len(values) - 1
    shrunk = np.where(np.eye(labels, dtype=bool), 1.0, 0.9) * outer / freedom
    for r in range(count):
        away = centred(observations.target[r]) - means[r]
        expected = (away @ np.linalg.inv(shrunk) @ away / (1 + 2 / len(observations.shadows))) ** 0.5
        assert ATTACKS["unlike-outputs"](observations)[r] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("gamma", "a"), [(1.0, 0.3), (2.0, 0.0), (1.3, 1.0)])
def test_rmia(observations, gamma, a):
    shadows = range(len(observations.shadows))

    def mean(r, wanted):
        label = observations.labels[r]
        values = [softmax(observations.shadows[s, r])[label] for s in shadows if observations.inside[s, r] == wanted]
        return sum(values) / len(values)

    def beaten(p_x, slope):
        shares = []
        for r, label in enumerate(observations.labels):
            ratio_x = softmax(observations.target[r])[label] / p_x[r]
            wins = 0
            for z, label_z in enumerate(observations.population_labels):
                outside = sum(softmax(observations.population_shadows[s, z])[label_z] for s in shadows) / len(shadows)
                ratio_z = softmax(observations.population[z])[label_z] / (((1 + slope) * outside + 1 - slope) / 2)
                wins += ratio_x / ratio_z >= gamma
            shares.append(wins / len(observations.population_labels))
        return shares

    records = range(len(observations.labels))
    offline = [((1 + a) * mean(r, wanted=False) + 1 - a) / 2 for r in records]
    assert rmia_offline(observations, gamma, a).tolist() == beaten(offline, a)
    inside, outside = [mean(r, wanted=True) for r in records], [mean(r, wanted=False) for r in records]
    fit = np.linalg.lstsq(1 - np.array(outside)[:, None], 1 - np.array(inside), rcond=None)[0][
        0
    ]  # P_in = a P_out + 1 - a
    online = [(x + y) / 2 for x, y in zip(inside, outside, strict=True)]
    assert rmia_online(observations, gamma).tolist() == beaten(online, min(fit, 1.0))


@pytest.fixture(scope="module")
def ensembles():
    """Margins of a few records within two logits of each other, so that every interval is one that the challenge allows."""
    rng = np.random.default_rng(11)
    records, labels = 5, 3
    own = rng.integers(0, labels, records)
    base = rng.normal(size=(records, labels))
    unlearned, retrained = (
        base + np.clip(rng.normal(shift, 0.3, (count, records, 1)), -1, 1) * np.eye(labels)[own] for count, shift in ((22, 0.2), (25, 0.0))
    )  # fmt: skip
    return unlearned, retrained, own


def margins(logits, labels):
    return [[phi(network[r], label) for network in logits] for r, label in enumerate(labels)]


def test_u_lira(ensembles):
    unlearned, retrained, labels = ensembles
    found = u_lira(unlearned, retrained, labels)

    def ratio(value, one, other):
        fits = [(np.mean(side), np.std(side, ddof=1)) for side in (one, other)]
        return log(norm.pdf(value, *fits[0]) / norm.pdf(value, *fits[1]))

    for r, (one, other) in enumerate(zip(margins(unlearned, labels), margins(retrained, labels), strict=True)):
        wins = 0.0
        for i, j in product(range(len(one)), range(len(other))):
            rest = one[:i] + one[i + 1 :], other[:j] + other[j + 1 :]
            first, second = ratio(one[i], *rest), ratio(other[j], *rest)
            wins += 1.0 if first > second else 0.0
            if j == i % len(other):
                assert found.unlearned[i, r] == pytest.approx(first)
            if i == j % len(one):
                assert found.retrained[j, r] == pytest.approx(second)
        assert found.record_auc[r] == pytest.approx(wins / len(one) / len(other))
    called = np.mean(found.unlearned > 0), np.mean(found.retrained <= 0)
    assert found.accuracy.value == pytest.approx(np.mean(called))
    pooled = mannwhitneyu(found.unlearned.ravel(), found.retrained.ravel()).statistic
    assert found.auc.value == pytest.approx(pooled / found.unlearned.size / found.retrained.size)


def test_u_lira_rate():
    rng = np.random.default_rng(12)
    unlearned, retrained = rng.normal(0.5, 1, (30, 40, 2)), rng.normal(0, 1, (30, 40, 2))
    found = u_lira(unlearned, retrained, np.zeros(40, dtype=np.int64))
    best = 0.0
    for threshold in found.retrained.ravel():
        if np.mean(found.retrained > threshold) <= 0.01:
            best = max(best, np.mean(found.unlearned > threshold))
    assert found.tpr.value == pytest.approx(best)


def epsilon(one, other, delta=1e-5):
    """The evaluation report's estimate: the best of all thresholds and intervals, in both directions of the definition."""
    high, low = (one, other) if np.median(one) >= np.median(other) else (other, one)
    cuts = sorted({*one, *other})
    rules = [(lambda v, t=t: v >= t, high, low) for t in cuts]
    narrow, wide = (high, low) if max(high) - min(high) < max(low) - min(low) else (low, high)
    rules += [(lambda v, a=a, b=b: a <= v <= b, narrow, wide) for a, b in combinations_with_replacement(cuts, 2)]
    best = 0.0
    for positive, members, others in rules:
        fnr = sum(not positive(v) for v in members) / len(members)
        fpr = sum(positive(v) for v in others) / len(others)
        if fpr == fnr == 0:
            return inf
        if fpr == 0 or fnr == 0:
            continue
        for x, y in ((fpr, fnr), (fnr, fpr)):
            if 1 - delta - x > 0:
                best = max(best, log((1 - delta - x) / y))
    return best


def test_forgetting_score(ensembles):
    unlearned, retrained, labels = ensembles
    found = forgetting_score(unlearned, retrained, labels)
    pairs = zip(margins(unlearned, labels), margins(retrained, labels), strict=True)
    expected = [min(epsilon(one, other), 50) for one, other in pairs]
    assert found.epsilons == pytest.approx(expected)
    assert len({round(value, 3) for value in expected}) > 2
    points, start, worth = [0.0] * len(labels), 0.0, 1.0
    while start + 0.5 <= ceil(log(len(unlearned) - 1)):
        points = [worth if start <= e < start + 0.5 else p for e, p in zip(expected, points, strict=True)]
        start, worth = start + 0.5, worth / 2
    assert found.score.value == pytest.approx(sum(points) / len(points))


def test_klom(ensembles):
    unlearned, retrained, labels = ensembles
    found = klom(unlearned, retrained, labels)

    def divergence(one, other):
        least, width = min(*one, *other), (max(*one, *other) - min(*one, *other)) / 20
        edges = [least + width * k for k in range(1, 20)]
        first, second = (
            [sum(bisect_right(edges, v) == k for v in side) / len(side) for k in range(20)] for side in (one, other)
        )
        second = [max(q, 1e-5) if p else q for p, q in zip(first, second, strict=True)]
        return sum(p * log(p / (q / sum(second))) for p, q in zip(first, second, strict=True) if p)

    pairs = list(zip(margins(unlearned, labels), margins(retrained, labels), strict=True))
    assert found.divergences == pytest.approx([divergence(one, other) for one, other in pairs])
    assert found.reverse.value == pytest.approx(np.mean([divergence(other, one) for one, other in pairs]))


def test_roc_and_rates():
    """Every threshold tried, one comparison at a time; DeLong's variance from its definition by placements."""
    rng = np.random.default_rng(13)
    members, others = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 50).astype(float)
    curve = roc(members, others)
    expected = {(0.0, 0.0)} | {(np.mean(others >= t), np.mean(members >= t)) for t in [*members, *others]}
    assert sorted(expected) == list(zip(curve.false_positive.tolist(), curve.true_positive.tolist(), strict=True))
    kernel = [[1.0 if m > o else 0.5 if m == o else 0.0 for o in others] for m in members]
    area = sum(map(sum, kernel)) / 2000
    placements = [sum(row) / 50 for row in kernel], [sum(column) / 40 for column in zip(*kernel, strict=True)]
    variance = sum(sum((v - area) ** 2 for v in side) / (len(side) - 1) / len(side) for side in placements)
    parts = [sum((v - area) ** 2 for v in side) / (len(side) - 1) / len(side) for side in placements]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 39 + parts[1] ** 2 / 49)  # Satterthwaite
    odds, half = log(area / (1 - area)), student.ppf(0.975, freedom) * variance**0.5 / (area * (1 - area))
    delong = 1 / (1 + exp(half - odds)), 1 / (1 + exp(-half - odds))
    inside = []
    for tried in np.arange(
        0.001, 1, 1e-5
    ):  # Newcombe: every area that is not too far from the estimate for its own variance
        q1, q2, mean_size = tried / (2 - tried), 2 * tried**2 / (1 + tried), (40 + 50) / 2
        own = (tried * (1 - tried) + (mean_size - 1) * (q1 + q2 - 2 * tried**2)) / 2000
        inside += [tried] if abs(area - tried) <= 1.959963984540054 * own**0.5 else []
    found = auc(members, others)
    assert found.value == pytest.approx(area)
    assert found.low == pytest.approx(min(delong[0], inside[0]), abs=2e-5)
    assert found.high == pytest.approx(max(delong[1], inside[-1]), abs=2e-5)
    best = max([np.mean(members > t) for t in others if np.mean(others > t) <= 0.2], default=0.0)
    assert tpr_at(members, others, 0.2).value == best
