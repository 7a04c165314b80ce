"""Writing the folder of a repair: all files or none, those that hold records for the owner's eyes only.

Source: FORMATS section 3 ("Ctrl-C leaves no half-written file").
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from prune_verify.repair.errors import RepairInputError

__all__ = ["SECRET", "require_writable", "write_files"]

SECRET = ("forget.npz", "retain.npz", "redirect.key", "stream.json", "checked.npz")


def require_writable(out: Path) -> None:
    """Refuse a folder ``out`` that cannot be written before any work is done.

    Raises:
        RepairInputError: the same.

    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        text = f"--out {out}: expected a folder that can be written, got: {error.strerror}"
        raise RepairInputError(text) from None


def write_files(out: Path, files: dict[str, bytes]) -> None:
    """Write all files or none: each under another name first.

    Args:
        out: the folder.
        files: contents by name; those of :data:`SECRET` get mode 0600.

    """
    with tempfile.TemporaryDirectory(prefix=".repair-", dir=out) as name:
        for file, data in files.items():
            made = Path(name) / file
            made.touch(mode=0o600 if file in SECRET else 0o666)
            made.write_bytes(data)
        for file in files:
            os.replace(Path(name) / file, out / file)  # noqa: PTH105 - replaces, on every system
