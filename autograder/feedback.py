"""Writes the feedback pages through nbgrader's own converter, many students side by side."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from functools import cache
from pathlib import Path
from typing import Any

from nbconvert.exporters.exporter import ResourcesDict
from nbgrader.converters import GenerateFeedback
from nbgrader.converters.base import NbGraderException

from autograder.assignment import Assignment
from autograder.course import Course, quiet_nbgrader
from autograder.executors import LocalPool
from autograder.grades import grade_digests

log = logging.getLogger(__name__)
MARK = "\n<!-- grades {} -->\n"
MARK_AT_END = re.compile(rb"<!-- grades ([0-9a-f]{64}) -->\s*\Z")
MARK_BYTES = 100
ONE_LINE = 300
# the pages of so few students are made before other processes are ready for them
FEW = 8
# what a browser may run a script in
PAGE_SUFFIX = re.compile(
    r"\.(?:[esx]?html?|xht|mht|mhtml|svgz?|xml|xslt?|atom|rss|rdf|mml)", re.IGNORECASE
)


def write_feedback(
    course: Course,
    assignment: Assignment,
    students: Sequence[str],
    progress: Callable[[str], None] = lambda student: None,
    workers: int | None = None,
) -> dict[str, str]:
    """Write the pages that are missing or out of date; return why whose could not be written.

    Those of many students are made by `workers` processes, one a core if it is None.
    """
    with course.gradebook() as gradebook:
        digests = grade_digests(gradebook, assignment.name)
    failed = {}
    stale = []
    for student in students:
        if _is_stale(course, assignment, student, digests):
            stale.append(student)
        else:
            progress(student)
    for student, reason in _written(course, assignment, stale, digests, workers):
        progress(student)
        if reason:
            log.warning("%r: no feedback page could be made: %s", student, reason)
            failed[student] = reason
    return failed


def _written(
    course: Course,
    assignment: Assignment,
    students: Sequence[str],
    digests: Mapping[tuple[str, str], str],
    workers: int | None,
) -> Iterator[tuple[str, str]]:
    """Write students' pages; yield each when it is done, with why it could not be, if so."""
    if len(students) <= FEW:
        for student in students:
            yield student, _write_pages(course, assignment.name, student, digests)
        return
    setting = [str(course.settings_file.parent), course.directory().db_url, assignment.name]
    marks: dict[str, dict[str, str]] = {student: {} for student in students}
    for (student, notebook), digest in digests.items():
        marks.setdefault(student, {})[notebook] = digest
    with LocalPool(workers) as pool:
        students_of: dict[Future[bytes], str] = {}
        for student in students:
            request = json.dumps([*setting, student, marks[student]]).encode()
            students_of[pool.submit(write_pages, request)] = student
        for future in as_completed(students_of):
            yield students_of[future], _reason_in(future)


def _reason_in(future: Future[bytes]) -> str:
    try:
        return future.result().decode()
    except Exception as error:  # the other students' pages must follow whatever happens
        return _one_line(error)


def write_pages(request: bytes) -> bytes:
    """Write the pages that a request names; return why it could not be done, or nothing."""
    root, db_url, assignment, student, marks = json.loads(request)
    digests = {(student, name): digest for name, digest in marks.items()}
    return _write_pages(_course_at(root, db_url), assignment, student, digests).encode()


def prepare(request: bytes) -> None:
    """Load what such requests need."""
    _course_at(*json.loads(request)[:2])


@cache
def _course_at(root: str, db_url: str) -> Course:
    """Return the course as another process has it, to which a gradebook may have been named."""
    quiet_nbgrader()
    course = Course.load(Path(root))
    course.config.CourseDirectory.db_url = db_url
    return course


def feedback_pages(course: Course, assignment: Assignment, student: str) -> list[Path]:
    """Return a student's feedback pages: those of the notebooks that were graded, and no other."""
    folder = course.folder("feedback", student, assignment.name)
    notebooks = course.folder("autograded", student, assignment.name).glob("*.ipynb")
    pages = sorted(folder / f"{notebook.stem}.html" for notebook in notebooks)
    return [page for page in pages if page.is_file() and not page.is_symlink()]


def _is_stale(
    course: Course, assignment: Assignment, student: str, digests: Mapping[tuple[str, str], str]
) -> bool:
    autograded = course.folder("autograded", student, assignment.name)
    pages = {page.stem: page for page in feedback_pages(course, assignment, student)}
    for notebook in autograded.glob("*.ipynb"):
        page = pages.get(notebook.stem)
        if page is None or page.stat().st_mtime_ns < notebook.stat().st_mtime_ns:
            return True
        # grading by hand changes the gradebook alone
        if _marked_with(page) != digests.get((student, notebook.stem)):
            return True
    return False


def _marked_with(page: Path) -> str | None:
    """Return the digest of the grades that a page was made from, if it says so."""
    with page.open("rb") as file:
        file.seek(max(0, page.stat().st_size - MARK_BYTES))
        found = MARK_AT_END.search(file.read())
    return found[1].decode() if found else None


class _PagesOfOne(GenerateFeedback):  # type: ignore[misc]
    """Makes one student's pages; finds the notebooks by their names, whatever these hold."""

    student = ""
    digests: Mapping[tuple[str, str], str]
    reason = ""

    def init_notebooks(self) -> None:
        """Take the student's notebooks; nbgrader reads a bracket in a name as a pattern."""
        folder = self._format_source(self.coursedir.assignment_id, self.student)
        notebooks = sorted(str(path) for path in Path(folder).glob("*.ipynb"))
        if not notebooks:
            raise NbGraderException(f"there is no notebook in {folder}")
        self.assignments = {folder: notebooks}

    def _format_source(self, assignment_id: str, student_id: str, escape: bool = False) -> str:
        source: str = super()._format_source(assignment_id, student_id, escape=escape)
        # nbgrader reads the names back with an expression whose dots stand for no line break
        return f"(?s){source}" if escape else source

    @contextlib.contextmanager
    def _noting(self, what: str = "") -> Iterator[None]:
        """Keep the reason of a failure, which nbgrader only logs."""
        try:
            yield
        except Exception as error:
            self.reason = what + _one_line(error)
            raise

    def init_destination(self, assignment_id: str, student_id: str) -> bool:
        """Clear the folder of the pages."""
        with self._noting():
            done: bool = super().init_destination(assignment_id, student_id)
        return done

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        """Copy the other files, but none that could be taken for a page of the grader's."""
        with self._noting():
            super().init_assignment(assignment_id, student_id)
            folder = Path(self._format_dest(assignment_id, student_id))
            for path in list(folder.rglob("*")):
                if path.is_file() and PAGE_SUFFIX.fullmatch(path.suffix):
                    path.unlink()
            for notebook in self.notebooks:
                shutil.rmtree(folder / f"{Path(notebook).stem}.html", ignore_errors=True)

    def convert_single_notebook(self, notebook_filename: str) -> None:
        """Convert a notebook."""
        with self._noting(f"{Path(notebook_filename).name}: "):
            super().convert_single_notebook(notebook_filename)

    def write_single_notebook(self, output: str, resources: ResourcesDict) -> None:
        """Write a page, with a mark of the grades that it was made from."""
        notebook = resources["nbgrader"]["notebook"]
        mark = MARK.format(self.digests.get((self.student, notebook), ""))
        super().write_single_notebook(output + mark, resources)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:ONE_LINE]


def _write_pages(
    course: Course, assignment: str, student: str, digests: Mapping[tuple[str, str], str]
) -> str:
    """Write a student's pages; return why it could not be done, or an empty string."""
    config: Any = copy.deepcopy(course.config)
    config.CourseDirectory.assignment_id = assignment
    config.CourseDirectory.student_id = student
    converter = course.converter(_PagesOfOne, config)
    converter.force = True
    converter.student, converter.digests = student, digests
    try:
        converter.start()
    except NbGraderException as error:
        return converter.reason or " ".join(str(error).split())
    return ""
