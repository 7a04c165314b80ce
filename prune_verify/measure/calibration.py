"""How right a network is and how well it knows that: exact intervals, paired differences, calibration.

Every interval is for 95 % unless said otherwise. Counts have exact ones (Clopper and Pearson); calibration errors have
bootstrap ones over records.

Source: Clopper and Pearson, Biometrika 26 (1934); McNemar, Psychometrika 12 (1947), exact binomial form; calibration
error with bins of equal mass, Nguyen and O'Connor, EMNLP 2015, and its bias, Roelofs et al., arXiv 2012.08668; Brier,
Monthly Weather Review 78 (1950); bootstrap, Efron and Tibshirani 1993, chapter 13.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from scipy.stats import binomtest

from prune_verify.measure.roc import clopper_pearson

__all__ = ["CalibrationError", "Paired", "Reliability", "brier", "calibration_error", "paired", "reliability", "strict"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_RESAMPLES = 1000
_BINS = 15
_CONFIDENCE = 0.95


def strict(logits: Floats) -> Labels:
    """The label with the greatest of the logits [rows, labels], or -1 where it is tied or no number: int64 [rows]."""
    best = logits.max(axis=1, keepdims=True)
    return np.where((logits == best).sum(axis=1) == 1, logits.argmax(axis=1), -1).astype(np.int64)


@dataclass(frozen=True)
class Paired:
    """How two networks differ on the same records.

    Args:
        difference: of their accuracies, the second less the first.
        interval: of it; covers with at least the confidence, whatever the networks.
        first_only: records that the first answers rightly and the second does not.
        second_only: the reverse.
        p_value: of the exact two-sided test that neither is more often right.

    """

    difference: float
    interval: tuple[float, float]
    first_only: int
    second_only: int
    p_value: float


def paired(first: Bools, second: Bools) -> Paired:
    """Compare two networks by which records they answer rightly: exact McNemar, and an interval from two exact ones.

    Args:
        first: bool [records], at least one.
        second: bool [records].

    """
    lost, won, count = int((first & ~second).sum()), int((~first & second).sum()), len(first)
    each = 1 - (1 - _CONFIDENCE) / 2  # two intervals that hold together at the confidence
    lose, win = (clopper_pearson(n, count, each) for n in (lost, won))
    p_value = 1.0 if lost + won == 0 else float(binomtest(won, lost + won, 0.5).pvalue)
    return Paired((won - lost) / count, (win[0] - lose[1], win[1] - lose[0]), lost, won, p_value)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Records in bins of equal mass, by ascending confidence: float64 [bins] each.

    Args:
        confidence: mean of the bin.
        accuracy: share answered rightly.
        rows: records.

    """

    confidence: Doubles
    accuracy: Doubles
    rows: Doubles

    def error(self) -> float:
        """The expected calibration error: the mean gap between confidence and accuracy, by records."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.rows))


@dataclass(frozen=True)
class CalibrationError:
    """A calibration error with its interval.

    Args:
        value: of these records.
        interval: basic bootstrap.

    """

    value: float
    interval: tuple[float, float]


def _binned(confidence: Doubles, right: Doubles) -> Reliability:
    order = np.argsort(confidence, kind="stable")
    edges = np.linspace(0, len(order), min(_BINS, len(order)) + 1).astype(np.int64)
    rows = np.diff(edges).astype(np.float64)
    sums = (np.add.reduceat(values[order], edges[:-1]) for values in (confidence, right))
    first, second = (found / rows for found in sums)
    return Reliability(first, second, rows)


def _confidence(logits: Floats, y: Labels) -> tuple[Doubles, Doubles]:
    shares = softmax(logits.astype(np.float64), axis=1)
    return shares.max(axis=1), (strict(logits) == y).astype(np.float64)


def reliability(logits: Floats, y: Labels) -> Reliability:
    """Confidence beside accuracy, in 15 bins of equal mass.

    Args:
        logits: float32 [records, labels], at least one record.
        y: int64 [records].

    """
    return _binned(*_confidence(logits, y))


def calibration_error(logits: Floats, y: Labels, seed: int) -> CalibrationError:
    """The expected calibration error with bins of equal mass.

    The value is biased upwards, as an average of absolute gaps is; the basic bootstrap takes the bias that it sees in
    resamples off twice, so that the interval may lie below the value.

    Args:
        logits: float32 [records, labels], at least one record.
        y: int64 [records].
        seed: of the resamples.

    """
    confidence, right = _confidence(logits, y)
    value = _binned(confidence, right).error()
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_RESAMPLES):
        chosen = rng.integers(len(y), size=len(y))
        found.append(_binned(confidence[chosen], right[chosen]).error())
    low, high = np.quantile(found, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return CalibrationError(value, (max(0.0, 2 * value - float(high)), max(0.0, 2 * value - float(low))))


def brier(logits: Floats, y: Labels, seed: int) -> CalibrationError:
    """The Brier score over all labels, between 0 and 2, with its percentile bootstrap interval.

    Args:
        logits: float32 [records, labels], at least one record.
        y: int64 [records].
        seed: of the resamples.

    """
    shares = softmax(logits.astype(np.float64), axis=1)
    shares[np.arange(len(y)), y] -= 1
    each = np.square(shares).sum(axis=1)
    rng = np.random.default_rng(seed)
    means = [float(each[rng.integers(len(y), size=len(y))].mean()) for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return CalibrationError(float(each.mean()), (float(low), float(high)))
