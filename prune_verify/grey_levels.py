"""Records as grey pictures: their shape, their levels, and a PNG of these, written with zlib alone.

Source: PNG (ISO/IEC 15948) chunks and filter type 0.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["grey_levels", "picture_shape", "png", "png_address"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_SIDES = (4, 128)
_FLAT_IMAGES = {64: (8, 8), 784: (28, 28)}
_SHOWN_SIDE = 224  # pixels of the PNG: enlarged here, so that no viewer smooths the grey levels
_PLANES = 3


def picture_shape(shape: Sequence[int]) -> tuple[int, int] | None:
    """Height and width of rows that are one grey picture, or None for rows that are not.

    Args:
        shape: per-row shape: [h, w], [1, h, w], or the flat sizes of the digits (64) and of MNIST (784).

    """
    plain = tuple(int(n) for n in shape)
    if len(plain) == 1:
        return _FLAT_IMAGES.get(plain[0])
    if len(plain) == _PLANES and plain[0] == 1:
        plain = plain[1:]
    least, most = _SIDES
    return (plain[0], plain[1]) if len(plain) == 2 and all(least <= n <= most for n in plain) else None  # noqa: PLR2004 - two axes


def grey_levels(x: Floats, shape: tuple[int, int], low: float, high: float) -> Bytes:
    """Grey levels 0..255 of a record; values outside [low, high] are cut, values that are no numbers are black.

    Args:
        x: float32 [n], the record.
        shape: height and width.
        low: what becomes black.
        high: what becomes white.

    """
    span = high - low if high > low else 1.0
    scaled = (np.nan_to_num(x.astype(np.float64).reshape(shape), nan=low) - low) / span
    return np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)


def png(levels: Bytes) -> bytes:
    """An 8-bit greyscale PNG of ``levels`` [height, width]."""
    height, width = levels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = b"".join(b"\0" + levels[row].tobytes() for row in range(height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


def png_address(x: Floats, shape: tuple[int, int], span: tuple[float, float]) -> str:
    """A ``data:`` address of a record's picture, enlarged.

    Args:
        x: h * w numbers in any shape.
        shape: (h, w).
        span: values shown as black and as white.

    """
    factor = max(1, _SHOWN_SIDE // max(shape))
    large = np.kron(grey_levels(x, shape, *span), np.ones((factor, factor), dtype=np.uint8))
    return "data:image/png;base64," + base64.b64encode(png(large)).decode("ascii")
