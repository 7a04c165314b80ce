"""Data sets for the demo, tests and benchmarks: digits from scikit-learn's wheel, MNIST and Adult from files.

Source: scikit-learn ``load_digits`` (UCI optical digits test set); the idx format of LeCun and Cortes; UCI Adult.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.checker.records import load_records

__all__ = ["DataSet", "digits", "mnist", "split"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DataSet:
    """A training and a test set in [0, 1].

    Args:
        name: for tables.
        train_x: float32 [count, *row].
        train_y: int64 [count].
        test_x: float32 [count, *row].
        test_y: int64 [count].

    """

    name: str
    train_x: Floats
    train_y: Labels
    test_x: Floats
    test_y: Labels


def split(count: int, held_out: int, seed: int) -> tuple[Labels, Labels]:
    """Indices of a training and a held-out part, drawn without replacement."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def digits(seed: int = 0, held_out: int = 360) -> DataSet:
    """scikit-learn's 1,797 digits of 8x8 grey levels 0..16, divided by 16, with a seeded hold-out part."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = (found.data / 16.0).astype(np.float32)
    y = found.target.astype(np.int64)
    train, test = split(len(y), held_out, seed)
    return DataSet("digits", x[train], y[train], x[test], y[test])


def mnist(folder: Path) -> DataSet:
    """MNIST from the four idx.gz files in ``folder``; rows are 784 numbers, grey levels divided by 255."""
    parts = []
    for stem in ("train", "t10k"):
        spec = f"{folder / (stem + '-images-idx3-ubyte.gz')},{folder / (stem + '-labels-idx1-ubyte.gz')}"
        records = load_records(spec, what=f"MNIST {stem}")
        parts += [records.x.reshape(len(records.y), -1), records.y]
    return DataSet("mnist", *parts)
