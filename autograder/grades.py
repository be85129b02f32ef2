"""What the gradebook says of each part of a submission, and a digest of all that it says."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbgrader.api import (
    Comment,
    Grade,
    Gradebook,
    Notebook,
    SubmittedAssignment,
    SubmittedNotebook,
)
from sqlalchemy import Select, select

from autograder.record import number, points_text


@dataclass(frozen=True)
class Cell:
    """A cell that gives points; a test is one whose points come from running it."""

    notebook: str
    name: str
    points: float
    is_test: bool


@dataclass(frozen=True)
class PartGrade:
    """What a student was given for one cell; `waits` until someone has graded it by hand."""

    cell: Cell
    earned: float
    extra_credit: float
    waits: bool

    @property
    def words(self) -> str:
        """The points in words.

        Examples
        --------
        >>> PartGrade(Cell("nb", "essay", 5, is_test=False), 0, 0, waits=True).words
        'not graded yet (5 points)'
        >>> PartGrade(Cell("nb", "essay", 3, is_test=False), 4, 1, waits=False).words
        '4 of 3 points, with 1 of extra credit'
        """
        if self.waits:
            points = self.cell.points
            return f"not graded yet ({number(points)} point{'' if points == 1 else 's'})"
        return points_text(self.earned, self.cell.points) + extra_credit_words(self.extra_credit)


def extra_credit_words(extra_credit: float) -> str:
    """Return how much of some points is extra credit, or an empty string."""
    return f", with {number(extra_credit)} of extra credit" if extra_credit > 0 else ""


def points_of(auto: float | None, manual: float | None, extra_credit: float | None) -> float:
    """Return the points of one cell as nbgrader counts them: a manual score takes precedence.

    Examples
    --------
    >>> points_of(2.0, None, 1.0), points_of(2.0, 1.5, None), points_of(None, None, 1.0)
    (3.0, 1.5, 0.0)
    """
    score = manual if manual is not None else auto
    return score + (extra_credit or 0.0) if score is not None else 0.0


def graded_cells(gradebook: Gradebook, assignment: str) -> dict[str, Cell]:
    """Return an assignment's cells that give points, by their id in the gradebook, in order."""
    cells = {}
    for notebook in sorted(gradebook.find_assignment(assignment).notebooks, key=lambda n: n.name):
        answers = {cell.name for cell in notebook.solution_cells}
        places = {cell.name: place for place, cell in enumerate(notebook.source_cells)}
        found = [(cell, cell.cell_type == "code") for cell in notebook.grade_cells]
        found += [(cell, False) for cell in notebook.task_cells]
        for cell, code in sorted(found, key=lambda item: places.get(item[0].name, -1)):
            is_test = code and cell.name not in answers
            cells[cell.id] = Cell(notebook.name, cell.name, cell.max_score, is_test)
    return cells


def grade_rows(gradebook: Gradebook, assignment: str, student: str | None = None) -> Sequence[Any]:
    """Return the grades of an assignment, of all students or of one, in one query."""
    query = _of_submissions(
        select(
            SubmittedAssignment.student_id,
            Notebook.name.label("notebook"),
            Grade.cell_id,
            Grade.auto_score,
            Grade.manual_score,
            Grade.extra_credit,
            Grade.needs_manual_grade,
        ),
        gradebook,
        assignment,
        student,
    ).join(Grade, Grade.notebook_id == SubmittedNotebook.id)
    return list(gradebook.db.execute(query))


def _of_submissions(
    query: Select[Any], gradebook: Gradebook, assignment: str, student: str | None
) -> Select[Any]:
    """Bind a query to the submitted notebooks of an assignment."""
    entry = gradebook.find_assignment(assignment)
    query = (
        query.select_from(SubmittedAssignment)
        .join(SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
        .join(Notebook, Notebook.id == SubmittedNotebook.notebook_id)
        .where(SubmittedAssignment.assignment_id == entry.id)
    )
    return query if student is None else query.where(SubmittedAssignment.student_id == student)


def part_grades(
    gradebook: Gradebook, assignment: str, notebook: str, student: str
) -> dict[str, PartGrade]:
    """Return what a student was given for each cell of a notebook, by the cell's name."""
    cells = graded_cells(gradebook, assignment)
    grades = [
        PartGrade(
            cells[row.cell_id],
            points_of(row.auto_score, row.manual_score, row.extra_credit),
            row.extra_credit or 0.0,
            # a score from before the notebook was handed in anew is shown until it is changed
            bool(row.needs_manual_grade) and row.manual_score is None,
        )
        for row in grade_rows(gradebook, assignment, student)
        if row.notebook == notebook
    ]
    return {grade.cell.name: grade for grade in grades}


def grade_digests(gradebook: Gradebook, assignment: str) -> dict[tuple[str, str], str]:
    """Return a digest of all that can change on a feedback page, by student and notebook.

    It takes a query for each kind of entry, however many students there are.
    """
    cells = graded_cells(gradebook, assignment)
    entries: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in grade_rows(gradebook, assignment):
        entries[row.student_id, row.notebook].append(repr((cells[row.cell_id], *row)))
    common = (SubmittedAssignment.student_id, Notebook.name.label("notebook"))
    comments = select(*common, Comment.cell_id, Comment.auto_comment, Comment.manual_comment)
    penalties = select(*common, SubmittedNotebook.late_submission_penalty)
    for query in (
        _of_submissions(comments, gradebook, assignment, None).join(
            Comment, Comment.notebook_id == SubmittedNotebook.id
        ),
        _of_submissions(penalties, gradebook, assignment, None),
    ):
        for row in gradebook.db.execute(query):
            entries[row.student_id, row.notebook].append(repr(tuple(row)))
    return {
        key: hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
        for key, lines in entries.items()
    }
