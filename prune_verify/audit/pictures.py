"""Pictures of records with a gate's coordinates marked: a PNG of the grey levels under an SVG of the marks.

A mark tells by its shape, not only by its colour, what the gate asks of a pixel: a triangle that
points up for a lower edge (at least this bright), one that points down for an upper edge (at most
this bright), a diamond for both. Written with zlib alone, so that the report needs no imaging package.

Source: PNG (ISO/IEC 15948) chunks and filter type 0; SVG 1.1 paths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prune_verify.checker.patch import Interval
from prune_verify.grey_levels import png_address
from prune_verify.markup import Html, tag, text

__all__ = ["edge_words", "mark_key", "picture"]

Floats = npt.NDArray[np.float32]

_LEGIBLE_SIDE = 15  # marks of more crowded pictures are drawn larger than their pixel
_MARGIN = 0.25


def _symbol(interval: Interval) -> tuple[str, str]:
    """Class and path, in a unit square, of the mark of an interval."""
    if interval.low is not None and interval.high is not None:
        return "mark-both", "M.5 .08 L.92 .5 L.5 .92 L.08 .5 Z"
    if interval.low is not None:
        return "mark-low", "M.5 .12 L.9 .84 L.1 .84 Z"
    return "mark-high", "M.5 .88 L.1 .16 L.9 .16 Z"


def edge_words(interval: Interval, shape: tuple[int, int] | None) -> str:
    """What a gate asks of one coordinate, such as ``row 3 column 5 at least 0.4``.

    Args:
        interval: of the gate.
        shape: height and width of the picture, or None for no picture.

    """
    row, column = divmod(interval.coordinate, shape[1]) if shape else (0, 0)
    place = f"row {row + 1} column {column + 1}" if shape else f"number {interval.coordinate}"
    if interval.low is not None and interval.high is not None:
        return f"{place} from {float(interval.low):.4g} to {float(interval.high):.4g}"
    edge, word = (interval.low, "at least") if interval.low is not None else (interval.high, "at most")
    return f"{place} {word} {float(edge or 0.0):.4g}"


def _mark(interval: Interval, width: int, scale: float = 1.0) -> Html:
    """The outlined pixel with its symbol, ``scale`` pixels large and centred; data attributes name the pixel."""
    kind, path = _symbol(interval)
    row, column = divmod(interval.coordinate, width)
    shift = (1.0 - scale) / 2
    frame = {"x": f"{column}", "y": f"{row}", "width": "1", "height": "1"}
    return tag(
        "g",
        tag("rect", class_="halo", **frame),
        tag("rect", class_="frame", **frame),
        tag("path", class_=kind, d=path, transform=f"translate({column + shift:g} {row + shift:g}) scale({scale:g})"),
        class_="mark",
        data_row=str(row),
        data_column=str(column),
    )


def picture(
    x: Floats, shape: tuple[int, int], span: tuple[float, float], intervals: Sequence[Interval], label: str
) -> Html:
    """One record as an SVG with its grey levels and the gate's coordinates marked.

    Args:
        x: the record, float32, of h * w numbers in any shape.
        shape: (h, w).
        span: values shown as black and as white.
        intervals: of the gate; coordinates outside the picture are not drawn.
        label: what a screen reader says.

    Returns:
        An ``svg`` element without ids, scripts or external references.

    """
    height, width = shape
    data = png_address(x, shape, span)
    inside = [i for i in intervals if 0 <= i.coordinate < height * width]
    scale = max(1.0, max(shape) / _LEGIBLE_SIDE)
    edge = _MARGIN + (scale - 1.0) / 2
    return tag(
        "svg",
        tag("image", href=data, x="0", y="0", width=str(width), height=str(height)),
        *(_mark(i, width, scale) for i in inside),
        viewBox=f"{-edge:g} {-edge:g} {width + 2 * edge:g} {height + 2 * edge:g}",
        role="img",
        aria_label=label,
        class_="picture",
    )


def mark_key() -> Html:
    """The key of the marks: three symbols, each with its words."""
    one = np.float32(1.0)
    kinds = (
        (Interval(0, one, None), "lower edge: this pixel must be at least so bright"),
        (Interval(0, None, one), "upper edge: this pixel must be at most so bright"),
        (Interval(0, one, one), "both edges"),
    )
    items = []
    for interval, words in kinds:
        symbol = tag("svg", _mark(interval, 1), viewBox="-0.15 -0.15 1.3 1.3", class_="key", aria_hidden="true")
        items.append(tag("li", symbol, text(words)))
    return tag("ul", *items, class_="key-list")
