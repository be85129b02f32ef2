"""A learner's own check of a notebook: the full checks, without a gradebook."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nbformat

from autograder.assignment import Assignment
from autograder.course import Course, CourseError
from autograder.engine import grade_notebook
from autograder.intake import read_submission
from autograder.rebuild import rebuild
from autograder.verdict import CellVerdict


@dataclass(frozen=True)
class CheckedNotebook:
    """The verdicts on a notebook's cells, and what else its owner should know."""

    cells: tuple[CellVerdict, ...]
    sentences: tuple[str, ...]

    @property
    def earned(self) -> float:
        """The points earned."""
        return sum(cell.earned for cell in self.cells)

    @property
    def points(self) -> float:
        """The most points that can be earned."""
        return sum(cell.points for cell in self.cells)


def check_notebook(course: Course, assignment: Assignment, path: Path) -> CheckedNotebook:
    """Run all checks on a notebook.

    Raises
    ------
    CourseError
        If the file cannot be read as a notebook, or the assignment is not released.
    """
    if not assignment.release.is_file():
        raise CourseError(
            f"there is no {assignment.release}: run `autograder release {assignment.name}` first"
        )
    submission = read_submission(path)
    if submission.problem:
        raise CourseError(f"{path}: {submission.problem}")
    rebuilt = rebuild(nbformat.read(assignment.release, as_version=4), submission)
    judge = course.judge()
    verdict = grade_notebook(
        rebuilt.notebook, assignment, limits=judge.limits, confined=judge.confined
    )
    return CheckedNotebook(tuple(verdict.cells.values()), (*rebuilt.repairs, *verdict.incidents))
