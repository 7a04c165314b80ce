"""Records as users have them (arrays, tensors, a ``DataLoader``, a ``Dataset``), as the npz files that verbs read.

A record is its float32 values. Float64 values that are no float32 values are rounded to the nearest, which is noted;
values that float32 cannot hold are refused. torch is used where the user's own objects bring it, never imported.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prune_verify.api.errors import RefusalError
from prune_verify.files import replace_file

if TYPE_CHECKING:
    from prune_verify.api.options import RecordsLike

__all__ = ["Rows", "rows_of", "written"]

Arrays = npt.NDArray[np.generic]
_PAIR = 2
_END_OF_LABELS = 2**53
_LARGEST_WHOLE = 2**24  # float32 holds every whole number up to here


@dataclass(frozen=True, eq=False)
class Rows:
    """Records in memory.

    Args:
        x: float32 [records, *row], in input units.
        y: int64 [records], the labels.
        notes: what was rounded.

    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()


def rows_of(given: object, name: str) -> Rows:
    """Records as float32 rows and int64 labels.

    Args:
        given: (x, y) of arrays or tensors [records, *row] and [records]; or an iterable of batches (a ``DataLoader``);
            or a map-style data set, whose items are (row, label).
        name: of the argument, for errors.

    Raises:
        RefusalError: another kind of object, values that float32 cannot hold, labels that are no integers.

    """
    x, y = _pair(given, name)
    if x.ndim < _PAIR or y.shape != x.shape[:1]:
        got = f"x of shape {list(x.shape)}, y of shape {list(y.shape)}"
        raise _refused(f"{name}: expected x [records, *row] and y [records] of the same length, got {got}")
    rows, note = _float32(x, name)
    return Rows(rows, _labels(y, name), () if note is None else (note,))


def _refused(text: str) -> RefusalError:
    return RefusalError(text, "E_RECORDS")


def _pair(given: object, name: str) -> tuple[Arrays, Arrays]:
    if isinstance(given, tuple | list) and len(given) == _PAIR:
        return _array(given[0], f"{name}[0]"), _array(given[1], f"{name}[1]")
    torch = sys.modules.get("torch")
    data = None if torch is None else torch.utils.data
    if data is not None and isinstance(given, data.Dataset) and not isinstance(given, data.IterableDataset):
        return _joined((given[place] for place in range(_length(given, name))), name, rows=True)
    if data is not None and isinstance(given, data.IterableDataset):
        return _joined(given, name, rows=True)
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | tuple | list | dict):
        return _joined(given, name, rows=False)
    expected = "expected a file, (x, y) of arrays or tensors, a DataLoader or a Dataset"
    raise _refused(f"{name}: {expected}, got {type(given).__name__}")


def _length(given: object, name: str) -> int:
    try:
        return len(given)  # type: ignore[arg-type] # what has no length is refused
    except (TypeError, NotImplementedError):
        raise _refused(f"{name}: expected a Dataset with a length, got {type(given).__name__} without") from None


def _joined(items: Iterable[object], name: str, *, rows: bool) -> tuple[Arrays, Arrays]:
    """All batches, or all rows, one after another."""
    xs, ys = list[Arrays](), list[Arrays]()
    for place, item in enumerate(items):
        where = f"{name}: {'row' if rows else 'batch'} {place}"
        if not isinstance(item, tuple | list) or len(item) != _PAIR:
            raise _refused(f"{where}: expected a pair of values and labels, got {type(item).__name__}")
        x, y = _array(item[0], where), _array(item[1], where)
        xs.append(x[np.newaxis] if rows else x)
        ys.append(y.reshape(1) if rows else y)
    if not xs:
        raise _refused(f"{name}: expected records, got none")
    if len({x.shape[1:] for x in xs}) > 1:
        shapes = sorted({str(list(x.shape[1:])) for x in xs})
        raise _refused(f"{name}: expected rows of one shape, got {', '.join(shapes)}")
    return np.concatenate(xs), np.concatenate(ys)


def _array(given: object, where: str) -> Arrays:
    """An array of numbers; a tensor from wherever it is."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given, torch.Tensor):
        tensor = given.detach().cpu()
        array: Arrays = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        return array
    found = np.asarray(given)
    if found.dtype.kind not in "biuf":
        raise _refused(f"{where}: expected numbers, got {type(given).__name__} of {found.dtype}")
    return found


def _float32(x: Arrays, name: str) -> tuple[npt.NDArray[np.float32], str | None]:
    """The values as float32, and what was rounded."""
    if x.dtype.kind in "iu" and x.size and (int(x.max()) > _LARGEST_WHOLE or int(x.min()) < -_LARGEST_WHOLE):
        raise _refused(f"{name}: expected whole numbers up to 2^24 in x, which float32 holds exactly, got greater ones")
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.ascontiguousarray(x, dtype=np.float32)
        moved = np.abs(rows.astype(np.float64) - x.astype(np.float64)) if x.dtype.itemsize > rows.itemsize else None
    bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))
    if len(bad):
        raise _refused(f"{name}: row {bad[0]}: expected finite float32 values, got {x.dtype} values that are none")
    if moved is None or x.dtype.kind != "f" or not moved.any():
        return rows, None
    count, most = int(np.count_nonzero(moved)), float(moved.max())
    return rows, (
        f"{name}: {count} of {x.size} {x.dtype} values are no float32 values; rounded to the nearest, by {most:.3g} at "
        "most: the records are the rounded ones"
    )


def _labels(y: Arrays, name: str) -> npt.NDArray[np.int64]:
    if y.dtype.kind not in "iu":
        raise _refused(f"{name}: expected labels of an integer type, got {y.dtype}")
    for row in np.flatnonzero(np.less(y, 0) | np.greater_equal(y, _END_OF_LABELS))[:1]:
        raise _refused(f"{name}: row {row}: expected a label from 0 to 2^53 - 1, got {y[row]}")
    return y.astype(np.int64)


def written(given: RecordsLike, name: str, folder: Path) -> tuple[str, Rows | None]:
    """What the verbs take for a set: a file that is named, as it is; anything else written to ``NAME.npz``, mode 0600.

    Args:
        given: of the call.
        name: of the set; the file's name.
        folder: made if missing.

    Returns:
        The argument of the verb, and the records where they were given in memory.

    Raises:
        RefusalError: records that cannot be used.
        OSError: the folder cannot be written.

    """
    if isinstance(given, str | Path):
        return str(given), None
    rows, buffer, path = rows_of(given, name), io.BytesIO(), folder / f"{name}.npz"
    np.savez(buffer, x=rows.x, y=rows.y)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getvalue(), 0o600)
    return str(path), rows
