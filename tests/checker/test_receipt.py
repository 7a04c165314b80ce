"""Receipts: a closed form, and a record that stands where the receipt says or nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError, ProofError, SubjectMismatchError
from prune_verify.checker.merkle import inclusion_path, leaf_hash, record_salt, root_of
from prune_verify.checker.receipt import Receipt, emit_receipt, parse_receipt, require_belongs
from prune_verify.checker.records import canonical_record, parse_canonical_record
from prune_verify.checker.statement import SetCommitment

KEY, SOURCE, SIZE = bytes(range(32)), "cd" * 32, 7
RECORDS = [canonical_record(np.float32([place / 8, -0.0, 1.5]), place % 3) for place in range(SIZE)]
LEAVES = [leaf_hash(record_salt(KEY, place), record) for place, record in enumerate(RECORDS)]
COMMITTED = SetCommitment(root_of(LEAVES).hex(), SIZE)


def receipt(index: int) -> Receipt:
    path = tuple(inclusion_path(LEAVES, index))
    return Receipt("training-set", SOURCE, COMMITTED.root, SIZE, index, record_salt(KEY, index), RECORDS[index], path)


def test_every_record_has_a_receipt_that_belongs() -> None:
    for index in range(SIZE):
        made = receipt(index)
        assert parse_receipt(emit_receipt(made), "r") == made
        require_belongs(made, "r", SOURCE, COMMITTED)
        values, label = parse_canonical_record(made.record, "r")
        assert canonical_record(values, label) == made.record
        assert np.signbit(values[1])


@given(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1), st.data())
def test_no_part_of_a_receipt_serves_another_record(index: int, other: int, data: st.DataObject) -> None:
    mine, theirs = receipt(index), receipt(other)
    parts = data.draw(st.sets(st.sampled_from(["index", "salt", "record", "path"]), min_size=1, max_size=3))
    mixed = replace(mine, **{part: getattr(theirs, part) for part in parts})
    if mixed in (mine, theirs):
        require_belongs(mixed, "r", SOURCE, COMMITTED)
        return
    with pytest.raises(ProofError) as caught:
        require_belongs(mixed, "r", SOURCE, COMMITTED)
    assert caught.value.path == "r/path"


FOREIGN = [
    ("of another commitment", {"source_sha256": "00" * 32}, "r/source"),
    ("under another root", {"root": "00" * 32}, "r/root"),
    ("of a larger set", {"size": SIZE + 1}, "r/size"),
]


@pytest.mark.parametrize(("sentence", "changed", "path"), FOREIGN, ids=[row[0] for row in FOREIGN])
def test_receipts_of_other_sets(sentence: str, changed: dict, path: str) -> None:
    with pytest.raises(SubjectMismatchError) as caught:
        require_belongs(replace(receipt(2), **changed), "r", SOURCE, COMMITTED)
    assert caught.value.path == path


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


BROKEN = RECORDS[2]
FORMS = [
    ("another version", {"formatVersion": 2}, "r/formatVersion"),
    ("another set", {"of": "retained-set"}, "r/of"),
    ("a digest of another length", {"source": "ab"}, "r/source"),
    ("an upper-case root", {"root": "AB" * 32}, "r/root"),
    ("size 0", {"size": 0}, "r/size"),
    ("an index at the size", {"index": SIZE}, "r/index"),
    ("an index that is none", {"index": True}, "r/index"),
    ("a salt of another length", {"salt": "ab" * 31}, "r/salt"),
    ("a sibling of another length", {"path": ["ab" * 31]}, "r/path/0"),
    ("a sibling that is no text", {"path": ["ab" * 32, 7]}, "r/path/1"),
    ("more siblings than a tree is deep", {"path": ["ab" * 32] * 65}, "r/path"),
    ("a record in other base64", {"record": b64(BROKEN) + "\n"}, "r/record"),
    ("no record", {"record": ""}, "r/record"),
    ("a record of another prefix", {"record": b64(b"P" + BROKEN[1:])}, "r/record"),
    ("a record of another version", {"record": b64(BROKEN[:26] + b"\2" + BROKEN[27:])}, "r/record"),
    ("a record of more values than it has", {"record": b64(BROKEN[:34] + b"\4" + BROKEN[35:])}, "r/record"),
    ("a record without values", {"record": b64(BROKEN[:34] + b"\0" + BROKEN[-8:])}, "r/record"),
    ("a record with a byte more", {"record": b64(BROKEN + b"\0")}, "r/record"),
    ("a record with a byte less", {"record": b64(BROKEN[:-1])}, "r/record"),
    ("a record with NaN", {"record": b64(BROKEN[:35] + b"\0\0\xc0\x7f" + BROKEN[39:])}, "r/record"),
    ("a label of 2^63", {"record": b64(BROKEN[:-8] + b"\x80" + bytes(7))}, "r/record"),
    ("an unknown member", {"label": 2}, "r"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "changed", "path"), FORMS, ids=[row[0] for row in FORMS])
def test_forms_that_are_refused(sentence: str, changed: dict, path: str) -> None:
    document = json.loads(emit_receipt(receipt(2)))
    with pytest.raises(CheckError) as caught:
        parse_receipt(canonical_json(document | changed), "r")
    assert (caught.value.code, caught.value.path) == ("E_MALFORMED", path)


@given(st.binary(max_size=64), st.data())
def test_any_bytes_give_a_receipt_or_a_check_error(some: bytes, data: st.DataObject) -> None:
    whole = emit_receipt(receipt(3))
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 80)))
    changed = whole[:start] + some + whole[end:]
    found: Callable | None = None
    with suppress(CheckError):
        found = parse_receipt(changed, "r")
    assert found is None or emit_receipt(found) == changed
