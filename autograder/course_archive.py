"""The files of a course that judging needs, as bytes that a worker anywhere can unpack.

An archive goes by the digest of its bytes: a worker unpacks each one once, into a folder that only
it can read, and an edited check makes another archive.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

from autograder.assignment import Assignment

# the archive's bytes must depend on names and contents alone
TIME = (1980, 1, 1, 0, 0, 0)

_lock = threading.Lock()


def pack(assignment: Assignment) -> bytes:
    """Return an archive of an assignment's hidden checks, its bank, and their shared fixtures."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(set(_files(assignment))):
            name = str(path.relative_to(assignment.root))
            info = zipfile.ZipInfo(name, TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
    return buffer.getvalue()


def _files(assignment: Assignment) -> Iterator[Path]:
    for path in assignment.checks.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path
    folder = assignment.checks
    while folder != assignment.root:
        folder = folder.parent
        if (folder / "conftest.py").is_file():
            yield folder / "conftest.py"


def unpack(archive: bytes, folder: Path) -> Path:
    """Return the course's root below `folder`, unpacked when it is not there yet."""
    root = folder / f"course-{hashlib.sha256(archive).hexdigest()}"
    with _lock:
        if not root.is_dir():
            unfinished = Path(tempfile.mkdtemp(dir=folder))
            with zipfile.ZipFile(io.BytesIO(archive)) as content:
                content.extractall(unfinished)
            unfinished.rename(root)
    return root
