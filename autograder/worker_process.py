"""Processes of this machine that answer one request after another, and what they answer with.

A request names a function of bytes and goes to a process of its own, started once and used again.
If that process ends, only its own request is lost. All are forked from one that has loaded what
they need (`worker_server.py`). Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Literal, NamedTuple

from autograder.confinement import ConfinementUnavailableError

Kind = Literal["done", "ended", "unconfined", "unfit", "fault"]

# how often, once a second, a request that nobody waits for any more is interrupted
INTERRUPTS = 10
# of a processor, for one request; what a student's processes take is limited by themselves
TRUSTED_SECONDS = 120
# of the clock; what is tried out ends when other libraries are loaded, which takes a few
REHEARSAL_SECONDS = 20
REHEARSE = "--rehearse"
END_SECONDS = 5
SERVER = (sys.executable, "-P", "-m", "autograder.worker_server")
# the name of a function, the course's root if the function needs it, and what it is called with
Request = tuple[bytes, bytes, bytes]


class WorkerEndedError(BrokenExecutor):
    """The process that worked on a request ended; the request can be tried again."""


class ClusterError(RuntimeError):
    """The cluster cannot be used, which stops the batch; the message says what was expected."""


class GradingFaultError(RuntimeError):
    """A request raised: the grader's own fault."""


class Outcome(NamedTuple):
    """What became of a request: the reply, or words about why there is none."""

    kind: Kind
    content: bytes

    @classmethod
    def of_words(cls, kind: Kind, words: str) -> Outcome:
        """Return an outcome without a reply."""
        return cls(kind, words.encode())

    def reply(self) -> bytes:
        """Return the reply, or raise what stands for its absence."""
        if self.kind == "done":
            return self.content
        words = self.content.decode()
        if self.kind == "ended":
            raise WorkerEndedError(words)
        if self.kind == "unconfined":
            raise ConfinementUnavailableError(words)
        if self.kind == "unfit":
            raise ClusterError(words)
        raise GradingFaultError(words)


def reference(function: Callable[..., bytes]) -> str:
    """Return the name by which another process finds a function.

    Examples
    --------
    >>> from autograder.work import grade_bytes
    >>> reference(grade_bytes)
    'autograder.work:grade_bytes'
    """
    return f"{function.__module__}:{function.__qualname__}"


def hang_up(connection: Connection) -> None:
    """End a connection for both sides, and wake a thread of ours that waits for it.

    To close it would not wake that thread.
    """
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


class WorkerServer:
    """The process that workers are forked from, each for a connection of its own."""

    def __init__(self, temporary_folder: str, *, rehearse: bool = True) -> None:
        self.rehearses = rehearse
        self.lock = threading.Lock()
        self.connection, theirs = Pipe()
        # our own source first, so that both sides run the same code from wherever it lies
        source = str(Path(__file__).parents[1])
        python_path = os.environ.get("PYTHONPATH", "")
        self.process = subprocess.Popen(
            [*SERVER, str(theirs.fileno()), temporary_folder, *([REHEARSE] if rehearse else [])],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # standard output is for results alone
            stdout=2,
            env={
                **os.environ,
                # one core for each process; also, results must not depend on the number of cores
                "OMP_NUM_THREADS": "1",
                "MKL_NUM_THREADS": "1",
                # to look for a GPU in another way would keep forked processes from using it
                "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
                "PYTHONPATH": f"{source}{os.pathsep}{python_path}" if python_path else source,
                "TMPDIR": temporary_folder,
            },
            # Ctrl-C is for the command, which tells its processes
            start_new_session=True,
        )
        theirs.close()

    def fork(self, connection: Connection, core: int | None, request: Request) -> int:
        """Have a worker forked, after what such requests need is loaded; return its number.

        Raises
        ------
        EOFError, OSError
            If the server has ended.
        """
        with self.lock:
            for part in (b"fork", b"" if core is None else str(core).encode(), *request):
                self.connection.send_bytes(part)
            send_handle(self.connection, connection.fileno(), self.process.pid)
            return int(self.connection.recv_bytes())

    def status(self, pid: int) -> int:
        """Return how a worker ended: its exit status, or the negative number of a signal.

        Raises
        ------
        EOFError, OSError
            If the server has ended.
        """
        with self.lock:
            for part in (b"status", str(pid).encode()):
                self.connection.send_bytes(part)
            return int(self.connection.recv_bytes())

    def alive(self) -> bool:
        """Tell whether the server can fork another worker."""
        return self.process.poll() is None

    def close(self) -> None:
        """End the server, and what it is loading."""
        hang_up(self.connection)
        self.process.terminate()
        try:
            self.process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.connection.close()


class WorkerProcess:
    """One process, which answers one request at a time, on one core if it is given one."""

    def __init__(self, server: WorkerServer, core: int | None = None) -> None:
        self.server = server
        self.core = core
        self.connection, self.theirs = Pipe()
        self.closing = threading.Lock()
        self.pid = 0
        self.pidfd = -1

    def run(self, request: Request) -> Outcome:
        """Have a function called with the request; the first has the process forked."""
        try:
            if self.pidfd < 0:
                self._start(request)
            for part in request:
                self.connection.send_bytes(part)
            kind = self.connection.recv_bytes().decode()
            return Outcome(kind, self.connection.recv_bytes())  # type: ignore[arg-type]
        except (EOFError, OSError):
            return Outcome.of_words("ended", self._how_it_ended())

    def _start(self, request: Request) -> None:
        with self.theirs:
            self.pid = self.server.fork(self.theirs, self.core, request)
        # the server lets nobody else have the number before it is asked how the process ended
        self.pidfd = os.pidfd_open(self.pid)

    def _how_it_ended(self) -> str:
        self.close()
        try:
            if not self.pid:
                raise EOFError
            status = self.server.status(self.pid)
        except (EOFError, OSError):
            return "the process that workers are forked from has ended"
        if status == -signal.SIGPROF:
            return f"the grader's own work on it took more than {TRUSTED_SECONDS} seconds"
        if status < 0:
            return f"the process that worked on it was ended by {signal.Signals(-status).name}"
        return f"the process that worked on it ended with status {status}"

    def alive(self) -> bool:
        """Tell whether the process can take another request."""
        return not self.connection.closed and not self._wait(0)

    def _wait(self, seconds: float) -> bool:
        """Wait for the process to end; tell whether it did."""
        ended = select.poll()
        ended.register(self.pidfd, select.POLLIN)
        return bool(ended.poll(seconds * 1000))

    def ask_to_end(self) -> None:
        """Interrupt what the process is working on, and have it end."""
        hang_up(self.connection)

    def close(self) -> None:
        """End the process; kill it if it does not do so in time."""
        self.ask_to_end()
        with self.closing:
            if self.pidfd >= 0:
                if not self._wait(INTERRUPTS + 5):
                    signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
                    self._wait(END_SECONDS)
                os.close(self.pidfd)
                self.pidfd = -1
            self.connection.close()


class WorkerProcesses:
    """As many worker processes as there are requests at one time, used again and again.

    They share out `cores`, if any are given: the processes of a submission take turns, so that on
    one core they need not wake another for each call, nor fetch each other's memory.
    """

    def __init__(self, cores: Sequence[int] = ()) -> None:
        self.cores = cores
        # what is killed leaves students' files there
        self.folder = ""
        self.server: WorkerServer | None = None
        self.first = True
        self.idle: list[WorkerProcess] = []
        self.busy: set[WorkerProcess] = set()
        self.lock = threading.Lock()
        self.closed = False

    def run(self, function: str, request: bytes, root: Path | None = None) -> Outcome:
        """Have a function called with the request, and with the course's root if it is given."""
        parts = (function.encode(), str(root or "").encode(), request)
        process, outcome = self._run_in_one(parts)
        # what a server tries out can end it; the next one does not try
        if process is not None and not process.pid and process.server.rehearses:
            self._leave(process.server)
            _, outcome = self._run_in_one(parts)
        return outcome

    def _leave(self, server: WorkerServer) -> None:
        """Have nothing more forked from a server that ends, though it may not have ended yet."""
        with self.lock:
            if self.server is server:
                self.server = None
                server.close()

    def _run_in_one(self, request: Request) -> tuple[WorkerProcess | None, Outcome]:
        """Have one process work on a request; return both, or no process after the end."""
        with self.lock:
            if self.closed:
                return None, Outcome.of_words("ended", "grading was stopped")
            process = self.idle.pop() if self.idle else self._new_process()
            if process.pid and not process.alive():
                process.close()
                process = self._new_process()
            self.busy.add(process)
        outcome = process.run(request)
        with self.lock:
            self.busy.discard(process)
            if not process.connection.closed:
                self.idle.append(process)
        return process, outcome

    def _new_process(self) -> WorkerProcess:
        if self.server is not None and not self.server.alive():
            self.server.close()
            self.server = None
        if self.server is None:
            self.folder = self.folder or tempfile.mkdtemp(prefix="autograder-")
            self.server = WorkerServer(self.folder, rehearse=self.first)
            self.first = False
        return WorkerProcess(self.server, self._free_core())

    def _free_core(self) -> int | None:
        """Return the core on which the fewest processes work."""
        taken = [process.core for process in (*self.busy, *self.idle)]
        return min(self.cores, key=taken.count, default=None)

    def close(self) -> None:
        """End all processes; requests that are worked on end as if their process had ended."""
        with self.lock:
            self.closed = True
            processes = [*self.busy, *self.idle]
            self.idle.clear()
        for process in processes:
            process.ask_to_end()
        for process in processes:
            process.close()
        if self.server is not None:
            self.server.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
