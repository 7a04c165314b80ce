"""What statistics of ensembles have in common: margins of enough networks, their halves, and means over records.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prune_verify.measure.attack_input import AttackInputError, Doubles, Labels, doubles, labels_below, scaled_margins
from prune_verify.measure.roc import Estimate

__all__ = ["FEWEST_NETWORKS", "ensemble_margins", "mean_over_records", "random_halves", "spread_over_halves"]

FEWEST_NETWORKS = (
    20  # of each kind; below it a record's distribution of margins is not known well enough for any of this
)
_FEWEST_LABELS = 2
_RESAMPLES = 2000


def ensemble_margins(unlearned: Doubles, retrained: Doubles, labels: Labels) -> tuple[Doubles, Doubles]:
    """Margins of both kinds of networks on the same records.

    Args:
        unlearned: float64 [networks, records, labels], logits.
        retrained: float64 [networks, records, labels], logits; the number of networks may be another.
        labels: int64 [records].

    Returns:
        float64 [networks, records], twice.

    Raises:
        AttackInputError: fewer than 20 networks of a kind, shapes that do not fit, or a logit that is not finite.

    """
    shape = doubles("unlearned", unlearned, (None, None, None)).shape
    if not shape[1] or shape[2] < _FEWEST_LABELS:
        text = f"unlearned: expected at least one record and two labels, found shape {list(shape)}"
        raise AttackInputError(text)
    checked = labels_below("labels", labels, (shape[1],), shape[2])
    found = []
    for name, logits in (("unlearned", unlearned), ("retrained", retrained)):
        found.append(scaled_margins(doubles(name, logits, (None, *shape[1:])), checked))
        if len(logits) < FEWEST_NETWORKS:
            text = f"{name}: expected at least {FEWEST_NETWORKS} networks, found {len(logits)}"
            raise AttackInputError(text)
    return found[0], found[1]


def expect_confidence(confidence: float) -> None:
    """A confidence lies in (0, 1).

    Raises:
        AttackInputError: it does not.

    """
    if not 0 < confidence < 1:
        text = f"confidence: expected a number in (0, 1), found {confidence}"
        raise AttackInputError(text)


def quantiles(values: Doubles, confidence: float) -> tuple[float, float]:
    """The percentile interval of resampled or split values."""
    low, high = np.quantile(values, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return float(low), float(high)


def mean_over_records(values: Doubles, limits: tuple[float, float], confidence: float, seed: int) -> Estimate:
    """The mean of a number that each record has, with the percentile bootstrap over records.

    It says how the mean would differ for other records of the kind, given these networks.

    Args:
        values: float64 [records].
        limits: smallest and largest that a record's number can be: the interval where there is one record.
        confidence: of the interval, in (0, 1).
        seed: of the resamples.

    """
    expect_confidence(confidence)
    if len(values) == 1:
        return Estimate(float(values[0]), *limits)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    return Estimate(float(values.mean()), *quantiles(means, confidence))


def random_halves(count: int, splits: int, seed: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """The halves of ``splits`` ways to part ``count`` networks, drawn with a seed; of an odd number one is left out."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(count) for _ in range(splits)]
    return [(order[: count // 2], order[count // 2 : 2 * (count // 2)]) for order in orders]


def spread_over_halves(values: Doubles, confidence: float) -> Estimate:
    """The mean of the values [ways] over ways to choose half of the networks, with quantiles at this confidence."""
    return Estimate(float(values.mean()), *quantiles(values, confidence))
