"""``certify --supersedes``: a certificate that replaces an earlier one covers at least what that one covered.

Source: FORMATS section 2 (``supersedes``); MATHS 4.4.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.issue import Sources
from prune_verify.checker.encoding import read_file, sha256_hex
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.region import Domain
from prune_verify.checker.statement import Statement, parse_statement
from prune_verify.request import Request

__all__ = ["superseded"]

_MOST_BYTES = 2**28


def superseded(path: Path | None, withdrawn: int, sources: Sources) -> str | None:
    """The digest of the payload of the certificate that is replaced, or None where none is.

    Its signature is not checked: it is the owner's own, and the auditor compares digests. Records are compared by
    number only, because a certificate holds a keyed commitment to them.

    Args:
        path: of the earlier certificate.
        withdrawn: how many of its records and classes were taken back by those who asked.
        sources: what is to be certified now.

    Raises:
        CheckError: no certificate.
        CertifyInputError: it is about another base, or covers more records, classes, balls or arithmetics.

    """
    if withdrawn < 0 or (withdrawn and path is None):
        text = f"--withdrawn {withdrawn}: expected a number from 0; it belongs to --supersedes CERTIFICATE"
        raise CertifyInputError(text)
    if path is None:
        return None
    envelope = parse_envelope(read_file(path, "earlier certificate", _MOST_BYTES), path.name)
    earlier = parse_statement(envelope.payload, path.name)
    got = sha256_hex(sources.base_bytes)
    if earlier.base_sha256 != got:
        text = f"--supersedes {path}: it is about the base {earlier.base_sha256}, and this one is {got}"
        raise CertifyInputError(text)
    _require_sets(path, earlier, withdrawn, sources)
    _require_terms(path, earlier, withdrawn, sources.request)
    return sha256_hex(envelope.payload)


def _require_sets(path: Path, earlier: Statement, withdrawn: int, sources: Sources) -> None:
    """Refuse fewer records and classes than the earlier certificate covers, but for those that were taken back."""
    before = 0 if earlier.forget_set is None else earlier.forget_set.size
    now = 0 if sources.forget is None else len(sources.forget)
    gone = set(_classes(earlier)) - set(sources.request.classes)
    lost = max(before - now, 0) + len(gone)
    if lost > withdrawn:
        classes = f" and classes {', '.join(str(c) for c in sorted(gone))}" if gone else ""
        text = (
            f"--supersedes {path}: it covers {before} forget records{classes}, and this request {now}"
            f"{' and not these classes' if gone else ''}; where requests were withdrawn, --withdrawn says how many "
            f"records and classes that were ({lost})"
        )
        raise CertifyInputError(text)


def _classes(earlier: Statement) -> list[int]:
    """The classes that an earlier certificate says are never answered."""
    found = {item.claim.label for item in earlier.claims if item.claim.kind == "forget_class"}
    return sorted(label for label in found if label is not None)


def _require_terms(path: Path, earlier: Statement, withdrawn: int, request: Request) -> None:
    """Refuse weaker terms for what is still covered: smaller balls, margins or domain, an arithmetic less."""
    before = 0 if earlier.forget_set is None else earlier.forget_set.size
    left = {"forget": before > withdrawn, "forget_class": bool(set(_classes(earlier)) & set(request.classes))}
    for item in earlier.claims:
        claim = item.claim
        if not left.get(claim.kind, False):
            continue
        terms: list[tuple[str, object, object, bool]] = [
            ("claim", claim.kind, list(request.claims), claim.kind in request.claims),
            ("arithmetic", claim.arithmetic, list(request.arithmetics), claim.arithmetic in request.arithmetics),
            ("margin", *_amounts(claim.margin, request.margin)),
        ]
        if claim.kind == "forget":
            terms += [
                ("radius", *_amounts(claim.radius, request.radius)),
                ("domain", "its domain", "a smaller one", _holds(request.domain, earlier.domain)),
            ]
        for name, asked, got, covered in terms:
            if not covered:
                text = f"--supersedes {path}: its claim {item.id} ({claim.kind}) has {name} {asked}, this request {got}"
                raise CertifyInputError(text)


def _amounts(before: Fraction | None, now: Fraction | None) -> tuple[str, str, bool]:
    """Both as text, and whether the second is not below the first."""
    shown = ["none" if value is None else f"{float(value):g}" for value in (before, now)]
    return shown[0], shown[1], before is None or (now is not None and now >= before)


def _holds(outer: Domain, inner: Domain) -> bool:
    """Whether a domain holds all of another."""
    size = max(len(outer.lower), len(inner.lower))
    pairs = [(outer.interval(place), inner.interval(place)) for place in range(size)]
    return all(low <= least and greatest <= high for (low, high), (least, greatest) in pairs)
