"""The class report: one HTML page that needs nothing else, for the instructor."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from autograder.assignment import Assignment
from autograder.course import Course, CourseError
from autograder.feedback import feedback_pages
from autograder.outputs import OUTCOME_WORDS, book_link
from autograder.record import Record, number, points_text
from autograder.safe_html import text_to_html
from autograder.summary import (
    CellResults,
    Row,
    Standing,
    cell_results,
    read_records,
    row_of,
    standings,
)
from autograder.verdict import CheckResult

TEMPLATES = Path(__file__).parent / "templates"
BINS = 10
PLAIN_ID = re.compile(r"[-\w.@]+")


@dataclass(frozen=True)
class CheckRate:
    """How a class did on one check."""

    cell: str
    description: str
    points: float
    passed: int
    stopped: int
    total: int

    @property
    def rate(self) -> float:
        """The share of submissions that passed."""
        return self.passed / self.total


@dataclass(frozen=True)
class MisconceptionCount:
    """How many submissions agree with one misconception."""

    cell: str
    sentence: str
    see: str
    students: tuple[str, ...]


@dataclass(frozen=True)
class Bin:
    """One bar of the distribution of scores."""

    label: str
    count: int


def class_rows(course: Course, assignment: Assignment) -> list[Row]:
    """Return a row for each student whose submission was graded.

    Raises
    ------
    CourseError
        If there is none.
    """
    students = course.students_with("autograded", assignment.name)
    if not students:
        place = course.folder("autograded", "*", assignment.name)
        raise CourseError(
            f"nothing is graded yet: there is no folder {place}; "
            f"run `autograder grade {assignment.name}` first"
        )
    with course.gradebook() as gradebook:
        known = standings(gradebook, assignment.name)
    return [_class_row(course, assignment, student, known.get(student)) for student in students]


def _class_row(
    course: Course, assignment: Assignment, student: str, standing: Standing | None
) -> Row:
    records: dict[str, Record] = {}
    trouble = ""
    try:
        records = read_records(course, assignment, student)
    except (OSError, ValueError) as error:  # the rest of the class must be shown
        trouble = f"{error}; `autograder grade {assignment.name}` makes it anew."
    return row_of(student, "graded", standing, records, trouble)


def write_report(course: Course, assignment: Assignment, folder: Path) -> list[Path]:
    """Write an assignment's report (`index.html`) and grade table (`grades.csv`) to a folder."""
    rows = class_rows(course, assignment)
    pages = {
        row.student: [
            Path(os.path.relpath(page, folder)).as_posix()
            for page in feedback_pages(course, assignment, row.student)
        ]
        for row in rows
    }
    folder.mkdir(parents=True, exist_ok=True)
    page, table = folder / "index.html", folder / "grades.csv"
    with course.gradebook() as gradebook:
        parts = cell_results(gradebook, assignment.name)
    book_url = course.judge().book_url
    report = render_report(assignment.name, rows, pages, parts, book_url)
    page.write_text(report, encoding="utf-8")
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["student", "name", "score", "max_score", "late_penalty", "what_happened"])
        for row in rows:
            numbers = [row.score, row.max_score, row.late_penalty]
            name, happened = map(_not_a_formula, (row.name, row.happened))
            writer.writerow([_student_id(row.student), name, *numbers, happened])
    return [page, table]


def _student_id(text: str) -> str:
    """Keep a student's id as it is, so that it matches elsewhere, unless it could call something.

    Without a bracket, quote, `|`, `!` or `=` a formula can call, fetch and run nothing.
    """
    return text if PLAIN_ID.fullmatch(text) else _not_a_formula(text)


def _not_a_formula(text: str) -> str:
    """Keep a spreadsheet from running a student's text as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def render_report(
    assignment: str,
    rows: Sequence[Row],
    pages: dict[str, list[str]] | None = None,
    parts: Sequence[CellResults] = (),
    book_url: str = "",
) -> str:
    """Return the class report as HTML."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    environment.filters.update(
        number=number,
        as_text=text_to_html,
        as_texts=lambda sentences: " ".join(map(text_to_html, sentences)),
        percent=lambda share: f"{100 * share:.0f} %",
        stem=lambda page: Path(page).stem,
    )
    scores = sorted(row.score for row in rows)
    return environment.get_template("report.html.j2").render(
        assignment=assignment,
        rows=sorted(rows, key=lambda row: (-row.score, row.student)),
        pages=pages or {},
        mean=sum(scores) / len(scores),
        median=(scores[(len(scores) - 1) // 2] + scores[len(scores) // 2]) / 2,
        max_score=max(row.max_score for row in rows),
        bins=distribution(rows),
        parts=parts,
        several_notebooks=len({part.cell.notebook for part in parts}) > 1,
        check_groups=_by_cell(check_rates(rows)),
        misconceptions=misconception_counts(rows),
        troubled=[row for row in rows if row.damaged],
        waiting=sum(row.needs_manual_grade for row in rows),
        late=[row for row in rows if any(r.seconds_late for r in row.records.values())],
        points_text=points_text,
        book_link=book_link,
        book_url=book_url,
        outcome_words=OUTCOME_WORDS,
    )


def distribution(rows: Sequence[Row]) -> list[Bin]:
    """Return the numbers of students in ten equal ranges of the score."""
    counts: Counter[int] = Counter()
    for row in rows:
        share = row.score / row.max_score if row.max_score else 0.0
        counts[min(BINS - 1, max(0, int(share * BINS + 1e-9)))] += 1
    width = 100 // BINS
    return [Bin(f"{width * i} to {width * (i + 1)} %", counts[i]) for i in range(BINS)]


def check_rates(rows: Iterable[Row]) -> list[CheckRate]:
    """Return how often each check passed, over the submissions that could be judged."""
    results: dict[tuple[str, str], list[CheckResult]] = {}
    for row in rows:
        for record in row.records.values():
            for cell in record.cells.values():
                for check in cell.checks:
                    results.setdefault((cell.grade_id, check.name), []).append(check)
    return [
        CheckRate(
            cell,
            checks[0].description,
            checks[0].points,
            sum(check.outcome == "passed" for check in checks),
            sum(check.outcome == "stopped" for check in checks),
            len(checks),
        )
        for (cell, _), checks in results.items()
    ]


def _by_cell(checks: Iterable[CheckRate]) -> list[tuple[str, list[CheckRate]]]:
    groups: dict[str, list[CheckRate]] = {}
    for check in checks:
        groups.setdefault(check.cell, []).append(check)
    return list(groups.items())


def misconception_counts(rows: Iterable[Row]) -> list[MisconceptionCount]:
    """Return the misconceptions that were recognised, the most frequent first."""
    students: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for record in row.records.values():
            for cell in record.cells.values():
                for finding in cell.findings:
                    key = (cell.grade_id, finding.sentence, finding.see)
                    students.setdefault(key, []).append(row.student)
    counts = [MisconceptionCount(*key, tuple(names)) for key, names in students.items()]
    return sorted(counts, key=lambda count: (-len(count.students), count.cell, count.sentence))
