"""Starts the process that submissions are forked from, if need be before anything slow is loaded.

That process and the one that started it then load their libraries side by side.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder import confinement

# covered in the student's file system should the course lie inside a folder that is shown there
SECRET_FOLDERS = ("solutions", "tests", "lossref", "autograder", "course")
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    # one heap for all, which `child/libraries.py` packs and has in large pages
    "PYTHONMALLOC": "malloc",
}
END_SECONDS = 10
Place = tuple[bool, tuple[Path, ...], tuple[str, ...]]
_ahead: dict[Place, Spawned] = {}
_spawned_ahead = False


def secret_folders(root: Path | None) -> list[Path]:
    """Return the folders of a course that no student's process may see."""
    return [root / name for name in SECRET_FOLDERS] if root is not None else []


@dataclass
class Spawned:
    """A process that loads its libraries, the connection to it, and a folder of its own."""

    process: subprocess.Popen[bytes]
    connection: socket.socket
    home: str

    def close(self, *, at_once: bool) -> None:
        """End the process, which does so itself when its connection is closed."""
        self.connection.close()
        if at_once:
            self.process.kill()
        try:
            self.process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def spawn(confined: bool, secret: Sequence[Path] = (), without: Sequence[str] = ()) -> Spawned:
    """Return such a process: the one that was started ahead, if it was started for the same.

    Raises
    ------
    ConfinementUnavailableError
        If `confined` and this machine cannot confine a process.
    """
    return _ahead.pop(_place(confined, secret, without), None) or _start(confined, secret, without)


def spawn_ahead(confined: bool, root: Path | None) -> None:
    """Start what the first submission of this process will need."""
    global _spawned_ahead
    if _spawned_ahead:
        return
    _spawned_ahead = True
    secret = secret_folders(root)
    spawned = _start(confined, secret)
    _ahead[_place(confined, secret)] = spawned
    atexit.register(_close_unused)


def _close_unused() -> None:
    while _ahead:
        _ahead.popitem()[1].close(at_once=True)


def _place(confined: bool, secret: Sequence[Path], without: Sequence[str] = ()) -> Place:
    return confined, tuple(secret), tuple(without)


def _start(confined: bool, secret: Sequence[Path], without: Sequence[str] = ()) -> Spawned:
    if confined:
        confinement.require_confinement()
    trusted, inherited = socket.socketpair()
    own_home = tempfile.mkdtemp(prefix="autograder-")
    runner, command, home = str(confinement.CHILD_FOLDER), [], own_home
    if confined:
        command = confinement.sandbox_command(secret, without)
        runner, home = confinement.runner_folder(without), confinement.temporary_folder()
    environment = {**ENVIRONMENT, "HOME": home, "MPLCONFIGDIR": home}
    for name, value in environment.items() if confined else ():
        command += ["--setenv", name, value]
    with inherited:
        process = subprocess.Popen(
            # as isolated as -I, but for the environment, of which nothing is left but our own
            [*command, sys.executable, "-sP", runner, str(inherited.fileno())],
            pass_fds=[inherited.fileno()],
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={**environment, "PATH": os.environ.get("PATH", environment["PATH"])},
        )
    return Spawned(process, trusted, own_home)
