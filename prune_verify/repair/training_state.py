"""Training that can be watched and taken up again: learning curves, and checkpoints of arrays and JSON.

A checkpoint is an npz file without pickled objects. It holds everything that the next step reads, so that a
run that was taken up again ends with the same bits as one that was not interrupted, on one machine; and the
digest of what was trained on what, so that it is not taken up by another run.

Source: numpy's npz format; the house's rule that no file is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from math import isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import Json, canonical_json, read_file
from prune_verify.checker.errors import CheckError
from prune_verify.checker.network import Network
from prune_verify.files import replace_file
from prune_verify.repair.errors import RepairInputError

__all__ = ["Checkpoint", "Curve", "Saved", "learning_json", "run_digest"]

Array = npt.NDArray[np.generic]

_FORMAT = "prune-verify-training/1"
_FACTS = "facts"
_MOST_BYTES = 2**30
_FAILURES = (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, NotImplementedError)


@dataclass(frozen=True)
class Curve:
    """One look at the training.

    Args:
        step: steps taken before it.
        phase: ``interval`` or ``relaxation``: the bounds that were used.
        margin: least lower bound of the forget margin, in logits.
        forgotten: share of forget balls with the margin, by these bounds.
        within: share of retained balls on which no logit moves by more than delta, by these bounds.
        forget_loss: of the last step; None before the first.
        retain_loss: the same.
        privacy_loss: the same.
        size_loss: the same.

    """

    step: int
    phase: str
    margin: float
    forgotten: float
    within: float
    forget_loss: float | None = None
    retain_loss: float | None = None
    privacy_loss: float | None = None
    size_loss: float | None = None


def learning_json(curves: Sequence[Curve]) -> Json:
    """The curves as ``learning.json`` has them: decimals are strings, and null stands where there is no number."""
    rows: list[Json] = []
    for curve in curves:
        row: dict[str, Json] = {"step": curve.step, "phase": curve.phase}
        for item in fields(curve)[2:]:
            value: float | None = getattr(curve, item.name)
            first, *rest = item.name.split("_")
            row[first + "".join(word.title() for word in rest)] = _decimal(value)
        rows.append(row)
    return {"format": "prune-verify-learning/1", "rows": rows}


def _decimal(value: float | None) -> str | None:
    return None if value is None or not isfinite(value) else f"{value:.6f}"


def run_digest(base: Network, arrays: Sequence[Array], settings: Mapping[str, object]) -> str:
    """SHA-256 of a training run's inputs: the base, the records (arrays of any shape) and all settings."""
    told = {name: _plain(value) for name, value in sorted(settings.items())}
    digest = hashlib.sha256(base.digest().encode())
    digest.update(json.dumps(told, sort_keys=True).encode())
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _plain(value: object) -> str:
    return str(value) if isinstance(value, Fraction) else repr(value)


@dataclass(frozen=True, eq=False)
class Saved:
    """What a checkpoint holds.

    Args:
        step: steps taken.
        phase: the bounds in use.
        arrays: everything else by name.

    """

    step: int
    phase: str
    arrays: dict[str, Array]


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often the state of training is kept.

    Args:
        path: of the file, replaced whole each time.
        every: steps between two; looks are every 20 steps, and checkpoints are made at looks.

    """

    path: Path
    every: int = 20

    def __post_init__(self) -> None:
        if self.every < 1:
            text = f"--checkpoint {self.path}: expected at least 1 step between two checkpoints, found {self.every}"
            raise RepairInputError(text)

    def save(self, run: str, saved: Saved) -> None:
        """Replace the file, for the run with this digest.

        Raises:
            RepairInputError: it cannot be written.

        """
        facts = canonical_json({"format": _FORMAT, "run": run, "step": saved.step, "phase": saved.phase})
        buffer = io.BytesIO()
        arrays = {_FACTS: np.frombuffer(facts, dtype=np.uint8), **saved.arrays}
        np.savez(buffer, allow_pickle=False, **arrays)
        try:
            replace_file(self.path, buffer.getvalue())
        except OSError as error:
            text = f"--checkpoint {self.path}: expected a file that can be written, found: {error.strerror}"
            raise RepairInputError(text) from None

    def load(self, run: str, like: Mapping[str, Array]) -> Saved | None:
        """What was kept, or None where there is no file yet.

        Args:
            run: the digest that this run has.
            like: arrays by name, of which the kept ones have the shapes and types; a first axis of length 0 stands
                for any length.

        Raises:
            RepairInputError: the file is no checkpoint, one of another run, or one that does not fit.

        """
        if not self.path.exists():
            return None
        try:
            data = read_file(self.path, "checkpoint", _MOST_BYTES)
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays: dict[str, Array] = {name: file[name] for name in file.files}
            facts = json.loads(arrays.pop(_FACTS).tobytes())
            found, kept = (facts["format"], facts["run"]), Saved(int(facts["step"]), str(facts["phase"]), arrays)
        except (*_FAILURES, CheckError, TypeError) as error:
            raise self._refused(f"{type(error).__name__}: {error}") from None
        if found != (_FORMAT, run):
            raise self._refused("one of another base, other records or other settings")
        for name in sorted(set(like) | set(arrays)):
            if name not in like or name not in arrays or not _fits(like[name], arrays[name]):
                raise self._refused(f"array {name!r} missing, not expected, or of another shape")
        return kept

    def _refused(self, found: str) -> RepairInputError:
        return RepairInputError(f"--checkpoint {self.path}: expected a checkpoint of this training, found {found}")


def _fits(like: Array, found: Array) -> bool:
    free = like.ndim > 0 and len(like) == 0
    shape = found.shape[1:] == like.shape[1:] and found.ndim == like.ndim if free else found.shape == like.shape
    return shape and found.dtype == like.dtype
