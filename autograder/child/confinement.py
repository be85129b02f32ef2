"""What the student's process gives up before the first line of the student's code runs.

The warm process already lives in a file system without the grader (see
`autograder/confinement.py`). Each submission then gets namespaces, a temporary folder and, where
the warm process is root, a user of its own; limits; and a system-call filter.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REC = 0x4000
MS_PRIVATE = 0x40000
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522

# the kernel has few for the whole machine
TERMINALS = 32
# queued for all processes of a user, of whom the grader may be one
QUEUED_SIGNALS = 1000

libc = ctypes.CDLL(None, use_errno=True)


NAMESPACES = {"processes": CLONE_NEWPID, "messages": CLONE_NEWIPC, "network": CLONE_NEWNET}


def namespaces(without: Sequence[str] = (), *, own_user: bool) -> int:
    """Return the flags of the namespaces that a submission gets for itself."""
    flags = CLONE_NEWNS | CLONE_NEWUTS | (CLONE_NEWUSER if own_user else 0)
    for layer, flag in NAMESPACES.items():
        flags |= 0 if layer in without else flag
    return flags


def settle_in_namespaces(own_user: tuple[int, int] | None) -> None:
    """Keep mounts to oneself; in a user namespace, be the same user and group as outside."""
    if own_user is not None:
        uid, gid = own_user
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _require(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")


def mount_private_folders(temporary: str, size: int) -> None:
    """Cover the writable folders with empty ones of limited size, terminals among them."""
    options = f"size={size},nr_inodes=10000,mode=1777".encode()
    for target in (temporary.encode(), b"/dev/shm"):
        _require(
            libc.mount(b"tmpfs", target, b"tmpfs", MS_NOSUID | MS_NODEV, options), "mount tmpfs"
        )
    terminals = f"newinstance,ptmxmode=0666,mode=0620,max={TERMINALS}".encode()
    _require(
        libc.mount(b"devpts", b"/dev/pts", b"devpts", MS_NOSUID | MS_NOEXEC, terminals),
        "mount devpts",
    )


def mount_processes() -> None:
    """Show in /proc the processes of the own namespace only.

    An ordinary user may not; then /proc shows the warm process too, which nothing here can open.
    """
    libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)


def become_user(uid: int) -> None:
    """Become a user that owns nothing; only root can."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def limit_resources(limits: Sequence[int]) -> None:
    """Set the hard limits of memory, CPU time, file size, open files, processes, and signals."""
    kinds = (
        resource.RLIMIT_DATA,
        resource.RLIMIT_CPU,
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_NOFILE,
        resource.RLIMIT_NPROC,
    )
    for kind, limit in zip(kinds, limits, strict=True):
        resource.setrlimit(kind, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (QUEUED_SIGNALS, QUEUED_SIGNALS))


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _require(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def drop_capabilities() -> None:
    """Give up all capabilities, those inside the process's own user namespace too."""
    header = struct.pack("Ii", LINUX_CAPABILITY_VERSION_3, 0)
    _require(libc.capset(header, bytes(24)), "capset")
    _require(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl(PR_CAP_AMBIENT)")


def forbid_new_privileges() -> None:
    """Let no program that this process starts gain privileges."""
    _require(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def filter_system_calls(program: bytes) -> None:
    """Load a system-call filter that the trusted side compiled."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _require(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0), "prctl(PR_SET_SECCOMP)")


def _require(status: Any, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
