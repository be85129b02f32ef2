"""The released notebook that a submission is rebuilt on."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.api import Gradebook, Notebook
from nbgrader.converters import Autograde
from nbgrader.coursedir import CourseDirectory
from nbgrader.nbgraderformat import ValidationError
from nbgrader.preprocessors import ClearHiddenTests, ClearMarkScheme

from autograder.assignment import Assignment
from autograder.rebuild import grade_id_of


class SkeletonError(Exception):
    """A released notebook does not fit the gradebook; the message says what to do."""


@dataclass(frozen=True)
class Skeleton:
    """A released notebook, and the same notebook as the gradebook wants it.

    nbgrader corrects each submission's points, checksums, locked texts and kernel by the gradebook.
    Here its steps run once, on the released notebook, and `correct` repeats what they did.
    """

    released: NotebookNode
    corrected: NotebookNode

    @cached_property
    def _cells(self) -> dict[str, NotebookNode]:
        return {grade_id_of(cell): cell for cell in self.corrected.cells if grade_id_of(cell)}

    def correct(self, notebook: NotebookNode) -> None:
        """Do to a notebook that was rebuilt on this one what nbgrader's steps did to this one."""
        if "kernelspec" in self.corrected.metadata:
            notebook.metadata["kernelspec"] = copy.deepcopy(self.corrected.metadata.kernelspec)
        for cell in notebook.cells:
            wanted = self._cells.get(grade_id_of(cell))
            if wanted is None:
                continue
            cell.metadata = copy.deepcopy(wanted.metadata)
            if utils.is_locked(cell):
                cell.source = wanted.source


def prepared_skeleton(coursedir: CourseDirectory, assignment: str, notebook: str) -> Skeleton:
    """Return a skeleton to which nbgrader's own steps have been applied.

    Raises
    ------
    SkeletonError
        If the released notebook does not fit the gradebook.
    """
    released = load_skeleton(coursedir, assignment, notebook)
    if language := _other_language(released):
        raise SkeletonError(
            f"the notebook {notebook!r} of {assignment!r} is written in {language}; "
            "the autograder runs Python alone"
        )
    converter = Autograde(coursedir=coursedir, parent=None, config=coursedir.config)
    exporter = converter.exporter_class(parent=converter, config=coursedir.config)
    names = {"assignment": assignment, "notebook": notebook, "student": ""}
    resources: dict[str, Any] = {"nbgrader": {**names, "db_url": coursedir.db_url}}
    for step in converter.sanitize_preprocessors:
        exporter.register_preprocessor(step)
    try:
        corrected, _ = exporter._preprocess(released, resources)
    except (ValidationError, nbformat.ValidationError, RuntimeError, KeyError) as error:
        raise SkeletonError(_misfit(coursedir, assignment, notebook, str(error))) from error
    if [cell.cell_type for cell in corrected.cells] != [c.cell_type for c in released.cells]:
        raise SkeletonError(_misfit(coursedir, assignment, notebook, "the kind of a cell differs"))
    return Skeleton(released, corrected)


def _misfit(coursedir: CourseDirectory, assignment: str, notebook: str, reason: str) -> str:
    command = Assignment(assignment, Path(coursedir.root)).release_command
    return (
        f"the released notebook {notebook!r} of {assignment!r} does not fit the gradebook "
        f"({reason}): run `{command}` again"
    )


def load_skeleton(coursedir: CourseDirectory, assignment: str, notebook: str) -> NotebookNode:
    """Return the released notebook, or what the gradebook knows of it where it is not released."""
    folder = coursedir.format_path(coursedir.release_directory, ".", assignment)
    path = Path(folder) / f"{notebook}.ipynb"
    if path.is_file():
        released = nbformat.read(path, as_version=4)
        if any("id" not in cell for cell in released.cells):
            give_ids(released)
        return released
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        known = _from_gradebook(gradebook.find_notebook(notebook, assignment))
    for clear in (ClearHiddenTests, ClearMarkScheme):
        known, _ = clear(config=coursedir.config)(known, {})
    return known


def give_ids(notebook: NotebookNode) -> None:
    """Give each cell an id that depends on its name, or on its text, alone."""
    # the first minor version that has them
    notebook.nbformat_minor = max(5, notebook.nbformat_minor)
    taken: set[str] = set()
    for cell in notebook.cells:
        cell["id"] = _cell_id(cell, taken)
        taken.add(cell["id"])


def _cell_id(cell: NotebookNode, taken: set[str]) -> str:
    name = re.sub(r"[^a-zA-Z0-9_-]", "-", grade_id_of(cell))[:56]
    digest = hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:8]
    wanted = name or digest
    copies = (wanted, *(f"{wanted}-{number}" for number in range(2, 1_000)))
    return next(name for name in copies if name not in taken)


def _other_language(notebook: NotebookNode) -> str:
    """Return the language of a notebook that says it is not Python's, else an empty string."""
    metadata = notebook.metadata
    language = metadata.get("kernelspec", {}).get("language") or metadata.get(
        "language_info", {}
    ).get("name")
    return "" if str(language or "python").lower().startswith("python") else str(language)


def _from_gradebook(notebook: Notebook) -> NotebookNode:
    """Return a notebook of the cells that nbgrader keeps: locked, graded and answer cells."""
    grades = {cell.name: cell.max_score for cell in notebook.grade_cells}
    tasks = {cell.name: cell.max_score for cell in notebook.task_cells}
    solutions = {cell.name for cell in notebook.solution_cells}
    skeleton = nbformat.v4.new_notebook()
    if notebook.kernelspec:
        skeleton.metadata["kernelspec"] = json.loads(notebook.kernelspec)
    for source_cell in notebook.source_cells:
        name = source_cell.name
        make = getattr(nbformat.v4, f"new_{source_cell.cell_type}_cell")
        cell = make(source_cell.source or "")
        cell.metadata["nbgrader"] = {
            "grade": name in grades,
            "grade_id": name,
            "locked": bool(source_cell.locked),
            "schema_version": 3,
            "solution": name in solutions,
            "task": name in tasks,
            "cell_type": source_cell.cell_type,
            "checksum": source_cell.checksum,
        }
        points = {**grades, **tasks}
        if name in points:
            cell.metadata.nbgrader["points"] = points[name]
        skeleton.cells.append(cell)
    give_ids(skeleton)
    return skeleton
