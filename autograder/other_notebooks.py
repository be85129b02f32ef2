"""Says what a submission's folder holds besides, or instead of, the assignment's notebooks.

Equal folders give equal sentences: a result is kept for as long as they stay the same.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from autograder.intake import quoted

MAX_NAMES = 3
MAX_LEVELS = 4
MAX_FOLDERS = 100
SUFFIX = ".ipynb"
TIMESTAMP = "timestamp.txt"


def what_it_holds(folder: Path, known: Collection[str], ignored: Sequence[str] = ()) -> str:
    """Return the names of the notebooks in a folder, but for `known`; without any, of its files.

    It is empty if there is nothing to name.
    """
    files = [name for name in _files(folder, ignored) if not _is_known(name, known)]
    found = [name for name in files if name.lower().endswith(SUFFIX)] or files
    return _listed(found)


def unknown_notebooks(folder: Path, known: Collection[str], ignored: Sequence[str] = ()) -> str:
    """Return a sentence on the notebooks beside the assignment's, empty if there are none."""
    names = [name for name in _files(folder, ignored, levels=1) if name.endswith(SUFFIX)]
    unknown = [name for name in names if not _is_known(name, known)]
    if not unknown:
        return ""
    if len(unknown) == 1:
        return f"The notebook {_listed(unknown)} is none of the assignment's; it was not graded."
    return f"The notebooks {_listed(unknown)} are none of the assignment's; they were not graded."


def _is_known(name: str, known: Collection[str]) -> bool:
    return name == TIMESTAMP or (name.removesuffix(SUFFIX) in known and name.endswith(SUFFIX))


def _listed(names: Sequence[str]) -> str:
    told = [quoted(name) for name in names[:MAX_NAMES]]
    if more := len(names) - len(told):
        told.append(f"{more} more")
    return " and ".join(filter(None, (", ".join(told[:-1]), *told[-1:])))


def _files(folder: Path, ignored: Sequence[str], levels: int = MAX_LEVELS) -> Iterator[str]:
    """Yield the names of files, the folder's own first; folders that are linked are not entered."""
    pending = [""]
    for place in pending:
        try:
            with os.scandir(folder / place) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            name = f"{place}/{entry.name}" if place else entry.name
            if entry.name.startswith(".") or any(fnmatchcase(entry.name, p) for p in ignored):
                continue
            if not entry.is_dir(follow_symlinks=False):
                yield name
            elif name.count("/") + 1 < levels and len(pending) < MAX_FOLDERS:
                pending.append(name)
