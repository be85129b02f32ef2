"""What became of each student's submission, as a row of a table."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nbgrader.api import Gradebook, Student, SubmittedAssignment, SubmittedNotebook
from sqlalchemy import func, select

from autograder.assignment import Assignment
from autograder.course import Course
from autograder.grades import Cell, grade_rows, graded_cells, points_of
from autograder.record import Record

Status = Literal["graded", "unchanged", "failed"]


@dataclass(frozen=True)
class CellResults:
    """How a class did on one cell: the points of those whose submission waits for nobody there."""

    cell: Cell
    earned: tuple[float, ...]
    waiting: int


@dataclass(frozen=True)
class Row:
    """One student's result.

    `records` holds one record for each notebook, `failed_tests` the test cells without full points.
    """

    student: str
    name: str
    status: Status
    score: float = 0.0
    max_score: float = 0.0
    late_penalty: float = 0.0
    needs_manual_grade: bool = False
    records: dict[str, Record] = field(default_factory=dict)
    trouble: str = ""
    failed_tests: tuple[Cell, ...] = ()

    @property
    def happened(self) -> str:
        """What happened, in words."""
        return " ".join(self.sentences)

    @property
    def sentences(self) -> list[str]:
        """What happened: what holds for the whole submission, then each notebook's own."""
        sentences = self._of_submission
        if self.late_penalty:
            sentences.append(f"{self.late_penalty:g} points taken off for lateness.")
        if self.needs_manual_grade:
            sentences.append("Waits for manual grading.")
        told = {name: [*r.of_notebook, *_check_sentences(r)] for name, r in self.records.items()}
        for cell in self.failed_tests:
            told.setdefault(cell.notebook, [])
        for notebook, own in told.items():
            own += self._test_sentences(notebook)
        return [*sentences, *_named(told)]

    @property
    def troubles(self) -> list[str]:
        """What was unreadable, mended, stopped or late, without the results."""
        told = {name: record.of_notebook for name, record in self.records.items()}
        return [*self._of_submission, *_named(told)]

    @property
    def _of_submission(self) -> list[str]:
        """What the records of all notebooks say, once."""
        shared = [text for record in self.records.values() for text in record.of_submission]
        return list(dict.fromkeys([self.trouble, *shared] if self.trouble else shared))

    def _test_sentences(self, notebook: str) -> list[str]:
        """Return a sentence on the tests of which neither checks nor the record tell more."""
        record = self.records.get(notebook, Record())
        tests = [
            cell.name
            for cell in self.failed_tests
            if cell.notebook == notebook and cell.name not in record.cells
        ]
        return [f"Tests not passed: {', '.join(tests)}."] if tests and not record.problem else []

    @property
    def damaged(self) -> bool:
        """Whether anything was unreadable, mended or stopped."""
        records = self.records.values()
        return any(r.problem or r.repairs or r.incidents for r in records) or bool(self.trouble)

    def as_json(self) -> dict[str, Any]:
        """Return this row for a program to read."""
        return {**asdict(self), "happened": self.happened}


def _named(told: dict[str, list[str]]) -> list[str]:
    """Return each notebook's sentences, after its name where there are several notebooks."""
    if len(told) < 2:
        return [text for own in told.values() for text in own]
    return [
        text if place else f"{notebook}: {text}"
        for notebook, own in told.items()
        for place, text in enumerate(own)
    ]


def _check_sentences(record: Record) -> list[str]:
    checks = [check for cell in record.cells.values() for check in cell.checks]
    if not checks:
        return []
    passed = sum(check.outcome == "passed" for check in checks)
    sentences = [f"{passed} of {len(checks)} checks passed."]
    if record.findings:
        agreed = "; ".join(finding.sentence for finding in record.findings)
        sentences.append(f"Agrees with: {agreed}.")
    else:
        reasons = (check.message for check in checks if check.outcome != "passed")
        sentences += [next(reasons)] if passed < len(checks) else []
    return sentences


@dataclass(frozen=True)
class Standing:
    """What the gradebook says of a student's submission."""

    name: str
    score: float
    max_score: float
    late_penalty: float
    needs_manual_grade: bool
    failed_tests: tuple[Cell, ...] = ()


def cell_results(gradebook: Gradebook, assignment: str) -> list[CellResults]:
    """Return how the class did on each cell that gives points."""
    earned: dict[str, list[float]] = {}
    waiting: Counter[str] = Counter()
    for grade in grade_rows(gradebook, assignment):
        if grade.needs_manual_grade:
            waiting[grade.cell_id] += 1
        else:
            points = points_of(grade.auto_score, grade.manual_score, grade.extra_credit)
            earned.setdefault(grade.cell_id, []).append(points)
    return [
        CellResults(cell, tuple(earned.get(identity, ())), waiting[identity])
        for identity, cell in graded_cells(gradebook, assignment).items()
    ]


def standings(gradebook: Gradebook, assignment: str) -> dict[str, Standing]:
    """Return the standing of each student who handed in an assignment, in few round trips."""
    entry = gradebook.find_assignment(assignment)
    cells = graded_cells(gradebook, assignment)
    points: dict[str, list[float]] = {}
    waiting: set[str] = set()
    failed: dict[str, set[str]] = {}
    for grade in grade_rows(gradebook, assignment):
        student, cell = grade.student_id, cells[grade.cell_id]
        earned = points_of(grade.auto_score, grade.manual_score, grade.extra_credit)
        points.setdefault(student, []).append(earned)
        if grade.needs_manual_grade:
            waiting.add(student)
        elif cell.is_test and earned < cell.points:
            failed.setdefault(student, set()).add(grade.cell_id)
    rows = gradebook.db.execute(
        select(
            SubmittedAssignment.student_id,
            Student.first_name,
            Student.last_name,
            func.coalesce(func.sum(SubmittedNotebook.late_submission_penalty), 0.0),
        )
        .join(Student, Student.id == SubmittedAssignment.student_id)
        .outerjoin(SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
        .where(SubmittedAssignment.assignment_id == entry.id)
        .group_by(SubmittedAssignment.student_id, Student.first_name, Student.last_name)
    )
    return {
        student: Standing(
            " ".join(part for part in (first, last) if part),
            math.fsum(points.get(student, ())) - penalty,
            entry.max_score,
            penalty,
            student in waiting,
            tuple(cell for identity, cell in cells.items() if identity in failed.get(student, ())),
        )
        for student, first, last, penalty in rows
    }


def row_of(
    student: str,
    status: Status,
    standing: Standing | None,
    records: dict[str, Record],
    trouble: str = "",
) -> Row:
    """Return a student's row; without a standing there is nothing in the gradebook."""
    if standing is None:
        return Row(student, "", status, trouble=trouble)
    return Row(
        student,
        standing.name,
        status,
        standing.score,
        standing.max_score,
        standing.late_penalty,
        standing.needs_manual_grade,
        records,
        trouble,
        standing.failed_tests,
    )


def read_records(course: Course, assignment: Assignment, student: str) -> dict[str, Record]:
    """Return the records of a student's autograded notebooks.

    Raises
    ------
    ValueError
        If a notebook cannot be read.
    """
    folder = course.folder("autograded", student, assignment.name)
    return {path.stem: _read_record(path) for path in sorted(folder.glob("*.ipynb"))}


def _read_record(path: Path) -> Record:
    try:
        # plain JSON: checking the form of what the grader wrote would take most of the time
        return Record.read_from(json.loads(path.read_bytes()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not an autograded notebook: {error}") from error
