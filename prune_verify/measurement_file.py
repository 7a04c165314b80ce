"""What ``measure`` writes: numbers with their intervals, the files they are about, and the curves behind them.

A measurement is never a proof, and nothing in the file is believed because it stands there: a certificate names the
file by digest (one entry of ``measurements`` per row), and whoever has the same inputs, command and seed can repeat it.
Any bytes give a measurement or a :class:`CheckError` that names the file and the member.

Source: certs/SPEC.md section 7 (measurements); RFC 8785 (canonical bytes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import floor, isfinite, log10
from pathlib import Path

from prune_verify import __version__
from prune_verify.checker.encoding import (
    Json,
    Members,
    canonical_json,
    format_time,
    parse_decimal,
    parse_json,
    read_file,
)
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError

__all__ = [
    "MEASUREMENT_FORMAT",
    "MOST_BYTES",
    "MOST_ROWS",
    "MeasuredRow",
    "MeasurementFile",
    "decimal_text",
    "emit_measurement",
    "measured_row",
    "parse_measurement",
    "read_measurement",
]

MEASUREMENT_FORMAT = "prune-verify measurement 1"
MOST_BYTES = 2**24
MOST_ROWS = 256  # a certificate has room for so many, over all its files
_MOST_INPUTS = 256
_MOST_SERIES = 256
_MOST_VALUES = 2**17
_LONGEST_KIND = 32
_LONGEST_NAME = 256
_LONGEST_NOTE = 1024
_LONGEST_COMMAND = 4096
_MOST_PLACES = 40  # after the point: smaller numbers are 0, so that every decimal has room in a certificate
_MOST_SIZE = 1e20
_ENDS = 2
_MEMBERS = ("format", "kind", "command", "seed", "tool", "createdAt", "inputs", "rows", "series")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class MeasuredRow:
    """One measured number.

    Args:
        name: of the number, unique in its file, such as ``lira-offline.auc``.
        value: a decimal in plain notation.
        interval: its lower and upper end, decimals too, or None where it has none.
        note: what a reader must know beside the number, such as how the interval was made.

    """

    name: str
    value: str
    interval: tuple[str, str] | None = None
    note: str = ""


@dataclass(frozen=True)
class MeasurementFile:
    """What one run of ``measure`` found.

    Args:
        kind: the word of ``measure``: ``membership``, ``accuracy``, ...
        command: the command line that gave it.
        seed: of that run.
        inputs: (name, SHA-256 in hex) of every file that was read.
        rows: the numbers, at least one.
        series: numbers for pictures by name, decimals in plain notation; the words that read them know their names.
        tool: who wrote it, name and version.
        created_at: when, in UTC to the second.

    """

    kind: str
    command: str
    seed: int
    inputs: tuple[tuple[str, str], ...]
    rows: tuple[MeasuredRow, ...]
    series: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tool: str = f"prune-verify {__version__}"
    created_at: datetime = field(default_factory=_now)


def decimal_text(value: float, digits: int = 6) -> str:
    """A finite value in plain decimal notation, rounded to so many digits that count, at most 40 after the point.

    Raises:
        MalformedInputError: not finite, or 10^20 and more.

    """
    if not isfinite(value) or abs(value) >= _MOST_SIZE:
        raise MalformedInputError("measurement", "a measured number", "a finite number below 10^20", repr(value))
    places = 0 if value == 0 else min(max(digits - 1 - floor(log10(abs(value))), 0), _MOST_PLACES)
    text = f"{value:.{places}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", "0"} else text


def measured_row(
    name: str, value: float, interval: tuple[float, float] | None = None, note: str = "", *, digits: int = 6
) -> MeasuredRow:
    """A row of floating-point numbers, rounded to so many significant digits.

    Args:
        name: of the number.
        value: finite.
        interval: its ends, or None.
        note: for the reader.
        digits: significant ones that are kept.

    """
    ends = None if interval is None else (decimal_text(interval[0], digits), decimal_text(interval[1], digits))
    return MeasuredRow(name, decimal_text(value, digits), ends, note)


# --- reading ---


def _line(fields: Members, name: str, longest: int, *, least: int = 1) -> str:
    """One line of text that a reader can see: no control, bidirectional or other invisible characters."""
    text = fields.text(name, longest=longest)
    if len(text) < least or not text.isprintable():
        raise MalformedInputError(fields.place(name), "text", f"{least} to {longest} printable characters", repr(text))
    return text


def _kind(fields: Members) -> str:
    kind = fields.text("kind", longest=_LONGEST_KIND)
    if not kind or not all(c.isascii() and (c.islower() or c == "-") for c in kind):
        raise MalformedInputError(fields.place("kind"), "kind", "lower-case letters and '-'", repr(kind))
    return kind


def _interval(fields: Members) -> tuple[str, str] | None:
    if fields.null("interval"):
        return None
    ends = fields.texts("interval", most=_ENDS)
    if len(ends) != _ENDS:
        raise MalformedInputError(fields.place("interval"), "interval", "two ends", str(len(ends)))
    low, high = (parse_decimal(end, f"{fields.place('interval')}/{place}") for place, end in enumerate(ends))
    if low > high:
        raise MalformedInputError(fields.place("interval"), "interval", "the lower end first", f"{ends[0]}, {ends[1]}")
    return ends[0], ends[1]


def _rows(whole: Members) -> tuple[MeasuredRow, ...]:
    found: list[MeasuredRow] = []
    names: set[str] = set()
    for place, item in enumerate(whole.items("rows", most=MOST_ROWS)):
        fields = Members(item, f"{whole.place('rows')}/{place}", ("name", "value", "interval", "note"))
        name = _line(fields, "name", _LONGEST_NAME)
        if name in names:
            raise MalformedInputError(fields.place("name"), "names of rows", "each once", name)
        names.add(name)
        fields.decimal("value")
        note = _line(fields, "note", _LONGEST_NOTE, least=0)
        found.append(MeasuredRow(name, fields.text("value"), _interval(fields), note))
    if not found:
        raise MalformedInputError(whole.place("rows"), "rows", "at least one", "none")
    return tuple(found)


def _inputs(whole: Members) -> tuple[tuple[str, str], ...]:
    found = []
    for place, item in enumerate(whole.items("inputs", most=_MOST_INPUTS)):
        fields = Members(item, f"{whole.place('inputs')}/{place}", ("name", "sha256"))
        found.append((_line(fields, "name", _LONGEST_NAME), fields.digest("sha256")))
    return tuple(found)


def _series(whole: Members) -> dict[str, tuple[str, ...]]:
    value = whole.raw("series")
    if not isinstance(value, dict) or len(value) > _MOST_SERIES:
        got = f"{len(value)} members" if isinstance(value, dict) else type(value).__name__
        raise MalformedInputError(whole.place("series"), "form", f"an object of at most {_MOST_SERIES} members", got)
    fields = Members(value, whole.place("series"), tuple(value))
    for name in value:
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            expected = f"1 to {_LONGEST_NAME} printable characters"
            raise MalformedInputError(fields.path, "names of series", expected, repr(name)[:80])
        for place, number in enumerate(fields.items(name, most=_MOST_VALUES)):
            parse_decimal(number, f"{fields.place(name)}/{place}")
    return {name: fields.texts(name, most=_MOST_VALUES) for name in value}


def parse_measurement(data: bytes, name: str) -> MeasurementFile:
    """Read a measurement file.

    Args:
        data: its bytes.
        name: of the file, for errors.

    Raises:
        MalformedInputError: not of the closed form, or not canonical; it names the member.
        LimitError: too long or too deep.
        UnsupportedVersionError: another format.

    """
    value = parse_json(data, name, max_bytes=MOST_BYTES, canonical=True)
    if isinstance(value, dict) and isinstance(value.get("format"), str) and value["format"] != MEASUREMENT_FORMAT:
        raise UnsupportedVersionError(f"{name}/format", "format", MEASUREMENT_FORMAT, str(value["format"]))
    whole = Members(value, name, _MEMBERS)
    whole.text("format", among=(MEASUREMENT_FORMAT,))
    return MeasurementFile(
        kind=_kind(whole),
        command=_line(whole, "command", _LONGEST_COMMAND),
        seed=whole.integer("seed"),
        inputs=_inputs(whole),
        rows=_rows(whole),
        series=_series(whole),
        tool=_line(whole, "tool", _LONGEST_NAME),
        created_at=whole.time("createdAt"),
    )


def read_measurement(path: Path) -> tuple[MeasurementFile, bytes]:
    """A measurement file and its bytes, read once.

    Raises:
        CheckError: no readable file, or not such a file.

    """
    data = read_file(path, "measurement", MOST_BYTES)
    return parse_measurement(data, path.name), data


# --- writing ---


def _emitted_row(row: MeasuredRow) -> Json:
    interval: Json = None if row.interval is None else list(row.interval)
    return {"name": row.name, "value": row.value, "interval": interval, "note": row.note}


def _list(values: Sequence[str]) -> list[Json]:
    return list(values)


def emit_measurement(measurement: MeasurementFile) -> bytes:
    """The canonical bytes of a measurement file, which :func:`parse_measurement` reads back as the same.

    Raises:
        MalformedInputError: a member that the format has no room for.

    """
    inputs: list[Json] = [{"name": name, "sha256": digest} for name, digest in measurement.inputs]
    document: Json = {
        "format": MEASUREMENT_FORMAT,
        "kind": measurement.kind,
        "command": measurement.command,
        "seed": measurement.seed,
        "tool": measurement.tool,
        "createdAt": format_time(measurement.created_at),
        "inputs": inputs,
        "rows": [_emitted_row(row) for row in measurement.rows],
        "series": {name: _list(values) for name, values in measurement.series.items()},
    }
    try:
        data = canonical_json(document)
    except UnicodeEncodeError:
        raise MalformedInputError("measurement", "text", "whole Unicode characters", "a lone surrogate") from None
    parse_measurement(data, "measurement")
    return data
