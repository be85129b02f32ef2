"""The course that the notebooks in `attacks/` attack, and what they must not achieve there.

Each notebook is one attack. Its front matter says what it tries (`title`), how many points it may
earn by honest work (`may-earn`, default 0), what the record must say (`record`, a regular
expression), under which limits it runs (`limits`), how often its cell is repeated (`cells`),
whether the same notebook is run before as an accomplice (`accomplice`), and which layer of
confinement alone stops it (`layer`). `tamper` is what the student did to the grade cell, or to the
notebook's own metadata, before handing in; Markdown cells are what the student wrote. An attack
that finds or does what it must not says so with `loot`; one that is injected into a page has the
word `injected` where it would run or fetch.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from nbformat import NotebookNode

from autograder.assignment import Assignment
from autograder.confinement import temporary_folder

ATTACKS = Path(__file__).parent / "attacks"
REPOSITORY = Path(__file__).parents[2]
TOKEN = "secret-token"
HIDDEN_MARK = "mark-of-the-hidden-check"
OTHER_MARK = "other-students-mark"
LATER_INPUT = 12345.678
LOOT = "LOOT:"
PLAIN_ATTRIBUTES = ("alt", "title", "class", "id")
PICTURE = "data:image/png;base64,"
BYSTANDER = (sys.executable, "-c", "import time; time.sleep(3600)", TOKEN)

CHECKS = f'''
import pytest
import torch
from autograder.checking import Tolerance

MARK = "{HIDDEN_MARK}"


@pytest.mark.points(2)
def test_values(student, generator):
    """The values and the gradient of x times x."""
    x = torch.randn(5, generator=generator, dtype=torch.float32)
    student.check("square", lambda x: x * x, x, tolerance=Tolerance(1e-6), gradient_of=(0,))


@pytest.mark.points(1)
def test_large(student):
    """The values for larger x."""
    x = torch.tensor([{LATER_INPUT}, -3.25, 0.5], dtype=torch.float64)
    student.check("square", lambda x: x * x, x, tolerance=Tolerance(1e-12))
'''

PREAMBLE = """
import ctypes, os, re, stat, sys, time
import torch

libc = ctypes.CDLL(None, use_errno=True)

def loot(*what):
    print("LO" + "OT:", *what)

def found_in_memory(pattern):
    wanted = re.compile(pattern)
    # a process that changed its user may not open its own memory before it says so
    libc.prctl(4, 1, 0, 0, 0)
    with open("/proc/self/mem", "rb", 0) as memory:
        for line in open("/proc/self/maps").read().splitlines():
            span, mode = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if "w" not in mode or end - start > 2**29:
                continue
            try:
                memory.seek(start)
                if wanted.search(memory.read(end - start)):
                    return True
            except OSError:
                pass
    return False

def sockets():
    found = []
    for descriptor in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                found.append(descriptor)
        except OSError:
            pass
    return found

def answer(data):
    for descriptor in sockets():
        message = b"GTLR" + len(data).to_bytes(8, "big") + data
        try:
            while message:
                message = message[os.write(descriptor, message):]
        except OSError:
            pass

def text(words):
    data = words.encode()
    return b"s" + len(data).to_bytes(4, "big") + data

def listed(*items):
    return b"l" + len(items).to_bytes(4, "big") + b"".join(items)
"""


@dataclass(frozen=True)
class Attack:
    """One attack, as its notebook describes it."""

    name: str
    title: str
    sources: tuple[str, ...]
    may_earn: float = 0.0
    record: str = ""
    layer: str = ""
    accomplice: bool = False
    limits: dict[str, Any] = field(default_factory=dict)
    tamper: dict[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Attack:
        # slow to import, and not needed by one who is handed an attack
        import jupytext

        notebook = jupytext.read(path, fmt="md:myst")
        about = notebook.metadata
        sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        known = {"title", "may-earn", "record", "layer", "accomplice", "limits", "cells"}
        known |= {"tamper"}
        assert set(about) - known <= {"jupytext", "kernelspec"}, path
        return cls(
            f"{path.parent.name}/{path.stem}",
            about["title"],
            tuple(sources * about.get("cells", 1)),
            about.get("may-earn", 0.0),
            about.get("record", ""),
            about.get("layer", ""),
            about.get("accomplice", False),
            dict(about.get("limits", {})),
            json.loads(json.dumps(about.get("tamper", {}))),
            tuple(texts),
        )

    @property
    def digest(self) -> str:
        """Identify what the notebook tries, whatever its file's layout."""
        told = {name: value for name, value in asdict(self).items() if value}
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def all_attacks() -> dict[str, Attack]:
    attacks = [Attack.read(path) for path in sorted(ATTACKS.glob("*/*.md"))]
    return {attack.name: attack for attack in attacks}


def graded_notebook(*sources: str) -> NotebookNode:
    """Return a notebook with the sources as cells, and the grade cell after them."""
    graded = nbformat.v4.new_code_cell("square")
    graded.metadata["nbgrader"] = {
        "grade": True,
        "grade_id": "test_square",
        "points": 3,
        "locked": True,
        "solution": False,
        "schema_version": 3,
    }
    return nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, sources), graded])


@dataclass
class Course:
    """A course with something to steal, on a host with something to break."""

    assignment: Assignment
    host_socket: str
    queue: str
    outlives: str
    address: str

    @property
    def root(self) -> Path:
        return self.assignment.root

    def notebook(self, *sources: str) -> NotebookNode:
        """Return a submission whose cells are a preamble, the sources, and the grade cell."""
        return graded_notebook(*(self.filled(text) for text in (PREAMBLE, *sources)))

    def filled(self, source: str) -> str:
        expected = LATER_INPUT * LATER_INPUT
        places = {
            "COURSE": self.root,
            "REPOSITORY": REPOSITORY,
            "SOCKET": self.host_socket,
            "QUEUE": self.queue,
            "OUTLIVES": self.outlives,
            "HOST": os.getpid(),
            "ADDRESS": self.address,
            "TEMPORARY": temporary_folder(),
            "LATER_BYTES": list(struct.pack("<d", LATER_INPUT)),
            "EXPECTED_BYTES": list(struct.pack("<d", expected)),
        }
        for name, value in places.items():
            source = source.replace(f"@{name}@", str(value))
        return source


class SilentPages(BaseHTTPRequestHandler):
    """Answers every request with an empty page, and logs nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def course() -> Iterator[Course]:
    """Make the course, and what an attack could find or break on the host."""
    # a folder that every user can read: what keeps a notebook out must be the confinement
    root = Path(tempfile.mkdtemp(prefix="attacked-course-", dir=_outside()))
    root.chmod(0o755)
    name = root.name
    listener, in_a_folder = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    pages = ThreadingHTTPServer(("127.0.0.1", 0), SilentPages)
    Thread(target=pages.serve_forever, daemon=True).start()
    library = ctypes.CDLL("librt.so.1", use_errno=True)
    os.environ["COURSE_TOKEN"] = TOKEN
    bystander = subprocess.Popen(BYSTANDER)
    try:
        assignment = Assignment("toy", root)
        assignment.bank.mkdir(parents=True)
        (assignment.checks / "test_square.py").write_text(CHECKS)
        (assignment.bank / "square.py").write_text("")
        other = root / "submitted" / "other" / "toy"
        other.mkdir(parents=True)
        (other / "toy.ipynb").write_text(OTHER_MARK)
        (root / "gradebook.db").write_text("the gradebook")
        listener.bind(f"\0{name}")
        listener.listen()
        in_a_folder.bind(str(root / "grader.sock"))
        in_a_folder.listen()
        (root / "grader.sock").chmod(0o777)
        mask = os.umask(0)
        library.mq_open(f"/{name}".encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
        os.umask(mask)
        yield Course(assignment, name, name, f"outlives-{name}", f"127.0.0.1:{pages.server_port}")
    finally:
        bystander.kill()
        bystander.wait()
        del os.environ["COURSE_TOKEN"]
        library.mq_unlink(f"/{name}".encode())
        listener.close()
        in_a_folder.close()
        pages.shutdown()
        pages.server_close()
        shutil.rmtree(root)


def _outside() -> str:
    """Return a folder for all users that no sandbox covers with one of its own."""
    return "/tmp" if temporary_folder() == "/var/tmp" else "/var/tmp"


def tampered(notebook: NotebookNode, changes: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook as a student hands it in who changed its grade cells in a text editor."""
    content: dict[str, Any] = json.loads(nbformat.writes(notebook))
    merge(content["metadata"], changes.get("notebook", {}))
    cells = []
    for cell in content["cells"]:
        if not cell["metadata"].get("nbgrader", {}).get("grade"):
            cells.append(cell)
        elif not changes.get("remove"):
            kept = ("notebook", "remove", "copies")
            merge(cell, {key: value for key, value in changes.items() if key not in kept})
            cells += [cell] * changes.get("copies", 1)
    return {**content, "cells": cells}


def merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    """Put changes into nested dictionaries."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def active_content(page: str) -> list[str]:
    """Return what of an injected attack would run, fetch or lead elsewhere in a page."""
    found = []
    for element in BeautifulSoup(f"<body>{page}", "html.parser").find_all(True):
        if element.name in ("script", "style") and "injected" in element.text:
            found.append(str(element))
        for name, value in element.attrs.items():
            # a link that leads on when the reader follows it, and says so, is not active
            followed = (element.name, name) == ("a", "href") and str(value).startswith("https://")
            inert = name in PLAIN_ATTRIBUTES or followed or str(value).startswith(PICTURE)
            if "injected" in str(value) and not inert:
                found.append(f"{element.name} {name}={value}")
    return found


def loot_in(said: str) -> str:
    found = re.search(re.escape(LOOT) + r"[^\"]*", said)
    return found[0] if found else ""


def command_lines() -> str:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return "\n".join(lines)
