"""Forks a process that has no other threads, at the price of the memory alone."""

from __future__ import annotations

import _thread
import ctypes
import os

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
