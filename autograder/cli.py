"""The command `autograder`."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import rich.box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from autograder.assignment import (
    Assignment,
    BrokenCheckError,
    UnknownAssignmentError,
    assignment_names,
    project_root,
)
from autograder.confinement import ConfinementUnavailableError
from autograder.course import Course, CourseError, quiet_nbgrader
from autograder.executors import open_executor
from autograder.feedback import write_feedback
from autograder.grading import Batch, GradingStoppedError, submitted_students
from autograder.misspelt import misspelt_settings
from autograder.record import points_text
from autograder.release import release, release_difference
from autograder.report import write_report
from autograder.summary import Row
from autograder.worker_process import ClusterError

if TYPE_CHECKING:
    from autograder.self_check import CheckedNotebook

OK, NOT_ALL_WELL, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
EXIT_STATUS = """\
exit status:
  0    all is well
  1    the command did its work, and something needs a look: a submission that the grader failed on
       (one that is damaged is graded), a feedback page that could not be made, an exercise that is
       out of step, checks not passed
  2    wrong use: something named is not there, or the course or this machine is not ready
  130  stopped by Ctrl-C, SIGTERM or a terminal that was closed; what was done is recorded, and the
       same command goes on from there, unless it has --force
"""
WORKERS = "processes (default: one a core)"
# one long name must not take the room of what happened to all
NAME_WIDTH = 32
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
USER_ERRORS = (
    BrokenCheckError,
    ClusterError,
    ConfinementUnavailableError,
    CourseError,
    # a disk that is full, a folder that cannot be written
    OSError,
    UnknownAssignmentError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a terminal need not have every character of a table
        sys.stdout.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    quiet_nbgrader()
    try:
        status: int = options.run(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_ALL_WELL
    except USER_ERRORS as error:
        print(f"autograder: {error}", file=sys.stderr)
        return WRONG_USE
    except GradingStoppedError as stopped:
        print(f"autograder: {stopped}", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        begins_again = getattr(options, "force", False)
        how = "" if begins_again else "; the same command goes on from here"
        print(f"autograder: stopped{how}", file=sys.stderr)
        return INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autograder",
        description="Grade notebooks with the verdict outside the student's process.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("grade", help="grade what was submitted for an assignment")
    command.set_defaults(run=_grade)
    command.add_argument("assignment")
    command.add_argument("--student", type=_not_empty, help="grade this student only")
    command.add_argument("--force", action="store_true", help="grade again what has not changed")
    place = command.add_mutually_exclusive_group()
    place.add_argument("--workers", type=_positive_int, help=WORKERS)
    place.add_argument(
        "--scheduler",
        type=_not_empty,
        metavar="ADDRESS",
        help="grade on the Dask cluster whose scheduler is at tcp://HOST:PORT (or tls://)",
    )
    command.add_argument("--json", action="store_true", help="print the results as JSON")
    _add_running_options(command)
    _add_gradebook_option(command)

    command = commands.add_parser("check", help="check your own notebook")
    command.set_defaults(run=_check)
    command.add_argument("notebook", type=Path)
    command.add_argument("--assignment", type=_not_empty, help="default: the notebook's name")
    _add_running_options(command)

    command = commands.add_parser("report", help="write the class report and missing feedback")
    command.set_defaults(run=_report)
    command.add_argument("assignment")
    command.add_argument(
        "--output", type=_path, help="default: reports/ASSIGNMENT, where the autograded folder is"
    )
    command.add_argument("--workers", type=_positive_int, help=WORKERS)
    _add_gradebook_option(command)

    command = commands.add_parser("release", help="make the student's notebooks from the sources")
    command.set_defaults(run=_release)
    command.add_argument("assignments", nargs="*", metavar="ASSIGNMENT", help="default: all")
    command.add_argument(
        "--check", action="store_true", help="change nothing; fail if a notebook is out of step"
    )
    _add_gradebook_option(command)

    command = commands.add_parser("sample-class", help="make submissions to try the grading on")
    command.set_defaults(run=_sample_class)
    command.add_argument("assignment")
    command.add_argument("--size", type=_positive_int)
    command.add_argument("--seed", type=_whole_number, default=0)
    _add_gradebook_option(command)

    command = commands.add_parser("doctor", help="say what this machine and course can do")
    command.set_defaults(run=_doctor)
    return parser


def _add_running_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--time-limit",
        type=_positive_float,
        metavar="SECONDS",
        help="the longest that a cell, or a call of a function, may run",
    )
    command.add_argument(
        "--unconfined",
        action="store_true",
        help="run notebooks with all your rights: only for notebooks that you trust",
    )


def _add_gradebook_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--db",
        type=_not_empty,
        metavar="URL",
        help="the gradebook, such as sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE "
        "(default: what nbgrader_config.py says)",
    )


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _positive_int(text: str) -> int:
    value = _whole_number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value


def _positive_float(text: str) -> float:
    wrong = argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    try:
        value = float(text)
    except ValueError:
        raise wrong from None
    if not 0 < value < float("inf"):
        raise wrong
    return value


def _not_empty(text: str) -> str:
    """Refuse what a shell's variable that is not set leaves."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; leave the option out, or give it a value")
    return text


def _path(text: str) -> Path:
    return Path(_not_empty(text))


def _course(options: argparse.Namespace) -> Course:
    """Load the course, with the command line's settings over its own."""
    course = Course.load(project_root())
    judge = course.config.JudgeSubmission
    if getattr(options, "time_limit", None):
        judge.cell_seconds = judge.call_seconds = options.time_limit
    if getattr(options, "unconfined", False):
        print("autograder: UNCONFINED: every notebook runs with all your rights", file=sys.stderr)
        judge.confined = False
    if getattr(options, "db", None):
        course.config.CourseDirectory.db_url = options.db
    return course


@contextlib.contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Have what ends a command set `stop`; a second signal interrupts at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in _ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ending_signals() -> list[signal.Signals]:
    """Return the signals that end a command; under `nohup` a terminal that is closed does not."""
    outlives_terminal = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if outlives_terminal else [signal.SIGHUP])]


def _log_to(path: Path) -> None:
    """Add what was stopped, and why, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    # a full disk stops what has to be written, and is told of there
    vars(handler)["handleError"] = lambda record: None
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logger = logging.getLogger("autograder")
    for old in [old for old in logger.handlers if isinstance(old, logging.FileHandler)]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _grade(options: argparse.Namespace) -> int:
    course = _course(options)
    assignment = course.find_assignment(options.assignment)
    course.notebook_names(assignment)  # a missing release is said before any progress is shown
    for sentence in misspelt_settings(course.own):
        print(f"autograder: {course.settings_file.name}: {sentence}", file=sys.stderr)
    if not options.student:
        for sentence in course.passed_over("submitted", assignment.name):
            print(f"autograder: {sentence}; it was passed over", file=sys.stderr)
    students = submitted_students(course, assignment, options.student or "")
    batch = Batch(course, assignment, students, options.force, options.workers)
    log = course.results / "logs" / f"grade_{assignment.name}.log"
    _log_to(log)
    with contextlib.ExitStack() as at_the_end:
        at_the_end.callback(_tell_of_hooks, batch, log)
        rows = _graded(options, batch)
        if options.json:
            print(json.dumps([row.as_json() for row in rows], indent=1))
        else:
            Console().print(_table(assignment, rows))
    return NOT_ALL_WELL if any(row.status == "failed" for row in rows) else OK


def _graded(options: argparse.Namespace, batch: Batch) -> list[Row]:
    """Grade a batch, with its progress on standard error."""
    assignment, students = batch.assignment, batch.students
    with _stopping(batch.stop), _progress(Console(stderr=True)) as progress:
        task = progress.add_task(f"grading {assignment.name}", total=len(students))
        with contextlib.ExitStack() as stack:
            if options.scheduler:
                batch.executor = stack.enter_context(
                    open_executor(assignment, scheduler=options.scheduler)
                )
            return batch.run(lambda student: progress.advance(task))


def _tell_of_hooks(batch: Batch, log: Path) -> None:
    """Say in one line that functions of the course's own failed."""
    failures = batch.hook_failures
    if failures:
        times = "once, with" if len(failures) == 1 else f"{len(failures)} times, first with"
        first = " ".join(failures[0].split())
        print(
            f"autograder: a hook of the course failed {times} {first}; see {log}", file=sys.stderr
        )


class _Rate(ProgressColumn):
    """Shows how many submissions are graded in a minute, since the beginning.

    Submissions are recorded a few at a time, so that any shorter time would show a jump.
    """

    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed
        if not (task.completed and seconds and seconds > 1):
            return Text("")
        return Text(f"{60 * task.completed / seconds:.0f}/min")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _table(assignment: Assignment, rows: Sequence[Row]) -> Table:
    title = f"{assignment.name}: {len(rows)} submission{'' if len(rows) == 1 else 's'}"
    table = Table(title=title, box=rich.box.SIMPLE_HEAD)
    table.add_column("student", no_wrap=True, max_width=NAME_WIDTH)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("what happened")
    for row in rows:
        score = f"{row.score:g}/{row.max_score:g}"
        table.add_row(escape(row.student), score, escape(row.happened))
    graded = sum(row.status != "unchanged" for row in rows)
    table.caption = f"{graded} graded now, {len(rows) - graded} unchanged"
    return table


def _check(options: argparse.Namespace) -> int:
    from autograder.self_check import check_notebook

    if not options.notebook.is_file():
        raise CourseError(f"There is no file '{options.notebook}'.")
    course = _course(options)
    name = options.assignment or options.notebook.stem
    assignment = course.find_source(name, "a check without a gradebook needs")
    checked = check_notebook(course, assignment, options.notebook)
    _print_checked(Console(), checked)
    return OK if checked.earned == checked.points else NOT_ALL_WELL


def _print_checked(console: Console, checked: CheckedNotebook) -> None:
    for sentence in checked.sentences:
        console.print(f"[yellow]note[/]  {escape(sentence)}")
    for cell in checked.cells:
        console.print()
        console.print(f"[bold]{escape(cell.grade_id)}[/]  {points_text(cell.earned, cell.points)}")
        for finding in cell.findings:
            console.print(f"  Your results agree with {escape(finding.sentence)}.")
            console.print(f"  See {escape(finding.see)} in the book.")
        for check in cell.checks:
            colour = {"passed": "green", "failed": "red", "stopped": "yellow"}[check.outcome]
            console.print(f"  [{colour}]{check.outcome:8}[/]{escape(check.description)}")
            for text in (check.message, check.hint and f"Hint: {check.hint}"):
                if text:
                    console.print(f"          {escape(text)}")
    console.print()
    console.print(f"[bold]total[/]  {points_text(checked.earned, checked.points)}")


def _report(options: argparse.Namespace) -> int:
    course = _course(options)
    assignment = course.find_assignment(options.assignment)
    course.notebook_names(assignment)  # no gradebook is made where there is none
    students = course.students_with("autograded", assignment.name)
    folder = options.output or course.results / "reports" / assignment.name
    failed: dict[str, str] = {}
    if students:
        _make_folder(folder)
        _log_to(course.results / "logs" / f"report_{assignment.name}.log")
        with _ended_like_ctrl_c(), _progress(Console(stderr=True)) as progress:
            task = progress.add_task(f"feedback on {assignment.name}", total=len(students))
            failed = write_feedback(
                course, assignment, students, lambda _: progress.advance(task), options.workers
            )
    for path in write_report(course, assignment, folder):
        print(path)
    for student, reason in failed.items():
        told = f"no feedback page could be made for {student!r}: {reason}"
        print(f"autograder: {told}", file=sys.stderr)
    return NOT_ALL_WELL if failed else OK


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Have the other signals that end a command do what Ctrl-C does."""
    numbers = [number for number in _ending_signals() if number != signal.SIGINT]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_folder(folder: Path) -> None:
    """Make the report's folder before the feedback, which takes longer."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{type(error).__name__}: {error.strerror or error}"
        raise CourseError(
            f"the report cannot be written to '{folder}' ({reason}): "
            "expected --output to be a folder, or a place where one can be made"
        ) from error


def _release(options: argparse.Namespace) -> int:
    course = _course(options)
    names = options.assignments or assignment_names(course.root)
    status = OK
    if not names:
        raise CourseError(f"there is nothing to release: no {course.root}/solutions/*/*.md")
    purpose = "this command makes notebooks from; use `nbgrader generate_assignment` instead"
    for assignment in [course.find_source(name, purpose) for name in names]:
        if options.check:
            difference = release_difference(course, assignment)
            if difference:
                print(difference)
                print(
                    f"autograder: exercises/{assignment.name} is out of step with its source: "
                    f"run `autograder release {assignment.name}` and commit the result",
                    file=sys.stderr,
                )
                status = NOT_ALL_WELL
        else:
            for path in release(course, assignment):
                print(path)
    return status


def _sample_class(options: argparse.Namespace) -> int:
    from autograder.sample_class import MIN_SIZE, make_sample_class

    course = _course(options)
    assignment = course.find_source(options.assignment, "the made-up answers come from")
    kinds = make_sample_class(course, assignment, size=options.size or MIN_SIZE, seed=options.seed)
    place = course.folder("submitted", "*", assignment.name)
    print(f"{len(kinds)} submissions in {place}")
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from autograder.doctor import examine, examine_course

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in (examine() | examine_course()).items():
        table.add_row(name, escape(value))
    Console().print(table)
    return OK
