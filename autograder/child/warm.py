"""The warm process's duties: fork, limit, and end a submission's whole process tree.

It is itself a fork of a process in which all is loaded that submissions need.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from . import confinement, not_allowed, protocol, serving
from .forking import fork, fork_into
from .libraries import seed_generators
from .memory import available_memory, end_what_holds_too_much
from .process_tree import end_descendants, wait_for_all
from .shell import NotebookShell

PR_SET_CHILD_SUBREAPER = 36
WATCH_SECONDS = 0.05
WATCH_SHARE = 0.1
# the part of what a submission may have by which memory may become less between two looks
WATCH_GROWTH = 16


@dataclass(frozen=True)
class Setting:
    """What one submission gets: its folder, its limits, and how it is confined.

    `uid` is the user it becomes where the warm process is root, else 0; `limits` are those of
    `confinement.limit_resources`; `names` and `operators` are what the exercise asks to be written
    by hand, beside what the warm process has withdrawn already; `without` names the layers of
    confinement to leave out, which only tests do.
    """

    folder: str
    folder_size: int
    limits: Sequence[int]
    confined: bool
    uid: int
    forbidden_calls: bytes
    names: Sequence[str]
    operators: Sequence[str]
    without: Sequence[str]

    def has(self, layer: str) -> bool:
        """Tell whether a layer of confinement is on."""
        return self.confined and layer not in self.without


def serve(trusted: socket.socket, shell: NotebookShell) -> NoReturn:
    """Serve the trusted side to its end."""
    _become_reaper()
    # here, since Python draws a new seed in a usual fork
    seed_generators()
    gc.enable()
    try:
        protocol.send(trusted, ["ready"])
    except OSError:
        os._exit(0)
    memory_limit = ended_for_memory = 0
    while True:
        if memory_limit:
            ended_for_memory += watch_memory(trusted, memory_limit)
        try:
            request, descriptors = protocol.receive_with_descriptors(trusted, 1)
        except (EOFError, OSError):
            end_descendants()
            os._exit(0)
        if request[0] == "start":
            setting = Setting(*request[1:])
            fork_submission(trusted, descriptors[0], shell, setting)
            os.close(descriptors[0])
            ended_for_memory = 0
            memory_limit = 0 if "memory" in setting.without else setting.limits[0]
        elif request[0] == "why":
            protocol.send(trusted, ["memory" if ended_for_memory else ""])
        elif request[0] == "end":
            memory_limit = 0
            protocol.send(trusted, ["ended", end_descendants()])


def watch_memory(trusted: socket.socket, limit: int) -> int:
    """Watch until the trusted side says something; return how many processes had to be killed.

    A look that takes long is not followed by another at once, unless memory becomes less meanwhile.
    """
    ended, next_look, low = 0, 0.0, 0
    while not select.select([trusted], [], [], WATCH_SECONDS)[0]:
        if time.monotonic() < next_look and available_memory() > low:
            continue
        start = time.process_time()
        low = available_memory() - limit // WATCH_GROWTH
        ended += end_what_holds_too_much(limit)
        next_look = time.monotonic() + (time.process_time() - start) / WATCH_SHARE
    return ended


def _become_reaper() -> None:
    """Adopt orphans, so that no process of a submission can leave the tree."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def fork_submission(
    trusted: socket.socket, descriptor: int, shell: NotebookShell, setting: Setting
) -> None:
    """Fork the process of one submission; it says on its own connection that it is ready."""
    own_user = None if setting.uid else (os.getuid(), os.getgid())
    flags = confinement.namespaces(setting.without, own_user=own_user is not None)
    if (fork_into(flags) if setting.confined else fork()) == 0:
        trusted.close()
        connection = socket.socket(fileno=descriptor)
        try:
            _confine(setting, own_user)
            not_allowed.withdraw(setting.names, setting.operators)
            protocol.send(connection, ["confined"])
            # on its own connection: what the warm process reads, later submissions could find
            _unpack(setting.folder, protocol.receive(connection))
        except OSError as error:
            protocol.send(connection, ["failed", str(error)])
            os._exit(1)
        protocol.send(connection, ["ready"])
        serving.serve_notebook(connection, shell)


def _confine(setting: Setting, own_user: tuple[int, int] | None) -> None:
    """Give up what a submission may not have; only the process that returns goes on."""
    os.setsid()
    if setting.confined:
        confinement.settle_in_namespaces(own_user)
        confinement.end_with_parent()
        # the first process of a namespace is deaf to its own signals, so the notebook is the second
        if fork() != 0:
            wait_for_all()
        os.setsid()
        confinement.mount_processes()
    if setting.has("folders"):
        confinement.mount_private_folders(str(Path(setting.folder).parent), setting.folder_size)
    if setting.has("user") and setting.uid:
        confinement.become_user(setting.uid)
    if setting.has("capabilities"):
        confinement.drop_capabilities()
    if "limits" not in setting.without:
        confinement.limit_resources(setting.limits)
    confinement.forbid_new_privileges()
    if setting.has("calls"):
        confinement.filter_system_calls(setting.forbidden_calls)


def _unpack(folder_name: str, files: Sequence[tuple[str, bytes]]) -> None:
    """Write the submission's files into its own folder and go there."""
    folder = Path(folder_name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.chdir(folder)
    # a kernel, too, finds the modules that were handed in
    sys.path.insert(0, "")
    os.environ.update(HOME=folder_name, TMPDIR=folder_name)
