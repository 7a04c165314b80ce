"""What users hand over (networks, records), as the files and words that the verbs take.

What is in memory is written to ``inputs/`` in the folder of the call: ``base.onnx``, ``forget.npz`` (mode 0600).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from prune_verify.api.errors import RefusalError
from prune_verify.api.records import Rows, rows_of, written
from prune_verify.files import replace_file

if TYPE_CHECKING:
    from prune_verify.api.options import ModelLike, RecordsLike

__all__ = ["RECORDS", "Inputs"]

RECORDS = ("forget", "retain", "non_members", "test", "training", "superseded_forget", "public")
_SAMPLE = 32  # rows of each set on which a module's answers are compared with its file's


@dataclass
class Inputs:
    """The files of one call.

    Args:
        folder: where what is in memory is written; made if needed.
        notes: what was rounded on the way.

    """

    folder: Path
    notes: list[str] = field(default_factory=list)
    _rows: dict[str, Rows] = field(default_factory=dict)

    def records(self, options: Mapping[str, object]) -> dict[str, object]:
        """The options with every set as the verbs take it.

        Args:
            options: of the call.

        Raises:
            RefusalError: records that cannot be used.
            OSError: the folder cannot be written.

        """
        found = dict(options)
        for name in RECORDS:
            if found.get(name) is not None:
                found[name], rows = written(cast("RecordsLike", found[name]), name, self.folder)
                if rows is not None:
                    self.notes += rows.notes
                    self._rows[name] = rows
        return found

    def network(self, given: ModelLike, name: str, example: object = None) -> Path:
        """The path of a network; a module is exported, bytes are written.

        Args:
            given: a path, ONNX bytes, or a PyTorch module.
            name: ``base`` or ``patched``; the file's name.
            example: float32 rows [n, *input shape] for a module; by default the first records of the call.

        Raises:
            RefusalError: a module that cannot be exported, or no example.
            OSError: the folder cannot be written.

        """
        if isinstance(given, str | Path):
            return Path(given)
        data = given if isinstance(given, bytes) else self._exported(given, name, example)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.onnx"
        replace_file(path, data)
        return path

    def _exported(self, given: object, name: str, example: object) -> bytes:
        import torch

        if not isinstance(given, torch.nn.Module):
            text = f"{name}: expected a path, ONNX bytes or a torch.nn.Module, got {type(given).__name__}"
            raise RefusalError(text, "E_MODULE")
        from prune_verify.api.modules import exported

        samples = [rows.x[:_SAMPLE] for key, rows in self._rows.items() if key in ("forget", "retain")]
        if example is not None:
            x = example if isinstance(example, torch.Tensor) else np.asarray(example)
            first = rows_of((x, np.zeros(len(x), dtype=np.int64)), "example")
            self.notes += first.notes
            samples = [first.x, *(rows for rows in samples if rows.shape[1:] == first.x.shape[1:])]
        if not samples:
            text = f"{name}: give example=, rows [n, *input shape], to export a module with"
            raise RefusalError(text, "E_MODULE")
        return exported(given, np.concatenate(samples), name)
