"""What can still go wrong although a certificate verifies: each risk with its size here, and what a reader can do.

A risk is ``bounded`` when the checker's own counts or the claims bound it, and ``open`` when nothing here does.

Source: MATHS 6 (what is not proved); THREATS 1 (T1 to T28) and its games.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prune_verify.audit.report_data import ReportData
from prune_verify.audit.report_values import CHECKED, at, chip, items_of, predicate, radii, source
from prune_verify.checker.verdict import REJECTED
from prune_verify.markup import Html, cells, joined, said, table, tag, text

__all__ = ["Risk", "risks", "risks_of"]

_HEADS = ("Risk", "Size here", "What you can do")
_FORGETS = ("forget", "band")
_RETAINS = ("retain_exact", "retain_label", "retain_close")


@dataclass(frozen=True)
class Risk:
    """One risk.

    Args:
        name: what may happen.
        size: how much of it there is, in words.
        advice: what a reader can do about it.
        bounded: whether something here bounds it.

    """

    name: str
    size: str
    advice: str
    bounded: bool


def _counted(data: ReportData) -> Iterator[Risk]:
    """What the checker counted: members without a proof."""
    found = data.verdict.claims
    retained = [c for c in found if c.kind in _RETAINS]
    if retained:
        worst = max(retained, key=lambda c: (c.conflict, c.total))
        yield Risk(
            "A retained record is answered differently, because it could not be told apart from a forgotten one",
            f"{worst.conflict:,} of {worst.total:,} retained records",
            "patch.json lists them by index. Set max_conflicts in the policy to what you accept.",
            bounded=True,
        )
    forgets = [c for c in found if c.kind in _FORGETS]
    if forgets:
        worst = max(forgets, key=lambda c: (c.already_wrong, c.total))
        yield Risk(
            "A record counts as forgotten although the base network never answered its label",
            f"{worst.already_wrong:,} of {worst.total:,} forgotten records",
            "Set max_already_wrong_share in the policy to what you accept.",
            bounded=True,
        )
    unknown = sum(c.unknown for c in found)
    if unknown:
        yield Risk(
            "A claim is false for members that are neither proved nor refuted",
            f"{unknown:,} members of all claims",
            "Ask the owner for a proof with more time, or for a weaker claim.",
            bounded=False,
        )


def _outside(data: ReportData) -> Iterator[Risk]:
    """What lies outside the regions."""
    near, kept = radii(data, _FORGETS), radii(data, _RETAINS)
    if near:
        yield Risk(
            "An input like a forgotten record, but farther from it than the radius, is still answered with its label",
            f"farther than {' or '.join(near)} in at least one of its numbers: nothing is shown",
            "Demand a larger min_forget_radius, or that shifted and noisy copies are forgotten as well.",
            bounded=False,
        )
    if kept:
        yield Risk(
            "An ordinary input that is near no retained record is answered differently",
            f"farther than {' or '.join(kept)} from every retained record"
            + (", and inside a support of the patch" if any(c.kind == "locality" for c in data.verdict.claims) else ""),
            "Look at the answers on test data, before and after.",
            bounded=False,
        )


def _owner(data: ReportData) -> Iterator[Risk]:
    """What whoever has the network, or serves it, may do."""
    patch = at(predicate(data), "patch")
    numbers, bits = at(patch, "disclosedCoordinates"), at(patch, "disclosedBits")
    if isinstance(numbers, int) and isinstance(bits, int):
        yield Risk(
            "Whoever has the patched network reads parts of the forgotten records out of it",
            f"{numbers:,} numbers of records, {bits:,} bits",
            "Give the network only to those who may know that much, or set a budget of disclosure.",
            bounded=True,
        )
    yield Risk(
        "Whoever has the weights brings the answer back, or learns it again",
        "not bounded: the weights may still depend on the records",
        "Keep the weights closed, or have the network retrained.",
        bounded=False,
    )
    held = any(c.kind == "band" for c in data.verdict.claims)
    yield Risk(
        "Somebody notices that a record was forgotten, from the answers",
        "the lead of its label is held within a band; that this hides it is measured, not proved"
        if held
        else "not bounded: a forced change of answer can itself be noticed",
        "Look at the measurements of membership inference, if any, and at their intervals.",
        bounded=False,
    )
    yield Risk(
        "Another network than this file is served",
        "not covered by any certificate",
        "Compare the SHA-256 of the deployed file with the one above, and audit the endpoint.",
        bounded=False,
    )
    yield Risk(
        "The forgotten or retained records are not the right ones",
        "the sets are those that the owner committed to",
        "Ask the data subject, and for a commitment from before the training.",
        bounded=False,
    )


def _rests(data: ReportData) -> Iterator[Risk]:
    """What the verdict itself rests on."""
    named = data.verdict.assumptions
    yield Risk(
        "Something that the verdict rests on is wrong",
        f"assumptions: {'; '.join(named)}" if named else "no assumption beside the trust base of the checker",
        "Read the trust base in SECURITY.md; the policy says which assumptions you permit.",
        bounded=not named,
    )


def risks_of(data: ReportData) -> tuple[Risk, ...]:
    """The risks that are left, for a verdict that is no rejection; nothing for one."""
    if data.verdict.word == REJECTED or not items_of(at(predicate(data), "claims")):
        return ()
    return (*_counted(data), *_outside(data), *_owner(data), *_rests(data))


def risks(data: ReportData) -> Html:
    """What is left to worry about, and what to do."""
    found = risks_of(data)
    if not found:
        words = "Nothing was shown, so no risk is bounded: treat the network as if there were no certificate."
        return tag("p", text(words))
    rows = []
    for risk in found:
        mark = chip("good", "Bounded") if risk.bounded else chip("warn", "Open")
        rows.append(cells([text(risk.name), joined([said(risk.size), mark]), text(risk.advice)], _HEADS))
    parts = [
        source(
            f"counts {CHECKED} What the patch holds of records: stated, and recomputed where the evidence was there."
        )
    ]
    parts += [tag("p", chip("warn", "Warning"), text(" "), said(line)) for line in data.verdict.warnings]
    parts.append(table("What can still go wrong, although the claims hold", _HEADS, rows, class_="risks stack"))
    return joined(parts)
