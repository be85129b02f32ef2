"""The trusted side's handle on the process that runs a student's notebook.

A warm process with the libraries loaded forks one child for each submission. Confinement of that
child belongs here, between the fork and the first cell (see `autograder/child/warm.py`,
`fork_submission`); for now the child has resource limits and its own folder, nothing more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import torch

from autograder.checking.failure import (
    CheckFailedError,
    StudentStoppedError,
    exception_failure,
)
from autograder.checking.student import Caller, Reply
from autograder.child import protocol
from autograder.child.process_tree import parent_of

START_SECONDS = 120
INTERRUPT_SECONDS = 2
CELL_MESSAGE_BYTES = 32 * 2**20
CHILD_FOLDER = Path(__file__).parent / "child"
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
}


@dataclass(frozen=True)
class Limits:
    """What a submission may use; times in seconds, memory and file size in bytes."""

    cell_seconds: float = 30.0
    call_seconds: float = 10.0
    total_seconds: float = 300.0
    memory: int = 4 * 2**30
    file_size: int = 100 * 2**20
    open_files: int = 256


class ProcessEndedError(RuntimeError):
    """The student's process has ended, or does not keep to the protocol."""


class WarmProcess:
    """A process that forks a child for one submission at a time."""

    def __init__(self) -> None:
        trusted, inherited = socket.socketpair()
        self.home = tempfile.mkdtemp(prefix="autograder-")
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(CHILD_FOLDER), str(inherited.fileno())],
            pass_fds=[inherited.fileno()],
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={**ENVIRONMENT, "HOME": self.home, "MPLCONFIGDIR": self.home},
        )
        inherited.close()
        self.connection = trusted
        self._receive("ready")

    def _receive(self, expected: str) -> list[Any]:
        deadline = time.monotonic() + START_SECONDS
        reply: list[Any] = protocol.receive(self.connection, deadline=deadline)
        if reply[0] != expected:
            raise ProcessEndedError(
                f"the warm process answered {reply[0]!r}, expected {expected!r}"
            )
        return reply

    def start(self, folder: Path, limits: Limits) -> tuple[int, socket.socket]:
        """Fork the child of one submission; return its number and the connection to it."""
        trusted, child = socket.socketpair()
        resources = [limits.memory, int(limits.total_seconds), limits.file_size, limits.open_files]
        protocol.send(self.connection, ["start", str(folder), resources], [child.fileno()])
        child.close()
        return self._receive("started")[1], trusted

    def end_submission(self) -> None:
        """Kill the whole process tree of the submission."""
        with contextlib.suppress(OSError, EOFError):
            protocol.send(self.connection, ["end"])
            self._receive("ended")

    def alive(self) -> bool:
        """Tell whether the warm process still runs."""
        return self.process.poll() is None

    def close(self) -> None:
        """End the warm process."""
        self.connection.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


class StudentProcess:
    """One submission's process: runs its cells and keeps snapshots at grade cells."""

    def __init__(self, warm: WarmProcess, folder: Path, limits: Limits) -> None:
        self.warm = warm
        self.limits = limits
        self.deadline = time.monotonic() + limits.total_seconds
        self.pid, self.connection = warm.start(folder, limits)
        self.snapshots: dict[str, Snapshot] = {}
        self.ended = ""

    def run_cell(self, source: str) -> tuple[list[Any], str]:
        """Run one cell; return its outputs and, if it was stopped, a sentence that says why."""
        if self.ended:
            return [], self.ended
        seconds = min(self.limits.cell_seconds, self.deadline - time.monotonic())
        try:
            protocol.send(self.connection, ["run", source])
            return self._outputs(time.monotonic() + seconds), ""
        except TimeoutError:
            return self._interrupt(f"it was stopped after {self.limits.cell_seconds:g} seconds")
        except (OSError, EOFError):
            self.ended = "the process that ran the notebook ended here"
        except protocol.ProtocolError:
            self.ended = "the process that ran the notebook sent something unreadable here"
        return [], self.ended

    def _outputs(self, deadline: float) -> list[Any]:
        reply = protocol.receive(self.connection, deadline=deadline, limit=CELL_MESSAGE_BYTES)
        if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], str)):
            raise protocol.ProtocolError("expected a cell's outputs")
        return readable_outputs(reply[1])

    def _interrupt(self, reason: str) -> tuple[list[Any], str]:
        """Interrupt a cell as Jupyter does; end the process if that does not help."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)
        try:
            return self._outputs(time.monotonic() + INTERRUPT_SECONDS), reason
        except (OSError, EOFError, protocol.ProtocolError):
            self.ended = f"{reason} and did not give way, so the cells after it were not run"
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            return [], self.ended

    def take_snapshot(self, grade_id: str) -> None:
        """Fork a snapshot of the notebook's state that can be called later."""
        if self.ended:
            return
        trusted, child = socket.socketpair()
        try:
            protocol.send(self.connection, ["snapshot"], [child.fileno()])
            protocol.receive(self.connection, deadline=time.monotonic() + INTERRUPT_SECONDS)
            self.snapshots[grade_id] = Snapshot(trusted, self)
        except (OSError, EOFError, protocol.ProtocolError):
            self.ended = "the process that ran the notebook ended here"
        finally:
            child.close()

    def caller_at(self, grade_id: str) -> Caller:
        """Return a caller of the functions as they were at a grade cell."""
        if grade_id not in self.snapshots:
            return UnreachableCaller(f"This cell was not reached: {self.ended}.")
        return self.snapshots[grade_id].caller()

    def close(self) -> None:
        """End every process of the submission."""
        for snapshot in self.snapshots.values():
            snapshot.connection.close()
        self.connection.close()
        self.warm.end_submission()


@dataclass
class Snapshot:
    """The notebook's state at one grade cell."""

    connection: socket.socket
    process: StudentProcess

    def caller(self) -> Caller:
        """Fork a server for one check's calls."""
        trusted, child = socket.socketpair()
        try:
            protocol.send(self.connection, ["serve"], [child.fileno()])
            deadline = time.monotonic() + INTERRUPT_SECONDS
            reply = protocol.receive(self.connection, deadline=deadline)
        except (OSError, EOFError, protocol.ProtocolError):
            return UnreachableCaller("The process that held the notebook has ended.")
        finally:
            child.close()
        pid = reply[1] if isinstance(reply, list) and len(reply) == 2 else 0
        return SnapshotCaller(trusted, self.process, pid if isinstance(pid, int) else 0)


@dataclass(frozen=True)
class UnreachableCaller:
    """Stands for functions that cannot be called, and says why."""

    reason: str

    def __call__(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        gradient_of: Sequence[int] = (),
        cotangent: torch.Tensor | None = None,
    ) -> Reply:
        """Raise `StudentStoppedError` with the reason."""
        raise StudentStoppedError(self.reason)


class SnapshotCaller:
    """Calls the functions of one snapshot, for one check."""

    def __init__(self, connection: socket.socket, process: StudentProcess, pid: int) -> None:
        self.connection = connection
        self.process = process
        self.pid = pid
        self.stopped = ""

    def __call__(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        gradient_of: Sequence[int] = (),
        cotangent: torch.Tensor | None = None,
    ) -> Reply:
        """Call a function; raise `CheckFailedError` with words for the student if that fails."""
        if self.stopped:
            raise StudentStoppedError(self.stopped)
        limits = self.process.limits
        deadline = min(time.monotonic() + limits.call_seconds, self.process.deadline)
        try:
            self.connection.settimeout(limits.call_seconds)
            protocol.send(
                self.connection, [function, list(arguments), list(gradient_of), cotangent]
            )
            reply = protocol.receive(self.connection, deadline=deadline)
        except TimeoutError as error:
            raise self._stop(
                f"`{function}` did not return within {limits.call_seconds:g} seconds."
            ) from error
        except (OSError, EOFError) as error:
            raise self._stop(f"The process ended while `{function}` ran.") from error
        except protocol.ProtocolError as error:
            raise self._stop(f"`{function}` returned something unreadable.") from error
        return understand_reply(function, reply)

    def _stop(self, sentence: str) -> StudentStoppedError:
        self.stopped = sentence
        self.close()
        return StudentStoppedError(sentence)

    def close(self) -> None:
        """Close the connection, which ends the server; kill it if it is still busy."""
        self.connection.close()
        if self.stopped and self._is_ours(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        """Tell whether a process that the student's side named is below the warm process."""
        warm = self.process.warm.process.pid
        while pid > 1:
            pid = parent_of(pid)
            if pid == warm:
                return True
        return False


def readable_outputs(text: str) -> list[Any]:
    """Return outputs that nbformat accepts; raise `ProtocolError` for any others."""
    try:
        outputs = json.loads(text)
        cell = nbformat.v4.new_code_cell(outputs=nbformat.from_dict(outputs))
        nbformat.validate(cell, ref="code_cell", version=4, version_minor=5)
    except (ValueError, RecursionError, AttributeError, nbformat.ValidationError) as error:
        raise protocol.ProtocolError("a cell's outputs are not a notebook's outputs") from error
    return outputs  # type: ignore[no-any-return]


def understand_reply(function: str, reply: Any) -> Reply:
    """Turn a reply into a `Reply`, or raise `CheckFailedError` in words for the student."""
    match reply:
        case ["returned", value, list() as gradients, list() as inputs]:
            return Reply(value, tuple(_gradient(entry) for entry in gradients), tuple(inputs))
        case ["raised", str() as name, int() as line]:
            raise exception_failure(function, _identifier(name), line)
        case ["undefined"]:
            raise CheckFailedError(f"The notebook does not define `{function}`.")
        case ["not callable", str() as name]:
            raise CheckFailedError(f"`{function}` is not a function but {_identifier(name)}.")
    raise StudentStoppedError(f"The reply to a call of `{function}` has the wrong form.")


def _gradient(entry: Any) -> torch.Tensor | None:
    return entry if isinstance(entry, torch.Tensor) else None


def _identifier(name: str) -> str:
    return name if name.isidentifier() and len(name) <= 40 else "an exception"
