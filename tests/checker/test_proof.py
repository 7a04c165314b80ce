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


def _f4(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


PROOF = Proof(
    kind="forget",
    arithmetic="real",
    method="relaxation+smt",
    network=NETWORK,
    records=4,
    choices=_i4(1, -1, 2, -1),
    combinations=_f4(0.5, 0.25),
    hinted=_i4(0, 2),
    smt=_i4(1),
    trees=_i4(3),
    steps=_i4(1, 3, 0, 0, 0, -1, 0, 1, 1),
    cuts=_f4(0.5),
    multipliers=_f4(1, -2),
    active={12: _i4(0, 4, 7), 3: _i4(5)},
    slopes={12: np.array([[0, 0.5, 1], [1, 0.25, 0]], np.float32), 3: np.array([[1.0], [0.125]], np.float32)},
)
DATA = emit(PROOF)
LISTS = ("choices", "combinations", "hinted", "smt", "trees", "steps", "cuts", "multipliers")


def _same(a: Proof, b: Proof) -> bool:
    names = ("kind", "arithmetic", "method", "network", "records")
    return (
        all(getattr(a, n) == getattr(b, n) for n in names)
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in LISTS)
        and a.slopes.keys() == b.slopes.keys() == a.active.keys() == b.active.keys()
        and all(np.array_equal(a.slopes[n], b.slopes[n]) for n in a.slopes)
        and all(np.array_equal(a.active[n], b.active[n]) for n in a.active)
    )


def _sealed(body: bytes) -> bytes:
    """A file with the right digest over ``body``: what an attacker can make."""
    return b"prune-verify/proof/v2 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


BODY = DATA[DATA.index(b"\n") + 1 :]
HEADER, ARRAYS = BODY[: BODY.index(b"\n")], BODY[BODY.index(b"\n") + 1 :]


@st.composite
def proofs(draw: st.DrawFn) -> Proof:
    ascending = st.lists(st.integers(0, 99), unique=True, max_size=5).map(sorted)
    number = st.floats(allow_nan=False, allow_infinity=False, width=32)
    active, slopes, sets = {}, {}, draw(st.integers(1, 3))
    for node in draw(st.lists(st.integers(0, 999), unique=True, max_size=3)):
        places = draw(ascending.filter(bool))
        values = draw(st.lists(number, min_size=sets * len(places), max_size=sets * len(places)))
        active[node], slopes[node] = _i4(*places), np.array(values, dtype=np.float32).reshape(sets, -1)
    hinted = draw(ascending)[:sets] if slopes else []
    steps = draw(st.lists(st.integers(-9, 9), max_size=4)) * 3
    return Proof(
        draw(st.sampled_from(["forget", "retain_close"])), "real", draw(st.text(max_size=5)), NETWORK,
        draw(st.integers(0, 6)), _i4(*draw(st.lists(st.integers(-1, 9), max_size=6))),
        _f4(*(v / 2**16 for v in draw(st.lists(st.integers(0, 2**16), max_size=4)))), _i4(*hinted),
        _i4(*draw(ascending)), _i4(*(v for v in draw(ascending) if v not in hinted)), _i4(*steps),
        _f4(*draw(st.lists(number, max_size=3))), _f4(*draw(st.lists(number, max_size=3))), active, slopes,
    )  # fmt: skip


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
    assert all(np.isfinite(v).all() for v in proof.slopes.values())


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
LARGE = b'{"dtype":"f4","name":"slopes/3","shape":[268435456,268435456]}'
BAD, NAN = MalformedInputError, float("nan")


def _slopes(values: np.ndarray) -> dict[int, np.ndarray]:
    return PROOF.slopes | {12: values}


TABLE = [
    ("as it was written", DATA, None),
    ("empty", b"", (BAD, "p")),
    ("cut", DATA[:-1], (BAD, "p")),
    ("a byte after the end", DATA + b"\0", (BAD, "p")),
    ("a byte after the end, under a new digest", _sealed(BODY + b"\0"), (BAD, "p")),
    ("another version", DATA.replace(b"/v2 ", b"/v1 "), (BAD, "p")),
    ("no header", _sealed(b"x" * 100), (BAD, "p")),
    ("a header that is not canonical", _header(b'"records":4', b'"records": 4'), (BAD, "p")),
    ("an unknown member", _header(b'"records":4', b'"records":4,"valid":1'), (BAD, "p")),
    ("a float", _header(b'"records":4', b'"records":4.0'), (BAD, "p")),
    ("not a digest", _header(b'def"', b'dex"'), (BAD, "p/network")),
    ("an unknown array", _header(b"active/12", b"active!12"), (BAD, "p")),
    ("slopes without places", _header(b"active/12", b"active/13"), (BAD, "p/slopes/13")),
    ("a node with two spellings", _header(b"active/12", b"active/012"), (BAD, "p/slopes/012")),
    ("an array twice", _header(b"slopes/12", b"slopes/3"), (BAD, "p/arrays/11")),
    ("arrays in another order", _sealed(BODY.replace(b"slopes/12", b"slopes/2").replace(b"active/12", b"active/2")), (BAD, "p")),
    ("an unknown type", _header(b'f4","name":"slopes/12', b'f8","name":"slopes/12'), (BAD, "p/arrays/11/dtype")),
    ("slopes of integers", _header(b'f4","name":"slopes/12', b'i4","name":"slopes/12'), (BAD, "p/slopes/12")),
    ("places of floats", _header(b'i4","name":"active/12', b'f4","name":"active/12'), (BAD, "p/active/12")),
    ("cuts of integers", _header(b'f4","name":"cuts', b'i4","name":"cuts'), (BAD, "p/cuts")),
    ("a negative length", _header(b'hinted","shape":[2]', b'hinted","shape":[-2]'), (BAD, "p/arrays/2")),
    ("a length that is no integer", _header(b'hinted","shape":[2]', b'hinted","shape":[true]'), (BAD, "p/arrays/2")),
    ("a declared size beyond the file", _header(b'{"dtype":"f4","name":"slopes/3","shape":[2,1]}', LARGE), (BAD, "p/arrays/9")),
    ("another length", _header(b'hinted","shape":[2]', b'hinted","shape":[3]'), (BAD, "p")),
    ("a table for a list", _header(b'hinted","shape":[2]', b'hinted","shape":[2,1]'), (BAD, "p/hinted")),
    ("an empty table", _header(b'"shape":[2,3]', b'"shape":[2,0]'), (BAD, "p/arrays/11")),
    ("an array of many axes", _header(b'"shape":[2,3]', b'"shape":[1,2,3]'), (BAD, "p/arrays/11/shape")),
    ("a slope that is NaN", _with(slopes=_slopes(SLOPES * np.float32(NAN))), (BAD, "p/slopes/12")),
    ("an infinite multiplier", _with(multipliers=_f4(float("inf"))), (BAD, "p/multipliers")),
    ("a cut that is NaN", _with(cuts=_f4(NAN)), (BAD, "p/cuts")),
    ("fewer sets at one node", _with(slopes=_slopes(SLOPES[:1])), (BAD, "p/slopes/12")),
    ("slopes for other places", _with(active=PROOF.active | {12: _i4(0, 1)}), (BAD, "p/slopes/12")),
    ("places that descend", _with(active=PROOF.active | {12: _i4(0, 4, 4)}), (BAD, "p/active/12")),
    ("a negative place", _with(active=PROOF.active | {12: _i4(-1, 4, 7)}), (BAD, "p/active/12")),
    ("more hinted goals than sets", _with(hinted=_i4(0, 1, 2)), (BAD, "p/hinted")),
    ("hinted goals without slopes", _with(slopes={}, active={}), (BAD, "p/hinted")),
    ("hinted goals that descend", _with(hinted=_i4(2, 0)), (BAD, "p/hinted")),
    ("a hinted goal twice", _with(hinted=_i4(2, 2)), (BAD, "p/hinted")),
    ("a hinted goal with a tree", _with(hinted=_i4(2, 3)), (BAD, "p/hinted")),
    ("a negative record", _with(smt=_i4(-1)), (BAD, "p/smt")),
    ("a negative tree", _with(trees=_i4(-1)), (BAD, "p/trees")),
    ("trees that descend", _with(trees=_i4(3, 1)), (BAD, "p/trees")),
    ("a choice below -1", _with(choices=_i4(1, -2, 0, 0)), (BAD, "p/choices")),
    ("a negative factor", _with(combinations=_f4(-0.5)), (BAD, "p/combinations")),
    ("a factor above 1", _with(combinations=_f4(1.5)), (BAD, "p/combinations")),
    ("a factor of many bits", _with(combinations=_f4(0.1)), (BAD, "p/combinations")),
    ("half a step", _with(steps=_i4(0, 0, -1, 0)), (BAD, "p/steps")),
    ("no choices", _with(choices=_i4()), None),
    ("no slopes", _with(slopes={}, active={}, hinted=_i4()), None),
    ("slopes of any size", _with(slopes=_slopes(-1e30 * SLOPES)), None),
    ("a slope of -0", _with(slopes=_slopes(-np.zeros((2, 3), np.float32))), None),
    ("nothing but a header", emit(Proof("forget", "real", "relaxation", NETWORK, 0)), None),
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
