"""Challenges: a nonce of the auditor's own, which a certificate that answers it cannot be older than.

Source: FORMATS section 3 (``challenge new``); THREATS T11.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

from prune_verify.checker.encoding import canonical_json, format_time
from prune_verify.checker.errors import MalformedInputError
from prune_verify.files import new_file

__all__ = ["new_challenge"]

_BYTES = 32
_LONGEST_NOTE = 256


def new_challenge(out: Path, note: str = "") -> str:
    """Write a fresh challenge of 256 random bits, which must not exist yet; gives the nonce in hex.

    Args:
        out: the file.
        note: for the people who handle it, such as who is asked for what.

    Raises:
        MalformedInputError: a note that is long or not printable.
        OSError: the file exists, or cannot be written.

    """
    if len(note) > _LONGEST_NOTE or not (note.isprintable() or not note):
        expected = f"at most {_LONGEST_NOTE} printable characters"
        raise MalformedInputError("--note", "note of a challenge", expected, repr(note)[:80])
    nonce = secrets.token_hex(_BYTES)
    made = format_time(datetime.now(UTC))
    content = canonical_json({"formatVersion": 1, "nonce": nonce, "createdAt": made, "note": note})
    new_file(out, content, 0o644)
    return nonce
