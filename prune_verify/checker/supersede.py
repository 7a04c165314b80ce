"""What a certificate that replaces an earlier one still has to cover: the one comparison, for owners and auditors.

``certify --supersedes`` compares what is asked for with the earlier certificate before it proves anything, ``verify
--supersedes`` compares two certificates. Establishes that the later one is about the same base and encoding, covers no
fewer forget records, classes and requests, but for those that were withdrawn, and has no weaker terms for those left.
Both sets opened, records are compared one by one; otherwise by number, because a commitment shows nothing else.

Source: FORMATS section 2 (``supersedes``); MATHS 4.4; THREATS T11, T12; certs/SPEC.md section 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from prune_verify.checker.encoding import Json, canonical_json, format_decimal, parse_json
from prune_verify.checker.errors import CheckError
from prune_verify.checker.region import Domain
from prune_verify.checker.statement import Statement

__all__ = ["Covered", "Lost", "Term", "Weaker", "covered_by", "listed_requests", "lost", "reference_of", "weaker_terms"]

_OF_RECORDS = ("forget", "band")
_OF_CLASSES = ("forget_class",)


# --- the live requests ---


def reference_of(requests: tuple[str, ...]) -> str:
    """The one reference of a request that covers several ``requests``: their references as a canonical JSON list."""
    listed: list[Json] = [*requests]
    return requests[0] if len(requests) == 1 else canonical_json(listed).decode()


def listed_requests(reference: str) -> tuple[str, ...]:
    """The requests that a reference names: those of a canonical JSON list of two or more, else itself, if not empty."""
    try:
        found = parse_json(reference.encode(), "reference", canonical=True)
    except (CheckError, UnicodeEncodeError):
        found = None
    texts = [item for item in found if isinstance(item, str)] if isinstance(found, list) else []
    if isinstance(found, list) and len(set(texts)) == len(found) >= 2:  # noqa: PLR2004 - one alone is spelt as it is
        return tuple(texts)
    return (reference,) if reference else ()


# --- what is covered ---


@dataclass(frozen=True)
class Term:
    """What is promised to those who asked to be forgotten: one claim, or what a request wants of it.

    Args:
        name: the claim's id, or the request's own words.
        kind: ``forget``, ``band`` or ``forget_class``.
        arithmetic: of the claim.
        label: of a class.
        radius: of the forget balls.
        margin: by which the label loses.
        band: in which its margin stays.

    """

    name: str
    kind: str
    arithmetic: str
    label: int | None
    radius: Fraction | None
    margin: Fraction | None
    band: tuple[Fraction, Fraction] | None


@dataclass(frozen=True)
class Covered:
    """What a certificate covers, or what is to be certified.

    Args:
        base_sha256: the base network's file.
        encoding_sha256: of tabular records.
        domain: D.
        records: size of the forget set.
        classes: labels that are never answered.
        requests: references of the live requests.
        terms: of all of it.

    """

    base_sha256: str
    encoding_sha256: str | None
    domain: Domain
    records: int
    classes: frozenset[int]
    requests: tuple[str, ...]
    terms: tuple[Term, ...]


def covered_by(statement: Statement) -> Covered:
    """What a certificate covers."""
    terms = tuple(
        Term(item.id, claim.kind, claim.arithmetic, claim.label, claim.radius, claim.margin, claim.band)
        for item, claim in ((item, item.claim) for item in statement.claims)
        if claim.kind in (*_OF_RECORDS, *_OF_CLASSES)
    )
    return Covered(
        base_sha256=statement.base_sha256,
        encoding_sha256=statement.encoding_sha256,
        domain=statement.domain,
        records=0 if statement.forget_set is None else statement.forget_set.size,
        classes=frozenset(term.label for term in terms if term.kind in _OF_CLASSES and term.label is not None),
        requests=listed_requests(statement.request_reference),
        terms=terms,
    )


# --- the comparison ---


@dataclass(frozen=True)
class Lost:
    """What the later one does not cover any more.

    Args:
        records: how many.
        classes: which.
        requests: which.

    """

    records: int
    classes: tuple[int, ...]
    requests: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many were taken back at least: a request that is gone took back something, if only its own name."""
        return max(self.records + len(self.classes), len(self.requests))


def lost(earlier: Covered, later: Covered, missing: int | None = None) -> Lost:
    """What the later one does not cover of the earlier; ``missing`` records where both sets were opened."""
    records = max(earlier.records - later.records, 0) if missing is None else missing
    requests = tuple(name for name in earlier.requests if name not in later.requests)
    return Lost(records, tuple(sorted(earlier.classes - later.classes)), requests)


@dataclass(frozen=True)
class Weaker:
    """A term of the earlier one that the later one does not keep.

    Args:
        term: of the earlier one.
        what: ``claim``, ``encoding``, ``domain``, ``radius``, ``margin`` or ``band``.
        before: what it was.
        now: what it is.

    """

    term: Term
    what: str
    before: str
    now: str


def weaker_terms(earlier: Covered, later: Covered, gone: int) -> Iterator[Weaker]:
    """The later terms that are weaker for what is still covered, ``gone`` records of the earlier being withdrawn."""
    for term in earlier.terms:
        of_records = term.kind in _OF_RECORDS
        if earlier.records <= gone if of_records else term.label not in later.classes:
            continue
        if of_records and earlier.encoding_sha256 != later.encoding_sha256:
            yield Weaker(term, "encoding", str(earlier.encoding_sha256), str(later.encoding_sha256))
        if of_records and not _holds(later.domain, earlier.domain):
            yield Weaker(term, "domain", "its domain", "a smaller one")
        wanted = term.kind, term.arithmetic, term.label
        same = [one for one in later.terms if (one.kind, one.arithmetic, one.label) == wanted]
        found = [next(_weaker(term, one), None) for one in same]
        if not same:
            yield Weaker(term, "claim", f"{term.kind} in {term.arithmetic}", "none of this kind")
        elif None not in found:
            yield next(item for item in found if item is not None)


def _weaker(term: Term, now: Term) -> Iterator[Weaker]:
    for what, before, after in (("radius", term.radius, now.radius), ("margin", term.margin, now.margin)):
        if before is not None and (after is None or after < before):
            yield Weaker(term, what, _shown(before), _shown(after))
    if term.band is not None and (now.band is None or now.band[0] < term.band[0] or now.band[1] > term.band[1]):
        after_band = now.band or (None, None)
        yield Weaker(term, "band", " to ".join(map(_shown, term.band)), " to ".join(map(_shown, after_band)))


def _shown(value: Fraction | None) -> str:
    return "none" if value is None else format_decimal(value)


def _holds(outer: Domain, inner: Domain) -> bool:
    """Whether a domain holds all of another."""
    size = max(len(outer.lower), len(inner.lower))
    if {len(outer.lower), len(inner.lower)} - {1, size}:
        return False
    pairs = [(outer.interval(place), inner.interval(place)) for place in range(size)]
    return all(low <= least and greatest <= high for (low, high), (least, greatest) in pairs)
