"""Records of every form become the same float32 rows; what would be lost is refused or noted."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from prune_verify.api.errors import RefusalError
from prune_verify.api.records import rows_of, written

torch = pytest.importorskip("torch")
data = torch.utils.data

X = np.array([[0.5, 0.25], [1.0, 0.0], [0.125, 0.75]], dtype=np.float32)
Y = np.array([1, 0, 2])


def as_dataset():
    return data.TensorDataset(torch.tensor(X), torch.tensor(Y))


class Pairs(data.Dataset):
    """Rows of numpy with plain labels, as users write them."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, place: int):
        return X[place], int(Y[place])


class Endless(data.Dataset):
    """A data set without a length."""

    def __getitem__(self, place: int):
        return X[0], 0


class Stream(data.IterableDataset):
    """Rows one by one."""

    def __iter__(self):
        return iter(zip(X, Y, strict=True))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param((X, Y), id="arrays"),
        pytest.param([X.tolist(), Y.tolist()], id="lists"),
        pytest.param((X.astype(np.float64), Y.astype(np.uint8)), id="float64 of float32 values"),
        pytest.param((np.asfortranarray(X), Y[::1]), id="other memory order"),
        pytest.param((torch.tensor(X, requires_grad=True), torch.tensor(Y)), id="tensors"),
        pytest.param((torch.tensor(X).bfloat16(), torch.tensor(Y, dtype=torch.int32)), id="bfloat16"),
        pytest.param((torch.tensor(X).half(), torch.tensor(Y, dtype=torch.int8)), id="float16"),
        pytest.param(as_dataset(), id="data set of tensors"),
        pytest.param(Pairs(), id="data set of arrays"),
        pytest.param(Stream(), id="iterable data set"),
        pytest.param(data.DataLoader(as_dataset(), batch_size=2), id="loader"),
        pytest.param(data.DataLoader(Pairs(), batch_size=2), id="loader of arrays"),
        pytest.param(([(X[:1], Y[:1]), (X[1:], Y[1:])].__iter__()), id="batches"),
    ],
)
def test_every_form_gives_the_same_rows(given) -> None:
    found = rows_of(given, "forget")
    assert found.x.dtype == np.float32
    assert found.y.dtype == np.int64
    assert found.x.flags.c_contiguous
    assert np.array_equal(found.x, X)
    assert np.array_equal(found.y, Y)
    assert found.notes == ()


def test_pixels_stay_whole_numbers() -> None:
    found = rows_of((np.array([[0, 255]], dtype=np.uint8), np.array([3])), "forget")
    assert found.x.tolist() == [[0.0, 255.0]]


def test_rounding_is_noted() -> None:
    found = rows_of((np.array([[0.1, 0.5]]), np.array([0])), "forget")
    assert found.x[0, 0] == np.float32(0.1)
    assert found.notes == (
        "forget: 1 of 2 float64 values are no float32 values; rounded to the nearest, by 1.49e-09 at most: the records are the rounded ones",
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (((np.array([[1e300]])), [0]), r"forget: row 0: expected finite float32 values, got float64"),
        ((np.array([[0.0], [np.nan]]), [0, 1]), r"forget: row 1: expected finite float32 values"),
        ((np.array([[2**24 + 1]]), [0]), r"expected whole numbers up to 2\^24"),
        ((X, Y.astype(float)), r"expected labels of an integer type, got float64"),
        ((X, np.array([0, -1, 2])), r"row 1: expected a label from 0 to 2\^53 - 1, got -1"),
        ((X, Y[:2]), r"of the same length, got x of shape \[3, 2\], y of shape \[2\]"),
        ((X[:, 0], Y), r"expected x \[records, \*row\]"),
        ((np.array([["a"]]), [0]), r"forget\[0\]: expected numbers"),
        (data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(X))), r"batch 0: expected a pair of values and labels"),
        (data.TensorDataset(torch.tensor(X)), r"row 0: expected a pair of values and labels, got tuple"),
        (Endless(), r"expected a Dataset with a length"),
        (iter([]), r"forget: expected records, got none"),
        (iter([(X, Y), (X[:, :1], Y)]), r"expected rows of one shape, got \[1\], \[2\]"),
        (7, r"expected a file, \(x, y\) of arrays or tensors, a DataLoader or a Dataset, got int"),
        ({"x": X, "y": Y}, r"got dict"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(given, text) -> None:
    with pytest.raises(RefusalError, match=text) as error:
        rows_of(given, "forget")
    assert error.value.code == "E_RECORDS"


def test_records_in_memory_are_written_for_the_owner_alone(tmp_path) -> None:
    path, rows = written((X, Y), "forget", tmp_path / "inputs")
    with np.load(path) as found:
        assert np.array_equal(found["x"], X)
        assert found["y"].dtype == np.int64
    assert rows is not None
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_files_are_taken_as_they_are(tmp_path) -> None:
    assert written("images,labels:10", "forget", tmp_path) == ("images,labels:10", None)
    assert not list(tmp_path.iterdir())
