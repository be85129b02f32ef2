"""The process that warm processes descend from, which loads their libraries once for all.

It can be started before anything slow is loaded: it and the process that started it then load their
libraries side by side. What a process forks later uses it too, so that workers share one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
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
    # the number of a submission's user has no name
    "USER": "student",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    # one heap for all, which `child/libraries.py` packs and has in large pages
    "PYTHONMALLOC": "malloc",
    # there is no network: `%pip install` would try again for eight seconds, in every notebook
    "PIP_RETRIES": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    # `torch.compile` would make headers that are larger than a file may be
    "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
}
# a server that still loads its libraries, or whose warm processes go on, does not end by itself
END_SECONDS = 1
Place = tuple[bool, tuple[Path, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Need:
    """What the processes of an exercise's notebooks need.

    `modules` are loaded; `names` and `operators` withdrawn, since they are to be written by hand.
    """

    modules: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()


_current: ForkServer | None = None
_retired: list[ForkServer] = []


def secret_folders(root: Path | None) -> list[Path]:
    """Return the folders of a course that no student's process may see."""
    return [root / name for name in SECRET_FOLDERS] if root is not None else []


class ForkServer:
    """A process that has a warm process forked for each connection that it is sent.

    Its line keeps messages apart, so that all processes that inherit it can send one.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.owner = os.getpid()
        # confined, it has one that nobody else sees
        self.home = "" if place[0] else tempfile.mkdtemp(prefix="autograder-")
        self.line, inherited = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.loaded, loaded = socket.socketpair()
        confined, secret, without = place
        runner, command, home = str(confinement.CHILD_FOLDER), [], self.home
        if confined:
            command = confinement.sandbox_command(secret, without)
            runner, home = confinement.runner_folder(without), confinement.temporary_folder()
        environment = {**ENVIRONMENT, "HOME": home, "MPLCONFIGDIR": home}
        for name, value in environment.items() if confined else ():
            command += ["--setenv", name, value]
        passed = [inherited.fileno(), loaded.fileno()]
        with inherited, loaded:
            self.process = subprocess.Popen(
                # as isolated as -I, but for the environment, of which nothing is left but our own
                [*command, confinement.interpreter(), "-sP", runner, *map(str, passed)],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={**environment, "PATH": os.environ.get("PATH", environment["PATH"])},
            )

    def fork(self, need: Need, *connections: socket.socket) -> None:
        """Have a warm process forked that serves a connection, on the cores of this process.

        Without a connection, have all made ready for it.
        """
        cores = sorted(os.sched_getaffinity(0))
        request = {"need": [need.modules, need.names, need.operators], "cores": cores}
        descriptors = [connection.fileno() for connection in connections]
        socket.send_fds(self.line, [json.dumps(request).encode()], descriptors)

    def is_loading(self) -> bool:
        """Tell whether the process still loads its libraries."""
        said = select.poll()
        said.register(self.loaded, select.POLLIN)
        return not said.poll(0)

    def has_ended(self) -> bool:
        """Tell whether the process has ended, as far as one that it is not a child of can know."""
        return os.getpid() == self.owner and self.process.poll() is not None

    def hangs_up(self) -> bool:
        """Wait a moment for the process to end; tell whether it did, whoever asks."""
        ended = select.poll()
        ended.register(self.line, 0)
        return bool(ended.poll(END_SECONDS * 1000))

    def hang_up(self) -> None:
        """Have nothing more forked from the server."""
        self.line.close()
        self.loaded.close()

    def close(self) -> None:
        """End the server; confined, all that it forked ends with it."""
        self.hang_up()
        if os.getpid() != self.owner:
            return
        try:
            self.process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.home:
            shutil.rmtree(self.home, ignore_errors=True)


def fork_server(
    confined: bool, secret: Sequence[Path] = (), without: Sequence[str] = ()
) -> ForkServer:
    """Return the server of such warm processes: that of the last one, if it is of the same kind.

    Raises
    ------
    ConfinementUnavailableError
        If `confined` and this machine cannot confine a process.
    """
    global _current
    place = confined, tuple(secret), tuple(without)
    if _current is None or _current.place != place or _current.has_ended():
        if confined:
            confinement.require_confinement()
        _retire()
        _current = ForkServer(place)
    return _current


def start_ahead(confined: bool, root: Path | None) -> None:
    """Start what the first submission of this process, and of those it forks, will need."""
    if _current is None:
        fork_server(confined, secret_folders(root))


def make_ready(need: Need) -> None:
    """Have the server that was started ahead, if there is one, make ready what is needed first."""
    if _current is not None:
        with contextlib.suppress(ConnectionError):
            _current.fork(need)


def is_loading() -> bool:
    """Tell whether what this process would fork from still loads its libraries."""
    return _current is not None and _current.is_loading()


def fork_warm_process(
    connection: socket.socket,
    need: Need,
    confined: bool,
    secret: Sequence[Path] = (),
    without: Sequence[str] = (),
) -> None:
    """Have a warm process forked that serves a connection.

    Raises
    ------
    ConfinementUnavailableError
        If `confined` and this machine cannot confine a process.
    """
    try:
        fork_server(confined, secret, without).fork(need, connection)
    except ConnectionError:
        _retire()
        fork_server(confined, secret, without).fork(need, connection)


def leave_server_that_ends() -> None:
    """Have nothing more forked from a server that is about to end, as a forked process may have."""
    if _current is not None and _current.hangs_up():
        _retire()


def _retire() -> None:
    """Have nothing more forked from the current server; what it has forked goes on."""
    global _current
    if _current is not None:
        _current.hang_up()
        _retired.append(_current)
    _current = None
    for server in [server for server in _retired if server.has_ended()]:
        server.close()
        _retired.remove(server)


@atexit.register
def _close_all() -> None:
    for server in (_current, *_retired):
        if server is not None:
            server.close()
