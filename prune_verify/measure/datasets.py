"""Data sets for the demo, tests and benchmarks: digits from scikit-learn's wheel, MNIST and Adult from files.

Source: scikit-learn ``load_digits`` (UCI optical digits test set); the idx format of LeCun and Cortes; UCI Adult.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import read_file
from prune_verify.checker.record_csv import read_csv
from prune_verify.checker.record_encoding import Encoding
from prune_verify.checker.record_files import Limits
from prune_verify.checker.records import Records, fit_encoding, load_records

__all__ = ["ADULT_COLUMNS", "DataSet", "adult", "adult_records", "digits", "mnist", "split"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# The files have no header; the names are those of adult.names.
ADULT_COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)
_ADULT_LIMITS = Limits(bytes=2**26, records=2**16)


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
    """Indices of a training and a ``held_out`` part of ``count`` rows, drawn with a seed, without replacement."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def digits(seed: int = 0, held_out: int = 360) -> DataSet:
    """scikit-learn's 1,797 digits of 8x8 grey levels 0..16, divided by 16; ``held_out`` of them drawn with a seed."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = (found.data / 16.0).astype(np.float32)
    y = found.target.astype(np.int64)
    train, test = split(len(y), held_out, seed)
    return DataSet("digits", x[train], y[train], x[test], y[test])


def mnist(folder: Path) -> DataSet:
    """MNIST from the four idx.gz files in ``folder``; rows are 784 numbers, grey levels divided by 255."""
    train, test = (
        load_records(
            f"{folder / (stem + '-images-idx3-ubyte.gz')},{folder / (stem + '-labels-idx1-ubyte.gz')}",
            what=f"MNIST {stem}",
        )
        for stem in ("train", "t10k")
    )
    return DataSet("mnist", train.rows, train.y, test.rows, test.y)


def adult_records(folder: Path) -> tuple[Records, Records, Encoding]:
    """Adult's training and test records in a folder, and the encoding that the training file determines.

    Columns of numbers are scaled to the training file's range (a few test values lie outside [0, 1]), the others
    are one-hot; '?' (missing) is a category of its own. The test file spells its labels with a full stop.
    """
    encoding = fit_encoding(folder / "adult-train.csv", "income", names=ADULT_COLUMNS)
    dotted = replace(encoding, labels=tuple(f"{label}." for label in encoding.labels))
    found = []
    for name, spelling in (("adult-train.csv", encoding), ("adult-test.csv", dotted)):
        path = folder / name
        data = read_file(path, "Adult", _ADULT_LIMITS.bytes)
        x, y = read_csv(data, str(path), _ADULT_LIMITS, "income", names=ADULT_COLUMNS, encoding=spelling)
        found.append(Records(x, y, encoding.sha256, str(path)))
    return found[0], found[1], encoding


def adult(folder: Path) -> DataSet:
    """Adult (label 1: income above 50,000 dollars) from its two csv files, test values clipped to [0, 1].

    Args:
        folder: with adult.data and adult.test.

    """
    train, test, _ = adult_records(folder)
    return DataSet("adult", train.x, train.y, np.clip(test.x, 0.0, 1.0), test.y)
