"""A base network of digits, five forgotten records and a patch that forgets them, as files: what ``measure`` reads."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

FORGOTTEN = (3, 50, 100, 200, 300)


def run(*words: object) -> tuple[int, str]:
    """One command in this process: exit code and what it prints."""
    from prune_verify.cli import run_words

    return run_words([str(word) for word in words])


@cache
def _made() -> dict[str, bytes]:
    """Train, split and repair, once; every file by its name."""
    import torch

    from prune_verify.bounds.bounded import one_thread
    from prune_verify.measure.datasets import digits
    from prune_verify.measure.training import export_onnx, small_mlp, train

    data = digits()
    with TemporaryDirectory() as made:
        folder = Path(made)
        with torch.random.fork_rng(devices=[]), one_thread():
            network = train(lambda: small_mlp((64, 24, 10)), data, epochs=40, seed=0, rate=0.005)
        (folder / "base.onnx").write_bytes(export_onnx(network, data.train_x))
        forgotten = np.isin(np.arange(len(data.train_y)), FORGOTTEN)
        for name, x, y in (
            ("forget", data.train_x[forgotten], data.train_y[forgotten]),
            ("retain", data.train_x[~forgotten], data.train_y[~forgotten]),
            ("test", data.test_x, data.test_y),
        ):
            np.savez(folder / f"{name}.npz", x=x, y=y)
        sets = [word for name in ("forget", "retain") for word in (f"--{name}", folder / f"{name}.npz")]
        code, text = run("repair", folder / "base.onnx", *sets, "--out", folder / "out")
        assert code == 0, text
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unlearned_digits(folder: Path) -> Path:
    """Give a folder base.onnx, forget.npz, retain.npz, test.npz, and out/ with what repair writes."""
    for name, data in _made().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
