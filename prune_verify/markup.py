"""HTML from values that may be hostile: everything is escaped, and what a reader could not see is shown.

:data:`Html` is a type of its own, so that mypy refuses a plain string where markup is expected:
the only ways from a value to markup are :func:`text`, :func:`said` and :func:`tag`.

Source: THREATS 2 "Text" (bidi and control characters, HTML or script in the report, NFC/NFD twins).
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NewType

__all__ = ["Html", "cells", "joined", "plain", "said", "table", "tag", "text", "visible"]

Html = NewType("Html", str)

_LONGEST = 2000
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and symbols that have no ink
_VOID = frozenset({"meta", "image", "rect", "path", "br"})


def _hidden(character: str) -> bool:
    """Whether a character is invisible, moves its neighbours, or has a twin that looks the same."""
    return (
        not character.isprintable()
        or character in _BLANK_LETTERS
        or unicodedata.category(character) in {"Mn", "Me"}
        or unicodedata.normalize("NFC", character) != character
    )


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"  # noqa: PLR2004 - the basic plane


def _cut(value: str) -> str:
    left_out = len(value) - _LONGEST
    return value if left_out <= 0 else f"{value[:_LONGEST]} [{left_out} more characters]"


def visible(value: object) -> str:
    """A value as one line of plain text in which nothing is hidden: not yet escaped for HTML."""
    return "".join(_escape(c) if _hidden(c) else c for c in _cut(str(value)))


def plain(value: object) -> Html:
    """A value as text where no element may stand (the document's title)."""
    return Html(html.escape(visible(value)))


def text(value: object) -> Html:
    """A value as text content, with hidden characters shown as marked escapes."""
    parts = []
    for character in _cut(str(value)):
        if _hidden(character):
            parts.append(f'<span class="escape">{_escape(character)}</span>')
        else:
            parts.append(html.escape(character))
    return Html("".join(parts))


def said(value: object) -> Html:
    """Foreign text (any value, as text), isolated: right-to-left letters in it cannot reorder what stands beside it."""
    return tag("bdi", text(value))


def tag(name: str, /, *children: Html, **attributes: str) -> Html:
    """One balanced element.

    Args:
        name: of the element; names without content (``meta``) take no children.
        children: markup.
        attributes: plain strings, escaped here; ``class_`` gives ``class`` and ``_`` gives ``-`` (``aria_label``).

    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(visible(value))}"'
        for key, value in attributes.items()
        if value
    )
    if name in _VOID:
        return Html(f"<{name}{written}/>" if name != "meta" else f"<{name}{written}>")
    return Html(f"<{name}{written}>{''.join(children)}</{name}>")


def joined(parts: Iterable[Html], separator: str = "") -> Html:
    """The parts one after another, with a separator between."""
    return Html(separator.join(parts))


def cells(values: Iterable[Html], heads: Sequence[str] = (), *, numbers_from: int = 10**6) -> Html:
    """One table row: the first cell is the row's heading, cells from ``numbers_from`` on hold numbers.

    Args:
        values: of the cells.
        heads: of their columns, which each cell repeats where a narrow screen shows it under the one before.
        numbers_from: the first column of numbers.

    """
    made = []
    for place, value in enumerate(values):
        if place == 0:
            made.append(tag("th", value, scope="row", role="rowheader"))
            continue
        label = heads[place] if place < len(heads) else ""
        kind = "n" if place >= numbers_from else ""
        made.append(tag("td", value, class_=kind, role="cell", data_label=label))
    return tag("tr", *made, role="row")


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Html], *, numbers_from: int = 10**6, class_: str = ""
) -> Html:
    """A table with a caption and column headings; its roles stand there in words, for where cells become blocks.

    Args:
        caption: what it shows.
        heads: of the columns.
        rows: each of them markup.
        numbers_from: the first column of numbers.
        class_: for style.

    """
    kinds = ("n" if place >= numbers_from else "" for place in range(len(heads)))
    top = [tag("th", text(h), scope="col", class_=k, role="columnheader") for h, k in zip(heads, kinds, strict=True)]
    head = tag("thead", tag("tr", *top, role="row"), role="rowgroup")
    body = tag("tbody", *rows, role="rowgroup")
    return tag("table", tag("caption", text(caption)), head, body, class_=class_, role="table")
