"""A process that answers some rows once and prints the KiB by which its peak memory grew; see ``deployed``.

The peak is that of this program's own memory (``VmHWM``): the figure of ``getrusage`` would include its parent's.

Source: proc(5), ``/proc/PID/status``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

__all__ = ["main"]


def _peak() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    text = "VmHWM: expected in /proc/self/status, found none"
    raise OSError(text)


def main(folder: Path) -> int:
    """Answer ``rows.npy`` with ``model.onnx`` of a folder.

    Returns:
        KiB by which the peak grew, from before the network was read.

    """
    from prune_verify.measure.deployed import Deployed

    rows = np.load(folder / "rows.npy", allow_pickle=False)
    before = _peak()
    Deployed((folder / "model.onnx").read_bytes(), "model.onnx").run(rows)
    return _peak() - before


if __name__ == "__main__":
    sys.stdout.write(f"{main(Path(sys.argv[1]))}\n")
