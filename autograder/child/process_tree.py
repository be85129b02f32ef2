"""The processes below a process, as /proc shows them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import NoReturn


def end_descendants() -> int:
    """Kill every process below this one until none is left; return how many there were."""
    ended = 0
    while True:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
            ended += 1
        except ChildProcessError:
            return ended


def forget_ended() -> None:
    """Let the kernel forget the processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def wait_for_all() -> NoReturn:
    """Stay until the last process below ends; hold nothing open meanwhile."""
    os.closerange(3, 4096)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(0)


def descendants(root: int) -> list[int]:
    """Return the numbers of all processes below `root`."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            children.setdefault(parent_of(int(entry)), []).append(int(entry))
    found: list[int] = []
    pending = [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def parent_of(pid: int) -> int:
    """Return the parent of a process, or 0 when there is no such process."""
    try:
        # a process may give itself a name that is not text
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(status.rpartition(b")")[2].split()[1])
