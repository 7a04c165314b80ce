"""Numbers, text and files as the formats write them: strict JSON, digests, decimals, binary32, times.

Whatever has two spellings is a place to hide something, so each value has one: no duplicate keys, no
floats, no byte order mark, no lone surrogates, integers within 2^53 - 1, canonical bytes where a file
is signed. Any bytes give a value or a :class:`CheckError`.

Source: certs/SPEC.md section 1; RFC 8259 (JSON), RFC 8785 (canonical bytes), RFC 4648 (base64); THREATS 2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import stat
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Never

import numpy as np

from prune_verify.checker.errors import LimitError, MalformedInputError

__all__ = [
    "Json",
    "Members",
    "canonical_json",
    "format_binary32",
    "format_decimal",
    "format_time",
    "parse_base64",
    "parse_binary32",
    "parse_decimal",
    "parse_digest",
    "parse_json",
    "parse_time",
    "read_file",
    "require_shallow",
    "sha256_hex",
]

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]

MAX_INTEGER = 2**53 - 1
MAX_JSON_BYTES = 2**26
MAX_DEPTH = 32
_LONGEST_NUMBER = 17
_LONGEST_DECIMAL = 64
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?\Z")
_BINARY32 = re.compile(r"[0-9a-f]{8}\Z")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")


def sha256_hex(data: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


# --- JSON ---


def _integer(path: str, text: str) -> int:
    value = int(text) if len(text) <= _LONGEST_NUMBER and text.isascii() else MAX_INTEGER + 1
    if abs(value) > MAX_INTEGER or text == "-0":
        raise MalformedInputError(path, "JSON integer", "an integer within 2^53 - 1, written one way", text)
    return value


def require_shallow(data: bytes, path: str, max_depth: int) -> None:
    """Refuse nesting beyond ``max_depth`` before it is parsed: a library may have raised the interpreter's limit."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(data):
        token = found.group()[:1]
        depth += (token in b"[{") - (token in b"]}")
        if depth > max_depth:
            raise LimitError(path, "depth of a JSON file", f"at most {max_depth}", "more")


def parse_json(
    data: bytes, path: str, *, max_bytes: int = MAX_JSON_BYTES, max_depth: int = MAX_DEPTH, canonical: bool = False
) -> Json:
    """Read strict JSON.

    Args:
        data: the file.
        path: its name, for errors.
        max_bytes: refuse more than this.
        max_depth: refuse deeper nesting.
        canonical: demand exactly the bytes of RFC 8785.

    Raises:
        MalformedInputError: not strict JSON, or not canonical.
        LimitError: too long or too deep.

    """
    if len(data) > max_bytes:
        raise LimitError(path, "size of a JSON file", f"at most {max_bytes} bytes", str(len(data)))
    require_shallow(data, path, max_depth)

    def pairs(items: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(items)
        if len(found) != len(items):
            names = [name for name, _ in items]
            twice = next(n for n in names if names.count(n) > 1)
            raise MalformedInputError(path, "JSON object", "each member once", twice)
        return found

    def refuse(text: str) -> Never:
        raise MalformedInputError(path, "JSON number", "an integer", text)

    try:
        value: Json = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_float=refuse,
            parse_constant=refuse,
            parse_int=lambda text: _integer(path, text),
        )
    except UnicodeDecodeError as error:
        raise MalformedInputError(path, "text", "UTF-8", f"byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise MalformedInputError(path, "JSON", "a JSON value", f"{error.msg} at {error.pos}") from None
    _require_plain(value, path)
    if canonical and canonical_json(value) != data:
        raise MalformedInputError(path, "canonical JSON", "the bytes of RFC 8785", "another spelling")
    return value


def _require_plain(value: Json, path: str) -> None:
    """Refuse lone surrogates."""
    level: list[Json] = [value]
    while level:
        deeper: list[Json] = []
        for item in level:
            texts = [item] if isinstance(item, str) else list(item) if isinstance(item, dict) else []
            for text in texts:
                if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                    raise MalformedInputError(path, "text", "whole Unicode characters", "a lone surrogate")
            deeper += item.values() if isinstance(item, dict) else item if isinstance(item, list) else []
        level = deeper


def _ordered(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _ordered(value[name]) for name in sorted(value, key=lambda n: n.encode("utf-16-be"))}
    return [_ordered(item) for item in value] if isinstance(value, list) else value


def canonical_json(value: Json) -> bytes:
    """The one spelling of a value: RFC 8785 bytes (there are no floats here)."""
    return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class Members:
    """A JSON object of a closed form: exactly the members named, read with their types.

    Methods read the member ``name``: ``least`` to ``most`` or ``greatest``, no ``longest``, or one ``among`` values.

    Args:
        value: what stands in the file.
        path: its place, for errors.
        names: all members.

    Raises:
        MalformedInputError: not an object, a member is missing, or one is unknown.

    """

    def __init__(self, value: Json, path: str, names: Sequence[str]) -> None:
        if not isinstance(value, dict):
            raise MalformedInputError(path, "form", "an object", type(value).__name__)
        for name in names:
            if name not in value:
                raise MalformedInputError(path, "closed form", f"member {name!r}", "no such member")
        for name in value:
            if name not in names:
                raise MalformedInputError(path, "closed form", f"only {', '.join(names)}", f"member {name!r}")
        self._value, self.path = value, path

    def place(self, name: str) -> str:
        """Where a member stands."""
        return f"{self.path}/{name}"

    def raw(self, name: str) -> Json:
        """A member, whatever it is."""
        return self._value[name]

    def null(self, name: str) -> bool:
        """Whether a member is null."""
        return self._value[name] is None

    def _bad(self, name: str, expected: str) -> MalformedInputError:
        return MalformedInputError(self.place(name), "form", expected, repr(self._value[name])[:80])

    def text(self, name: str, *, longest: int = 512, among: Sequence[str] = ()) -> str:
        """A string of at most ``longest`` characters, one of ``among`` where given."""
        value = self._value[name]
        if not isinstance(value, str) or len(value) > longest:
            raise self._bad(name, f"a string of at most {longest} characters")
        if among and value not in among:
            raise self._bad(name, f"one of {', '.join(among)}")
        return value

    def integer(self, name: str, *, least: int = 0, most: int = MAX_INTEGER) -> int:
        """An integer; a boolean is none."""
        value = self._value[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._bad(name, f"an integer from {least} to {most}")
        return value

    def items(self, name: str, *, most: int = 2**24) -> list[Json]:
        """A list."""
        value = self._value[name]
        if not isinstance(value, list) or len(value) > most:
            raise self._bad(name, f"a list of at most {most}")
        return value

    def texts(self, name: str, *, most: int = 1024, longest: int = 512, among: Sequence[str] = ()) -> tuple[str, ...]:
        """A list of strings."""
        value = self.items(name, most=most)
        for item in value:
            if not isinstance(item, str) or len(item) > longest or (among and item not in among):
                raise self._bad(name, f"strings{' among ' + ', '.join(among) if among else ''}")
        return tuple(str(item) for item in value)

    def integers(self, name: str, *, most: int = 2**24, least: int = 0, greatest: int = MAX_INTEGER) -> tuple[int, ...]:
        """A strictly ascending list of integers."""
        found: list[int] = []
        for item in self.items(name, most=most):
            if isinstance(item, bool) or not isinstance(item, int) or not least <= item <= greatest:
                raise self._bad(name, f"integers from {least} to {greatest}")
            if found and item <= found[-1]:
                raise self._bad(name, "ascending integers, each once")
            found.append(item)
        return tuple(found)

    def members(self, name: str, names: Sequence[str]) -> Members:
        """An object of a closed form."""
        return Members(self._value[name], self.place(name), names)

    def digest(self, name: str) -> str:
        """64 lower-case hex digits."""
        return parse_digest(self._value[name], self.place(name))

    def decimal(self, name: str) -> Fraction:
        """A decimal in a string."""
        return parse_decimal(self._value[name], self.place(name))

    def time(self, name: str) -> datetime:
        """A time in UTC."""
        return parse_time(self._value[name], self.place(name))

    def binary32(self, name: str) -> np.float32:
        """A finite float32 in 8 hex digits."""
        return parse_binary32(self._value[name], self.place(name))


# --- values in strings ---


def parse_digest(value: Json, path: str) -> str:
    """A SHA-256 digest: exactly 64 lower-case hex digits; anything else is refused."""
    if not isinstance(value, str) or not _DIGEST.match(value):
        raise MalformedInputError(path, "digest", "64 lower-case hex digits", repr(value)[:80])
    return value


def parse_base64(value: Json, path: str) -> bytes:
    """Standard base64 with padding; any but its one canonical spelling (a loose tail is another) is refused."""
    if not isinstance(value, str):
        raise MalformedInputError(path, "base64", "a string", type(value).__name__)
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedInputError(path, "base64", "standard base64", value[:40]) from None
    if base64.b64encode(data).decode() != value:
        raise MalformedInputError(path, "base64", "its canonical spelling", value[-40:])
    return data


def parse_decimal(value: Json, path: str) -> Fraction:
    """An exact decimal in plain notation, at most 64 characters; anything else is refused."""
    if not isinstance(value, str) or len(value) > _LONGEST_DECIMAL or not _DECIMAL.match(value):
        raise MalformedInputError(path, "decimal", "plain decimal notation such as 0.05", repr(value)[:80])
    return Fraction(value)


def format_decimal(value: Fraction) -> str:
    """The shortest plain decimal of a rational value whose denominator divides a power of ten.

    Raises:
        MalformedInputError: it is no finite decimal, or longer than 64 characters.

    """
    scale = 0
    while (value * 10**scale).denominator != 1 and scale < _LONGEST_DECIMAL:
        scale += 1
    scaled = value * 10**scale
    digits = str(abs(scaled.numerator)).rjust(scale + 1, "0")
    text = ("-" if value < 0 else "") + (digits if scale == 0 else f"{digits[:-scale]}.{digits[-scale:]}")
    if scaled.denominator != 1 or len(text) > _LONGEST_DECIMAL:
        raise MalformedInputError("decimal", "a finite decimal", "at most 64 characters", str(value)[:80])
    return text


def parse_binary32(value: Json, path: str) -> np.float32:
    """A finite float32 from the 8 hex digits of its bits; anything else is refused."""
    if not isinstance(value, str) or not _BINARY32.match(value):
        raise MalformedInputError(path, "binary32", "8 lower-case hex digits", repr(value)[:80])
    number = np.float32(struct.unpack(">f", bytes.fromhex(value))[0])
    if not np.isfinite(number):
        raise MalformedInputError(path, "binary32", "a finite number", value)
    return number


def format_binary32(value: np.float32) -> str:
    """The 8 hex digits of the bits of a float32 value."""
    return struct.pack(">f", float(value)).hex()


def parse_time(value: Json, path: str) -> datetime:
    """A time in UTC, to the second; anything else is refused."""
    if not isinstance(value, str) or not _TIME.match(value):
        raise MalformedInputError(path, "time", "YYYY-MM-DDTHH:MM:SSZ", repr(value)[:80])
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise MalformedInputError(path, "time", "a time that exists", value) from None


def format_time(value: datetime) -> str:
    """A time as text, the value in UTC to the second."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- files ---


def read_file(path: Path, what: str, limit: int) -> bytes:
    """Read a regular file once, at most ``limit`` bytes; what is hashed and what is parsed are these bytes.

    Args:
        path: the file. A FIFO, a device or a folder is refused without being read.
        what: what the file is for, for errors.
        limit: greatest number of bytes.

    Raises:
        MalformedInputError: it does not exist, cannot be read, or is no regular file.
        LimitError: it is longer.

    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "a name without null characters"
        raise MalformedInputError(str(path), what, "a readable file", reason) from None
    known = os.fstat(handle)
    if not stat.S_ISREG(known.st_mode):
        os.close(handle)
        raise MalformedInputError(str(path), what, "a regular file", "something else")
    with os.fdopen(handle, "rb") as stream:
        data = b"" if known.st_size > limit else stream.read(limit + 1)
    if max(len(data), known.st_size) > limit:  # a sparse file of a terabyte is refused unread
        raise LimitError(str(path), f"size of {what}", f"at most {limit} bytes", str(max(len(data), known.st_size)))
    return data
