"""Grades all submissions of an assignment and records them through nbgrader.

A submission is taken in by nbgrader's converter, judged by a worker, and recorded by the converter.
Whatever it does, it ends with a recorded score and an explanation, and the next one follows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

from nbgrader.api import MissingEntry

from autograder.assignment import Assignment
from autograder.checking.judge import BrokenCheckError
from autograder.confinement import ConfinementUnavailableError
from autograder.converter import SubmissionConverter
from autograder.course import Course, CourseError
from autograder.intake import read_file
from autograder.summary import Row, Status, read_records, row_of
from autograder.verdict import SubmissionVerdict
from autograder.worker import grade_bytes, read_verdicts

# these say that the course or the machine is not ready, and stop the whole batch
COURSE_TROUBLE = (BrokenCheckError, ConfinementUnavailableError)
PACKAGES = ("autograder", "lossref")

Progress = Callable[[str], None]


def submitted_students(course: Course, assignment: Assignment, student: str = "") -> list[str]:
    """Return the students with a submission folder, or the one asked for.

    Raises
    ------
    CourseError
        If the folder is not there.
    """
    found = course.students_with("submitted", assignment.name)
    if not student:
        if not found:
            place = course.folder("submitted", "*", assignment.name)
            raise CourseError(f"no submissions: there is no folder {place}")
        return [name for name in found if not name.startswith(".")]
    if student not in found:
        place = course.folder("submitted", student, assignment.name)
        raise CourseError(f"no submission of student {student!r}: there is no folder {place}")
    return [student]


@dataclass
class Batch:
    """The submissions of one assignment that are graded in one go.

    The work goes to `executor` if there is one, else to a pool of processes on this machine.
    """

    course: Course
    assignment: Assignment
    students: Sequence[str]
    force: bool = False
    workers: int | None = None
    executor: Executor | None = None

    def run(self, progress: Progress = lambda student: None) -> list[Row]:
        """Grade what has changed; return a row for each student."""
        self.names = self.course.notebook_names(self.assignment)
        state = self._state()
        digests = {student: self._digest(student, state) for student in self.students}
        waiting = [name for name in self.students if self.force or not self._is_done(name, digests)]
        rows = {}
        for student in self.students:
            if student not in waiting:
                rows[student] = self._row(student, "unchanged")
                progress(student)
        for student, trouble in self._grade({name: digests[name] for name in waiting}):
            rows[student] = self._row(student, "failed" if trouble else "graded", trouble)
            progress(student)
        return [rows[student] for student in self.students]

    def _row(self, student: str, status: Status, trouble: str = "") -> Row:
        return row_of(self.course, self.assignment, student, status=status, trouble=trouble)

    def _state(self) -> str:
        """Return a digest of everything but the submissions that the results depend on."""
        files = [self.course.root / "nbgrader_config.py"]
        files += sorted(self.assignment.checks.rglob("*.py"))
        files += sorted(self.assignment.release.parent.rglob("*.ipynb"))
        for package in PACKAGES:
            spec = find_spec(package)
            for folder in (spec and spec.submodule_search_locations) or []:
                files += sorted(Path(folder).rglob("*.py"))
        digest = hashlib.sha256(repr(self.course.config).encode())
        for path in files:
            digest.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"-")
        with self.course.gradebook() as gradebook:
            digest.update(str(gradebook.find_assignment(self.assignment.name).duedate).encode())
        return digest.hexdigest()

    def _digest(self, student: str, state: str) -> str:
        folder = self.course.folder("submitted", student, self.assignment.name)
        digest = hashlib.sha256(state.encode())
        for path in sorted(folder.rglob("*")):
            digest.update(f"\0{path.relative_to(folder)}\0".encode(errors="surrogateescape"))
            try:
                digest.update(hashlib.sha256(read_file(path)).digest())
            except OSError as error:
                digest.update(type(error).__name__.encode())
        return digest.hexdigest()

    def _is_done(self, student: str, digests: dict[str, str]) -> bool:
        try:
            records = read_records(self.course, self.assignment, student)
        except (OSError, ValueError):
            return False
        with self.course.gradebook() as gradebook:
            try:
                gradebook.find_submission(self.assignment.name, student)
            except MissingEntry:
                return False
        done = {name: record.digest for name, record in records.items()}
        return done == dict.fromkeys(self.names, digests[student])

    def _grade(self, digests: dict[str, str]) -> Iterator[tuple[str, str]]:
        """Grade students; yield each with what went wrong on the grader's side, if anything."""
        if not digests:
            return
        interrupted = []
        futures: dict[Future[bytes], SubmissionConverter] = {}
        with self._executor(len(digests)) as executor:
            try:
                futures.update(self._submitted(executor, digests))
                for future in as_completed(futures):
                    converter = futures[future]
                    if isinstance(future.exception(), BrokenExecutor):
                        interrupted.append(converter)
                    else:
                        yield converter.student, self._record(converter, future)
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
        for converter in interrupted:
            with self._executor(1) as executor:
                again = executor.submit(grade_bytes, converter.work().to_bytes())
                again.exception()
            yield converter.student, self._record(converter, again)

    def _executor(self, most: int) -> AbstractContextManager[Executor]:
        """Return where the work is done."""
        if self.executor is not None:
            return nullcontext(self.executor)
        count = min(self.workers or len(os.sched_getaffinity(0)), most)
        return ProcessPoolExecutor(count, mp_context=get_context("spawn"))

    def _submitted(
        self, executor: Executor, digests: dict[str, str]
    ) -> Iterator[tuple[Future[bytes], SubmissionConverter]]:
        for student, digest in digests.items():
            converter = SubmissionConverter(self.course, self.assignment, student, digest)
            try:
                converter.prepare(self.names)
                yield executor.submit(grade_bytes, converter.work().to_bytes()), converter
            except Exception as error:  # the next submission must follow whatever happens
                yield _failed(error), converter

    def _record(self, converter: SubmissionConverter, future: Future[bytes]) -> str:
        """Record a submission; return what went wrong on the grader's side, if anything."""
        try:
            verdicts = read_verdicts(future.result())
            converter.record(verdicts)
        except COURSE_TROUBLE:
            raise
        except Exception as error:
            return self._record_failure(converter, error)
        return ""

    def _record_failure(self, converter: SubmissionConverter, error: Exception) -> str:
        """Record a submission that the grader itself could not deal with."""
        trouble = f"The grader failed on this submission: {type(error).__name__}: {error}"
        again = SubmissionConverter(
            self.course, self.assignment, converter.student, digest="failed"
        )
        again.problem = (
            "This submission could not be graded, through a fault of the grader's. "
            "Ask your instructor to grade it."
        )
        try:
            again.prepare(self.names)
            verdicts: dict[str, SubmissionVerdict] = {}
            again.record(verdicts)
        except Exception as second:
            return f"{trouble}; recording it failed too: {type(second).__name__}: {second}"
        return trouble


def _failed(error: Exception) -> Future[bytes]:
    future: Future[bytes] = Future()
    future.set_exception(error)
    return future
