"""``prune-verify inspect``: what a certificate says, for a person, without checking any of it.

Everything foreign is shown with control, bidirectional and other non-ASCII characters escaped, and so are the words
of a verdict. The first line says that nothing was verified; no verdict is ever printed.

Source: FORMATS section 3; THREATS 2 "Text".
"""

from __future__ import annotations

import re

from prune_verify.checker.claim_json import ClaimStatement
from prune_verify.checker.commitment import PREDICATE_TYPE, DataCommitment, parse_commitment
from prune_verify.checker.encoding import format_decimal, format_time, sha256_hex
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import printable
from prune_verify.checker.statement import Statement, parse_statement
from prune_verify.checker.supersede import listed_requests

__all__ = ["inspect_text"]

_VERDICT_WORD = re.compile("V(?=ERIFIED|ERDICT)", re.IGNORECASE)


def _defused(line: str) -> str:
    """A line in printable ASCII in which foreign text cannot spell a verdict, also for who searches for the word."""
    return _VERDICT_WORD.sub(lambda found: f"\\x{ord(found.group()):02x}", printable(line))


def _claim(item: ClaimStatement) -> str:
    claim, counts = item.claim, item.counts
    parts = [item.id, claim.kind, claim.arithmetic, claim.method]
    for name, value in (("radius", claim.radius), ("margin", claim.margin), ("delta", claim.delta)):
        if value is not None:
            parts.append(f"{name} {format_decimal(value)}")
    if claim.label is not None:
        parts.append(f"class {claim.label}")
    said = f"says: {counts.proved} of {counts.total}, {counts.conflict} in conflict, {counts.unknown} unknown"
    return f"  {'  '.join(parts)}  {said}"


def _lines(statement: Statement) -> list[str]:
    requests = listed_requests(statement.request_reference)
    domain = f"{format_decimal(statement.domain.lower[0])}..{format_decimal(statement.domain.upper[0])}"
    lines = [
        f"certificate {statement.certificate_id}",
        f"patched network {statement.patched_name}  sha256 {statement.patched_sha256}",
        f"base network {statement.base_name}  sha256 {statement.base_sha256}",
        f"made by {' '.join(statement.prover)}",
        f"request {statement.request_kind}  live requests {', '.join(map(repr, requests)) or 'not named'}",
        f"issued {format_time(statement.issued_at)}",
        f"valid {format_time(statement.not_before)} to {format_time(statement.expires_at)}",
        f"challenge {statement.challenge or 'none'}  supersedes {statement.supersedes or 'nothing'}",
        f"domain {domain}{'' if statement.domain.uniform else ' (first coordinate)'}",
    ]
    for name, found in (("forget set", statement.forget_set), ("retained set", statement.retain_set)):
        lines.append(f"{name}: {'none' if found is None else f'{found.size} records, root {found.root}'}")
    if statement.patch is not None:
        lines.append(
            f"patch {statement.patch.family}: {statement.patch.gates} gates, forgotten classes "
            f"{list(statement.patch.forgotten_classes)}, {statement.patch.disclosed_bits} bits of records"
        )
    lines += ["claims, as the signer says:", *(_claim(item) for item in statement.claims)]
    lines += ["assumptions:", *(f"  {name}" for name in statement.assumptions or ("none",))]
    lines += ["not claimed:", *(f"  {text}" for text in statement.non_claims)]
    for item in statement.measurements:
        lines.append(f"measured: {item.kind} = {item.value} (by {item.command})")
    lines += [f"evidence {item.name}  {item.size} bytes  sha256 {item.sha256}" for item in statement.evidence]
    return lines


def _committed(commitment: DataCommitment) -> list[str]:
    return [
        f"commitment to a training set  {commitment.name!r}",
        f"{commitment.size} records, root {commitment.root}",
        f"committed {format_time(commitment.committed_at)}  made by {' '.join(commitment.tool)}",
        f"encoding {commitment.encoding_sha256 or 'none'}",
    ]


def inspect_text(data: bytes) -> str:
    """What an envelope holds.

    Args:
        data: the certificate, or the commitment of a training set.

    Raises:
        CheckError: neither.

    """
    envelope = parse_envelope(data, "certificate")
    lines = [f"payload sha256 {sha256_hex(envelope.payload)}"]
    lines += [f"signature by keyid {keyid}, not checked" for keyid, _ in envelope.signatures]
    if f'"predicateType":"{PREDICATE_TYPE}"'.encode() in envelope.payload:
        lines += _committed(parse_commitment(envelope.payload, "commitment/payload"))
    else:
        lines += _lines(parse_statement(envelope.payload, "certificate/payload"))
    return "\n".join(["UNVERIFIED: nothing below was checked", *(_defused(line) for line in lines)])
