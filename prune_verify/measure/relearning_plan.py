"""What is relearned from what: the attacker's records for each seed, and which forgotten records are watched.

Source: THREATS section 1 (T2) and 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prune_verify.measure.baselines import Rows
from prune_verify.measure.errors import MeasureInputError

__all__ = ["ALL", "OTHERS", "Known", "Sets", "joined", "known_of", "prototypes_of", "sizes_of"]

Labels = npt.NDArray[np.int64]
ALL = "all"
OTHERS = "others"


@dataclass(frozen=True, eq=False)
class Sets:
    """The records of one measurement.

    Args:
        forget: the forgotten ones.
        retain: those that the control is trained on.
        others: held-out records with the labels of forgotten ones, for benign fine-tuning; may be empty.
        test: held-out records, without the others.

    """

    forget: Rows
    retain: Rows
    others: Rows
    test: Rows

    @classmethod
    def of(cls, forget: Rows, retain: Rows, test: Rows, most_others: int, seed: int) -> Sets:
        """Take the others from the test set: at most so many, and never more than half of those with their labels.

        Args:
            most_others: how many of them.
            seed: of the draw.
            forget: the forgotten records.
            retain: the retained ones.
            test: held-out records.

        """
        rng = np.random.default_rng(seed)
        alike = rng.permutation(np.flatnonzero(np.isin(test.y, np.unique(forget.y))))
        chosen = np.zeros(len(test.y), dtype=np.bool_)
        chosen[alike[: min(most_others, len(alike) // 2)]] = True
        return cls(forget, retain, _rows(test, chosen), _rows(test, ~chosen))

    def retained_part(self, most: int, seed: int) -> Rows:
        """At most so many retained records, drawn with a seed."""
        order = np.random.default_rng(seed).permutation(len(self.retain.y))[:most]
        return Rows(self.retain.x[order], self.retain.y[order])

    def kept_test(self) -> Rows:
        """The held-out records whose labels retained records have; all of them where there are none."""
        kept = np.isin(self.test.y, np.unique(self.retain.y))
        return _rows(self.test, kept) if kept.any() else self.test


@dataclass(frozen=True, eq=False)
class Known:
    """What the attacker has, and what is watched.

    Args:
        name: the number of forgotten records, ``all``, or ``others``.
        known: the attacker's records.
        watched: the other forgotten records; all of them where the attacker has all or none.

    """

    name: str
    known: Rows
    watched: Rows


def _rows(rows: Rows, chosen: npt.NDArray[np.bool_]) -> Rows:
    return Rows(rows.x[chosen], rows.y[chosen])


def joined(first: Rows, second: Rows) -> Rows:
    """The records of the first and the second."""
    return Rows(np.concatenate([first.x, second.x]), np.concatenate([first.y, second.y]))


def sizes_of(text: str, forgotten: int) -> tuple[int, ...]:
    """The numbers of records in the text of ``--records``, ascending, those below the number of forgotten records.

    Raises:
        MeasureInputError: not integers from 1.

    """
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1:
        message = f"--records: expected numbers from 1, with commas between them, found {text!r}"
        raise MeasureInputError(message)
    return tuple(k for k in found if k < forgotten)


def known_of(sets: Sets, sizes: Sequence[int], seed: int) -> Iterator[Known]:
    """By sizes and a seed: some forgotten records, the rest being watched; all of them; others of the same labels."""
    order = np.random.default_rng(seed).permutation(len(sets.forget.y))
    for size in sizes:
        chosen = np.zeros(len(order), dtype=np.bool_)
        chosen[order[:size]] = True
        yield Known(str(size), _rows(sets.forget, chosen), _rows(sets.forget, ~chosen))
    yield Known(ALL, sets.forget, sets.forget)
    if len(sets.others.y):
        yield Known(OTHERS, sets.others, sets.forget)


def prototypes_of(sets: Sets, sizes: Sequence[int], seed: int) -> Iterator[Known]:
    """The same, by sizes and a seed, for prototypes: so many forgotten records a label, where one of any is left."""
    order = np.random.default_rng(seed).permutation(len(sets.forget.y))
    rank = np.empty(len(order), dtype=np.int64)  # of a record among those of its label
    for label in np.unique(sets.forget.y):
        places = order[sets.forget.y[order] == label]
        rank[places] = np.arange(len(places))
    for size in sizes:
        if (rank >= size).any():
            yield Known(str(size), _rows(sets.forget, rank < size), _rows(sets.forget, rank >= size))
    yield Known(ALL, sets.forget, sets.forget)
    if len(sets.others.y):
        yield Known(OTHERS, sets.others, sets.forget)
