"""Reads the folder that a student handed in: its notebooks, and the files beside them.

Links are not followed and pipes not waited for; what is too large, too deep or too much is left
out, with a sentence that says so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from nbgrader import utils

from autograder.intake import quoted, read_file, why_linked, why_unreadable
from autograder.other_notebooks import unknown_notebooks, what_it_holds

MAX_EXTRA_FILE_BYTES = 50 * 2**20
MAX_EXTRA_BYTES = 100 * 2**20
MAX_ENTRIES = 2_000
MAX_DEPTH = 20
MAX_NAME_BYTES = 1_000
MAX_NOTES = 20
MAX_TIMESTAMP_BYTES = 1_000
TIMESTAMP = "timestamp.txt"


@dataclass
class SubmissionFolder:
    """What was handed in: each notebook's bytes, or why it could not be read; files; sentences."""

    notebooks: dict[str, bytes] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    timestamp: datetime | None = None

    def digest(self) -> str:
        """Return a digest of everything in it."""
        digest = hashlib.sha256()
        for kind, content in (("notebook", self.notebooks), ("file", self.files)):
            for name, data in sorted(content.items()):
                digest.update(repr((kind, name, hashlib.sha256(data).hexdigest())).encode())
        digest.update(repr((sorted(self.problems.items()), self.notes)).encode())
        return digest.hexdigest()

    @property
    def size(self) -> int:
        """The bytes of everything in it."""
        return sum(map(len, (*self.notebooks.values(), *self.files.values())))


def read_folder(
    folder: Path,
    notebooks: Sequence[str],
    ignored: Sequence[str] = (),
    given: Collection[str] = (),
) -> SubmissionFolder:
    """Read a submission.

    `ignored` are nbgrader's patterns of names to leave out in silence, `given` the names of the
    course's own files, which are put over those handed in.
    """
    read = SubmissionFolder()
    if linked := why_linked(folder):
        read.problems = dict.fromkeys(notebooks, linked)
        return read
    for name in notebooks:
        path = folder / f"{name}.ipynb"
        try:
            read.notebooks[name] = read_file(path)
        except OSError as error:
            read.problems[name] = why_unreadable(path, error)
    _tell_of_others(folder, notebooks, ignored, read)
    _read_files(folder, ignored, given, read)
    _read_timestamp(read)
    return read


def _tell_of_others(
    folder: Path, notebooks: Sequence[str], ignored: Sequence[str], read: SubmissionFolder
) -> None:
    """Say what there is in place of a notebook that is missing, or beside them if none is."""
    missing = [name for name in read.problems if not os.path.lexists(folder / f"{name}.ipynb")]
    if not missing:
        note = unknown_notebooks(folder, notebooks, ignored)
        read.notes += [note] if note else []
    elif held := what_it_holds(folder, notebooks, ignored):
        for name in missing:
            read.problems[name] = f"{read.problems[name][:-1]}; the folder holds {held}."


def _read_files(
    folder: Path, ignored: Sequence[str], given: Collection[str], read: SubmissionFolder
) -> None:
    room = MAX_EXTRA_BYTES
    given_folders = {str(parent) for name in given for parent in PurePath(name).parents}
    left_out = []
    for number, (name, kind) in enumerate(_entries(folder, ignored)):
        if number >= MAX_ENTRIES:
            left_out.append(f"Only the first {MAX_ENTRIES} files of the submission were read.")
            break
        reason, data = kind or _why_not_named_so(name, given, given_folders), b""
        if not reason:
            reason, data = _read(folder / name, room)
        if reason:
            left_out.append(f"The file {quoted(name)} is {reason} and was left out.")
        else:
            read.files[name] = data
            room -= len(data)
    read.notes += left_out[:MAX_NOTES]
    if len(left_out) > MAX_NOTES:
        read.notes.append(f"{len(left_out) - MAX_NOTES} more files were left out.")


def _entries(folder: Path, ignored: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the names of the files below a folder, in order, with why they cannot be read."""
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            with os.scandir(folder / inside) as found:
                entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        except OSError:
            yield inside, "a folder that cannot be read"
            continue
        for entry in reversed(entries):
            name = f"{inside}/{entry.name}" if inside else entry.name
            if not _is_ignored(entry.name, ignored) and not _is_folder(entry):
                yield name, _kind(entry)
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if _is_ignored(entry.name, ignored) or not _is_folder(entry):
                continue
            if name.count("/") + 1 < MAX_DEPTH:
                pending.append(name)
            else:
                yield name, f"a folder more than {MAX_DEPTH} levels deep"


def _why_not_named_so(name: str, given: Collection[str], given_folders: Collection[str]) -> str:
    """Return why a file cannot lie beside the course's own, or an empty string."""
    try:
        if len(name.encode()) > MAX_NAME_BYTES:
            return f"in folders whose names have more than {MAX_NAME_BYTES} bytes together"
    except UnicodeEncodeError:
        return "not named in UTF-8"
    if name in given_folders:
        return "where the course has a folder of that name"
    if any(str(parent) in given for parent in PurePath(name).parents):
        return "in a folder where the course has a file of that name"
    return ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _kind(entry: os.DirEntry[str]) -> str:
    """Return what keeps a file from being read, or an empty string."""
    if entry.is_symlink():
        return "a link"
    return "" if entry.is_file(follow_symlinks=False) else "not a regular file"


def _is_ignored(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether nbgrader would leave a file out; a leading dot has to be in the pattern."""
    return name.endswith(".ipynb") or any(
        fnmatchcase(name, pattern) and (not name.startswith(".") or pattern.startswith("."))
        for pattern in patterns
    )


def _read(path: Path, room: int) -> tuple[str, bytes]:
    """Return why a file cannot be read, or its bytes."""
    try:
        size = path.lstat().st_size
        if size > MAX_EXTRA_FILE_BYTES:
            return f"larger than {MAX_EXTRA_FILE_BYTES // 2**20} MiB", b""
        if size > room:
            return f"beyond the {MAX_EXTRA_BYTES // 2**20} MiB that files may have together", b""
        return "", read_file(path, min(room, MAX_EXTRA_FILE_BYTES))
    except OSError as error:
        return f"not readable ({error.strerror or error})", b""


def _read_timestamp(read: SubmissionFolder) -> None:
    """Read the time of the submission, as nbgrader keeps it; nonsense becomes a sentence."""
    if TIMESTAMP not in read.files:
        return
    text = read.files[TIMESTAMP][:MAX_TIMESTAMP_BYTES].decode("utf-8", "replace").strip()
    try:
        if len(read.files[TIMESTAMP]) <= MAX_TIMESTAMP_BYTES and text:
            read.timestamp = utils.parse_utc(text)
    except Exception:  # whatever the date parser raises for nonsense
        read.timestamp = None
    if read.timestamp is None:
        read.notes.append(
            f"The file {TIMESTAMP} holds {quoted(text)}, which is not a time; it was ignored."
        )
