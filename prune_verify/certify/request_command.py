"""``prune-verify request``: what is asked of a patched network, where another tool made it.

Source: FORMATS section 1; certs/SPEC.md section 6.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from prune_verify.checker.claim import CLAIM_KINDS
from prune_verify.checker.encoding import Json, format_decimal, parse_decimal, read_file
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.records import Records
from prune_verify.checker.region import Domain, domain_json
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.files import replace_file
from prune_verify.request import Request, emit_request, parse_request
from prune_verify.request_sets import (
    RequestInputError,
    amounts_of,
    default_radii,
    domain_of,
    fitted,
    read_sets,
    require_files,
)

__all__ = ["request_command"]

_MOST_BYTES = 2**30
_MOST_COVER = 2**16
_LONGEST_REFERENCE = 512
_ARITHMETICS = {"binary32": BINARY32, BINARY32: BINARY32, REAL: REAL}
_OF_CLASSES = ("forget_class", "retain_other_labels")
_OF_PATCHES = ("locality", "minimality", *_OF_CLASSES)
_RETAINING = ("retain_exact", "retain_label", "retain_close", "minimality")
_USED_BY: dict[str, tuple[str, ...]] = {
    "radius": ("forget", "band", "minimality"),
    "retained_radius": _RETAINING,
    "retain": _RETAINING,
    "margin": ("forget", "forget_class"),
    "delta": ("retain_close",),
    "band": ("band",),
    "cover": ("minimality",),
}


@dataclass(frozen=True, eq=False)
class _Terms:
    """The numbers of a request: as given, or by default."""

    domain: Domain
    radius: Fraction
    retained_radius: Fraction
    margin: Fraction
    delta: Fraction
    band: tuple[Fraction, Fraction] | None
    cover: int


def _listed(value: str, name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Names between commas, each known and each once."""
    found = tuple(item.strip() for item in value.split(","))
    for item in found:
        if item not in known:
            text = f"{name}: expected some of {', '.join(known)}, got {item!r}"
            raise RequestInputError(text)
    if len(set(found)) != len(found):
        text = f"{name}: one name stands there twice: {value}"
        raise RequestInputError(text)
    return found


def _claims(options: argparse.Namespace) -> tuple[str, ...]:
    """The kinds of claims: as asked, or what a network of foreign making can be held to."""
    if options.claims is not None:
        return _listed(options.claims, "--claims", CLAIM_KINDS)
    found: tuple[str, ...] = ()
    if options.forget is not None:
        found = ("forget", "retain_label") if options.retain is not None else ("forget",)
        found += ("retain_close",) if options.delta is not None and options.retain is not None else ()
        found += ("band",) if options.band is not None else ()
    return found + (_OF_CLASSES if options.forget_class else ())


def _require_answerable(options: argparse.Namespace, claims: tuple[str, ...]) -> None:
    """Every claim has what it speaks of.

    Raises:
        RequestInputError: nothing is to be forgotten, or a claim lacks its set, its classes or its number.

    """
    if options.forget is None and not options.forget_class:
        text = "nothing to forget: give --forget RECORDS, --forget-class C, or both"
        raise RequestInputError(text)
    of_records = [kind for kind in claims if kind not in _OF_CLASSES]
    for lacking, kinds, needed in (
        (options.forget is None, of_records, "--forget RECORDS"),
        (options.retain is None, [kind for kind in claims if kind in _RETAINING], "--retain RECORDS"),
        (not options.forget_class, [kind for kind in claims if kind in _OF_CLASSES], "--forget-class C"),
        (options.band is None, [kind for kind in claims if kind == "band"], "--band LO,HI"),
        (options.forget is not None and "forget" not in claims, ["--forget"], "claim forget"),
        (bool(options.forget_class) and "forget_class" not in claims, ["--forget-class"], "claim forget_class"),
    ):
        if lacking and kinds:
            text = f"{', '.join(kinds)}: asked for, and it needs {needed}"
            raise RequestInputError(text)


def _band(value: str | None) -> tuple[Fraction, Fraction] | None:
    if value is None:
        return None
    low, comma, high = value.partition(",")
    if not comma:
        text = f"--band: expected LO,HI, got {value!r}"
        raise RequestInputError(text)
    ends = parse_decimal(low.strip(), "--band"), parse_decimal(high.strip(), "--band")
    if ends[0] > ends[1]:
        text = f"--band: expected the lower end first, got {value}"
        raise RequestInputError(text)
    return ends


def _terms(options: argparse.Namespace, domain: Domain) -> _Terms:
    """Numbers as given, the others by default."""
    radius, retained = default_radii(domain)
    tenth = Fraction(1, 10)
    amounts = {"radius": radius, "retained_radius": retained, "margin": tenth, "delta": tenth} | amounts_of(options)
    for name, value in amounts.items():
        if value <= 0:
            text = f"--{name.replace('_', '-')}: expected more than 0, got {format_decimal(value)}"
            raise RequestInputError(text)
    cover = 2 if options.cover is None else options.cover
    if not 1 <= cover <= _MOST_COVER:
        text = f"--cover: expected 1 to {_MOST_COVER}, got {cover}"
        raise RequestInputError(text)
    return _Terms(domain, band=_band(options.band), cover=cover, **amounts)


def _base(options: argparse.Namespace) -> LoadedModel:
    """The base network; the patched one, where it is named, can stand in its place.

    Raises:
        CheckError: a network cannot be read.
        RequestInputError: the patched network has another input, output or opset.

    """
    base = load_network(read_file(options.base, "base network", _MOST_BYTES), str(options.base))
    if options.patched is None:
        return base
    patched = load_network(read_file(options.patched, "patched network", _MOST_BYTES), str(options.patched))
    for name, expected, got in (
        ("input name", base.input_name, patched.input_name),
        ("output name", base.output_name, patched.output_name),
        ("opset", base.opset, patched.opset),
        ("input shape", base.network.input_shape, patched.network.input_shape),
        ("output shape", base.network.output_shape, patched.network.output_shape),
    ):
        if expected != got:
            text = f"{options.patched}: {name}: expected the base's, {expected}, got {got}"
            raise RequestInputError(text)
    return base


def _require_options(options: argparse.Namespace, labels: int) -> None:
    for label in options.forget_class:
        if not 0 <= label < labels:
            text = f"--forget-class: expected a label from 0 to {labels - 1}, got {label}"
            raise RequestInputError(text)
    if len(set(options.forget_class)) >= labels:
        text = "--forget-class: no label is left to answer"
        raise RequestInputError(text)
    if len(options.reference) > _LONGEST_REFERENCE:
        text = f"--reference: expected at most {_LONGEST_REFERENCE} characters, got {len(options.reference)}"
        raise RequestInputError(text)


def _notes(options: argparse.Namespace, claims: tuple[str, ...]) -> list[str]:
    """What was given and is not used, and what the answer will need beside the networks."""
    notes = [
        f"--{name.replace('_', '-')}: not used by claims of kind {', '.join(claims)}"
        for name, kinds in _USED_BY.items()
        if getattr(options, name) is not None and not set(kinds) & set(claims)
    ]
    if options.forget is None:
        given = [name for name in ("label_column", "encoding") if getattr(options, name) is not None]
        notes += [f"--{name.replace('_', '-')}: not used by a class request" for name in given]
    structural = [kind for kind in claims if kind in _OF_PATCHES]
    if structural:
        notes.append(f"{', '.join(structural)}: certify will need patch.json for these claims")
    return notes


def _request(
    options: argparse.Namespace, base: LoadedModel, claims: tuple[str, ...], terms: _Terms, sets: dict[str, Records]
) -> Request:
    arithmetics = _listed(options.arithmetic, "--arithmetic", tuple(_ARITHMETICS))
    classes = tuple(sorted(set(options.forget_class)))
    records = "forget" in sets
    return Request(
        kind="class" if not records else "records+class" if classes else "records",
        reference=options.reference,
        received_at=datetime.now(UTC).replace(microsecond=0),
        labels=base.network.labels,
        classes=classes,
        domain=terms.domain,
        radius=terms.radius if records else None,
        retained_radius=terms.retained_radius if records else None,
        margin=terms.margin,
        cover=terms.cover,
        delta=terms.delta if "retain_close" in claims else None,
        claims=claims,
        arithmetics=tuple(dict.fromkeys(_ARITHMETICS[name] for name in arithmetics)),
        encoding_sha256=sets["forget"].encoding_sha256 if records else None,
        band=terms.band if "band" in claims else None,
    )


def _text(request: Request, sets: dict[str, Records], options: argparse.Namespace) -> list[str]:
    """The result for a person."""
    low, high = (format_decimal(end[0]) for end in (request.domain.lower, request.domain.upper))
    more = "" if request.domain.uniform else " (first coordinate)"
    parts = [f"domain {low}..{high}{more}"]
    for name, value in (
        ("forget radius", request.radius),
        ("retained radius", request.retained_radius),
        ("margin", request.margin),
        ("delta", request.delta),
    ):
        parts += [] if value is None else [f"{name} {format_decimal(value)}"]
    if request.band is not None:
        parts.append(f"band {format_decimal(request.band[0])} to {format_decimal(request.band[1])}")
    lines = [", ".join(parts), f"claims {', '.join(request.claims)} in {', '.join(request.arithmetics)}"]
    if sets:
        lines.append(", ".join(f"{len(records.y)} records in the {name} set" for name, records in sets.items()))
    return [*lines, f"wrote {options.out}"]


def request_command(options: argparse.Namespace) -> tuple[int, str, dict[str, Json]]:
    """Run the verb.

    Returns:
        Exit code 0, text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be used.
        RequestInputError: the same, or the options ask for nothing that can be decided.

    """
    claims = _claims(options)
    _require_answerable(options, claims)
    require_files([options.base, options.patched, options.encoding])
    base = _base(options)
    _require_options(options, base.network.labels)
    sets = read_sets(options)
    terms = _terms(options, domain_of(options.domain, list(sets.values())))
    sets = fitted(sets, base.network, terms.domain, (terms.radius, terms.retained_radius))
    request = _request(options, base, claims, terms, sets)
    content = emit_request(request)
    parse_request(content, str(options.out))  # what the other verbs will read
    if options.out.exists() and not options.out.is_file():
        text = f"--out {options.out}: expected a file to write, got a folder"
        raise RequestInputError(text)
    replace_file(options.out, content)
    notes = _notes(options, claims)
    data: dict[str, Json] = {
        "request": str(options.out),
        "kind": request.kind,
        "claims": list(claims),
        "arithmetic": list(request.arithmetics),
        "domain": domain_json(request.domain),
        "notes": list(notes),
    }
    return 0, "\n".join([*notes, *_text(request, sets, options)]), data
