"""The fewest coordinates of a gate: a set multi-cover solved by z3 Optimize within a time limit.

Every retained ball asks to be separated by ``cover`` of the chosen coordinates, or by all that
separate it where there are fewer. z3 is given the balls that are hardest to separate, and then those
that its answer leaves out, until it leaves out none: a few hundred of many thousands in practice. Within the
limit the answer is a smallest set; after it, the best set known and a proved lower bound on the size of any.

Source: MATHS 4.1 (choosing S).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import z3

__all__ = ["MinimalCover", "minimal_cover"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_AT_FIRST = 200
_AT_ONCE = 100


@dataclass(frozen=True)
class MinimalCover:
    """A cover and what is known of its size.

    Args:
        selected: ascending coordinates that cover every ball as asked.
        lower_bound: no cover has fewer coordinates.

    """

    selected: tuple[int, ...]
    lower_bound: int

    @property
    def optimal(self) -> bool:
        """Whether the cover is proved smallest."""
        return len(self.selected) == self.lower_bound


def _greedy(rows: Bools, needs: Ints) -> list[int]:
    """A cover by the coordinate that helps most, again and again."""
    left, chosen = needs.copy(), list[int]()
    while left.any():
        gain = rows[left > 0].sum(axis=0)
        gain[chosen] = 0
        pick = int(gain.argmax())
        chosen.append(pick)
        left = np.maximum(left - rows[:, pick], 0)
    return sorted(chosen)


def _packing_bound(rows: Bools, needs: Ints) -> int:
    """Balls that share no coordinate need different ones: the sum of their needs, or the largest need."""
    used, total = np.zeros(rows.shape[1], dtype=np.bool_), 0
    for ball in np.argsort(rows.sum(axis=1) / needs, kind="stable"):
        if not (rows[ball] & used).any():
            used |= rows[ball]
            total += int(needs[ball])
    return max(total, int(needs.max(initial=0)))


def minimal_cover(separates: Bools, cover: int, time_limit: float) -> MinimalCover:
    """A smallest set of coordinates that separates every ball ``cover`` times, or as often as any set can.

    Args:
        separates: bool [coordinates, balls]: which coordinate separates which ball.
        cover: how many separating coordinates each ball asks for, at least 1.
        time_limit: seconds given to z3.

    Returns:
        The cover; the lower bound equals its size when it is proved smallest.

    """
    needs = np.minimum(separates.sum(axis=0, dtype=np.int64), cover)
    rows, needs = np.ascontiguousarray(separates.T[needs > 0]), needs[needs > 0]
    if not len(rows):
        return MinimalCover((), 0)
    known, bound = _greedy(rows, needs), _packing_bound(rows, needs)
    hardest = np.argsort(rows.sum(axis=1) / needs, kind="stable")[:_AT_FIRST]
    problem, end = _Problem(rows, needs, hardest), time.monotonic() + time_limit
    while bound < len(known) and time.monotonic() < end:
        found, proved = problem.smaller(len(known), end - time.monotonic())
        bound = max(bound, min(proved, len(known)))
        if found is None:
            break
        missing = needs - rows[:, found].sum(axis=1)
        if missing.max() <= 0:
            return MinimalCover(tuple(found), len(found))  # smallest for some of the balls, and it serves them all
        problem.demand(np.argsort(-missing, kind="stable")[: min(_AT_ONCE, int((missing > 0).sum()))])
    return MinimalCover(tuple(known), bound)


class _Problem:
    """The cover of some of the balls: a bound for it is a bound for all of them."""

    def __init__(self, rows: Bools, needs: Ints, balls: Ints) -> None:
        self._rows, self._needs = rows, needs
        context = z3.Context()
        self._chosen = {int(c): z3.Bool(f"c{c}", context) for c in np.flatnonzero(rows.any(axis=0))}
        self._optimiser = z3.Optimize(ctx=context)
        for variable in self._chosen.values():
            self._size = self._optimiser.add_soft(z3.Not(variable))
        self.demand(balls)

    def demand(self, balls: Ints) -> None:
        """Take more balls into the problem."""
        for ball in balls.tolist():
            separating = (self._chosen[c] for c in np.flatnonzero(self._rows[ball]).tolist())
            self._optimiser.add(z3.AtLeast(*separating, int(self._needs[ball])))

    def smaller(self, size: int, seconds: float) -> tuple[list[int] | None, int]:
        """A smallest cover of these balls with fewer than ``size`` coordinates, or None, and a lower bound on any."""
        self._optimiser.set("timeout", max(1, int(seconds * 1000)))
        answer = self._optimiser.check(z3.AtMost(*self._chosen.values(), size - 1))
        if answer == z3.unsat:
            return None, size
        if answer == z3.sat:
            model = self._optimiser.model()
            found = [c for c, variable in self._chosen.items() if z3.is_true(model.eval(variable))]
            return found, len(found)
        lower = self._size.lower()
        return None, int(lower.as_long()) if z3.is_int_value(lower) else 0
