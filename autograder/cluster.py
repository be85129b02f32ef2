"""Grading on the workers of a Dask cluster.

The client sends bytes: a submission, and the archive of the assignment's checks. A worker hands
them to processes of its own, one for each of its threads, and sends bytes back. Client, scheduler
and workers trust one another completely, as Dask requires; what a student sends passes them as data
alone.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import dask
from distributed import Client, get_worker
from distributed.comm.addressing import parse_host_port
from distributed.scheduler import KilledWorker
from distributed.security import Security

from autograder.assignment import Assignment
from autograder.course_archive import pack, unpack
from autograder.environment import differences, environment
from autograder.worker_process import (
    ClusterError,
    Outcome,
    WorkerEndedError,
    WorkerProcesses,
    reference,
)

SCHEMES = ("tcp", "tls")
CONNECT_SECONDS = 10.0
# how long a cluster may be without a worker before grading stops
PATIENCE_SECONDS = 60.0
WATCH_SECONDS = 1.0
RESUME = (
    "what is graded is recorded, and the same command goes on from there, unless it has --force"
)


class Cluster(Executor):
    """The workers of a Dask cluster as an executor of functions from bytes to bytes.

    Parameters
    ----------
    address
        The scheduler's address, `tcp://host:port` or `tls://host:port`.
    assignment
        The assignment whose checks go with every request.
    patience
        For how many seconds the cluster may be without a worker.

    Raises
    ------
    ClusterError
        If no scheduler answers, no worker is there, or versions differ.
    """

    def __init__(
        self, address: str, assignment: Assignment, *, patience: float = PATIENCE_SECONDS
    ) -> None:
        self.address = checked_address(address)
        self.patience = patience
        self.archive = pack(assignment)
        self.pending: dict[Future[bytes], Future[Outcome]] = {}
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.client = self._connect()
        try:
            self._wait_for_workers()
            self._check_versions()
            self.size = sum(self.client.nthreads().values())
        except BaseException:
            self._close_client()
            raise
        self.executor = self.client.get_executor(pure=False)
        threading.Thread(target=self._watch, daemon=True, name="cluster-watch").start()

    def _connect(self) -> Client:
        # a submission is part of its task, so a task with files of its own is a large one
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"})
        check_encryption(self.address)
        try:
            return Client(self.address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(
                f"no Dask scheduler answers at {self.address}: expected one, started with "
                f"`dask scheduler`, that can be reached from here ({_first_line(error)})"
            ) from error

    def _wait_for_workers(self) -> None:
        try:
            self.client.wait_for_workers(1, timeout=self.patience)
        except TimeoutError as error:
            raise ClusterError(self._no_workers()) from error

    def _no_workers(self) -> str:
        return (
            f"the scheduler at {self.address} has had no worker for {self.patience:g} seconds: "
            f"expected one or more, started with `dask worker {self.address}`; {RESUME}"
        )

    def _check_versions(self) -> None:
        """Compare the environments of scheduler and workers with ours."""
        ours = dask_versions()
        found = self.client.run_on_scheduler(version, "distributed")
        if found != ours["distributed"]:
            raise ClusterError(
                f"the scheduler at {self.address} has distributed {found}, "
                f"expected {ours['distributed']}, as it is here"
            )
        for worker, theirs in self.client.run(worker_environment, on_error="return").items():
            if isinstance(theirs, BaseException):
                raise ClusterError(
                    f"the worker {worker} cannot grade: {type(theirs).__name__}: {theirs}; "
                    "expected the project with its extras autograder and cluster there"
                )
            if wrong := differences(worker_environment(), theirs):
                raise ClusterError(wrong_environment(worker, wrong))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn`, a function of a module, called on a worker with one argument of bytes."""
        (request,) = args
        outer: Future[bytes] = Future()
        try:
            inner = self.executor.submit(
                run_request, reference(fn), request, self.archive, worker_environment()
            )
        except Exception as error:
            raise ClusterError(self._lost()) from error
        with self.lock:
            self.pending[outer] = inner
        outer.add_done_callback(self._forget)
        inner.add_done_callback(functools.partial(self._pass_on, outer))
        return outer

    def _forget(self, outer: Future[bytes]) -> None:
        with self.lock:
            inner = self.pending.pop(outer, None)
        # a task that was given up must not be waited for
        if inner is not None:
            inner.cancel()

    def _pass_on(self, outer: Future[bytes], inner: Future[Outcome]) -> None:
        """Settle a future of ours as Dask settled its own, in our own words."""
        try:
            reply = inner.result().reply()
        except CancelledError:
            _settle(outer, ClusterError(self._lost()))
        except KilledWorker as error:
            times = error.allowed_failures + 1
            words = f"the {times} workers that it was given to ended while they graded it"
            _settle(outer, WorkerEndedError(words))
        except Exception as error:
            _settle(outer, error)
        else:
            _settle(outer, reply)

    def _lost(self) -> str:
        return f"the connection to the scheduler at {self.address} was lost: {RESUME}"

    def _watch(self) -> None:
        """Give up what is pending when the cluster has had no worker for too long."""
        last_seen = time.monotonic()
        while not self.closing.wait(WATCH_SECONDS):
            with contextlib.suppress(Exception):
                if self.client.nthreads():
                    last_seen = time.monotonic()
            if time.monotonic() - last_seen > self.patience:
                self._give_up(ClusterError(self._no_workers()))

    def _give_up(self, error: ClusterError) -> None:
        with self.lock:
            pending = list(self.pending)
        for outer in pending:
            _settle(outer, error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, after what was submitted is done if `wait`."""
        self.closing.set()
        with contextlib.suppress(Exception):
            self.executor.shutdown(wait=wait and not cancel_futures)
        self._close_client()

    def _close_client(self) -> None:
        with contextlib.suppress(Exception):
            self.client.close(timeout=CONNECT_SECONDS)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self.shutdown(wait=kind is None)
        return None


def _settle(future: Future[bytes], result: bytes | Exception) -> None:
    """Give a future its result unless it has one or was cancelled."""
    with contextlib.suppress(Exception):
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def checked_address(address: str) -> str:
    """Return a scheduler's address; raise `ClusterError` if it is none.

    Examples
    --------
    >>> checked_address("tcp://10.0.0.1:8786")
    'tcp://10.0.0.1:8786'
    """
    scheme, separator, place = address.partition("://")
    port = None
    if separator and scheme in SCHEMES:
        with contextlib.suppress(ValueError):
            host, port = parse_host_port(place)
            port = port if host else None
    if port is None:
        raise ClusterError(
            f"{address!r} is not the address of a scheduler: expected tcp://HOST:PORT, "
            "or tls://HOST:PORT for an encrypted connection"
        )
    return address


def check_encryption(address: str) -> None:
    """Raise `ClusterError` unless Dask's settings here fit an address, encrypted or not."""
    try:
        settings = Security().get_connection_args("client")
    except OSError as error:
        raise ClusterError(f"Dask's certificates cannot be read: {_first_line(error)}") from error
    encrypted = address.startswith("tls://")
    if encrypted and settings["ssl_context"] is None:
        raise ClusterError(
            f"the connection to {address} is to be encrypted, and Dask's configuration here names "
            "no certificates: expected distributed.comm.tls to name ca-file, and cert and key of "
            "the client"
        )
    if settings["require_encryption"] and not encrypted:
        raise ClusterError(
            f"Dask's configuration here requires encryption, and {address} is not encrypted: "
            "expected tls://HOST:PORT"
        )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def dask_versions() -> dict[str, str]:
    """Return the versions of the packages that carry requests to workers."""
    return {name: version(name) for name in ("dask", "distributed")}


# what follows runs on the workers too


@functools.cache
def worker_environment() -> dict[str, str]:
    """Return what grading depends on in this process, Dask included."""
    return environment() | dask_versions()


def wrong_environment(worker: str, wrong: list[str]) -> str:
    """Return a sentence about a worker whose environment differs."""
    return (
        f"the worker {worker} differs from this machine: {'; '.join(wrong)}. "
        "Install the same requirements.lock and the same source on both"
    )


@functools.cache
def _processes() -> WorkerProcesses:
    """Return this worker's processes, which do the work of its threads and end with it."""
    return WorkerProcesses()


def run_request(function: str, request: bytes, archive: bytes, expected: dict[str, str]) -> Outcome:
    """Call a function in a process of this worker, with the course that came along."""
    worker = get_worker()
    if wrong := differences(expected, worker_environment()):
        return Outcome.of_words("unfit", wrong_environment(worker.address, wrong))
    # Dask removes this folder, even of a worker that was killed
    root = unpack(archive, Path(worker.local_directory))
    return _processes().run(function, request, root)
