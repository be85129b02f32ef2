"""The released notebook that a submission is rebuilt on."""

from __future__ import annotations

import copy
import json
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
    converter = Autograde(coursedir=coursedir, parent=None, config=coursedir.config)
    exporter = converter.exporter_class(parent=converter, config=coursedir.config)
    names = {"assignment": assignment, "notebook": notebook, "student": ""}
    resources: dict[str, Any] = {"nbgrader": {**names, "db_url": coursedir.db_url}}
    for step in converter.sanitize_preprocessors:
        exporter.register_preprocessor(step)
    try:
        corrected, _ = exporter._preprocess(released, resources)
    except (ValidationError, nbformat.ValidationError, RuntimeError, KeyError) as error:
        raise SkeletonError(_misfit(assignment, notebook, str(error))) from error
    if [cell.cell_type for cell in corrected.cells] != [c.cell_type for c in released.cells]:
        raise SkeletonError(_misfit(assignment, notebook, "the kind of a cell differs"))
    return Skeleton(released, corrected)


def _misfit(assignment: str, notebook: str, reason: str) -> str:
    return (
        f"the released notebook {notebook!r} of {assignment!r} does not fit the gradebook "
        f"({reason}): run `autograder release {assignment}` again"
    )


def load_skeleton(coursedir: CourseDirectory, assignment: str, notebook: str) -> NotebookNode:
    """Return the released notebook, or what the gradebook knows of it where it is not released."""
    folder = coursedir.format_path(coursedir.release_directory, ".", assignment)
    path = Path(folder) / f"{notebook}.ipynb"
    if path.is_file():
        return nbformat.read(path, as_version=4)
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        return _from_gradebook(gradebook.find_notebook(notebook, assignment))


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
    return skeleton
