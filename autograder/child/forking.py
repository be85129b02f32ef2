"""Forks a process that has no other threads, at the price of the memory alone."""

from __future__ import annotations

import _thread
import ctypes
import os
import platform
import signal

# of the system call, which has no name in the C library that would do without a second stack
CLONE_NUMBERS = {"x86_64": 56, "aarch64": 220, "riscv64": 220}

_libc = ctypes.PyDLL(None, use_errno=True)
_other_threads = _thread._count


def fork() -> int:
    """Fork as `os.fork` does, but put nothing in order that only another thread could have upset.

    CPython and the libraries make their locks anew in each fork, which touches 200 pages of memory
    that the kernel then has to copy. Where no other thread runs, nobody can hold these locks.
    """
    # a C library's threads, which hold no lock of Python's, are not counted
    if _other_threads():
        return os.fork()
    pid: int = _libc.fork()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "fork failed")
    return pid


def fork_into(namespaces: int) -> int:
    """Fork a process that is the first of its own namespaces, those of the `CLONE_NEW` flags.

    The C library does not know of it, so that process should do little more than fork again.
    """
    number = CLONE_NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(
            f"processes cannot be confined on a machine of type {platform.machine()!r}, "
            f"expected {' or '.join(CLONE_NUMBERS)}"
        )
    flags, nothing = ctypes.c_long(namespaces | signal.SIGCHLD), ctypes.c_long(0)
    pid: int = _libc.syscall(number, flags, nothing, nothing, nothing, nothing)
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"clone: {os.strerror(error)}")
    return pid
