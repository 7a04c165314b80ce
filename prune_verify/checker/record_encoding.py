"""How a table's cells become float32 values: numbers scaled, categories one-hot, labels counted.

An encoding is a file of its own, in one spelling; its digest stands in the certificate, because another
scaling or another order of categories makes other records of the same table. Cells are read as exact
rationals and rounded once, to the nearest float32 (ties to even), so that every implementation gets the
same bits.

Source: FORMATS section 1 (``encoding.json``) and 2 (semantics); THREATS T23.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from prune_verify.checker.encoding import (
    Json,
    Members,
    canonical_json,
    format_decimal,
    parse_json,
    sha256_hex,
)
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError

__all__ = [
    "MAX_COLUMNS",
    "CategoryColumn",
    "Encoding",
    "NumberColumn",
    "emit_encoding",
    "fitted_column",
    "nearest_float32",
    "parse_encoding",
    "require_distinct",
]

MAX_COLUMNS = 4096
MAX_VALUES = 1024
_VERSION = 1
_LONGEST_NUMBER = 64
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?\Z")


def nearest_float32(value: Fraction, path: str) -> np.float32:
    """The float32 nearest to an exact value, ties to even.

    Raises:
        MalformedInputError: the number is 2^127 or more in size.

    """
    if abs(value) >= 2**127:
        raise MalformedInputError(path, "range of float32", "a number below 2^127", f"about {float(value):.3g}"[:40])
    near = value.numerator / value.denominator
    # Rounding twice may differ from rounding once. It does not when the first result is rounded to odd: of the two
    # float64 neighbours of an inexact value, take the one whose last bit is set (Boldo & Melquiond 2008).
    if Fraction(near) != value and not int(np.float64(near).view(np.int64)) & 1:
        near = float(np.nextafter(near, np.inf if Fraction(near) < value else -np.inf))
    return np.float32(near)


def _number(cell: str, path: str, remedy: str = "") -> Fraction:
    if len(cell) > _LONGEST_NUMBER or not _NUMBER.match(cell):
        raise MalformedInputError(path, "cell", f"a decimal number{remedy}", repr(cell)[:80])
    return Fraction(cell)


@dataclass(frozen=True)
class NumberColumn:
    """A column ``name`` of numbers v, taken as (v - lower) / (upper - lower).

    Raises:
        MalformedInputError: ``upper`` does not exceed ``lower``.

    """

    name: str
    lower: Fraction
    upper: Fraction

    def __post_init__(self) -> None:
        if self.lower >= self.upper:
            ends = f"{float(self.lower):g}, {float(self.upper):g}"
            raise MalformedInputError(f"column {self.name!r}", "range of a column", "lower < upper", ends)

    @property
    def width(self) -> int:
        """How many float32 values a cell becomes."""
        return 1

    def encode(self, cell: str, path: str) -> bytes:
        """The float32 value of a cell, as its bytes."""
        value = _number(cell, path, " (a category needs an encoding that lists its values)")
        return nearest_float32((value - self.lower) / (self.upper - self.lower), path).tobytes()

    def to_json(self) -> Json:
        """The column as it stands in ``encoding.json``."""
        lower, upper = format_decimal(self.lower), format_decimal(self.upper)
        return {"kind": "number", "lower": lower, "name": self.name, "upper": upper}


@dataclass(frozen=True)
class CategoryColumn:
    """A column ``name`` of categories, one-hot in the order of ``values``; '?' is a category where it is listed.

    Raises:
        MalformedInputError: no value, more than 1,024, or one twice.

    """

    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        require_distinct(self.values, f"column {self.name!r}", "values", MAX_VALUES)

    @property
    def width(self) -> int:
        """How many float32 values a cell becomes."""
        return len(self.values)

    def encode(self, cell: str, path: str) -> bytes:
        """The one-hot float32 values of a cell, as their bytes; a cell of no category is refused."""
        if cell not in self.values:
            raise MalformedInputError(path, "category", f"one of the {self.width} values listed", repr(cell)[:80])
        row = np.zeros(self.width, np.float32)
        row[self.values.index(cell)] = 1.0
        return row.tobytes()

    def to_json(self) -> Json:
        """The column as it stands in ``encoding.json``."""
        return {"kind": "category", "name": self.name, "values": list(self.values)}


def require_distinct(found: Sequence[str], path: str, what: str, most: int) -> None:
    """Refuse texts ``found`` for ``what``: none, more than ``most``, or one twice."""
    if not 1 <= len(found) <= most or len(set(found)) != len(found):
        twice = next((repr(v)[:40] for v in found if found.count(v) > 1), "") if len(found) <= most else ""
        raise MalformedInputError(
            path, what, f"1 to {most}, each once", f"{len(found)}, {twice} twice" if twice else str(len(found))
        )


@dataclass(frozen=True)
class Encoding:
    """How the rows of a table become records.

    Args:
        columns: the input columns in the order of the record's values.
        label: name of the label column.
        labels: its values; a value's place is the label.

    Raises:
        MalformedInputError: a name or label value twice, no column or label value, or too many.

    """

    columns: tuple[NumberColumn | CategoryColumn, ...]
    label: str
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        require_distinct([*(c.name for c in self.columns), self.label], "encoding", "column names", MAX_COLUMNS)
        if not self.columns:
            raise MalformedInputError("encoding", "columns", "at least one", "0")
        require_distinct(self.labels, "encoding/label", "values", MAX_VALUES)

    @property
    def width(self) -> int:
        """How many float32 values a row becomes."""
        return sum(column.width for column in self.columns)

    @property
    def sha256(self) -> str:
        """The digest that the certificate names under ``semantics``."""
        return sha256_hex(emit_encoding(self))


def emit_encoding(encoding: Encoding) -> bytes:
    """The one spelling of an encoding: canonical JSON, decimals without trailing zeros as they were given."""
    columns: list[Json] = [column.to_json() for column in encoding.columns]
    label: dict[str, Json] = {"name": encoding.label, "values": list(encoding.labels)}
    return canonical_json({"columns": columns, "formatVersion": _VERSION, "label": label})


def parse_encoding(data: bytes, path: str) -> Encoding:
    """Read ``encoding.json``; parsing and emitting give the same bytes.

    Raises:
        MalformedInputError: not of the closed form, or in another spelling.
        UnsupportedVersionError: of another format version.

    """
    top = Members(parse_json(data, path), path, ("columns", "formatVersion", "label"))
    if top.integer("formatVersion") != _VERSION:
        raise UnsupportedVersionError(
            top.place("formatVersion"), "version", str(_VERSION), str(top.raw("formatVersion"))
        )
    label = top.members("label", ("name", "values"))
    found = Encoding(
        tuple(_column(v, f"{path}/columns/{i}") for i, v in enumerate(top.items("columns", most=MAX_COLUMNS))),
        label.text("name"),
        label.texts("values", most=MAX_VALUES),
    )
    if emit_encoding(found) != data:
        raise MalformedInputError(path, "canonical encoding", "RFC 8785 bytes, shortest decimals", "another spelling")
    return found


def _column(value: Json, path: str) -> NumberColumn | CategoryColumn:
    if isinstance(value, dict) and value.get("kind") == "category":
        row = Members(value, path, ("kind", "name", "values"))
        return CategoryColumn(row.text("name"), row.texts("values", most=MAX_VALUES))
    row = Members(value, path, ("kind", "lower", "name", "upper"))
    row.text("kind", among=("number", "category"))
    return NumberColumn(row.text("name"), row.decimal("lower"), row.decimal("upper"))


def fitted_column(name: str, cells: Sequence[str]) -> NumberColumn | CategoryColumn:
    """A column by its name: numbers from least to greatest when all ``cells`` are numbers, else sorted categories."""
    if not all(len(cell) <= _LONGEST_NUMBER and _NUMBER.match(cell) for cell in cells) or not cells:
        return CategoryColumn(name, tuple(sorted(cells)))
    found = [Fraction(cell) for cell in cells]
    low, high = min(found), max(found)
    return NumberColumn(name, low, high if high > low else low + 1)
