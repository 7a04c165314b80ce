"""Commitments and receipts as the commands ``commit``, ``countersign`` and ``receipt make`` write them.

The owner commits to its training set before training; the auditor keeps the commitment, or signs it beside the owner;
data subjects get receipts. What they can check with these files stands in :mod:`prune_verify.checker.commitment`,
:mod:`prune_verify.checker.receipt` and :mod:`prune_verify.checker.check_receipt`.

Source: certs/SPEC.md sections 7.1 and 7.2; FORMATS section 3 (``commit``, ``receipt``); THREATS T13, T19.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from prune_verify import __version__
from prune_verify.audit.key_options import add_secret
from prune_verify.audit.keys import load_private_key
from prune_verify.checker.__main__ import add_receipt_arguments, run_check_receipt
from prune_verify.checker.commitment import (
    MAX_COMMITMENT_BYTES,
    DataCommitment,
    Openings,
    TrainingOpening,
    emit_commitment,
    emit_openings,
    parse_commitment,
    parse_openings,
)
from prune_verify.checker.encoding import format_time, read_file, sha256_hex
from prune_verify.checker.envelope import PAYLOAD_TYPE, parse_envelope
from prune_verify.checker.errors import (
    LimitError,
    MalformedInputError,
    PolicyError,
    SubjectMismatchError,
    UnsupportedVersionError,
)
from prune_verify.checker.merkle import inclusion_path, leaf_hash, record_salt, root_of, set_root
from prune_verify.checker.receipt import FORGET_SET, TRAINING_SET, Receipt, emit_receipt
from prune_verify.checker.records import Records, canonical_records, load_records, parse_canonical_record
from prune_verify.checker.statement import SetCommitment, parse_statement
from prune_verify.files import new_file, replace_file
from prune_verify.signing import sign_payload

__all__ = ["add_verbs", "commit_command", "countersign_command", "receipt_command", "run_verb"]

_SUFFIX, _OPENINGS = ".commitment.json", ".openings.json"
_MOST_BYTES = 2**26
_MOST_NAME = 128

Answer = tuple[int, str, dict[str, object]]


# --- the verbs ---


def add_verbs(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    common: list[argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], object],
) -> None:
    """Add ``commit``, ``countersign``, ``receipt make`` and ``receipt check``.

    Args:
        verbs: of the command line.
        common: parsers of the options that every verb has.
        run: what they run, by :func:`run_verb`.

    """

    def each(
        parsers: argparse._SubParsersAction[argparse.ArgumentParser],
        *listed: tuple[str, Callable[[argparse.ArgumentParser], None], str],
    ) -> None:
        for name, add, text in listed:
            made = parsers.add_parser(name, help=text, description=text, parents=common)
            made.set_defaults(run=run)
            add(made)

    each(
        verbs,
        ("commit", _add_commit, "commit to a training set before training: a signed, salted Merkle root"),
        ("countersign", _add_countersign, "the auditor's signature under a commitment that it was shown"),
    )
    text = "receipts for data subjects: one record of a committed set"
    each(
        verbs.add_parser("receipt", help=text, description=text).add_subparsers(
            dest="action", required=True, metavar="ACTION"
        ),
        ("make", _add_receipt_make, "the owner writes a receipt for one record"),
        ("check", add_receipt_arguments, "a data subject checks a receipt; needs the base install alone"),
    )


def run_verb(options: argparse.Namespace) -> Answer:
    """Run one of the verbs.

    Returns:
        Exit code, text, and the object for ``--json``.

    Raises:
        CheckError: it could not run; for the reasons see the commands.
        OSError: a file exists that must not, or cannot be written.

    """
    if options.verb == "receipt" and options.action == "check":
        verdict = run_check_receipt(options)
        return verdict.exit_code, verdict.text(), verdict.to_json()
    command = {"commit": commit_command, "countersign": countersign_command, "receipt": receipt_command}[options.verb]
    return command(options)


# --- commit ---


def _add_commit(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``commit``."""
    parser.add_argument("records", metavar="RECORDS", help="the training set: npz, csv, or IMAGES,LABELS[:indices.txt]")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PREFIX",
        help="writes PREFIX.commitment.json (public: give it to your auditor before you train) and "
        "PREFIX.openings.json (confidential); neither is ever overwritten",
    )
    parser.add_argument(
        "--key", required=True, metavar="FILE|URI", help="your private key (prune-verify keygen), or one on a token"
    )
    add_secret(parser, "passphrase or PIN")
    parser.add_argument(
        "--name", metavar="TEXT", help="what the set is called in the commitment (default: the name of PREFIX)"
    )
    parser.add_argument("--label-column", metavar="NAME", help="label column of csv records")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json", help="encoding of csv records")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _require_finite(records: Records) -> None:
    """A record with NaN could never be certified: better said before training."""
    if not len(records):
        raise MalformedInputError(records.source, "size of the training set", "at least one record", "0")
    bad = np.argwhere(~np.isfinite(records.rows))
    if len(bad):
        row, place = (int(number) for number in bad[0])
        path, got = f"{records.source}: row {row}, value {place}", str(records.rows[row, place])
        raise MalformedInputError(path, "value in the training set", "a finite number", got)


def commit_command(options: argparse.Namespace) -> Answer:
    """Run ``commit``: a salted root of the training set, signed, and the key that opens it.

    Raises:
        CheckError: the records or the key cannot be used.
        OSError: one of the files exists, or the folder cannot be written.

    """
    prefix: Path = options.out
    name = prefix.name if options.name is None else options.name
    if not 0 < len(name) <= _MOST_NAME or not name.isprintable():
        raise MalformedInputError("--name", "name of a set", "1 to 128 printable characters", repr(name)[:80])
    commitment, openings = (prefix.with_name(prefix.name + suffix) for suffix in (_SUFFIX, _OPENINGS))
    for path in (commitment, openings):
        if path.exists():
            raise FileExistsError(17, "exists already; a commitment is never overwritten", str(path))
    signer = load_private_key(options.key, options.passphrase_env)
    records: Records = load_records(
        options.records, what="training set", label_column=options.label_column, encoding=options.encoding
    )
    _require_finite(records)
    key = secrets.token_bytes(32)
    root = set_root(key, canonical_records(records))
    tool = ("prune-verify", __version__)
    payload = emit_commitment(DataCommitment(name, root, len(records), records.encoding_sha256, _now(), tool))
    envelope, digest = sign_payload(payload, signer), sha256_hex(payload)
    new_file(openings, emit_openings(Openings(None, None, TrainingOpening(key, ()))), 0o600)
    try:
        new_file(commitment, envelope, 0o644)
    except BaseException:
        openings.unlink()  # it opens nothing
        raise
    text = (
        f"wrote {commitment}: {len(records)} records, root {root}\npayload sha256 {digest}\n"
        f"wrote {openings} (confidential: it opens the commitment; without it nothing can be certified against it)\n"
        f"next: give {commitment} to your auditor before you train; certify takes it with --commitment"
    )
    data = {"commitment": str(commitment), "openings": str(openings), "root": root, "size": len(records)}
    return 0, text, data | {"payloadSha256": digest}


# --- countersign ---


def _add_countersign(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``countersign``."""
    parser.add_argument("commitment", type=Path, metavar="C.commitment.json", help="your signature is added in place")
    parser.add_argument(
        "--key", required=True, metavar="FILE|URI", help="your private key, whose public half has role auditor"
    )
    add_secret(parser, "passphrase or PIN")
    parser.add_argument(
        "--hours",
        type=int,
        default=24,
        metavar="H",
        help="refuse a commitment that says it is older (default 24 hours): your signature vouches for its time",
    )


def countersign_command(options: argparse.Namespace) -> Answer:
    """Run ``countersign``: the auditor signs what it was shown, while the time in it is the present one.

    Raises:
        CheckError: no commitment, its time is not now, the key cannot be used or has signed already.
        OSError: the file cannot be written.

    """
    file: Path = options.commitment
    envelope = parse_envelope(read_file(file, "commitment", MAX_COMMITMENT_BYTES), file.name)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise UnsupportedVersionError(f"{file.name}/payloadType", "payload type", PAYLOAD_TYPE, envelope.payload_type)
    found, now = parse_commitment(envelope.payload, f"{file.name}/payload"), _now()
    if not timedelta(0) <= now - found.committed_at <= timedelta(hours=options.hours):
        expected = f"at most {options.hours} hours before {format_time(now)}"
        path = f"{file.name}/payload/predicate/committedAt"
        raise PolicyError(path, "time that a countersignature vouches for", expected, format_time(found.committed_at))
    content = sign_payload(envelope.payload, load_private_key(options.key, options.passphrase_env), envelope.signatures)
    signed = parse_envelope(content, file.name)
    replace_file(file, content)
    digest = sha256_hex(envelope.payload)
    text = (
        f"signed {found.name!a}: {found.size} records, committed at {format_time(found.committed_at)}, "
        f"root {found.root}\npayload sha256 {digest}; {len(signed.signatures)} signatures; keep a copy of {file}"
    )
    return 0, text, {"commitment": str(file), "payloadSha256": digest, "signatures": len(signed.signatures)}


# --- receipt make ---


def _add_receipt_make(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``receipt make``."""
    parser.add_argument("records", metavar="RECORDS", help="the whole set that the record is in, as it was committed")
    of = parser.add_mutually_exclusive_group(required=True)
    of.add_argument("--commitment", type=Path, metavar="C.commitment.json", help="RECORDS is this training set")
    of.add_argument("--certificate", type=Path, metavar="NAME.unlearn.json", help="RECORDS is its forget set")
    parser.add_argument(
        "--openings",
        type=Path,
        metavar="FILE",
        help="default: C.openings.json, or openings.json beside the certificate",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--index", type=int, metavar="I", help="place of the record in RECORDS, from 0")
    which.add_argument("--record", metavar="RECORDS", help="or the record itself: a file of one record")
    parser.add_argument("--label-column", metavar="NAME", help="label column of csv records")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json", help="encoding of csv records")
    parser.add_argument("--out", type=Path, required=True, metavar="R.receipt.json", help="never overwritten")


@dataclass(frozen=True)
class _Source:
    """What commits to a set, and the key that opens it."""

    of: str
    payload_sha256: str
    committed: SetCommitment
    key: bytes


def _source(options: argparse.Namespace) -> _Source:
    """Read the commitment or the certificate of the owner's own, and its openings."""
    if options.commitment is not None:
        file: Path = options.commitment
        payload = parse_envelope(read_file(file, "commitment", MAX_COMMITMENT_BYTES), file.name).payload
        commitment = parse_commitment(payload, f"{file.name}/payload")
        committed = SetCommitment(commitment.root, commitment.size)
        openings = options.openings or file.with_name(file.name.removesuffix(_SUFFIX) + _OPENINGS)
        training = _read_openings(openings).training
        key, of = None if training is None else training.key, TRAINING_SET
    else:
        file = options.certificate
        payload = parse_envelope(read_file(file, "certificate", _MOST_BYTES), file.name).payload
        found = parse_statement(payload, f"{file.name}/payload").forget_set
        if found is None:
            raise SubjectMismatchError(f"{file.name}/payload/predicate/forgetSet", "forget set", "one", "none")
        committed, openings = found, options.openings or file.with_name("openings.json")
        key, of = _read_openings(openings).forget, FORGET_SET
    if key is None:
        raise SubjectMismatchError(str(openings), f"opening of the {of}", "a key", "none")
    return _Source(of, sha256_hex(payload), committed, key)


def _read_openings(path: Path) -> Openings:
    return parse_openings(read_file(path, "openings", _MOST_BYTES), str(path))


def _index(options: argparse.Namespace, canonical: list[bytes], source: str) -> int:
    """The place of the record that the receipt is for."""
    if options.index is not None:
        if not 0 <= options.index < len(canonical):
            raise MalformedInputError("--index", f"index in {source}", f"0 to {len(canonical) - 1}", str(options.index))
        return int(options.index)
    try:
        own = load_records(
            options.record, what="record", label_column=options.label_column, encoding=options.encoding, max_records=1
        )
    except LimitError as error:
        raise MalformedInputError(error.path, "file of one record", "1 record", error.got) from None
    wanted = canonical_records(own)[0]
    if wanted not in canonical:
        raise SubjectMismatchError(options.record, f"record of {source}", "the values and label of one", "none of it")
    return canonical.index(wanted)


def receipt_command(options: argparse.Namespace) -> Answer:
    """Run ``receipt make``: what opens one leaf of a committed set, and nothing of the others.

    Raises:
        CheckError: the files cannot be used, do not belong together, or there is no such record.
        OSError: the receipt exists, or the folder cannot be written.

    """
    source = _source(options)
    records: Records = load_records(
        options.records, what=source.of, label_column=options.label_column, encoding=options.encoding
    )
    canonical = canonical_records(records)
    leaves = [leaf_hash(record_salt(source.key, place), record) for place, record in enumerate(canonical)]
    root = root_of(leaves).hex()
    if (root, len(leaves)) != (source.committed.root, source.committed.size):
        expected = f"{source.committed.size} records with root {source.committed.root}"
        raise SubjectMismatchError(
            records.source, f"{source.of} that was committed", expected, f"{len(leaves)} with root {root}"
        )
    index = _index(options, canonical, records.source)
    salt, path = record_salt(source.key, index), tuple(inclusion_path(leaves, index))
    made = Receipt(source.of, source.payload_sha256, root, len(leaves), index, salt, canonical[index], path)
    new_file(options.out, emit_receipt(made), 0o600)
    label = parse_canonical_record(made.record, "record")[1]
    text = (
        f"wrote {options.out} (confidential: it holds the record): record {index} of the {len(leaves)} of the "
        f"{source.of}, label {label}\nthat person checks it with: prune-verify receipt check {options.out} "
        f"--{'commitment' if source.of == TRAINING_SET else 'certificate'} ... --trust TRUST.json"
    )
    return 0, text, {"receipt": str(options.out), "of": source.of, "index": index, "source": source.payload_sha256}
