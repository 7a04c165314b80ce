"""Workers for jobs, through joblib: processes of this machine (loky), or those of a Dask cluster.

Both are used alike: one call of ``joblib.Parallel`` takes tasks until there are none at hand, and gives results back as
they come. A task whose worker died has no result; the caller decides what becomes of it.

Source: joblib, "Embarrassingly parallel for loops" (return_as, pre_dispatch) and "parallel_config".
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol, Self

from prune_verify.certify.errors import WorkersUnavailableError
from prune_verify.certify.jobs import Result

__all__ = ["Cluster", "Local", "Pool"]

_SECONDS = 10  # for a scheduler to answer
_INSTALL_LOCAL = "pip install 'prune-verify[prover]'"
_INSTALL_CLUSTER = "pip install 'prune-verify[prover,cluster]'"

Tasks = Iterator[tuple[int, bytes]]
Found = Generator[tuple[int, Result], None, None]


class Pool(Protocol):
    """Workers.

    Args:
        workers: how many there are.
        together: how often a task without a result is given among others again, before it is given alone.

    """

    workers: int
    together: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, function: Callable[[Any], Result], tasks: Tasks) -> Found:
        """Give tasks to workers, and results as they come; the places of those whose worker died do not come."""
        ...


def _work(function: Callable[[Any], Result], place: int, data: bytes) -> tuple[int, Result]:
    """Settle one task; the worker's side."""
    return place, function(pickle.loads(data))  # noqa: S301 - written by the process that this one works for


def _joblib(install: str) -> Any:  # noqa: ANN401 - joblib has no annotations
    try:
        import joblib
    except ImportError as error:
        raise WorkersUnavailableError(f"workers need joblib: {install}") from error
    return joblib


def _results(parallel: Any, function: Callable[[Any], Result], tasks: Tasks) -> Found:  # noqa: ANN401 - as above
    """What one call of ``joblib.Parallel`` gives; closed, it stops its workers."""
    from joblib import delayed

    outputs = parallel(delayed(_work)(function, place, data) for place, data in tasks)
    try:
        for found in outputs:
            if found is not None:
                yield found
    finally:
        with warnings.catch_warnings():
            # Whoever closes a run knows that tasks are given up.
            warnings.filterwarnings("ignore", r"[\s\S]*tasks (have been successfully|which were still)", UserWarning)
            outputs.close()


class Local:
    """Processes of this machine, each with one thread for arithmetic.

    Args:
        workers: how many.

    Raises:
        WorkersUnavailableError: joblib is missing.

    """

    together = 1

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._joblib = _joblib(_INSTALL_LOCAL)

    def __enter__(self) -> Self:
        """Give the pool itself; processes start with the first task."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the processes to the next run: they import torch only once."""

    def run(self, function: Callable[[Any], Result], tasks: Tasks) -> Found:
        """Give tasks of a function to processes; when one dies, all of them end, and with them the run."""
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        # Two at least, also for a single task: joblib runs it in this process otherwise.
        with self._joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            parallel = self._joblib.Parallel(
                n_jobs=max(2, self.workers), batch_size=1, pre_dispatch="2*n_jobs", return_as="generator_unordered"
            )
        try:
            yield from _results(parallel, function, tasks)
        except TerminatedWorkerError:
            return


class Cluster:
    """The workers of a Dask cluster, which tries tasks of workers that died elsewhere (``allowed-failures``).

    Args:
        address: of the scheduler.

    Raises:
        WorkersUnavailableError: a package is missing, or no scheduler answers.

    """

    together = 0  # Dask has tried it several times, but blames all tasks that a worker had, not the one it was at

    def __init__(self, address: str) -> None:
        self._joblib = _joblib(_INSTALL_CLUSTER)
        try:
            import distributed
        except ImportError as error:
            raise WorkersUnavailableError(f"a cluster needs the package distributed: {_INSTALL_CLUSTER}") from error
        self._address = address
        connect: Any = distributed.Client  # has annotations here and there
        try:
            self._client = connect(address, timeout=_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise WorkersUnavailableError(f"{address}: no Dask scheduler answers within {_SECONDS} s") from error
        self.workers = max(2, sum(self._client.ncores().values()))

    def __enter__(self) -> Self:
        """Give the pool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster; what it still has of ours is forgotten there."""
        self._client.close()

    def run(self, function: Callable[[Any], Result], tasks: Tasks) -> Found:
        """Give tasks of a function to the cluster; those that Dask gives up, having killed workers, do not come back.

        Raises:
            WorkersUnavailableError: the cluster cannot be reached, or is gone.

        """
        from prune_verify.certify.dask_backend import Backend, NoWorkersError

        with self._joblib.parallel_config(backend=Backend(client=self._client)):
            parallel = self._joblib.Parallel(
                n_jobs=-1, batch_size=1, pre_dispatch="2*n_jobs", return_as="generator_unordered"
            )
        try:
            yield from _results(parallel, function, tasks)
        except NoWorkersError as error:
            raise WorkersUnavailableError(f"{self._address}: {error}") from error
