"""Makes the student's notebook of an assignment from the instructor's text notebook.

The text notebook becomes a notebook in the course's source folder, and nbgrader's own
`generate_assignment` makes the student's version of it. The result depends on the text alone: cell
ids come from content, and the kernel is always the same.
"""

from __future__ import annotations

import copy
import difflib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import NbGraderException

from autograder.assignment import Assignment
from autograder.course import Course, CourseError
from autograder.skeleton import give_ids

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def release(course: Course, assignment: Assignment) -> list[Path]:
    """Write an assignment's source notebook and student files; record it in the gradebook.

    Returns the files of the student's folder that changed; files that no source gives are removed.
    """
    source = course.folder("source", ".", assignment.name)
    _write_source(assignment, source)
    course.gradebook(make=True).close()
    with tempfile.TemporaryDirectory() as folder:
        generated = _generate(course, assignment, source.parent, Path(folder), database=True)
        changed = [
            name
            for name in _files(generated)
            if _write(assignment.release.parent / name, (generated / name).read_bytes())
        ]
        stale = set(_files(assignment.release.parent)) - set(_files(generated))
    for name in stale:
        (assignment.release.parent / name).unlink()
    return [assignment.release.parent / name for name in (*changed, *sorted(stale))]


def release_difference(course: Course, assignment: Assignment) -> str:
    """Return how the committed student files differ from what the source gives, as a diff."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        _write_source(assignment, source / assignment.name)
        generated = _generate(course, assignment, source, Path(folder) / "release", database=False)
        return "".join(_difference(assignment.release.parent, generated))


def source_notebook(path: Path) -> NotebookNode:
    """Read a text notebook, with cell ids that depend on content alone."""
    notebook = jupytext.read(path)
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNEL))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    give_ids(notebook)
    return notebook


def _write_source(assignment: Assignment, folder: Path) -> None:
    """Write an assignment's source folder: its notebooks and the files beside them."""
    wanted = {}
    for path in sorted(assignment.source.parent.rglob("*")):
        name = path.relative_to(assignment.source.parent)
        if path.suffix == ".md" and path.parent == assignment.source.parent:
            text = nbformat.writes(source_notebook(path), version=4) + "\n"
            wanted[name.with_suffix(".ipynb")] = text.encode()
        elif path.is_file() and "__pycache__" not in name.parts:
            wanted[name] = path.read_bytes()
    for name in set(_files(folder)) - set(wanted):
        (folder / name).unlink()
    for name, data in wanted.items():
        _write(folder / name, data)


def _generate(
    course: Course, assignment: Assignment, source: Path, target: Path, *, database: bool
) -> Path:
    """Have nbgrader make the student's files of an assignment below `target`."""
    config = copy.deepcopy(course.config)
    config.CourseDirectory.source_directory = str(source)
    config.CourseDirectory.release_directory = str(target)
    config.CourseDirectory.assignment_id = assignment.name
    if not database:
        config.SaveCells.enabled = False
        config.GenerateAssignment.no_database = True
    converter = course.converter(GenerateAssignment, config)
    try:
        converter.start()
    except NbGraderException as error:
        raise CourseError(f"nbgrader could not release {assignment.name!r}: {error}") from error
    return target / assignment.name


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder, but for hidden ones such as `.ipynb_checkpoints`."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not any(part[0] == "." for part in name.parts))


def _write(path: Path, data: bytes) -> bool:
    """Write a file unless it is already so; return whether it was written."""
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def _difference(committed: Path, generated: Path) -> Iterator[str]:
    for name in sorted({*_files(committed), *_files(generated)}):
        old, new = _lines(committed / name), _lines(generated / name)
        yield from difflib.unified_diff(old, new, f"committed/{name}", f"generated/{name}")


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True)
