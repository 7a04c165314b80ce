"""Data sets: their sizes, ranges and labels, and that Adult's rows are what its encoding says."""

from __future__ import annotations

import numpy as np
import pytest

from prune_verify.checker.records import emit_encoding, load_records, parse_encoding
from prune_verify.measure.datasets import ADULT_COLUMNS, adult, adult_records, digits, mnist, split


def test_a_split_holds_every_index_once_and_depends_on_the_seed() -> None:
    train, test = split(100, 30, seed=1)
    assert sorted([*train, *test]) == list(range(100))
    assert len(test) == 30
    assert split(100, 30, seed=1)[1].tolist() == test.tolist()
    assert split(100, 30, seed=2)[1].tolist() != test.tolist()


@pytest.mark.prover
def test_digits_are_sixteenths_in_the_unit_interval() -> None:
    found = digits()
    assert (found.train_x.shape, found.test_x.shape) == ((1437, 64), (360, 64))
    assert found.train_x.dtype == np.float32
    assert set((found.train_x * 16).ravel().tolist()) == set(range(17))
    assert set(found.train_y.tolist()) == set(range(10))


def test_mnist_is_read_whole(shared_data) -> None:
    found = mnist(shared_data / "mnist")
    assert (found.train_x.shape, found.test_x.shape) == ((60_000, 784), (10_000, 784))
    assert (found.train_x.min(), found.train_x.max()) == (0.0, 1.0)
    assert np.bincount(found.test_y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_adult_is_read_through_its_encoding(shared_data) -> None:
    found = adult(shared_data / "adult")
    assert (found.train_x.shape, found.test_x.shape) == ((32_561, 108), (16_281, 108))
    assert (found.train_y.sum(), found.test_y.sum()) == (7841, 3846)
    assert (found.train_x.min(), found.train_x.max(), found.test_x.min(), found.test_x.max()) == (0.0, 1.0, 0.0, 1.0)


def test_adults_first_row_by_hand(shared_data, tmp_path) -> None:
    train, test, encoding = adult_records(shared_data / "adult")
    row = dict(
        zip(
            [c.name for c in encoding.columns],
            np.split(train.x[0], np.cumsum([c.width for c in encoding.columns])[:-1]),
            strict=True,
        )
    )
    assert row["age"].tolist() == [float(np.float32((39 - 17) / 73))]
    workclass = next(c for c in encoding.columns if c.name == "workclass")
    assert "?" in workclass.values
    assert row["workclass"].tolist() == [float(value == "State-gov") for value in workclass.values]
    assert encoding.width == train.x.shape[1]
    assert test.encoding_sha256 == train.encoding_sha256 == encoding.sha256
    assert parse_encoding(emit_encoding(encoding), "e") == encoding


def test_adult_is_the_same_through_the_command_lines_reader(shared_data, tmp_path) -> None:
    train, _, encoding = adult_records(shared_data / "adult")
    (tmp_path / "encoding.json").write_bytes(emit_encoding(encoding))
    again = load_records(
        str(shared_data / "adult" / "adult-train.csv"),
        what="retain set",
        label_column="income",
        names=ADULT_COLUMNS,
        encoding=tmp_path / "encoding.json",
    )
    assert again.encoding_sha256 == train.encoding_sha256
    assert np.array_equal(again.x, train.x)
    assert np.array_equal(again.y, train.y)
