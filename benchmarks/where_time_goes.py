"""Show where the time of grading one submission goes, part by part.

    python benchmarks/where_time_goes.py --submissions 24

Makes a course of submissions from the solution, the misconceptions and the equivalents of an
assignment, and grades it twice as `autograder grade` does, confined, but with reading, work and
recording one after another in this process. In the first round most replies are new, in the second
all are known. Each part's time is its own: what it waits for another part is counted there. The
last rows are the processor time of the whole machine, so run it alone; the time of the cells alone,
which no grader can go below; and what is done once. Writes
`benchmarks/results/where_time_goes.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from grading import BenchmarkCourse
from nbformat import NotebookNode
from report import publish

from autograder import engine, grading, recorder, student_process, worker
from autograder.assignment import Assignment
from autograder.checking import collected, student
from autograder.checking.judge import judge_cell
from autograder.course import Course

judge = sys.modules[judge_cell.__module__]
PARTS = {
    "reading the folder": [(grading, "read_folder")],
    "rebuilding, conversion": [(worker, "grade_submission")],
    "fork and confinement": [(student_process.WarmProcess, "start")],
    "cells": [(student_process.StudentProcess, "run_cell")],
    "snapshots at grade cells": [(student_process.StudentProcess, "take_snapshot")],
    "a process for checks": [(student_process.StudentProcess, "caller_at")],
    "calls of the student's functions": [(student_process.SnapshotCaller, "exchange")],
    "checks (pytest, comparison)": [(collected.CollectedChecks, "run")],
    "reference": [(student, "expected_outcome")],
    "recognition of misconceptions": [(judge, "recognise")],
    "what is known of replies": [(engine, "judge_cell")],
    "names that are not allowed": [(engine, "uses"), (engine, "read_not_allowed")],
    "end of all processes": [
        (engine.NotebookRun, "close"),
        (student_process.SnapshotCaller, "close"),
    ],
    "database": [(recorder.Recorder, "record")],
    "autograded folder": [(recorder.FolderWriter, "write")],
    "everything else": [(grading.Batch, "run")],
}


class Stopwatch:
    """Adds up the time that each part spends in its own functions."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.running: list[str] = []
        self.since = 0.0
        for part, places in PARTS.items():
            for holder, name in places:
                setattr(holder, name, self.timed(part, getattr(holder, name)))

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` with its time counted for `part`."""

        @functools.wraps(function)
        def run(*arguments: Any, **keywords: Any) -> Any:
            with self.part(part):
                return function(*arguments, **keywords)

        return run

    @contextlib.contextmanager
    def part(self, part: str) -> Iterator[None]:
        """Count the time of the block for `part`, and none of it for the part around it."""
        self.switch()
        self.running.append(part)
        try:
            yield
        finally:
            self.switch()
            self.running.pop()

    def switch(self) -> None:
        """Credit the time since the last switch to the part that was running."""
        now = time.perf_counter()
        if self.running:
            self.seconds[self.running[-1]] += now - self.since
        self.since = now

    def take(self) -> dict[str, float]:
        """Return what was added up, and begin anew."""
        taken, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        return taken


class Here(Executor):
    """Does the work in this process, at once."""

    size = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def grade(course: Course, assignment: Assignment, students: list[str]) -> None:
    """Grade submissions as the command does."""
    batch = grading.Batch(course, assignment, students, force=True, executor=Here(), in_flight=1)
    failed = [row.student for row in batch.run() if row.status == "failed"]
    if failed:
        raise SystemExit(f"these could not be graded: {failed}")


def machine_seconds() -> float:
    """Return the processor time of the whole machine so far."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(rest)) / 100


def seconds_of_cells_alone(notebook: NotebookNode) -> float:
    """Return the time that a trusted notebook takes in this process, up to the last answer."""
    metadata = [cell.metadata.get("nbgrader", {}) for cell in notebook.cells]
    last = max(i for i, data in enumerate(metadata) if data.get("grade") or data.get("solution"))
    sources = [cell.source for cell in notebook.cells[: last + 1] if cell.cell_type == "code"]
    namespace: dict[str, Any] = {}
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        for source in sources:
            exec(compile(source, "cell", "exec"), namespace)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assignment", default="cross_entropy")
    parser.add_argument("--submissions", type=int, default=24)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        made = BenchmarkCourse(Path(name) / "course", options.assignment)
        made.make(options.submissions)
        rows = measure(made)
    publish("where_time_goes", rows)


def measure(made: BenchmarkCourse) -> list[dict[str, Any]]:
    """Return a row for each part, with a column for each round."""
    course, assignment = Course.load(made.folder), Assignment(made.assignment, made.folder)
    students = made.students()
    start = time.perf_counter()
    grade(course, assignment, students[:1])
    start_up = time.perf_counter() - start
    watch = Stopwatch()
    rounds = {"new replies, ms": {}, "known replies, ms": {}}
    for column in rounds:
        start, busy = time.perf_counter(), machine_seconds()
        grade(course, assignment, students)
        rounds[column] = {
            **watch.take(),
            "sum, by the clock": time.perf_counter() - start,
            "processor time of the machine": machine_seconds() - busy,
        }
    parts = next(iter(rounds.values()))
    rows = [
        {"part": part}
        | {column: 1e3 * seconds[part] / len(students) for column, seconds in rounds.items()}
        for part in parts
    ]
    solution = made.folder / "solutions" / made.assignment / f"{made.assignment}.md"
    notebook = engine.read_notebook(solution)
    seconds_of_cells_alone(notebook)
    alone = 1e3 * seconds_of_cells_alone(notebook)
    rows.append({"part": "the solution's cells alone", **dict.fromkeys(rounds, alone)})
    rows.append({"part": "the first submission, once", "new replies, ms": 1e3 * start_up})
    return rows


if __name__ == "__main__":
    main()
