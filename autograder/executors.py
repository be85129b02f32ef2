"""Where submissions are graded: processes of this machine, or workers of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from autograder.assignment import Assignment
from autograder.worker_process import ClusterError, WorkerProcesses, reference


def open_executor(
    assignment: Assignment, *, scheduler: str = "", workers: int | None = None
) -> Executor:
    """Return where an assignment's submissions are graded, to be used in a `with` statement.

    Parameters
    ----------
    assignment
        The assignment whose checks a cluster needs.
    scheduler
        The address of a Dask scheduler, as `tcp://host:port`; none for this machine.
    workers
        How many processes of this machine work; one a core if it is None.

    Raises
    ------
    ClusterError
        If the cluster cannot be used; the message says why.
    """
    if not scheduler:
        return LocalPool(workers)
    try:
        from autograder.cluster import Cluster
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"a cluster needs the package {error.name}, which is not installed: "
            "install this project with its extra `cluster`"
        ) from error
    return Cluster(scheduler, assignment)


class LocalPool(Executor):
    """Worker processes of this machine, one a core, which is its own, unless told otherwise.

    Functions take bytes and return bytes. A process that ends fails its own request alone, with
    `WorkerEndedError`, and another takes its place. Leaving a `with` statement by an exception
    stops what is being worked on.
    """

    def __init__(self, workers: int | None = None) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.size = workers or len(cores)
        # a worker that has cores to spare does better with two: some of its work is side by side
        self.processes = WorkerProcesses(cores if self.size >= len(cores) else ())
        self.threads = ThreadPoolExecutor(self.size, thread_name_prefix="worker")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn`, a function of a module, called with one argument of bytes."""
        return self.threads.submit(self._run, reference(fn), *args, **kwargs)

    def _run(self, function: str, request: bytes) -> bytes:
        return self.processes.run(function, request).reply()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was submitted, then end the processes; without `wait`, end them now."""
        if not wait:
            self.processes.close()
        self.threads.shutdown(wait=True, cancel_futures=cancel_futures or not wait)
        self.processes.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self.shutdown(wait=kind is None)
        return None
