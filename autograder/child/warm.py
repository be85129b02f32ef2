"""The warm process's duties: load, fork, limit, and end a submission's whole process tree."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.abc
import importlib.machinery
import os
import resource
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from . import protocol, serving
from .process_tree import end_descendants
from .shell import NotebookShell, make_shell, run_cell

PR_SET_CHILD_SUBREAPER = 36
WITHHELD = ("lossref", "autograder", "tests")


class WithheldModules(importlib.abc.MetaPathFinder):
    """Refuses to import the reference and the grader in a student's process."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Raise for a withheld module; leave every other to the finders that follow."""
        if name.partition(".")[0] in WITHHELD:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def main(descriptor: int) -> None:
    """Serve the trusted side until it closes the connection."""
    trusted = socket.socket(fileno=descriptor)
    withhold_modules()
    shell = load_libraries()
    _become_reaper()
    gc.collect()
    gc.freeze()
    protocol.send(trusted, ["ready"])
    while True:
        try:
            request, descriptors = protocol.receive_with_descriptors(trusted, 1)
        except (EOFError, OSError):
            end_descendants()
            os._exit(0)
        if request[0] == "start":
            pid = fork_submission(trusted, descriptors[0], shell, request[1], request[2])
            os.close(descriptors[0])
            protocol.send(trusted, ["started", pid])
        elif request[0] == "end":
            protocol.send(trusted, ["ended", end_descendants()])


def withhold_modules() -> None:
    """Take the folders that hold the grader from the path, and refuse its modules by name."""
    sys.path[:] = [
        entry
        for entry in sys.path
        if not any((Path(entry) / name / "__init__.py").is_file() for name in WITHHELD)
    ]
    sys.meta_path.insert(0, WithheldModules())


def load_libraries() -> NotebookShell:
    """Import what notebooks use and do once what is slow the first time."""
    import torch

    torch.set_num_threads(1)
    x = torch.ones(2, 2, requires_grad=True)
    torch.autograd.grad((x @ x).sum(), x)
    with contextlib.suppress(AssertionError):
        torch.testing.assert_close(x, x + 1)
    shell = make_shell()
    run_cell(shell, "1 / 0")
    run_cell(shell, "import matplotlib.pyplot as plt; plt.plot([0, 1]); plt.show()")
    shell.reset(new_session=True)
    shell.user_ns.pop("plt", None)
    shell.execution_count = 1
    return shell


def _become_reaper() -> None:
    """Adopt orphans, so that no process of a submission can leave the tree."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def fork_submission(
    trusted: socket.socket, descriptor: int, shell: NotebookShell, folder: str, limits: list[Any]
) -> int:
    """Fork the process of one submission and return its number."""
    pid = os.fork()
    if pid == 0:
        trusted.close()
        _run_submission(descriptor, shell, folder, limits)
    return pid


def _run_submission(
    descriptor: int, shell: NotebookShell, folder: str, limits: list[Any]
) -> NoReturn:
    os.setsid()
    os.chdir(folder)
    os.environ.update(HOME=folder, TMPDIR=folder)
    _limit_resources(*limits)
    serving.serve_notebook(socket.socket(fileno=descriptor), shell)


def _limit_resources(memory: int, cpu_seconds: int, file_size: int, open_files: int) -> None:
    for kind, limit in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
