"""Curves as SVG: what is drawn, on which axes, and that foreign names and numbers do no harm."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.charts import Axis, Curve, chart, log_axis, share_axis, svg_file
from prune_verify.measurement_charts import relearning_charts, roc_charts

UNIT = share_axis("share")
EPOCHS = Axis("epochs", 0.0, 10.0, ((0.0, "0"), (10.0, "10")))


def parsed(svg) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own markup


def curves_of(svg) -> list[ET.Element]:
    return [path for path in parsed(svg).iter("path") if path.get("stroke-width") == "2"]


def points_of(path: ET.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d"))]


def test_a_curve_is_one_line_and_one_mark_in_the_legend() -> None:
    found = curves_of(chart("h", EPOCHS, UNIT, [Curve("a", [(0, 0), (5, 1), (10, 0.5)])]))
    assert [len(points_of(path)) for path in found] == [3, 2]
    (left, bottom), (_, top), (right, _) = points_of(found[0])
    assert left < right
    assert top < bottom  # up is up


def test_curves_differ_by_their_dashes() -> None:
    found = curves_of(chart("h", EPOCHS, UNIT, [Curve(str(i), [(0, 0), (1, 1)]) for i in range(6)]))
    assert len({path.get("stroke-dasharray") for path in found}) == 6
    assert len({path.get("stroke") for path in found}) == 6
    found = curves_of(chart("h", EPOCHS, UNIT, [Curve(str(i), [(0, 0), (1, 1)]) for i in range(20)]))
    assert len({(path.get("stroke"), path.get("stroke-dasharray")) for path in found}) == len(found) / 2 == 12


def test_powers_of_ten_are_equally_far_apart_on_a_logarithmic_axis() -> None:
    axis = log_axis("rate", 0.001)
    assert [value for value, _ in axis.ticks] == pytest.approx([0.001, 0.01, 0.1, 1.0])
    assert np.diff([axis.place(value) for value, _ in axis.ticks]) == pytest.approx([1 / 3] * 3)
    assert axis.place(0.0) == 0.0
    assert axis.place(7.0) == 1.0


@pytest.mark.parametrize(("least", "first"), [(0.5, 0.1), (0.0, 1e-6), (1e-30, 1e-6), (0.02, 0.01)])
def test_a_logarithmic_axis_begins_at_a_power_of_ten_that_can_be_shown(least, first) -> None:
    assert log_axis("rate", least).low == pytest.approx(first)


def test_long_curves_are_cut_into_pieces_that_join() -> None:
    curve = Curve("a", [(10 * i / 999, (i % 7) / 7) for i in range(1000)])
    *pieces, _ = curves_of(chart("h", EPOCHS, UNIT, [curve]))
    assert len(pieces) > 5
    assert all(len(piece.get("d")) < 2000 for piece in pieces)
    for first, second in zip(pieces, pieces[1:], strict=False):
        assert points_of(first)[-1] == points_of(second)[0]


def test_numbers_that_are_none_are_left_out() -> None:
    svg = chart("h", EPOCHS, UNIT, [Curve("a", [(0, float("nan")), (1, float("inf"))], [(0, float("nan"), 1)])])
    assert "nan" not in svg
    assert "inf" not in svg


@given(st.text(max_size=40))
def test_a_name_is_text_and_nothing_else(name) -> None:
    root = parsed(chart(name, EPOCHS, UNIT, [Curve(name, [(0, 0), (1, 1)])]))
    assert {element.tag for element in root.iter()} <= {"svg", "g", "text", "path", "rect"}
    assert not {key for element in root.iter() for key in element.attrib} & {"href", "onload", "id", "style", "src"}


def test_a_file_stands_alone() -> None:
    one = chart("h", EPOCHS, UNIT, [Curve("a", [(0, 0), (1, 1)])])
    root = parsed(svg_file([one, one]))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    inner = list(root.iter("{http://www.w3.org/2000/svg}svg"))
    assert len(inner) == 3
    assert all(element.get("width") and element.get("height") for element in inner[1:])


# --- series of measurement files ---

RELEARNING = {
    "curve.patched.full.all": ("0", "1", "1"), "curve.patched.full.all.low": ("0", "0.5", "1"), "curve.patched.full.all.high": ("0", "1", "1"),
    "curve.retrain.full.all": ("0.5", "0.5", "1"), "curve.retrain.head.1": ("0.5", "0.5", "0.5"), "test.class.label": ("0", "1"), "curve.short": ("0",),
}  # fmt: skip


def test_networks_of_one_mode_and_set_of_records_share_a_chart() -> None:
    first, second = relearning_charts(RELEARNING)
    assert "full, attacker has: all" in first
    assert len(curves_of(first)) == 4
    assert sum(path.get("fill-opacity") is not None for path in parsed(first).iter("path")) == 1
    assert "head, attacker has: 1" in second
    assert relearning_charts({}) == []


def test_each_network_has_its_roc_curves() -> None:
    curve = {"fpr": ("0", "0.001", "1"), "tpr": ("0", "0.5", "1")}
    series = {
        f"roc.{name}.{part}": values
        for name in ("base.lira", "base.rmia", "patched.lira")
        for part, values in curve.items()
    }
    base, patched = roc_charts(series | {"roc.base.odd.fpr": ("0",), "roc.base.none.tpr": ("0", "1")})
    assert "membership inference, base" in base
    assert len(curves_of(base)) == 4
    assert "0.1 %" in base
    assert len(curves_of(patched)) == 2
    assert roc_charts({}) == []


@given(
    st.dictionaries(
        st.text("curve.rofptd", max_size=16),
        st.lists(st.sampled_from(["0", "1", "-3", "100000000000000000000"]), max_size=4).map(tuple),
        max_size=6,
    )
)
def test_any_series_give_pictures_or_none(series) -> None:
    for one in [*relearning_charts(series), *roc_charts(series)]:
        assert parsed(one).tag == "svg"
