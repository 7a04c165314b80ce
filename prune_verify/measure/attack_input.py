"""What attacks of membership inference observe, checked once, and the quantity that most of them look at.

Source: Carlini, Chien, Nasr, Song, Terzis and Tramer, Membership Inference Attacks From First Principles (S&P 2022,
arXiv 2112.03570), section IV; STYLE "Errors".
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from prune_verify.repair.errors import RepairInputError

__all__ = ["AttackInputError", "Bools", "Doubles", "Labels", "Observations", "scaled_margins"]

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_FEWEST_LABELS = 2
_MOST_NAMED = 8


class AttackInputError(RepairInputError):
    """An attack or a statistic of it cannot be computed: says which array, what was expected, what was found."""


def doubles(name: str, values: npt.ArrayLike, shape: tuple[int | None, ...]) -> Doubles:
    """Values as finite float64 of a shape.

    Args:
        name: of the array, for the error.
        values: numbers.
        shape: expected; None where any length is allowed.

    Raises:
        AttackInputError: another shape, or a value that is not finite.

    """
    array = np.asarray(values, dtype=np.float64)
    _expect_shape(name, array.shape, shape)
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        text = f"{name}: expected finite numbers, found {array[where]} at {list(where)}"
        raise AttackInputError(text)
    return array


def labels_below(name: str, values: npt.NDArray[np.generic], shape: tuple[int | None, ...], count: int) -> Labels:
    """Labels as int64 of a shape, each of them in [0, count).

    Raises:
        AttackInputError: another shape, no whole numbers, or a label outside.

    """
    _expect_shape(name, values.shape, shape)
    if not np.issubdtype(values.dtype, np.integer):
        text = f"{name}: expected whole numbers, found {values.dtype}"
        raise AttackInputError(text)
    if values.size and (int(values.min()) < 0 or int(values.max()) >= count):
        text = f"{name}: expected labels in [0, {count}), found {values.min()} to {values.max()}"
        raise AttackInputError(text)
    return values.astype(np.int64)


def named_records(records: Bools) -> str:
    """The indices of the marked records, as text for an error."""
    indices = np.flatnonzero(records)
    shown = ", ".join(str(int(i)) for i in indices[:_MOST_NAMED])
    return shown if len(indices) <= _MOST_NAMED else f"{shown} and {len(indices) - _MOST_NAMED} more"


def _expect_shape(name: str, found: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    if len(found) != len(expected) or any(e is not None and e != f for f, e in zip(found, expected, strict=True)):
        wanted = "[" + ", ".join("any" if e is None else str(e) for e in expected) + "]"
        text = f"{name}: expected shape {wanted}, found {list(found)}"
        raise AttackInputError(text)


@dataclass(frozen=True, eq=False)
class Observations:
    """What an attacker has about some records, each of them a member or not: numbers only, no network.

    Checked when made; logits become float64, so that margins keep their last bits.

    Args:
        labels: int64 [records], true labels.
        target: float64 [records, labels], logits of the network under attack.
        shadows: float64 [shadows, records, labels], logits of networks that the attacker trained; none is allowed.
        inside: bool [shadows, records], whether the record was in that shadow's training set.
        before: float64 [records, labels], logits of the network before unlearning; for the two-version attack.
        nearby: int64 [records, probes], answers of the target near each record; for the label-only attack.
        population: float64 [population, labels], logits of the target on records that are in no training set.
        population_labels: int64 [population].
        population_shadows: float64 [shadows, population, labels], logits of the shadows on the same.

    Raises:
        AttackInputError: a shape that does not fit the others, a label out of range, or a value that is not finite.

    """

    labels: Labels
    target: Doubles
    shadows: Doubles
    inside: Bools
    before: Doubles | None = None
    nearby: Labels | None = None
    population: Doubles | None = None
    population_labels: Labels | None = None
    population_shadows: Doubles | None = None

    def __post_init__(self) -> None:
        records, count = doubles("target", self.target, (None, None)).shape
        if not records or count < _FEWEST_LABELS:
            text = f"target: expected at least one record and two labels, found shape [{records}, {count}]"
            raise AttackInputError(text)
        shadows = len(self.shadows)
        checked: dict[str, Doubles | Labels | Bools] = {
            "labels": labels_below("labels", self.labels, (records,), count),
            "target": doubles("target", self.target, (records, count)),
            "shadows": doubles("shadows", self.shadows, (shadows, records, count)),
        }
        _expect_shape("inside", self.inside.shape, (shadows, records))
        if self.inside.dtype != np.bool_:
            text = f"inside: expected truth values, found {self.inside.dtype}"
            raise AttackInputError(text)
        if self.before is not None:
            checked["before"] = doubles("before", self.before, (records, count))
        if self.nearby is not None:
            checked["nearby"] = labels_below("nearby", self.nearby, (records, None), count)
        checked |= self._checked_population(shadows, count)
        for one in fields(self):
            if one.name in checked:
                object.__setattr__(self, one.name, checked[one.name])

    def _checked_population(self, shadows: int, count: int) -> dict[str, Doubles | Labels | Bools]:
        given = (self.population, self.population_labels, self.population_shadows)
        if self.population is None or self.population_labels is None or self.population_shadows is None:
            if any(one is not None for one in given):
                text = "population: expected population, population_labels and population_shadows together"
                raise AttackInputError(text)
            return {}
        size = len(self.population)
        return {
            "population": doubles("population", self.population, (size, count)),
            "population_labels": labels_below("population_labels", self.population_labels, (size,), count),
            "population_shadows": doubles("population_shadows", self.population_shadows, (shadows, size, count)),
        }


def scaled_margins(logits: Doubles, labels: Labels) -> Doubles:
    """Logit-scaled confidences, log p_y - log(1 - p_y) = z_y - log sum over the others of exp z.

    Computed from logits and in float64, there is nothing to clip: the reference code's ``log(p + 1e-45)`` answers the
    same number for every record that a network is very sure of, which ties them where low rates are decided.

    Args:
        logits: float64 [..., records, labels].
        labels: int64 [records].

    Returns:
        float64 [..., records].

    Source: arXiv 2112.03570, section VI.A (logit scaling); Georgiev et al., arXiv 2410.23232 (the same as "margin").

    """
    own = labels.reshape(*(1,) * (logits.ndim - 2), -1, 1)
    picked = np.take_along_axis(logits, np.broadcast_to(own, (*logits.shape[:-1], 1)), axis=-1)[..., 0]
    is_own = np.arange(logits.shape[-1]) == labels[:, None]
    others = np.where(is_own, -np.inf, logits)
    margins: Doubles = picked - logsumexp(others, axis=-1)
    return margins
