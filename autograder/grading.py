"""Grades all submissions of an assignment and records them.

A submission is read here, rebuilt, run and judged by a worker, and recorded here. Only a few are on
their way at a time. Whatever a submission does, it ends with a recorded score and an explanation,
and the next one follows.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.converters import Autograde
from sqlalchemy.exc import DBAPIError
from traitlets.utils.importstring import import_item

from autograder.assignment import Assignment, BrokenCheckError, hidden_assignment
from autograder.confinement import ConfinementUnavailableError, require_out_of_sight
from autograder.convert_hooks import ConvertHooks
from autograder.course import Course, CourseError
from autograder.environment import environment
from autograder.executors import open_executor
from autograder.record import Record
from autograder.recorder import Recorder, Result
from autograder.skeleton import SkeletonError, prepared_skeleton
from autograder.submission_folder import SubmissionFolder, read_folder
from autograder.summary import Row, Status, read_records, row_of, standings
from autograder.work import GradedNotebook, Setting, Work, grade_bytes, read_graded
from autograder.worker_process import ClusterError

# these say that the course or the machine is not ready, and stop the whole batch
COURSE_TROUBLE: tuple[type[Exception], ...] = (
    BrokenCheckError,
    ClusterError,
    ConfinementUnavailableError,
)
FAULT = (
    "This submission could not be graded, through a fault of the grader's. "
    "Ask your instructor to grade it."
)
ON_THE_WAY_BYTES = 256 * 2**20
RECORDED_AT_ONCE = 20
RECORD_SECONDS = 1.0
POLL_SECONDS = 0.2
ATTEMPTS = 2
# steps of nbgrader's that the worker or the recorder takes in another way
SCORING = ("RecordScores", "SaveAutoGrades")
TAKEN = (
    *SCORING,
    "JudgeSubmission",
    "Execute",
    "AssignLatePenalties",
    "CheckCellMetadata",
)

Progress = Callable[[str], None]
log = logging.getLogger("autograder.grading")


class GradingStoppedError(Exception):
    """Grading was stopped on request; what was graded by then is recorded."""


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
class Pending:
    """A submission that is to be graded; `error` says that it could not even be read."""

    student: str
    folder: SubmissionFolder
    work: Work
    attempts: int = 0
    error: Exception | None = None


@dataclass
class Batch:
    """The submissions of one assignment that are graded in one go.

    The work goes to `executor` if there is one, else to a pool of processes on this machine. At
    most `in_flight` submissions are on their way at a time. Setting `stop` ends the grading soon:
    what is graded by then is recorded. `hook_failures` tells of the course's own functions.
    """

    course: Course
    assignment: Assignment
    students: Sequence[str]
    force: bool = False
    workers: int | None = None
    executor: Executor | None = None
    in_flight: int | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    hook_failures: list[str] = field(default_factory=list)

    def run(self, progress: Progress = lambda student: None) -> list[Row]:
        """Grade what has changed; return a row for each student.

        Raises
        ------
        GradingStoppedError
            If `stop` was set before all was graded.
        CourseError
            If the course is not ready, or another run is grading in it.
        """
        with _alone_in(self.course), self.course.gradebook() as gradebook:
            run = _Run(self, Recorder(self.course, self.assignment, gradebook), progress)
            log.info("grading %d submissions of %s", len(self.students), self.assignment.name)
            run.grade()
            known = standings(gradebook, self.assignment.name)
        return [
            row_of(
                student,
                run.statuses[student],
                known.get(student),
                run.records.get(student, {}),
                run.troubles.get(student, ""),
            )
            for student in self.students
        ]

    def open_executor(self) -> AbstractContextManager[Executor]:
        """Return where the work is done."""
        if self.executor is not None:
            return nullcontext(self.executor)
        count = min(self.workers or len(os.sched_getaffinity(0)), len(self.students))
        return open_executor(self.assignment, workers=max(1, count))


@contextlib.contextmanager
def _alone_in(course: Course) -> Iterator[None]:
    """Keep a second run from writing the same folders."""
    with course.settings_file.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CourseError(
                f"another `autograder grade` is running in {course.root}; wait until it has ended"
            ) from None
        yield


class _Run:
    """One run of a batch: what is on its way, what is graded, and what became of each student."""

    def __init__(self, batch: Batch, recorder: Recorder, progress: Progress) -> None:
        self.batch = batch
        self.recorder = recorder
        self.progress = progress
        self.hooks = ConvertHooks(batch.course, batch.assignment.name, batch.hook_failures)
        self.names = sorted(recorder.cells)
        self.setting = make_setting(batch.course, batch.assignment, self.names)
        state = state_digest(batch.course, batch.assignment, self.setting)
        self.given = recorder.folders.given
        self.state = _digest_of(state, *sorted(self.given.items())) if self.given else state
        self.ignored = batch.course.directory().ignore
        self.statuses: dict[str, Status] = {}
        self.records: dict[str, dict[str, Record]] = {}
        self.troubles: dict[str, str] = {}
        self.on_the_way: dict[Future[bytes], Pending] = {}
        self.graded: list[Result] = []
        self.graded_since = 0.0

    def grade(self) -> None:
        """Grade and record what has changed."""
        self.recorder.folders.tidy(self.batch.students)
        waiting = self._waiting()
        with self.batch.open_executor() as executor:
            try:
                while self._submit(executor, waiting) or self.on_the_way:
                    self._collect(executor)
                    self._record_if_due()
                    self._stop_if_asked()
            finally:
                for future in self.on_the_way:
                    future.cancel()
                self._record()

    def _waiting(self) -> Iterator[Pending]:
        """Yield the submissions whose results are missing or out of date; note the others."""
        for student in self.batch.students:
            pending = self._read(student)
            records = {} if self.batch.force else self._recorded(pending)
            if records:
                self.statuses[student], self.records[student] = "unchanged", records
                self.progress(student)
            else:
                yield self._read(student) if self.hooks.before(student) else pending

    def _read(self, student: str) -> Pending:
        folder, error = SubmissionFolder(), None
        try:
            path = self.batch.course.folder("submitted", student, self.batch.assignment.name)
            folder = read_folder(path, self.names, self.ignored, self.given)
        except Exception as trouble:  # the next submission must follow whatever happens
            error = trouble
        late = self.recorder.seconds_late(student, folder.timestamp)
        digest = _digest_of(self.state, student, folder.digest(), late)
        work = Work(
            self.setting,
            student,
            folder.notebooks,
            folder.problems,
            # nbgrader puts the source's files over those handed in before it runs a notebook
            {**folder.files, **self.given},
            folder.notes,
            late,
            "failed" if error else digest,
        )
        return Pending(student, folder, work, error=error)

    def _recorded(self, pending: Pending) -> dict[str, Record]:
        """Return the records of a submission if they are up to date."""
        if pending.student not in self.recorder.submitted or pending.error:
            return {}
        in_gradebook, _ = self.recorder.submitted[pending.student]
        # the folder's own records know nothing of a gradebook that was put back from a copy
        if pending.folder.timestamp not in (None, in_gradebook):
            return {}
        try:
            records = read_records(self.batch.course, self.batch.assignment, pending.student)
        except (OSError, ValueError):
            return {}
        done = {name: record.digest for name, record in records.items()}
        return records if done == dict.fromkeys(self.names, pending.work.digest) else {}

    def _submit(self, executor: Executor, waiting: Iterator[Pending]) -> bool:
        """Fill the way with submissions; return whether there was one."""
        workers = getattr(executor, "size", None) or len(os.sched_getaffinity(0))
        most = self.batch.in_flight or 2 * workers + 2
        submitted = False
        while len(self.on_the_way) < most and self._bytes_on_the_way() < ON_THE_WAY_BYTES:
            pending = next(waiting, None)
            if pending is None:
                break
            self._start(executor, pending)
            submitted = True
            self._stop_if_asked()
        return submitted

    def _bytes_on_the_way(self) -> int:
        return sum(pending.folder.size for pending in self.on_the_way.values())

    def _start(self, executor: Executor, pending: Pending) -> None:
        pending.attempts += 1
        try:
            if pending.error is not None:
                raise pending.error
            future = executor.submit(grade_bytes, pending.work.to_bytes())
        except Exception as error:
            future = Future()
            future.set_exception(error)
        self.on_the_way[future] = pending

    def _collect(self, executor: Executor) -> None:
        """Wait a moment for results; keep those that have come."""
        done, _ = wait(self.on_the_way, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in done:
            pending = self.on_the_way.pop(future)
            broken = isinstance(future.exception(), BrokenExecutor)
            if broken and pending.attempts < ATTEMPTS:
                log.warning("%s: %s; it is tried again", pending.student, future.exception())
                self._start(executor, pending)
            else:
                self._keep(pending, future)

    def _keep(self, pending: Pending, future: Future[bytes]) -> None:
        try:
            notebooks = read_graded(future.result())
        except COURSE_TROUBLE:
            raise
        except Exception as error:
            notebooks = self._failed(pending, error)
        for name, notebook in notebooks.items():
            for sentence in (notebook.record.problem, *notebook.record.incidents):
                if sentence:
                    log.warning("%s, %s: %s", pending.student, name, sentence)
        if not self.graded:
            self.graded_since = time.monotonic()
        late = pending.work.seconds_late
        files, timestamp = pending.folder.files, pending.folder.timestamp
        self.graded.append(Result(pending.student, notebooks, files, timestamp, late))

    def _failed(self, pending: Pending, error: Exception) -> dict[str, GradedNotebook]:
        """Return what is recorded of a submission that the grader itself could not deal with."""
        # brings torch, which this process needs for nothing else
        from autograder.worker import grade_submission

        trouble = f"The grader failed on this submission: {type(error).__name__}: {error}"
        self._note_trouble(pending.student, trouble)
        work = Work(self.setting, pending.student, {}, notes=pending.work.notes, digest="failed")
        return grade_submission(work, FAULT)

    def _note_trouble(self, student: str, trouble: str) -> None:
        """Keep why a submission counts as failed, if it does."""
        if trouble:
            log.error("%s: %s", student, trouble)
            known = self.troubles.get(student)
            self.troubles[student] = f"{known} {trouble}" if known else trouble

    def _record_if_due(self) -> None:
        waited = time.monotonic() - self.graded_since
        if len(self.graded) >= RECORDED_AT_ONCE or (self.graded and waited > RECORD_SECONDS):
            self._record()

    def _record(self) -> None:
        """Record what is graded."""
        if not self.graded:
            return
        results, self.graded = self.graded, []
        try:
            recorded = self.recorder.record(results)
        except (DBAPIError, OSError) as error:
            what = "an autograded folder" if isinstance(error, OSError) else "the gradebook"
            raise CourseError(
                f"{what} could not be written: {getattr(error, 'orig', error)}; "
                "the same command goes on from what is recorded, unless it has --force"
            ) from error
        for result in recorded:
            student = result.student
            self._note_trouble(student, result.trouble)
            self.statuses[student] = "failed" if student in self.troubles else "graded"
            self.records[student] = {name: nb.record for name, nb in result.notebooks.items()}
            self.hooks.after(student)
            self.progress(student)

    def _stop_if_asked(self) -> None:
        if self.batch.stop.is_set():
            self._record()
            done, all_of_them = len(self.statuses), len(self.batch.students)
            words = f"stopped: {done} of {all_of_them} submissions are done and recorded"
            log.warning(words)
            raise GradingStoppedError(f"{words}; {_how_to_go_on(self.batch.force)}")


def _how_to_go_on(force: bool) -> str:
    if force:
        return (
            "the same command without --force grades what is new or has changed, "
            "with it all of them again"
        )
    return "the same command goes on from here"


def make_setting(course: Course, assignment: Assignment, names: Iterable[str]) -> Setting:
    """Return what is the same for all submissions of an assignment.

    Raises
    ------
    CourseError
        If a released notebook does not fit the gradebook, or a setting cannot be used.
    """
    judge = course.judge()
    # the folders of a course with hidden checks are covered wherever they lie
    if judge.confined and hidden_assignment(course.root, assignment.name) is None:
        require_out_of_sight(course.root)
    steps, later_steps = _other_steps(course)
    for step in (*_sanitizing_steps(course), *steps, *later_steps):
        course.require_step(step)
    directory = course.directory()
    try:
        skeletons = {name: prepared_skeleton(directory, assignment.name, name) for name in names}
    except SkeletonError as error:
        raise CourseError(str(error)) from error
    return Setting(
        course.root,
        assignment.name,
        {
            name: (nbformat.v4.writes(skeleton.released), nbformat.v4.writes(skeleton.corrected))
            for name, skeleton in skeletons.items()
        },
        course.class_seed(),
        judge.limits,
        judge.confined,
        judge.book_url,
        steps,
        later_steps,
        _plain(course.config),
    )


def _other_steps(course: Course) -> tuple[list[str], list[str]]:
    """Return the course's own and nbgrader's steps between judging and scoring, and those after."""
    steps = course.config.Autograde.get("autograde_preprocessors", [])
    names = [_step_name(step) for step in steps]
    plain = [name.rpartition(".")[2] for name in names]
    scored = max((place for place, name in enumerate(plain) if name in SCORING), default=len(names))
    kept = [(place < scored, name) for place, name in enumerate(names) if plain[place] not in TAKEN]
    return [name for early, name in kept if early], [name for early, name in kept if not early]


def _sanitizing_steps(course: Course) -> list[str]:
    """Return nbgrader's steps that correct a notebook by the gradebook."""
    return [_step_name(step) for step in course.converter(Autograde).sanitize_preprocessors]


def _step_name(step: Any) -> str:
    return step if isinstance(step, str) else _name(step)


def _name(item: Any) -> str:
    return f"{getattr(item, '__module__', '')}.{getattr(item, '__qualname__', type(item).__name__)}"


def _plain(config: Any) -> dict[str, Any]:
    """Return the settings as JSON can hold them."""
    plain: dict[str, Any] = json.loads(json.dumps(config, sort_keys=True, default=_name))
    return plain


def state_digest(course: Course, assignment: Assignment, setting: Setting) -> str:
    """Return a digest of everything but the submissions that the results depend on.

    That is the released notebook and the gradebook's own copy of it, the files of the assignment's
    hidden checks and the fixtures they share, the settings and the files of the steps and plugin
    that they name, the class's secret, `lossref`, the autograder, Python and the packages that
    matter; and which gradebook the results are in.
    """
    config = {**setting.config}
    config["CourseDirectory"] = {
        key: value
        for key, value in config.get("CourseDirectory", {}).items()
        if key not in ("root", "db_url")
    }
    known = [
        setting.assignment,
        setting.skeletons,
        config,
        hashlib.sha256(setting.class_seed.encode()).hexdigest(),
        vars(setting.limits),
        setting.confined,
        environment(),
        course.gradebook_name,
    ]
    # the same wherever the course lies
    text = json.dumps(known, sort_keys=True).replace(str(course.root), "")
    digest = hashlib.sha256(text.encode())
    for path in _named_files(course, setting):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for path in _check_files(assignment):
        digest.update(f"\0{path.relative_to(assignment.root)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _named_files(course: Course, setting: Setting) -> Iterator[Path]:
    """Yield the files that hold the steps and the late-submission plugin named by the settings."""
    kinds = [import_item(name) for name in (*setting.steps, *setting.later_steps)]
    for kind in (*kinds, type(course.late_penalties().plugin_inst)):
        try:
            yield Path(inspect.getfile(kind))
        except (OSError, TypeError):  # a class that the settings make themselves
            yield course.settings_file


def _check_files(assignment: Assignment) -> list[Path]:
    """Return the files of an assignment's checks, and the fixtures of the folders above."""
    own = [path for path in assignment.checks.rglob("*") if "__pycache__" not in path.parts]
    above = [assignment.checks, *assignment.checks.parents]
    shared = [
        folder / "conftest.py" for folder in above if assignment.root in (folder, *folder.parents)
    ]
    return sorted({path for path in (*own, *shared) if path.is_file()})


def _digest_of(state: str, *parts: object) -> str:
    return hashlib.sha256(repr((state, *parts)).encode()).hexdigest()
