"""How well scores separate members from non-members, with intervals that count everything that was sampled.

A score is higher where the attacker thinks "member". Scores that are equal are decided together: no order among them.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); Brunner and Munzel, Biometrical Journal 42 (2000);
Newcombe, Statistics in Medicine 25 (2006), part 2, method 5; Clopper and Pearson, Biometrika 26 (1934); David and
Nagaraja, Order Statistics, section 7.1 (intervals for quantiles); Carlini et al., arXiv 2112.03570 (why the
true-positive rate at a low false-positive rate, and not the area, says what an attack is worth).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import beta, binom, norm, rankdata, t

from prune_verify.measure.attack_input import AttackInputError, Doubles, doubles

__all__ = ["Estimate", "Roc", "auc", "clopper_pearson", "roc", "tpr_at"]

_FEW = 20  # scores on a side
_SLACK = 1e-9  # rate * count is a whole number up to rounding where it is meant to be one


@dataclass(frozen=True)
class Estimate:
    """A number that was measured, with its interval.

    Args:
        value: the estimate.
        low: lower end.
        high: upper end.

    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Roc:
    """The rates that the thresholds reach, from none called a member to all.

    Args:
        false_positive: float64 [steps], share of non-members called members; from 0 to 1, never decreasing.
        true_positive: float64 [steps], share of members called members; likewise.

    """

    false_positive: Doubles
    true_positive: Doubles


def _sides(members: Doubles, non_members: Doubles, confidence: float) -> tuple[Doubles, Doubles]:
    if not 0 < confidence < 1:
        text = f"confidence: expected a number in (0, 1), found {confidence}"
        raise AttackInputError(text)
    sides = doubles("members", members, (None,)), doubles("non_members", non_members, (None,))
    for name, side in zip(("members", "non_members"), sides, strict=True):
        if not len(side):
            text = f"{name}: expected at least one score, found none"
            raise AttackInputError(text)
    return sides


def roc(members: Doubles, non_members: Doubles) -> Roc:
    """Every pair of rates that a threshold on the score reaches, one for each distinct score.

    Args:
        members: float64 [members], scores.
        non_members: float64 [non-members], scores.

    Raises:
        AttackInputError: no scores on one side, or a score that is not finite.

    """
    inside, outside = _sides(members, non_members, 0.5)
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    reached = [
        np.concatenate([[0.0], (len(side) - np.searchsorted(np.sort(side), thresholds, side="left")) / len(side)])
        for side in (outside, inside)
    ]
    return Roc(false_positive=reached[0], true_positive=reached[1])


def clopper_pearson(hits: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share: it covers the truth at least as often as it says, for every truth.

    Args:
        hits: how often; a mean of so many trials may be a fraction.
        trials: of how many, at least 1.
        confidence: between 0 and 1.

    Raises:
        ValueError: no trials, or more hits than trials.

    Source: Clopper and Pearson (1934).

    """
    if not 0 <= hits <= trials or trials < 1:
        text = f"expected from 0 to {trials} hits of at least one trial, found {hits}"
        raise ValueError(text)
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high


def auc(members: Doubles, non_members: Doubles, *, confidence: float = 0.95) -> Estimate:
    """The chance that a member scores above a non-member, ties counted half, with an interval that holds for few too.

    The interval is the wider one at each end of two:

    - DeLong's variance, with the quantile of Student's t that its own uncertainty asks for (Brunner and Munzel), on the
      scale of log-odds, so that it stays inside [0, 1];
    - with at least 20 scores on both sides, Newcombe's, whose variance is that at the end of the interval and not at
      the estimate: near 1, DeLong's is too often too small. With fewer, or where DeLong's variance is zero (complete
      separation, or nothing but ties), Clopper and Pearson's for as many trials as the smaller side has scores: the
      mean of anything in [0, 1] varies at most as a share does.

    With one score on a side nothing is known of its spread: the interval is [0, 1].

    Args:
        members: float64 [members], scores.
        non_members: float64 [non-members], scores.
        confidence: of the interval, in (0, 1).

    Raises:
        AttackInputError: no scores on one side, a score that is not finite, or a confidence outside (0, 1).

    Source: DeLong et al. (1988), with the mid-ranks of Sun and Xu, IEEE Signal Processing Letters 21 (2014).

    """
    inside, outside = _sides(members, non_members, confidence)
    ranks = rankdata(np.concatenate([inside, outside]))
    above = (ranks[: len(inside)] - rankdata(inside)) / len(outside)  # share of non-members below each member
    below = 1.0 - (ranks[len(inside) :] - rankdata(outside)) / len(inside)  # share of members above each non-member
    value = float(above.mean())
    sizes = len(inside), len(outside)
    if min(sizes) == 1:
        return Estimate(value, 0.0, 1.0)
    parts = float(above.var(ddof=1)) / sizes[0], float(below.var(ddof=1)) / sizes[1]
    variance = sum(parts)
    spread = variance > np.finfo(np.float64).eps ** 2 and 0.0 < value < 1.0
    if min(sizes) < _FEW or not spread:
        low, high = clopper_pearson(min(value, 1.0) * min(sizes), min(sizes), confidence)
    else:
        low, high = _newcombe(value, sizes, confidence)
    if spread:
        freedom = variance**2 / (parts[0] ** 2 / (sizes[0] - 1) + parts[1] ** 2 / (sizes[1] - 1))
        half = float(t.isf((1.0 - confidence) / 2.0, freedom)) * np.sqrt(variance) / (value * (1.0 - value))
        low = min(low, float(expit(logit(value) - half)))
        high = max(high, float(expit(logit(value) + half)))
    return Estimate(value, low, high)


def _newcombe(value: float, sizes: tuple[int, int], confidence: float) -> tuple[float, float]:
    """The areas that lie just as many of their own standard deviations from the estimate as the confidence allows."""
    bound = float(norm.isf((1.0 - confidence) / 2.0))
    others = sum(sizes) / 2.0 - 1.0

    def beyond(area: float) -> float:
        factor = 1.0 + others * ((1.0 - area) / (2.0 - area) + area / (1.0 + area))
        return (value - area) ** 2 - bound**2 * area * (1.0 - area) * factor / (sizes[0] * sizes[1])

    return float(brentq(beyond, 0.0, value)), float(brentq(beyond, value, 1.0))


def tpr_at(members: Doubles, non_members: Doubles, rate: float, *, confidence: float = 0.95) -> Estimate | None:
    """The true-positive rate at the lowest threshold whose false-positive rate is at most ``rate``.

    The value: at most ``rate * non-members`` of the non-members score above the threshold; steps are not interpolated.
    The interval is for the rate that an attacker reaches who knows the non-members' distribution, and counts two
    samplings, with half of the error probability for each:

    - the threshold was estimated from finitely many non-members. How many of them lie above the true threshold is
      binomial, so two of their order statistics enclose it, whatever the distribution is;
    - the members were sampled: Clopper and Pearson's interval at the two ends.

    It covers at least as often as it says (by Bonferroni's inequality; usually more often). The bootstrap was not
    chosen: at the largest order statistics, where low rates are decided, it is known to be inconsistent (Bickel and
    Freedman, Annals of Statistics 9, 1981).

    Args:
        members: float64 [members], scores.
        non_members: float64 [non-members], scores.
        rate: false-positive rate, in (0, 1).
        confidence: of the interval, in (0, 1).

    Returns:
        The estimate, or None where there are fewer than ``1 / rate`` non-members: their number cannot resolve the rate.

    Raises:
        AttackInputError: no scores on one side, a score that is not finite, a rate or a confidence outside (0, 1).

    """
    inside, outside = _sides(members, non_members, confidence)
    if not 0 < rate < 1:
        text = f"rate: expected a false-positive rate in (0, 1), found {rate}"
        raise AttackInputError(text)
    allowed = int(np.floor(rate * len(outside) + _SLACK))
    if allowed < 1:
        return None
    falling = np.sort(outside)[::-1]
    each = (1.0 - confidence) / 4.0  # a quarter for each end of the threshold, the other half for the members
    fewest = int(binom.ppf(each, len(outside), rate))  # at least so many are at or above the true threshold
    most = int(binom.isf(each, len(outside), rate)) + 1  # fewer than so many are strictly above it
    high_bar = falling[fewest - 1] if fewest else np.inf
    low_bar = falling[most - 1] if most <= len(outside) else -np.inf
    share = 1.0 - (1.0 - confidence) / 2.0
    return Estimate(
        value=float((inside > falling[allowed]).mean()),
        low=clopper_pearson(int((inside > high_bar).sum()), len(inside), share)[0],
        high=clopper_pearson(int((inside >= low_bar).sum()), len(inside), share)[1],
    )
