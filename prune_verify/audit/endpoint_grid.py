"""The values that records have, coordinate by coordinate: challenges between them would give themselves away.

Pixels are multiples of 1/255 and encoded categories are 0 or 1; a server that answers rightly to whatever lies between
such values, and otherwise to users, would pass an audit whose challenges are drawn from continuous intervals.

Source: certs/SPEC.md section 10.2; THREATS T10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Grid"]

Rows = npt.NDArray[np.float32]
_MOST_RECORDS = 4096
_MOST_NUMBERS = 2**25  # of the records that are looked at, together
_AT_ONCE = 4096  # coordinates, so that large pictures need no more room than the grid itself
_MOST_VALUES = 512


class Grid:
    """What values each coordinate takes among records.

    Args:
        rows: flattened records, float32 [count, n] each; evenly chosen ones count where there are many.

    """

    def __init__(self, rows: Sequence[Rows]) -> None:
        most = min(_MOST_RECORDS, max(1, _MOST_NUMBERS // max((part.shape[1] for part in rows), default=1)))
        chosen = [part[:: -(-len(part) // most)] for part in rows if len(part)]
        columns = [np.unique(column) for column in np.concatenate(chosen).T] if chosen else []
        listed = [values if len(values) <= _MOST_VALUES else values[:0] for values in columns]
        width = max((len(values) for values in listed), default=0)
        self._values = np.full((len(listed), width), np.nan, dtype=np.float32)
        for place, values in enumerate(listed):
            self._values[place, : len(values)] = values
        self._continuous = np.array([not len(values) for values in listed], dtype=np.bool_)

    @property
    def there(self) -> bool:
        """Whether some coordinate takes few values."""
        return bool(self._values.size)

    def snapped(self, x: Rows, box: tuple[Rows, Rows], otherwise: Rows) -> Rows:
        """The point moved to values that records have, inside a box.

        Args:
            x: a point of the box, float32 [*shape].
            box: its ends.
            otherwise: what a coordinate becomes where no such value lies in the box.

        Returns:
            A point of the box; coordinates of many values stay as they are.

        """
        flat, low, high = (value.reshape(-1, 1) for value in (x, *box))
        result = np.where(self._continuous, flat[:, 0], otherwise.reshape(-1)).astype(np.float32)
        for start in range(0, len(result), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            values = self._values[part]
            inside = (values >= low[part]) & (values <= high[part])
            far = np.where(inside, np.abs(values - flat[part]), np.float32(np.inf))
            near = np.take_along_axis(values, far.argmin(axis=1)[:, np.newaxis], axis=1)[:, 0]
            result[part] = np.where(inside.any(axis=1), near, result[part])
        return result.reshape(x.shape)
