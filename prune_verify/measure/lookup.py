"""The baseline that a patch has to beat: store the record, and answer otherwise where an input is close to it.

It forgets on a ball without any training. But it stores every forgotten record as it is, in the deployed program, and
an auditor cannot ask a network verifier about it.

Source: MATHS 6, last sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Lookup"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
_NONE = -1


@dataclass(frozen=True, eq=False)
class Lookup:
    """Stored records in front of a model.

    Args:
        answers: of the model, from rows to labels; -1 is no answer.
        x: float32 [records, *input_shape]: stored.
        y: int64 [records]: labels that are not to be answered near them.
        radius: l-infinity distance within which an input counts as the record.

    """

    answers: Callable[[Floats], Labels]
    x: Floats
    y: Labels
    radius: float

    @property
    def stored_bytes(self) -> int:
        """Of records and labels."""
        return self.x.nbytes + self.y.nbytes

    @property
    def stored_bits_per_record(self) -> int:
        """What the deployed program tells of each record: all of it."""
        return 8 * self.stored_bytes // len(self.y)

    def __call__(self, rows: Floats) -> Labels:
        """Labels of rows: the model's, or -1 where that is the stored label of a record within the radius."""
        found = self.answers(rows).copy()
        stored = self.x.reshape(len(self.x), -1)
        for place, row in enumerate(rows.reshape(len(rows), -1)):
            near = np.abs(stored - row).max(axis=1) <= self.radius
            if (near & (self.y == found[place])).any():
                found[place] = _NONE
        return found
