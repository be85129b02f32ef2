"""Writes results into the gradebook and the autograded folders: one session, few round trips.

A batch of results is committed to the gradebook first; then each student's folder takes its place
in one step. A folder names the digest of what its result depends on, so wherever a run is killed, a
submission whose folder is not there yet is graded again, and comes out the same.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
from nbgrader import utils
from nbgrader.api import (
    Comment,
    Grade,
    Gradebook,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
    new_uuid,
)
from nbgrader.converters import Autograde
from sqlalchemy import insert, select, update

from autograder.assignment import Assignment
from autograder.course import Course
from autograder.grades import points_of
from autograder.work import GradedNotebook

log = logging.getLogger("autograder.grading")

Key = tuple[str, str]
NO_PENALTY = "What lateness costs could not be worked out; ask your instructor."


class LatePenaltyError(Exception):
    """The course's late-submission plugin failed; the message names it, the student and why."""


@dataclass(frozen=True)
class Result:
    """What is to be recorded of one submission; `trouble` says what failed when it was recorded."""

    student: str
    notebooks: Mapping[str, GradedNotebook]
    files: Mapping[str, bytes]
    timestamp: datetime | None
    seconds_late: float
    trouble: str = ""


@dataclass
class Existing:
    """What the gradebook holds of some students' submissions, by what it belongs to."""

    submissions: dict[str, str] = field(default_factory=dict)
    notebooks: dict[Key, str] = field(default_factory=dict)
    grades: dict[Key, Any] = field(default_factory=dict)
    comments: dict[Key, str] = field(default_factory=dict)


@dataclass
class Changes:
    """Rows to insert and to update, by table, in the order in which they must be written.

    `troubles` says, by student, what failed.
    """

    inserts: dict[Any, list[dict[str, Any]]] = field(default_factory=dict)
    updates: dict[Any, list[dict[str, Any]]] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)

    def put(self, table: Any, known: str | None, new: Mapping[str, Any], **values: Any) -> str:
        """Update the row with the id `known`, or insert one with the values of `new` too."""
        if known is not None:
            if values:
                self.updates.setdefault(table, []).append({"id": known, **values})
            return known
        row = {"id": new_uuid(), **new, **values}
        self.inserts.setdefault(table, []).append(row)
        return str(row["id"])


@dataclass(frozen=True)
class Cells:
    """The ids of a notebook's cells in the gradebook, by name."""

    notebook_id: str
    grades: Mapping[str, str]
    comments: Mapping[str, str]


class Recorder:
    """The one writer of an assignment's results."""

    def __init__(self, course: Course, assignment: Assignment, gradebook: Gradebook) -> None:
        self.course = course
        self.assignment = assignment
        self.gradebook = gradebook
        entry = gradebook.find_assignment(assignment.name)
        self.assignment_id = entry.id
        self.duedate = entry.duedate
        self.cells = {notebook.name: _cells_of(notebook) for notebook in entry.notebooks}
        self.penalties = course.late_penalties()
        self.folders = FolderWriter(course, assignment.name)
        self.submitted = self._submitted()

    def _submitted(self) -> dict[str, tuple[datetime | None, Any]]:
        """Return each known submission's time and extension."""
        rows = self.gradebook.db.execute(
            select(
                SubmittedAssignment.student_id,
                SubmittedAssignment.timestamp,
                SubmittedAssignment.extension,
            ).where(SubmittedAssignment.assignment_id == self.assignment_id)
        )
        return {student: (timestamp, extension) for student, timestamp, extension in rows}

    def seconds_late(self, student: str, timestamp: datetime | None) -> float:
        """Return how late a submission is, as nbgrader counts it."""
        known, extension = self.submitted.get(student, (None, None))
        timestamp = timestamp or known
        if timestamp is None or self.duedate is None:
            return 0
        due = self.duedate + extension if extension is not None else self.duedate
        # 0, not 0.0, as nbgrader has it, so that both write the same bytes
        late: float = max(0, (timestamp - due).total_seconds())
        return late

    def record(self, results: Sequence[Result]) -> list[Result]:
        """Record a batch of results: all of it in the gradebook, then folder by folder.

        Returns the results as they were recorded.
        """
        database = self.gradebook.db
        try:
            changes = self._changes(results)
            for table in (Student, SubmittedAssignment, SubmittedNotebook, Grade, Comment):
                if table in changes.inserts:
                    database.execute(insert(table), changes.inserts[table])
                if table in changes.updates:
                    database.execute(update(table), changes.updates[table])
            database.commit()
        except BaseException:
            database.rollback()
            raise
        recorded = [_with_trouble(r, changes.troubles.get(r.student, "")) for r in results]
        for result in recorded:
            known = self.submitted.get(result.student, (None, None))
            self.submitted[result.student] = (result.timestamp or known[0], known[1])
            self.folders.write(result)
        return recorded

    def _changes(self, results: Sequence[Result]) -> Changes:
        students = [result.student for result in results]
        existing = self._existing(students)
        present = select(Student.id).where(Student.id.in_(students))
        known = set(self.gradebook.db.execute(present).scalars())
        changes = Changes()
        for student in sorted(set(students) - known):
            changes.inserts.setdefault(Student, []).append({"id": student})
        for result in results:
            self._change(result, existing, changes)
        return changes

    def _existing(self, students: Sequence[str]) -> Existing:
        database = self.gradebook.db
        submission, notebook = SubmittedAssignment, SubmittedNotebook
        existing = Existing()
        rows = database.execute(
            select(submission.student_id, submission.id).where(
                submission.assignment_id == self.assignment_id, submission.student_id.in_(students)
            )
        )
        existing.submissions = {row.student_id: row.id for row in rows}
        rows = database.execute(
            select(notebook.assignment_id, notebook.notebook_id, notebook.id).where(
                notebook.assignment_id.in_(existing.submissions.values())
            )
        )
        existing.notebooks = {(parent, source): identity for parent, source, identity in rows}
        ours = list(existing.notebooks.values())
        rows = database.execute(
            select(
                Grade.notebook_id,
                Grade.cell_id,
                Grade.id,
                Grade.auto_score,
                Grade.manual_score,
                Grade.extra_credit,
            ).where(Grade.notebook_id.in_(ours))
        )
        existing.grades = {(row.notebook_id, row.cell_id): row for row in rows}
        rows = database.execute(
            select(Comment.notebook_id, Comment.cell_id, Comment.id).where(
                Comment.notebook_id.in_(ours)
            )
        )
        existing.comments = {(parent, cell): identity for parent, cell, identity in rows}
        return existing

    def _change(self, result: Result, existing: Existing, changes: Changes) -> None:
        time = {"timestamp": result.timestamp} if result.timestamp is not None else {}
        submission = changes.put(
            SubmittedAssignment,
            existing.submissions.get(result.student),
            {"assignment_id": self.assignment_id, "student_id": result.student},
            **time,
        )
        for name, notebook in result.notebooks.items():
            self._change_notebook(result, submission, name, notebook, existing, changes)

    def _change_notebook(
        self,
        result: Result,
        submission: str,
        name: str,
        graded: GradedNotebook,
        existing: Existing,
        changes: Changes,
    ) -> None:
        cells = self.cells[name]
        known = existing.notebooks.get((submission, cells.notebook_id))
        identity = known or new_uuid()
        points = 0.0
        for cell, cell_id in cells.grades.items():
            row = existing.grades.get((identity, cell_id))
            manual, extra = (row.manual_score, row.extra_credit) if row else (None, None)
            auto = graded.scores.get(cell, row.auto_score if row else None)
            waits = (manual is not None or auto is None) and not graded.record.problem
            scored = cell in graded.scores
            values = {"auto_score": auto, "needs_manual_grade": waits} if scored else {}
            new = {"notebook_id": identity, "cell_id": cell_id}
            changes.put(Grade, row.id if row else None, new, **values)
            points += points_of(auto, manual, extra)
        for cell, cell_id in cells.comments.items():
            values = {"auto_comment": graded.comments.get(cell)}
            new = {"notebook_id": identity, "cell_id": cell_id}
            changes.put(Comment, existing.comments.get((identity, cell_id)), new, **values)
        try:
            penalty = self._penalty(result, points)
        except LatePenaltyError as error:
            penalty, changes.troubles[result.student] = None, str(error)
        if known is None:
            new = {"id": identity, "assignment_id": submission, "notebook_id": cells.notebook_id}
            changes.put(SubmittedNotebook, None, new, late_submission_penalty=penalty)
        else:
            changes.put(SubmittedNotebook, known, {}, late_submission_penalty=penalty)

    def _penalty(self, result: Result, points: float) -> float | None:
        """Return what the course's late-submission plugin takes off, within nbgrader's bounds."""
        if result.seconds_late <= 0:
            return None
        plugin = self.penalties.plugin_inst
        try:
            penalty = plugin.late_submission_penalty(result.student, points, result.seconds_late)
            if penalty is None:
                return None
            if math.isnan(penalty):
                raise ValueError("it gave nan, expected a number of points or None")
            notebook = SimpleNamespace(score=points)
            return float(self.penalties._check_late_penalty(notebook, penalty))
        except Exception as error:  # the plugin is the course's; the next student must follow
            raise LatePenaltyError(
                f"The late-submission plugin {type(plugin).__module__}.{type(plugin).__qualname__} "
                f"failed on student {result.student!r}: {type(error).__name__}: {error}."
            ) from error


def _with_trouble(result: Result, trouble: str) -> Result:
    """Return a result that says that what lateness costs is not known, and is out of date."""
    if not trouble:
        return result
    notebooks = {name: _without_penalty(graded) for name, graded in result.notebooks.items()}
    return replace(result, notebooks=notebooks, trouble=trouble)


def _without_penalty(graded: GradedNotebook) -> GradedNotebook:
    record = replace(
        graded.record, incidents=[*graded.record.incidents, NO_PENALTY], digest="failed"
    )
    notebook = nbformat.reads(graded.text, as_version=4)
    record.write_to(notebook)
    return replace(graded, text=nbformat.v4.writes(notebook) + "\n", record=record)


def _cells_of(notebook: Any) -> Cells:
    graded = [*notebook.grade_cells, *notebook.task_cells]
    commented = [*notebook.solution_cells, *notebook.task_cells]
    return Cells(
        notebook.id,
        {cell.name: cell.id for cell in graded},
        {cell.name: cell.id for cell in commented},
    )


class FolderWriter:
    """Puts autograded folders in their place, each in one step."""

    def __init__(self, course: Course, assignment: str) -> None:
        self.course = course
        self.assignment = assignment
        converter = course.converter(Autograde)
        self.permissions = int(str(converter.permissions), 8)
        self.shared = bool(converter.coursedir.groupshared)
        self.given = _given_files(course, assignment, converter.exclude_overwriting)

    def write(self, result: Result) -> None:
        """Write a student's autograded notebooks and the files beside them."""
        folder = self.course.folder("autograded", result.student, self.assignment)
        new, old = _beside(folder)
        remove_folder(old)
        notebooks = {f"{name}.ipynb": nb.text.encode() for name, nb in result.notebooks.items()}
        try:
            self._fill(new, {**result.files, **self.given, **notebooks})
        except OSError as error:  # what one student handed in must not stop the class
            log.warning("%s: the files handed in were left out: %s", result.student, error)
            self._fill(new, {**self.given, **notebooks})
        self._share(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        remove_folder(old)

    def _fill(self, folder: Path, files: Mapping[str, bytes]) -> None:
        remove_folder(folder)
        folder.mkdir(parents=True)
        for name, data in files.items():
            self._write(folder / name, data)

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(self.permissions)

    def _share(self, folder: Path) -> None:
        """Let the group write in the folders, where the course is shared by a group."""
        if self.shared:
            for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
                path.chmod((path.stat().st_mode | 0o2770) & 0o2777)

    def tidy(self, students: Iterable[str]) -> None:
        """Remove what a run that was killed left beside the folders."""
        for student in students:
            for stale in _beside(self.course.folder("autograded", student, self.assignment)):
                remove_folder(stale)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Return where a folder is made, and where the one before it goes."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there, though its files may be read-only."""
    if folder.is_dir():
        shutil.rmtree(folder)


def _given_files(
    course: Course, assignment: str, exclude: Mapping[str, Sequence[str]]
) -> dict[str, bytes]:
    """Return the source's files, which nbgrader puts over those of a submission."""
    source = course.folder("source", ".", assignment)
    ignored = [*course.directory().ignore, "*.ipynb"]
    files = {
        os.path.relpath(path, source): Path(path).read_bytes()
        for path in utils.find_all_files(str(source), ignored)
    }
    kept = set(exclude.get(assignment, ()))
    return {name: data for name, data in files.items() if name not in kept}
