"""Files that are written whole or not at all.

Source: FORMATS section 3 ("Ctrl-C leaves no half-written file").
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["new_file", "replace_file"]


@contextmanager
def _beside(path: Path, content: bytes, mode: int = 0o644) -> Iterator[Path]:
    """The content in a file of another name in the same folder, which is gone afterwards unless it was moved."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(mode)
        yield Path(name)
    finally:
        with suppress(OSError):
            Path(name).unlink()


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write or replace a file; a reader finds the whole of it or what was there before, also after an interruption.

    Args:
        path: the file.
        content: its bytes.
        mode: who may read it.

    Raises:
        OSError: the folder is missing or not writable.

    """
    with _beside(path, content, mode) as written:
        written.replace(path)


def new_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file that must not exist yet; a reader finds the whole of it or none, also after an interruption.

    Args:
        path: the file.
        content: its bytes.
        mode: who may read it.

    Raises:
        OSError: it exists, or the folder is missing or not writable.

    """
    with _beside(path, content, mode) as written:
        try:
            os.link(written, path)  # unlike a move, never in the place of another file
        except FileExistsError:
            raise FileExistsError(17, "exists already; it is never overwritten", str(path)) from None
        except OSError:  # a file system without links
            if os.path.lexists(path):
                raise FileExistsError(17, "exists already; it is never overwritten", str(path)) from None
            written.replace(path)
