"""Vectors about commitments of training sets, and about receipts (SPEC 7.1 and 7.2; T13, T18, T19; THREATS section 2, Merkle)."""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from certs.vector_maker.cases import OK, Build, Case, Files, Note, refused, undecided, unusable
from certs.vector_maker.owner import CERTIFICATE, Chain, key, npz, policy, sets, sign
from prune_verify.checker.encoding import canonical_json, sha256_hex
from prune_verify.checker.envelope import PAYLOAD_TYPE, Envelope, emit_envelope
from prune_verify.checker.merkle import inclusion_path, leaf_hash, node_hash, record_salt, root_of
from prune_verify.checker.records import canonical_record

__all__ = ["CASES", "COMMAND", "NOTES", "WITHOUT_CASES"]

F = np.float32
_X, _Y, _OTHERS, _LABELS = sets()
_PLACES = (20, 7, 44, 0)  # of the forget records in the training set
_SIZE = len(_PLACES) + len(_LABELS)
_NAME, _RECEIPT = "train.commitment.json", "r.receipt.json"
_OPENED = "openings.json/training"
WORDS = ("--commitment", _NAME)
COMMAND = (
    CERTIFICATE, "--base", "base.onnx", "--patched", "patched.onnx", "--trust", "trust.json", "--policy", "policy.toml",
    "--forget", "forget.npz", "--retain", "retain.npz", "--at-time", "2030-01-01T00:00:00Z", "--json", *WORDS,
)  # fmt: skip
_SHOWN = ("--receipt", _RECEIPT)


def _key(which: str = "training") -> bytes:
    return hashlib.sha256(f"prune-verify test opening: {which}".encode()).digest()


def _records() -> list[bytes]:
    """The canonical records of the training set."""
    forgotten, retained = (
        [canonical_record(row, int(label)) for row, label in zip(rows, labels, strict=True)]
        for rows, labels in ((_X, _Y), (_OTHERS, _LABELS))
    )
    placed, others = dict(zip(_PLACES, forgotten, strict=True)), iter(retained)
    return [placed[place] if place in placed else next(others) for place in range(_SIZE)]


def _leaves(records: Sequence[bytes]) -> list[bytes]:
    return [leaf_hash(record_salt(_key(), place), record) for place, record in enumerate(records)]


def _payload(leaves: Sequence[bytes], change: Callable[[dict[str, Any]], object] = lambda _: None) -> bytes:
    document: dict[str, Any] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "train", "digest": {"saltedMerkleSha256": root_of(leaves).hex()}}],
        "predicateType": "https://prune-verify.example/data-commitment/v1",
        "predicate": {
            "purpose": "training-set",
            "size": len(leaves),
            "encodingSha256": None,
            "committedAt": "2029-01-01T00:00:00Z",
            "tool": {"name": "prune-verify vectors", "version": "1"},
        },
    }
    change(document)
    return canonical_json(document)


def _signed(payload: bytes, signers: Iterable[str] = ("owner", "auditor")) -> bytes:
    names = [*signers]
    return (
        sign(payload, *(key(name) for name in names)) if names else emit_envelope(Envelope(PAYLOAD_TYPE, payload, ()))
    )


def _openings(
    chain: Chain, indices: Sequence[int] = _PLACES, twins: Sequence[tuple[int, bytes]] = (), opening: bytes = b""
) -> bytes:
    """openings.json with a member ``training``."""
    listed = [{"index": place, "record": b64encode(record).decode()} for place, record in twins]
    training = {"key": (opening or _key()).hex(), "forgetIndices": [*indices], "twins": listed}
    return canonical_json(json.loads(chain.files["openings.json"]) | {"training": training})


def _files(
    chain: Chain,
    leaves: Sequence[bytes] | None = None,
    *,
    indices: Sequence[int] = _PLACES,
    twins: Sequence[tuple[int, bytes]] = (),
    opening: bytes = b"",
) -> Files:
    """A commitment, and openings with a member ``training``."""
    made = _leaves(_records()) if leaves is None else leaves
    return {_NAME: _signed(_payload(made)), "openings.json": _openings(chain, indices, twins, opening)}


def _committed(
    change: Callable[[list[bytes]], list[bytes]], leaves: Callable[[Sequence[bytes]], list[bytes]] = _leaves
) -> Build:
    """Another training set was committed to; the owner opens it as it opened the right one."""
    return lambda chain: _files(chain, leaves(change(_records())))


def _opened(indices: Sequence[int] = _PLACES, twins: Sequence[tuple[int, bytes]] = (), opening: bytes = b"") -> Build:
    return lambda chain: _files(chain, indices=indices, twins=twins, opening=opening)


def _stated(place: str, value: object) -> Build:
    """A statement that says something else, signed by owner and auditor."""

    def change(document: dict[str, Any]) -> None:
        *parents, last = place.split("/")
        target: Any = document
        for name in parents:
            target = target[int(name)] if isinstance(target, list) else target[name]
        target[last] = value

    return lambda chain: _files(chain) | {_NAME: _signed(_payload(_leaves(_records()), change))}


def _by(*signers: str, demands: bool = True) -> Build:
    """The right commitment with these signatures; the policy demands a countersignature."""

    def build(chain: Chain) -> Files:
        found = _files(chain) | {_NAME: _signed(_payload(_leaves(_records())), signers)}
        return found | ({"policy.toml": _demanding("require_countersignature")} if demands else {})

    return build


def _demanding(*names: str) -> bytes:
    return policy(**dict.fromkeys(names, "true"))


def _put(place: int, record: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda records: [record if i == place else old for i, old in enumerate(records)]


def _near(step: float) -> bytes:
    row = _X[0].copy()
    row[5] = np.nextafter(row[5], F(2)) if step == 0 else row[5] + F(step)
    return canonical_record(row, int(_Y[0]))


_TWIN = canonical_record(_X[2], int((_Y[2] + 1) % 4))
_STRANGER = canonical_record(1 - _OTHERS[3], int(_LABELS[3]))


def _twin(allowed: int) -> Build:
    def build(chain: Chain) -> Files:
        found = _files(chain, _leaves([*_records(), _TWIN]), twins=((_SIZE, _TWIN),))
        return found | {"policy.toml": policy(max_conflicts=str(allowed))}

    return build


def _left_out(chain: Chain) -> Files:
    return _files(chain, _leaves([*_records(), _STRANGER]), twins=((_SIZE, _STRANGER),))


def _unsalted(records: Sequence[bytes]) -> list[bytes]:
    return [hashlib.sha256(b"\0" + record).digest() for record in records]


def _inner(records: Sequence[bytes]) -> list[bytes]:
    leaves = _leaves(records)
    return [*(node_hash(a, b) for a, b in zip(leaves[:-1:2], leaves[1::2], strict=True)), leaves[-1]]


def _same(records: list[bytes]) -> list[bytes]:
    return records


# --- receipts ---


def _receipt(
    leaves: Sequence[bytes], records: Sequence[bytes], index: int, of: str, source: bytes, opening: bytes
) -> dict[str, Any]:
    return {
        "formatVersion": 1,
        "of": of,
        "source": sha256_hex(source),
        "root": root_of(leaves).hex(),
        "size": len(leaves),
        "index": index,
        "salt": record_salt(opening, index).hex(),
        "record": b64encode(records[index]).decode(),
        "path": [sibling.hex() for sibling in inclusion_path(leaves, index)],
    }


def _training(index: int = _PLACES[0], change: Callable[[dict[str, Any]], object] = lambda _: None) -> Build:
    """A receipt of the training set, changed."""

    def build(chain: Chain) -> Files:
        leaves = _leaves(_records())
        made = _receipt(leaves, _records(), index, "training-set", _payload(leaves), _key())
        change(made)
        return _files(chain) | {_RECEIPT: canonical_json(made)}

    return build


def _forgotten(index: int = 1, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Build:
    """A receipt of the forget set of the certificate, changed."""

    def build(chain: Chain) -> Files:
        opening = bytes.fromhex(json.loads(chain.files["openings.json"])["forget"])
        records = [canonical_record(row, int(label)) for row, label in zip(_X, _Y, strict=True)]
        leaves = [leaf_hash(record_salt(opening, place), record) for place, record in enumerate(records)]
        made = _receipt(leaves, records, index, "forget-set", chain.files["statement.json"], opening)
        change(made)
        return {_RECEIPT: canonical_json(made)}

    return build


def _set(**members: object) -> Callable[[dict[str, Any]], object]:
    return lambda made: made.update(members)


def _path(change: Callable[[list[str]], list[str]]) -> Callable[[dict[str, Any]], object]:
    return lambda made: made.update(path=change(made["path"]))


def _inner_node(made: dict[str, Any]) -> None:
    """The children of an inner node as a record, one level up."""
    made["record"] = b64encode(bytes(32) + bytes.fromhex(made["path"][0])).decode()
    made |= {"path": made["path"][1:], "index": made["index"] // 2, "size": (made["size"] + 1) // 2}


_ANY_SET = ("Commitment", "CommittedSet", "CommittedOpening", "CommitmentSigners", "Receipt")
_HONEST, _OTHER, _OPEN, _WHO, _SLIP = _ANY_SET
_STATED = f"{_NAME}/payload"
_ROOT = refused("SUBJECT", "commitment/root")

CASES = [
    Case(_HONEST, "the sets are the training set that was committed to", _files, OK),
    Case(_HONEST, "the policy demands it, with the auditor's signature", lambda c: _files(c) | {"policy.toml": _demanding("require_commitment", "require_countersignature")}, OK),
    Case(_HONEST, "no opening of the training set", lambda _: {_NAME: _signed(_payload(_leaves(_records())))}, undecided("DATA_MISSING")),
    Case(_HONEST, "no openings of the training set, or of any other", lambda c: _files(c) | {"openings.json": {"absent": True}}, undecided("DATA_MISSING")),
    Case(_HONEST, "no commitment of this name", lambda _: {_NAME: {"absent": True}}, unusable("MALFORMED", _NAME)),
    Case(_OTHER, "a near-duplicate of the record is forgotten in its place", _committed(_put(_PLACES[0], _near(2**-8))), _ROOT),
    Case(_OTHER, "one float32 step beside the record", _committed(_put(_PLACES[0], _near(0))), _ROOT),
    Case(_OTHER, "the record was trained on under another label", _committed(_put(_PLACES[2], _TWIN)), _ROOT),
    Case(_OTHER, "a zero of the other sign is another record", _committed(_put(1, canonical_record(np.where(_OTHERS[0] == 0, F(-0.0), _OTHERS[0]), int(_LABELS[0])))), _ROOT),
    Case(_OTHER, "a record that was never used is forgotten", _committed(lambda records: records[:7] + records[8:]), refused("SUBJECT", "commitment/predicate/size")),
    Case(_OTHER, "a hard record is left out of the retained set", _committed(lambda records: [*records, _STRANGER]), refused("SUBJECT", "commitment/predicate/size")),
    Case(_OTHER, "a hard record is exchanged for an easy one", _committed(_put(3, _STRANGER)), _ROOT),
    Case(_OTHER, "another order", _committed(lambda records: [*records[1:], records[0]]), _ROOT),
    Case(_OTHER, "leaves without salt in the commitment", _committed(_same, _unsalted), _ROOT),
    Case(_OTHER, "inner nodes pass for leaves: the same root, half the size", _committed(_same, _inner), refused("SUBJECT", "commitment/predicate/size")),
    Case(_OPEN, "one place for two records", _opened((20, 20, 44, 0)), refused("MALFORMED", _OPENED)),
    Case(_OPEN, "a place beyond the set", _opened((20, 7, _SIZE, 0)), refused("MALFORMED", _OPENED)),
    Case(_OPEN, "two places exchanged", _opened((7, 20, 44, 0)), _ROOT),
    Case(_OPEN, "a place too few", _opened(_PLACES[:3]), refused("SUBJECT", f"{_OPENED}/forgetIndices")),
    Case(_OPEN, "another key of the training set", _opened(opening=_key("another")), _ROOT),
    Case(_OPEN, "a record in neither set that is no twin", _left_out, refused("POLICY", f"{_OPENED}/twins/0/record")),
    Case(_OPEN, "a twin, where the policy allows no conflict", _twin(0), refused("POLICY", f"{_OPENED}/twins")),
    Case(_OPEN, "a twin, where the policy allows one", _twin(1), OK),
    Case(_HONEST, "made after the certificate", _stated("predicate/committedAt", "2029-12-01T00:00:01Z"), refused("POLICY", "commitment/predicate/committedAt")),
    Case(_HONEST, "made in the second of the certificate", _stated("predicate/committedAt", "2029-12-01T00:00:00Z"), OK),
    Case(_HONEST, "another encoding", _stated("predicate/encodingSha256", "ab" * 32), refused("SUBJECT", "predicate/semantics/encodingSha256")),
    Case(_HONEST, "another purpose", _stated("predicate/purpose", "test-set"), refused("MALFORMED", f"{_STATED}/predicate/purpose")),
    Case(_HONEST, "size 0", _stated("predicate/size", 0), refused("MALFORMED", f"{_STATED}/predicate/size")),
    Case(_HONEST, "a root of 31 bytes in the commitment", _stated("subject/0/digest", {"saltedMerkleSha256": "ab" * 31}), refused("MALFORMED", f"{_STATED}/subject/0/digest/saltedMerkleSha256")),
    Case(_HONEST, "a digest of another name", _stated("subject/0/digest", {"sha256": "ab" * 32}), refused("MALFORMED", f"{_STATED}/subject/0/digest")),
    Case(_HONEST, "a certificate in the commitment's place", lambda c: _files(c) | {_NAME: c.files[CERTIFICATE]}, refused("UNSUPPORTED", f"{_STATED}/predicateType")),
    Case(_WHO, "signed by nobody", _by(), refused("MALFORMED", f"{_NAME}/signatures")),
    Case(_WHO, "signed by a stranger", _by("stranger"), refused("SIGNATURE", f"{_NAME}/signatures")),
    Case(_WHO, "signed by the auditor alone", _by("auditor"), refused("SIGNATURE", f"{_NAME}/signatures")),
    Case(_WHO, "not countersigned, which the policy demands", _by("owner"), refused("SIGNATURE", f"{_NAME}/signatures")),
    Case(_WHO, "countersigned by a stranger", _by("owner", "stranger"), refused("SIGNATURE", f"{_NAME}/signatures")),
    Case(_WHO, "not countersigned, which the policy does not demand", _by("owner", demands=False), OK),
    Case(_SLIP, "a receipt of a forgotten record of the training set", _training(), OK, _SHOWN),
    Case(_SLIP, "its record is retained", _training(3), refused("SUBJECT", f"{_RECEIPT}/record"), _SHOWN),
    Case(_SLIP, "another record", _training(change=_set(record=b64encode(_near(2**-8)).decode())), refused("PROOF", f"{_RECEIPT}/path"), _SHOWN),
    Case(_SLIP, "another salt", _training(change=_set(salt="00" * 32)), refused("PROOF", f"{_RECEIPT}/path"), _SHOWN),
    Case(_SLIP, "another index", _training(change=_set(index=21)), refused("PROOF", f"{_RECEIPT}/path"), _SHOWN),
    Case(_SLIP, "another size", _training(change=_set(size=_SIZE + 1)), refused("SUBJECT", f"{_RECEIPT}/size"), _SHOWN),
    Case(_SLIP, "another commitment", _training(change=_set(source="00" * 32)), refused("SUBJECT", f"{_RECEIPT}/source"), _SHOWN),
    Case(_SLIP, "an index at the size", _training(change=_set(index=_SIZE)), refused("MALFORMED", f"{_RECEIPT}/index"), _SHOWN),
    Case(_SLIP, "a sibling of 31 bytes", _training(change=_path(lambda path: [path[0][2:], *path[1:]])), refused("MALFORMED", f"{_RECEIPT}/path/0"), _SHOWN),
    Case(_SLIP, "a path that is too short", _training(change=_path(lambda path: path[:-1])), refused("PROOF", f"{_RECEIPT}/path"), _SHOWN),
    Case(_SLIP, "an inner node passes for a record", _training(change=_inner_node), refused("MALFORMED", f"{_RECEIPT}/record"), _SHOWN),
]  # fmt: skip

WITHOUT_CASES = [
    Case(_HONEST, "no commitment, which the policy demands", lambda _: {"policy.toml": _demanding("require_commitment")}, undecided("DATA_MISSING")),
    Case(_HONEST, "an opening of a training set that nobody asked for", lambda c: {"openings.json": _openings(c)}, OK),
    Case(_OPEN, "an index of the opening below 0", lambda c: {"openings.json": _openings(c, (-1, 7, 44, 0))}, refused("MALFORMED", f"{_OPENED}/forgetIndices/0")),
    Case(_SLIP, "a receipt of a training set whose commitment is not at hand", _training(_PLACES[1]), undecided("DATA_MISSING"), _SHOWN),
    Case(_SLIP, "a receipt of a record of the forget set", _forgotten(), OK, _SHOWN),
    Case(_SLIP, "a receipt of another certificate", _forgotten(change=_set(source="00" * 32)), refused("SUBJECT", f"{_RECEIPT}/source"), _SHOWN),
    Case(_SLIP, "the neighbour's index", _forgotten(change=_set(index=0)), refused("PROOF", f"{_RECEIPT}/path"), _SHOWN),
    Case(_SLIP, "no receipt of this name", lambda _: {}, unusable("MALFORMED", _RECEIPT), _SHOWN),
    Case(_SLIP, "the retained set is not shown", lambda c: _forgotten()(c) | {"openings.json": canonical_json(json.loads(c.files["openings.json"]) | {"retain": None})}, undecided("DATA_MISSING"), _SHOWN),  # type: ignore[operator] # files
    Case(_OTHER, "other records are shown than the receipt's", lambda c: _forgotten()(c) | {"forget.npz": npz(_X[::-1], _Y[::-1])}, refused("SUBJECT", "predicate/forgetSet/root"), _SHOWN),  # type: ignore[operator] # files
]  # fmt: skip

NOTES = {
    _HONEST: Note("BINDING", "1 T13", "Another set than the training set was committed to, or after the fact, and is taken for it."),
    _OTHER: Note("BINDING", "1 T13", "Records that were never trained on are forgotten, or hard ones are left out of the retained set."),
    _OPEN: Note("BINDING", "2 Merkle: committed set differs from opened set", "The owner says how the training set is put together, and is believed."),
    _WHO: Note("SIGNATURE", "1 T13", "The owner commits after the fact and writes an earlier time: nobody else has signed it."),
    _SLIP: Note("BINDING", "2 Merkle: index >= size", "A data subject's record is said to be forgotten because some other leaf of some tree is there."),
}  # fmt: skip
