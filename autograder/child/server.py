"""The server of warm processes: loads libraries, makes them ready for an exercise, and forks.

For the exercise that is graded it forks a parent, which loads and withdraws what this one asks for
and from which all its warm processes are forked: they share what was slow to make.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.machinery
import json
import os
import select
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from . import not_allowed
from .forking import fork
from .libraries import (
    fill_holes,
    forget_methods,
    load_libraries,
    load_modules,
    use_large_pages,
)
from .process_tree import forget_ended, wait_for_all
from .shell import NotebookShell
from .warm import serve

# more than the kernel takes for one message
REQUEST_BYTES = 2**18
# how the server itself was started; what a student starts shall not inherit it
OWN_ENVIRONMENT = ("PYTHONMALLOC",)
WITHHELD = ("lossref", "autograder", "tests")

Request = dict[str, Any]


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
    """Load libraries, and say so; have a warm process forked for each connection that comes."""
    line, told = socket.socket(fileno=descriptor), socket.socket(fileno=loaded)
    # nothing that libraries make while they are imported is garbage
    gc.disable()
    for name in OWN_ENVIRONMENT:
        os.environ.pop(name, None)
    withhold_modules()
    shell = load_libraries()
    gc.collect()
    gc.freeze()
    # for who has asked by now, all is loaded when the parent of what was asked for is ready
    if not select.select([line], [], [], 0)[0]:
        _say_loaded(told)
    need, parent = None, None
    while True:
        request, descriptors = _next_request(line)
        if parent is None or need != request["need"] or not _pass_on(parent, request, descriptors):
            if parent is not None:
                parent.close()
            need = request["need"]
            parent, inherited = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if os.fork() == 0:
                for number in (parent.detach(), line.detach(), *descriptors):
                    os.close(number)
                serve_exercise(inherited, told, shell, need)
            inherited.close()
            told.close()
            _pass_on(parent, request, descriptors)
        for number in descriptors:
            os.close(number)


def serve_exercise(
    line: socket.socket, told: socket.socket, shell: NotebookShell, need: Sequence[Sequence[str]]
) -> NoReturn:
    """Load and withdraw what an exercise needs; fork a warm process for each connection."""
    modules, names, operators = need
    load_modules(modules)
    not_allowed.withdraw(names, operators)
    forget_methods(shell)
    gc.collect()
    gc.freeze()
    fill_holes()
    use_large_pages()
    _say_loaded(told)
    while True:
        request, descriptors = _next_request(line)
        # what a usual fork writes to would lie in small pages, and slow every submission's fork
        if fork() == 0:
            line.close()
            # a container can take cores away at any time, and forbid to choose one
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, request["cores"])
            serve(socket.socket(fileno=descriptors[0]), shell)
        os.close(descriptors[0])


def _say_loaded(told: socket.socket) -> None:
    """Say that all is loaded to whoever asks; nobody has to."""
    with told, contextlib.suppress(OSError):
        told.send(b"loaded")


def _next_request(line: socket.socket) -> tuple[Request, list[int]]:
    """Return the next request, and the connection that came with it, if one did.

    When nobody is left to ask, stay until the last process below ends: bubblewrap would end with
    the server all that this has forked.
    """
    message, descriptors, _, _ = socket.recv_fds(line, REQUEST_BYTES, 1)
    if not message:
        wait_for_all()
    forget_ended()
    return json.loads(message), descriptors


def _pass_on(parent: socket.socket, request: Request, descriptors: Sequence[int]) -> bool:
    """Have a parent fork a process for the connection, if one came; tell whether it is there."""
    try:
        if descriptors:
            socket.send_fds(parent, [json.dumps(request).encode()], list(descriptors))
    except OSError:
        return False
    return True


def withhold_modules() -> None:
    """Take the folders that hold the grader from the path, and refuse its modules by name."""
    sys.path[:] = [
        entry
        for entry in sys.path
        if not any((Path(entry) / name / "__init__.py").is_file() for name in WITHHELD)
    ]
    sys.meta_path.insert(0, WithheldModules())
