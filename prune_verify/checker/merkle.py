"""Salted commitments to sets of records: who holds records and key recomputes the root, nobody else learns them.

Establishes that an opened set is the committed one, record for record and in order, or that one record
stands at one index of it. The tree is that of RFC 9162; leaves are ``sha256(0x00 || salt || record)`` with
``salt_i = HMAC-SHA256(key, be64(i))``, so that a record with few possible values cannot be guessed from its
leaf, and one 32-byte key opens a whole set while one salt opens one record.

Source: RFC 9162 sections 2.1.1 (tree hash), 2.1.3 (inclusion); FORMATS sections 1 and 2; THREATS T13, T19, section 2.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from prune_verify.checker.errors import MalformedInputError, ProofError

__all__ = ["inclusion_path", "leaf_hash", "node_hash", "record_salt", "root_of", "set_root", "verify_inclusion"]

_SIZE = 32
_LEAF = b"\x00"  # the two prefixes keep a node from being passed off as a leaf: the second-preimage attack
_NODE = b"\x01"
_INDICES = 2**64


def _require_hash(value: bytes, path: str) -> None:
    if len(value) != _SIZE:
        raise MalformedInputError(path, "length of a hash", f"{_SIZE} bytes", str(len(value)))


def record_salt(key: bytes, index: int) -> bytes:
    """The salt of one record of a set: HMAC-SHA256 of its index under the set's key.

    Raises:
        MalformedInputError: a key that is not 32 bytes long, or an index that is not in 64 bits.

    """
    if len(key) != _SIZE:
        raise MalformedInputError("commitment key", "length of a key", f"{_SIZE} bytes", str(len(key)))
    if not 0 <= index < _INDICES:
        raise MalformedInputError("record index", "range", "0 <= index < 2^64", str(index)[:40])
    return hmac.digest(key, index.to_bytes(8, "big"), "sha256")


def leaf_hash(salt: bytes, record: bytes) -> bytes:
    """The leaf of a record: SHA-256 of 0x00, its salt and its canonical bytes.

    Raises:
        MalformedInputError: a salt that is not 32 bytes long (part of the record could pose as salt).

    """
    if len(salt) != _SIZE:
        raise MalformedInputError("salt", "length of a salt", f"{_SIZE} bytes", str(len(salt)))
    digest = hashlib.sha256(_LEAF + salt)
    digest.update(record)
    return digest.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256 of 0x01, its ``left`` and its ``right`` child."""
    return hashlib.sha256(_NODE + left + right).digest()


def _parents(level: Sequence[bytes]) -> list[bytes]:
    """The next level up: pairs are hashed, a last node without a sibling moves up as it is (RFC 9162's split)."""
    above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return above if len(level) % 2 == 0 else [*above, level[-1]]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree over leaf hashes.

    Args:
        leaves: at least one hash of 32 bytes each, in order.

    Raises:
        MalformedInputError: no leaf, or one of another length.

    """
    if not leaves:
        raise MalformedInputError("committed set", "size", "at least one record", "0")
    for index, leaf in enumerate(leaves):
        if len(leaf) != _SIZE:
            _require_hash(leaf, f"leaf {index}")
    level = list(leaves)
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def set_root(key: bytes, records: Iterable[bytes]) -> str:
    """The root that commits to a set of canonical records under a key, in lower-case hex.

    Raises:
        MalformedInputError: a key of another length than 32 bytes, or no record.

    """
    return root_of([leaf_hash(record_salt(key, index), record) for index, record in enumerate(records)]).hex()


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The siblings from one of the ``leaves`` up to the root, which :func:`verify_inclusion` accepts.

    Raises:
        MalformedInputError: no leaf, or no leaf of that index.

    """
    _require_index(index, len(leaves))
    path: list[bytes] = []
    level = list(leaves)
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        level, index = _parents(level), index >> 1
    return path


def _require_index(index: int, size: int) -> None:
    if size < 1:
        raise MalformedInputError("tree size", "size", "at least one leaf", str(size)[:40])
    if not 0 <= index < size:
        raise MalformedInputError("leaf index", "index below size", f"0 <= index < {size}"[:80], str(index)[:40])


def verify_inclusion(root: bytes, leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> None:
    """Establish that a leaf hash stands at ``index`` of the tree of ``size`` leaves with this root.

    Args:
        root: 32 bytes, from the certificate.
        leaf: 32 bytes; recompute it with :func:`leaf_hash`, never take it from who supplies the path.
        index: place of the leaf.
        size: number of leaves, from the certificate.
        path: siblings from the leaf upwards, 32 bytes each.

    Raises:
        MalformedInputError: size 0, an index that is not below it, or a hash of another length.
        ProofError: a path of another length than index and size determine, or another root.

    Source: RFC 9162 section 2.1.3.2.

    """
    _require_index(index, size)
    _require_hash(root, "root")
    _require_hash(leaf, "leaf")
    # Below the level where the path meets the tree's right edge every level has a sibling; above it only left ones.
    inner = (index ^ (size - 1)).bit_length()
    length = inner + (index >> inner).bit_count()
    if len(path) != length:
        raise ProofError("inclusion path", "length of the path", str(length), str(len(path)))
    reached = leaf
    for level, sibling in enumerate(path):
        _require_hash(sibling, f"inclusion path/{level}")
        from_left = level >= inner or (index >> level) & 1
        reached = node_hash(sibling, reached) if from_left else node_hash(reached, sibling)
    if not hmac.compare_digest(reached, root):
        raise ProofError("inclusion path", "root", root.hex(), reached.hex())
