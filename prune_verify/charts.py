"""Curves as SVG: a plot with linear or logarithmic axes, curves told apart by dashes and words, not only by colour.

The numbers may be foreign: whatever is no finite number is left out, and all text goes through the escaping of
:mod:`prune_verify.markup`. A picture has no ids, scripts or external references, and looks the same in a report and
in a file of its own.

Source: SVG 1.1; colours of Okabe and Ito (2008), apart for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

from prune_verify.markup import Html, plain, tag

__all__ = ["Axis", "Curve", "chart", "log_axis", "share_axis", "svg_file"]

Point = tuple[float, float]
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560.0, 280.0, 56.0, 176.0, 30.0, 44.0
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "7 3", "2 2", "9 3 2 3", "4 4", "1 4")
_POINTS_A_PATH = 90  # an attribute has room for so many
_POINTS_A_BAND = 45
_NEAR = 0.4  # units of the picture
_LEGEND = 24
_LONGEST_NAME = 26
_MOST_CURVES = 12
_GAP = 12.0


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        words: what it shows.
        low: its first value; more than 0 where it is logarithmic.
        high: its last value.
        ticks: (value, words) of its lines.
        logarithmic: whether it is.

    """

    words: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value stands, from 0 at the low end to 1 at the high end; values beyond are at the ends."""
        inside = min(max(value, self.low), self.high)
        if self.logarithmic:
            return (log10(inside) - log10(self.low)) / ((log10(self.high) - log10(self.low)) or 1.0)
        return (inside - self.low) / ((self.high - self.low) or 1.0)


@dataclass(frozen=True)
class Curve:
    """One curve.

    Args:
        name: what it is of.
        points: (x, y), in order.
        band: (x, low, high) around it, or none.

    """

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()


def share_axis(words: str) -> Axis:
    """An axis of shares from 0 to 1, with words beside it."""
    return Axis(words, 0.0, 1.0, ((0.0, "0 %"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1.0, "100 %")))


def log_axis(words: str, least: float) -> Axis:
    """A logarithmic axis, with words, of shares from ``least`` (10^-6 to 10^-1) to 1, a line at each power of ten."""
    first = min(max(floor(log10(least)) if least > 0 else -6, -6), -1)
    ticks = tuple((10.0**power, f"{100 * 10.0**power:g} %") for power in range(first, 1))
    return Axis(words, 10.0**first, 1.0, ticks, logarithmic=True)


@dataclass(frozen=True)
class _Frame:
    across: Axis
    up: Axis

    def at(self, x: float, y: float) -> Point:
        wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return _LEFT + self.across.place(x) * wide, _TOP + (1 - self.up.place(y)) * high


def _words(x: float, y: float, words: str, anchor: str = "start", **more: str) -> Html:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text_anchor": anchor}
    return tag("text", plain(words), fill="currentColor", font_size="11", **place, **more)


def _path(points: Sequence[Point], stroke: str, width: str, dashes: str = "") -> Html:
    drawn = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", d=drawn, fill="none", stroke=stroke, stroke_width=width, stroke_dasharray=dashes)


def _grid(frame: _Frame) -> Iterator[Html]:
    """A line and a word for every tick, and what the axes show."""
    across, up = frame.across, frame.up
    for value, words in across.ticks:
        low, high = frame.at(value, up.low), frame.at(value, up.high)
        yield _path([low, high], "currentColor", "0.3")
        yield _words(low[0], low[1] + 15, words, "middle")
    for value, words in up.ticks:
        left, right = frame.at(across.low, value), frame.at(across.high, value)
        yield _path([left, right], "currentColor", "0.3")
        yield _words(left[0] - 6, left[1] + 4, words, "end")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield _words(middle, _HEIGHT - _BOTTOM + 34, across.words, "middle")


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The points without those that nobody could tell from the one before; first and last stay."""
    kept: list[Point] = []
    for place, (x, y) in enumerate(points):
        last = place == len(points) - 1
        if not kept or last or abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= _NEAR:
            kept.append((x, y))
    return kept


def _drawn(curve: Curve, frame: _Frame, place: int) -> Iterator[Html]:
    turn, kind = divmod(place, len(_COLOURS))
    colour, dashes = _COLOURS[kind], _DASHES[(kind + turn) % len(_DASHES)]
    band = [row for row in curve.band if all(map(isfinite, row))]
    if len(band) > 1:
        step = -(-len(band) // _POINTS_A_BAND)
        rows = [*band[:-1:step], band[-1]]
        around = [frame.at(x, low) for x, low, _ in rows] + [frame.at(x, high) for x, _, high in reversed(rows)]
        shape = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in around) + " Z"
        yield tag("path", d=shape, fill=colour, fill_opacity="0.15", stroke="none")
    points = _thinned([frame.at(x, y) for x, y in curve.points if isfinite(x) and isfinite(y)])
    for start in range(0, max(len(points) - 1, 0), _POINTS_A_PATH - 1):
        yield _path(points[start : start + _POINTS_A_PATH], colour, "2", dashes)
    y = _TOP + 6 + place * _LEGEND / 1.4
    left = _WIDTH - _RIGHT + 12
    name = curve.name if len(curve.name) <= _LONGEST_NAME else curve.name[: _LONGEST_NAME - 3] + "..."
    yield _path([(left, y), (left + 22, y)], colour, "2", dashes)
    yield _words(left + 28, y + 4, name)


def chart(heading: str, across: Axis, up: Axis, curves: Sequence[Curve], *, diagonal: bool = False) -> Html:
    """An ``svg`` element of curves in one plot.

    Args:
        heading: above the plot; it says what the axis upwards shows as well.
        across: the axis to the right.
        up: the axis upwards.
        curves: at most 12 are drawn, in order.
        diagonal: draw where x equals y, what guessing gives.

    """
    frame = _Frame(across, up)
    parts = [_words(_LEFT, 14, f"{heading}: {up.words}" if heading else up.words), *_grid(frame)]
    if diagonal:
        steps = [
            across.low * (across.high / across.low) ** (k / 40) if across.logarithmic else k / 40 for k in range(41)
        ]
        parts.append(_path([frame.at(x, x) for x in steps], "currentColor", "1", "3 3"))
    for place, curve in enumerate(curves[:_MOST_CURVES]):
        parts += _drawn(curve, frame, place)
    names = ", ".join(curve.name for curve in curves[:_MOST_CURVES])
    label = f"{heading}: {up.words} over {across.words}; {names}"
    box = f"0 0 {_WIDTH:g} {_HEIGHT:g}"
    return tag("svg", *parts, viewBox=box, role="img", aria_label=label, class_="chart", font_family="sans-serif")


def svg_file(charts: Sequence[Html]) -> bytes:
    """An SVG file of charts, one under the other, on white.

    Args:
        charts: as :func:`chart` makes them.

    """
    height = len(charts) * (_HEIGHT + _GAP)
    placed = [tag("g", one, transform=f"translate(0 {place * (_HEIGHT + _GAP):g})") for place, one in enumerate(charts)]
    sized = [Html(one.replace("<svg ", f'<svg width="{_WIDTH:g}" height="{_HEIGHT:g}" ', 1)) for one in placed]
    background = tag("rect", width=f"{_WIDTH:g}", height=f"{height:g}", fill="#fff")
    space = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {_WIDTH:g} {height:g}"}
    return (tag("svg", background, *sized, width=f"{_WIDTH:g}", color="#000", **space) + "\n").encode()
