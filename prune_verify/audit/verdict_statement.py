"""The auditor's verdict as a statement: in-toto v1 about the patched network, predicate SLSA VSA v1, of a closed form.

What a consumer of verification summaries reads stands in the summary's own fields; what only this project knows
(the three words, the code, the roster, the claims as counted) stands in one extension field, whose name is a URI as the
summary's parsing rules want it. Nothing here signs or is believed.

Source: certs/SPEC.md section 9; SLSA Verification Summary Attestation v1; in-toto Statement v1; FORMATS section 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from prune_verify.checker.encoding import Json, Members, canonical_json, format_time
from prune_verify.checker.errors import MalformedInputError, printable
from prune_verify.checker.solver import SOLVERS
from prune_verify.checker.statement import STATEMENT_TYPE, parse_outer
from prune_verify.checker.verdict import REJECTED, UNDECIDED, VERIFIED, Check, ClaimVerdict, Verdict

__all__ = ["VERDICT_EXTENSION", "VSA_TYPE", "VerdictStatement", "emit_verdict", "parse_verdict"]

VSA_TYPE = "https://slsa.dev/verification_summary/v1"
VERDICT_EXTENSION = "https://prune-verify.example/verdict/v1"
_AUDITOR = "https://prune-verify.example/auditor/"
_NETWORK = "https://prune-verify.example/network/"
_POLICY = "https://prune-verify.example/policy/"
_CERTIFICATE = "https://prune-verify.example/certificate/"
_SLSA_VERSION = "1.1"
_TOOL = "prune-verify"
_LEVELS = {
    VERIFIED: ("PASSED", ("PRUNE_VERIFY_VERIFIED",)),
    REJECTED: ("FAILED", ("FAILED", "PRUNE_VERIFY_REJECTED")),
    UNDECIDED: ("FAILED", ("FAILED", "PRUNE_VERIFY_UNDECIDED")),
}
_STATUSES = ("PASS", "FAIL", "SKIP", "UNDECIDED")
_OPEN = {REJECTED: ("FAIL",), UNDECIDED: ("SKIP", "UNDECIDED")}
_CLAIM = ("id", "kind", "arithmetic", "region")
_CODE = re.compile(r"OK|E_[A-Z_]+", re.ASCII)
_COUNTS = ("total", "proved", "refuted", "unknown", "conflict", "alreadyWrong")
_LONGEST = 8192
_MOST = 4096
_PREDICATE = (
    "verifier", "timeVerified", "resourceUri", "policy", "inputAttestations", "verificationResult", "verifiedLevels",
    "slsaVersion", VERDICT_EXTENSION,
)  # fmt: skip
_EXTENSION = (
    "verdict", "code", "files", "judgedAt", "atTime", "challenge", "exact", "resolveSmt", "signers", "checks", "claims",
    "assumptions", "warnings",
)  # fmt: skip


@dataclass(frozen=True)
class VerdictStatement:
    """What an auditor signs.

    Args:
        verdict: of the checker, with the digests of what it read.
        auditor: keyid of the signing key.
        time_verified: when the check was made.
        patched_name: of the patched network's file.
        patched_sha256: of the patched network as it was handed to the checker, certified or not.
        at_time: the time that validity was to be judged at (``--at-time``), or None for the time of the check.
        challenge: the auditor's nonce, or None.
        exact: bounds were computed in integers.
        resolve_smt: the auditor's own solver, or None.
        version: of prune-verify.

    """

    verdict: Verdict
    auditor: str
    time_verified: datetime
    patched_name: str
    patched_sha256: str
    at_time: datetime | None
    challenge: str | None
    exact: bool
    resolve_smt: str | None
    version: str

    def digest(self, name: str) -> str | None:
        """SHA-256 of the file of this name, ``certificate``, ``trust``, ``policy``, ``base`` or ``patched``."""
        return dict(self.verdict.digests).get(name)


# --- writing ---


def _said(text: str) -> str:
    """Free text as it is signed: printable ASCII of bounded length, so that nothing in it moves or hides the rest."""
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


def _emitted_claim(claim: ClaimVerdict) -> Json:
    return {
        "id": _said(claim.id),
        "kind": claim.kind,
        "arithmetic": claim.arithmetic,
        "region": _said(claim.region),
        "total": claim.total,
        "proved": claim.proved,
        "refuted": claim.refuted,
        "unknown": claim.unknown,
        "conflict": claim.conflict,
        "alreadyWrong": claim.already_wrong,
    }


def _extension(statement: VerdictStatement) -> Json:
    verdict = statement.verdict
    return {
        "verdict": verdict.word,
        "code": verdict.code,
        "files": {name: statement.digest(name) for name in ("certificate", "trust", "base", "patched")},
        "judgedAt": verdict.at_time,
        "atTime": None if statement.at_time is None else format_time(statement.at_time),
        "challenge": statement.challenge,
        "exact": statement.exact,
        "resolveSmt": statement.resolve_smt,
        "signers": [{"keyid": keyid, "name": _said(name)} for keyid, name in verdict.signers],
        "checks": [
            {"id": _said(c.name), "status": c.status, "code": c.code, "path": _said(c.path), "detail": _said(c.detail)}
            for c in verdict.checks
        ],
        "claims": [_emitted_claim(claim) for claim in verdict.claims],
        "assumptions": [_said(name) for name in verdict.assumptions],
        "warnings": [_said(line) for line in verdict.warnings],
    }


def _inputs(certificate: str) -> list[Json]:
    return [{"uri": _CERTIFICATE + certificate, "digest": {"sha256": certificate}}] if certificate else []


def emit_verdict(statement: VerdictStatement) -> bytes:
    """The canonical bytes of a verdict: the same check at the same time gives the same bytes."""
    result, levels = _LEVELS[statement.verdict.word]
    policy = statement.digest("policy") or ""
    predicate: dict[str, Json] = {
        "verifier": {"id": _AUDITOR + statement.auditor, "version": {_TOOL: statement.version}},
        "timeVerified": format_time(statement.time_verified),
        "resourceUri": _NETWORK + statement.patched_sha256,
        "policy": {"uri": _POLICY + policy, "digest": {"sha256": policy}},
        "inputAttestations": _inputs(statement.verdict.payload_sha256),
        "verificationResult": result,
        "verifiedLevels": list(levels),
        "slsaVersion": _SLSA_VERSION,
        VERDICT_EXTENSION: _extension(statement),
    }
    subject: Json = [{"name": _said(statement.patched_name), "digest": {"sha256": statement.patched_sha256}}]
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": VSA_TYPE, "predicate": predicate}
    )


# --- reading ---


def _require(fields: Members, name: str, expected: Json) -> None:
    """A member that follows from others stands there as it follows."""
    if fields.raw(name) != expected:
        raise MalformedInputError(fields.place(name), "agreement", str(expected)[:200], str(fields.raw(name))[:200])


def _require_plain(text: str, place: str) -> str:
    if not (text.isascii() and (text.isprintable() or not text)):
        raise MalformedInputError(place, "text", "printable ASCII", text[:80])
    return text


def _text(fields: Members, name: str) -> str:
    """Free text in which nothing is hidden, as it is written."""
    return _require_plain(fields.text(name, longest=_LONGEST), fields.place(name))


def _texts(fields: Members, name: str) -> tuple[str, ...]:
    found = fields.texts(name, most=_MOST, longest=_LONGEST)
    return tuple(_require_plain(text, fields.place(name)) for text in found)


def _code(fields: Members) -> str:
    code = fields.text("code", longest=64)
    if not _CODE.fullmatch(code):
        raise MalformedInputError(fields.place("code"), "code", "OK or E_...", code)
    return code


def _named_digest(fields: Members, name: str, prefix: str) -> str:
    """A resource descriptor whose URI is its digest's."""
    found = fields.members(name, ("uri", "digest"))
    digest = found.members("digest", ("sha256",)).digest("sha256")
    _require(found, "uri", prefix + digest)
    return digest


def _identity(fields: Members) -> str:
    """The certificate that was judged; empty where no signature on it was accepted."""
    listed, place = fields.items("inputAttestations", most=1), fields.place("inputAttestations")
    if not listed:
        return ""
    return _named_digest(Members({"0": listed[0]}, place, ("0",)), "0", _CERTIFICATE)


def _auditor(fields: Members) -> tuple[str, str]:
    found = fields.members("verifier", ("id", "version"))
    keyid = found.text("id").removeprefix(_AUDITOR)
    parsed = Members({"id": keyid}, found.path, ("id",)).digest("id")
    _require(found, "id", _AUDITOR + parsed)
    return parsed, _text(found.members("version", (_TOOL,)), _TOOL)


def _check(value: Json, path: str) -> Check:
    fields = Members(value, path, ("id", "status", "code", "path", "detail"))
    return Check(
        _text(fields, "id"),
        fields.text("status", among=_STATUSES),
        _text(fields, "detail"),
        _code(fields),
        _text(fields, "path"),
    )


def _claim(value: Json, path: str) -> ClaimVerdict:
    fields = Members(value, path, (*_CLAIM, *_COUNTS))
    identity, kind, arithmetic, region = (_text(fields, name) for name in _CLAIM)
    return ClaimVerdict(identity, kind, arithmetic, region, *(fields.integer(name) for name in _COUNTS))


def _signer(value: Json, path: str) -> tuple[str, str]:
    fields = Members(value, path, ("keyid", "name"))
    return fields.digest("keyid"), _text(fields, "name")


def _listed(fields: Members, name: str) -> list[tuple[Json, str]]:
    return [(item, f"{fields.place(name)}/{place}") for place, item in enumerate(fields.items(name, most=_MOST))]


def _verdict(fields: Members, identity: str, policy: str) -> Verdict:
    files = fields.members("files", ("certificate", "trust", "base", "patched"))
    read = [(name, files.digest(name)) for name in ("base", "patched") if not files.null(name)]
    read += [(name, files.digest(name)) for name in ("certificate", "trust")]
    fields.time("judgedAt")
    return Verdict(
        word=fields.text("verdict", among=tuple(_LEVELS)),
        code=_code(fields),
        payload_sha256=identity,
        at_time=fields.text("judgedAt"),
        signers=tuple(_signer(item, path) for item, path in _listed(fields, "signers")),
        checks=tuple(_check(item, path) for item, path in _listed(fields, "checks")),
        claims=tuple(_claim(item, path) for item, path in _listed(fields, "claims")),
        assumptions=_texts(fields, "assumptions"),
        warnings=_texts(fields, "warnings"),
        digests=tuple(sorted([*read, ("policy", policy)])),
    )


def _boolean(fields: Members, name: str) -> bool:
    found = fields.raw(name)
    if not isinstance(found, bool):
        raise MalformedInputError(fields.place(name), "form", "true or false", repr(found)[:80])
    return found


def _challenge(fields: Members) -> str | None:
    if fields.null("challenge"):
        return None
    text = fields.text("challenge", longest=128)
    if len(text) % 2 or len(text) < 32 or set(text) - set("0123456789abcdef"):  # noqa: PLR2004 - 16 bytes
        raise MalformedInputError(fields.place("challenge"), "hex", "32 to 128 lower-case hex digits", text)
    return text


def parse_verdict(payload: bytes, path: str) -> VerdictStatement:
    """Read a verdict.

    Args:
        payload: the exact bytes that were signed.
        path: their name, for errors.

    Raises:
        MalformedInputError: not of the closed form, not canonical, or at odds with itself.
        UnsupportedVersionError: another statement or predicate type.

    """
    outer, subject = parse_outer(payload, path, VSA_TYPE)
    patched = subject.members("digest", ("sha256",)).digest("sha256")
    fields = outer.members("predicate", _PREDICATE)
    own = fields.members(VERDICT_EXTENSION, _EXTENSION)
    auditor, version = _auditor(fields)
    verdict = _verdict(own, _identity(fields), _named_digest(fields, "policy", _POLICY))
    _require(fields, "resourceUri", _NETWORK + patched)
    _require(fields, "slsaVersion", _SLSA_VERSION)
    statement = VerdictStatement(
        verdict=verdict,
        auditor=auditor,
        time_verified=fields.time("timeVerified"),
        patched_name=_text(subject, "name"),
        patched_sha256=patched,
        at_time=None if own.null("atTime") else own.time("atTime"),
        challenge=_challenge(own),
        exact=_boolean(own, "exact"),
        resolve_smt=None if own.null("resolveSmt") else own.text("resolveSmt", among=SOLVERS),
        version=version,
    )
    _require_agreement(statement, fields, own)
    return statement


def _require_agreement(statement: VerdictStatement, fields: Members, own: Members) -> None:
    """A verdict that says one thing to one reader and another to the next is none."""
    verdict = statement.verdict
    result, levels = _LEVELS[verdict.word]
    _require(fields, "verificationResult", result)
    _require(fields, "verifiedLevels", list(levels))
    judged = statement.time_verified if statement.at_time is None else statement.at_time
    _require(own, "judgedAt", format_time(judged))
    read = own.members("files", ("certificate", "trust", "base", "patched"))
    if not read.null("patched"):
        _require(read, "patched", statement.patched_sha256)
    if bool(verdict.payload_sha256) != bool(verdict.signers):
        raise MalformedInputError(own.place("signers"), "agreement", "signers of the certificate that is named", "none")
    if verdict.word == VERIFIED:
        _require_verified(statement, own, read)
        return
    if verdict.code == "OK":
        raise MalformedInputError(own.place("code"), "agreement", "the reason", "OK")
    if not any(check.status in _OPEN[verdict.word] for check in verdict.checks):
        raise MalformedInputError(own.place("checks"), "agreement", f"a check that gave {verdict.word}", "none")


def _require_verified(statement: VerdictStatement, own: Members, read: Members) -> None:
    """VERIFIED names a signed certificate and both networks, and nothing in it failed or stayed open."""
    verdict = statement.verdict
    _require(own, "code", "OK")
    if not verdict.payload_sha256:
        raise MalformedInputError(own.place("signers"), "agreement", "a certificate with its signers", "none")
    for name in ("base", "patched"):
        read.digest(name)
    for place, check in enumerate(verdict.checks):
        if check.status != "PASS":
            raise MalformedInputError(own.place(f"checks/{place}/status"), "agreement", "PASS", check.status)
    for place, claim in enumerate(verdict.claims):
        if claim.refuted or claim.unknown or claim.proved + claim.conflict != claim.total:
            got = f"{claim.proved} of {claim.total} proved, {claim.conflict} in conflict"
            raise MalformedInputError(own.place(f"claims/{place}"), "agreement", "proved but for conflicts", got)
    for name, listed in (("checks", verdict.checks), ("claims", verdict.claims)):
        if not listed:
            raise MalformedInputError(own.place(name), "agreement", "at least one", "none")
