"""Learning curves as one inline picture: what bounds said of a patch while it was trained.

Two panels over the steps: the least margin on forget balls, and two shares (forget balls with the margin, retained
balls within delta), told apart by dashes and by words at their ends, not only by colour. The file is the owner's
own and may be hostile: numbers are parsed strictly, and text goes through the escaping of
:mod:`prune_verify.markup`.

Source: ``learning.json`` as :mod:`prune_verify.repair.training_state` writes it; SVG 1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from prune_verify.checker.encoding import Members, parse_json
from prune_verify.checker.errors import MalformedInputError
from prune_verify.markup import Html, tag, text

__all__ = ["LearningRow", "learning_picture", "learning_rows"]

_FORMAT = "prune-verify-learning/1"
_LOSSES = ("forgetLoss", "retainLoss", "privacyLoss", "sizeLoss")
_NAMES = ("step", "phase", "margin", "forgotten", "within", *_LOSSES)
_MOST_ROWS = 10000
_MOST_POINTS = 100
_LINE = 14.0
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640.0, 150.0, 64.0, 184.0, 22.0, 28.0


@dataclass(frozen=True)
class LearningRow:
    """One look at the training; see ``repair.training_state.Curve``.

    Args:
        step: steps taken before it.
        phase: ``interval`` or ``relaxation``.
        margin: least lower bound of the forget margin, in logits.
        forgotten: share of forget balls with the margin.
        within: share of retained balls within delta.

    """

    step: int
    phase: str
    margin: float
    forgotten: float
    within: float


Point = tuple[float, float]


def learning_rows(data: bytes, path: str = "learning.json") -> tuple[LearningRow, ...]:
    """The rows of a ``learning.json``; rows without a margin (training that diverged) are left out.

    Args:
        data: the file.
        path: its name, for errors.

    Raises:
        CheckError: not such a file.

    """
    whole = Members(parse_json(data, path), path, ("format", "rows"))
    whole.text("format", among=(_FORMAT,))
    rows, before = [], -1
    for place, item in enumerate(whole.items("rows", most=_MOST_ROWS)):
        row = Members(item, f"{path}/rows/{place}", _NAMES)
        step, phase = row.integer("step", least=before + 1), row.text("phase", among=("interval", "relaxation"))
        before = step
        for name in _LOSSES:
            if not row.null(name):
                row.decimal(name)
        shares = row.decimal("forgotten"), row.decimal("within")
        if not all(0 <= share <= 1 for share in shares):
            raise MalformedInputError(row.path, "shares", "from 0 to 1", ", ".join(str(float(s)) for s in shares))
        if not row.null("margin"):
            rows.append(LearningRow(step, phase, float(row.decimal("margin")), float(shares[0]), float(shares[1])))
    return tuple(rows)


def _path(points: Sequence[Point], dashes: str, width: str = "2") -> Html:
    drawn = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", d=drawn, fill="none", stroke="currentColor", stroke_width=width, stroke_dasharray=dashes)


def _words(x: float, y: float, words: str, anchor: str = "start") -> Html:
    return tag("text", text(words), x=f"{x:.1f}", y=f"{y:.1f}", fill="currentColor", font_size="12", text_anchor=anchor)


def _scale(low: float, high: float, top: float) -> Callable[[float], float]:
    """From a value to a height in the panel that begins at ``top``."""
    span = high - low or 1.0
    return lambda value: top + _TOP + (1 - (value - low) / span) * (_HEIGHT - _TOP - _BOTTOM)


def _thinned(rows: Sequence[LearningRow]) -> list[LearningRow]:
    """At most so many rows as an attribute has room for, the first and the last among them."""
    count = len(rows)
    if count <= _MOST_POINTS:
        return list(rows)
    return [rows[round(i * (count - 1) / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


def _frame(top: float, heading: str, ticks: Sequence[tuple[float, str]], height: Callable[[float], float]) -> Html:
    """A panel's heading, and a thin line and a word for each tick."""
    parts = [_words(_LEFT, top + 12, heading)]
    for value, words in ticks:
        at = height(value)
        parts += [_path([(_LEFT, at), (_WIDTH - _RIGHT, at)], "1 3", "1"), _words(_LEFT - 6, at + 4, words, "end")]
    return tag("g", *parts)


def _apart(heights: Sequence[float]) -> list[float]:
    """The heights of words at the ends of curves, moved so that they do not cover one another."""
    placed: list[float] = []
    for at in heights:
        placed.append(at if all(abs(at - other) >= _LINE for other in placed) else placed[-1] + _LINE)
    return placed


def learning_picture(rows: Sequence[LearningRow]) -> Html:
    """An ``svg`` element of the curves, without ids, scripts or external references; more than 100 rows are thinned.

    Args:
        rows: at least one, by ascending step.

    Raises:
        MalformedInputError: no row, or a margin that is no number.

    """
    if not rows or not all(isfinite(row.margin) for row in rows):
        raise MalformedInputError("learning.json/rows", "learning curves", "at least one row with a margin", "none")
    shown, last = _thinned(rows), max(1, rows[-1].step)

    def across(row: LearningRow) -> float:
        return _LEFT + row.step / last * (_WIDTH - _LEFT - _RIGHT)

    margins = [row.margin for row in rows]
    low, high = min(0.0, *margins), max(0.0, *margins)
    up, share = _scale(low, high, 0.0), _scale(0.0, 1.0, _HEIGHT)
    ticks = sorted({low, 0.0, high})
    end, switch = _WIDTH - _RIGHT + 8, next((row for row in rows if row.phase == "relaxation"), None)
    parts = [
        _frame(0.0, "least margin on the forget balls (logits, lower bound)", [(v, f"{v:.2f}") for v in ticks], up),
        _path([(across(row), up(row.margin)) for row in shown], ""),
        _words(end, up(rows[-1].margin) + 4, f"{rows[-1].margin:.2f}"),
        _frame(_HEIGHT, "share of balls on which it is met", [(0.0, "0 %"), (1.0, "100 %")], share),
        _path([(across(row), share(row.forgotten)) for row in shown], ""),
        _path([(across(row), share(row.within)) for row in shown], "6 4"),
    ]
    labels = (f"forget {rows[-1].forgotten:.1%}", f"retained {rows[-1].within:.1%} (dashed)")
    for at, words in zip(_apart([share(rows[-1].forgotten), share(rows[-1].within)]), labels, strict=True):
        parts.append(_words(end, at + 4, words))
    bottom = 2 * _HEIGHT - _BOTTOM
    if switch is not None and switch.step:
        parts.append(_path([(across(switch), _TOP), (across(switch), bottom)], "2 2", "1"))
        anchor = "end" if 2 * switch.step > last else "start"
        parts.append(_words(across(switch), _HEIGHT - 12, f"CROWN from step {switch.step}", anchor))
    parts += [_words(_LEFT, bottom + 14, "0"), _words(_WIDTH - _RIGHT, bottom + 14, f"step {last}", "end")]
    label = f"learning curves over {last} steps: margin {rows[-1].margin:.2f} at the end, {labels[0]}, {labels[1]}"
    size = f"0 0 {_WIDTH:g} {2 * _HEIGHT:g}"
    return tag("svg", *parts, viewBox=size, role="img", aria_label=label, class_="learning")
