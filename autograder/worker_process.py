"""Processes of this machine that answer one request after another, and what they answer with.

A request names a function of bytes and goes to a process of its own, started once and used again.
If that process ends, only its own request is lost. Nothing is pickled.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from autograder.confinement import ConfinementUnavailableError

Kind = Literal["done", "ended", "unconfined", "unfit", "fault"]

# how often, once a second, a request that nobody waits for any more is interrupted
INTERRUPTS = 10
# of a processor, for one request; what a student's processes take is limited by themselves
TRUSTED_SECONDS = 120


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


class WorkerProcess:
    """One process, which answers one request at a time, on one core if it is given one."""

    def __init__(self, core: int | None = None) -> None:
        self.core = core
        self.connection, theirs = Pipe()
        # our own source first, so that both sides run the same code from wherever it lies
        source = str(Path(__file__).parents[1])
        python_path = os.environ.get("PYTHONPATH", "")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "autograder.worker_process", str(theirs.fileno())),
                *([] if core is None else [str(core)]),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # standard output is for results alone
            stdout=2,
            env={
                **os.environ,
                # one core for each process; also, results must not depend on the number of cores
                "OMP_NUM_THREADS": "1",
                "MKL_NUM_THREADS": "1",
                "PYTHONPATH": f"{source}{os.pathsep}{python_path}" if python_path else source,
            },
            # Ctrl-C is for the command, which tells its processes
            start_new_session=True,
        )
        theirs.close()

    def run(self, function: str, request: bytes, root: Path | None = None) -> Outcome:
        """Have a function called with the request, and with the course's root if it is given."""
        try:
            for part in (function.encode(), str(root or "").encode(), request):
                self.connection.send_bytes(part)
            kind = self.connection.recv_bytes().decode()
            return Outcome(kind, self.connection.recv_bytes())  # type: ignore[arg-type]
        except (EOFError, OSError):
            return Outcome.of_words("ended", self._how_it_ended())

    def _how_it_ended(self) -> str:
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=INTERRUPTS + 5)
        status = self.process.returncode
        if status == -signal.SIGPROF:
            return f"the grader's own work on it took more than {TRUSTED_SECONDS} seconds"
        if status is not None and status < 0:
            return f"the process that graded it was ended by {signal.Signals(-status).name}"
        return f"the process that graded it ended with status {status}"

    def alive(self) -> bool:
        """Tell whether the process can take another request."""
        return not self.connection.closed and self.process.poll() is None

    def ask_to_end(self) -> None:
        """Interrupt what the process is working on, and have it end."""
        # a thread may be waiting for the connection: closing it would not wake that thread
        with contextlib.suppress(OSError), socket.socket(fileno=self._descriptor()) as end:
            end.shutdown(socket.SHUT_RDWR)

    def _descriptor(self) -> int:
        return os.dup(self.connection.fileno())

    def close(self) -> None:
        """End the process; kill it if it does not do so in time."""
        self.ask_to_end()
        try:
            self.process.wait(timeout=INTERRUPTS + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class WorkerProcesses:
    """As many worker processes as there are requests at one time, used again and again.

    They share out `cores`, if any are given: the processes of a submission take turns, so that on
    one core they need not wake another for each call, nor fetch each other's memory.
    """

    def __init__(self, cores: Sequence[int] = ()) -> None:
        self.cores = cores
        self.idle: list[WorkerProcess] = []
        self.busy: set[WorkerProcess] = set()
        self.lock = threading.Lock()
        self.closed = False

    def run(self, function: str, request: bytes, root: Path | None = None) -> Outcome:
        """Have a function called in a process that has nothing else to do."""
        with self.lock:
            if self.closed:
                return Outcome.of_words("ended", "grading was stopped")
            process = self.idle.pop() if self.idle else WorkerProcess(self._free_core())
            if not process.alive():
                process.close()
                process = WorkerProcess(self._free_core())
            self.busy.add(process)
        outcome = process.run(function, request, root)
        with self.lock:
            self.busy.discard(process)
            if outcome.kind != "ended":
                self.idle.append(process)
        return outcome

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


def main() -> None:
    """Answer the requests that come over an inherited connection, until it is closed."""
    connection = Connection(int(sys.argv[1]))
    # a container can take cores away at any time, and forbid to choose one
    with contextlib.suppress(OSError):
        if cores := sys.argv[2:]:
            os.sched_setaffinity(0, map(int, cores))
    requests: queue.SimpleQueue[tuple[str, str, bytes] | None] = queue.SimpleQueue()
    working = threading.Event()
    threading.Thread(target=_receive, args=(connection, requests, working), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        while (request := requests.get()) is not None:
            working.set()
            # nothing that a student wrote can keep the process busy for good: the signal ends it
            signal.setitimer(signal.ITIMER_PROF, TRUSTED_SECONDS)
            kind, content = answer(*request)
            signal.setitimer(signal.ITIMER_PROF, 0)
            working.clear()
            connection.send_bytes(kind.encode())
            connection.send_bytes(content)
    _end()


def _end() -> NoReturn:
    """End this process at once: to take torch apart takes half a second."""
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(0)


def _receive(
    connection: Connection,
    requests: queue.SimpleQueue[tuple[str, str, bytes] | None],
    working: threading.Event,
) -> None:
    """Pass on requests; when nobody is left to answer, interrupt the work and end the process."""
    try:
        while True:
            function, root, request = (connection.recv_bytes() for _ in range(3))
            requests.put((function.decode(), root.decode(), request))
    except (EOFError, OSError):
        requests.put(None)
    for _ in range(INTERRUPTS):
        if working.is_set():
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    os._exit(1)


def answer(function: str, root: str, request: bytes) -> Outcome:
    """Call the function that a request names."""
    try:
        module, name = function.split(":")
        call = getattr(importlib.import_module(module), name)
        return Outcome("done", call(request, Path(root)) if root else call(request))
    except ConfinementUnavailableError as error:
        return Outcome.of_words("unconfined", str(error))
    except Exception as error:
        return Outcome.of_words("fault", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
