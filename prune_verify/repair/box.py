"""Boxes around forget records, and what lies beyond them by a gap: float32 numbers with every rounding outward.

The box of a record is its ball, a little wider (1/64 of the radius: bound propagation on the head is
then within 1 % of -tau), with edges that are float32 numbers outside it. An edge at or beyond the end
of the domain restricts nothing there and is left out. A retained ball lies beyond an edge by the gap
exactly when its centre passes a threshold, and a float32 centre passes an exact threshold exactly
when it passes the float32 number next to it; so whole columns of records are compared in float32,
without any tolerance.

Source: MATHS 3.3 (edges rounded outward), 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker.region import Domain, float64_not_below

__all__ = ["Box", "Thresholds", "box_around", "float32_not_above", "float32_not_below", "round_up", "thresholds"]

Row = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
_WIDER = Fraction(1, 64)
_LARGEST = float(np.finfo(np.float32).max)


def float32_not_below(values: Doubles) -> Row:
    """The least float32 numbers that are not below ``values`` (any shape); +inf above the greatest finite one."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near)


def float32_not_above(values: Doubles) -> Row:
    """The greatest float32 numbers that do not exceed ``values`` (any shape); -inf below the least finite one."""
    return -float32_not_below(-values)


def round_up(value: Fraction) -> np.float32:
    """The least float32 that is not below ``value`` (|value| < 2^127), exactly."""
    near = np.float32(value.numerator / value.denominator)
    while Fraction(float(near)) < value:
        near = np.nextafter(near, np.float32(np.inf))
    while Fraction(float(np.nextafter(near, np.float32(-np.inf)))) >= value:
        near = np.nextafter(near, np.float32(-np.inf))
    return near


@dataclass(frozen=True, eq=False)
class Box:
    """Edges of one record's box: ``low`` and ``high`` float32 [n]; -inf and +inf where an edge is left out."""

    low: Row
    high: Row


@dataclass(frozen=True, eq=False)
class Thresholds:
    """What a centre must reach to lie beyond an edge: ``x <= below`` or ``x >= above``, float32 [n]."""

    below: Row
    above: Row

    def passed(self, rows: Row) -> npt.NDArray[np.bool_]:
        """Which coordinates separate which centres: bool [rows, n] for ``rows`` float32 [rows, n]."""
        return (rows >= self.above) | (rows <= self.below)


def _outward(middle: Row, reach: Fraction) -> tuple[Doubles, Doubles]:
    """Float64 numbers at or below ``middle - reach`` and at or above ``middle + reach``."""
    centre, distance = middle.astype(np.float64), float64_not_below(reach)
    return np.nextafter(centre - distance, -np.inf), np.nextafter(centre + distance, np.inf)


def box_around(record: Row, radius: Fraction, domain: Domain) -> Box:
    """The box of a record: it holds the ball of ``radius`` (1 + 1/64), and drops edges beyond the domain.

    Args:
        record: float32 [n], a flattened row that lies in the domain.
        radius: exact radius of the forget region, in input units.
        domain: D.

    Returns:
        The edges, rounded outward.

    """
    low64, high64 = _outward(record, radius * (1 + _WIDER))
    low, high = float32_not_above(low64), float32_not_below(high64)
    bottom, top = domain.outward(record.shape)
    low = np.where(low.astype(np.float64) <= bottom, np.float32(-np.inf), low)
    high = np.where(high.astype(np.float64) >= top, np.float32(np.inf), high)
    return Box(np.where(low < -_LARGEST, np.float32(-np.inf), low), high)


def thresholds(box: Box, radius: Fraction, gap: Fraction) -> Thresholds:
    """Where the centre of a ball of ``radius`` must lie so that all of it is beyond an edge by ``gap`` or more."""
    below, _ = _outward(box.low, radius + gap)
    _, above = _outward(box.high, radius + gap)
    return Thresholds(float32_not_above(below), float32_not_below(above))
