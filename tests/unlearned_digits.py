"""A base network of digits, five forgotten records and a patch that forgets them, as files: what ``measure`` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FORGOTTEN = (3, 50, 100, 200, 300)


def run(*words: object) -> tuple[int, str]:
    """One command in this process: exit code and what it prints."""
    from prune_verify.cli import run_words

    return run_words([str(word) for word in words])


def unlearned_digits(folder: Path, epochs: int = 40) -> Path:
    """Train, split and repair; gives the folder with base.onnx, forget.npz, retain.npz, test.npz and out/."""
    import torch

    from prune_verify.measure.datasets import digits
    from prune_verify.measure.training import export_onnx, small_mlp, train

    data = digits()
    with torch.random.fork_rng(devices=[]):
        network = train(lambda: small_mlp((64, 24, 10)), data, epochs=epochs, seed=0, rate=0.005)
    (folder / "base.onnx").write_bytes(export_onnx(network, data.train_x))
    forgotten = np.isin(np.arange(len(data.train_y)), FORGOTTEN)
    for name, x, y in (
        ("forget", data.train_x[forgotten], data.train_y[forgotten]),
        ("retain", data.train_x[~forgotten], data.train_y[~forgotten]),
        ("test", data.test_x, data.test_y),
    ):
        np.savez(folder / f"{name}.npz", x=x, y=y)
    code, text = run(
        "repair", folder / "base.onnx", "--forget", folder / "forget.npz", "--retain", folder / "retain.npz", "--out", folder / "out"
    )  # fmt: skip
    assert code == 0, text
    return folder
