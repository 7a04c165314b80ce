"""Commitments of training sets, made before training, and what opens them.

Establishes that the forget set and the retained set together ARE the set that the owner committed to, record for
record: no record was invented, swapped for a near twin, or left out because it is hard to retain. A commitment is a
signed statement about a salted Merkle root; it tells nothing of the records. The auditor brings it, as it was received
before training, so that it may steer; everything that the owner supplies to open it is computed again.

Source: certs/SPEC.md section 7.1; FORMATS sections 2 and 3 (``commit``); THREATS T13, T19; in-toto Statement v1.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from prune_verify.checker.encoding import (
    Json,
    Members,
    canonical_json,
    format_time,
    parse_base64,
    parse_json,
    read_file,
)
from prune_verify.checker.envelope import open_envelope
from prune_verify.checker.errors import MalformedInputError, PolicyError, SubjectMismatchError
from prune_verify.checker.merkle import set_root
from prune_verify.checker.policy import TrustStore
from prune_verify.checker.records import Records, canonical_records, parse_canonical_record, value_keys
from prune_verify.checker.statement import STATEMENT_TYPE, Statement, parse_outer
from prune_verify.checker.verdict import named_signers
from prune_verify.checker.verify_claims import DATA_MISSING, Run

__all__ = [
    "DataCommitment",
    "OpenedCommitment",
    "Openings",
    "TrainingOpening",
    "check_commitment",
    "emit_commitment",
    "emit_openings",
    "open_commitment",
    "parse_commitment",
    "parse_openings",
]

PREDICATE_TYPE = "https://prune-verify.example/data-commitment/v1"
PURPOSE = "training-set"  # whoever countersigns sees what the set will be used as
MAX_COMMITMENT_BYTES = 2**20
_ROOT = "saltedMerkleSha256"
_NOT_SHOWN = "the commitment says which set was called the training set: that the base was trained on it is not shown"
_OWN_WORD = "the time of the commitment is its signers' word: the policy asks for no countersignature of an auditor"


@dataclass(frozen=True)
class DataCommitment:
    """What is committed to.

    Args:
        name: the set, in the owner's words.
        root: salted Merkle root, hex.
        size: number of records.
        encoding_sha256: digest of the encoding of tabular records, or None.
        committed_at: when, in the signers' words.
        tool: name and version of the program.

    """

    name: str
    root: str
    size: int
    encoding_sha256: str | None
    committed_at: datetime
    tool: tuple[str, str]


@dataclass(frozen=True)
class OpenedCommitment:
    """A commitment that trusted keys have signed.

    Args:
        commitment: what they signed.
        payload_sha256: its identity.
        signers: (keyid, name) of the owner's keys.
        countersigners: of the auditors' keys, where they were demanded.

    """

    commitment: DataCommitment
    payload_sha256: str
    signers: tuple[tuple[str, str], ...]
    countersigners: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class TrainingOpening:
    """How the committed training set is put together from the forget and the retained set.

    Args:
        key: of the commitment, 32 bytes.
        forget_indices: the place in the training set of each forget record, in the order of the forget set.
        twins: (place, canonical record) of training records in neither set: their values are those of a forget record,
            so that no program could retain them. All other places are those of the retained records, in their order.

    """

    key: bytes
    forget_indices: tuple[int, ...]
    twins: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True)
class Openings:
    """``openings.json``: a key for each committed set, and how the training set is opened, where it was committed."""

    forget: bytes | None
    retain: bytes | None
    training: TrainingOpening | None = None


# --- the statement ---


def parse_commitment(payload: bytes, path: str) -> DataCommitment:
    """Read the statement of a commitment, the payload of its envelope.

    Raises:
        MalformedInputError: not of the closed form, or not canonical.
        UnsupportedVersionError: another statement or predicate type.

    """
    outer, subject = parse_outer(payload, path, PREDICATE_TYPE)
    fields = outer.members("predicate", ("purpose", "size", "encodingSha256", "committedAt", "tool"))
    fields.text("purpose", among=(PURPOSE,))
    tool = fields.members("tool", ("name", "version"))
    return DataCommitment(
        name=subject.text("name", longest=128),
        root=subject.members("digest", (_ROOT,)).digest(_ROOT),
        size=fields.integer("size", least=1),
        encoding_sha256=None if fields.null("encodingSha256") else fields.digest("encodingSha256"),
        committed_at=fields.time("committedAt"),
        tool=(tool.text("name"), tool.text("version")),
    )


def emit_commitment(commitment: DataCommitment) -> bytes:
    """The canonical bytes of the statement of a commitment."""
    predicate: Json = {
        "purpose": PURPOSE,
        "size": commitment.size,
        "encodingSha256": commitment.encoding_sha256,
        "committedAt": format_time(commitment.committed_at),
        "tool": dict(zip(("name", "version"), commitment.tool, strict=True)),
    }
    subject: Json = [{"name": commitment.name, "digest": {_ROOT: commitment.root}}]
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": predicate}
    )


def open_commitment(
    data: bytes, path: str, trust: TrustStore, now: datetime, *, countersigned: bool = False
) -> OpenedCommitment:
    """Establish that the owner's keys signed a commitment, and auditors' keys where that is demanded.

    Args:
        data: the envelope.
        path: its name, for errors.
        trust: the auditor's trust store; owners have role prover.
        now: keys count as they are at this time.
        countersigned: demand as many keys with role auditor as the trust store's threshold says.

    Raises:
        CheckError: no envelope, no such signatures, or no commitment.

    """
    opened = open_envelope(data, path, *trust.keys_for("prover", now))
    auditors = open_envelope(data, path, *trust.keys_for("auditor", now)).signers if countersigned else ()
    commitment = parse_commitment(opened.payload, f"{path}/payload")
    return OpenedCommitment(commitment, opened.payload_sha256, opened.signers, auditors)


# --- openings.json ---


def parse_openings(data: bytes, path: str) -> Openings:
    """Read ``openings.json``; member ``training`` is there only where a training set was committed.

    Raises:
        MalformedInputError: not of the closed form, or an index twice.

    """
    value = parse_json(data, path)
    more = ("training",) if isinstance(value, dict) and "training" in value else ()
    fields = Members(value, path, ("formatVersion", "forget", "retain", *more))
    fields.integer("formatVersion", least=1, most=1)
    keys = {name: None if fields.null(name) else bytes.fromhex(fields.digest(name)) for name in ("forget", "retain")}
    training = _training(fields.members("training", ("key", "forgetIndices", "twins"))) if more else None
    return Openings(keys["forget"], keys["retain"], training)


def _training(fields: Members) -> TrainingOpening:
    twins, indices = [], []
    for place, item in enumerate(fields.items("twins")):
        one = Members(item, f"{fields.place('twins')}/{place}", ("index", "record"))
        twins.append((one.integer("index"), parse_base64(one.raw("record"), one.place("record"))))
    for place, index in enumerate(fields.items("forgetIndices")):  # in the order of the forget set, so not ascending
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise MalformedInputError(f"{fields.place('forgetIndices')}/{place}", "index", "from 0", repr(index)[:40])
        indices.append(index)
    return TrainingOpening(bytes.fromhex(fields.digest("key")), tuple(indices), tuple(twins))


def emit_openings(openings: Openings) -> bytes:
    """The canonical bytes of ``openings.json``."""
    value: dict[str, Json] = {"formatVersion": 1}
    for name, key in (("forget", openings.forget), ("retain", openings.retain)):
        value[name] = None if key is None else key.hex()
    if openings.training is not None:
        twins: list[Json] = [{"index": i, "record": b64encode(r).decode()} for i, r in openings.training.twins]
        indices: list[Json] = list(openings.training.forget_indices)
        value["training"] = {"key": openings.training.key.hex(), "forgetIndices": indices, "twins": twins}
    return canonical_json(value)


# --- step 8 of verification ---


def check_commitment(
    run: Run, statement: Statement, forget: Records | None, retain: Records | None, training: TrainingOpening | None
) -> OpenedCommitment | None:
    """Establish that forget and retained set together are the committed training set; note it in the roster.

    Args:
        run: with the commitment and the policy that the auditor brings.
        statement: of the certificate.
        forget: the opened forget set, as it was committed in the certificate.
        retain: the opened retained set; both are known to be disjoint.
        training: how the owner says that the training set is put together.

    Returns:
        The commitment, where one was given; only the roster says whether the sets were compared with it.

    Raises:
        CheckError: the commitment is not one that the policy accepts, or the sets contradict it.

    """
    file, policy = run.inputs.commitment, run.policy
    if file is None:
        if policy.require_commitment and "records" in statement.request_kind:
            run.open("commitment", "SKIP", "the policy demands the training set's (--commitment)", DATA_MISSING)
        return None
    data = read_file(file, "commitment", MAX_COMMITMENT_BYTES)
    opened = open_commitment(data, file.name, run.trust, run.now, countersigned=policy.require_countersignature)
    found = opened.commitment
    if found.encoding_sha256 != statement.encoding_sha256:
        expected, got = str(found.encoding_sha256), str(statement.encoding_sha256)
        raise SubjectMismatchError("predicate/semantics/encodingSha256", "encoding of the commitment", expected, got)
    if found.committed_at > statement.issued_at:
        expected = f"not later than the certificate, {format_time(statement.issued_at)}"
        got = format_time(found.committed_at)
        raise PolicyError("commitment/predicate/committedAt", "time of the commitment", expected, got)
    if forget is None or retain is None or training is None:
        which = "forget" if forget is None else "retained" if retain is None else "training"
        run.open("commitment", "SKIP", f"the {which} set is not opened, nothing could be compared", DATA_MISSING)
        return opened
    _require_twins(run, training, forget)
    root = set_root(training.key, _put_together(training, forget, retain, found.size))
    if root != found.root:
        raise SubjectMismatchError("commitment/root", "root of the training set, opened", found.root, root)
    run.passed("commitment", _said(opened, len(forget), len(retain), len(training.twins)))
    run.warnings += [_NOT_SHOWN] if opened.countersigners else [_NOT_SHOWN, _OWN_WORD]
    return opened


def _require_twins(run: Run, training: TrainingOpening, forget: Records) -> None:
    """What stands in neither set has the values of a forget record, and is as rare as conflicts have to be (T18)."""
    known = set(value_keys(forget.rows)) if training.twins else set()
    for place, (_, record) in enumerate(training.twins):
        path = f"openings.json/training/twins/{place}/record"
        values, _ = parse_canonical_record(record, path)
        if value_keys(values[None])[0] not in known:
            raise PolicyError(path, "training record in neither set", "the values of a forget record", "other values")
    if len(training.twins) > run.policy.max_conflicts:
        most = f"at most {run.policy.max_conflicts} twins of forget records"
        raise PolicyError("openings.json/training/twins", "max_conflicts", most, str(len(training.twins)))


def _put_together(training: TrainingOpening, forget: Records, retain: Records, size: int) -> Sequence[bytes]:
    """The canonical records in the committed order, each place once."""
    parts = f"{len(forget)} to forget, {len(retain)} to retain, {len(training.twins)} twins"
    if len(forget) + len(retain) + len(training.twins) != size:
        raise SubjectMismatchError("commitment/predicate/size", "size of the training set", str(size), parts)
    if len(training.forget_indices) != len(forget):
        got = str(len(training.forget_indices))
        raise SubjectMismatchError("openings.json/training/forgetIndices", "an index each", str(len(forget)), got)
    placed = {}
    for index, record in (*zip(training.forget_indices, canonical_records(forget), strict=True), *training.twins):
        if index >= size or index in placed:
            expected = f"each once, below {size}"
            raise MalformedInputError("openings.json/training", "indices of records", expected, str(index))
        placed[index] = record
    others = iter(canonical_records(retain))
    return [placed[index] if index in placed else next(others) for index in range(size)]


def _said(opened: OpenedCommitment, forget: int, retain: int, twins: int) -> str:
    found = opened.commitment
    seen = "".join(f", countersigned by {named_signers((one,))}" for one in opened.countersigners)
    parts = f"{forget} to forget and {retain} to retain" + (f" and {twins} twins of the former" if twins else "")
    return (
        f"payload-sha256={opened.payload_sha256}: the {found.size} records committed at "
        f"{format_time(found.committed_at)} by {named_signers(opened.signers)}{seen} are exactly {parts}"
    )
