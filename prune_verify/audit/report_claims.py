"""The heart of the report: the verdict, what was claimed and found, and what is not said.

Every section says where its contents come from: found by the checker, evaluated on the files for
this report, or stated by the owner in the certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prune_verify.audit import wording
from prune_verify.audit.report_data import ReportData
from prune_verify.audit.report_values import (
    CHECKED,
    MOST_ITEMS,
    STATED,
    at,
    chip,
    items_of,
    limited,
    more,
    predicate,
    shown,
    source,
)
from prune_verify.audit.wording import percent
from prune_verify.checker.verdict import REJECTED, UNDECIDED, VERIFIED, Check, ClaimVerdict
from prune_verify.markup import Html, cells, joined, said, table, tag, text

__all__ = ["banner", "claims", "reading", "stated_claims", "unsaid"]

_TONES = {VERIFIED: "good", UNDECIDED: "warn", REJECTED: "bad"}
_ICONS = {
    VERIFIED: "M4 13 l5.5 5.5 L20.5 6",
    UNDECIDED: "M7.5 8.5 a4.5 4.5 0 1 1 6.6 4 q-2.1 1.2 -2.1 3.2 M12 19.6 v.3",
    REJECTED: "M5 5 L19 19 M19 5 L5 19",
}


_HEADS = (
    "Claim",
    "Region, arithmetic, method",
    "Total",
    "Proved",
    "Unknown",
    "Conflict",
    "Refuted",
    "Already wrong",
)


def _claim_tile(claims: Sequence[ClaimVerdict], kinds: tuple[str, ...], words: str) -> list[Html]:
    found = [c for kind in kinds for c in claims if c.kind == kind]
    binary = [c for c in found if c.arithmetic == "ieee754-binary32"] or found
    if not binary:
        return []
    claim = binary[0]
    extra = f", {claim.conflict:,} in conflict" if claim.conflict else ""
    line = tag("b", text(f"{claim.proved:,} of {claim.total:,}"))
    return [tag("li", line, tag("span", text(f"{words} proved{extra}")))]


def _tiles(data: ReportData) -> Html:
    claims = data.verdict.claims
    made = _claim_tile(claims, ("forget",), "forgotten records")
    made += _claim_tile(claims, ("retain_exact", "retain_label", "retain_close"), "retained records")
    capped = [c for c in claims if c.kind == "forget_class"]
    if capped:
        proved = len({c.id for c in capped if c.proved == c.total and c.total})
        made.append(
            tag(
                "li",
                tag("b", text(f"{proved:,} of {len(capped):,}")),
                tag("span", text("claims on a whole class proved")),
            )
        )
    for row in data.accuracies:
        if row.name.startswith("Test") and row.count:
            line = tag("b", text(f"{percent(row.before, row.count)} \u2192 {percent(row.after, row.count)}"))
            made.append(tag("li", line, tag("span", text("answered correctly on test data, before and after"))))
    return tag("ul", *made, class_="tiles") if made else Html("")


def banner(data: ReportData) -> Html:
    """The verdict: word, sentence, reason, and the stable line."""
    verdict = data.verdict
    tone = _TONES.get(verdict.word, "bad")
    drawing = tag(
        "path",
        d=_ICONS.get(verdict.word, ""),
        fill="none",
        stroke="currentColor",
        stroke_width="3.4",
        stroke_linecap="round",
        stroke_linejoin="round",
    )
    parts = [
        tag("h1", tag("svg", drawing, viewBox="0 0 24 24", aria_hidden="true"), text(verdict.word)),
        tag("p", text(wording.VERDICT_SENTENCES.get(verdict.word, ""))),
    ]
    why = wording.reason(verdict)
    if verdict.word != VERIFIED and why is not None:
        parts.append(tag("p", tag("b", text("Reason: ")), *_why(why), class_="why"))
    elif verdict.word != VERIFIED and wording.code_sentence(verdict.code):
        parts.append(tag("p", tag("b", text("Reason: ")), text(wording.code_sentence(verdict.code)), class_="why"))
    parts.append(tag("pre", text(verdict.line())))
    box = tag("section", *parts, class_=f"verdict {tone}", aria_label="Verdict")
    kicker = tag("p", text(data.title), class_="kicker")
    tiles = Html("") if verdict.word == REJECTED else _tiles(data)
    return tag("header", kicker, box, _cautions(data), tiles)


def _why(check: Check) -> list[Html]:
    sentence = wording.code_sentence(check.code)
    place = [text(" (at "), tag("code", text(check.path)), text(")")] if check.path else []
    return [
        text(f"{sentence} " if sentence else ""),
        text("Check \u201c"),
        said(check.name),
        text("\u201d: "),
        said(check.detail),
        *place,
    ]


def _cautions(data: ReportData) -> Html:
    verdict = data.verdict
    found = [
        *(f"Warning: {w}" for w in verdict.warnings),
        *(f"Rests on the assumption: {a}" for a in verdict.assumptions),
    ]
    return (
        tag("ul", *(tag("li", chip("warn", "Note"), text(" "), said(line)) for line in found), class_="plain")
        if found
        else Html("")
    )


def reading(_: ReportData) -> Html:
    """How to read the report."""
    parts = [tag("p", text(line)) for line in wording.HOW_TO_READ]
    return tag("section", tag("h2", text("How to read this")), *parts, class_="reading")


def stated_claims(data: ReportData) -> dict[str, dict[str, object]]:
    """The members of each claim that its sentence needs, by claim id."""
    result = {}
    for claim in items_of(at(predicate(data), "claims")):
        region = at(claim, "region")
        members = {
            key: at(claim, key) if at(claim, key) is not None else at(region, key)
            for key in ("kind", "radius", "margin", "delta", "label", "logits", "band", "cover", "method", "arithmetic")
        }
        result[str(at(claim, "id"))] = members
    return result


def _count(number: int, tone: str = "") -> Html:
    shown_number = f"{number:,}"
    if number and tone:
        return tag("b", text(shown_number), class_=tone)
    return tag("span", text(shown_number), class_="" if number else "zero")


def _grouped(rows: Sequence[ClaimVerdict], stated: dict[str, dict[str, object]]) -> list[list[ClaimVerdict]]:
    """Claims that follow one another and differ in their arithmetic alone, counts included, stand in one row."""
    groups: list[list[ClaimVerdict]] = []
    for claim in rows:
        last = groups[-1] if groups else []
        told = {name: value for name, value in stated.get(claim.id, {}).items() if name != "arithmetic"}
        if last and claim.arithmetic not in {c.arithmetic for c in last}:
            other = {name: value for name, value in stated.get(last[0].id, {}).items() if name != "arithmetic"}
            if told == other and replace(last[0], id=claim.id, arithmetic=claim.arithmetic) == claim:
                last.append(claim)
                continue
        groups.append([claim])
    return groups


def _claim_row(group: list[ClaimVerdict], stated: dict[str, object]) -> Html:
    claim = group[0]
    tone, words = wording.outcome_words(claim)
    method = stated.get("method")
    first = [tag("b", said(wording.heading_of(claim.kind))), said(wording.claim_sentence(claim.kind, stated))]
    name = tag("span", text(f"{', '.join(c.id for c in group)} \u00b7 {claim.kind}"), class_="detail mono")
    where = [
        said(wording.region_words(claim.region)),
        *(tag("span", said(wording.arithmetic_words(c.arithmetic)), class_="detail") for c in group),
        tag(
            "span", said("method not stated" if method is None else wording.method_words(str(method))), class_="detail"
        ),
    ]
    numbers = [
        _count(claim.total),
        _count(claim.proved),
        _count(claim.unknown, "warn"),
        _count(claim.conflict, "warn"),
        _count(claim.refuted, "bad"),
        _count(claim.already_wrong, "warn"),
    ]
    return cells([joined([*first, name, chip(tone, words)]), joined(where), *numbers], _HEADS, numbers_from=2)


def claims(data: ReportData) -> Html:
    """One row per claim, with the counts that the checker found."""
    stated = stated_claims(data)
    if not data.verdict.claims:
        text_ = "The checker stopped before it decided any claim. Nothing below is shown to hold."
        listed = [
            tag("li", said(wording.claim_sentence(str(c.get("kind")), c))) for c in list(stated.values())[:MOST_ITEMS]
        ]
        unchecked = [tag("h3", text("Claimed, not checked")), tag("ul", *listed, *more(len(stated)))] if listed else []
        return joined([source(CHECKED), tag("p", text(text_)), *unchecked])
    rows, left, open_left = limited(data.verdict.claims, lambda c: wording.outcome_words(c)[0] != "good")
    made = [_claim_row(group, stated.get(group[0].id, {})) for group in _grouped(rows, stated)]
    parts = [source(f"counts {CHECKED} Sentences and methods: {STATED}", data)]
    if data.verdict.word == REJECTED:
        parts.append(tag("p", chip("bad", "Rejected"), text(" The counts say only how far the checker came.")))
    parts.append(
        table(
            "Claims, with the counts that the checker found itself", _HEADS, made, numbers_from=2, class_="claims stack"
        )
    )
    if left:
        rest = "all of them proved for all" if not open_left else f"{open_left:,} of them not proved for all"
        parts.append(tag("p", text(f"{left:,} more claims are not listed here, {rest}; the verdict covers them.")))
    parts.append(tag("p", text(wording.ARITHMETIC_NOTE), class_="small"))
    if any(c.already_wrong for c in data.verdict.claims):
        parts.append(tag("p", text(wording.ALREADY_WRONG_NOTE), class_="small"))
    if any(c.conflict for c in data.verdict.claims):
        parts.append(tag("p", text(wording.CONFLICT_NOTE), class_="small"))
    return joined(parts)


def unsaid(data: ReportData) -> Html:
    """What the certificate does not say: always, and in its own words."""
    parts = [
        tag("p", text("True of every certificate of this kind, whatever it states:")),
        tag("ul", *(tag("li", text(line)) for line in wording.ALWAYS_UNSAID), class_="unsaid"),
    ]
    own = items_of(at(predicate(data), "nonClaims"))
    if own:
        listed = [tag("li", shown(line)) for line in own[:MOST_ITEMS]]
        parts += [
            tag("h3", text("In the certificate's own words")),
            source(STATED, data),
            tag("ul", *listed, *more(len(own))),
        ]
    return joined(parts)
