"""The report's section on what was measured: the certificate's entries, and the files that it names, with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prune_verify.audit.report_data import ReportData
from prune_verify.audit.report_measured import ShownMeasurement
from prune_verify.audit.report_values import (
    MOST_ITEMS,
    STATED,
    at,
    chip,
    facts,
    items_of,
    member_name,
    more,
    predicate,
    shown,
    source,
)
from prune_verify.checker.encoding import format_time
from prune_verify.markup import Html, cells, joined, said, table, tag, text
from prune_verify.measurement_charts import relearning_charts, roc_charts
from prune_verify.measurement_file import MeasuredRow, MeasurementFile

__all__ = ["measurements"]

_NONE = (
    "The certificate states no measurements: membership inference, relearning and disclosure were not measured, "
    "or not reported."
)
_NOT_GIVEN = (
    "Whoever has the files that these entries name by digest can have their notes and pictures shown as well: "
    "verify --report --measurements FILE ..."
)
_MEMBERS = ("kind", "value", "interval", "command", "seed", "reportSha256")
_HEADS = ("Measured", "Value", "Interval", "Command", "SHA-256 of its report")
_ROW_HEADS = ("Measured", "Value", "Interval", "Note")


def measurements(data: ReportData) -> Html:
    """What was measured and never proved."""
    found = items_of(at(predicate(data), "measurements"))
    parts = [source(f"{STATED} Measured, not proved; the checker does not repeat measurements.", data)]
    if not found:
        parts.append(tag("p", text(_NONE)))
    whole = {item.sha256 for item in data.measured if item.found is not None}
    parts += _stated([item for item in found if at(item, "reportSha256") not in whole])
    parts += [_file(item) for item in data.measured]
    return joined(parts)


def _stated(found: Sequence[object]) -> list[Html]:
    """The entries of which no file is shown."""
    parts: list[Html] = []
    known: list[Mapping[str, object]] = []
    others: list[object] = []
    for item in found[:MOST_ITEMS]:
        if isinstance(item, Mapping) and set(item) == set(_MEMBERS):
            known.append(item)
        else:
            others.append(item)
    if known:
        rows = [_entry(item) for item in known]
        parts.append(table("What was measured", _HEADS, rows, class_="measured stack"))
    for place, item in enumerate(others):
        members = item if isinstance(item, Mapping) else {"value": item}
        pairs = [(member_name(str(k)), shown(v)) for k, v in list(members.items())[:MOST_ITEMS]]
        parts.append(facts(f"Measurement {len(known) + place + 1}", pairs))
    if len(found) > MOST_ITEMS:
        parts.append(tag("ul", *more(len(found))))
    if any(item["reportSha256"] is not None for item in known):
        parts.append(tag("p", text(_NOT_GIVEN), class_="small"))
    return parts


def _entry(item: Mapping[str, object]) -> Html:
    ends = item["interval"]
    pair = isinstance(ends, list) and len(ends) == 2  # noqa: PLR2004 - an interval
    interval = said(f"{ends[0]} to {ends[1]}") if pair and isinstance(ends, list) else shown(ends)
    command = joined(
        [tag("code", said(item["command"])), tag("span", text("seed "), shown(item["seed"]), class_="detail")]
    )
    return cells([said(item["kind"]), shown(item["value"]), interval, command, shown(item["reportSha256"])], _HEADS)


def _file(item: ShownMeasurement) -> Html:
    """One file: what it says, how to repeat it, and its pictures; or why nothing of it is shown."""
    digest = tag("p", text("SHA-256 "), shown(item.sha256), class_="small")
    if item.found is None:
        words = tag("p", chip("bad", "Not shown"), text(" "), said(item.name), text(": "), said(item.problem))
        return joined([words, digest])
    found = item.found
    parts = [tag("h3", said(found.kind), text(" ("), said(item.name), text(")"))]
    if item.problem:
        parts.append(tag("p", chip("bad", "Differs"), text(" "), said(item.problem)))
    rows = [_row(row) for row in found.rows]
    parts.append(table(f"What was measured: {found.kind}", _ROW_HEADS, rows, class_="measured stack"))
    parts += _pictures(found)
    inputs = tag("ul", *(tag("li", said(name), text(" "), shown(of)) for name, of in found.inputs), class_="plain")
    pairs = [
        (text("Command that repeats it"), tag("code", said(found.command))),
        (text("Seed"), shown(found.seed)),
        (text("Written by"), said(found.tool)),
        (text("Written at"), text(format_time(found.created_at))),
        (text("Files that it read"), inputs if found.inputs else text("none")),
        (text("SHA-256 of the file"), shown(item.sha256)),
    ]
    return joined([*parts, facts(f"How it was measured: {found.kind}", pairs)])


def _row(row: MeasuredRow) -> Html:
    interval = "" if row.interval is None else f"{row.interval[0]} to {row.interval[1]}"
    ends = text(interval) if interval else tag("span", text("none"), class_="zero")
    return cells([said(row.name), text(row.value), ends, said(row.note)], _ROW_HEADS)


def _pictures(found: MeasurementFile) -> list[Html]:
    charts = [*roc_charts(found.series), *relearning_charts(found.series)]
    return [tag("div", *(tag("figure", one) for one in charts), class_="charts")] if charts else []
