"""joblib's backend for Dask, where it would wait for ever or work in the wrong process.

Source: joblib 1.5 and 1.6, ``joblib/_dask.py``; distributed, "Worker resilience" (``KilledWorker``).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from distributed import KilledWorker
from joblib._dask import DaskDistributedBackend

__all__ = ["Backend", "NoWorkersError"]


class NoWorkersError(Exception):
    """The cluster has no worker, or the connection to its scheduler was lost."""


class Backend(DaskDistributedBackend):  # type: ignore[misc, unused-ignore]  # joblib has no annotations
    """joblib's own, but every task that is given up is heard of.

    joblib waits without end for a task that Dask ends by itself: one that killed several workers, or whose scheduler
    went away. Here the first kind has no result, and the second is an error.
    """

    def submit(self, func: object, callback: Callable[[object], None]) -> Future[object]:
        """Give a task to the cluster; ``callback`` is called also when it comes to nothing.

        Args:
            func: without arguments.
            callback: called with the task.

        Returns:
            The task to come.

        """

        def failed(future: Future[object]) -> None:
            error = future.exception()
            if error is not None:
                callback(error)

        submitted: Future[object] = super().submit(func, callback)
        submitted.add_done_callback(failed)
        return submitted

    def retrieve_result_callback(self, out: Any) -> list[object]:  # noqa: ANN401 - joblib has no annotations
        """The results ``out`` of a batch (of one task), None for one that killed its workers.

        Raises:
            NoWorkersError: the cluster is gone.

        """
        if isinstance(out, KilledWorker):
            return [None]
        if isinstance(out, BaseException):
            if type(out).__name__ == "CancelledError":
                raise NoWorkersError("the connection to the scheduler was lost") from out
            raise out
        found: list[object] = super().retrieve_result_callback(out)
        return found

    def effective_n_jobs(self, n_jobs: int) -> int:
        """The number of workers, 2 at least: told of one (``n_jobs``), joblib runs tasks in the process that asks.

        Raises:
            NoWorkersError: there is none.

        """
        try:
            workers: int = super().effective_n_jobs(n_jobs)
        except TimeoutError as error:
            raise NoWorkersError("the cluster has no workers") from error
        return max(2, workers)
