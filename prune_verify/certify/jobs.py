"""Independent jobs, settled here or by others, answered in their order, and kept by content so that a run resumes.

However many jobs there are, only a few per worker are held at a time: taken from the caller, not yet given back. A
worker that dies costs at most the job that kills it, again and again; that job's result is empty and not final.

What is kept in the cache, or comes back from a worker or a cluster, is a hint like any other: whoever can write to
that folder can put anything there, and the checker judges the proofs once more before a certificate is written.

Source: SHA-256 is FIPS 180-4; what a result depends on is listed by ``Chunk.key``.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_verify import __version__
from prune_verify.certify.errors import CertifyInputError
from prune_verify.files import replace_file

__all__ = ["Job", "Result", "content_key", "run_jobs"]

_FORMAT = b"prune-verify job 1"  # another number wherever what is kept changes its meaning
_AHEAD = 4  # jobs held per worker: one is settled, one waits at the worker, the others let a slow one finish


@dataclass(frozen=True, eq=False)
class Job:
    """One piece of work that depends on no other.

    Args:
        key: SHA-256 in hex of everything that the result depends on, see :func:`content_key`.
        payload: handed to the function; pickled where workers are others than this process.

    """

    key: str
    payload: object


@dataclass(frozen=True)
class Result:
    """What the function found for one job.

    Args:
        data: the finding; empty for a job that was lost with its worker.
        final: False for an outcome of limits of time or memory, which another run may better; never kept.

    """

    data: bytes
    final: bool


_LOST = Result(b"", final=False)


def content_key(*parts: bytes) -> str:
    """Digest of the parts and where each ends, of this package's version, and of the format of what is kept.

    Args:
        parts: everything that a result depends on.

    """
    hasher = hashlib.sha256()
    for part in (_FORMAT, __version__.encode(), *parts):
        hasher.update(struct.pack("<Q", len(part)) + part)
    return hasher.hexdigest()


def _silent(_done: int, _total: int) -> None:
    """Show nothing."""


def run_jobs(
    jobs: Iterable[Job],
    function: Callable[[Any], Result],
    *,
    workers: int = 1,
    cluster: str | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] = _silent,
    total: int | None = None,
) -> Generator[Result, None, None]:
    """Results of all jobs, in their order, as they come to be known.

    Closing the generator ends the workers of this machine at once; what a cluster is in the middle of, it finishes for
    nobody. The workers of a run that came to its end wait for the next one, and end with this process.

    Args:
        jobs: taken lazily, from the caller's thread, a few per worker ahead of what was given back.
        function: of the payload; a module's, where workers are others than this process.
        workers: processes on this machine; 1: this one. No matter with a cluster.
        cluster: address of a Dask scheduler, as in ``tcp://host:8786``. Its workers run this package's code; they
            and the scheduler must be the owner's own, because what they send is unpickled here.
        cache: folder of final results by key, made where it is missing; a file whose digest is wrong is made anew.
        progress: called with the number of results and of jobs (those known so far, without ``total``).
        total: how many jobs there are.

    Raises:
        CertifyInputError: no worker at all, or the cache cannot be written.
        WorkersUnavailableError: a package is missing, or no scheduler or no worker of a cluster answers.
        Exception: whatever the function or the iterable raises.

    """
    if workers < 1:
        raise CertifyInputError(f"workers: expected 1 or more, got {workers}")
    results = _results(iter(jobs), function, workers, cluster, _Kept(cache))
    with closing(results):
        for done, (taken, result) in enumerate(results, 1):
            progress(done, taken if total is None else total)
            yield result


def _results(
    jobs: Iterator[Job], function: Callable[[Any], Result], workers: int, cluster: str | None, kept: _Kept
) -> Generator[tuple[int, Result], None, None]:
    """Each result, with the number of jobs that were taken so far."""
    if cluster is None and workers == 1:
        for taken, job in enumerate(jobs, 1):
            result = kept.read(job.key)
            if result is None:
                result = function(job.payload)
                kept.write(job.key, result)
            yield taken, result
        return
    from prune_verify.certify.job_pools import Cluster, Local

    with Local(workers) if cluster is None else Cluster(cluster) as pool:
        window = _Window(jobs, kept, _AHEAD * pool.workers)
        deaths = Counter[int]()
        yield from window.due()
        while window.open:
            with closing(pool.run(function, window.tasks())) as found:
                for place, result in found:
                    window.settle(place, result)
                    yield from window.due()
            if window.error is not None:
                raise window.error
            for place in window.unanswered():
                deaths[place] += 1
                if deaths[place] <= pool.together:
                    window.ready.append(place)
                else:  # it was near too often: alone, nobody else can be the one that kills the worker
                    alone = dict(pool.run(function, iter([window.task(place)])))
                    window.settle(place, alone.get(place, _LOST))
            yield from window.due()


# --- jobs on their way ---


@dataclass(eq=False)
class _Window:
    """Jobs that were taken and whose results were not given back yet, no more than ``most``; in the caller's thread.

    Only :meth:`tasks` runs in threads of the pool; what it shares are the ends of a deque.

    Args:
        jobs: still to be taken.
        kept: results of earlier runs.
        most: jobs held at a time.
        taken: number of jobs so far.
        given: number of results given back.
        open: jobs without a result, by place.
        ready: places of those that no worker has been given.
        found: results whose turn has not come, by place.
        error: what went wrong while a payload was pickled.

    """

    jobs: Iterator[Job]
    kept: _Kept
    most: int
    taken: int = 0
    given: int = 0
    open: dict[int, Job] = field(default_factory=dict)
    ready: deque[int] = field(default_factory=deque)
    found: dict[int, Result] = field(default_factory=dict)
    error: Exception | None = None

    def due(self) -> Iterator[tuple[int, Result]]:
        """Results whose turn it is; jobs are taken for the room that they leave."""
        self._fill()
        while self.given in self.found:
            result = self.found.pop(self.given)
            self.given += 1
            self._fill()
            yield self.taken, result

    def _fill(self) -> None:
        while self.taken - self.given < self.most:
            job = next(self.jobs, None)
            if job is None:
                return
            result = self.kept.read(job.key)
            if result is None:
                self.open[self.taken] = job
                self.ready.append(self.taken)
            else:
                self.found[self.taken] = result
            self.taken += 1

    def settle(self, place: int, result: Result) -> None:
        """Note a result, and keep it if it is final."""
        self.kept.write(self.open.pop(place).key, result)
        self.found[place] = result

    def unanswered(self) -> list[int]:
        """Places that were handed out and have no result."""
        return sorted(set(self.open) - set(self.ready))

    def task(self, place: int) -> tuple[int, bytes]:
        """A job for a worker: bytes, so that neither joblib nor Dask puts arrays where a worker's death loses them."""
        return place, pickle.dumps(self.open[place].payload, protocol=pickle.HIGHEST_PROTOCOL)

    def tasks(self) -> Iterator[tuple[int, bytes]]:
        """Jobs for workers, until none is ready; an error ends them, because in a pool's thread it would be lost."""
        while self.ready:
            try:
                task = self.task(self.ready.popleft())
            except Exception as error:  # noqa: BLE001 - it is raised in the caller's thread
                self.error = error
                return
            yield task


# --- results of earlier runs ---


@dataclass(frozen=True)
class _Kept:
    """Final results in files ``KEY[:2]/KEY``: a line with the SHA-256 of the data in hex, then the data."""

    folder: Path | None

    def _path(self, folder: Path, key: str) -> Path:
        return folder / key[:2] / key

    def read(self, key: str) -> Result | None:
        """The result of an earlier run; None where there is none, or its file is not as it was written."""
        if self.folder is None:
            return None
        try:
            content = self._path(self.folder, key).read_bytes()
        except OSError:
            return None
        line, _, data = content.partition(b"\n")
        return Result(data, final=True) if line == hashlib.sha256(data).hexdigest().encode() else None

    def write(self, key: str, result: Result) -> None:
        """Keep a result if it is final; the file appears whole or not at all."""
        if self.folder is None or not result.final:
            return
        path = self._path(self.folder, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, hashlib.sha256(result.data).hexdigest().encode() + b"\n" + result.data)
        except OSError as error:
            raise CertifyInputError(f"{self.folder}: the cache cannot be written: {error.strerror or error}") from error
