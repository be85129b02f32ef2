"""What became of each student's submission, as a row of a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import nbformat
from nbgrader.api import Gradebook, MissingEntry

from autograder.assignment import Assignment
from autograder.course import Course
from autograder.record import Record

Status = Literal["graded", "unchanged", "failed"]


@dataclass(frozen=True)
class Row:
    """One student's result; `records` holds one record for each notebook."""

    student: str
    name: str
    status: Status
    score: float = 0.0
    max_score: float = 0.0
    late_penalty: float = 0.0
    needs_manual_grade: bool = False
    records: dict[str, Record] = field(default_factory=dict)
    trouble: str = ""

    @property
    def happened(self) -> str:
        """What happened, in words."""
        sentences = [self.trouble] if self.trouble else []
        for record in self.records.values():
            sentences += [*record.sentences, *_check_sentences(record)]
        if self.late_penalty:
            sentences.append(f"{self.late_penalty:g} points taken off for lateness.")
        if self.needs_manual_grade:
            sentences.append("Waits for manual grading.")
        return " ".join(sentences)

    @property
    def damaged(self) -> bool:
        """Whether anything was unreadable, mended or stopped."""
        records = self.records.values()
        return any(r.problem or r.repairs or r.incidents for r in records) or bool(self.trouble)

    def as_json(self) -> dict[str, Any]:
        """Return this row for a program to read."""
        return {**asdict(self), "happened": self.happened}


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


def row_of(
    course: Course, assignment: Assignment, student: str, *, status: Status, trouble: str = ""
) -> Row:
    """Read a student's result from the gradebook and the autograded notebooks."""
    with course.gradebook() as gradebook:
        name = _name_of(gradebook, student)
        try:
            submission = gradebook.find_submission(assignment.name, student)
        except MissingEntry:
            return Row(student, name, status, trouble=trouble)
        penalty = submission.late_submission_penalty or 0.0
        score, max_score = submission.score - penalty, submission.max_score
        manual = bool(submission.needs_manual_grade)
    return Row(
        student,
        name,
        status,
        score,
        max_score,
        penalty,
        manual,
        read_records(course, assignment, student),
        trouble,
    )


def _name_of(gradebook: Gradebook, student: str) -> str:
    try:
        entry = gradebook.find_student(student)
    except MissingEntry:
        return ""
    return " ".join(part for part in (entry.first_name, entry.last_name) if part)


def read_records(course: Course, assignment: Assignment, student: str) -> dict[str, Record]:
    """Return the records of a student's autograded notebooks."""
    folder = course.folder("autograded", student, assignment.name)
    return {
        path.stem: Record.read_from(nbformat.read(path, as_version=4))
        for path in sorted(folder.glob("*.ipynb"))
    }
