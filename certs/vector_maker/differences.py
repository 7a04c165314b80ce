"""How a forged file differs from the honest one, in lines that a person reads: places, what stood, what stands there.

Nothing here decides anything; hostile bytes are shown escaped and cut.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from difflib import unified_diff
from itertools import zip_longest
from typing import Any

__all__ = ["differences"]

_MOST_LINES, _MOST_CHARACTERS = 8, 60
_ABSENT = object()


def _span(plain: str) -> str:
    """Printable ASCII in a code span, cut."""
    short = plain if len(plain) <= _MOST_CHARACTERS else plain[: _MOST_CHARACTERS - 3] + "..."
    return f"`{short.replace('`', chr(39))}`"


def _code(text: str) -> str:
    """A line or a path."""
    return _span(json.dumps(text, ensure_ascii=True)[1:-1].replace('\\"', '"'))


def _shown(value: object) -> str:
    """A value as JSON has it."""
    return "nothing" if value is _ABSENT else _span(json.dumps(value, ensure_ascii=True))


def _place(path: str) -> str:
    return _code(path) if path else "the whole:"


def _places(old: object, new: object, path: str) -> Iterator[str]:
    """The members in which two values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _places(old.get(name, _ABSENT), new.get(name, _ABSENT), f"{path}/{name}" if path else name)
    elif isinstance(old, list) and isinstance(new, list) and _alike(old, new):
        for place, (one, other) in enumerate(zip_longest(old, new, fillvalue=_ABSENT)):
            yield from _places(one, other, f"{path}/{place}" if path else str(place))
    elif old is _ABSENT or new is _ABSENT or old != new or type(old) is not type(new):
        yield f"{_place(path)} {_shown(old)} becomes {_shown(new)}"


def _alike(old: list[Any], new: list[Any]) -> bool:
    """Whether two lists are of one length, or one is the beginning of the other."""
    both = min(len(old), len(new))
    return len(old) == len(new) or old[:both] == new[:both]


def _parsed(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return _ABSENT


def _json_lines(old: bytes, new: bytes, path: str = "") -> list[str]:
    before, after = _parsed(old), _parsed(new)
    if after is _ABSENT:
        return [f"{_place(path)} no JSON that Python reads, {len(new)} bytes instead of {len(old)}"]
    found = list(_places(before, after, path))
    return found or [f"{_place(path)} the same values in another spelling"]


def _envelope_lines(old: bytes, new: bytes) -> list[str]:
    """The payload's members by their own paths; signatures only where the payload is the same."""
    before, after = _parsed(old), _parsed(new)
    if not isinstance(after, dict) or not isinstance(after.get("payload"), str):
        return _json_lines(old, new)
    was, now = (base64.b64decode(envelope["payload"] + "==") for envelope in (before, after))
    lines = []
    if was != now:
        lines += _json_lines(was, now, "payload")
    signers = [[item.get("keyid") for item in envelope.get("signatures", ())] for envelope in (before, after)]
    same_signers = signers[0] == signers[1]
    skipped = ("payload", "signatures") if was != now and same_signers else ("payload",) if was != now else ()
    lines += _places(
        {name: value for name, value in before.items() if name not in skipped},
        {name: value for name, value in after.items() if name not in skipped},
        "",
    )
    return lines or ["the same values in another spelling"]


def _text_lines(old: bytes, new: bytes) -> list[str]:
    found = unified_diff(old.decode().splitlines(), new.decode(errors="replace").splitlines(), n=0, lineterm="")
    return [_code(line) for line in found if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def differences(name: str, old: bytes | None, new: bytes) -> list[str]:
    """Lines about one file.

    Args:
        name: of the file.
        old: the honest bytes, or None where the honest case has no such file.
        new: the bytes of this case.

    """
    if old is None:
        return [f"new, {len(new)} bytes"]
    if name.endswith(".unlearn.json"):
        lines = _envelope_lines(old, new)
    elif name.endswith(".json"):
        lines = _json_lines(old, new)
    elif name.endswith(".toml"):
        lines = _text_lines(old, new)
    else:
        return [f"other bytes, {len(new)} instead of {len(old)}"]
    return (
        lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], f"and {len(lines) - _MOST_LINES + 1} more"]
    )
