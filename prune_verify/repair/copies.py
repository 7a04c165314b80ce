"""Copies of image records that a person would take for the same record: shifted by whole pixels.

Source: MATHS 4.1 (semantic forgetting).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prune_verify.repair.errors import RepairInputError

__all__ = ["image_size", "shifted_copies"]

Floats = npt.NDArray[np.float32]


def image_size(text: str | None, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the images: from ``HxW``, or from the network's input.

    Args:
        text: as on the command line, or None.
        input_shape: per-row shape of the network's input.

    Raises:
        RepairInputError: not of that form, or not the number of pixels of the input (times its channels).

    """
    size = int(np.prod(input_shape, dtype=np.int64))
    if text is not None:
        parts = text.lower().split("x")
        if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):  # noqa: PLR2004 - height and width
            message = f"--image {text}: expected HEIGHTxWIDTH in pixels, such as 28x28"
            raise RepairInputError(message)
        height, width = (int(part) for part in parts)
    elif len(input_shape) == 3:  # noqa: PLR2004 - channels, height, width
        height, width = input_shape[1:]
    else:
        message = "--shifts: the input is a row of numbers; --image HEIGHTxWIDTH says what picture it is"
        raise RepairInputError(message)
    if size % (height * width):
        message = (
            f"--image {height}x{width}: the network reads {size} numbers, which is no multiple of {height * width}"
        )
        raise RepairInputError(message)
    return height, width


def shifted_copies(x: Floats, height: int, width: int, pixels: int, fill: float = 0.0) -> Floats:
    """Every record shifted by up to ``pixels`` in both directions, what moves in being ``fill``.

    Args:
        x: float32 [rows, *row]; a row is channels times height times width numbers in that order.
        height: of the picture.
        width: of the picture.
        pixels: most shift in each direction.
        fill: what the border shows.

    Returns:
        float32 [rows, copies, *row]: the record itself first, then its shifts; (2 pixels + 1)^2 copies.

    """
    pictures = x.reshape(len(x), -1, height, width)
    room = [(0, 0), (0, 0), (pixels, pixels), (pixels, pixels)]
    padded = np.pad(pictures, room, constant_values=np.float32(fill))
    steps = sorted(
        ((down, right) for down in range(-pixels, pixels + 1) for right in range(-pixels, pixels + 1)),
        key=lambda step: (abs(step[0]) + abs(step[1]), step),
    )
    copies = [
        padded[:, :, pixels - down : pixels - down + height, pixels - right : pixels - right + width]
        for down, right in steps
    ]
    return np.ascontiguousarray(np.stack(copies, axis=1)).reshape(len(x), len(copies), *x.shape[1:])
