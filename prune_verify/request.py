"""``request.json``: what was asked, and the terms that every claim of the answer needs.

Source: FORMATS section 1; certs/SPEC.md section 6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

from prune_verify.checker.claim import CLAIM_KINDS, REQUEST_KINDS
from prune_verify.checker.encoding import (
    Json,
    Members,
    canonical_json,
    format_decimal,
    format_time,
    parse_digest,
    parse_json,
)
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.checker.region import Domain, domain_json, parse_domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.statement import MAX_REFERENCE

__all__ = ["Request", "emit_request", "parse_request"]

FORMAT_VERSION = 1
_NAMES = (
    "formatVersion", "kind", "reference", "receivedAt", "labels", "classes", "domain", "radius", "retainedRadius",
    "margin", "cover", "delta", "arithmetic", "tieRule", "claims", "encodingSha256", "membershipAcceptance",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """An unlearning request.

    Args:
        kind: ``records``, ``class`` or ``records+class``.
        reference: opaque to us; of several live requests their references, as a canonical JSON list.
        received_at: when it was received.
        labels: number of labels of the network.
        classes: labels to forget as a class.
        domain: D.
        radius: of the forget balls; None for a class request.
        retained_radius: of the retained balls; None for a class request.
        margin: tau of the forget claims.
        cover: separating coordinates asked per retained record.
        delta: of RC claims; None unless the patch is learned.
        arithmetics: of the claims.
        claims: kinds of the claims.
        encoding_sha256: digest of the encoding of tabular records, or None.
        membership_acceptance: levels copied from the threat model; not checked here.
        band: (a, b) of band claims; a member of the file where there is one.

    """

    kind: str
    reference: str
    received_at: datetime
    labels: int
    classes: tuple[int, ...]
    domain: Domain
    radius: Fraction | None
    retained_radius: Fraction | None
    margin: Fraction
    cover: int
    delta: Fraction | None
    claims: tuple[str, ...]
    arithmetics: tuple[str, ...] = (BINARY32, REAL)
    encoding_sha256: str | None = None
    membership_acceptance: tuple[tuple[str, str], ...] = field(default=())
    band: tuple[Fraction, Fraction] | None = None


def _optional(fields: Members, name: str) -> Fraction | None:
    return None if fields.null(name) else fields.decimal(name)


def parse_request(data: bytes, path: str) -> Request:
    """Read ``request.json``.

    Raises:
        MalformedInputError: not of the closed form, or not canonical.
        UnsupportedVersionError: another version.

    """
    found = parse_json(data, path, canonical=True)
    banded = isinstance(found, dict) and "band" in found
    fields = Members(found, path, (*_NAMES, "band") if banded else _NAMES)
    if fields.integer("formatVersion") != FORMAT_VERSION:
        raise UnsupportedVersionError(fields.place("formatVersion"), "version", str(FORMAT_VERSION), "another")
    labels = fields.integer("labels", least=2, most=2**16)
    fields.text("tieRule", among=("lowest-index",))
    levels = fields.raw("membershipAcceptance")
    if not isinstance(levels, dict) or not all(isinstance(v, str) for v in levels.values()):
        raise MalformedInputError(
            fields.place("membershipAcceptance"), "form", "names with levels in strings", repr(levels)[:80]
        )
    return Request(
        kind=fields.text("kind", among=REQUEST_KINDS),
        reference=fields.text("reference", longest=MAX_REFERENCE),
        received_at=fields.time("receivedAt"),
        labels=labels,
        classes=fields.integers("classes", most=labels, greatest=labels - 1),
        domain=parse_domain(fields.raw("domain"), fields.place("domain")),
        radius=_optional(fields, "radius"),
        retained_radius=_optional(fields, "retainedRadius"),
        margin=fields.decimal("margin"),
        cover=fields.integer("cover", most=2**20),
        delta=_optional(fields, "delta"),
        claims=fields.texts("claims", among=CLAIM_KINDS),
        arithmetics=fields.texts("arithmetic", among=(BINARY32, REAL)),
        encoding_sha256=None
        if fields.null("encodingSha256")
        else parse_digest(fields.raw("encodingSha256"), fields.place("encodingSha256")),
        membership_acceptance=tuple((name, str(level)) for name, level in levels.items()),
        band=_band(fields) if banded else None,
    )


def _band(fields: Members) -> tuple[Fraction, Fraction]:
    ends = fields.members("band", ("lower", "upper"))
    lower, upper = ends.decimal("lower"), ends.decimal("upper")
    if lower > upper:
        raise MalformedInputError(fields.place("band"), "band", "lower at most upper", f"{lower} and {upper}")
    return lower, upper


def emit_request(request: Request) -> bytes:
    """The canonical bytes of ``request.json``."""
    radius, retained, delta = (
        None if value is None else format_decimal(value)
        for value in (request.radius, request.retained_radius, request.delta)
    )
    band: dict[str, Json] = {}
    if request.band is not None:
        band["band"] = dict(zip(("lower", "upper"), map(format_decimal, request.band), strict=True))
    return canonical_json(
        {
            **band,
            "formatVersion": FORMAT_VERSION,
            "kind": request.kind,
            "reference": request.reference,
            "receivedAt": format_time(request.received_at),
            "labels": request.labels,
            "classes": list(request.classes),
            "domain": domain_json(request.domain),
            "radius": radius,
            "retainedRadius": retained,
            "margin": format_decimal(request.margin),
            "cover": request.cover,
            "delta": delta,
            "arithmetic": list(request.arithmetics),
            "tieRule": "lowest-index",
            "claims": list(request.claims),
            "encodingSha256": request.encoding_sha256,
            "membershipAcceptance": dict(request.membership_acceptance),
        }
    )
