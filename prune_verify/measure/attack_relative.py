"""RMIA: a record is called a member if the target, relative to other networks, prefers it to population records.

Source: Zarifzadeh, Liu and Shokri, Low-Cost High-Power Membership Inference Attacks (ICML 2024, arXiv 2312.03262).
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from prune_verify.measure.attack_input import (
    AttackInputError,
    Bools,
    Doubles,
    Labels,
    Observations,
    named_records,
    scaled_margins,
)

__all__ = ["GAMMA", "OFFLINE_A", "log_confidences", "rmia_offline", "rmia_online"]

GAMMA = 2.0  # a population record must be beaten by this factor; arXiv 2312.03262 finds little difference from 1 to 10
OFFLINE_A = 0.3  # what the authors found best on CIFAR-10; 1 says that training on a record changes nothing


def log_confidences(logits: Doubles, labels: Labels) -> Doubles:
    """The logarithm of p_y from logits, exact to rounding also where p_y is 1 or 0 in binary64.

    Args:
        logits: float64 [..., records, labels].
        labels: int64 [records].

    Returns:
        float64 [..., records], at most 0.

    """
    return -np.logaddexp(0.0, -scaled_margins(logits, labels))


def rmia_online(observations: Observations, gamma: float = GAMMA) -> Doubles:
    """The share of population records that the record beats, with networks trained with and without the record.

    P(x) is the mean of the two means. Population records are in no training set, so their mean over networks trained
    with them is estimated from that over those without by a line through (1, 1), as offline; its slope is the one that
    fits the records at hand best (least squares).

    Args:
        observations: population with its shadows; shadows inside and outside for every record.
        gamma: above 0.

    Returns:
        float64 [records], in [0, 1] in steps of 1 / population: a false-positive rate below that cannot be resolved.

    Raises:
        AttackInputError: no population, a record that no shadow was trained with or without, or gamma not above 0.

    Source: arXiv 2312.03262, equations 4 to 8.

    """
    confidences = log_confidences(observations.shadows, observations.labels)
    inside = _log_mean(confidences, observations.inside, "inside")
    outside = _log_mean(confidences, ~observations.inside, "outside")
    missing, expected = -np.expm1(outside), -np.expm1(inside)
    total = float((missing**2).sum())
    slope = min(float((missing * expected).sum()) / total, 1.0) if total > 0 else 1.0
    own = np.logaddexp(inside, outside) - np.log(2.0)
    return _share_beaten(observations, own, slope, gamma)


def rmia_offline(observations: Observations, gamma: float = GAMMA, a: float = OFFLINE_A) -> Doubles:
    """The share of population records that the record beats, with networks trained without the record only.

    Args:
        observations: population with its shadows; shadows outside for every record, those inside are not used.
        gamma: above 0.
        a: slope of the estimate of the mean over networks trained with the record, in [0, 1].

    Returns:
        float64 [records], in [0, 1] in steps of 1 / population.

    Raises:
        AttackInputError: no population, a record that every shadow was trained with, or gamma or a out of range.

    Source: arXiv 2312.03262, appendix B.2.2 (offline approximation: P(x) = ((1 + a) P_out(x) + 1 - a) / 2).

    """
    if not 0 <= a <= 1:
        text = f"a: expected a slope in [0, 1], found {a}"
        raise AttackInputError(text)
    outside = _log_mean(log_confidences(observations.shadows, observations.labels), ~observations.inside, "outside")
    return _share_beaten(observations, _offline(outside, a), a, gamma)


def _log_mean(confidences: Doubles, chosen: Bools, side: str) -> Doubles:
    count = chosen.sum(axis=0)
    if not count.all():
        text = f"inside: expected a shadow {side} for every record, found none for records {named_records(count == 0)}"
        raise AttackInputError(text)
    mean: Doubles = logsumexp(np.where(chosen, confidences, -np.inf), axis=0) - np.log(count)
    return mean


def _offline(outside: Doubles, a: float) -> Doubles:
    scaled = outside + np.log((1.0 + a) / 2.0)
    mixed: Doubles = scaled if a >= 1.0 else np.logaddexp(scaled, np.log((1.0 - a) / 2.0))
    return mixed


def _share_beaten(observations: Observations, own: Doubles, a: float, gamma: float) -> Doubles:
    if not gamma > 0:
        text = f"gamma: expected a factor above 0, found {gamma}"
        raise AttackInputError(text)
    population, labels, shadows = (
        observations.population,
        observations.population_labels,
        observations.population_shadows,
    )
    if population is None or labels is None or shadows is None or not len(population):
        text = "population: expected logits of records that are in no training set, found none"
        raise AttackInputError(text)
    theirs = _log_mean(log_confidences(shadows, labels), np.ones(shadows.shape[:2], dtype=np.bool_), "outside")
    bars = np.sort(log_confidences(population, labels) - _offline(theirs, a))
    ratios = log_confidences(observations.target, observations.labels) - own
    beaten: Doubles = np.searchsorted(bars, ratios - np.log(gamma), side="right") / len(bars)
    return beaten
