"""How far margins of unlearned networks are from those of retrained ones: the challenge's forgetting score, and KLoM.

Where networks are few, both tell kinds apart by chance alone. So each comes with a control: the same statistic between
two halves of the retrained networks (perfect unlearning), and between a half of each kind (as many networks as that).

Source: Triantafillou et al., Are We Making Progress in Unlearning? Findings from the First NeurIPS Unlearning
Competition (arXiv 2406.09073), and their report Evaluation for the NeurIPS Machine Unlearning Competition (2023);
Georgiev et al., Attribute-to-Delete: Machine Unlearning via Datamodel Matching (arXiv 2410.23232), appendix E.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prune_verify.measure.attack_input import AttackInputError, Doubles, Labels
from prune_verify.measure.attack_networks import (
    ensemble_margins,
    expect_confidence,
    mean_over_records,
    random_halves,
    spread_over_halves,
)
from prune_verify.measure.roc import Estimate

__all__ = ["DELTA", "EPSILON_CAP", "ForgettingScore", "Klom", "forgetting_score", "klom"]

DELTA = 1e-5
EPSILON_CAP = 50.0
_BIN = 0.5  # of epsilon
_PEAK = 0.01  # ratio of ranges below which one distribution counts as a point
_BUFFER = 2.0  # logits by which an interval of the second attack may miss the narrower range, at each end
_SPLITS = 20

_KLOM_BINS = 20
_KLOM_LIMIT = 100.0  # logits
_KLOM_LEAST = 1e-5  # probability of a bin that no retrained network fell in


@dataclass(frozen=True, eq=False)
class ForgettingScore:
    """The challenge's forgetting quality.

    Args:
        epsilons: float64 [records], from 0 to 50: the degree to which the two kinds can be told apart.
        score: mean of the records' points, from 0 to 1, 1 is best; the interval resamples records.
        control: the score between two halves of the retrained networks: what perfect unlearning gets. The mean over 20
            ways to halve, the interval is their quantiles.
        matched: the score between a half of each kind, likewise; the one to compare with ``control``.
        delta: the allowance of the definition.

    """

    epsilons: Doubles
    score: Estimate
    control: Estimate
    matched: Estimate
    delta: float


@dataclass(frozen=True, eq=False)
class Klom:
    """KL divergence of margins, in nats.

    Args:
        divergences: float64 [records], of the unlearned networks' margins from the retrained networks'; 0 is best.
        value: their mean; the interval resamples records.
        reverse: mean of the divergences of the retrained networks' margins from the unlearned networks'.
        control: between two halves of the retrained networks: what perfect unlearning gets. The mean over 20 ways to
            halve, the interval is their quantiles.
        matched: between a half of each kind, likewise; the one to compare with ``control``.
        matched_reverse: the same for ``reverse``.

    """

    divergences: Doubles
    value: Estimate
    reverse: Estimate
    control: Estimate
    matched: Estimate
    matched_reverse: Estimate


def forgetting_score(
    unlearned: Doubles,
    retrained: Doubles,
    labels: Labels,
    *,
    delta: float = DELTA,
    confidence: float = 0.95,
    seed: int = 0,
) -> ForgettingScore:
    """For each record the epsilon that the best threshold attack reaches, and the challenge's points for it.

    Two families of attacks, as published: one threshold on the margin, and an interval that holds the narrower of the
    two distributions. Every threshold that decides differently is tried, instead of a grid of a hundred to the logit.
    A record gets 1 point for an epsilon below 0.5, half a point below 1, and so on, and none from
    ceil(log(networks - 1)) on.

    Args:
        unlearned: float64 [networks, records, labels], logits of networks that unlearned the records.
        retrained: float64 [networks, records, labels], logits of networks that never saw them.
        labels: int64 [records].
        delta: in [0, 1).
        confidence: of the intervals, in (0, 1).
        seed: of the resamples and halves.

    Raises:
        AttackInputError: fewer than 20 networks of a kind, shapes that do not fit, a logit that is not finite, or a
            delta or confidence out of range.

    Source: evaluation report, definition 2 and section 3; the challenge's scoring code.

    """
    if not 0 <= delta < 1:
        text = f"delta: expected a number in [0, 1), found {delta}"
        raise AttackInputError(text)
    expect_confidence(confidence)
    inside, outside = ensemble_margins(unlearned, retrained, labels)

    def points(one: Doubles, other: Doubles) -> Doubles:
        epsilons = np.array([_epsilon(one[:, r], other[:, r], delta) for r in range(one.shape[1])])
        return _points(epsilons, min(len(one), len(other)))

    control, matched = _controls(inside, outside, points, confidence, seed)
    return ForgettingScore(
        epsilons=np.array([_epsilon(inside[:, r], outside[:, r], delta) for r in range(inside.shape[1])]),
        score=mean_over_records(points(inside, outside), (0.0, 1.0), confidence, seed),
        control=control,
        matched=matched,
        delta=delta,
    )


def klom(unlearned: Doubles, retrained: Doubles, labels: Labels, *, confidence: float = 0.95, seed: int = 0) -> Klom:
    """KL divergence between histograms of margins, record by record.

    As published: margins clipped to [-100, 100], 20 bins of equal width from the least to the greatest of both kinds,
    at least 1e-5 for the second distribution in each bin that holds some of the first. The last bin is closed:
    published code leaves it open, which drops the greatest margin. That code measures unlearned from retrained, and so
    misses networks whose margins are all in the middle of those of retrained ones (another sign of unlearning); the
    other way finds them, so both are given.

    Args:
        unlearned: float64 [networks, records, labels], logits of networks that unlearned the records.
        retrained: float64 [networks, records, labels], logits of networks that never saw them.
        labels: int64 [records].
        confidence: of the intervals, in (0, 1).
        seed: of the resamples and halves.

    Raises:
        AttackInputError: fewer than 20 networks of a kind, shapes that do not fit, a logit that is not finite, or a
            confidence outside (0, 1).

    Source: arXiv 2410.23232, appendix E.1.

    """
    expect_confidence(confidence)
    inside, outside = ensemble_margins(unlearned, retrained, labels)
    divergences = _divergences(inside, outside)
    limits = (0.0, float(-np.log(_KLOM_LEAST)) + 1e-3)
    control, matched = _controls(inside, outside, _divergences, confidence, seed)
    return Klom(
        divergences=divergences,
        value=mean_over_records(divergences, limits, confidence, seed),
        reverse=mean_over_records(_divergences(outside, inside), limits, confidence, seed),
        control=control,
        matched=matched,
        matched_reverse=_controls(inside, outside, lambda one, other: _divergences(other, one), confidence, seed)[1],
    )


def _controls(
    inside: Doubles,
    outside: Doubles,
    statistic: Callable[[Doubles, Doubles], Doubles],
    confidence: float,
    seed: int,
) -> tuple[Estimate, Estimate]:
    """The statistic between halves of the retrained networks, and between as many of each kind."""
    parts = random_halves(len(outside), _SPLITS, seed)
    rng = np.random.default_rng([seed, 1])
    fewer = min(len(outside) // 2, len(inside))
    among = np.array([statistic(outside[one], outside[other]).mean() for one, other in parts])
    between = np.array(
        [statistic(inside[rng.permutation(len(inside))[:fewer]], outside[other]).mean() for _, other in parts]
    )
    return spread_over_halves(among, confidence), spread_over_halves(between, confidence)


def _points(epsilons: Doubles, networks: int) -> Doubles:
    """Halved with each half unit of epsilon; none where so many networks could not tell it from infinity."""
    bins = np.floor(epsilons / _BIN)
    last = np.ceil(np.log(networks - 1.0)) / _BIN
    return np.where(bins < last, 0.5 ** np.minimum(bins, last), 0.0)


def _epsilon(unlearned: Doubles, retrained: Doubles, delta: float) -> float:
    """The largest epsilon that an attack on one record's margins shows, at most 50."""
    ranges = float(np.ptp(unlearned)), float(np.ptp(retrained))
    if max(ranges) == 0 and unlearned[0] == retrained[0]:
        return 0.0
    if min(ranges) < _PEAK * max(ranges) or max(ranges) == 0:
        return EPSILON_CAP
    upper, lower = unlearned, retrained
    if np.median(retrained) > np.median(unlearned):
        upper, lower = retrained, unlearned
    values = np.unique(np.concatenate([unlearned, retrained]))
    below = np.searchsorted(np.sort(upper), values, side="left") / len(upper)  # missed by the threshold at each value
    above = 1.0 - np.searchsorted(np.sort(lower), values, side="left") / len(lower)
    narrow, wide = (upper, lower) if np.ptp(upper) < np.ptp(lower) else (lower, upper)
    missed, caught = _intervals(values, narrow, wide)
    found = _epsilons(np.concatenate([above, caught]), np.concatenate([below, missed]), delta)
    return float(min(found, EPSILON_CAP))


def _intervals(values: Doubles, narrow: Doubles, wide: Doubles) -> tuple[Doubles, Doubles]:
    """Errors of "inside the interval means the narrower distribution", for every interval that the challenge allows.

    Its right end lies within the buffer of the narrower distribution's end, and its width within the buffer of that
    distribution's range. Intervals that hold the same values decide alike: one stands for all.

    Args:
        values: float64 [distinct], all margins, rising.
        narrow: float64 [networks].
        wide: float64 [others].

    Returns:
        float64 [intervals]: share of the narrower that is outside, and of the wider that is inside.

    """
    edges = np.concatenate([[-np.inf], values, [np.inf]])
    width, end = float(np.ptp(narrow)), float(narrow.max())
    first, last = np.triu_indices(len(values))
    right_from = np.maximum(edges[last + 1], end - _BUFFER)
    right_to = np.minimum(edges[last + 2], end + _BUFFER)
    allowed = (right_from <= right_to) & (right_from < edges[last + 2])
    allowed &= (right_from - edges[first + 1] <= width + _BUFFER) & (right_to - edges[first] > width - _BUFFER)
    first, last = first[allowed], last[allowed]
    inside = []
    for side in (narrow, wide):
        ordered = np.sort(side)
        starts = np.searchsorted(ordered, values, side="left")
        stops = np.searchsorted(ordered, values, side="right")
        inside.append((stops[last] - starts[first]) / len(side))
    return 1.0 - inside[0], inside[1]


def _epsilons(false_positive: Doubles, false_negative: Doubles, delta: float) -> float:
    """The largest epsilon over attacks. Those with one kind of error only are set aside: signs of too few networks."""
    none = (false_positive == 0) & (false_negative == 0)
    if none.any():
        return float(np.inf)
    both = (false_positive > 0) & (false_negative > 0)  # some: where a threshold has none, an interval cuts off an end
    positive, negative = false_positive[both], false_negative[both]
    found = 0.0
    for one, other in ((positive, negative), (negative, positive)):
        room = 1.0 - delta - one
        usable = room > 0
        if usable.any():
            found = max(found, float(np.max(np.log(room[usable]) - np.log(other[usable]))))
    return found


def _divergences(one: Doubles, other: Doubles) -> Doubles:
    """KL divergence of the first's histogram from the second's, for each record: float64 [records]."""
    found = np.empty(one.shape[1])
    for r in range(one.shape[1]):
        first, second = (np.clip(side[:, r], -_KLOM_LIMIT, _KLOM_LIMIT) for side in (one, other))
        ends = min(first.min(), second.min()), max(first.max(), second.max())
        counts = [np.histogram(side, bins=_KLOM_BINS, range=ends)[0] / len(side) for side in (first, second)]
        held = counts[0] > 0
        floored = np.where(held, np.maximum(counts[1], _KLOM_LEAST), counts[1])
        floored /= floored.sum()
        found[r] = float((counts[0][held] * np.log(counts[0][held] / floored[held])).sum())
    return found
