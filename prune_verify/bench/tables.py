"""Rows of results as text in columns and as csv files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

__all__ = ["aligned", "csv_bytes"]

Cells = Mapping[str, object]


def _names(rows: Sequence[Cells]) -> list[str]:
    """Every column, in the order in which rows name them first."""
    return list(dict.fromkeys(name for row in rows for name in row))


def aligned(rows: Sequence[Cells], only: Sequence[str] = ()) -> list[str]:
    """Lines with columns as wide as their widest cell.

    Args:
        rows: cells by column; a column that a row lacks stays empty.
        only: the columns that are shown, where some row has them; all by default.

    """
    found = _names(rows)
    names = [name for name in only if name in found] if only else found
    cells = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def csv_bytes(rows: Sequence[Cells]) -> bytes:
    """The same rows as csv, in UTF-8."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, _names(rows))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()
