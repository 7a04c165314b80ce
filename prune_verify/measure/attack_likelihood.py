"""Attacks that compare the target's margin on a record with margins of shadow networks on the same record.

Likelihood ratios (LiRA), the detector of answers unlike a non-member's, the comparison of two versions of a network.

Where this differs from published code, and why:

- one spread for all records (few shadows) is that within records, each about its own mean. The reference code takes the
  spread of all values, the differences between records among them, which hides members;
- offline LiRA is one-sided, as in the paper. Published implementations disagree: some rank by the density of the
  non-members' distribution, which is two-sided and marks records that were forgotten too well. Both are here, by name;
- scores never saturate: a distribution function that is 1.0 in binary64 would tie all the surest members.

Source: Carlini et al., arXiv 2112.03570, section VI; Chen, Zhang, Wang, Backes, Humbert and Zhang, When Machine
Unlearning Jeopardizes Privacy (CCS 2021, arXiv 2005.02205); THREATS T4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import norm

from prune_verify.measure.attack_input import (
    AttackInputError,
    Bools,
    Doubles,
    Observations,
    named_records,
    scaled_margins,
)

__all__ = ["Spread", "lira_offline", "lira_online", "spread_of", "two_version", "unlike_non_member", "unlike_outputs"]

_ENOUGH = 30  # on one side on average; arXiv 2112.03570 keeps one variance below 64 shadows, half of them inside
_LEAST = 8  # on one side for each record
_RECORDS = 10  # for a distribution of spreads among records
_LEAST_SPREAD = 1e-6  # logits; below it margins are constant, and any difference counts as a million spreads per logit


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and standard deviation of margins, record by record.

    Args:
        mean: float64 [records].
        deviation: float64 [records], above zero.
        count: float64 [records], networks behind each mean.

    """

    mean: Doubles
    deviation: Doubles
    count: Doubles


def spread_of(margins: Doubles, chosen: Bools, side: str, *, moderated: bool = False) -> Spread:
    """The normal distribution of each record's margins over the chosen networks.

    The deviation is each record's own where records have at least 30 chosen networks on average and 8 each. Else it is
    one for all, that of margins about their record's mean, as published; or, moderated, a compromise of the two for
    each record, which finds more where spreads differ much between records. Never below 1e-6 logits (constant margins).

    Args:
        margins: float64 [networks, records].
        chosen: bool [networks, records].
        side: "inside" or "outside", for the error.
        moderated: the compromise, with at least 10 records.

    Raises:
        AttackInputError: a record with no chosen network, or fewer than two for every record.

    """
    count = chosen.sum(axis=0).astype(np.float64)
    if (count == 0).any():
        text = f"inside: expected a shadow {side} for every record, found none for records {named_records(count == 0)}"
        raise AttackInputError(text)
    freedom = float((count - 1).sum())
    if freedom < 1:
        text = (
            f"shadows: expected at least two {side} for one record at least, found one for each of {len(count)} records"
        )
        raise AttackInputError(text)
    mean = np.where(chosen, margins, 0.0).sum(axis=0) / count
    squares = (np.where(chosen, margins - mean, 0.0) ** 2).sum(axis=0)
    if count.mean() >= _ENOUGH and count.min() >= _LEAST:
        variance = squares / (count - 1)
    elif moderated:
        variance = moderated_variances(squares, count - 1)
    else:
        variance = np.full_like(mean, squares.sum() / freedom)
    return Spread(mean, np.maximum(np.sqrt(variance), _LEAST_SPREAD), count)


def moderated_variances(squares: Doubles, freedom: Doubles) -> Doubles:
    """Variances of records, each drawn towards what is usual among them as far as its own few networks leave it open.

    The variances are taken to be scaled inverse chi-square; scale and degrees of freedom of that distribution are
    fitted to the logarithms of the records' own estimates, by moments.

    Args:
        squares: float64 [records], sums of squares about the record's mean.
        freedom: float64 [records], networks less one.

    Returns:
        float64 [records]; the common variance for all of them with fewer than 10 records to fit, or where they differ
        no more than chance explains.

    Source: Smyth, Statistical Applications in Genetics and Molecular Biology 3 (2004), sections 3 and 6.2.

    """
    common = np.full_like(squares, squares.sum() / freedom.sum())
    usable = (freedom > 0) & (squares > 0)
    if usable.sum() < _RECORDS:
        return common
    half = freedom[usable] / 2.0
    logs = np.log(squares[usable] / freedom[usable]) - digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half).mean())
    widest, narrowest = 1e-2, 1e4  # degrees of freedom; beyond them one of the two estimates is the answer
    if excess <= float(polygamma(1, narrowest / 2.0)):
        return common
    prior = widest
    if excess < float(polygamma(1, widest / 2.0)):
        prior = float(brentq(lambda d: float(polygamma(1, d / 2.0)) - excess, widest, narrowest))
    scale = float(np.exp(logs.mean() + digamma(prior / 2.0) - np.log(prior / 2.0)))
    return (prior * scale + squares) / (prior + freedom)


def _outside(observations: Observations, *, moderated: bool = False) -> Spread:
    margins = scaled_margins(observations.shadows, observations.labels)
    return spread_of(margins, ~observations.inside, "outside", moderated=moderated)


def lira_online(observations: Observations) -> Doubles:
    """The log-likelihood ratio of the target's margin: of networks trained with the record to those without it.

    Args:
        observations: shadows inside and outside for every record.

    Returns:
        float64 [records].

    Raises:
        AttackInputError: a record that no shadow was trained with or without, or too few shadows for any spread.

    Source: arXiv 2112.03570, algorithm 1.

    """
    margins = scaled_margins(observations.shadows, observations.labels)
    inside = spread_of(margins, observations.inside, "inside")
    outside = spread_of(margins, ~observations.inside, "outside")
    seen = scaled_margins(observations.target, observations.labels)
    ratio: Doubles = norm.logpdf(seen, inside.mean, inside.deviation) - norm.logpdf(
        seen, outside.mean, outside.deviation
    )
    return ratio


def lira_offline(observations: Observations) -> Doubles:
    """How far the target's margin lies above the non-members' of the same record, in their standard deviations.

    The paper's score is the distribution function of this number; the order is the same, and nothing saturates.

    Args:
        observations: shadows outside for every record; those inside are not used.

    Returns:
        float64 [records].

    Raises:
        AttackInputError: a record that every shadow was trained with, or too few shadows for any spread.

    Source: arXiv 2112.03570, section VI.B (offline attack, equation 4).

    """
    outside = _outside(observations)
    return (scaled_margins(observations.target, observations.labels) - outside.mean) / outside.deviation


def unlike_non_member(observations: Observations) -> Doubles:
    """How far the target's margin lies from the non-members' of the same record, on either side.

    Finds records that were forgotten too well, which one-sided attacks take for the surest non-members. In standard
    deviations of a new non-member's margin about the mean of those at hand, with moderated deviations.

    Args:
        observations: shadows outside for every record; those inside are not used.

    Returns:
        float64 [records], never negative; two-sided p-values fall as it grows.

    Raises:
        AttackInputError: a record that every shadow was trained with, or too few shadows for any spread.

    Source: THREATS T4.

    """
    outside = _outside(observations, moderated=True)
    away = np.abs(scaled_margins(observations.target, observations.labels) - outside.mean)
    return away / (outside.deviation * np.sqrt(1.0 + 1.0 / outside.count))


def unlike_outputs(observations: Observations) -> Doubles:
    """How far all logits of the target together lie from the non-members' of the same record.

    Mahalanobis' distance of centred logits (up to a constant they are the same answer), with one covariance for all
    records, that about each record's mean, shrunk towards independence: Ledoit and Wolf's form, by a fixed tenth. It
    finds an answer whose margin was imitated and whose other logits were not.

    Args:
        observations: shadows outside for every record; those inside are not used.

    Returns:
        float64 [records], never negative.

    Raises:
        AttackInputError: a record that every shadow was trained with, or too few shadows for any spread.

    Source: THREATS T4; Ledoit and Wolf, Journal of Multivariate Analysis 88 (2004), for the shape of the shrinkage.

    """
    outside = _outside(observations)  # also refuses what is not enough
    chosen = ~observations.inside
    logits = observations.shadows - observations.shadows.mean(axis=-1, keepdims=True)
    mean = np.where(chosen[..., None], logits, 0.0).sum(axis=0) / outside.count[:, None]
    residuals = (logits - mean)[chosen]
    covariance = residuals.T @ residuals / float((outside.count - 1).sum())
    shrunk = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance)) + _LEAST_SPREAD**2 * np.eye(len(covariance))
    away = observations.target - observations.target.mean(axis=-1, keepdims=True) - mean
    squared = (away * np.linalg.solve(shrunk, away.T).T).sum(axis=1)
    distance: Doubles = np.sqrt(np.maximum(squared, 0.0) / (1.0 + 1.0 / outside.count))
    return distance


def two_version(observations: Observations) -> Doubles:
    """How much a record's margin changed from the network before unlearning to the one after.

    The published attack trains a network on both versions' posteriors; what it learns from is their difference, most of
    all in Euclidean distance. Here that difference is taken directly, so nothing is fitted on the attacker's side: the
    size of the change, in standard deviations of the record's margin over networks without it where shadows give one
    (a record whose margin varies much from training to training is expected to change), else in logits. Its sign is not
    used: a patch may move a forgotten record either way, and leaves the others exactly where they were.

    Args:
        observations: with ``before``; shadows are optional, but if there are any, two outside for some record.

    Returns:
        float64 [records], never negative.

    Raises:
        AttackInputError: no outputs before, or shadows that give no spread.

    Source: arXiv 2005.02205, section 3 (direct difference, Euclidean distance).

    """
    if observations.before is None:
        text = "before: expected logits of the network before unlearning, found none"
        raise AttackInputError(text)
    now = scaled_margins(observations.target, observations.labels)
    change = np.abs(scaled_margins(observations.before, observations.labels) - now)
    return change / _outside(observations, moderated=True).deviation if len(observations.shadows) else change
