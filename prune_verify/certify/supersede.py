"""``certify --supersedes``: a certificate that replaces an earlier one covers at least what that one covered.

Source: FORMATS section 2 (``supersedes``); MATHS 4.4; the comparison is :mod:`prune_verify.checker.supersede`.
"""

from __future__ import annotations

from pathlib import Path

from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.issue import Sources
from prune_verify.checker.encoding import read_file, sha256_hex
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.statement import parse_statement
from prune_verify.checker.supersede import (
    Covered,
    Lost,
    Term,
    covered_by,
    listed_requests,
    lost,
    weaker_terms,
)
from prune_verify.request import Request

__all__ = ["superseded"]

_MOST_BYTES = 2**28


def superseded(path: Path | None, withdrawn: int, sources: Sources) -> str | None:
    """The digest of the payload of the certificate that is replaced, or None where none is.

    Its signature is not checked: it is the owner's own, and the auditor checks it (``verify --supersedes``). Records
    are compared by number only, because a certificate holds a keyed commitment to them.

    Args:
        path: of the earlier certificate.
        withdrawn: how many of its records and classes were taken back by those who asked.
        sources: what is to be certified now.

    Raises:
        CheckError: no certificate.
        CertifyInputError: it is about another base, or covers more records, classes, requests, balls or arithmetics.

    """
    if withdrawn < 0 or (withdrawn and path is None):
        text = f"--withdrawn {withdrawn}: expected a number from 0; it belongs to --supersedes CERTIFICATE"
        raise CertifyInputError(text)
    if path is None:
        return None
    envelope = parse_envelope(read_file(path, "earlier certificate", _MOST_BYTES), path.name)
    earlier = covered_by(parse_statement(envelope.payload, path.name))
    now = _asked(sources)
    if earlier.base_sha256 != now.base_sha256:
        text = f"--supersedes {path}: it is about the base {earlier.base_sha256}, and this one is {now.base_sha256}"
        raise CertifyInputError(text)
    gone = lost(earlier, now)
    _require_sets(path, earlier, now, gone, withdrawn)
    for item in weaker_terms(earlier, now, withdrawn):
        term, text = item.term, f"has {item.what} {item.before}, this request {item.now}"
        raise CertifyInputError(f"--supersedes {path}: its claim {term.name} ({term.kind}) {text}")
    if gone.count > withdrawn:
        names = ", ".join(repr(name) for name in gone.requests[:12])
        text = f"it names the requests {names}, and this request does not; --withdrawn says how many were taken back"
        raise CertifyInputError(f"--supersedes {path}: {text}")
    return sha256_hex(envelope.payload)


def _asked(sources: Sources) -> Covered:
    """What is to be certified, as the comparison reads it."""
    request = sources.request
    return Covered(
        base_sha256=sha256_hex(sources.base_bytes),
        encoding_sha256=request.encoding_sha256,
        domain=request.domain,
        records=0 if sources.forget is None else len(sources.forget),
        classes=frozenset(request.classes),
        requests=listed_requests(request.reference),
        terms=tuple(term for arithmetic in request.arithmetics for term in _terms(request, arithmetic)),
    )


def _terms(request: Request, arithmetic: str) -> list[Term]:
    """What a request wants for those who asked to be forgotten, in one arithmetic."""
    radius, margin, found = request.radius, request.margin, list[Term]()
    if "forget" in request.claims:
        found.append(Term("request", "forget", arithmetic, None, radius, margin, None))
    if "band" in request.claims:
        found.append(Term("request", "band", arithmetic, None, radius, None, request.band))
    if "forget_class" in request.claims:
        found += [Term("request", "forget_class", arithmetic, c, None, margin, None) for c in request.classes]
    return found


def _require_sets(path: Path, earlier: Covered, now: Covered, gone: Lost, withdrawn: int) -> None:
    """Refuse fewer records and classes than the earlier certificate covers, but for those that were taken back."""
    count = gone.records + len(gone.classes)
    if count > withdrawn:
        classes = f" and classes {', '.join(map(str, gone.classes))}" if gone.classes else ""
        text = (
            f"--supersedes {path}: it covers {earlier.records} forget records{classes}, and this request {now.records}"
            f"{' and not these classes' if gone.classes else ''}; where requests were withdrawn, --withdrawn says how "
            f"many records and classes that were ({count})"
        )
        raise CertifyInputError(text)
