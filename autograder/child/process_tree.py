"""The processes below a process, as /proc shows them."""

from __future__ import annotations

import os
import signal
from pathlib import Path


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
