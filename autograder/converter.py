"""nbgrader's converter for one submission, with the judging outside between its two steps."""

from __future__ import annotations

import copy
import glob
import stat
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import nbformat
from nbconvert.writers import FilesWriter
from nbgrader import utils
from nbgrader.converters import Autograde
from nbgrader.converters.base import BaseConverter
from nbgrader.coursedir import CourseDirectory

from autograder.assignment import Assignment
from autograder.course import Course
from autograder.intake import quoted, read_file
from autograder.nbgrader_plugin import JudgeSubmission, SubmissionExporter
from autograder.record import Record
from autograder.verdict import SubmissionVerdict
from autograder.worker import Work

MAX_EXTRA_FILE_BYTES = 50 * 2**20
MAX_TIMESTAMP_BYTES = 1_000
TIMESTAMP = "timestamp.txt"


class TolerantCourseDirectory(CourseDirectory):  # type: ignore[misc]
    """nbgrader's course folder, whose `timestamp.txt` files may hold anything."""

    def get_existing_timestamp(self, folder: str) -> datetime | None:
        """Return a submission's time, or None where there is none that can be read."""
        try:
            text = read_file(Path(folder) / TIMESTAMP, MAX_TIMESTAMP_BYTES).decode().strip()
            time: datetime | None = utils.parse_utc(text) if text else None
        except Exception:  # whatever the date parser raises for nonsense
            return None
        return time


class SubmissionConverter(Autograde):  # type: ignore[misc]
    """nbgrader's autograder for one submission: `prepare`, then `record` the verdicts."""

    def __init__(
        self, course: Course, assignment: Assignment, student: str, digest: str = ""
    ) -> None:
        config = copy.deepcopy(course.config)
        super().__init__(coursedir=TolerantCourseDirectory(config=config), config=config)
        self.assignment = assignment
        self.student = student
        self.submitted = course.folder("submitted", student, assignment.name)
        self.autograded = course.folder("autograded", student, assignment.name)
        left_out, sentences = unsafe_files(self.submitted)
        self.coursedir.ignore = [*self.coursedir.ignore, *map(glob.escape, left_out)]
        self.coursedir.assignment_id = assignment.name
        self.coursedir.student_id = student
        # the exporter puts these three into the submission's record
        self.digest = digest
        self.repairs = [*sentences, *self._timestamp_trouble()]
        self.problem = ""

    def _timestamp_trouble(self) -> list[str]:
        path = self.submitted / TIMESTAMP
        if self.coursedir.get_existing_timestamp(str(self.submitted)) or not path.is_file():
            return []
        try:
            text = read_file(path, MAX_TIMESTAMP_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return []
        return [f"The file {TIMESTAMP} holds {quoted(text)}, which is not a time; it was ignored."]

    def prepare(self, names: Sequence[str]) -> None:
        """Take a submission in: rebuild its notebooks in the autograded folder."""
        self.notebooks = [str(self.submitted / f"{name}.ipynb") for name in names]
        self.writer = FilesWriter(parent=self, config=self.config)
        self.exporter = SubmissionExporter(parent=self, config=self.config)
        if self.autograded.exists():
            utils.rmtree(str(self.autograded))
        self.init_assignment(self.assignment.name, self.student)
        self._sanitizing = True
        self._init_preprocessors()
        for path in self.notebooks:
            BaseConverter.convert_single_notebook(self, path)

    def work(self) -> Work:
        """Return the work on the prepared notebooks that could be read."""
        judge = JudgeSubmission(parent=self.exporter)
        notebooks = {path.name: nbformat.read(path, as_version=4) for path in self._prepared()}
        return Work(
            {name: nb for name, nb in notebooks.items() if not Record.read_from(nb).problem},
            Path(self.coursedir.root),
            self.assignment.name,
            judge.class_seed,
            judge.limits,
            judge.confined,
            {
                str(path.relative_to(self.autograded)): path.read_bytes()
                for path in self.autograded.rglob("*")
                if path.is_file() and path.suffix != ".ipynb"
            },
        )

    def _prepared(self) -> list[Path]:
        return [self.autograded / Path(path).name for path in self.notebooks]

    def record(self, verdicts: Mapping[str, SubmissionVerdict]) -> None:
        """Write outputs and scores of the prepared notebooks."""
        self._sanitizing = False
        for path in self._prepared():
            verdict = verdicts.get(path.name, SubmissionVerdict())
            self._init_preprocessors()
            self.exporter._preprocessors = [
                JudgeSubmission(parent=self.exporter, verdict=verdict)
                if isinstance(step, JudgeSubmission)
                else step
                for step in self.exporter._preprocessors
            ]
            BaseConverter.convert_single_notebook(self, str(path))
        self.set_permissions(self.assignment.name, self.student)


def unsafe_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of files that must not be copied from a submission, and a sentence each."""
    names, sentences = [], []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if path.suffix == ".ipynb" or stat.S_ISDIR(status.st_mode):
            continue
        if stat.S_ISLNK(status.st_mode):
            reason = "a link"
        elif not stat.S_ISREG(status.st_mode):
            reason = "not a regular file"
        elif status.st_size > MAX_EXTRA_FILE_BYTES:
            reason = f"larger than {MAX_EXTRA_FILE_BYTES // 2**20} MiB"
        else:
            continue
        names.append(path.name)
        sentences.append(f"The file {quoted(path.name)} is {reason} and was left out.")
    return names, sentences
