"""The container of bounded claims: one spelling, any changed byte refused, sizes checked before they are believed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.errors import CheckError, LimitError, MalformedInputError
from prune_verify.checker.proof import Proof, emit, parse

NETWORK = "0123456789abcdef" * 4


def _i4(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


PROOF = Proof(
    kind="forget",
    arithmetic="real",
    method="relaxation+smt",
    network=NETWORK,
    records=4,
    competitors=_i4(1, -1, 0, -1),
    hinted=_i4(0, 2),
    smt=_i4(1),
    slopes={12: np.array([[0, 0.5, 1], [1, 0.25, 0]], np.float32), 3: np.array([[[1.0]], [[0.125]]], np.float32)},
)
DATA = emit(PROOF)


def _same(a: Proof, b: Proof) -> bool:
    names = ("kind", "arithmetic", "method", "network", "records")
    arrays = ("competitors", "hinted", "smt")
    return (
        all(getattr(a, n) == getattr(b, n) for n in names)
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays)
        and a.slopes.keys() == b.slopes.keys()
        and all(np.array_equal(a.slopes[n], b.slopes[n]) for n in a.slopes)
    )


def _sealed(body: bytes) -> bytes:
    """A file with the right digest over ``body``: what an attacker can make."""
    return b"prune-verify/proof/v1 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


BODY = DATA[DATA.index(b"\n") + 1 :]
HEADER, ARRAYS = BODY[: BODY.index(b"\n")], BODY[BODY.index(b"\n") + 1 :]


@st.composite
def proofs(draw: st.DrawFn) -> Proof:
    records = draw(st.integers(0, 6))
    some = st.lists(st.integers(0, max(records - 1, 0)), unique=True, max_size=records).map(sorted)
    hinted = draw(some)
    unit = st.floats(0, 1, width=32)
    slopes = {}
    for node in draw(st.lists(st.integers(0, 999), unique=True, max_size=3)) if hinted else ():
        width = draw(st.integers(1, 3))
        values = draw(st.lists(unit, min_size=width * len(hinted), max_size=width * len(hinted)))
        slopes[node] = np.array(values, dtype=np.float32).reshape(len(hinted), width)
    competitors = draw(st.lists(st.integers(-1, 9), min_size=records, max_size=records))
    kind, method = draw(st.sampled_from(["forget", "retain_close"])), draw(st.text(max_size=5))
    return Proof(kind, "real", method, NETWORK, records, _i4(*competitors), _i4(*hinted), _i4(*draw(some)), slopes)


@given(proofs())
def test_parse_of_emit_is_the_identity(proof: Proof) -> None:
    data = emit(proof)
    assert _same(parse(data, "p"), proof)
    assert emit(parse(data, "p")) == data


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(place: int, mask: int) -> None:
    changed = DATA[:place] + bytes([DATA[place] ^ mask]) + DATA[place + 1 :]
    with pytest.raises(MalformedInputError):
        parse(changed, "p")


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_a_changed_byte_under_a_new_digest_is_refused_or_means_something_of_the_form(place: int, mask: int) -> None:
    changed = _sealed(BODY[:place] + bytes([BODY[place] ^ mask]) + BODY[place + 1 :])
    try:
        proof = parse(changed, "p")
    except CheckError:
        return
    assert emit(proof) == changed
    assert all(((v >= 0) & (v <= 1)).all() for v in proof.slopes.values())


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(_sealed)))
def test_any_bytes_give_a_proof_or_a_refusal(data: bytes) -> None:
    with pytest.raises(CheckError):
        parse(data, "p")


def _header(old: bytes, new: bytes) -> bytes:
    assert HEADER.count(old) == 1
    return _sealed(HEADER.replace(old, new) + b"\n" + ARRAYS)


def _with(**changes: object) -> bytes:
    return emit(replace(PROOF, **changes))


SLOPES = PROOF.slopes[12]
LARGE = b'{"dtype":"f4","name":"slopes/3","shape":[2,268435456,268435456,268435456]}'
TABLE = [
    ("as it was written", DATA, None),
    ("empty", b"", (MalformedInputError, "p")),
    ("cut", DATA[:-1], (MalformedInputError, "p")),
    ("a byte after the end", DATA + b"\0", (MalformedInputError, "p")),
    ("a byte after the end, under a new digest", _sealed(BODY + b"\0"), (MalformedInputError, "p")),
    ("another version", DATA.replace(b"/v1 ", b"/v2 "), (MalformedInputError, "p")),
    ("no header", _sealed(b"x" * 100), (MalformedInputError, "p")),
    ("a header that is not canonical", _header(b'"records":4', b'"records": 4'), (MalformedInputError, "p")),
    ("an unknown member", _header(b'"records":4', b'"records":4,"valid":1'), (MalformedInputError, "p")),
    ("a float", _header(b'"records":4', b'"records":4.0'), (MalformedInputError, "p")),
    ("not a digest", _header(b'def"', b'dex"'), (MalformedInputError, "p/network")),
    ("an unknown array", _header(b"slopes/12", b"slopes!12"), (MalformedInputError, "p")),
    ("a node with two spellings", _header(b"slopes/12", b"slopes/012"), (MalformedInputError, "p")),
    ("an array twice", _header(b"slopes/12", b"slopes/3"), (MalformedInputError, "p/arrays/4")),
    ("arrays in another order", _header(b"slopes/12", b"slopes/2"), (MalformedInputError, "p")),
    ("an unknown type", _header(b'f4","name":"slopes/12', b'f8","name":"slopes/12'), (MalformedInputError, "p/arrays/4/dtype")),
    ("slopes of integers", _header(b'f4","name":"slopes/12', b'i4","name":"slopes/12'), (MalformedInputError, "p/slopes/12")),
    ("a negative length", _header(b'hinted","shape":[2]', b'hinted","shape":[-2]'), (MalformedInputError, "p/arrays/1")),
    ("a length that is no integer", _header(b'hinted","shape":[2]', b'hinted","shape":[true]'), (MalformedInputError, "p/arrays/1")),
    ("a declared size beyond the file", _header(b'{"dtype":"f4","name":"slopes/3","shape":[2,1,1]}', LARGE), (MalformedInputError, "p/arrays/3")),
    ("another length", _header(b'hinted","shape":[2]', b'hinted","shape":[3]'), (MalformedInputError, "p")),
    ("a table for a list", _header(b'hinted","shape":[2]', b'hinted","shape":[2,1]'), (MalformedInputError, "p/hinted")),
    ("an empty table", _header(b'"shape":[2,3]', b'"shape":[2,0]'), (MalformedInputError, "p/arrays/4")),
    ("a slope above 1", _with(slopes={12: SLOPES + np.float32(0.001)}), (MalformedInputError, "p/slopes/12")),
    ("a slope below 0", _with(slopes={12: SLOPES - np.float32(0.001)}), (MalformedInputError, "p/slopes/12")),
    ("a slope that is NaN", _with(slopes={12: SLOPES * np.float32("nan")}), (MalformedInputError, "p/slopes/12")),
    ("slopes for other records", _with(slopes={12: SLOPES[:1]}), (MalformedInputError, "p/slopes/12")),
    ("slopes without hinted records", _with(hinted=_i4()), (MalformedInputError, "p/slopes/3")),
    ("hinted records that descend", _with(hinted=_i4(2, 0)), (MalformedInputError, "p/hinted")),
    ("a hinted record twice", _with(hinted=_i4(2, 2)), (MalformedInputError, "p/hinted")),
    ("a hinted record that is none", _with(hinted=_i4(0, 4)), (MalformedInputError, "p/hinted")),
    ("a negative record", _with(smt=_i4(-1)), (MalformedInputError, "p/smt")),
    ("too few competitors", _with(competitors=_i4(1, 0)), (MalformedInputError, "p/competitors")),
    ("a competitor below -1", _with(competitors=_i4(1, -2, 0, 0)), (MalformedInputError, "p/competitors")),
    ("no competitors", _with(competitors=_i4()), None),
    ("no slopes", _with(slopes={}), None),
    ("a slope of -0", _with(slopes={12: -np.zeros((2, 3), np.float32)}), None),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "data", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_rules(sentence: str, data: bytes, expected: tuple[type[CheckError], str] | None) -> None:
    if expected is None:
        assert emit(parse(data, "p")) == data
        return
    with pytest.raises(expected[0]) as refusal:
        parse(data, "p")
    assert refusal.value.path == expected[1]


def test_a_file_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(LimitError):
        parse(DATA, "p", max_bytes=len(DATA) - 1)
    assert _same(parse(DATA, "p", max_bytes=len(DATA)), PROOF)
