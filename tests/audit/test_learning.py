"""The picture of learning curves: drawn from the file that training writes, and from nothing hostile in it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from prune_verify.audit.learning import LearningRow, learning_picture, learning_rows
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError, MalformedInputError
from prune_verify.repair.training_state import Curve, learning_json

CURVES = (
    Curve(0, "interval", -2.0, 0.0, 0.5),
    Curve(20, "interval", 1.0, 0.5, 0.25, 3.0, 2.0, 0.0, 0.1),
    Curve(40, "relaxation", 2.0, 1.0, 0.75, 1.0, 1.0, 0.0, 0.1),
)


def _rows(count: int) -> list[LearningRow]:
    return [LearningRow(20 * i, "interval" if i < count // 2 else "relaxation", i / 7, 0.5, 0.5) for i in range(count)]


def _parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - what this project wrote, and any entity in it would be a failure


def _lines(svg: str, dashes: str | None) -> list[list[tuple[float, float]]]:
    """Points of the thick curves with these dashes."""
    found = [p.attrib for p in _parsed(svg).iter("path") if p.get("stroke-width") == "2"]
    paths = [p["d"] for p in found if p.get("stroke-dasharray") == dashes]
    return [[tuple(float(v) for v in point.split()) for point in d[1:].split(" L")] for d in paths]


def test_the_file_that_training_writes_is_read_back() -> None:
    rows = learning_rows(canonical_json(learning_json(CURVES)))
    assert rows == tuple(LearningRow(c.step, c.phase, c.margin, c.forgotten, c.within) for c in CURVES)


def test_the_curves_are_where_their_values_are() -> None:
    svg = learning_picture(learning_rows(canonical_json(learning_json(CURVES))))
    (margin, forgotten), (within,) = _lines(svg, None), _lines(svg, "6 4")
    for line in (margin, forgotten, within):
        assert line[1][0] == pytest.approx((line[0][0] + line[2][0]) / 2, abs=0.1)
    assert margin[0][1] > margin[1][1] > margin[2][1]
    assert (margin[0][1] - margin[1][1]) == pytest.approx(3 * (margin[1][1] - margin[2][1]), abs=0.3)
    assert forgotten[0][1] - forgotten[1][1] == pytest.approx(forgotten[1][1] - forgotten[2][1], abs=0.2)
    assert within[2][1] < within[0][1] < within[1][1]


def test_a_reader_without_eyes_or_colours_gets_the_numbers() -> None:
    svg = learning_picture(learning_rows(canonical_json(learning_json(CURVES))))
    root = _parsed(svg)
    assert root.get("role") == "img"
    assert "over 40 steps: margin 2.00 at the end" in root.get("aria-label", "")
    words = [element.text for element in root.iter("text")]
    assert {"forget 100.0%", "retained 75.0% (dashed)", "CROWN from step 40", "2.00", "-2.00", "step 40"} <= set(words)
    heights = [
        float(e.get("y", "0")) for e in root.iter("text") if "%" in (e.text or "") and float(e.get("x", "0")) > 400
    ]
    assert abs(heights[0] - heights[1]) >= 12
    assert not re.search(r"<script|href|url\(|\bid=|\bon[a-z]+=", svg)


@pytest.mark.parametrize("count", [1, 2, 99, 101, 5000])
def test_any_number_of_rows_is_drawn_whole(count: int) -> None:
    """An attribute that is too long would be cut: many rows are thinned, the last is among them."""
    rows = _rows(count)
    svg = learning_picture(rows)
    (margin, _), _ = _lines(svg, None), _lines(svg, "6 4")
    assert len(margin) == min(count, 100)
    assert "more characters" not in svg
    assert f"step {max(1, rows[-1].step)}" in svg
    if count > 1:
        assert margin[-1][0] > margin[0][0]


def test_a_training_that_diverged_is_drawn_as_far_as_it_went() -> None:
    curves = [*CURVES, Curve(60, "relaxation", float("nan"), 0.0, 0.0, float("inf"))]
    assert len(learning_rows(canonical_json(learning_json(curves)))) == 3


def test_nothing_to_draw_is_refused() -> None:
    for rows in ((), (LearningRow(0, "interval", float("inf"), 0.0, 0.0),)):
        with pytest.raises(MalformedInputError, match="at least one row"):
            learning_picture(rows)


def _row(**changes: object) -> Callable[[dict], None]:
    return lambda document: document["rows"][1].update(changes)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda d: d.update(format="other"), "learning.json/format"),
        (lambda d: d.update(rows={}), "learning.json/rows"),
        (lambda d: d.update(more=1), "learning.json"),
        (_row(step=0), "learning.json/rows/1/step"),
        (_row(step=True), "learning.json/rows/1/step"),
        (_row(phase="<script>alert(1)</script>"), "learning.json/rows/1/phase"),
        (_row(margin="1e9999"), "learning.json/rows/1/margin"),
        (_row(margin=1), "learning.json/rows/1/margin"),
        (_row(margin='"/><script>'), "learning.json/rows/1/margin"),
        (_row(within="1.1"), "learning.json/rows/1"),
        (_row(forgotten="-0.5"), "learning.json/rows/1"),
        (_row(within=None), "learning.json/rows/1/within"),
        (_row(forgetLoss="x"), "learning.json/rows/1/forgetLoss"),
        (_row(title="<b>"), "learning.json/rows/1"),
        (lambda d: d["rows"].append(1), "learning.json/rows/3"),
    ],
)
def test_a_file_that_is_none_is_refused_by_its_place(change: Callable[[dict], None], path: str) -> None:
    document = json.loads(canonical_json(learning_json(CURVES)))
    change(document)
    with pytest.raises(CheckError) as refusal:
        learning_rows(json.dumps(document).encode())
    assert refusal.value.path == path
