"""One spelling for every value: strict JSON, decimals, digests, times; the published parser vectors agree."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.encoding import (
    Members,
    canonical_json,
    format_binary32,
    format_decimal,
    format_time,
    parse_base64,
    parse_binary32,
    parse_decimal,
    parse_digest,
    parse_json,
    parse_time,
    read_file,
)
from prune_verify.checker.errors import CheckError, LimitError, MalformedInputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_parse_of_canonical_bytes_is_the_identity(value) -> None:
    data = canonical_json(value)
    assert parse_json(data, "j", canonical=True) == value
    assert canonical_json(parse_json(data, "j")) == data


def test_members_are_ordered_by_utf16_code_units() -> None:
    """RFC 8785, 3.2.3: U+1F600 is written with a high surrogate and so comes before U+FB33."""
    assert canonical_json({"\ufb33": 1, "\U0001f600": 2, "a": 3}) == '{"a":3,"\U0001f600":2,"\ufb33":1}'.encode()


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_check_error(data: bytes) -> None:
    for canonical in (False, True):
        with suppress(CheckError):
            parse_json(data, "j", canonical=canonical)


REFUSED = [
    ("a duplicate key", b'{"a":1,"a":2}'),
    ("a float", b"1.0"),
    ("an exponent", b"1e5"),
    ("NaN", b"NaN"),
    ("infinity", b"[Infinity]"),
    ("1e400", b"1e400"),
    ("minus zero", b"-0"),
    ("2^53", b"9007199254740992"),
    ("a huge integer", b"1" * 5000),
    ("a leading zero", b"01"),
    ("a byte order mark", b"\xef\xbb\xbf{}"),
    ("UTF-16", "{}".encode("utf-16")),
    ("a lone surrogate", b'"\\ud800"'),
    ("a lone surrogate as a key", b'{"\\udc00":1}'),
    ("an overlong encoding", b'"\xc0\x80"'),
    ("Arabic digits", "١٢".encode()),
    ("an underscore in a number", b"1_000"),
    ("a control character", b'"\x01"'),
    ("a trailing comma", b"[1,]"),
    ("a comment", b"/* */ 1"),
    ("two values", b"1 2"),
    ("nothing", b""),
]


@pytest.mark.parametrize(("sentence", "data"), REFUSED, ids=[row[0] for row in REFUSED])
def test_json_that_is_refused(sentence: str, data: bytes) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_json(data, "j")
    assert caught.value.path == "j"


DEEP = [b"[" * 33 + b"]" * 33, b"[" * 1_000_000, b'{"a":' * 1_000_000, b'["' + b"[" * 40 + b'\\"",[[' + b"[" * 40]


@pytest.mark.parametrize(
    "data", DEEP, ids=["33 lists", "a million lists", "a million objects", "beside brackets in a string"]
)
def test_depth_is_limited_whatever_the_recursion_limit(data: bytes) -> None:
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(10**6)  # as some libraries do: the parser of the standard library would crash
        with pytest.raises(LimitError):
            parse_json(data, "j")
    finally:
        sys.setrecursionlimit(before)


def test_brackets_in_strings_are_no_depth() -> None:
    value = ["[[{{" * 50, 'quoted " and \\ [' * 50, [[1]]]
    assert parse_json(canonical_json(value), "j") == value
    assert parse_json(b"[" * 32 + b"]" * 32, "j")


def test_size_is_limited() -> None:
    with pytest.raises(LimitError):
        parse_json(b'"aaaa"', "j", max_bytes=5)


def test_published_vectors(shared_data: Path) -> None:
    """n_: refused. y_: parsed, or refused for a reason of ours (floats, duplicate keys, large integers)."""
    folder, parsed = shared_data / "vectors" / "json" / "test_parsing", 0
    for path in sorted(folder.glob("*.json")):
        try:
            parse_json(path.read_bytes(), path.name)
        except CheckError as error:
            if path.name.startswith("y_"):
                stricter = ("JSON number", "JSON integer", "JSON object", "text")
                if error.rule not in stricter:
                    pytest.fail(f"{path.name}: {error}")
            continue
        assert not path.name.startswith("n_"), path.name
        parsed += path.name.startswith("y_")
    assert parsed > 60


DECIMALS = [
    ("0", Fraction(0)), ("0.05", Fraction(1, 20)), ("-1.50", Fraction(-3, 2)), ("10", Fraction(10)),
    ("00", None), ("01", None), (".5", None), ("5.", None), ("1e-1", None), ("+1", None), (" 1", None), ("1 ", None),
    ("0,5", None), ("½", None), ("\u0661", None), ("1_0", None), ("", None), ("-", None), ("NaN", None), ("1" * 65, None),
    ("1\n", None), (1, None), (None, None), (True, None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), DECIMALS)
def test_decimals(text, value: Fraction | None) -> None:
    if value is not None:
        assert parse_decimal(text, "d") == value
        return
    with pytest.raises(MalformedInputError) as caught:
        parse_decimal(text, "d")
    assert caught.value.path == "d"


@given(st.decimals(-(10**9), 10**9, places=12))
def test_decimals_survive(value) -> None:
    exact = Fraction(value)
    assert parse_decimal(format_decimal(exact), "d") == exact


def test_a_third_is_no_decimal() -> None:
    with pytest.raises(MalformedInputError):
        format_decimal(Fraction(1, 3))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_binary32_survives_with_its_sign(value: float) -> None:
    found = parse_binary32(format_binary32(np.float32(value)), "b")
    assert found == np.float32(value)
    assert np.signbit(found) == np.signbit(np.float32(value))


@pytest.mark.parametrize("text", ["7f800000", "ffc00000", "3F800000", "3f80000", "0x3f8000", "3f800000\n", 1, None])
def test_binary32_that_is_refused(text) -> None:
    with pytest.raises(MalformedInputError):
        parse_binary32(text, "b")


@pytest.mark.parametrize("text", ["AB" * 32, "ab" * 31, "ab" * 33, "0x" + "ab" * 31, "ab" * 32 + "\n", "", None, 5])
def test_digests_that_are_refused(text) -> None:
    with pytest.raises(MalformedInputError):
        parse_digest(text, "d")


@pytest.mark.parametrize("text", ["YQ=", "YQ", "YR==", "Y Q==", "YQ==\n", "=", "YQ===", "*", None, "YÄ=="])
def test_base64_that_is_refused(text) -> None:
    with pytest.raises(MalformedInputError):
        parse_base64(text, "b")


TIMES = ["2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00", "2026-01-02 03:04:05Z", "2026-13-01T00:00:00Z",
         "2026-02-29T00:00:00Z", "2026-01-01T24:00:00Z", "2026-1-1T0:0:0Z", "٢٠٢٦-01-01T00:00:00Z", None]  # fmt: skip


@pytest.mark.parametrize("text", TIMES)
def test_times_that_are_refused(text) -> None:
    with pytest.raises(MalformedInputError):
        parse_time(text, "t")


def test_times_survive() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_time(format_time(now), "t") == now


MEMBERS = [
    ("a boolean for an integer", lambda m: m.integer("flag")),
    ("an integer out of range", lambda m: m.integer("count", most=2)),
    ("a string too long", lambda m: m.text("name", longest=2)),
    ("a string that is not among them", lambda m: m.text("name", among=("x",))),
    ("a list that is none", lambda m: m.items("name")),
    ("a list too long", lambda m: m.items("list", most=1)),
    ("integers that do not ascend", lambda m: m.integers("list")),
    ("integers that are none", lambda m: m.integers("words")),
    ("integers that are Booleans", lambda m: m.integers("flags")),
    ("integers above the greatest", lambda m: m.integers("list", greatest=1)),
    ("strings that are none", lambda m: m.texts("list")),
    ("an object that is none", lambda m: m.members("name", ())),
]


@pytest.mark.parametrize(("sentence", "read"), MEMBERS, ids=[row[0] for row in MEMBERS])
def test_members_of_another_type(sentence: str, read) -> None:
    value = {"flag": True, "count": 3, "name": "abc", "list": [2, 1], "words": ["a"], "flags": [True]}
    with pytest.raises(MalformedInputError) as caught:
        read(Members(value, "o", tuple(value)))
    assert caught.value.path.startswith("o/")


@pytest.mark.parametrize("value", [{}, {"a": 1, "b": 2}, [], None, "a"])
def test_objects_are_closed(value) -> None:
    with pytest.raises(MalformedInputError):
        Members(value, "o", ("a",))


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "none", tmp_path / "loop", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(MalformedInputError):
            read_file(path, "a file", 10)
    (tmp_path / "file").write_bytes(b"12345678901")
    with pytest.raises(LimitError):
        read_file(tmp_path / "file", "a file", 10)
    assert read_file(tmp_path / "file", "a file", 11) == b"12345678901"
