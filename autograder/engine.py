"""Grades one notebook: runs it in the student's process and judges it outside that process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

from autograder.assignment import Assignment
from autograder.bank import load_bank
from autograder.checking.judge import judge_cell
from autograder.checking.student import Caller
from autograder.student_process import Limits, StudentProcess, WarmProcess
from autograder.verdict import SubmissionVerdict

__all__ = ["Limits", "NotebookRun", "grade_notebook", "read_notebook"]

_warm: list[WarmProcess] = []


def grade_notebook(
    notebook: NotebookNode,
    assignment: Assignment | None,
    *,
    limits: Limits | None = None,
    class_seed: str = "",
    folder: Path | None = None,
) -> SubmissionVerdict:
    """Run a notebook and judge its grade cells; nothing that a student does raises.

    Parameters
    ----------
    notebook
        Notebook (nbformat 4) whose grade cells are the instructor's.
    assignment
        Where the hidden checks are; None for a course without hidden checks.
    limits
        What the submission may use.
    class_seed
        The secret that the checks' random inputs come from.
    folder
        Files that the notebook finds in its working folder; copied, never changed.

    Raises
    ------
    BrokenCheckError
        If a hidden check cannot be collected.
    """
    run = NotebookRun(notebook, assignment, limits=limits, folder=folder)
    try:
        verdict = run.run_cells()
        if assignment is not None:
            bank = load_bank(assignment)
            for grade_id in run.judged_ids():
                cell = judge_cell(
                    assignment, grade_id, run.caller_of(grade_id), class_seed=class_seed, bank=bank
                )
                if cell.note:
                    verdict.incidents.append(f"Hidden checks of {grade_id}: {cell.note}")
                verdict.cells[grade_id] = cell
    finally:
        run.close()
    return verdict


class NotebookRun:
    """One run of a notebook, with a snapshot at each grade cell that has hidden checks."""

    def __init__(
        self,
        notebook: NotebookNode,
        assignment: Assignment | None,
        *,
        limits: Limits | None = None,
        folder: Path | None = None,
    ) -> None:
        self.notebook = notebook
        self.assignment = assignment
        self.folder = Path(tempfile.mkdtemp(prefix="submission-"))
        if folder is not None:
            shutil.copytree(folder, self.folder, dirs_exist_ok=True, symlinks=True)
        self.process = StudentProcess(warm_process(), self.folder, limits or Limits())

    def judged_ids(self) -> list[str]:
        """Return the grade cells that have hidden checks, in the notebook's order."""
        ids = [_grade_id(cell) for cell in self.notebook.cells]
        return [name for name in ids if name and self._has_checks(name)]

    def _has_checks(self, grade_id: str) -> bool:
        return self.assignment is not None and self.assignment.check_file(grade_id) is not None

    def run_cells(self) -> SubmissionVerdict:
        """Run every code cell in order; return the outputs and what had to be stopped."""
        verdict = SubmissionVerdict()
        stopped = ""
        for index, cell in enumerate(self.notebook.cells):
            if cell.cell_type != "code":
                continue
            outputs, reason = self.process.run_cell(cell.source)
            verdict.outputs[index] = outputs
            if reason:
                verdict.stopped[index] = reason
            if reason and reason != stopped:
                verdict.incidents.append(f"Cell {index + 1}: {reason}.")
                stopped = reason
            grade_id = _grade_id(cell)
            if grade_id and self._has_checks(grade_id):
                self.process.take_snapshot(grade_id)
        return verdict

    def caller_of(self, grade_id: str) -> Callable[[], Caller]:
        """Return what makes a caller of the functions as they were at a grade cell."""
        return lambda: self.process.caller_at(grade_id)

    def close(self) -> None:
        """End the notebook's processes and remove its folder."""
        self.process.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _grade_id(cell: NotebookNode) -> str:
    """Return the id of an automatically graded cell, or an empty string."""
    metadata: Any = cell.metadata.get("nbgrader", {})
    if cell.cell_type == "code" and metadata.get("grade") and not metadata.get("solution"):
        return str(metadata.get("grade_id", ""))
    return ""


def warm_process() -> WarmProcess:
    """Return this process's warm process, started when it is first needed or has died."""
    if _warm and not _warm[0].alive():
        _warm.pop().close()
    if not _warm:
        _warm.append(WarmProcess())
        atexit.register(_warm[0].close)
    return _warm[0]


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook file, or the text notebook (MyST) of an assignment's source."""
    if path.suffix == ".md":
        return jupytext.read(path)
    return nbformat.read(path, as_version=4)
