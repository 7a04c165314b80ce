"""The evidence in the report: pictures, answers before and after, parameters, and the roster."""

from __future__ import annotations

from prune_verify.audit.learning import learning_picture
from prune_verify.audit.pictures import edge_words, mark_key, picture
from prune_verify.audit.report_data import Accuracy, PatchSummary, PicturedRecord, ReportData
from prune_verify.audit.report_values import (
    CHECKED,
    EVALUATED,
    chip,
    facts,
    limited,
    shown,
    source,
)
from prune_verify.audit.wording import percent
from prune_verify.checker.verdict import Check
from prune_verify.markup import Html, cells, joined, said, table, tag, text, visible

__all__ = [
    "again",
    "before_after",
    "change_in_points",
    "learned",
    "parameters",
    "pictures",
    "record_result",
    "roster",
]

_PERSONAL = " This section shows forgotten records. Treat the report as you treat the records."
_AGAIN = (
    "Run this line beside the same files. It needs the base install only, and no network. It ends with exit code 0 "
    "for VERIFIED, 1 for REJECTED and 3 for UNDECIDED, and its first line must be the line in the box at the top."
)
_ROSTER_HEADS = ("Check", "Result", "Detail")
_ACCURACY_CAPTION = "Rows answered with their label; for forgotten records the aim is none"
_ACCURACY_HEADS = ("Set", "Rows", "Base answers the label", "Patched answers the label", "Change in points")
_RECORD_HEADS = ("Record", "Label", "Base", "Patched", "Result", "What the gate looks at")
_STATUS_TONES = {"PASS": "good", "FAIL": "bad", "UNDECIDED": "warn", "SKIP": "warn"}


def pictures(data: ReportData) -> Html:
    """The forgotten records, with the coordinates that the patch looks at."""
    if not data.records:
        return tag("p", text("No forgotten records were given to this report, so there is nothing to show."))
    parts = [source(EVALUATED), tag("p", chip("warn", "Personal data"), text(_PERSONAL))]
    if data.records_total > len(data.records):
        parts.append(tag("p", text(f"The first {len(data.records)} of {data.records_total:,} records.")))
    if data.picture_shape is None:
        words = "The records are not pictures; the table below names the numbers that the patch looks at."
        return joined([*parts, tag("p", text(words))])
    low, high = data.pixel_range
    scale = f"Black is {low:g}, white is {high:g}."
    looks = " The gate of a record looks at the marked pixels only, whatever the others show."
    parts += [tag("p", text(scale + looks)), mark_key()]
    figures = [_figure(record, data.picture_shape, data.pixel_range) for record in data.records]
    return joined([*parts, tag("div", *figures, class_="gallery")])


def _figure(record: PicturedRecord, shape: tuple[int, int], span: tuple[float, float]) -> Html:
    marks = "; ".join(edge_words(i, shape) for i in record.intervals) or "none"
    what = f"Forgotten record {record.index}, label {record.label}, a picture of {shape[0]} by {shape[1]} pixels."
    label = f"{what} Marked: {marks}."
    count = len(record.intervals)
    looked = f"{count} pixel{'' if count == 1 else 's'} marked" if count else "no gate on pixels"
    words = f"base {record.base_answer}, patched {record.patched_answer}"
    name = tag("b", text(f"Record {record.index}, label {record.label}"))
    caption = tag("figcaption", name, text(words), tag("span", text(looked), class_="detail"))
    return tag("figure", picture(record.x, shape, span, record.intervals, label), caption)


def change_in_points(row: Accuracy) -> str:
    """The change of a row of the table in percentage points, with a sign; ``0`` for none."""
    change = 100 * (row.after - row.before) / row.count if row.count else 0.0
    return f"{change:+.2f}".replace("-", "\u2212") if row.after != row.before else "0"


def record_result(record: PicturedRecord) -> tuple[str, str]:
    """What became of a record, as (tone, words)."""
    if record.patched_answer == record.label:
        return "bad", "Still answered"
    if record.base_answer == record.label:
        return "good", "No longer answered"
    return "warn", "Already wrong before"


def _accuracy_row(row: Accuracy) -> Html:
    values = [
        said(row.name),
        text(f"{row.count:,}"),
        text(f"{row.before:,} ({percent(row.before, row.count)})"),
        text(f"{row.after:,} ({percent(row.after, row.count)})"),
        text(change_in_points(row)),
    ]
    return cells(values, _ACCURACY_HEADS, numbers_from=1)


def _record_row(record: PicturedRecord, shape: tuple[int, int] | None) -> Html:
    marks = "; ".join(edge_words(i, shape) for i in record.intervals) or "none"
    values = [record.index, record.label, record.base_answer, record.patched_answer]
    result = chip(*record_result(record))
    return cells([*(text(v) for v in values), result, text(marks)], _RECORD_HEADS)


def before_after(data: ReportData) -> Html:
    """Accuracy before and after, and both answers for each record that is shown."""
    notes = [tag("li", chip("warn", "Not shown"), text(" "), said(note)) for note in data.notes]
    listed = [tag("ul", *notes, class_="plain")] if notes else []
    if not data.accuracies and not data.records:
        return joined([tag("p", text("No records were evaluated for this report.")), *listed])
    parts = [source(EVALUATED), *listed]
    if data.accuracies:
        rows = [_accuracy_row(row) for row in data.accuracies]
        parts.append(table(_ACCURACY_CAPTION, _ACCURACY_HEADS, rows, numbers_from=1, class_="stack"))
    if data.records:
        rows = [_record_row(r, data.picture_shape) for r in data.records]
        heading = tag("h3", text("Record by record"))
        parts += [
            heading,
            table("Answers for the forgotten records shown above", _RECORD_HEADS, rows, class_="answered stack"),
        ]
    return joined(parts)


def _number(value: float | None) -> Html:
    return text("not used") if value is None else text(f"{value:.7g}")


def _patch_facts(patch: PatchSummary) -> Html:
    """The parameters of the patch as a table."""
    pairs = [("Family", said(patch.family)), ("Labels of the network", text(patch.labels))]
    if patch.forgotten_classes:
        pairs.append(("Labels never answered", shown(patch.forgotten_classes)))
    if patch.tau is not None:
        pairs.append(("Margin built into the patch (tau)", _number(patch.tau)))
    if patch.coordinates:
        size = "" if patch.input_size is None else f" of the {patch.input_size:,} numbers of a record"
        spread = f"median {patch.coordinates_median:g}, at most {max(patch.coordinates)}{size}"
        revealed = f"{sum(patch.coordinates):,} coordinates, {patch.disclosed_bits:,} bits"
        pairs += [
            ("Lift of closed labels (K)", _number(patch.slack)),
            ("Drop of open labels (M)", _number(patch.shift)),
            ("Gates", text(f"{len(patch.coordinates):,}")),
            ("Coordinates per gate", text(spread)),
            ("What the patch itself reveals of records", text(revealed)),
        ]
    if patch.layers:
        pairs.append(("Layers of the learned patch", text(", ".join(f"{a} to {b}" for a, b in patch.layers))))
    pairs.append(("Retained records in conflict, as listed by the patch", shown(patch.conflicts)))
    return facts("Parameters of the patch", [(text(name), value) for name, value in pairs])


def parameters(data: ReportData) -> Html:
    """The patch in numbers."""
    if data.patch is None:
        parts = [tag("p", text("The parameters of the patch were not given, or could not be read."))]
    else:
        parts = [source("read from patch.json; rounded to 7 digits."), _patch_facts(data.patch)]
    return joined(parts)


def learned(data: ReportData) -> Html:
    """The curves of a learned patch, where the owner gave them."""
    if not data.learning:
        return tag("p", text("No learning curves were given (verify --learning)."))
    words = (
        "The owner's own account of the training, from learning.json: it is in no certificate and nothing rests on it. "
        "The margin and the shares are bounds that training computed on the way; what holds is among the claims above."
    )
    return joined([tag("p", text(words)), learning_picture(data.learning)])


def roster(data: ReportData) -> Html:
    """Every check, in the order in which they were made."""
    rows, left, bad_left = limited(data.verdict.checks, lambda c: c.status != "PASS")
    made = [
        cells(
            [said(c.name), chip(_STATUS_TONES.get(c.status, "warn"), visible(c.status)), joined(_detail(c))],
            _ROSTER_HEADS,
        )
        for c in rows
    ]
    parts = [source(CHECKED), table("Checks, in their order", _ROSTER_HEADS, made, class_="roster stack")]
    if left:
        parts.append(tag("p", text(f"{left:,} more checks are not listed here, {bad_left:,} of them not passed.")))
    return joined(parts)


def _detail(check: Check) -> list[Html]:
    parts = [said(check.detail)]
    if check.code != "OK":
        parts.append(tag("span", text(check.code), class_="detail mono"))
    if check.path:
        parts.append(tag("span", text(check.path), class_="detail mono"))
    return parts


def again(data: ReportData) -> Html:
    """How to repeat the check."""
    if not data.command:
        return tag("p", text("No command line was recorded."))
    return joined([tag("p", text(_AGAIN)), tag("pre", tag("code", text(data.command)))])
