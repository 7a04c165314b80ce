"""Records of one's own for ``bench repair``: idx, npz or csv files, as every verb takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from prune_verify.bench.chain import BenchError
from prune_verify.checker.records import Records, emit_encoding, fit_encoding, load_records

if TYPE_CHECKING:
    from prune_verify.measure.datasets import DataSet

__all__ = ["OwnData"]

_AXES = 2  # of a picture


@dataclass(frozen=True)
class OwnData:
    """Where a training and a test set are.

    Args:
        train: ``FILE.npz``, ``FILE.csv`` or ``IMAGES,LABELS``.
        test: the same.
        label_column: of csv files; their encoding is fitted to the training file.

    """

    train: str
    test: str
    label_column: str | None = None

    @property
    def table(self) -> bool:
        """Whether the records are people or things in a table, who lie closer than pictures."""
        return self.train.lower().endswith(".csv")

    def load(self) -> tuple[DataSet, tuple[int, int] | None]:
        """The sets as rows, and height and width where they are pictures.

        Raises:
            BenchError: values outside [0, 1], or sets of different shapes.
            CheckError: a file cannot be read.

        """
        from prune_verify.measure.datasets import DataSet

        train, test = self._records()
        if train.x.shape[1:] != test.x.shape[1:]:
            message = f"{self.test}: rows of shape {test.x.shape[1:]}: expected {train.x.shape[1:]}, as in {self.train}"
            raise BenchError(message)
        size = train.x.shape[1:]
        name = Path(self.train.partition(",")[0]).name.partition(".")[0]
        sets = (train.rows, train.y, np.clip(test.rows, 0.0, 1.0) if self.table else test.rows, test.y)
        for spec, x in ((self.train, sets[0]), (self.test, sets[2])):
            if (x < 0).any() or (x > 1).any():
                row = int(np.flatnonzero(((x < 0) | (x > 1)).any(axis=1))[0])
                message = f"{spec}: row {row}: expected values in [0, 1], found {x[row].min():g} to {x[row].max():g}"
                raise BenchError(message)
        return DataSet(name, *sets), (size[0], size[1]) if len(size) == _AXES else None

    def _records(self) -> tuple[Records, Records]:
        if not self.table:
            return load_records(self.train, what="--train"), load_records(self.test, what="--test")
        if self.label_column is None:
            message = f"{self.train}: csv files need --label-column NAME"
            raise BenchError(message)
        with TemporaryDirectory() as folder:
            encoding = Path(folder) / "encoding.json"
            encoding.write_bytes(emit_encoding(fit_encoding(Path(self.train), self.label_column)))
            found = [
                load_records(spec, what=f"--{what}", label_column=self.label_column, encoding=encoding)
                for what, spec in (("train", self.train), ("test", self.test))
            ]
        return found[0], found[1]
