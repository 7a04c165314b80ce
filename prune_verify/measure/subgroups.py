"""Groups of test records by attributes that stand in a table or an archive beside them.

Source: RFC 4180 (csv); NumPy's NEP 1 (npz).
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from prune_verify.measure.errors import MeasureInputError

__all__ = ["groups_of"]

Bools = npt.NDArray[np.bool_]
_MOST_GROUPS = 24
_SHOWN = 5


def _csv_columns(data: bytes, name: str) -> dict[str, list[str]]:
    try:
        rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        text = f"{name}: expected a csv table in UTF-8, found: {error}"
        raise MeasureInputError(text) from None
    if not rows or any(len(row) != len(rows[0]) for row in rows) or len(set(rows[0])) != len(rows[0]):
        text = f"{name}: expected a header of distinct names, and as many cells in every row"
        raise MeasureInputError(text)
    return {column.strip(): [row[place].strip() for row in rows[1:]] for place, column in enumerate(rows[0])}


def _npz_columns(data: bytes, name: str) -> dict[str, list[str]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            members = {member: archive[member] for member in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        text = f"{name}: expected an npz archive of plain arrays, found: {error}"
        raise MeasureInputError(text) from None
    for member, values in members.items():
        if values.ndim != 1:
            text = f"{name}: member {member!r}: expected one value per record, found shape {list(values.shape)}"
            raise MeasureInputError(text)
    return {member: [str(value) for value in values.tolist()] for member, values in members.items()}


def groups_of(data: bytes, name: str, wanted: Sequence[str], count: int) -> Mapping[str, Bools]:
    """Who is in which group: bool [records] by ``ATTRIBUTE=VALUE``.

    Args:
        data: a csv table with a header, or an npz archive of one-dimensional arrays; one row per record, in order.
        name: of the file; its ending says which.
        wanted: the attributes; all of them where none is named.
        count: of records.

    Raises:
        MeasureInputError: another form, another number of rows, an attribute that is not there, or more than 24 groups.

    """
    columns = _npz_columns(data, name) if name.lower().endswith(".npz") else _csv_columns(data, name)
    for column in wanted:
        if column not in columns:
            text = f"{name}: expected an attribute {column!r}, found {', '.join(columns) or 'none'}"
            raise MeasureInputError(text)
    found: dict[str, Bools] = {}
    for column in wanted or columns:
        values = np.array(columns[column])
        if len(values) != count:
            text = f"{name}: attribute {column!r}: expected a value for each of {count} records, found {len(values)}"
            raise MeasureInputError(text)
        distinct = sorted(set(values.tolist()))
        if len(found) + len(distinct) > _MOST_GROUPS:
            some = ", ".join(distinct[:_SHOWN])
            text = (
                f"{name}: attribute {column!r}: expected at most {_MOST_GROUPS} groups in all, found {len(distinct)} "
                f"values ({some}, ...); name attributes with --subgroup-column"
            )
            raise MeasureInputError(text)
        found |= {f"{column}={value}": values == value for value in distinct}
    return found
