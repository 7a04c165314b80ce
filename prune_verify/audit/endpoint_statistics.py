"""What a number of queries without a deviation says about an endpoint, in exact binomial terms.

Source: certs/SPEC.md section 10.4; C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits
illustrated in the case of the binomial, Biometrika 26 (1934); THREATS T1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import betaincinv

__all__ = ["Share", "clopper_pearson", "detection", "least_trials", "upper_bound"]


def detection(share: float, trials: int) -> float:
    """The probability 1 - (1 - p)^k that ``trials`` fresh queries show a deviating share of ``share`` at least once."""
    return 1.0 if share >= 1 and trials else -math.expm1(trials * math.log1p(-share)) if share < 1 else 0.0


def least_trials(share: float, confidence: float) -> int:
    """The least number k of queries without a deviation that bounds a share p: 1 - (1 - p)^k >= confidence."""
    trials = max(1, math.floor(math.log1p(-confidence) / math.log1p(-share)) - 1)
    while detection(share, trials) < confidence:
        trials += 1
    return trials


def upper_bound(deviations: int, trials: int, confidence: float) -> float:
    """The exact one-sided upper bound of a share: with fewer than this many, so few deviations had been too unlikely.

    Args:
        deviations: how many were seen.
        trials: of so many.
        confidence: such as 0.95.

    Returns:
        The p at which ``deviations`` or fewer have probability 1 - confidence; 1 where nothing bounds it.

    """
    if deviations >= trials:
        return 1.0
    return float(betaincinv(deviations + 1, trials - deviations, confidence))


def clopper_pearson(deviations: int, trials: int, confidence: float) -> tuple[float, float]:
    """The exact two-sided interval of a share (Clopper and Pearson); (0, 1) without a trial.

    Args:
        deviations: how often it happened.
        trials: of how many.
        confidence: between 0 and 1.

    """
    tail = (1 - confidence) / 2
    lower = 0.0 if deviations == 0 else float(betaincinv(deviations, trials - deviations + 1, tail))
    return lower, upper_bound(deviations, trials, 1 - tail)


@dataclass(frozen=True)
class Share:
    """Deviations among the trials of one kind of region.

    Args:
        trials: requests with a query of this kind that was answered; each is one independent trial.
        deviations: of them, those with a deviating answer.
        confidence: of the interval and of the bound.

    """

    trials: int
    deviations: int
    confidence: float

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided, exact."""
        return clopper_pearson(self.deviations, self.trials, self.confidence)

    @property
    def bound(self) -> float:
        """One-sided upper bound, exact: what the verdict rests on."""
        return upper_bound(self.deviations, self.trials, self.confidence)
