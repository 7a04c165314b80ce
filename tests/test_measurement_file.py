"""Measurement files: one spelling, closed members, and every member wrong once."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError, LimitError, MalformedInputError, UnsupportedVersionError
from prune_verify.measurement_file import (
    MOST_BYTES,
    MeasuredRow,
    MeasurementFile,
    decimal_text,
    emit_measurement,
    measured_row,
    parse_measurement,
    read_measurement,
)

N = "m.json"
FILE = MeasurementFile(
    kind="membership",
    command="prune-verify measure membership base.onnx patched.onnx --seed 3",
    seed=3,
    inputs=(("base.onnx", "0" * 64), ("patched.onnx", "f" * 64)),
    rows=(
        MeasuredRow("lira-offline.auc", "0.52", ("0.47", "0.57"), "DeLong, 95 %"),
        MeasuredRow("shadows", "64"),
    ),
    series={"lira-offline.false_positive": ("0", "0.5", "1"), "empty": ()},
    tool="prune-verify 0",
    created_at=datetime(2026, 11, 28, 4, 50, tzinfo=UTC),
)


def changed(change):
    """The file's bytes after a change of its JSON object."""
    document = json.loads(emit_measurement(FILE))
    change(document)
    return canonical_json(document)


def at(place: str, value):
    """A change of one member."""

    def change(document):
        *way, last = place.split("/")
        for name in way:
            document = document[int(name)] if isinstance(document, list) else document[name]
        if isinstance(document, list):
            document[int(last)] = value
        else:
            document[last] = value

    return change


ROW = {"name": "auc", "value": "1", "interval": None, "note": ""}
WRONG = [
    ("another version of the format", at("format", "prune-verify measurement 2"), UnsupportedVersionError, f"{N}/format"),
    ("a format that is no text", at("format", 1), MalformedInputError, f"{N}/format"),
    ("a kind in capitals", at("kind", "Membership"), MalformedInputError, f"{N}/kind"),
    ("an empty kind", at("kind", ""), MalformedInputError, f"{N}/kind"),
    ("a kind of 33 letters", at("kind", "a" * 33), MalformedInputError, f"{N}/kind"),
    ("an empty command", at("command", ""), MalformedInputError, f"{N}/command"),
    ("a command of 4,097 characters", at("command", "a" * 4097), MalformedInputError, f"{N}/command"),
    ("a command with an escape sequence", at("command", "a\x1b[2J"), MalformedInputError, f"{N}/command"),
    ("a negative seed", at("seed", -1), MalformedInputError, f"{N}/seed"),
    ("a seed that is a boolean", at("seed", True), MalformedInputError, f"{N}/seed"),
    ("a seed of 2^53", at("seed", 2**53), MalformedInputError, N),
    ("a tool that is no text", at("tool", None), MalformedInputError, f"{N}/tool"),
    ("a time without its zone", at("createdAt", "2026-11-28T04:50:00"), MalformedInputError, f"{N}/createdAt"),
    ("inputs that are no list", at("inputs", {}), MalformedInputError, f"{N}/inputs"),
    ("257 inputs", at("inputs", [{"name": "a", "sha256": "0" * 64}] * 257), MalformedInputError, f"{N}/inputs"),
    ("an input without a name", at("inputs/0/name", ""), MalformedInputError, f"{N}/inputs/0/name"),
    ("an input with a path too many", at("inputs/1/path", "/etc"), MalformedInputError, f"{N}/inputs/1"),
    ("a digest in capitals", at("inputs/1/sha256", "F" * 64), MalformedInputError, f"{N}/inputs/1/sha256"),
    ("no rows", at("rows", []), MalformedInputError, f"{N}/rows"),
    ("rows that are no list", at("rows", None), MalformedInputError, f"{N}/rows"),
    ("257 rows", at("rows", [{**ROW, "name": str(i)} for i in range(257)]), MalformedInputError, f"{N}/rows"),
    ("a row that is a number", at("rows/0", 1), MalformedInputError, f"{N}/rows/0"),
    ("a row without its note", lambda d: d["rows"][0].pop("note"), MalformedInputError, f"{N}/rows/0"),
    ("a row that says proved", at("rows/0/proved", True), MalformedInputError, f"{N}/rows/0"),
    ("a row without a name", at("rows/1/name", ""), MalformedInputError, f"{N}/rows/1/name"),
    ("a name that reads backwards", at("rows/1/name", "a\u202eb"), MalformedInputError, f"{N}/rows/1/name"),
    ("a name of 257 characters", at("rows/1/name", "a" * 257), MalformedInputError, f"{N}/rows/1/name"),
    ("one name twice", at("rows/1/name", "lira-offline.auc"), MalformedInputError, f"{N}/rows/1/name"),
    ("a value in words", at("rows/0/value", "good"), MalformedInputError, f"{N}/rows/0/value"),
    ("a value with an exponent", at("rows/0/value", "1e-3"), MalformedInputError, f"{N}/rows/0/value"),
    ("a value that is a number", at("rows/0/value", 1), MalformedInputError, f"{N}/rows/0/value"),
    ("a value of 65 characters", at("rows/0/value", "0." + "1" * 63), MalformedInputError, f"{N}/rows/0/value"),
    ("one end", at("rows/0/interval", ["0.4"]), MalformedInputError, f"{N}/rows/0/interval"),
    ("three ends", at("rows/0/interval", ["0.4", "0.5", "0.6"]), MalformedInputError, f"{N}/rows/0/interval"),
    ("ends in the wrong order", at("rows/0/interval", ["0.6", "0.4"]), MalformedInputError, f"{N}/rows/0/interval"),
    ("an end that is infinite", at("rows/0/interval", ["0.6", "inf"]), MalformedInputError, f"{N}/rows/0/interval/1"),
    ("a note of 1,025 characters", at("rows/0/note", "a" * 1025), MalformedInputError, f"{N}/rows/0/note"),
    ("a note of two lines", at("rows/0/note", "a\nb"), MalformedInputError, f"{N}/rows/0/note"),
    ("series in a list", at("series", []), MalformedInputError, f"{N}/series"),
    ("257 series", at("series", {str(i): [] for i in range(257)}), MalformedInputError, f"{N}/series"),
    ("a series without a name", at("series", {"": []}), MalformedInputError, f"{N}/series"),
    ("a series that is no list", at("series/empty", "0"), MalformedInputError, f"{N}/series/empty"),
    ("a series of words", at("series/empty", ["0", "x"]), MalformedInputError, f"{N}/series/empty/1"),
    ("a series of 131,073 numbers", at("series/empty", ["0"] * (2**17 + 1)), MalformedInputError, f"{N}/series/empty"),
    ("a member that nobody knows", at("verified", True), MalformedInputError, N),
    ("a member that is missing", lambda d: d.pop("inputs"), MalformedInputError, N),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "path"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_member_is_named(change, error, path):
    with pytest.raises(error) as caught:
        parse_measurement(changed(change), N)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", MalformedInputError),
        (b"[]", MalformedInputError),
        (emit_measurement(FILE) + b"\n", MalformedInputError),
        (b" " + emit_measurement(FILE), MalformedInputError),
        (emit_measurement(FILE).replace(b'"seed":3', b'"seed":3,"seed":3'), MalformedInputError),
        (b" " * (MOST_BYTES + 1), LimitError),
        (b"[" * 40 + b"]" * 40, LimitError),
    ],
    ids=["nothing", "a list", "a line's end", "a space", "a member twice", "too long", "too deep"],
)
def test_another_spelling_is_refused(data, error):
    with pytest.raises(error, match=f"^{N}: "):
        parse_measurement(data, N)


def test_every_member_is_in_the_table():
    named = {row[3].removeprefix(N).lstrip("/").split("/")[0] for row in WRONG}
    assert named >= set(json.loads(emit_measurement(FILE)))


def test_a_file_that_could_not_be_read_is_not_written():
    with pytest.raises(MalformedInputError, match="measurement/rows: rows: expected at least one, got none"):
        emit_measurement(MeasurementFile("accuracy", "x", 0, (), ()))
    with pytest.raises(MalformedInputError, match="lone surrogate"):
        emit_measurement(MeasurementFile("accuracy", "\ud800", 0, (), (MeasuredRow("a", "1"),)))


def test_what_was_written_is_read_from_disk(tmp_path):
    path = tmp_path / N
    path.write_bytes(emit_measurement(FILE))
    assert read_measurement(path) == (FILE, path.read_bytes())
    with pytest.raises(MalformedInputError, match="measurement: expected a readable file"):
        read_measurement(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 6, "0"), (-0.0, 6, "0"), (1.0, 6, "1"), (0.5, 6, "0.5"), (-0.1234567, 6, "-0.123457"), (1234567.8, 6, "1234568"),
        (1e-9, 6, "0.000000001"), (1e-300, 6, "0"), (-1e-300, 6, "0"), (99999.9999, 6, "100000"), (0.04994, 2, "0.05"), (1200.0, 2, "1200"),
    ],
)  # fmt: skip
def test_numbers_are_rounded_to_significant_digits(value, digits, text):
    assert decimal_text(value, digits) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e20])
def test_a_number_that_no_decimal_shows_is_refused(value):
    with pytest.raises(MalformedInputError, match="a measured number"):
        decimal_text(value)


@given(st.floats(-1e19, 1e19))
def test_a_rounded_number_has_room_in_a_certificate(value):
    text = decimal_text(value)
    assert len(text) <= 64
    assert abs(float(text) - value) <= abs(value) * 5.1e-6 + 1e-40


PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
NUMBERS = st.floats(-1e6, 1e6)
ROWS = st.builds(
    lambda name, value, ends, note: measured_row(name, value, None if ends is None else (min(ends), max(ends)), note),
    PRINTABLE,
    NUMBERS,
    st.none() | st.tuples(NUMBERS, NUMBERS),
    PRINTABLE | st.just(""),
)
FILES = st.builds(
    MeasurementFile,
    kind=st.sampled_from(["accuracy", "membership"]),
    command=PRINTABLE,
    seed=st.integers(0, 2**53 - 1),
    inputs=st.lists(st.tuples(PRINTABLE, st.text("0123456789abcdef", min_size=64, max_size=64)), max_size=3).map(tuple),
    rows=st.lists(ROWS, min_size=1, max_size=4, unique_by=lambda row: row.name).map(tuple),
    series=st.dictionaries(PRINTABLE, st.lists(NUMBERS.map(decimal_text), max_size=4).map(tuple), max_size=3),
    created_at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - made aware below
        lambda found: found.replace(microsecond=0, tzinfo=UTC)
    ),
)


def read_or_refused(data):
    """The measurement, or a refusal that names the file."""
    try:
        return parse_measurement(data, N)
    except CheckError as error:
        return error if str(error).startswith(N) else None


@given(FILES)
def test_what_is_written_is_read_back(measurement):
    assert parse_measurement(emit_measurement(measurement), N) == measurement


@given(st.binary(max_size=80) | st.binary(max_size=8).map(lambda part: emit_measurement(FILE).replace(b'"0.52"', part)))
def test_any_bytes_give_a_measurement_or_the_one_error(data):
    assert read_or_refused(data) is not None


@given(st.integers(0, len(emit_measurement(FILE)) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_read_as_it_stands(place, byte):
    data = bytearray(emit_measurement(FILE))
    data[place] = byte
    found = read_or_refused(bytes(data))
    assert isinstance(found, CheckError) or emit_measurement(found) == bytes(data)
