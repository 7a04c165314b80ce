"""Files that are replaced whole or not at all.

Source: FORMATS section 3 ("Ctrl-C leaves no half-written file").
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["replace_file"]


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write or replace a file; a reader finds the whole of it or what was there before, also after an interruption.

    Args:
        path: the file.
        content: its bytes.
        mode: who may read it.

    Raises:
        OSError: the folder is missing or not writable.

    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
