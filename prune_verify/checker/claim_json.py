"""One claim of a statement as JSON: what is claimed, and the counts and indices that the prover says.

Nothing in it is believed: every count is recomputed.

Source: FORMATS section 2; certs/SPEC.md section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from prune_verify.checker.claim import CLAIM_KINDS, Claim
from prune_verify.checker.encoding import Json, Members, format_decimal
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.rules import BINARY32, REAL

__all__ = ["ClaimStatement", "Counts", "emitted_claim", "parse_claim"]

METHODS = ("structural", "relaxation", "relaxation+smt", "covering-dual", "shift-point", "identity")
_CLAIM = (
    "id", "kind", "arithmetic", "quantifier", "method", "region", "margin", "label", "delta", "band", "cover",
    "logits", "counts", "conflicts", "unknowns", "alreadyWrong",
)  # fmt: skip
_COUNTS = ("total", "proved", "provedByBound", "refuted", "unknown", "conflict", "alreadyWrong")
OUTSIDE = "domain-outside-supports"
_QUANTIFIERS = {
    "forget": ("each-forget-record",),
    "retain_exact": ("each-retained-record",),
    "retain_label": ("each-retained-record",),
    "retain_close": ("each-retained-record",),
    "band": ("each-forget-record",),
    "minimality": ("each-gate",),
    "locality": (OUTSIDE,),
    "forget_class": ("all-inputs",),
    "retain_other_labels": ("all-inputs", OUTSIDE),
}


@dataclass(frozen=True)
class Counts:
    """How many statements of a claim are what (certs/SPEC.md section 5); recomputed by the checker, never believed."""

    total: int
    proved: int
    proved_by_bound: int = 0
    refuted: int = 0
    unknown: int = 0
    conflict: int = 0
    already_wrong: int = 0


@dataclass(frozen=True)
class ClaimStatement:
    """One claim with the counts that the prover says.

    Args:
        id: ``C1``, ``C2``, ...
        claim: what is claimed.
        counts: as said.
        conflicts: indices of retained records, as said.
        unknowns: indices, as said.
        already_wrong: (index, base answer) pairs, as said.

    """

    id: str
    claim: Claim
    counts: Counts
    conflicts: tuple[int, ...] = ()
    unknowns: tuple[int, ...] = ()
    already_wrong: tuple[tuple[int, int], ...] = ()


def _decimal_or_none(fields: Members, name: str) -> Fraction | None:
    return None if fields.null(name) else fields.decimal(name)


def _radius(fields: Members) -> Fraction | None:
    if fields.null("region"):
        return None
    region = fields.members("region", ("kind", "norm", "radius"))
    region.text("kind", among=("ball",))
    region.text("norm", among=("linf",))
    return _amount(region, "radius")


def _amount(fields: Members, name: str) -> Fraction:
    value = fields.decimal(name)
    if value < 0:
        raise MalformedInputError(fields.place(name), "radius", "at least 0", str(value))
    return value


def _band(fields: Members) -> tuple[Fraction, Fraction] | None:
    if fields.null("band"):
        return None
    ends = fields.members("band", ("lower", "upper"))
    lower, upper = ends.decimal("lower"), ends.decimal("upper")
    if lower > upper:
        raise MalformedInputError(fields.place("band"), "band", "lower at most upper", f"{lower} and {upper}")
    return lower, upper


def _cover(fields: Members) -> tuple[int, Fraction] | None:
    if fields.null("cover"):
        return None
    value = fields.members("cover", ("count", "retainedRadius"))
    return value.integer("count", least=1, most=2**16), _amount(value, "retainedRadius")


def _pairs(fields: Members, name: str) -> tuple[tuple[int, int], ...]:
    found = []
    for place, item in enumerate(fields.items(name)):
        pair = Members(item, f"{fields.place(name)}/{place}", ("index", "baseAnswer"))
        found.append((pair.integer("index"), pair.integer("baseAnswer", least=-1)))
    return tuple(found)


def parse_claim(value: Json, path: str) -> ClaimStatement:
    """Read one claim.

    Raises:
        MalformedInputError: not of the form.

    """
    fields = Members(value, path, _CLAIM)
    kind = fields.text("kind", among=CLAIM_KINDS)
    reach = fields.text("quantifier", among=_QUANTIFIERS[kind])
    claim = Claim(
        kind=kind,
        arithmetic=fields.text("arithmetic", among=(BINARY32, REAL)),
        method=fields.text("method", among=METHODS),
        radius=_radius(fields),
        margin=_decimal_or_none(fields, "margin"),
        label=None if fields.null("label") else fields.integer("label", most=2**16),
        delta=_decimal_or_none(fields, "delta"),
        band=_band(fields),
        cover=_cover(fields),
        logits=None if fields.null("logits") else fields.integers("logits"),
        outside_supports=kind == "retain_other_labels" and reach == OUTSIDE,
    )
    said = fields.members("counts", _COUNTS)
    return ClaimStatement(
        id=fields.text("id", longest=16),
        claim=claim,
        counts=Counts(*(said.integer(name) for name in _COUNTS)),
        conflicts=fields.integers("conflicts"),
        unknowns=fields.integers("unknowns"),
        already_wrong=_pairs(fields, "alreadyWrong"),
    )


def emitted_claim(item: ClaimStatement) -> Json:
    """The JSON of one ``item`` of the claims."""
    claim, counts = item.claim, item.counts
    decimals = {
        name: None if v is None else format_decimal(v) for name, v in (("margin", claim.margin), ("delta", claim.delta))
    }
    region: Json = None
    if claim.radius is not None:
        region = {"kind": "ball", "norm": "linf", "radius": format_decimal(claim.radius)}
    band: Json = None
    if claim.band is not None:
        band = {"lower": format_decimal(claim.band[0]), "upper": format_decimal(claim.band[1])}
    cover: Json = None
    if claim.cover is not None:
        cover = {"count": claim.cover[0], "retainedRadius": format_decimal(claim.cover[1])}
    values = (
        counts.total, counts.proved, counts.proved_by_bound, counts.refuted, counts.unknown, counts.conflict,
        counts.already_wrong,
    )  # fmt: skip
    return {
        "id": item.id,
        "kind": claim.kind,
        "arithmetic": claim.arithmetic,
        "quantifier": OUTSIDE if claim.outside_supports else _QUANTIFIERS[claim.kind][0],
        "method": claim.method,
        "region": region,
        **decimals,
        "band": band,
        "cover": cover,
        "label": claim.label,
        "logits": None if claim.logits is None else list(claim.logits),
        "counts": dict(zip(_COUNTS, values, strict=True)),
        "conflicts": list(item.conflicts),
        "unknowns": list(item.unknowns),
        "alreadyWrong": [{"index": index, "baseAnswer": answer} for index, answer in item.already_wrong],
    }
