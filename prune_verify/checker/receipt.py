"""Receipts: one record of a committed set, for the person whom it is about and for whoever that person shows it to.

Establishes that a record stands at one index of a committed training set, or of the forget set of a certificate; and,
in the verification of a certificate, that this very record is among the forgotten ones. One salt and one path open one
leaf and tell nothing of the other records.

Source: certs/SPEC.md section 7.2; RFC 9162 section 2.1.3; FORMATS section 3 (``receipt``); THREATS T13, T19.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

from prune_verify.checker.commitment import OpenedCommitment
from prune_verify.checker.encoding import (
    Json,
    Members,
    canonical_json,
    parse_base64,
    parse_digest,
    parse_json,
    read_file,
)
from prune_verify.checker.errors import ProofError, SubjectMismatchError
from prune_verify.checker.merkle import leaf_hash, verify_inclusion
from prune_verify.checker.records import Records, canonical_records, parse_canonical_record, value_keys
from prune_verify.checker.statement import SetCommitment, Statement
from prune_verify.checker.verify_claims import DATA_MISSING, Run

__all__ = [
    "FORGET_SET",
    "TRAINING_SET",
    "Receipt",
    "check_receipts",
    "emit_receipt",
    "parse_receipt",
    "require_belongs",
]

FORGET_SET, TRAINING_SET = "forget-set", "training-set"
MAX_RECEIPT_BYTES = 2**26
_LONGEST_PATH = 64


@dataclass(frozen=True)
class Receipt:
    """One record with what opens its leaf.

    Args:
        of: ``training-set`` of a commitment, or ``forget-set`` of a certificate.
        source_sha256: the payload of that commitment or certificate.
        root: of the set, hex.
        size: of the set.
        index: place of the record, from 0.
        salt: of its leaf, 32 bytes.
        record: canonical bytes, label and all.
        path: siblings from the leaf upwards, 32 bytes each.

    """

    of: str
    source_sha256: str
    root: str
    size: int
    index: int
    salt: bytes
    record: bytes
    path: tuple[bytes, ...]


def parse_receipt(data: bytes, path: str) -> Receipt:
    """Read a receipt; nothing in it is believed.

    Raises:
        MalformedInputError: not of the closed form, not canonical, or no record.

    """
    names = ("formatVersion", "of", "source", "root", "size", "index", "salt", "record", "path")
    fields = Members(parse_json(data, path, canonical=True), path, names)
    fields.integer("formatVersion", least=1, most=1)
    size = fields.integer("size", least=1)
    siblings = fields.items("path", most=_LONGEST_PATH)
    record = parse_base64(fields.raw("record"), fields.place("record"))
    parse_canonical_record(record, fields.place("record"))
    return Receipt(
        of=fields.text("of", among=(FORGET_SET, TRAINING_SET)),
        source_sha256=fields.digest("source"),
        root=fields.digest("root"),
        size=size,
        index=fields.integer("index", most=size - 1),
        salt=bytes.fromhex(fields.digest("salt")),
        record=record,
        path=tuple(bytes.fromhex(parse_digest(h, f"{fields.place('path')}/{i}")) for i, h in enumerate(siblings)),
    )


def emit_receipt(receipt: Receipt) -> bytes:
    """The canonical bytes of a receipt."""
    siblings: list[Json] = [sibling.hex() for sibling in receipt.path]
    return canonical_json(
        {
            "formatVersion": 1,
            "of": receipt.of,
            "source": receipt.source_sha256,
            "root": receipt.root,
            "size": receipt.size,
            "index": receipt.index,
            "salt": receipt.salt.hex(),
            "record": b64encode(receipt.record).decode(),
            "path": siblings,
        }
    )


def require_belongs(receipt: Receipt, name: str, source_sha256: str, committed: SetCommitment) -> None:
    """Establish that the record stands at its index of the committed set: computed from record, salt and path.

    Args:
        receipt: as it was read.
        name: of its file, for errors.
        source_sha256: payload of the commitment or certificate.
        committed: root and size that stand there.

    Raises:
        SubjectMismatchError: a receipt of another set.
        ProofError: another record, salt, index or path.

    """
    for member, expected, got in (
        ("source", source_sha256, receipt.source_sha256),
        ("root", committed.root, receipt.root),
        ("size", str(committed.size), str(receipt.size)),
    ):
        if expected != got:
            raise SubjectMismatchError(f"{name}/{member}", f"{receipt.of} that the receipt belongs to", expected, got)
    leaf = leaf_hash(receipt.salt, receipt.record)
    try:
        verify_inclusion(bytes.fromhex(committed.root), leaf, receipt.index, committed.size, receipt.path)
    except ProofError as error:  # say which receipt
        raise ProofError(f"{name}/path", error.rule, error.expected, error.got) from None


# --- in the verification of a certificate: step 8 ---


def check_receipts(
    run: Run, statement: Statement, forget: Records | None, retain: Records | None, opened: OpenedCommitment | None
) -> None:
    """Establish that each receipt's record, values and label, is one of the forget set; note it in the roster.

    Args:
        run: with the receipts that the auditor brings.
        statement: of the certificate.
        forget: the opened forget set.
        retain: the opened retained set; it shares no values with the forget set, so a record of that is not in this.
        opened: the commitment, where the auditor brought one.

    Raises:
        CheckError: a receipt is not of the set that it names, or its record is not forgotten.

    """
    files = run.inputs.receipts
    known = canonical_records(forget) if files and forget is not None else []
    places = {record: place for place, record in reversed([*enumerate(known)])}
    for file in files:
        receipt = parse_receipt(read_file(file, "receipt", MAX_RECEIPT_BYTES), file.name)
        committed = _committed(receipt, run, statement, opened)
        if committed is None or forget is None or retain is None:
            which = "forget" if forget is None else "retained"
            missing = f"no commitment of its {receipt.of} (--commitment)" if committed is None else f"no {which} set"
            run.open(f"receipt {file.name}", "SKIP", missing, DATA_MISSING)
            continue
        require_belongs(receipt, file.name, *committed)
        if receipt.record not in places:
            got = _among(receipt, retain)
            raise SubjectMismatchError(f"{file.name}/record", "forgotten record", "one of the forget set", got)
        detail = f"record {receipt.index} of the {receipt.of} is forget record {places[receipt.record]}"
        run.passed(f"receipt {file.name}", f"{detail}, with its label, and no retained record has its values")


def _committed(
    receipt: Receipt, run: Run, statement: Statement, opened: OpenedCommitment | None
) -> tuple[str, SetCommitment] | None:
    """The payload that commits to the receipt's set, and to what."""
    if receipt.of == FORGET_SET:
        return None if statement.forget_set is None else (run.payload_sha256, statement.forget_set)
    if opened is None:
        return None
    return opened.payload_sha256, SetCommitment(opened.commitment.root, opened.commitment.size)


def _among(receipt: Receipt, retain: Records) -> str:
    """Where the values of a record that is not forgotten stand instead."""
    values, _ = parse_canonical_record(receipt.record, "record")
    key, found = value_keys(values[None])[0], value_keys(retain.rows)
    return f"retained record {found.index(key)}" if key in found else "a record of neither set"
