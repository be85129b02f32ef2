"""What runs in worker processes, and in the one that they are forked from.

That one loads what requests need, once for all, and works on none itself: nothing that a student
wrote reaches what another's worker is forked from.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import BrokenExecutor
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from autograder.confinement import ConfinementUnavailableError
from autograder.worker_process import (
    INTERRUPTS,
    REHEARSAL_SECONDS,
    REHEARSE,
    TRUSTED_SECONDS,
    Outcome,
    Request,
)


def main() -> None:
    """Fork a worker for each connection that comes, until nobody is left to ask for one."""
    client = Connection(int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: _end())
    with contextlib.suppress(EOFError, OSError):
        while True:
            if client.recv_bytes() == b"fork":
                _fork(client)
            else:
                _, status = os.waitpid(int(client.recv_bytes()), 0)
                client.send_bytes(str(os.waitstatus_to_exitcode(status)).encode())
    _remove_after_the_last_worker(sys.argv[2])
    _end()


def _remove_after_the_last_worker(folder: str) -> None:
    """Remove the run's temporary folder, which a client that was killed cannot."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    atexit._run_exitfuncs()
    with contextlib.suppress(ChildProcessError):
        while os.wait():
            pass
    shutil.rmtree(folder, ignore_errors=True)


def _fork(client: Connection) -> None:
    core, function, root, content = (client.recv_bytes() for _ in range(4))
    connection = Connection(recv_handle(client))
    _prepare((function, root, content))
    if REHEARSE in sys.argv:
        sys.argv.remove(REHEARSE)
        _rehearse((function, root, content))
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # a command that a shell starts in the background ignores it, and so would this
        signal.signal(signal.SIGINT, signal.default_int_handler)
        client.close()
        try:
            work(connection, core)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    connection.close()
    client.send_bytes(str(pid).encode())


def _prepare(request: Request) -> None:
    """Load what such a request needs, if its module has a function `prepare` for that."""
    # the worker says what is wrong, when it does the same
    with contextlib.suppress(Exception):
        module, _, arguments = _call_in(request)
        if hasattr(module, "prepare"):
            module.prepare(*arguments)


def _rehearse(request: Request) -> None:
    """Try out what such a request needs; end if that takes long or leaves something behind.

    The server that takes this one's place does not try it again.
    """
    left_nothing = True
    signal.setitimer(signal.ITIMER_REAL, REHEARSAL_SECONDS)
    # the worker says what is wrong, when it does the same
    with contextlib.suppress(Exception):
        module, _, arguments = _call_in(request)
        if hasattr(module, "rehearse"):
            left_nothing = False
            left_nothing = module.rehearse(*arguments)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not left_nothing:
        _end()


def work(connection: Connection, core: bytes) -> NoReturn:
    """Answer the requests that come over a connection, until it is closed."""
    # a container can take cores away at any time, and forbid to choose one
    with contextlib.suppress(OSError):
        if core:
            os.sched_setaffinity(0, [int(core)])
    requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    working = threading.Event()
    threading.Thread(target=_receive, args=(connection, requests, working), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        while (request := requests.get()) is not None:
            working.set()
            # nothing that a student wrote can keep the process busy for good: the signal ends it
            signal.setitimer(signal.ITIMER_PROF, TRUSTED_SECONDS)
            kind, content = answer(request)
            signal.setitimer(signal.ITIMER_PROF, 0)
            working.clear()
            connection.send_bytes(kind.encode())
            connection.send_bytes(content)
    _end()


def _end() -> NoReturn:
    """End this process at once: to take torch apart takes half a second."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def _receive(
    connection: Connection, requests: queue.SimpleQueue[Request | None], working: threading.Event
) -> None:
    """Pass on requests; when nobody is left to answer, interrupt the work and end the process."""
    try:
        while True:
            function, root, content = (connection.recv_bytes() for _ in range(3))
            requests.put((function, root, content))
    except (EOFError, OSError):
        requests.put(None)
    for _ in range(INTERRUPTS):
        if working.is_set():
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    os._exit(1)


def answer(request: Request) -> Outcome:
    """Call the function that a request names."""
    try:
        module, name, arguments = _call_in(request)
        return Outcome("done", getattr(module, name)(*arguments))
    except ConfinementUnavailableError as error:
        return Outcome.of_words("unconfined", str(error))
    except BrokenExecutor as error:
        return Outcome.of_words("ended", str(error))
    except Exception as error:
        return Outcome.of_words("fault", f"{type(error).__name__}: {error}")


def _call_in(request: Request) -> tuple[ModuleType, str, list[Any]]:
    """Return the module and the name of the function that a request names, and the arguments."""
    function, root, content = request
    module, name = function.decode().split(":")
    where = [Path(root.decode())] if root else []
    return importlib.import_module(module), name, [content, *where]


if __name__ == "__main__":
    main()
