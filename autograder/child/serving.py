"""Runs a notebook's cells, forks snapshots at grade cells, and answers calls from them."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from . import protocol
from .calls import answer
from .forking import fork
from .shell import NotebookShell, run_cell


def serve_notebook(connection: socket.socket, shell: NotebookShell) -> NoReturn:
    """Obey the trusted side's requests: run a cell, fork a snapshot, or become one."""
    try:
        while True:
            request, descriptors = protocol.receive_with_descriptors(connection, 1)
            if request[0] == "run":
                protocol.send(connection, ["outputs", _run(shell, request[1])])
            elif request[0] == "snapshot":
                if fork() == 0:
                    serve_snapshot(_instead(connection, descriptors[0]), shell.user_ns)
                os.close(descriptors[0])
            elif request[0] == "become snapshot":
                serve_snapshot(_instead(connection, descriptors[0]), shell.user_ns)
    except (EOFError, OSError):
        os._exit(0)


def _run(shell: NotebookShell, source: str) -> str:
    """Run a cell; an interrupt that arrives between two cells is not an error."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        outputs = run_cell(shell, source)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            # what IPython itself trips over, such as an exception that cannot be shown
            name = type(error).__name__
            shell.recorder.write("stderr", f"This cell could not be run to its end: {name}.\n")
        outputs = shell.recorder.finish()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return json.dumps(outputs, default=repr)


def serve_snapshot(requests: socket.socket, namespace: dict[str, Any]) -> NoReturn:
    """Fork a server for each check, so that what one check's calls break is lost to that check."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _discard_output()
    try:
        protocol.send(requests, ["ready"])
        while True:
            _, descriptors = protocol.receive_with_descriptors(requests, 1)
            if fork() == 0:
                serve_calls(_instead(requests, descriptors[0]), namespace)
            os.close(descriptors[0])
    except (EOFError, OSError):
        os._exit(0)


def serve_calls(connection: socket.socket, namespace: dict[str, Any]) -> NoReturn:
    """Answer the calls of one check."""
    try:
        protocol.send(connection, ["ready"])
        while True:
            protocol.send(connection, answer(protocol.receive(connection), namespace))
    except (EOFError, OSError):
        os._exit(0)


def _instead(connection: socket.socket, descriptor: int) -> socket.socket:
    """Return the connection turned into another, which costs a fork less than a new object."""
    os.dup2(descriptor, connection.fileno())
    os.close(descriptor)
    return connection


def _discard_output() -> None:
    """Show nothing of what a check's call prints, since it could print the check's inputs."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
