"""How a file of a vector is written down: a small expression over the honest files, as short as the difference.

The forms are those of ``certs/vectors/README.md``; ``certs/vectors/run.py`` evaluates them again.
"""

from __future__ import annotations

import base64
import re
from difflib import SequenceMatcher
from typing import Any

__all__ = ["Expression", "described", "encode", "envelope_of", "join", "patched_text", "repeat", "text_or_base64"]

Expression = dict[str, Any]

_PAYLOAD = re.compile(rb'"payload":"([A-Za-z0-9+/]*={0,2})"')
_TOKEN = re.compile(rb"[A-Za-z0-9_.+-]+|.", re.DOTALL)
_CLOSE = 24
_WORTH_A_CLOSER_LOOK = 64
_LONGEST_LOOK = 20_000


def text_or_base64(data: bytes) -> Expression:
    """The bytes themselves: as text where they are printable ASCII, else in base64."""
    text = data.decode("ascii", "replace")
    if text.isascii() and text.replace("\n", "").isprintable():
        return {"text": text}
    return {"base64": base64.b64encode(data).decode()}


def join(*parts: Expression | bytes) -> Expression:
    """One after the other."""
    return {"join": [text_or_base64(part) if isinstance(part, bytes) else part for part in parts]}


def repeat(part: bytes, count: int) -> Expression:
    """The same bytes many times."""
    return {"repeat": text_or_base64(part), "count": count}


def encode(part: Expression) -> Expression:
    """Standard base64 of bytes."""
    return {"encode": part}


def envelope_of(payload: Expression, tail: bytes) -> Expression:
    """An envelope whose payload is an expression; ``tail`` is what follows the payload's base64."""
    return join(b'{"payload":"', encode(payload), tail)


def _ends(old: bytes, new: bytes) -> tuple[int, int]:
    """Lengths of the common beginning and of the common end."""
    most = min(len(old), len(new))
    head = next((i for i in range(most) if old[i] != new[i]), most)
    tail = next((i for i in range(most - head) if old[-1 - i] != new[-1 - i]), most - head)
    return head, tail


def _in_place(old: bytes, new: bytes) -> list[tuple[int, int, bytes]]:
    """The runs of bytes that differ between files of one length; runs close to each other are one."""
    ends: list[list[int]] = []
    for place in (i for i in range(len(old)) if old[i] != new[i]):
        if ends and place - ends[-1][1] < _CLOSE:
            ends[-1][1] = place + 1
        else:
            ends.append([place, place + 1])
    return [(start, end - start, new[start:end]) for start, end in ends]


def _pieces(old: bytes, new: bytes) -> list[tuple[int, int, bytes]]:
    """(offset in ``old``, bytes deleted, bytes inserted), ascending."""
    if len(old) == len(new):
        return _in_place(old, new)
    head, tail = _ends(old, new)
    was, now = old[head : len(old) - tail], new[head : len(new) - tail]
    text = old[:1] == b"{"  # tokens of binary files repeat too often
    if not text or min(len(was), len(now)) < _WORTH_A_CLOSER_LOOK or max(len(was), len(now)) > _LONGEST_LOOK:
        return [(head, len(was), now)] if was or now else []
    left, right = _TOKEN.findall(was), _TOKEN.findall(now)
    starts = [head]
    for token in left:
        starts.append(starts[-1] + len(token))
    found: list[tuple[int, int, bytes]] = []
    for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        offset, length, inserted = starts[a], starts[b] - starts[a], b"".join(right[c:d])
        if found and offset - (found[-1][0] + found[-1][1]) < _CLOSE:
            before, gone, put = found.pop()
            between = old[before + gone : offset]
            found.append((before, offset + length - before, put + between + inserted))
        else:
            found.append((offset, length, inserted))
    return found


def patched_text(name: str, old: bytes, new: bytes) -> Expression:
    """The bytes as edits of an honest file, or themselves where that is shorter."""
    pieces = _pieces(old, new)
    if sum(40 + len(inserted) for _, _, inserted in pieces) >= len(new):
        return text_or_base64(new)
    edits = [{"offset": o, "delete": d, "insert": text_or_base64(i)} for o, d, i in pieces]
    return {"base": name, "edits": edits} if edits else {"base": name}


def described(name: str, data: bytes, base: dict[str, bytes]) -> Expression:
    """The shortest expression that this module knows for a file.

    Args:
        name: of the file.
        data: its bytes.
        base: the honest files by name, ``statement.json`` among them.

    """
    found = _PAYLOAD.search(data)
    if found is not None and name.endswith(".unlearn.json"):
        payload = base64.b64decode(found[1] + b"==")  # a loose spelling is compared below
        start, end = found.span(1)
        if base64.b64encode(payload) == found[1]:
            inner = encode(patched_text("statement.json", base["statement.json"], payload))
            return join(data[:start], inner, data[end:])
    return patched_text(name, base[name], data) if name in base else text_or_base64(data)
