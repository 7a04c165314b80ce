"""The statement that is signed: in-toto v1 with a closed predicate, as data with types.

Nothing in it is believed: it names files by digest and says what is claimed about them. There is no
field that says "valid".

Source: FORMATS section 2; certs/SPEC.md section 7; in-toto Statement v1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from prune_verify.checker.claim import REQUEST_KINDS
from prune_verify.checker.claim_json import ClaimStatement, emitted_claim, parse_claim
from prune_verify.checker.encoding import (
    Json,
    Members,
    canonical_json,
    format_time,
    parse_decimal,
    parse_json,
)
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.checker.region import Domain, domain_json, parse_domain
from prune_verify.checker.rules import BINARY32, REAL

__all__ = [
    "MAX_REFERENCE",
    "NON_CLAIMS",
    "Evidence",
    "Measurement",
    "PatchSummary",
    "SetCommitment",
    "Statement",
    "emit_statement",
    "parse_outer",
    "parse_statement",
]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://prune-verify.example/unlearning-certificate/v1"
NON_CLAIMS = (
    "Output suppression is not removal: the weights of the base network still depend on the forgotten records.",
    "This is not (epsilon, delta) certified removal, and not equivalence to retraining.",
    "Membership inference, relearning and disclosure are measured, never proved.",
    "Nothing is said of inputs with infinite or NaN logits, of other arithmetics or of another program than this file.",
)
MAX_REFERENCE = 2**18  # characters; of a stream it lists the references of all live requests
_PREDICATE = (
    "certificateId", "issuedAt", "notBefore", "expiresAt", "supersedes", "challenge", "prover", "request",
    "originalModel", "patch", "semantics", "forgetSet", "retainSet", "claims", "evidence", "assumptions",
    "nonClaims", "measurements", "environment",
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """A file named by digest (FORMATS section 2): its size in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class SetCommitment:
    """A salted Merkle root and the size, the number of records."""

    root: str
    size: int


@dataclass(frozen=True)
class PatchSummary:
    """What the statement says of the patch (FORMATS section 2); recomputed by the checker from ``patch.json``."""

    sha256: str
    family: str
    gates: int
    forgotten_classes: tuple[int, ...]
    max_coordinates: int
    disclosed_coordinates: int
    disclosed_bits: int


@dataclass(frozen=True)
class Measurement:
    """Something measured, not proved (FORMATS section 2): value and interval in decimals, the command that gave it."""

    kind: str
    value: str
    interval: tuple[str, str] | None
    command: str
    seed: int
    report_sha256: str | None


@dataclass(frozen=True)
class Statement:
    """The whole statement. Names as in FORMATS section 2."""

    patched_name: str
    patched_sha256: str
    certificate_id: str
    issued_at: datetime
    not_before: datetime
    expires_at: datetime
    supersedes: str | None
    challenge: str | None
    prover: tuple[str, str]
    request_sha256: str
    request_kind: str
    request_reference: str
    base_name: str
    base_sha256: str
    base_network: str
    patch: PatchSummary | None
    domain: Domain
    arithmetics: tuple[str, ...]
    encoding_sha256: str | None
    opset: int
    forget_set: SetCommitment | None
    retain_set: SetCommitment | None
    claims: tuple[ClaimStatement, ...]
    evidence: tuple[Evidence, ...]
    assumptions: tuple[str, ...]
    non_claims: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    environment: tuple[tuple[str, str], ...]


# --- reading ---


def _commitment(fields: Members, name: str) -> SetCommitment | None:
    if fields.null(name):
        return None
    value = fields.members(name, ("root", "size"))
    return SetCommitment(value.digest("root"), value.integer("size", least=1))


def _patch(fields: Members) -> PatchSummary | None:
    if fields.null("patch"):
        return None
    names = ("sha256", "family", "gates", "forgottenClasses", "maxCoordinates", "disclosedCoordinates", "disclosedBits")
    value = fields.members("patch", names)
    return PatchSummary(
        sha256=value.digest("sha256"),
        family=value.text("family", among=("box", "class-cap", "learned", "linear-region")),
        gates=value.integer("gates"),
        forgotten_classes=value.integers("forgottenClasses"),
        max_coordinates=value.integer("maxCoordinates"),
        disclosed_coordinates=value.integer("disclosedCoordinates"),
        disclosed_bits=value.integer("disclosedBits"),
    )


def _evidence(fields: Members) -> tuple[Evidence, ...]:
    found = []
    for place, item in enumerate(fields.items("evidence", most=1024)):
        value = Members(item, f"{fields.place('evidence')}/{place}", ("name", "sha256", "bytes"))
        name = value.text("name", longest=128)
        if not name or name != name.strip(".") or not all(c.isascii() and (c.isalnum() or c in "._-") for c in name):
            raise MalformedInputError(value.place("name"), "name of a file", "letters, digits, '.', '_', '-'", name)
        found.append(Evidence(name, value.digest("sha256"), value.integer("bytes")))
    if len({item.name for item in found}) != len(found):
        raise MalformedInputError(fields.place("evidence"), "names of files", "each once", "one twice")
    return tuple(found)


def _measurement(value: Json, path: str) -> Measurement:
    fields = Members(value, path, ("kind", "value", "interval", "command", "seed", "reportSha256"))
    interval = None
    if not fields.null("interval"):
        ends = fields.texts("interval", most=2)
        if len(ends) != 2:  # noqa: PLR2004 - an interval
            raise MalformedInputError(fields.place("interval"), "interval", "two ends", str(len(ends)))
        interval = (ends[0], ends[1])
        for end in interval:
            parse_decimal(end, fields.place("interval"))
    parse_decimal(fields.raw("value"), fields.place("value"))
    return Measurement(
        kind=fields.text("kind"),
        value=fields.text("value"),
        interval=interval,
        command=fields.text("command", longest=4096),
        seed=fields.integer("seed"),
        report_sha256=None if fields.null("reportSha256") else fields.digest("reportSha256"),
    )


def _hex_or_none(fields: Members, name: str, *, least: int, most: int) -> str | None:
    if fields.null(name):
        return None
    text = fields.text(name, longest=most)
    if not least <= len(text) <= most or len(text) % 2 or set(text) - set("0123456789abcdef"):
        raise MalformedInputError(fields.place(name), "hex", f"{least} to {most} lower-case hex digits", text)
    return text


def parse_outer(payload: bytes, path: str, predicate_type: str) -> tuple[Members, Members]:
    """The statement and its one subject of a ``payload``, which has to be of this ``predicate_type``.

    Raises:
        MalformedInputError: not of the closed form, or not canonical.
        UnsupportedVersionError: another statement or predicate type.

    """
    outer = Members(parse_json(payload, path, canonical=True), path, ("_type", "subject", "predicateType", "predicate"))
    for name, known in (("_type", STATEMENT_TYPE), ("predicateType", predicate_type)):
        if outer.text(name) != known:
            raise UnsupportedVersionError(outer.place(name), "type", known, outer.text(name))
    subjects = outer.items("subject", most=1)
    if len(subjects) != 1:
        raise MalformedInputError(outer.place("subject"), "subject", "exactly one", str(len(subjects)))
    return outer, Members(subjects[0], f"{outer.place('subject')}/0", ("name", "digest"))


def parse_statement(payload: bytes, path: str) -> Statement:
    """Read a statement.

    Args:
        payload: the exact bytes that were signed.
        path: their name, for errors.

    Raises:
        MalformedInputError: not of the closed form, or not canonical.
        UnsupportedVersionError: another statement or predicate type.

    """
    outer, subject = parse_outer(payload, path, PREDICATE_TYPE)
    predicate = outer.members("predicate", _PREDICATE)
    digest = subject.members("digest", ("sha256",)).digest("sha256")
    statement = _predicate(predicate, subject.text("name"), digest)
    _require_whole(statement, predicate)
    return statement


def _predicate(fields: Members, name: str, sha256: str) -> Statement:
    request = fields.members("request", ("sha256", "kind", "reference"))
    model = fields.members("originalModel", ("name", "sha256", "networkDigest"))
    semantics = fields.members("semantics", ("domain", "arithmetic", "tieRule", "encodingSha256", "opset"))
    semantics.text("tieRule", among=("lowest-index",))
    prover = fields.members("prover", ("name", "version"))
    return Statement(
        patched_name=name,
        patched_sha256=sha256,
        certificate_id=_hex_or_none(fields, "certificateId", least=32, most=32) or "",
        issued_at=fields.time("issuedAt"),
        not_before=fields.time("notBefore"),
        expires_at=fields.time("expiresAt"),
        supersedes=_digest_or_none(fields, "supersedes"),
        challenge=_hex_or_none(fields, "challenge", least=32, most=128),
        prover=(prover.text("name"), prover.text("version")),
        request_sha256=request.digest("sha256"),
        request_kind=request.text("kind", among=REQUEST_KINDS),
        request_reference=request.text("reference", longest=MAX_REFERENCE),
        base_name=model.text("name"),
        base_sha256=model.digest("sha256"),
        base_network=model.digest("networkDigest"),
        patch=_patch(fields),
        domain=parse_domain(semantics.raw("domain"), semantics.place("domain")),
        arithmetics=semantics.texts("arithmetic", among=(BINARY32, REAL)),
        encoding_sha256=_digest_or_none(semantics, "encodingSha256"),
        opset=semantics.integer("opset", most=1024),
        forget_set=_commitment(fields, "forgetSet"),
        retain_set=_commitment(fields, "retainSet"),
        claims=tuple(parse_claim(item, path) for item, path in _listed(fields, "claims")),
        evidence=_evidence(fields),
        assumptions=fields.texts("assumptions"),
        non_claims=fields.texts("nonClaims"),
        measurements=tuple(_measurement(item, path) for item, path in _listed(fields, "measurements")),
        environment=_environment(fields),
    )


def _digest_or_none(fields: Members, name: str) -> str | None:
    return None if fields.null(name) else fields.digest(name)


def _listed(fields: Members, name: str) -> list[tuple[Json, str]]:
    return [(item, f"{fields.place(name)}/{place}") for place, item in enumerate(fields.items(name, most=256))]


def _environment(fields: Members) -> tuple[tuple[str, str], ...]:
    names = ("python", "numpy", "onnx", "platform")
    found = fields.members("environment", names)
    return tuple((name, found.text(name)) for name in names)


def _require_whole(statement: Statement, fields: Members) -> None:
    """What is left that no single field shows."""
    ids = [item.id for item in statement.claims]
    if not ids or len(set(ids)) != len(ids):
        raise MalformedInputError(
            fields.place("claims"), "claims", "at least one, each with an id of its own", str(ids)
        )
    if not statement.certificate_id:
        raise MalformedInputError(fields.place("certificateId"), "hex", "32 lower-case hex digits", "null")
    if not statement.not_before < statement.expires_at:
        raise MalformedInputError(fields.place("expiresAt"), "validity", "notBefore before expiresAt", "otherwise")
    for text in NON_CLAIMS:
        if text not in statement.non_claims:
            raise MalformedInputError(fields.place("nonClaims"), "what is not claimed", text[:60], "left out")


# --- writing ---


def _emitted_set(commitment: SetCommitment | None) -> Json:
    return None if commitment is None else {"root": commitment.root, "size": commitment.size}


def _emitted_patch(patch: PatchSummary | None) -> Json:
    if patch is None:
        return None
    return {
        "sha256": patch.sha256,
        "family": patch.family,
        "gates": patch.gates,
        "forgottenClasses": list(patch.forgotten_classes),
        "maxCoordinates": patch.max_coordinates,
        "disclosedCoordinates": patch.disclosed_coordinates,
        "disclosedBits": patch.disclosed_bits,
    }


def _emitted_measurement(item: Measurement) -> Json:
    return {
        "kind": item.kind,
        "value": item.value,
        "interval": None if item.interval is None else list(item.interval),
        "command": item.command,
        "seed": item.seed,
        "reportSha256": item.report_sha256,
    }


def emit_statement(statement: Statement) -> bytes:
    """The canonical bytes of a statement."""
    predicate: dict[str, Json] = {
        "certificateId": statement.certificate_id,
        "issuedAt": format_time(statement.issued_at),
        "notBefore": format_time(statement.not_before),
        "expiresAt": format_time(statement.expires_at),
        "supersedes": statement.supersedes,
        "challenge": statement.challenge,
        "prover": dict(zip(("name", "version"), statement.prover, strict=True)),
        "request": {
            "sha256": statement.request_sha256,
            "kind": statement.request_kind,
            "reference": statement.request_reference,
        },
        "originalModel": {
            "name": statement.base_name,
            "sha256": statement.base_sha256,
            "networkDigest": statement.base_network,
        },
        "patch": _emitted_patch(statement.patch),
        "semantics": {
            "domain": domain_json(statement.domain),
            "arithmetic": list(statement.arithmetics),
            "tieRule": "lowest-index",
            "encodingSha256": statement.encoding_sha256,
            "opset": statement.opset,
        },
        "forgetSet": _emitted_set(statement.forget_set),
        "retainSet": _emitted_set(statement.retain_set),
        "claims": [emitted_claim(item) for item in statement.claims],
        "evidence": [{"name": e.name, "sha256": e.sha256, "bytes": e.size} for e in statement.evidence],
        "assumptions": list(statement.assumptions),
        "nonClaims": list(statement.non_claims),
        "measurements": [_emitted_measurement(item) for item in statement.measurements],
        "environment": dict(statement.environment),
    }
    subject: Json = [{"name": statement.patched_name, "digest": {"sha256": statement.patched_sha256}}]
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": predicate}
    )
