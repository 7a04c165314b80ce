"""Which records an attack of membership inference is scored on, and which of them each shadow network is trained on.

The records of one pool are trained on: the forget set (members of the base), as many other records that the base
never saw, and the retained set. The first two are scored, and each of them is in half of the shadows; retained records
fill every shadow up to the size of the base's training set, so that a shadow is over-fitted as the base is. Some of the
records that the base never saw are in no training set at all: the population that RMIA compares with.

Source: Carlini et al., arXiv 2112.03570, section 4; Zarifzadeh et al., arXiv 2312.03262 (population records).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prune_verify.measure.baselines import Rows
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.shadow_training import half_splits

__all__ = ["Sets", "choose_sets", "shadow_parts"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_MOST_POPULATION = 1000
_POPULATION_SHARE = 5  # one in so many records that the base never saw
_FEWEST = 2


@dataclass(frozen=True, eq=False)
class Sets:
    """Records by their part.

    Args:
        forget: members of the base, of which the patch is to leave no trace; scored.
        outside: records that the base never saw, with labels that the forget set has; scored.
        retain: the rest of the base's training set.
        population: other records that the base never saw, in no training set.
        unused: number of records that the base never saw and that take no part.

    """

    forget: Rows
    outside: Rows
    retain: Rows
    population: Rows
    unused: int

    @property
    def scored(self) -> int:
        """Number of scored records, forget set first."""
        return len(self.forget.y) + len(self.outside.y)

    @property
    def labels(self) -> Labels:
        """Of the scored records, forget set first."""
        return np.concatenate([self.forget.y, self.outside.y])

    @property
    def member(self) -> Bools:
        """Which scored records are members of the base."""
        return np.arange(self.scored) < len(self.forget.y)

    @property
    def pool(self) -> Rows:
        """What shadows are trained on: scored records, then retained ones."""
        parts = (self.forget, self.outside, self.retain)
        return Rows(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))

    @property
    def queries(self) -> Floats:
        """What networks are asked: scored records, then the population."""
        return np.concatenate([self.forget.x, self.outside.x, self.population.x])

    def trained_on(self, *, forget: bool) -> Bools:
        """The base's training set, or without the forget set, as a part of the pool."""
        found = np.zeros(len(self.pool.y), dtype=np.bool_)
        found[self.scored :] = True
        found[: len(self.forget.y)] = forget
        return found


def choose_sets(forget: Rows, retain: Rows, others: Rows, seed: int) -> Sets:
    """Give records that the base never saw their parts.

    Of those whose label is in the forget set, a fifth (at most 1,000) are the population, and of the rest at most as
    many as the base's training set has are scored.

    Args:
        forget: the forget set.
        retain: the retained set.
        others: records that the base never saw.
        seed: of the draw.

    Raises:
        MeasureInputError: fewer than two records on a side.

    """
    like = np.flatnonzero(np.isin(others.y, forget.y))
    if len(like) < 2 * _FEWEST or len(forget.y) < _FEWEST:
        expected = f"{_FEWEST} forget records and {2 * _FEWEST} others of their labels at least"
        raise MeasureInputError(f"records: expected {expected}, found {len(forget.y)} and {len(like)}")
    order = np.random.default_rng(seed).permutation(like)
    population = min(max(len(like) // _POPULATION_SHARE, 1), _MOST_POPULATION)
    scored = min(len(like) - population, len(forget.y) + len(retain.y))
    apart, chosen = np.sort(order[:population]), np.sort(order[population : population + scored])
    outside, held = (Rows(others.x[rows], others.y[rows]) for rows in (chosen, apart))
    return Sets(forget, outside, retain, held, len(others.y) - population - scored)


def shadow_parts(sets: Sets, shadows: int, seed: int) -> Bools:
    """Memberships bool [shadows, pool]: scored records each in half, filled up with retained ones.

    Args:
        sets: the records.
        shadows: number of shadows, even.
        seed: of the draw.

    Raises:
        MeasureInputError: an odd number of shadows, or none.

    """
    halves = half_splits(sets.scored, shadows, seed)
    size = len(sets.forget.y) + len(sets.retain.y)
    generator = np.random.default_rng((seed, 1))
    parts = np.zeros((shadows, sets.scored + len(sets.retain.y)), dtype=np.bool_)
    parts[:, : sets.scored] = halves
    for part, own in zip(parts, halves, strict=True):
        count = min(max(size - int(own.sum()), 0), len(sets.retain.y))
        part[sets.scored + generator.choice(len(sets.retain.y), count, replace=False)] = True
    return parts
