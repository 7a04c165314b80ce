"""Commitments: the published inclusion vectors, the definition, and each forgery that a lax tree lets through."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.errors import CheckError, MalformedInputError, ProofError
from prune_verify.checker.merkle import (
    inclusion_path,
    leaf_hash,
    node_hash,
    record_salt,
    root_of,
    set_root,
    verify_inclusion,
)

KEY = bytes(range(32))


def _leaves(count: int) -> list[bytes]:
    return [leaf_hash(record_salt(KEY, i), b"record %d" % i) for i in range(count)]


def _defined_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1 word for word: split at the largest power of two below the size."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = _defined_root(leaves[:split]), _defined_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def test_a_leaf_is_the_hash_of_prefix_salt_and_record() -> None:
    salt = hmac.new(KEY, (5).to_bytes(8, "big"), "sha256").digest()
    assert record_salt(KEY, 5) == salt
    assert leaf_hash(salt, b"abc") == hashlib.sha256(b"\x00" + salt + b"abc").digest()


@pytest.mark.parametrize("count", [*range(1, 34), 63, 64, 65, 100])
def test_the_tree_is_that_of_the_rfc_and_every_leaf_has_its_path(count: int) -> None:
    leaves = _leaves(count)
    root = root_of(leaves)
    assert root == _defined_root(leaves)
    assert set_root(KEY, (b"record %d" % i for i in range(count))) == root.hex()
    for index in range(count):
        verify_inclusion(root, leaves[index], index, count, inclusion_path(leaves, index))


@given(st.integers(1, 40), st.data())
def test_a_path_proves_no_other_leaf_index_or_size(count: int, data: st.DataObject) -> None:
    leaves = _leaves(count)
    root, index = root_of(leaves), data.draw(st.integers(0, count - 1))
    path = inclusion_path(leaves, index)
    other = data.draw(st.integers(0, 63))
    if other != index:
        with pytest.raises(CheckError):
            verify_inclusion(root, leaves[index], other, count, path)
    place = data.draw(st.integers(0, len(path)))
    forged = [*path]
    if place < len(path):
        forged[place] = bytes([forged[place][0] ^ 1]) + forged[place][1:]
    else:
        forged.append(root)
    with pytest.raises(ProofError):
        verify_inclusion(root, leaves[index], index, count, forged)


def _three() -> tuple[list[bytes], bytes, list[bytes]]:
    leaves = _leaves(3)
    return leaves, root_of(leaves), inclusion_path(leaves, 0)


LEAVES, ROOT, PATH = _three()
INNER = node_hash(LEAVES[0], LEAVES[1])

FORGERIES = [
    ("an inner node does not pass for a leaf of a smaller tree", (ROOT, INNER, 0, 3, PATH[1:]), ProofError),
    ("siblings are not exchanged", (ROOT, LEAVES[0], 0, 3, PATH[::-1]), ProofError),
    ("the neighbour's index is not accepted", (ROOT, LEAVES[0], 1, 3, PATH), ProofError),
    ("size 0 holds nothing", (ROOT, LEAVES[0], 0, 0, PATH), MalformedInputError),
    ("a negative size holds nothing", (ROOT, LEAVES[0], 0, -1, PATH), MalformedInputError),
    ("an index at the size is beyond the tree", (ROOT, LEAVES[0], 3, 3, PATH), MalformedInputError),
    ("a negative index is no index", (ROOT, LEAVES[0], -1, 3, PATH), MalformedInputError),
    ("a path that is too short proves nothing", (ROOT, LEAVES[0], 0, 3, PATH[:1]), ProofError),
    ("a path that is too long proves nothing", (ROOT, LEAVES[0], 0, 3, [*PATH, ROOT]), ProofError),
    ("a size of another depth does not fit the path", (ROOT, LEAVES[0], 0, 2**60, PATH), ProofError),
    ("a short root is refused", (ROOT[:31], LEAVES[0], 0, 3, PATH), MalformedInputError),
    ("a long leaf hash is refused", (ROOT, LEAVES[0] + b"\0", 0, 3, PATH), MalformedInputError),
    ("a sibling of another length is refused", (ROOT, LEAVES[0], 0, 3, [PATH[0][:20], PATH[1]]), MalformedInputError),
    ("another root is refused", (LEAVES[0], LEAVES[0], 0, 3, PATH), ProofError),
]


@pytest.mark.parametrize(("sentence", "given_", "error"), FORGERIES, ids=[row[0] for row in FORGERIES])
def test_forged_inclusion(sentence, given_, error) -> None:
    verify_inclusion(ROOT, LEAVES[0], 0, 3, PATH)
    with pytest.raises(error):
        verify_inclusion(*given_)


REFUSALS = [
    ("an empty set has no root", lambda: root_of([]), "committed set"),
    ("a set root of nothing is refused", lambda: set_root(KEY, []), "committed set"),
    ("a leaf of another length is refused", lambda: root_of([ROOT, b"\0" * 31]), "leaf 1"),
    ("a key has 32 bytes", lambda: record_salt(KEY[:31], 0), "commitment key"),
    ("an index fits 64 bits", lambda: record_salt(KEY, 2**64), "record index"),
    ("an index is not negative", lambda: record_salt(KEY, -1), "record index"),
    ("a salt has 32 bytes, so that no byte of the record poses as salt", lambda: leaf_hash(KEY[:31], b"x"), "salt"),
    ("there is no path in an empty tree", lambda: inclusion_path([], 0), "tree size"),
    ("there is no path beyond the last leaf", lambda: inclusion_path(LEAVES, 3), "leaf index"),
]


@pytest.mark.parametrize(("sentence", "call", "path"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_refusals(sentence, call, path) -> None:
    with pytest.raises(MalformedInputError) as caught:
        call()
    assert caught.value.path == path


def test_a_set_is_committed_in_order_under_its_own_key() -> None:
    root = set_root(KEY, [b"a", b"b", b"c"])
    others = [[b"b", b"a", b"c"], [b"a", b"b"], [b"a", b"b", b"c", b"c"], [b"a", b"b", b"d"]]
    assert root not in {set_root(KEY, other) for other in others}
    assert root != set_root(KEY[::-1], [b"a", b"b", b"c"])


def test_the_same_record_twice_has_two_leaves() -> None:
    """A promoted or repeated last leaf (CVE-2012-2459) gives another root than the set without it."""
    assert set_root(KEY, [b"a", b"b", b"c"]) != set_root(KEY, [b"a", b"b", b"c", b"c"])
    leaves = _leaves(3)
    assert root_of(leaves) != root_of([*leaves, leaves[2]])


# How the 98 published vectors are answered: each refusal by the demand that is broken.
ANSWERS = {
    "accepted": 6,
    "inclusion path: length of the path": 36,
    "inclusion path: root": 29,
    "leaf index: index below size": 10,
    "tree size: size": 7,
    "leaf: length of a hash": 7,
    "root: length of a hash": 3,
}


def test_published_inclusion_vectors(shared_data) -> None:
    """Those of transparency-dev/merkle. Its vectors of consistency are for logs that grow: the sets here do not."""
    files = sorted((shared_data / "vectors" / "merkle" / "testdata" / "inclusion").rglob("*.json"))
    found: Counter[str] = Counter()
    for file in files:
        row = json.loads(file.read_text())
        root, leaf, *path = (
            base64.b64decode(text or "") for text in (row["root"], row["leafHash"], *(row["proof"] or []))
        )
        try:
            verify_inclusion(root, leaf, row["leafIdx"], row["treeSize"], path)
        except CheckError as error:
            assert row["wantErr"], row["desc"]
            found[f"{error.path}: {error.rule}"] += 1
        else:
            assert not row["wantErr"], row["desc"]
            found["accepted"] += 1
    assert found == ANSWERS
    assert len(files) == 98


def test_published_vectors_of_inclusion_in_a_subtree(shared_data) -> None:
    """The leaves from start to end are a tree of their own."""
    files = sorted((shared_data / "vectors" / "merkle" / "testdata" / "subtreeinclusion").rglob("*.json"))
    accepted = 0
    for file in files:
        row = json.loads(file.read_text())
        root, leaf, *path = (
            base64.b64decode(text or "") for text in (row["root"], row["leafHash"], *(row["proof"] or []))
        )
        try:
            verify_inclusion(root, leaf, row["leafIdx"] - row["start"], row["end"] - row["start"], path)
        except CheckError:
            assert row["wantErr"], row["desc"]
        else:
            assert not row["wantErr"], row["desc"]
            accepted += 1
    assert (len(files), accepted) == (204, 12)
