"""What an attacker knows before reading a patch: records of the same population, and the best guess from some numbers.

The attacker has a public sample: labelled records like those that were forgotten, and not those. The guess of a whole
record from a few of its numbers is a regression on the sample's records of the label, by ridge or by nearest
neighbours, whichever does better on a held-out part of the sample; the attacker can see that without the record.

Source: MATHS 4.1 (privacy of the patch itself).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import LabelledRows
from prune_verify.repair.errors import RepairInputError

__all__ = ["Population", "Prior", "conditional_guess"]

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
_SHARED = 0.1  # of the covariance, from all labels
_NARROWEST = 1e-3  # least standard deviation of a direction, of the widest one's
_PENALTIES = (1e-4, 1e-2, 0.1, 1.0, 10.0)
_LEAST_SPREAD = 1e-200  # so that a penalty of it is no subnormal number, by which nothing can be divided
_NEIGHBOURS = (1, 4, 16, 64)
_HELD_OUT = 0.25
_FEWEST = 8


@dataclass(frozen=True, eq=False)
class Prior:
    """Records of one label as a normal distribution: x = mean + directions z, with z standard normal.

    Args:
        mean: float64 [n].
        directions: float64 [n, n], orthogonal columns as long as their standard deviations.

    """

    mean: Doubles
    directions: Doubles


@dataclass(frozen=True, eq=False)
class Population:
    """A public sample.

    Args:
        x: float64 [records, n].
        y: int64 [records].
        domain: the ends of every number.

    """

    x: Doubles
    y: Labels
    domain: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, public: LabelledRows, forget: LabelledRows, domain: tuple[float, float]) -> Population:
        """The sample, a set of public records, checked against the forget set.

        Raises:
            RepairInputError: too few records of a label that is to be guessed, or a forget record in the sample.

        """
        x = public.flat().astype(np.float64)
        for label in sorted(set(forget.y.tolist())):
            count = int((public.y == label).sum())
            if count < _FEWEST:
                text = f"public sample: expected at least {_FEWEST} records of label {label}, found {count}"
                raise RepairInputError(text)
        known = {row.tobytes() for row in np.ascontiguousarray(public.flat())}
        for place, row in enumerate(np.ascontiguousarray(forget.flat())):
            if row.tobytes() in known:
                text = f"public sample: expected records that were not forgotten, found forget record {place}"
                raise RepairInputError(text)
        return cls(x, public.y, domain)

    def of_label(self, label: int) -> Doubles:
        """The records of one label: [records, n]."""
        return np.asarray(self.x[self.y == label])

    def mean(self, label: int) -> Doubles:
        """The mean record of one label: [n]."""
        return np.asarray(self.of_label(label).mean(axis=0))

    def prior(self, label: int) -> Prior:
        """The label's normal distribution; a part of its covariance is that of all records, as labels may be rare."""
        own = self.of_label(label)
        shared = (1 - _SHARED) * np.cov(own, rowvar=False) + _SHARED * np.cov(self.x, rowvar=False)
        values, vectors = np.linalg.eigh(np.atleast_2d(shared))
        spread = np.sqrt(np.maximum(values, 0))
        return Prior(own.mean(axis=0), vectors * np.maximum(spread, _NARROWEST * spread.max(initial=0)))


def _ridge(x: Doubles, queries: Doubles, coordinates: Labels, penalty: float) -> Doubles:
    """The linear least-squares guess of whole records: [queries, n]."""
    middle = x.mean(axis=0)
    known, all_ = x[:, coordinates] - middle[coordinates], x - middle
    square = known.T @ known
    spread = float(np.trace(square)) / len(coordinates)
    if not spread > 0:  # numbers that are the same in every record tell nothing of the others
        return np.tile(middle, (len(queries), 1))
    shrink = penalty * max(spread, _LEAST_SPREAD)
    slopes = np.linalg.solve(square + shrink * np.eye(len(coordinates)), known.T @ all_)
    return np.asarray((queries - middle[coordinates]) @ slopes + middle)


def _nearest(x: Doubles, queries: Doubles, coordinates: Labels, neighbours: int) -> Doubles:
    """The mean of the records that are nearest in the known numbers: [queries, n]."""
    far = np.abs(queries[:, np.newaxis] - x[np.newaxis, :, coordinates]).sum(axis=2)
    chosen = np.argsort(far, axis=1, kind="stable")[:, : min(neighbours, len(x))]
    return np.asarray(x[chosen].mean(axis=1))


def conditional_guess(
    population: Population, label: int, coordinates: Labels, values: Doubles, seed: int = 0
) -> Doubles:
    """The best guess of a record of which some numbers are known.

    Args:
        population: the public sample.
        label: of the record.
        coordinates: int64 [known], at least one.
        values: float64 [known].
        seed: of the held-out part on which the way of guessing is chosen.

    Returns:
        float64 [n], inside the domain, with the known numbers as they are.

    """
    x = population.of_label(label)
    order = np.random.default_rng(seed).permutation(len(x))
    count = max(1, int(_HELD_OUT * len(x)))
    held, kept = x[order[:count]], x[order[count:]]
    ways: list[Callable[[Doubles, Doubles], Doubles]] = [
        *(partial(_ridge, coordinates=coordinates, penalty=penalty) for penalty in _PENALTIES),
        *(partial(_nearest, coordinates=coordinates, neighbours=neighbours) for neighbours in _NEIGHBOURS),
    ]
    errors = [float(np.square(way(kept, held[:, coordinates]) - held).mean()) for way in ways]
    found = ways[int(np.argmin(errors))](x, values[np.newaxis])[0]
    found[coordinates] = values
    return np.asarray(np.clip(found, *population.domain))
