"""Files that are written whole or not at all.

Source: FORMATS section 3 ("Ctrl-C leaves no half-written file").
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["new_file", "replace_file"]


def replace_file(path: Path, content: bytes) -> None:
    """Write or replace a file; a reader finds the whole of it or what was there before, also after an interruption.

    Args:
        path: the file.
        content: its bytes.

    Raises:
        OSError: the folder is missing or not writable.

    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def new_file(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet, readable as ``mode`` says from its first byte on.

    Args:
        path: the file.
        content: its bytes.
        mode: such as 0o600 for what is confidential.

    Raises:
        OSError: it exists, or the folder is missing or not writable.

    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
