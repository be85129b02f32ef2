"""The released notebook that a submission is rebuilt on."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook, Notebook
from nbgrader.coursedir import CourseDirectory


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
