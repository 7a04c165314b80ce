"""Values of a certificate as markup: bounded in length, named in words, and said where they come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from prune_verify.audit.report_data import ReportData
from prune_verify.markup import Html, cells, joined, said, table, tag, text

__all__ = [
    "CHECKED",
    "EVALUATED",
    "MOST_ITEMS",
    "STATED",
    "at",
    "chip",
    "facts",
    "items_of",
    "limited",
    "member_name",
    "more",
    "predicate",
    "radii",
    "shown",
    "source",
]

T = TypeVar("T")
_MOST_ROWS = 500
MOST_ITEMS = 100
_MOST_DEPTH = 6
_LARGE = 2**64
_HEX = re.compile(r"[0-9a-f]{32,128}", re.ASCII)
_NAMES = {
    "labels": "Labels",
    "label": "Label",
    "reference": "Reference",
    "receivedAt": "Received",
    "radius": "Radius around each forgotten record",
    "retainedRadius": "Radius around each retained record",
    "tau": "Margin of forgetting",
    "margin": "Margin of forgetting",
    "cover": "Separating coordinates per retained record",
    "domain": "Domain of the inputs",
    "arithmetic": "Arithmetic",
    "tieRule": "Rule for ties",
    "claimKinds": "Kinds of claim",
    "sha256": "SHA-256",
    "encodingSha256": "SHA-256 of the encoding of the records",
    "networkDigest": "Digest of the network, whatever its file",
    "opset": "Version of the ONNX operators",
    "lower": "From",
    "upper": "To",
    "formatVersion": "Version of the format",
}
CHECKED = "found by the checker from the files."
STATED = "stated by the owner in the certificate."
EVALUATED = "evaluated on the files for this report; examples and counts, not proofs."


def at(value: object, *keys: str) -> object:
    """The member of a nested value that ``keys`` lead to, or None."""
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def predicate(data: ReportData) -> Mapping[str, object]:
    """The statement's predicate; empty when there is none."""
    found = at(data.statement, "predicate")
    return found if isinstance(found, Mapping) else {}


def radii(data: ReportData, kinds: Sequence[str]) -> list[str]:
    """The different radii of the stated claims of some kinds, as they are written there."""
    claims = items_of(at(predicate(data), "claims"))
    found = [at(c, "region", "radius") or at(c, "radius") for c in claims if at(c, "kind") in kinds]
    return list(dict.fromkeys(radius for radius in found if isinstance(radius, str)))[:MOST_ITEMS]


def items_of(value: object) -> list[object]:
    """The items of a value that is a list, or nothing."""
    return list(value) if isinstance(value, list | tuple) else []


def member_name(key: str) -> Html:
    """The name of the member ``key`` in words: known ones from the table, others split at their capitals."""
    if key in _NAMES:
        return text(_NAMES[key])
    return said("".join(f" {c.lower()}" if c.isupper() and c.isascii() else c for c in key).strip().capitalize())


def shown(value: object, depth: int = 0) -> Html:
    """Any JSON value of the certificate, in full but bounded; ``depth`` of nesting so far."""
    if value is None or value == "":
        return tag("span", text("not stated" if value is None else "empty"), class_="zero")
    if isinstance(value, bool):
        return text("yes" if value else "no")
    if isinstance(value, int):
        return text(f"{value:,}" if abs(value) < _LARGE else "a number too large to show")
    if isinstance(value, str) and _HEX.fullmatch(value):
        return tag("code", text(value))
    if not isinstance(value, Mapping | list | tuple):
        return said(value)
    if depth >= _MOST_DEPTH:
        return text("nested too deep to show")
    if isinstance(value, Mapping):
        parts = [
            tag("li", member_name(str(k)), text(": "), shown(v, depth + 1)) for k, v in list(value.items())[:MOST_ITEMS]
        ]
        return tag("ul", *parts, *more(len(value)), class_="plain") if parts else text("none")
    if not value:
        return text("none")
    if any(isinstance(v, Mapping | list | tuple) for v in value):
        parts = [tag("li", shown(v, depth + 1)) for v in value[:MOST_ITEMS]]
        return tag("ul", *parts, *more(len(value)), class_="plain" if len(value) == 1 else "")
    tail = f" and {len(value) - MOST_ITEMS:,} more" if len(value) > MOST_ITEMS else ""
    return joined([joined((shown(v, depth + 1) for v in value[:MOST_ITEMS]), ", "), text(tail)])


def more(count: int) -> list[Html]:
    """The last item of a list that was cut by ``count``, or nothing."""
    return [tag("li", text(f"and {count - MOST_ITEMS:,} more"))] if count > MOST_ITEMS else []


def facts(caption: str, pairs: Sequence[tuple[Html, Html]]) -> Html:
    """A table of two columns with a caption: pairs of a name and its value."""
    heads = ("What", "Value")
    return table(caption, heads, [cells(pair, heads) for pair in pairs], class_="facts")


def limited(rows: Sequence[T], matters: Callable[[T], bool]) -> tuple[list[T], int, int]:
    """At most 500 rows in their order, those for which ``matters`` first; how many are left out, and of them matter."""
    if len(rows) <= _MOST_ROWS:
        return list(rows), 0, 0
    ranked = sorted(range(len(rows)), key=lambda i: (not matters(rows[i]), i))
    left = ranked[_MOST_ROWS:]
    return [rows[i] for i in sorted(ranked[:_MOST_ROWS])], len(left), sum(matters(rows[i]) for i in left)


def source(words: str, data: ReportData | None = None) -> Html:
    """Where a section comes from, in ``words``; with ``data``, also whether anybody signed for it."""
    unsigned = data is not None and not data.verdict.payload_sha256
    tail = " No signature was accepted, so it is not known who stated it." if unsigned else ""
    return tag("p", tag("b", text("Source: ")), text(words + tail), class_="source")


def chip(tone: str, words: str) -> Html:
    """A short mark in ``words``, coloured by its ``tone``."""
    return tag("span", text(words), class_=f"chip {tone}")
