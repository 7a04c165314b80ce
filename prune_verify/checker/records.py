"""Records: float32 rows with labels, as the claims, commitments and the network take them.

A record IS its float32 values: whatever the file was, from here on there is one array, one canonical
spelling per record for the Merkle leaf, and one comparison (all values equal, -0 as 0). Shape is not
part of a record: an image of [28, 28] and its row of [784] have the same leaf.

Source: FORMATS section 1 (records), section 2 (leaves); MATHS 1; THREATS T13, T19, T23.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import read_file
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.record_csv import fit_encoding, read_csv
from prune_verify.checker.record_encoding import Encoding, emit_encoding, parse_encoding
from prune_verify.checker.record_files import Limits, read_idx, read_npz
from prune_verify.checker.region import Domain, float64_not_above, float64_not_below

__all__ = [
    "Encoding",
    "Records",
    "canonical_record",
    "canonical_records",
    "check_against",
    "distinct",
    "duplicates_between",
    "emit_encoding",
    "fit_encoding",
    "load_records",
    "parse_canonical_record",
    "parse_encoding",
    "value_keys",
]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_PREFIX = b"prune-verify/record/v1\x00"
_MAX_ENCODING = 2**24
_LABELS = 2**63
_NEGATIVE_ZERO = 0x80000000


@dataclass(frozen=True, eq=False)
class Records:
    """A set of labelled records, in order: an index means the same record everywhere.

    Args:
        x: float32 [count, *row].
        y: int64 [count].
        encoding_sha256: digest of the encoding that a table was read with.
        source: the file, for errors.

    Raises:
        MalformedInputError: another data type, or another number of labels than of rows.

    """

    x: Floats
    y: Labels
    encoding_sha256: str | None
    source: str

    def __post_init__(self) -> None:
        kinds = (str(self.x.dtype), str(self.y.dtype))
        if kinds != ("float32", "int64"):
            raise MalformedInputError(self.source, "data types", "float32 values, int64 labels", ", ".join(kinds))
        if self.x.ndim < 2 or self.y.shape != self.x.shape[:1]:  # noqa: PLR2004 - rows of at least one axis
            got = f"{list(self.x.shape)} and {list(self.y.shape)}"
            raise MalformedInputError(self.source, "shapes", "[count, *row] and [count]", got)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def rows(self) -> Floats:
        """The values as float32 [count, size], whatever the shape of a row."""
        return self.x.reshape(len(self.y), math.prod(self.x.shape[1:]))


def load_records(
    spec: str,
    *,
    what: str,
    label_column: str | None = None,
    names: Sequence[str] = (),
    encoding: Path | None = None,
    max_bytes: int = 2**31,
    max_records: int = 2**24,
) -> Records:
    """Read records from ``FILE.npz``, ``FILE.csv`` or ``IMAGES,LABELS[:indices.txt]`` (idx, plain or gzip).

    Args:
        spec: the file or files.
        what: what the records are for ("forget set"), for errors.
        label_column: csv only, and needed there: the label column's name, or its number from 0 if there is no header.
        names: csv only: the column names of a table without header.
        encoding: csv only: ``encoding.json``; without it every cell is a number.
        max_bytes: greatest size of each file, of what it unpacks to, and of the values.
        max_records: greatest number of records.

    Raises:
        MalformedInputError: names the file, the place in it, what was expected and what stands there.
        LimitError: larger than the limits.

    """
    limits = Limits(max_bytes, max_records)
    suffix = Path(spec).suffix.lower()
    digest = None
    if suffix == ".npz":
        x, y = read_npz(read_file(Path(spec), what, max_bytes), spec, limits)
    elif suffix == ".csv":
        if label_column is None:
            raise MalformedInputError(spec, what, "a label column (--label-column NAME, or its number)", "none")
        found = None if encoding is None else parse_encoding(read_file(encoding, what, _MAX_ENCODING), str(encoding))
        data = read_file(Path(spec), what, max_bytes)
        x, y = read_csv(data, spec, limits, label_column, names=names, encoding=found)
        digest = None if found is None else found.sha256
    else:
        images, comma, rest = spec.partition(",")
        labels, colon, indices = rest.partition(":")
        if not comma:
            raise MalformedInputError(spec, what, "FILE.npz, FILE.csv or IMAGES,LABELS[:indices.txt]", "another name")
        x, y = read_idx(images, labels, indices if colon else None, what, limits)
    return Records(x, y, digest, spec)


def check_against(records: Records, *, input_shape: tuple[int, ...], labels: int, domain: Domain, what: str) -> Records:
    """Establish that the records are inputs of a network: as many values, finite, in the domain, labels that exist.

    Args:
        records: as loaded.
        input_shape: per-row shape of the network's input; rows of as many values are given this shape.
        labels: number of the network's logits.
        domain: from the auditor's policy, or from the request.
        what: what the records are for, for errors.

    Returns:
        The same records with rows of ``input_shape``.

    Raises:
        MalformedInputError: names file, row, what was expected and what stands there.

    """
    size = math.prod(input_shape)
    row_size = math.prod(records.x.shape[1:])
    if not len(records):
        raise MalformedInputError(records.source, f"size of the {what}", "at least one record", "0")
    if row_size != size:
        expected = f"{size} values per row {list(input_shape)}"
        got = f"{row_size} {list(records.x.shape[1:])}"
        raise MalformedInputError(records.source, f"shape of the {what}", expected, got)
    domain.require_size(size)
    for index in np.nonzero((records.y < 0) | (records.y >= labels))[0][:1]:
        path = f"{records.source}: row {index}"
        raise MalformedInputError(path, f"label in the {what}", f"0 to {labels - 1}", str(records.y[index]))
    _require_inside(records, domain, what)
    return replace(records, x=records.x.reshape(len(records), *input_shape))


def _require_inside(records: Records, domain: Domain, what: str) -> None:
    """Refuse the first value that is not finite or not in the domain, exactly (T23)."""
    rows = records.rows
    # The domain's ends rounded inwards to float32: a float32 lies in D if and only if it lies between these.
    lower = np.array([_float32_not_below(end) for end in map(float64_not_below, domain.lower)], dtype=np.float32)
    upper = np.array([-_float32_not_below(-end) for end in map(float64_not_above, domain.upper)], dtype=np.float32)
    outside = ~((rows >= lower) & (rows <= upper))  # NaN is outside, too
    if not outside.any():
        return
    row, place = (int(v) for v in np.argwhere(outside)[0])
    path, value = f"{records.source}: row {row}, value {place}", float(rows[row, place])
    if not math.isfinite(value):
        raise MalformedInputError(path, f"value in the {what}", "a finite number", str(value))
    low, high = domain.interval(place)
    raise MalformedInputError(path, f"domain of the {what}", f"{float(low):g} to {float(high):g}", repr(value))


def _float32_not_below(value: float) -> np.float32:
    """The least float32 that is not below a float64 of size below 2^127."""
    near = np.float32(value)
    return np.nextafter(near, np.float32(np.inf)) if float(near) < value else near


# --- one spelling per record ---


def canonical_record(x_row: Floats, label: int) -> bytes:
    """The bytes that a record's leaf commits to: ``x_row`` and its label ``y``.

    ``"prune-verify/record/v1" 0x00 || be32(1) || be64(n) || n float32, little-endian || be64(label)``; the bits are
    kept (-0 stays -0), the shape is not.

    Raises:
        MalformedInputError: values that are not float32, or a label that is no index.

    """
    if x_row.dtype != np.float32:
        raise MalformedInputError("record", "data type", "float32", str(x_row.dtype))
    if not 0 <= label < _LABELS:
        raise MalformedInputError("record", "label", "0 <= label < 2^63", str(label)[:40])
    values = x_row.astype("<f4").tobytes()
    return b"".join((_PREFIX, struct.pack(">IQ", 1, x_row.size), values, struct.pack(">Q", label)))


def canonical_records(records: Records) -> list[bytes]:
    """:func:`canonical_record` of every record, in order."""
    return [canonical_record(row, int(label)) for row, label in zip(records.rows, records.y, strict=True)]


def parse_canonical_record(data: bytes, path: str) -> tuple[Floats, int]:
    """The values (float32 [size]) and the label of a record's canonical bytes, of which there is one spelling.

    Raises:
        MalformedInputError: not the bytes that :func:`canonical_record` gives for finite values.

    """
    start, end = len(_PREFIX) + 12, len(data) - 8
    size = (end - start) // 4
    if size < 1 or data[:start] != _PREFIX + struct.pack(">IQ", 1, size) or end != start + 4 * size:
        raise MalformedInputError(path, "canonical record", "prefix, size, float32 values and label", data[:40].hex())
    values, label = np.frombuffer(data, "<f4", size, start).astype(np.float32), int.from_bytes(data[end:], "big")
    if not np.isfinite(values).all() or label >= _LABELS:
        raise MalformedInputError(path, "canonical record", "finite values and a label below 2^63", "others")
    return values, label


def value_keys(rows: Floats) -> list[bytes]:
    """The values of rows [count, *row] as bytes that are equal exactly when the values are (-0 as 0)."""
    bits = np.array(rows, order="C").view(np.uint32)
    bits[bits == _NEGATIVE_ZERO] = 0
    return [row.tobytes() for row in bits]


def distinct(records: Records) -> int:
    """How many records differ from one another in their values: one easy record many times is one record (T13)."""
    return len(set(value_keys(records.rows)))


def duplicates_between(a: Records, b: Records) -> list[tuple[int, int]]:
    """Indices of records with the same values in two sets, whatever their labels.

    Returns:
        Ascending pairs (index in ``a``, index in ``b``): every record of either set that has a twin in the other
        occurs, paired with the twin of least index. Never more than ``len(a) + len(b)``.

    """
    keys_a, keys_b = value_keys(a.rows), value_keys(b.rows)
    first_a = {key: len(keys_a) - 1 - back for back, key in enumerate(reversed(keys_a))}
    first_b = {key: len(keys_b) - 1 - back for back, key in enumerate(reversed(keys_b))}
    pairs = {(index, first_b[key]) for index, key in enumerate(keys_a) if key in first_b}
    return sorted(pairs | {(first_a[key], index) for index, key in enumerate(keys_b) if key in first_a})
