"""``receipt check``: a receipt checked by the person whom its record is about, with the base install alone.

 1. the subject's own files: trust store, own record (bad or missing: exit 2, not a verdict)
 2. the commitment or the certificate: envelope, signatures by keys of the trust store, closed statement
 3. the receipt: closed form, of that set, root and size
 4. the path from the record's salted leaf to the root
 5. the subject's own record, where one was brought: the same values, the same label

What a certificate claims of its forget set is decided by :mod:`prune_verify.checker.verify`, not here.
Source: FORMATS section 3 (``receipt``); certs/SPEC.md section 7.2; THREATS T13, T19.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prune_verify.checker.commitment import MAX_COMMITMENT_BYTES, open_commitment, parse_commitment
from prune_verify.checker.encoding import format_time, read_file, sha256_hex
from prune_verify.checker.envelope import open_envelope, parse_envelope
from prune_verify.checker.errors import CheckError, MalformedInputError, SubjectMismatchError
from prune_verify.checker.policy import TrustStore, parse_trust
from prune_verify.checker.receipt import FORGET_SET, MAX_RECEIPT_BYTES, TRAINING_SET, parse_receipt, require_belongs
from prune_verify.checker.records import canonical_records, load_records, parse_canonical_record
from prune_verify.checker.statement import SetCommitment, parse_statement
from prune_verify.checker.verdict import REJECTED, VERIFIED, Check, Roster, Verdict
from prune_verify.checker.verify import MAX_CERTIFICATE_BYTES, MAX_OWN_BYTES

__all__ = ["ReceiptInputs", "check_receipt"]

_UNCHECKED = "commitment_as_brought: without --trust nobody's signature of it was checked"
_COMPARE = "whether the record is yours is for you to compare (--record YOURS)"
_CLAIMS = "what the certificate claims of its forget set, and whether it is still valid, is decided by verify"


@dataclass(frozen=True)
class ReceiptInputs:
    """The files that a data subject brings.

    Args:
        receipt: of one record.
        commitment: the commitment of the training set, or None.
        certificate: or the certificate whose forget set it is.
        trust: trust store; without it the verdict rests on the commitment as it was brought, and says so.
        record: the subject's own record, to be compared: a file of one record.
        label_column: of a csv record.
        encoding: of a csv record.
        at_time: keys count as they are at this time instead of now.

    """

    receipt: Path
    commitment: Path | None = None
    certificate: Path | None = None
    trust: Path | None = None
    record: str | None = None
    label_column: str | None = None
    encoding: Path | None = None
    at_time: datetime | None = None


@dataclass
class _Steps(Roster):
    """What the steps have established so far."""

    inputs: ReceiptInputs
    own: bytes | None


def check_receipt(inputs: ReceiptInputs) -> Verdict:
    """Establish that the record of a receipt stands in the committed set.

    Args:
        inputs: the files.

    Returns:
        VERIFIED: it does; the signed payload is that of the commitment or certificate. REJECTED: anything else.

    Raises:
        CheckError: one of the subject's own files is missing or cannot be used (exit 2).

    """
    source = inputs.certificate if inputs.commitment is None else inputs.commitment
    if source is None or (inputs.commitment is not None and inputs.certificate is not None):
        raise MalformedInputError("--commitment", "set of the receipt", "--commitment or --certificate", "none or both")
    for path in (inputs.receipt, source):
        if not path.is_file():
            raise MalformedInputError(str(path), "a file to check", "a file", "no file of this name")
    trust = None
    if inputs.trust is not None:
        trust = parse_trust(read_file(inputs.trust, "trust store", MAX_OWN_BYTES), str(inputs.trust))  # (1)
    own = None if inputs.record is None else _own(inputs, inputs.record)
    steps = _Steps(inputs, own, now=inputs.at_time or datetime.now(UTC).replace(microsecond=0))
    if inputs.commitment is not None:
        set_of = partial(_committed, steps, source, trust)
    elif trust is not None:
        set_of = partial(_certified, steps, source, trust)
    else:
        text = "one that names the owner's key (prune-verify trust init, trust add)"
        raise MalformedInputError("--trust", "the subject's own trust store", text, "nothing")
    try:
        _receipt(steps, set_of())
    except CheckError as error:
        steps.checks.append(Check.of_error(error))
        return steps.verdict(REJECTED, error.code)
    return steps.verdict(VERIFIED, "OK")


def _own(inputs: ReceiptInputs, spec: str) -> bytes:
    """Step 1: the subject's own record in its canonical bytes."""
    column, encoding = inputs.label_column, inputs.encoding
    found = load_records(spec, what="own record", label_column=column, encoding=encoding, max_records=1)
    return canonical_records(found)[0]


def _committed(steps: _Steps, file: Path, trust: TrustStore | None) -> SetCommitment:
    """Step 2 for a training set."""
    data = read_file(file, "commitment", MAX_COMMITMENT_BYTES)
    if trust is None:
        payload = parse_envelope(data, file.name).payload
        commitment, steps.payload_sha256 = parse_commitment(payload, f"{file.name}/payload"), sha256_hex(payload)
        steps.assumptions.append(_UNCHECKED)
    else:
        opened = open_commitment(data, file.name, trust, steps.now)
        commitment, steps.payload_sha256, steps.signers = opened.commitment, opened.payload_sha256, opened.signers
        steps.signed()
    when = format_time(commitment.committed_at)
    steps.passed("commitment", f"{commitment.name}: {commitment.size} records, committed at {when}")
    return SetCommitment(commitment.root, commitment.size)


def _certified(steps: _Steps, file: Path, trust: TrustStore) -> SetCommitment:
    """Step 2 for a forget set."""
    opened = open_envelope(
        read_file(file, "certificate", MAX_CERTIFICATE_BYTES), file.name, *trust.keys_for("prover", steps.now)
    )
    steps.payload_sha256, steps.signers = opened.payload_sha256, opened.signers
    statement = parse_statement(opened.payload, f"{file.name}/payload")
    if statement.forget_set is None:
        raise SubjectMismatchError("predicate/forgetSet", "forget set of the certificate", "one", "none")
    steps.signed()
    steps.warnings.append(_CLAIMS)
    return statement.forget_set


def _receipt(steps: _Steps, committed: SetCommitment) -> None:
    """Steps 3 to 5."""
    name = steps.inputs.receipt.name
    receipt = parse_receipt(read_file(steps.inputs.receipt, "receipt", MAX_RECEIPT_BYTES), name)  # (3)
    kind = FORGET_SET if steps.inputs.commitment is None else TRAINING_SET
    if receipt.of != kind:
        raise SubjectMismatchError(f"{name}/of", "set of the receipt", kind, receipt.of)
    require_belongs(receipt, name, steps.payload_sha256, committed)  # (4)
    values, label = parse_canonical_record(receipt.record, f"{name}/record")
    about = f"{values.size} values, label {label}, sha256 {sha256_hex(receipt.record)}"
    steps.passed("receipt", f"record {receipt.index} of the {committed.size} of the {kind}: {about}")
    if steps.own is None:  # (5)
        steps.warnings.append(_COMPARE)
        return
    if steps.own != receipt.record:
        raise SubjectMismatchError(f"{name}/record", "your record", f"sha256 {sha256_hex(steps.own)}", about)
    steps.passed("record", "is yours: the same values, the same label")
