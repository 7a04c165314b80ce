"""Records from csv files, with the values that an encoding gives their cells.

A table has the columns of its encoding, no more and no fewer: a column that is silently dropped or taken
in makes other records. Whoever reads a refusal finds the line, the column and what was expected there.

Source: FORMATS section 1 (csv); RFC 4180; THREATS section 2 (numbers).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import read_file
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.record_encoding import MAX_COLUMNS, Encoding, NumberColumn, fitted_column, require_distinct
from prune_verify.checker.record_files import Limits

__all__ = ["fit_encoding", "read_csv"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Rows = Iterator[tuple[int, list[str]]]

_REMEMBERED = 2**16
_LABEL = re.compile(r"(0|[1-9][0-9]{0,8})\Z")
_POSITION = re.compile(r"[0-9]{1,4}\Z")


def _lines(text: str, path: str) -> Rows:
    """Line number and cells of every row that is not blank; spaces around a cell are not part of it."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, [cell.strip(" ") for cell in cells]
    except csv.Error as error:
        raise MalformedInputError(
            f"{path}: line {reader.line_num}", "csv", "a row as RFC 4180 has it", str(error)
        ) from None


def _table(data: bytes, path: str, label_column: str, names: Sequence[str]) -> tuple[list[str], Rows]:
    """The column names, and the rows checked to have one cell per name.

    A table has no header when ``names`` are given, or when ``label_column`` is a number: then it counts columns from 0.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedInputError(path, "text", "UTF-8", f"byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise MalformedInputError(path, "text", "UTF-8 without a byte order mark", "a byte order mark")
    rows = _lines(text, path)
    first = next(rows, None)
    if first is None:
        raise MalformedInputError(path, "table", "at least one row", "none")
    if names or _POSITION.match(label_column):
        header = list(names) or [str(place) for place in range(len(first[1]))]
        rows = chain([first], rows)
    else:
        header = first[1]
    require_distinct(header, f"{path}: line {first[0]}", "column names", MAX_COLUMNS)
    if "" in header:
        raise MalformedInputError(f"{path}: line {first[0]}", "column names", "a name for each", "an empty one")
    if label_column not in header:
        raise MalformedInputError(path, "label column", f"one of {', '.join(header)}", repr(label_column)[:80])
    return header, _even(rows, path, len(header))


def _even(rows: Rows, path: str, width: int) -> Rows:
    for line, cells in rows:
        if len(cells) != width:
            raise MalformedInputError(f"{path}: line {line}", "cells", str(width), str(len(cells)))
        yield line, cells


def _label(cell: str, encoding: Encoding | None, path: str) -> int:
    if encoding is None:
        if not _LABEL.match(cell):
            raise MalformedInputError(path, "label", "an integer from 0 (a name needs an encoding)", repr(cell)[:80])
        return int(cell)
    if cell not in encoding.labels:
        raise MalformedInputError(path, "label", f"one of {', '.join(encoding.labels)}", repr(cell)[:80])
    return encoding.labels.index(cell)


def read_csv(
    data: bytes,
    path: str,
    limits: Limits,
    label_column: str,
    *,
    names: Sequence[str] = (),
    encoding: Encoding | None = None,
) -> tuple[Floats, Labels]:
    """The records of a table: float32 [count, width] and labels [count].

    Args:
        data: the file, UTF-8.
        path: its name, for errors.
        limits: for the file and the values.
        label_column: name of the label column, or its number from 0 in a table without header.
        names: the column names of a table without header.
        encoding: None takes every cell as a number and every label as an integer.

    Raises:
        MalformedInputError: names line, column, what was expected and what stands there.
        LimitError: more rows or values than the limits.

    """
    header, rows = _table(data, path, label_column, names)
    numbers = tuple(NumberColumn(n, Fraction(0), Fraction(1)) for n in header if n != label_column)
    columns = numbers if encoding is None else encoding.columns
    if encoding is not None and encoding.label != label_column:
        raise MalformedInputError(path, "label column", f"{encoding.label!r}, as in the encoding", repr(label_column))
    wanted = sorted([*(column.name for column in columns), label_column])
    if sorted(header) != wanted:
        raise MalformedInputError(path, "columns", ", ".join(wanted), ", ".join(sorted(header)))
    width = sum(column.width for column in columns)
    places = [(header.index(column.name), column, dict[str, bytes]()) for column in columns]
    place_of_label = header.index(label_column)
    values, labels = bytearray(), list[int]()
    for line, cells in rows:
        labels.append(_label(cells[place_of_label], encoding, f"{path}: line {line}, column {label_column!r}"))
        limits.require_rows(path, len(labels), width)
        for place, column, known in places:
            code = known.get(cells[place])
            if code is None:
                if len(known) >= _REMEMBERED:  # a table of distinct cells must not fill the memory
                    known.clear()
                code = column.encode(cells[place], f"{path}: line {line}, column {column.name!r}")
                known[cells[place]] = code
            values += code
    if not labels:
        raise MalformedInputError(path, "table", "at least one record", "none")
    x = np.frombuffer(values, np.float32).reshape(len(labels), width)
    return x, np.array(labels, dtype=np.int64)


def fit_encoding(path: Path, label_column: str, *, names: Sequence[str] = (), max_bytes: int = 2**28) -> Encoding:
    """An encoding for all columns but ``label_column``: numbers by least and greatest value, others by sorted values.

    A column is one of numbers when each of its cells is; '?' for a missing value makes it one of categories. ``names``
    are those of the columns where the table has no header.

    Raises:
        MalformedInputError: no table, no rows, or more than 1,024 values in a column of categories.
        LimitError: the file is longer than ``max_bytes``.

    """
    header, rows = _table(read_file(path, "table", max_bytes), str(path), label_column, names)
    distinct: list[dict[str, None]] = [{} for _ in header]
    for _, cells in rows:
        for cell, known in zip(cells, distinct, strict=True):
            known[cell] = None
    columns = dict(zip(header, (list(known) for known in distinct), strict=True))
    labels = columns.pop(label_column)
    whole = all(_LABEL.match(label) for label in labels)
    return Encoding(
        tuple(fitted_column(name, cells) for name, cells in columns.items()),
        label_column,
        tuple(sorted(labels, key=int) if whole else sorted(labels)),
    )
