"""The warm process's duties: load, fork, limit, and end a submission's whole process tree.

It is itself the fork of a server, which has loaded what all warm processes need.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.abc
import importlib.machinery
import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from . import confinement, not_allowed, protocol, serving
from .forking import fork, fork_into
from .libraries import (
    fill_holes,
    forget_methods,
    load_libraries,
    load_modules,
    seed_generators,
    use_large_pages,
)
from .memory import available_memory, end_what_holds_too_much
from .process_tree import end_descendants
from .shell import NotebookShell

PR_SET_CHILD_SUBREAPER = 36
# of the longest list of cores
CORES_BYTES = 2**16
WATCH_SECONDS = 0.05
WATCH_SHARE = 0.1
# the part of what a submission may have by which memory may become less between two looks
WATCH_GROWTH = 16
# how the warm process itself was started; what a student starts shall not inherit it
OWN_ENVIRONMENT = ("PYTHONMALLOC",)
WITHHELD = ("lossref", "autograder", "tests")


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


class WithheldModules(importlib.abc.MetaPathFinder):
    """Refuses to import the reference and the grader in a student's process."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Raise for a withheld module; leave every other to the finders that follow."""
        if name.partition(".")[0] in WITHHELD:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def main(descriptor: int, loaded: int) -> None:
    """Load libraries, and say so; fork a process for each connection that comes, to serve it."""
    line = socket.socket(fileno=descriptor)
    # nothing that libraries make while they are imported is garbage
    gc.disable()
    for name in OWN_ENVIRONMENT:
        os.environ.pop(name, None)
    withhold_modules()
    shell = load_libraries()
    gc.collect()
    gc.freeze()
    # nobody reads it, so that whoever asks finds it there
    with contextlib.suppress(OSError):
        os.write(loaded, b"loaded")
    os.close(loaded)
    while True:
        cores, descriptors, _, _ = socket.recv_fds(line, CORES_BYTES, 1)
        if not cores:
            # bubblewrap would end with this process all that it has forked
            _wait_for_all()
        _reap()
        if os.fork() == 0:
            line.close()
            # a container can take cores away at any time, and forbid to choose one
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, json.loads(cores))
            serve(socket.socket(fileno=descriptors[0]), shell)
        os.close(descriptors[0])


def _reap() -> None:
    """Let the kernel forget the processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(trusted: socket.socket, shell: NotebookShell) -> NoReturn:
    """Load what the first message names; then serve the trusted side to its end."""
    try:
        modules, names, operators = protocol.receive(trusted)
    except (EOFError, OSError):
        os._exit(0)
    load_modules(modules)
    not_allowed.withdraw(names, operators)
    _become_reaper()
    forget_methods(shell)
    seed_generators()
    gc.collect()
    gc.freeze()
    gc.enable()
    fill_holes()
    use_large_pages()
    protocol.send(trusted, ["ready"])
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


def withhold_modules() -> None:
    """Take the folders that hold the grader from the path, and refuse its modules by name."""
    sys.path[:] = [
        entry
        for entry in sys.path
        if not any((Path(entry) / name / "__init__.py").is_file() for name in WITHHELD)
    ]
    sys.meta_path.insert(0, WithheldModules())


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
            _wait_for_all()
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


def _wait_for_all() -> NoReturn:
    """Stay until the last process below ends; hold nothing open meanwhile."""
    os.closerange(3, 4096)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(0)


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
