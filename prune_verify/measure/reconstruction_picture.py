"""Forgotten records beside what was guessed of them, as one SVG file.

Source: SVG 1.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prune_verify.grey_levels import png_address
from prune_verify.markup import Html, tag, text

__all__ = ["reconstruction_picture"]

Doubles = npt.NDArray[np.float64]
_SIDE, _GAP, _TOP, _LINE = 96.0, 12.0, 34.0, 16.0
_HEADS = ("record", "guessed from the patch", "mean of the label")


def _words(x: float, y: float, words: str) -> Html:
    return tag("text", text(words), x=f"{x:.1f}", y=f"{y:.1f}", text_anchor="middle")


def reconstruction_picture(
    records: Sequence[tuple[int, Doubles, Doubles, Doubles]],
    errors: Sequence[tuple[float, float]],
    shape: tuple[int, int],
    span: tuple[float, float],
) -> bytes:
    """An SVG file with a line per record: the record, the guess, the label's mean, and how far off both are.

    Args:
        records: (label, record, guess, mean) each, the last three of h * w numbers.
        errors: root mean square errors of guess and mean.
        shape: (h, w).
        span: values shown as black and as white.

    """
    width, height = 3 * (_SIDE + _GAP) + _GAP, _TOP + len(records) * (_SIDE + _GAP + _LINE)
    middles = [_GAP + _SIDE / 2 + place * (_SIDE + _GAP) for place in range(3)]
    parts = [tag("rect", width=f"{width:g}", height=f"{height:g}", fill="#fff")]
    parts += [_words(x, _TOP - 14, words) for x, words in zip(middles, _HEADS, strict=True)]
    for place, ((label, *pictures), (far, mean)) in enumerate(zip(records, errors, strict=True)):
        y = _TOP + place * (_SIDE + _GAP + _LINE)
        under = (f"label {label}", f"off by {far:.3f}", f"off by {mean:.3f}")
        for x, numbers, words in zip(middles, pictures, under, strict=True):
            address = png_address(numbers.astype(np.float32), shape, span)
            size = {"width": f"{_SIDE:g}", "height": f"{_SIDE:g}"}
            parts += [
                tag("image", href=address, x=f"{x - _SIDE / 2:.1f}", y=f"{y:.1f}", **size),
                _words(x, y + _SIDE + _LINE - 3, words),
            ]
    drawn = tag(
        "svg", *parts, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:g} {height:g}", width=f"{2 * width:g}",
        font_family="sans-serif", font_size="10",
    )  # fmt: skip
    return (drawn + "\n").encode()
