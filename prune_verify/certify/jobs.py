"""Independent jobs, one after the other.

Source: issue of scale; the interface is what other modules program against.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Job", "Result", "content_key", "run_jobs"]


@dataclass(frozen=True, eq=False)
class Job:
    key: str
    payload: object


@dataclass(frozen=True)
class Result:
    data: bytes
    final: bool


def content_key(*parts: bytes) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(struct.pack("<Q", len(part)) + part)
    return hasher.hexdigest()


def run_jobs(
    jobs: Iterable[Job],
    function: Callable[[Any], Result],
    *,
    workers: int = 1,
    cluster: str | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    total: int | None = None,
) -> Iterator[Result]:
    for job in jobs:
        yield function(job.payload)
