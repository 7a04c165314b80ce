"""What was dear to make, kept by content: a killed run goes on where it was, and a changed input is made anew.

A file's name is the digest of everything that its content depends on; its first 32 bytes are the digest of the rest,
so that a damaged file is made anew as well.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.files import replace_file
from prune_verify.measure.unlearning_context import Outcome

__all__ = ["Store", "key_of", "outcome_bytes", "outcome_of", "source_digest"]

_DIGEST = 32
_NO_BITS = -1


def key_of(*parts: str | bytes | npt.NDArray[np.generic]) -> str:
    """A name for content that depends on these parts, each with its kind, its shape and its length."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            head, body = f"{part.dtype.str}{part.shape}", np.ascontiguousarray(part).tobytes()
        else:
            head, body = type(part).__name__, part if isinstance(part, bytes) else part.encode()
        for piece in (head.encode(), body):
            found.update(len(piece).to_bytes(8, "big") + piece)
    return found.hexdigest()


@cache
def source_digest(*rooms: str) -> str:
    """Digest of this project's files of some rooms and modules, as ``repair`` or ``measure/sisa.py``."""
    root, found = Path(__file__).parent.parent, hashlib.sha256()
    for room in rooms:
        files = sorted((root / room).rglob("*.py")) if not room.endswith(".py") else [root / room]
        for path in files:
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


class Store:
    """A folder of contents by key."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> bytes | None:
        """The content under a key, or None where it is not there or not whole."""
        try:
            found = (self.folder / key).read_bytes()
        except FileNotFoundError:
            return None
        own, content = found[:_DIGEST], found[_DIGEST:]
        return content if hashlib.sha256(content).digest() == own else None

    def put(self, key: str, content: bytes) -> None:
        """Keep a content under a key; a reader finds the whole of it or none."""
        replace_file(self.folder / key, hashlib.sha256(content).digest() + content)

    def made(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The content under a key; ``make`` makes it where it is missing."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Places of the keys whose contents are not there."""
        return [place for place, key in enumerate(keys) if self.get(key) is None]


def outcome_bytes(outcome: Outcome, peak: float | None) -> bytes:
    """An outcome with the MB of memory that it took at its peak, as npz."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        onnx=np.frombuffer(outcome.onnx, dtype=np.uint8),
        seconds=np.float64(outcome.seconds),
        records=np.int64(outcome.records),
        bits=np.int64(_NO_BITS if outcome.patch_bits is None else outcome.patch_bits),
        note=np.array(outcome.note),
        peak=np.float64(np.nan if peak is None else peak),
    )
    return buffer.getvalue()


def outcome_of(content: bytes) -> tuple[Outcome, float | None]:
    """The outcome back from its content."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        bits, peak = int(found["bits"]), float(found["peak"])
        outcome = Outcome(
            found["onnx"].tobytes(),
            float(found["seconds"]),
            int(found["records"]),
            str(found["note"]),
            None if bits == _NO_BITS else bits,
        )
    return outcome, None if np.isnan(peak) else peak
