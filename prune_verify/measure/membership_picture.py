"""One SVG of what attacks of membership inference find: ROC curves on logarithmic axes, and where margins lie.

The margins are those of forgotten records, among those that networks have which never saw them. Networks are told
apart by dashes as well as by colour. Written with the standard library alone.

Source: Carlini et al., arXiv 2112.03570, figure 1 (both axes logarithmic); SVG 1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from prune_verify.measure.membership import Membership
from prune_verify.measure.roc import Roc, roc

__all__ = ["draw_membership", "thinned_roc"]

Doubles = npt.NDArray[np.float64]
_COLOURS = ("#b4352b", "#1f5fa8", "#3b7d3f", "#8a5a00", "#6b3fa0", "#37757a")
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 2")
_LOWEST = 1e-3
_SIDE, _LEFT, _TOP, _ACROSS, _DOWN, _COLUMNS = 200.0, 52.0, 56.0, 268.0, 258.0, 3
_POINTS = 160
_MOST_SPREADS = 12.0  # standard deviations shown on either side; what lies beyond is in the outermost bars
_BARS = 48


@dataclass(frozen=True)
class _Panel:
    """Where a panel stands, and its parent element."""

    parent: ET.Element
    x: float
    y: float

    def text(self, x: float, y: float, words: str, size: int = 11, anchor: str = "middle") -> None:
        found = ET.SubElement(self.parent, "text", {"x": _n(self.x + x), "y": _n(self.y + y)})
        found.attrib |= {"font-size": str(size), "text-anchor": anchor}
        found.text = words

    def path(self, points: Sequence[tuple[float, float]], **style: str) -> None:
        steps = " L".join(f"{_n(self.x + x)} {_n(self.y + y)}" for x, y in points)
        attributes = {"d": f"M{steps}", "fill": "none", **{k.replace("_", "-"): v for k, v in style.items()}}
        ET.SubElement(self.parent, "path", attributes)

    def frame(self, title: str) -> None:
        box = {"x": _n(self.x), "y": _n(self.y), "width": _n(_SIDE), "height": _n(_SIDE)}
        ET.SubElement(self.parent, "rect", {**box, "fill": "none", "stroke": "#555"})
        self.text(_SIDE / 2, -7, title, 12)


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def thinned_roc(curve: Roc, points: int = _POINTS) -> tuple[Doubles, Doubles]:
    """A ROC curve at false-positive rates evenly spread on a logarithmic axis, 0 and 1 among them.

    Args:
        curve: all of its steps.
        points: at most so many.

    Returns:
        False-positive and true-positive rates; of each true rate the greatest at no more false positives.

    """
    wanted = np.concatenate([[0.0], np.geomspace(_LOWEST / 10, 1.0, points - 1)])
    kept = np.unique(np.searchsorted(curve.false_positive, wanted, side="right") - 1)
    return curve.false_positive[kept], curve.true_positive[kept]


def _log_place(rate: float) -> float:
    """On an axis from 0.001 to 1, in pixels; smaller rates at its beginning."""
    return _SIDE * float(1.0 - np.log10(max(rate, _LOWEST)) / np.log10(_LOWEST))


def _axes(panel: _Panel, title: str) -> None:
    panel.frame(title)
    for power in range(-3, 1):
        place, words = _log_place(10.0**power), f"{10.0**power:g}"
        panel.text(place, _SIDE + 14, words, 10)
        panel.text(-6, _SIDE - place + 4, words, 10, "end")
    panel.path([(0, _SIDE), (_SIDE, 0)], stroke="#999", stroke_width="1")
    panel.text(_SIDE / 2, _SIDE + 29, "false-positive rate", 10)


def _curve(panel: _Panel, curve: Roc, style: int) -> None:
    """Steps: horizontal until the next rate is reached."""
    false, true = thinned_roc(curve)
    points: list[tuple[float, float]] = []
    for rate, height in zip(false, true, strict=True):
        place = (_log_place(float(rate)), _SIDE - _log_place(float(height)))
        if points:
            points.append((place[0], points[-1][1]))
        points.append(place)
    panel.path(points, stroke=_COLOURS[style], stroke_dasharray=_DASHES[style] or "none", stroke_width="1.6")


def _spread(panel: _Panel, title: str, inside: Doubles, outside: Doubles, style: int) -> None:
    """How far margins lie from those of networks that never saw the record: forget set in colour, others in grey."""
    panel.frame(title)
    edges = np.linspace(-_MOST_SPREADS, _MOST_SPREADS, _BARS + 1)
    shares = [np.histogram(np.clip(v, -_MOST_SPREADS, _MOST_SPREADS), edges)[0] / len(v) for v in (inside, outside)]
    most = max(float(share.max()) for share in shares)
    for share, stroke, dashes in (
        (shares[1], "#777", "none"),
        (shares[0], _COLOURS[style], _DASHES[style] or "none"),
    ):
        points: list[tuple[float, float]] = []
        for bar, height in enumerate(share):
            level = _SIDE * (1 - 0.95 * float(height) / most)
            points += [(_SIDE * bar / _BARS, level), (_SIDE * (bar + 1) / _BARS, level)]
        panel.path(points, stroke=stroke, stroke_dasharray=dashes, stroke_width="1.6")
    for spreads in (-_MOST_SPREADS, 0.0, _MOST_SPREADS):
        panel.text(_SIDE * (spreads / _MOST_SPREADS + 1) / 2, _SIDE + 14, f"{spreads:g}", 10)
    panel.text(_SIDE / 2, _SIDE + 29, "margin, in standard deviations of non-members'", 10)


def _legend(root: ET.Element, names: Sequence[str]) -> None:
    panel, across = _Panel(root, _LEFT, 22.0), 0.0
    for style, name in enumerate(names):
        dashes = _DASHES[style % len(_DASHES)] or "none"
        line = {"stroke": _COLOURS[style % len(_COLOURS)], "stroke_dasharray": dashes, "stroke_width": "2"}
        panel.path([(across, 0), (across + 26, 0)], **line)
        panel.text(across + 32, 4, name, 12, "start")
        across += 52 + 7.5 * len(name)


def draw_membership(found: Membership) -> bytes:
    """The picture: one panel per attack, then one per network of the two-sided detector's distances.

    Args:
        found: all attacks on all networks; at most six networks are drawn.

    """
    names, member = found.targets[: len(_COLOURS)], found.sets.member
    one_sided = [name for name in names if "lira-offline" in found.found[name]]
    rows = -(-len(found.attacks) // _COLUMNS)
    count = rows + -(-len(one_sided) // _COLUMNS)
    width, height = _LEFT + _COLUMNS * _ACROSS, _TOP + count * _DOWN
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {_n(width)} {_n(height)}"})
    root.attrib |= {"width": _n(width), "height": _n(height), "font-family": "sans-serif"}
    ET.SubElement(root, "title").text = "Membership inference: true-positive against false-positive rate"
    ET.SubElement(root, "rect", {"width": _n(width), "height": _n(height), "fill": "white"})
    _legend(root, names)
    for place, attack in enumerate(found.attacks):
        panel = _Panel(root, _LEFT + place % _COLUMNS * _ACROSS, _TOP + place // _COLUMNS * _DOWN)
        _axes(panel, attack)
        for style, name in enumerate(names):
            if attack in found.found[name]:
                scores = found.found[name][attack].scores
                _curve(panel, roc(scores[member], scores[~member]), style)
    for place, name in enumerate(one_sided):
        panel = _Panel(root, _LEFT + place % _COLUMNS * _ACROSS, _TOP + (rows + place // _COLUMNS) * _DOWN)
        scores = found.found[name]["lira-offline"].scores
        _spread(panel, f"{name}: forgotten, and never seen (grey)", scores[member], scores[~member], names.index(name))
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"
