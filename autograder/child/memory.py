"""Keeps the memory of a whole submission within its limit; the kernel's limit is per process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from .process_tree import descendants

KIB = 1024
# its own pages, memory shared without a file, what it may have had swapped out, its page tables
HELD = (b"RssAnon:", b"RssShmem:", b"VmSwap:", b"VmPTE:")
HELD_IN_PROPORTION = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")


def private_memory(pid: int) -> int:
    """Return the bytes that a process holds itself, counting pages shared by forking as its own."""
    return _sum_of(f"/proc/{pid}/status", HELD)


def proportional_memory(pid: int) -> int:
    """Return the bytes that a process holds, counting its share of pages that others hold too."""
    try:
        pages = _sum_of(f"/proc/{pid}/smaps_rollup", HELD_IN_PROPORTION)
    except PermissionError:
        return private_memory(pid)
    return pages + _sum_of(f"/proc/{pid}/status", (b"VmPTE:",))


def available_memory() -> int:
    """Return the bytes that the whole machine could still give."""
    return _sum_of("/proc/meminfo", (b"MemAvailable:",))


def _sum_of(path: str, names: tuple[bytes, ...]) -> int:
    """Add up lines such as `RssAnon:  12 kB`; a process that has ended holds nothing."""
    try:
        lines = Path(path).read_bytes().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * KIB for line in lines if line.startswith(names))


def end_what_holds_too_much(limit: int) -> int:
    """Kill the largest processes below this one until the rest fit; return how many were killed."""
    # quick to ask and never too low; the exact sum is slow
    if sum(map(private_memory, descendants(os.getpid()))) <= limit:
        return 0
    ended = 0
    with _held_still() as pids:
        held = {pid: proportional_memory(pid) for pid in pids}
        for pid in sorted(held, key=held.__getitem__, reverse=True):
            if sum(held.values()) <= limit:
                break
            held.pop(pid)
            ended += 1
            _signal(pid, signal.SIGKILL)
    return ended


@contextlib.contextmanager
def _held_still() -> Iterator[set[int]]:
    """Stop all processes below this one for a while: they would take more, and the processor."""
    stopped: set[int] = set()
    try:
        while new := set(descendants(os.getpid())) - stopped:
            for pid in new:
                _signal(pid, signal.SIGSTOP)
            stopped |= new
        yield stopped
    finally:
        for pid in stopped:
            _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
