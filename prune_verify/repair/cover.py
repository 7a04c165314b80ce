"""Few coordinates that separate many records: greedy set multi-cover on packed bits.

A row is a ball that a gate must be closed on; a coordinate covers it when the whole ball lies beyond
one of the coordinate's edges by the gap. Each row asks for a number of covering coordinates and gets
that many, or all there are. Greedy picks the coordinate that covers most unsatisfied rows; then
what turned out redundant is taken back. Rows that nothing covers are reported, never dropped.

Needs are kept in unary, as bit planes: plane k holds the rows that still ask for more than k.

Source: MATHS 4.1 (choosing S).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prune_verify.repair.box import Row, Thresholds

__all__ = ["Separation", "Table", "cover_greedily", "members", "planes_of", "separate"]

Words = npt.NDArray[np.uint64]
_WORD = 64
_ROWS_AT_ONCE = 2048


def _words(count: int) -> int:
    return -(-count // _WORD)


def _packed(bits: npt.NDArray[np.bool_]) -> Words:
    """Bits [count] as words; the bits after the last are 0."""
    words = np.zeros(_words(len(bits)), dtype=np.uint64)
    octets = np.packbits(bits)
    words.view(np.uint8)[: len(octets)] = octets
    return words


def members(words: Words, count: int) -> npt.NDArray[np.int64]:
    """The indices of the bits that are set among the first ``count`` of words [n]."""
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), count=count))


@dataclass(frozen=True, eq=False)
class Table:
    """Records by column, so that one coordinate of all of them is one contiguous run.

    Args:
        columns: float32 [n, count].
        least: float32 [n]: the least value of each column.
        greatest: float32 [n].

    """

    columns: Row
    least: Row
    greatest: Row

    @classmethod
    def of(cls, rows: Row) -> Table:
        """The table of ``rows`` float32 [count, n], count at least 1."""
        columns = np.empty(rows.shape[::-1], dtype=np.float32)
        for start in range(0, rows.shape[0], _ROWS_AT_ONCE):
            columns[:, start : start + _ROWS_AT_ONCE] = rows[start : start + _ROWS_AT_ONCE].T
        return cls(columns, columns.min(axis=1), columns.max(axis=1))

    @property
    def count(self) -> int:
        """Number of records."""
        return int(self.columns.shape[1])

    @property
    def words(self) -> int:
        """Number of words that hold one bit per record."""
        return _words(self.count)

    def reached(self, limits: Thresholds) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Per coordinate: does any record pass the lower of the limits, the upper one? Two arrays bool [n]."""
        return self.least <= limits.below, self.greatest >= limits.above


def _separates(table: Table, limits: Thresholds, coordinate: int) -> npt.NDArray[np.bool_]:
    """Which records the coordinate separates: bool [count]."""
    column = table.columns[coordinate]
    below, above = limits.below[coordinate], limits.above[coordinate]
    found: npt.NDArray[np.bool_]
    if table.least[coordinate] > below:
        found = column >= above
    elif table.greatest[coordinate] < above:
        found = column <= below
    else:
        found = (column >= above) | (column <= below)
    return found


@dataclass(frozen=True, eq=False)
class Separation:
    """Which coordinates cover which rows, over several tables laid side by side.

    Args:
        coordinates: int64 [c]: the coordinates that cover at least one row.
        bits: uint64 [c, words]: the rows that each covers.

    """

    coordinates: npt.NDArray[np.int64]
    bits: Words


def separate(parts: list[tuple[Table, Thresholds]]) -> Separation:
    """The separation over the rows of all parts, tables with their thresholds; a table starts on a word of its own."""
    useful = np.logical_or.reduce([below | above for below, above in (t.reached(limits) for t, limits in parts)])
    coordinates = np.flatnonzero(useful)
    bits = np.zeros((len(coordinates), sum(table.words for table, _ in parts)), dtype=np.uint64)
    octets = bits.view(np.uint8)
    start = 0
    for table, limits in parts:
        below, above = table.reached(limits)
        for place, coordinate in enumerate(coordinates):
            if below[coordinate] or above[coordinate]:
                found = np.packbits(_separates(table, limits, int(coordinate)))
                octets[place, start : start + len(found)] = found
        start += 8 * table.words
    return Separation(coordinates, bits)


def planes_of(parts: list[tuple[npt.NDArray[np.bool_], int]]) -> list[Words]:
    """Needs as bit planes; parts: per table the rows that count (bool [count]), and how often each is to be covered."""
    height = max(need for _, need in parts)
    return [
        np.concatenate([_packed(rows if need > level else np.zeros_like(rows)) for rows, need in parts])
        for level in range(height)
    ]


def _lower(planes: list[Words], covered: Words) -> list[Words]:
    """The needs after one more coordinate covers the rows ``covered``."""
    nothing = np.zeros_like(covered)
    above = [*planes[1:], nothing]
    return [(plane & ~covered) | (after & covered) for plane, after in zip(planes, above, strict=True)]


def cover_greedily(separation: Separation, needs: list[Words]) -> list[int]:
    """Places in ``separation`` whose coordinates cover every row as often as it needs, or as often as can be.

    Ties go to the coordinate that covers more rows, then to the lower place: the result depends on
    the numbers only.

    Args:
        separation: which coordinate covers what.
        needs: bit planes; plane k holds the rows that need more than k.

    Returns:
        Places, ascending, none of which can be left out.

    """
    left, chosen = needs, list[int]()
    overlap, counted = np.empty_like(separation.bits), np.empty(separation.bits.shape, dtype=np.uint8)
    total = np.bitwise_count(separation.bits).sum(axis=1, dtype=np.int64)
    open_places = np.ones(len(separation.coordinates), dtype=np.bool_)
    while open_places.any():
        np.bitwise_and(separation.bits, left[0], out=overlap)
        np.bitwise_count(overlap, out=counted)
        gain = np.where(open_places, counted.sum(axis=1, dtype=np.int64), 0)
        best = np.flatnonzero(gain == gain.max())
        pick = int(best[total[best].argmax()])
        if gain[pick] == 0:
            break
        open_places[pick] = False
        chosen.append(pick)
        left = _lower(left, separation.bits[pick])
    return sorted(_without_redundant(separation.bits, needs, chosen))


def _without_redundant(bits: Words, needs: list[Words], chosen: list[int]) -> list[int]:
    """Take back, latest pick first, every place without which each row is still covered as often as it can be."""
    kept = list(chosen)
    for place in reversed(chosen):
        if not (bits[place] & _tight(bits, needs, kept)).any():
            kept.remove(place)
    return kept


def _tight(bits: Words, needs: list[Words], kept: list[int]) -> Words:
    """The rows that no coordinate can be taken from: covered exactly as often as they need, or less."""
    counts = [np.zeros_like(needs[0]) for _ in range(len(needs) + 1)]  # counts[k]: covered more than k times
    for place in kept:
        for level in range(len(counts) - 1, 0, -1):
            counts[level] |= counts[level - 1] & bits[place]
        counts[0] |= bits[place]
    above = [*needs[1:], np.zeros_like(needs[0])]
    tight = np.zeros_like(needs[0])
    for level, (plane, after) in enumerate(zip(needs, above, strict=True)):
        tight |= plane & ~after & ~counts[level + 1]
    return tight
