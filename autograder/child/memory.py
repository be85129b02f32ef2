"""Keeps the memory of a whole submission within its limit; the kernel's limit is per process."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from .process_tree import descendants

PAGE = os.sysconf("SC_PAGE_SIZE")
KIB = 1024


def private_memory(pid: int) -> int:
    """Return the bytes that a process holds itself, counting pages shared by forking as its own."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_bytes().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * PAGE


def proportional_memory(pid: int) -> int:
    """Return the bytes that a process holds, counting its share of pages that others hold too."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss_Anon:"):
                return int(line.split()[1]) * KIB
    return private_memory(pid)


def end_what_holds_too_much(limit: int) -> int:
    """Kill the largest processes below this one until the rest fit; return how many were killed."""
    pids = descendants(os.getpid())
    # quick to ask and never too low; the exact sum is slow
    if sum(map(private_memory, pids)) <= limit:
        return 0
    held = {pid: proportional_memory(pid) for pid in pids}
    ended = 0
    for pid in sorted(held, key=held.__getitem__, reverse=True):
        if sum(held.values()) <= limit:
            break
        held.pop(pid)
        ended += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return ended
