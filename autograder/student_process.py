"""The trusted side's handle on the process that runs a student's notebook.

A warm process with the libraries loaded forks one confined child for each submission. What comes
from that child is read as data, with a size limit and a deadline, and never believed: its process
number comes from the kernel, with the first message.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import torch
from nbformat.validator import get_validator

from autograder import confinement
from autograder.checking.compare import known_kind
from autograder.checking.failure import (
    CheckFailedError,
    StudentStoppedError,
    exception_failure,
    known_exception,
)
from autograder.checking.student import ProcessCaller, Reply
from autograder.child import protocol
from autograder.fork_server import Need, fork_warm_process
from autograder.intake import values_in
from autograder.limits import Limits
from autograder.not_allowed import NOTHING, NotAllowed

START_SECONDS = 120
INTERRUPT_SECONDS = 2
FORK_SECONDS = 10
END_SECONDS = 10
# an honest notebook that took all its time has its functions kept all the same
LAST_FORK_SECONDS = 1
TIME_IS_UP = "The submission has used up its time."
CELL_MESSAGE_BYTES = 16 * 2**20
SUBMISSION_OUTPUT_BYTES = 64 * 2**20
REPLY_BYTES = 64 * 2**20
SUBMISSION_REPLY_BYTES = 256 * 2**20
MAX_OUTPUTS = 2 * protocol.MAX_CELL_OUTPUTS
MAX_OUTPUT_DEPTH = 50
# each takes the time and the memory of a Python object; a figure of 100,000 points has as many
MAX_OUTPUT_VALUES = 500_000
SUBMISSION_OUTPUT_VALUES = 2_000_000
TOO_MUCH_OUTPUT = (
    f"[output beyond {SUBMISSION_OUTPUT_BYTES // 2**20} MiB of a notebook is not kept]"
)
TOO_MANY_VALUES = (
    f"[output beyond {SUBMISSION_OUTPUT_VALUES} JSON values of a notebook is not kept]"
)
# half a character, which JSON can hold and no file can
HALF_A_CHARACTER = re.compile(r"\\u[dD]")
MAX_SCORE_CHARACTERS = 100
ANSWER_BYTES = 100_000
CREDENTIALS = struct.Struct("3i")
UNDEFINED = protocol.encode(["undefined"])
IMPORTED = r"(?m)^\s*(?:import|from)\s+{}\b"
# slow at first use; what they hold makes every fork slower, so only where locked cells have this
OFTEN_USED = {
    "pandas": IMPORTED.format("pandas"),
    "sklearn.datasets": IMPORTED.format("sklearn"),
    # what the first optimizer imports
    "torch._dynamo": r"\boptim\b|\btorch\.compile\b",
    "torch.testing": r"\bassert_close\b",
}


class SubmissionStartError(RuntimeError):
    """The process of a submission could not be started: the machine's fault, not the student's."""


class WarmProcessEndedError(BrokenExecutor):
    """The process that a submission is forked from ended; the submission can be tried again."""

    def __init__(self) -> None:
        super().__init__(
            "the process that submissions are forked from ended, expected one that only the "
            "grader ends (was the machine short of memory?)"
        )


class Peer:
    """A process of the student's side: a connection, and the number that the kernel gave it."""

    def __init__(self) -> None:
        self.connection, self.inherited = socket.socketpair()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.pidfd = -1

    def greet(self, deadline: float) -> Any:
        """Receive the first message, and with it the process number that the kernel vouches for."""
        self.inherited.close()
        self.connection.settimeout(max(deadline - time.monotonic(), 0.01))
        space = socket.CMSG_SPACE(CREDENTIALS.size)
        _, ancillary, _, _ = self.connection.recvmsg(protocol.HEADER.size, space, socket.MSG_PEEK)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                pid = CREDENTIALS.unpack(data[: CREDENTIALS.size])[0]
                with contextlib.suppress(OSError):
                    self.pidfd = os.pidfd_open(pid)
        return protocol.receive(self.connection, deadline=deadline, limit=ANSWER_BYTES)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it is still there."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def wait(self, seconds: float) -> bool:
        """Wait for the process to end, if it has greeted; tell whether it did."""
        if self.pidfd < 0:
            return True
        ended = select.poll()
        ended.register(self.pidfd, select.POLLIN)
        return bool(ended.poll(seconds * 1000))

    def close(self) -> None:
        """Close the connection, which ends a process that waits for a request."""
        self.inherited.close()
        self.connection.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def need_of(modules: Iterable[str], not_allowed: NotAllowed) -> Need:
    """Return what a warm process needs that has loaded modules and withdrawn names."""
    return Need(tuple(sorted(modules)), tuple(not_allowed.names), tuple(not_allowed.operators))


class WarmProcess:
    """A process that forks a child for one submission at a time."""

    def __init__(
        self,
        *,
        confined: bool,
        secret: Sequence[Path] = (),
        without: Sequence[str] = (),
        modules: Sequence[str] = tuple(OFTEN_USED),
        not_allowed: NotAllowed = NOTHING,
    ) -> None:
        self.confined = confined
        self.without = list(without)
        self.modules = frozenset(modules)
        self.not_allowed = not_allowed
        self.ready = False
        self.homes: list[str] = []
        self.peer = Peer()
        self.connection = self.peer.connection
        need = need_of(modules, not_allowed)
        try:
            fork_warm_process(self.peer.inherited, need, confined, secret, without)
        except BaseException as error:
            self.peer.close()
            if isinstance(error, ConnectionError):
                raise WarmProcessEndedError from error
            raise
        self.peer.inherited.close()

    def wait_until_ready(self) -> None:
        """Wait until the libraries are loaded; raise `WarmProcessEndedError` if it ends first."""
        if self.ready:
            return
        try:
            _require(self.peer.greet(time.monotonic() + START_SECONDS), "ready")
        except (EOFError, OSError) as error:
            self.peer.close()
            raise WarmProcessEndedError from error
        self.ready = True

    def fits(self, modules: frozenset[str], not_allowed: NotAllowed) -> bool:
        """Tell whether a submission that needs `modules` and not more names can be run here."""
        return (
            self.alive()
            and modules <= self.modules
            and set(self.not_allowed.names) <= set(not_allowed.names)
            and set(self.not_allowed.operators) <= set(not_allowed.operators)
        )

    def _receive(self, expected: str) -> None:
        reply = protocol.receive(
            self.connection, deadline=time.monotonic() + START_SECONDS, limit=ANSWER_BYTES
        )
        _require(reply, expected)

    def start(
        self,
        files: Sequence[tuple[str, bytes]],
        limits: Limits,
        not_allowed: NotAllowed,
        without: Sequence[str] = (),
    ) -> Peer:
        """Fork the child of one submission, which finds `files` in its working folder."""
        self.wait_until_ready()
        peer = Peer()
        try:
            self._fork(peer, limits, not_allowed, without)
            protocol.send(peer.connection, list(files))
            reply = protocol.receive(
                peer.connection, deadline=time.monotonic() + START_SECONDS, limit=ANSWER_BYTES
            )
            if reply != ["ready"]:
                raise SubmissionStartError(f"a submission could not be started: {reply[1:]}")
        except BaseException as error:
            peer.close()
            if isinstance(error, OSError | EOFError) and self.peer.wait(LAST_FORK_SECONDS):
                raise WarmProcessEndedError from error
            raise
        return peer

    def _fork(
        self, peer: Peer, limits: Limits, not_allowed: NotAllowed, without: Sequence[str]
    ) -> None:
        setting = [
            self._folder(),
            limits.folder_size,
            limits.of_resources(),
            self.confined,
            self._user(),
            confinement.forbidden_calls_program() if self.confined else b"",
            [name for name in not_allowed.names if name not in self.not_allowed.names],
            [name for name in not_allowed.operators if name not in self.not_allowed.operators],
            [*self.without, *without],
        ]
        protocol.send(self.connection, ["start", *setting], [peer.inherited.fileno()])
        reply = peer.greet(time.monotonic() + START_SECONDS)
        if reply != ["confined"]:
            raise SubmissionStartError(f"a submission could not be started: {reply[1:]}")

    def _user(self) -> int:
        """Return the number of the user that a submission becomes, or 0 if it cannot."""
        if self.confined and confinement.users_of_their_own():
            return confinement.FIRST_USER + os.getpid() % confinement.USERS
        return 0

    def _folder(self) -> str:
        """Return where the submission's own folder is to be."""
        if self.confined:
            return f"{confinement.temporary_folder()}/submission"
        self.homes.append(tempfile.mkdtemp(prefix="autograder-"))
        return self.homes[-1]

    def end_submission(self) -> None:
        """Kill the whole process tree of the submission.

        Raises
        ------
        WarmProcessEndedError
            If the warm process has ended, and the submission with it.
        """
        try:
            protocol.send(self.connection, ["end"])
            self._receive("ended")
        except (OSError, EOFError) as error:
            # it must not be taken for alive while it is dying
            self.peer.signal(signal.SIGKILL)
            self.peer.wait(END_SECONDS)
            raise WarmProcessEndedError from error

    def why_ended(self) -> str:
        """Return why processes of the submission were ended, if the warm process did that."""
        with contextlib.suppress(OSError, EOFError):
            protocol.send(self.connection, ["why"])
            reply = protocol.receive(
                self.connection, deadline=time.monotonic() + START_SECONDS, limit=ANSWER_BYTES
            )
            return "memory" if reply == ["memory"] else ""
        return ""

    def alive(self) -> bool:
        """Tell whether the warm process still runs, as far as is known before it is ready."""
        is_open = self.connection.fileno() >= 0
        return is_open and not (self.ready and self.peer.wait(0))

    def close(self) -> None:
        """End the warm process, which does so itself when its connection is closed."""
        self.connection.close()
        if not self.peer.wait(END_SECONDS):
            self.peer.signal(signal.SIGKILL)
        self.peer.close()
        for home in self.homes:
            shutil.rmtree(home, ignore_errors=True)


def _require(reply: Any, expected: str) -> None:
    """Raise unless the warm process answered what it should."""
    if reply[0] != expected:
        raise SubmissionStartError(f"the warm process answered {reply[0]!r}, expected {expected!r}")


class StudentProcess:
    """One submission's process: runs its cells and keeps snapshots at grade cells."""

    def __init__(
        self,
        warm: WarmProcess,
        files: Sequence[tuple[str, bytes]],
        limits: Limits,
        not_allowed: NotAllowed,
        without: Sequence[str] = (),
    ) -> None:
        self.warm = warm
        self.limits = limits
        self.deadline = time.monotonic() + limits.total_seconds
        self.not_allowed = not_allowed
        self.peer = warm.start(files, limits, not_allowed, without)
        self.snapshots: dict[str, Peer] = {}
        # by snapshot, a process whose calls left nothing behind
        self.spare: dict[Peer, Peer] = {}
        self.lost: set[str] = set()
        self.ended = ""
        self.output_room = SUBMISSION_OUTPUT_BYTES
        self.value_room = SUBMISSION_OUTPUT_VALUES
        self.reply_room = SUBMISSION_REPLY_BYTES

    @property
    def is_over(self) -> bool:
        """Whether no more cells are run."""
        return bool(self.ended) or time.monotonic() >= self.deadline

    def run_cell(self, source: str) -> tuple[list[Any], str]:
        """Run one cell; return its outputs and, if it was stopped, a sentence that says why."""
        if self.ended:
            return [], self.ended
        seconds = min(self.limits.cell_seconds, self.deadline - time.monotonic())
        if seconds <= 0:
            self._end("the submission had used up its time")
            return [], self.ended
        try:
            self.peer.connection.settimeout(INTERRUPT_SECONDS)
            protocol.send(self.peer.connection, ["run", source])
            return self._outputs(time.monotonic() + seconds), ""
        except TimeoutError:
            if seconds < self.limits.cell_seconds:
                return self._interrupt("it was stopped when the submission had used up its time")
            return self._interrupt(f"it was stopped after {self.limits.cell_seconds:g} seconds")
        except (OSError, EOFError):
            self._end(self._why_it_ended())
        except protocol.ProtocolError:
            self._end("the process that ran the notebook sent something unreadable here")
        return [], self.ended

    def _end(self, reason: str) -> None:
        self.ended = reason
        self.peer.signal(signal.SIGKILL)

    def _why_it_ended(self) -> str:
        if self.warm.why_ended() == "memory":
            return f"the notebook used more than {self.limits.memory / 2**30:.3g} GiB of memory"
        return "the process that ran the notebook ended here"

    def _outputs(self, deadline: float) -> list[Any]:
        data = protocol.receive_bytes(
            self.peer.connection, deadline=deadline, limit=CELL_MESSAGE_BYTES
        )
        self.output_room -= len(data)
        reply = protocol.decode(data)
        if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], str)):
            raise protocol.ProtocolError("expected a cell's outputs")
        outputs = readable_outputs(reply[1])
        self.value_room -= values_in(reply[1], MAX_OUTPUT_VALUES)
        if self.output_room < 0:
            return without_text(outputs, TOO_MUCH_OUTPUT)
        return outputs if self.value_room >= 0 else without_text(outputs, TOO_MANY_VALUES)

    def _interrupt(self, reason: str) -> tuple[list[Any], str]:
        """Interrupt a cell as Jupyter does; end the process if that does not help."""
        self.peer.signal(signal.SIGINT)
        try:
            return self._outputs(time.monotonic() + INTERRUPT_SECONDS), reason
        except (OSError, EOFError, protocol.ProtocolError):
            self._end(f"{reason} and did not give way, so the cells after it were not run")
            return [], self.ended

    def take_snapshot(self, *grade_ids: str, last: bool = False) -> None:
        """Fork a snapshot of the notebook's state that can be called later.

        After the last cell the process itself is the snapshot.
        """
        if self.ended:
            return
        peer = Peer()
        request = "become snapshot" if last else "snapshot"
        try:
            protocol.send(self.peer.connection, [request], [peer.inherited.fileno()])
            peer.greet(time.monotonic() + max(self._fork_seconds(), LAST_FORK_SECONDS))
            self.snapshots |= dict.fromkeys(grade_ids, peer)
        except (OSError, EOFError, protocol.ProtocolError):
            peer.close()
            self._end(self._why_it_ended())

    def caller_at(self, grade_id: str, undefined: frozenset[str] = frozenset()) -> ProcessCaller:
        """Return a caller of the functions as they were at a grade cell.

        What is `undefined` was not there yet, though the snapshot may be of a later time. Where
        grade cells share a snapshot, the caller's process may be one that another gave back.
        """
        if grade_id in self.lost:
            return UnreachableCaller("The process that held the notebook has ended.")
        if grade_id not in self.snapshots:
            return UnreachableCaller(f"This cell was not reached: {self.ended}.")
        seconds = self._fork_seconds()
        if seconds <= 0:
            return UnreachableCaller(TIME_IS_UP)
        snapshot = self.snapshots[grade_id]
        if snapshot in self.spare:
            return SnapshotCaller(self.spare.pop(snapshot), snapshot, self, undefined, used=True)
        peer = Peer()
        try:
            protocol.send(snapshot.connection, ["serve"], [peer.inherited.fileno()])
            peer.greet(time.monotonic() + seconds)
        except (OSError, EOFError, protocol.ProtocolError):
            peer.close()
            if self._fork_seconds() <= 0:
                return UnreachableCaller(TIME_IS_UP)
            self.lost.add(grade_id)
            return UnreachableCaller("The process that held the notebook has ended.")
        return SnapshotCaller(peer, snapshot, self, undefined)

    def keep(self, snapshot: Peer, peer: Peer) -> bool:
        """Keep a process for another grade cell's checks, if one shares the snapshot."""
        others = list(self.snapshots.values()).count(snapshot) > 1
        if others:
            self.spare[snapshot] = peer
        return others

    def _fork_seconds(self) -> float:
        """Return how long a fork may take; none is waited for when the submission's time is up."""
        return min(FORK_SECONDS, self.deadline - time.monotonic())

    def close(self) -> None:
        """End every process of the submission."""
        # killed before their connections close: they would wake up only to end themselves
        try:
            self.warm.end_submission()
        finally:
            for peer in {self.peer, *self.snapshots.values(), *self.spare.values()}:
                peer.close()


@dataclass(frozen=True)
class UnreachableCaller(ProcessCaller):
    """Stands for functions that cannot be called, and says why."""

    reason: str

    def exchange(self, function: str, request: bytes) -> NoReturn:
        """Raise `StudentStoppedError` with the reason."""
        raise StudentStoppedError(self.reason)

    def understand(self, function: str, reply: bytes) -> NoReturn:
        """Raise `StudentStoppedError` with the reason."""
        raise StudentStoppedError(self.reason)


class SnapshotCaller(ProcessCaller):
    """Calls the functions of one snapshot, for checks that share a process.

    What is `undefined` is not called; `used` tells whether other checks called functions before.
    """

    def __init__(
        self,
        peer: Peer,
        snapshot: Peer,
        process: StudentProcess,
        undefined: frozenset[str] = frozenset(),
        *,
        used: bool = False,
    ) -> None:
        self.peer = peer
        self.snapshot = snapshot
        self.process = process
        self.undefined = undefined
        self.used = used
        self.stopped = ""

    def exchange(self, function: str, request: bytes) -> bytes:
        """Send a request and return the reply; raise `StudentStoppedError` if none comes."""
        if self.stopped:
            raise StudentStoppedError(self.stopped)
        if function in self.undefined:
            return UNDEFINED
        seconds = min(self.process.limits.call_seconds, self.process.deadline - time.monotonic())
        if seconds <= 0:
            raise self._stop(TIME_IS_UP)
        deadline = time.monotonic() + seconds
        try:
            self.peer.connection.settimeout(seconds)
            protocol.send_bytes(self.peer.connection, request)
            return self._receive(deadline)
        except TimeoutError as error:
            if seconds < self.process.limits.call_seconds:
                raise self._stop(TIME_IS_UP) from error
            raise self._stop(f"`{function}` did not return within {seconds:g} seconds.") from error
        except (OSError, EOFError) as error:
            raise self._stop(f"The process ended while `{function}` ran.") from error
        except protocol.ProtocolError as error:
            raise self._unreadable(function) from error

    def understand(self, function: str, reply: bytes) -> Reply:
        """Read a reply; raise `CheckFailedError` with words for the student if the call failed."""
        try:
            value = protocol.decode(reply)
        except protocol.ProtocolError as error:
            raise self._unreadable(function) from error
        return understand_reply(function, value, self.process.not_allowed.words)

    def _unreadable(self, function: str) -> StudentStoppedError:
        return self._stop(f"`{function}` returned something unreadable.")

    def _receive(self, deadline: float) -> bytes:
        limit = min(REPLY_BYTES, self.process.reply_room)
        data = protocol.receive_bytes(self.peer.connection, deadline=deadline, limit=limit)
        self.process.reply_room -= len(data)
        return bytes(data)

    def _stop(self, sentence: str) -> StudentStoppedError:
        self.stopped = sentence
        self.close()
        return StudentStoppedError(sentence)

    def give_back(self) -> None:
        """Leave the process, in which no call left anything behind, to others, or end it."""
        if self.stopped or not self.process.keep(self.snapshot, self.peer):
            self.close()

    def close(self) -> None:
        """End the server."""
        self.peer.signal(signal.SIGKILL)
        self.peer.close()


def readable_outputs(text: str) -> list[Any]:
    """Return outputs that nbformat accepts; raise `ProtocolError` for any others."""
    if values_in(text, MAX_OUTPUT_VALUES) > MAX_OUTPUT_VALUES:
        raise protocol.ProtocolError("a cell's outputs hold too many values")
    try:
        outputs = json.loads(text)
        if outputs == []:
            return []
        if HALF_A_CHARACTER.search(text):
            outputs = json.loads(json.dumps(outputs, ensure_ascii=False).encode("utf-8", "replace"))
        _require_modest(outputs)
        # the compiled schema of a whole notebook; nbformat's own way takes 20 times as long
        get_validator(4, 5).validate(_notebook_with(outputs))
    except (ValueError, RecursionError, AttributeError, nbformat.ValidationError) as error:
        raise protocol.ProtocolError("a cell's outputs are not a notebook's outputs") from error
    return outputs  # type: ignore[no-any-return]


def without_text(outputs: list[Any], note: str) -> list[Any]:
    """Return what nbgrader reads the score of a test cell from, and a note instead of the rest."""
    kept: dict[str, Any] = {"stdout": _stream("stdout", note)}
    for output in outputs:
        kind = output["output_type"]
        if kind == "error":
            kept[kind] = {**output, "ename": output["ename"][:100], "evalue": "", "traceback": []}
        elif kind == "execute_result" and kind not in kept:
            text = "".join(output["data"].get("text/plain", ""))
            shown = text if len(text) <= MAX_SCORE_CHARACTERS else note
            kept[kind] = {**output, "data": {"text/plain": shown}, "metadata": {}}
        elif output.get("name") == "stderr":
            kept["stderr"] = _stream("stderr", note)
    return list(kept.values())


def _stream(name: str, text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": f"{text}\n"}


def _notebook_with(outputs: list[Any]) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "cell",
        "metadata": {},
        "outputs": outputs,
        "source": "",
    }
    return {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def _require_modest(outputs: Any) -> None:
    """Raise `ValueError` for more, or more deeply nested, outputs than a notebook could use."""
    if not isinstance(outputs, list) or len(outputs) > MAX_OUTPUTS:
        raise ValueError("too many outputs")
    level: list[Any] = [outputs]
    for _ in range(MAX_OUTPUT_DEPTH):
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [
            inner
            for item in containers
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    if level:
        raise ValueError("the outputs are nested too deeply")


def understand_reply(function: str, reply: Any, not_allowed: frozenset[str]) -> Reply:
    """Turn a reply into a `Reply`, or raise `CheckFailedError` in words for the student."""
    match reply:
        case ["returned", value, list() as gradients, list() as inputs, list() as double]:
            return Reply(value, _gradients(gradients), tuple(inputs), _gradients(double))
        case ["raised", str() as name, int() as line]:
            raise exception_failure(function, known_exception(name), line)
        case ["not allowed", str() as name]:
            what = f"`{name}`" if name in not_allowed else "something"
            raise CheckFailedError(
                f"`{function}` uses {what}, which this exercise asks you to write by hand.",
                raised="NotAllowedError",
            )
        case ["undefined"]:
            raise CheckFailedError(f"The notebook does not define `{function}`.")
        case ["not callable", str() as name]:
            raise CheckFailedError(f"`{function}` is not a function but {known_kind(name)}.")
    raise StudentStoppedError(f"The reply to a call of `{function}` has the wrong form.")


def _gradients(entries: list[Any]) -> tuple[torch.Tensor | None, ...]:
    return tuple(entry if isinstance(entry, torch.Tensor) else None for entry in entries)
