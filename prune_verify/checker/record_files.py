"""Records from npz and idx files, read in memory without pickle and without trusting a declared size.

What a header declares (sizes, shapes, members) is compared with the limits before anything is unpacked,
and with the bytes afterwards. An npy header is matched against the one form that numpy writes instead of
being evaluated; an object array is a data type like any other that is not float32: refused.

Source: FORMATS section 1; NumPy's NEP 1 (npy), PKWARE APPNOTE 4.3 (zip), RFC 1952 (gzip), LeCun's idx; THREATS 2.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import read_file
from prune_verify.checker.errors import LimitError, MalformedInputError

__all__ = ["Limits", "read_idx", "read_npz"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_MOST_RATIO = 200
_FREE_OF_RATIO = 2**20
_MOST_DIRECTORY = 4096
_MOST_DIMENSIONS = 8
_MOST_LABEL = 2**53 - 1
_MEMBERS = ("x.npy", "y.npy")
_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x07"
_HEADER = re.compile(
    rb"\{'descr': ?'([<>|=](?:[A-Za-z][0-9]{1,4}|O))', ?'fortran_order': ?(False|True), ?"
    rb"'shape': ?\(((?:[0-9]{1,12}, ?)*(?:[0-9]{1,12})?)\),? ?\}[ \n]*\Z"
)
_INDEX = re.compile(r"[0-9]{1,9}\Z")
_UNZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    LookupError,
)


@dataclass(frozen=True)
class Limits:
    """What a record file may cost.

    Args:
        bytes: greatest size of the file, of what it unpacks to, and of the float32 values.
        records: greatest number of records.

    """

    bytes: int
    records: int

    def require_unpacked(self, path: str, declared: int, packed: int) -> None:
        """Refuse a declared size before unpacking: too large, or more than ``packed`` honest bytes would unpack to."""
        if declared > self.bytes:
            raise LimitError(path, "unpacked size", f"at most {self.bytes} bytes", str(declared))
        if declared > _FREE_OF_RATIO and declared > _MOST_RATIO * packed:
            raise LimitError(path, "compression ratio", f"at most {_MOST_RATIO}", f"{declared} from {packed} bytes")

    def require_rows(self, path: str, count: int, row: int) -> None:
        """Refuse a ``count`` of records above the limit, or more float32 values, ``row`` each, than its bytes hold."""
        if count > self.records:
            raise LimitError(path, "number of records", f"at most {self.records}", str(count))
        if 4 * count * row > self.bytes:
            raise LimitError(path, "size of the float32 values", f"at most {self.bytes} bytes", str(4 * count * row))


# --- npz ---


def read_npz(data: bytes, path: str, limits: Limits) -> tuple[Floats, Labels]:
    """The arrays ``x`` (float32 [count, *row]) and ``y`` (integers [count]) of an npz file.

    Raises:
        MalformedInputError: no such archive, other or twice the same members, another data type, rows without labels.
        LimitError: it declares to unpack to more than the limits.

    """
    x_bytes, y_bytes = _members(data, path, limits)
    x_type, x_shape, x_order, x_data = _npy(x_bytes, f"{path}: x.npy")
    if x_type != "<f4":
        got = f"{x_type} (convert once with x.astype(np.float32): a record is its float32 values)"
        raise MalformedInputError(f"{path}: x.npy", "data type", "little-endian float32 (<f4)", got)
    if len(x_shape) < 2:  # noqa: PLR2004 - rows of at least one axis
        raise MalformedInputError(f"{path}: x.npy", "shape", "[count, *row]", str(list(x_shape)))
    y_type, y_shape, _, y_data = _npy(y_bytes, f"{path}: y.npy")
    if not re.match(r"(<[iu][248]|\|[iu]1)\Z", y_type):
        raise MalformedInputError(f"{path}: y.npy", "data type", "little-endian integers", y_type)
    if y_shape != x_shape[:1]:
        raise MalformedInputError(f"{path}: y.npy", "one label per row", str([x_shape[0]]), str(list(y_shape)))
    limits.require_rows(path, x_shape[0], math.prod(x_shape[1:]))
    labels = np.frombuffer(y_data, np.dtype(y_type))
    for row in np.nonzero((labels > _MOST_LABEL) | (labels < 0))[0][:1]:
        raise MalformedInputError(f"{path}: row {row}", "label", "an integer from 0 to 2^53 - 1", str(labels[row]))
    x = np.frombuffer(x_data, np.dtype("<f4")).reshape(x_shape, order=x_order)
    return x.astype(np.float32, order="C"), labels.astype(np.int64)


def _members(data: bytes, path: str, limits: Limits) -> tuple[bytes, bytes]:
    """The bytes of x.npy and y.npy, the archive's only members."""
    end = data[-22:]
    if len(end) != 22 or not end.startswith(_END) or data[-42:].startswith(_END_64):  # noqa: PLR2004 - APPNOTE 4.3.16
        raise MalformedInputError(path, "npz archive", "a zip file that ends in its plain directory", "another end")
    if int.from_bytes(end[12:16], "little") > _MOST_DIRECTORY:  # before an object is made for each of 10^7 members
        raise MalformedInputError(path, "npz archive", "a directory of two members", "a larger directory")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            names = sorted(entry.filename for entry in entries)
            if names != list(_MEMBERS):
                raise MalformedInputError(path, "members", "x.npy and y.npy, once each", ", ".join(names))
            by_name = {entry.filename: entry for entry in entries}
            total = sum(entry.file_size for entry in entries)
            limits.require_unpacked(path, total, sum(entry.compress_size for entry in entries))
            x_bytes, y_bytes = (_unzip(archive, by_name[name], path) for name in _MEMBERS)
    except _UNZIP_ERRORS as error:
        raise MalformedInputError(path, "npz archive", "a readable zip file", f"{type(error).__name__}") from None
    return x_bytes, y_bytes


def _unzip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: str) -> bytes:
    """One member, no longer than it declares; zipfile compares its checksum."""
    place = f"{path}: {entry.filename}"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
        raise MalformedInputError(place, "compression", "stored or deflated, not encrypted", str(entry.compress_type))
    with archive.open(entry) as stream:
        found = stream.read(entry.file_size)
        rest = stream.read(1)
    if rest or len(found) != entry.file_size:
        raise MalformedInputError(place, "declared size", str(entry.file_size), "another size")
    return found


def _npy(data: bytes, path: str) -> tuple[str, tuple[int, ...], Literal["C", "F"], bytes]:
    """Data type, shape, order ("C" or "F") and payload of an npy file whose payload has the declared size."""
    lengths = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}
    width = lengths.get(data[:8])
    if width is None:
        raise MalformedInputError(path, "npy file", "the magic of npy version 1.0 or 2.0", data[:8].hex())
    start = 8 + width
    end = start + int.from_bytes(data[8:start], "little")
    match = _HEADER.match(data[start : min(end, start + 10_000)])
    if match is None or end > len(data):
        raise MalformedInputError(path, "npy file", "a header with descr, fortran_order and shape", "another header")
    shape = tuple(int(part) for part in match[3].decode().split(",") if part.strip())
    if len(shape) > _MOST_DIMENSIONS or 0 in shape:
        raise MalformedInputError(path, "shape", f"1 to {_MOST_DIMENSIONS} axes, none of them empty", str(list(shape)))
    descr = match[1].decode()
    if descr[1] in "fiu" and math.prod(shape) * int(descr[2:]) != len(data) - end:
        expected = f"{math.prod(shape)} values of {descr}"
        raise MalformedInputError(path, "size of the values", expected, f"{len(data) - end} bytes")
    return descr, shape, "F" if match[2] == b"True" else "C", data[end:]


# --- idx ---


def read_idx(images: str, labels: str, indices: str | None, what: str, limits: Limits) -> tuple[Floats, Labels]:
    """Grey levels divided by 255 in float32, and labels, from a pair of idx files (plain or gzip).

    Args:
        images: path; uint8, at least two axes.
        labels: path; uint8, one axis.
        indices: path of a text file with one row number per line, each once; None takes all rows.
        what: what the records are for, for errors.
        limits: for each of the files.

    Raises:
        MalformedInputError: no such files, other types, counts that differ, an index beyond the last row.
        LimitError: they declare to unpack to more than the limits.

    """
    pixels = _idx(read_file(Path(images), what, limits.bytes), images, limits)
    classes = _idx(read_file(Path(labels), what, limits.bytes), labels, limits)
    if pixels.ndim < 2:  # noqa: PLR2004 - rows of at least one axis
        raise MalformedInputError(images, "shape", "[count, *row]", str(list(pixels.shape)))
    if classes.shape != pixels.shape[:1]:
        raise MalformedInputError(labels, "one label per row", str([len(pixels)]), str(list(classes.shape)))
    if indices is not None:
        chosen = _indices(read_file(Path(indices), what, limits.bytes), indices, len(pixels))
        pixels, classes = pixels[chosen], classes[chosen]
    limits.require_rows(images, len(pixels), math.prod(pixels.shape[1:]))
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    return levels[pixels], classes.astype(np.int64)


def _idx(data: bytes, path: str, limits: Limits) -> Bytes:
    """The uint8 array of one idx file."""
    stream = zlib.decompressobj(wbits=31) if data.startswith(b"\x1f\x8b") else None
    try:
        head = data[:4] if stream is None else stream.decompress(data, 4)
        axes = head[3] if len(head) == 4 and head.startswith(b"\0\0\x08") else 0  # noqa: PLR2004 - magic and axes
        if not 1 <= axes <= _MOST_DIMENSIONS:
            raise MalformedInputError(path, "idx file", "magic 000008 and the number of axes", head.hex())
        sizes = data[4 : 4 + 4 * axes] if stream is None else stream.decompress(stream.unconsumed_tail, 4 * axes)
        if len(sizes) != 4 * axes:
            raise MalformedInputError(path, "idx file", f"{axes} sizes", "the end of the file")
        shape = struct.unpack(f">{axes}I", sizes)
        if 0 in shape:
            raise MalformedInputError(path, "shape", "at least one record and one value per row", str(list(shape)))
        size = math.prod(shape)
        limits.require_unpacked(path, size, len(data))
        body = data[4 + 4 * axes :] if stream is None else stream.decompress(stream.unconsumed_tail, size + 1)
    except zlib.error as error:
        raise MalformedInputError(path, "idx file", "a readable gzip file", str(error)) from None
    ended = stream is None or (stream.eof and not stream.unused_data)
    if len(body) != size or not ended:
        raise MalformedInputError(path, "idx file", f"{size} values and the end of the file", f"{len(body)} or more")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _indices(data: bytes, path: str, count: int) -> Labels:
    """Row numbers, one per line, each once, below ``count``."""
    try:
        lines = data.decode("ascii").split()
    except UnicodeDecodeError:
        raise MalformedInputError(path, "row numbers", "ASCII digits", "another byte") from None
    if not lines:
        raise MalformedInputError(path, "row numbers", "at least one", "none")
    seen: set[int] = set()
    for place, line in enumerate(lines):
        value = int(line) if _INDEX.match(line) else count
        if value >= count or value in seen:
            expected = f"a number below {count}, once"
            raise MalformedInputError(f"{path}: entry {place}", "row number", expected, line[:40])
        seen.add(value)
    return np.array([int(line) for line in lines], dtype=np.int64)
