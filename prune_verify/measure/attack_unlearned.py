"""U-LiRA: whether networks that unlearned a record can be told from networks that never saw it, record by record.

What the attacker knows here is the most that he could: the distribution of the record's margin over networks of both
kinds. The network under attack is never part of a distribution that it is compared with. Where two networks are
compared with each other (the area for one record), both are left out of both distributions: leaving out only the one
whose ratio is computed, which is right for one target network, is biased downwards there (0.43 on average instead of
0.5 for 20 networks that are all alike), so that a small leak looks like none.

Source: Hayes, Shumailov, Triantafillou, Khalifa and Papernot, Inexact Unlearning Needs More Careful Evaluations to
Avoid a False Sense of Privacy (SaTML 2025, arXiv 2403.01218); Airola, Pahikkala, Waegeman, De Baets and Salakoski,
Computational Statistics and Data Analysis 55 (2011), for leave-pair-out; Owen, The Pigeonhole Bootstrap (Annals of
Applied Statistics 1, 2007), for the intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune_verify.measure.attack_input import Doubles, Labels
from prune_verify.measure.attack_networks import ensemble_margins, expect_confidence, quantiles
from prune_verify.measure.roc import Estimate

__all__ = ["ULira", "u_lira"]

_LEAST_SPREAD = 1e-6  # logits
_RATE = 0.01
_ENOUGH_ABOVE = 10  # scores of retrained networks above the threshold of the rate, for its interval to mean something
_RESAMPLES = 400


@dataclass(frozen=True, eq=False)
class ULira:
    """How well unlearned networks can be told from retrained ones; a half everywhere means not at all.

    Intervals resample networks of each kind and records together, which counts that a network answers on many records
    and errs towards too wide.

    Args:
        unlearned: float64 [networks, records], log-likelihood ratios of unlearned networks; above 0: called unlearned.
        retrained: float64 [networks, records], those of retrained networks.
        record_auc: float64 [records], the area for each record by itself.
        mean_auc: of the areas by record.
        auc: area over all records with one threshold.
        accuracy: share of networks called rightly at ratio 1, mean of both kinds.
        tpr: true-positive rate at 1 % false positives over all records; None below 1,000 ratios of retrained networks.

    """

    unlearned: Doubles
    retrained: Doubles
    record_auc: Doubles
    mean_auc: Estimate
    auc: Estimate
    accuracy: Estimate
    tpr: Estimate | None


def u_lira(unlearned: Doubles, retrained: Doubles, labels: Labels, *, confidence: float = 0.95, seed: int = 0) -> ULira:
    """The strongest attack on unlearning that looks at margins: a likelihood ratio per record, on networks left out.

    Args:
        unlearned: float64 [networks, records, labels], logits of networks trained with the records that unlearned them.
        retrained: float64 [networks, records, labels], logits of networks that never saw them.
        labels: int64 [records].
        confidence: of the intervals, in (0, 1).
        seed: of the resamples.

    Raises:
        AttackInputError: fewer than 20 networks of a kind, shapes that do not fit, a logit that is not finite, or a
            confidence outside (0, 1).

    Source: arXiv 2403.01218, section 4.

    """
    expect_confidence(confidence)
    inside, outside = ensemble_margins(unlearned, retrained, labels)
    networks, others = len(inside), len(outside)
    rng = np.random.default_rng(seed)
    drawn = [rng.multinomial(n, np.full(n, 1.0 / n), _RESAMPLES) for n in (networks, others, inside.shape[1])]
    weights = [np.concatenate([np.ones((1, one.shape[1])), one]) for one in drawn]  # the first: as observed
    ratios, others_ratios = np.empty_like(inside), np.empty_like(outside)
    areas = np.empty((_RESAMPLES + 1, inside.shape[1]))
    fits = _left_out(inside), _left_out(outside)
    for r in range(inside.shape[1]):
        own, cross = _compared(inside[:, r], outside[:, r], fits[0][:, :, r], fits[1][:, :, r])
        ratios[:, r] = own[np.arange(networks), np.arange(networks) % others]
        others_ratios[:, r] = cross[np.arange(others) % networks, np.arange(others)]
        won = (own > cross) + 0.5 * (own == cross)
        areas[:, r] = np.einsum("bm,bm->b", weights[0] @ won, weights[1]) / (networks * others)
    by_record = (areas * weights[2]).sum(axis=1) / inside.shape[1]
    right = [
        np.einsum("bn,nr,br->b", w, called, weights[2], optimize=True) / called.size
        for w, called in ((weights[0], ratios > 0), (weights[1], others_ratios <= 0))
    ]
    pooled = _pooled(ratios, others_ratios, weights)
    enough = others_ratios.size * _RATE >= _ENOUGH_ABOVE
    return ULira(
        unlearned=ratios,
        retrained=others_ratios,
        record_auc=areas[0],
        mean_auc=_estimate(by_record, confidence),
        auc=_estimate(pooled[0], confidence),
        accuracy=_estimate((right[0] + right[1]) / 2.0, confidence),
        tpr=_estimate(pooled[1], confidence) if enough else None,
    )


def _estimate(values: Doubles, confidence: float) -> Estimate:
    """The observed value is the first; the others are of resamples."""
    low, high = quantiles(values[1:], confidence)
    return Estimate(float(values[0]), min(low, float(values[0])), max(high, float(values[0])))


def _left_out(margins: Doubles) -> Doubles:
    """Mean and deviation of the others, for each network: float64 [2, networks, records]."""
    rest = [np.delete(margins, i, axis=0) for i in range(len(margins))]
    means = np.stack([one.mean(axis=0) for one in rest])
    deviations = np.stack([one.std(axis=0, ddof=1) for one in rest])
    return np.stack([means, np.maximum(deviations, _LEAST_SPREAD)])


def _density(margins: Doubles, mean: Doubles, deviation: Doubles) -> Doubles:
    """Logarithm of the normal density, up to a constant."""
    logs: Doubles = -0.5 * ((margins - mean) / deviation) ** 2 - np.log(deviation)
    return logs


def _compared(inside: Doubles, outside: Doubles, fit: Doubles, other_fit: Doubles) -> tuple[Doubles, Doubles]:
    """Ratios of the unlearned and of the retrained network of each pair, neither in the distributions.

    Args:
        inside: float64 [networks], margins on one record.
        outside: float64 [others].
        fit: float64 [2, networks], of :func:`_left_out`.
        other_fit: float64 [2, others].

    Returns:
        float64 [networks, others], twice.

    """
    own = _density(inside, fit[0], fit[1])[:, None] - _density(inside[:, None], other_fit[0], other_fit[1])
    cross = _density(outside, fit[0][:, None], fit[1][:, None]) - _density(outside, other_fit[0], other_fit[1])
    return own, cross


def _pooled(inside: Doubles, outside: Doubles, weights: list[Doubles]) -> tuple[Doubles, Doubles]:
    """Area and true-positive rate over all records together, for each resample."""
    scores = np.concatenate([inside.ravel(), outside.ravel()])
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) != 0]))  # of scores that are equal
    is_inside = (np.arange(len(scores)) < inside.size)[order]
    areas, rates = np.empty(len(weights[0])), np.empty(len(weights[0]))
    for b in range(len(weights[0])):
        weight = np.concatenate([np.outer(weights[k][b], weights[2][b]).ravel() for k in (0, 1)])[order]
        hits = np.cumsum(np.add.reduceat(np.where(is_inside, weight, 0.0), starts)) / inside.size
        false = np.cumsum(np.add.reduceat(np.where(is_inside, 0.0, weight), starts)) / outside.size
        areas[b] = np.trapezoid(np.concatenate([[0.0], hits]), np.concatenate([[0.0], false]))
        reached = np.searchsorted(false, _RATE + 1e-12, side="right")
        rates[b] = hits[reached - 1] if reached else 0.0
    return areas, rates
