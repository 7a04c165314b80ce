"""Commitments of training sets: closed statements, closed openings, and the set put together again place by place."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.commitment import (
    DataCommitment,
    Openings,
    TrainingOpening,
    _put_together,
    emit_commitment,
    emit_openings,
    parse_commitment,
    parse_openings,
)
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError
from prune_verify.checker.records import Records, canonical_record, canonical_records

COMMITTED = DataCommitment("train", "ab" * 32, 5, None, datetime(2026, 1, 1, tzinfo=UTC), ("prune-verify", "0.1.0"))
RECORD = canonical_record(np.float32([0.5, -0.0]), 3)
OPENING = TrainingOpening(bytes(range(32)), (3, 0), ((4, RECORD),))
OPENINGS = Openings(b"\1" * 32, None, OPENING)


def records(values: list[float], name: str = "r") -> Records:
    x = np.array(values, dtype=np.float32).reshape(len(values), 1)
    return Records(x, np.arange(len(values)), None, name)


def test_parse_of_emit_is_the_identity() -> None:
    for one in (COMMITTED, replace(COMMITTED, encoding_sha256="cd" * 32, size=1)):
        assert parse_commitment(emit_commitment(one), "c") == one
    for other in (OPENINGS, replace(OPENINGS, training=None), Openings(None, None, replace(OPENING, twins=()))):
        assert parse_openings(emit_openings(other), "o") == other


def test_openings_without_a_training_set_are_those_of_the_first_version() -> None:
    assert json.loads(emit_openings(Openings(b"\1" * 32, None))) == {
        "formatVersion": 1, "forget": "01" * 32, "retain": None,
    }  # fmt: skip


def put(path: str, value: object) -> Callable[[dict], None]:
    def change(document: dict) -> None:
        *parents, last = path.split("/")
        target: dict = document
        for name in parents:
            target = target[int(name) if isinstance(target, list) else name]
        target[int(last) if isinstance(target, list) else last] = value

    return change


STATEMENTS = [
    ("another statement", put("_type", "https://in-toto.io/Statement/v0.1"), "E_UNSUPPORTED", "c/_type"),
    ("another predicate", put("predicateType", "https://prune-verify.example/data-commitment/v2"), "E_UNSUPPORTED", "c/predicateType"),
    ("no subject", put("subject", []), "E_MALFORMED", "c/subject"),
    ("two subjects", put("subject", [{}, {}]), "E_MALFORMED", "c/subject"),
    ("a second digest", lambda d: d["subject"][0]["digest"].update(sha256="ab" * 32), "E_MALFORMED", "c/subject/0/digest"),
    ("an upper-case root", put("subject/0/digest/saltedMerkleSha256", "AB" * 32), "E_MALFORMED", "c/subject/0/digest/saltedMerkleSha256"),
    ("a name that is too long", put("subject/0/name", "n" * 129), "E_MALFORMED", "c/subject/0/name"),
    ("no size", lambda d: d["predicate"].pop("size"), "E_MALFORMED", "c/predicate"),
    ("size 0", put("predicate/size", 0), "E_MALFORMED", "c/predicate/size"),
    ("a boolean size", put("predicate/size", True), "E_MALFORMED", "c/predicate/size"),
    ("another purpose", put("predicate/purpose", "test-set"), "E_MALFORMED", "c/predicate/purpose"),
    ("a time without a zone", put("predicate/committedAt", "2026-01-01T00:00:00"), "E_MALFORMED", "c/predicate/committedAt"),
    ("a tool in one word", put("predicate/tool", "prune-verify"), "E_MALFORMED", "c/predicate/tool"),
    ("an unknown member", put("predicate/verified", True), "E_MALFORMED", "c/predicate"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "code", "path"), STATEMENTS, ids=[row[0] for row in STATEMENTS])
def test_statements_that_are_refused(sentence: str, change: Callable[[dict], object], code: str, path: str) -> None:
    document = json.loads(emit_commitment(COMMITTED))
    change(document)
    with pytest.raises(CheckError) as caught:
        parse_commitment(canonical_json(document), "c")
    assert (caught.value.code, caught.value.path) == (code, path)


def test_a_statement_has_one_spelling() -> None:
    with pytest.raises(CheckError) as caught:
        parse_commitment(emit_commitment(COMMITTED) + b"\n", "c")
    assert (caught.value.code, caught.value.rule) == ("E_MALFORMED", "canonical JSON")


OPENED = [
    ("a short key", put("training/key", "ab" * 31), "o/training/key"),
    ("a short key of a set", put("forget", "ab" * 31), "o/forget"),
    ("another version", put("formatVersion", 2), "o/formatVersion"),
    ("a negative index", put("training/forgetIndices/1", -1), "o/training/forgetIndices/1"),
    ("a boolean index", put("training/forgetIndices/0", False), "o/training/forgetIndices/0"),
    ("indices in words", put("training/forgetIndices", "3, 0"), "o/training/forgetIndices"),
    ("a twin without its record", put("training/twins/0", {"index": 4}), "o/training/twins/0"),
    ("a twin at a negative place", put("training/twins/0/index", -1), "o/training/twins/0/index"),
    ("a twin in another base64", put("training/twins/0/record", base64.b64encode(b"a").decode()[:-3] + "R=="), "o/training/twins/0/record"),
    ("no training set after all", put("training", None), "o/training"),
    ("an unknown member", put("valid", True), "o"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "path"), OPENED, ids=[row[0] for row in OPENED])
def test_openings_that_are_refused(sentence: str, change: Callable[[dict], object], path: str) -> None:
    document = json.loads(emit_openings(OPENINGS))
    change(document)
    with pytest.raises(CheckError) as caught:
        parse_openings(canonical_json(document), "o")
    assert (caught.value.code, caught.value.path) == ("E_MALFORMED", path)


def test_the_set_is_put_together_place_by_place() -> None:
    forget, retain = records([0.1, 0.2]), records([0.3, 0.4])
    opening = TrainingOpening(bytes(32), (3, 0), ((4, RECORD),))
    a, b = canonical_records(forget), canonical_records(retain)
    assert _put_together(opening, forget, retain, 5) == [a[1], b[0], b[1], a[0], RECORD]


MISPLACED = [
    ("a size above what is opened", OPENING, 6, "commitment/predicate/size"),
    ("a size below", OPENING, 4, "commitment/predicate/size"),
    ("an index too few", replace(OPENING, forget_indices=(3,)), 5, "openings.json/training/forgetIndices"),
    ("a place twice", replace(OPENING, forget_indices=(3, 3)), 5, "openings.json/training"),
    ("the place of a twin twice", replace(OPENING, forget_indices=(3, 4)), 5, "openings.json/training"),
    ("a place at the size", replace(OPENING, forget_indices=(5, 0)), 5, "openings.json/training"),
    ("a twin at the size", replace(OPENING, twins=((5, RECORD),)), 5, "openings.json/training"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "opening", "size", "path"), MISPLACED, ids=[row[0] for row in MISPLACED])
def test_places_that_are_refused(sentence: str, opening: TrainingOpening, size: int, path: str) -> None:
    with pytest.raises(CheckError) as caught:
        _put_together(opening, records([0.1, 0.2]), records([0.3, 0.4]), size)
    assert caught.value.path == path


@given(st.binary(max_size=200), st.data())
def test_any_bytes_give_a_result_or_a_check_error(some: bytes, data: st.DataObject) -> None:
    for parse, whole in ((parse_commitment, emit_commitment(COMMITTED)), (parse_openings, emit_openings(OPENINGS))):
        start = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(start, len(whole)))
        with suppress(CheckError):
            parse(whole[:start] + some + whole[end:], "f")
