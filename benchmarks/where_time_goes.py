"""Show where the time of judging one submission goes, part by part.

    python benchmarks/where_time_goes.py --submissions 24

Judges submissions made from the solution, the misconceptions and the equivalents of an assignment
with one worker, confined, as `autograder grade` does between intake and recording. Each part's time
is its own: what it waits for another part is counted there. The last rows are the processor time of
the whole machine, so run it alone, and the time of the cells alone, which no grader can go below.
Writes `benchmarks/results/where_time_goes.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import random
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from report import publish

from autograder import engine, student_process
from autograder.assignment import Assignment
from autograder.checking import student
from autograder.checking.judge import judge_cell
from autograder.sample_class import Maker

judge = sys.modules[judge_cell.__module__]
ROOT = Path(__file__).parents[1]
PARTS = {
    "fork and confinement": [(student_process.WarmProcess, "start")],
    "cells": [(student_process.StudentProcess, "run_cell")],
    "snapshots at grade cells": [(student_process.StudentProcess, "take_snapshot")],
    "a process for checks": [(student_process.StudentProcess, "caller_at")],
    "calls of the student's functions": [(student_process.SnapshotCaller, "__call__")],
    "reference": [(student, "expected_outcome")],
    "recognition of misconceptions": [(judge, "recognise")],
    "pytest, inputs and comparison": [(engine, "judge_cell")],
    "names that are not allowed": [(engine, "uses"), (engine, "read_not_allowed")],
    "end of all processes": [(engine.NotebookRun, "close")],
    "everything else": [(engine, "grade_notebook")],
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


def submissions(assignment: Assignment, count: int) -> list[NotebookNode]:
    """Return notebooks in the mixture of a class: right, right in another way, and wrong."""
    maker = Maker(assignment, assignment.name, random.Random(0))
    kinds = [maker.solution, maker.equivalent, *[maker.misconception] * 2]
    files = (make().files[maker.file] for make in islice(cycle(kinds), count))
    return [nbformat.reads(data.decode(), as_version=4) for data in files]


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
    assignment = Assignment(options.assignment, ROOT)
    notebooks = submissions(assignment, options.submissions)
    start = time.perf_counter()
    for notebook in notebooks[:3]:
        engine.grade_notebook(notebook, assignment, class_seed="benchmark")
    start_up = time.perf_counter() - start
    watch = Stopwatch()
    start, busy = time.perf_counter(), machine_seconds()
    for notebook in notebooks:
        engine.grade_notebook(notebook, assignment, class_seed="benchmark")
    wall = (time.perf_counter() - start) / len(notebooks)
    busy = (machine_seconds() - busy) / len(notebooks)
    rows = [
        {"part": part, "ms a submission": 1e3 * seconds / len(notebooks)}
        for part, seconds in watch.seconds.items()
    ]
    rows.append({"part": "sum, by the clock", "ms a submission": 1e3 * wall})
    for row in rows:
        row["share"] = f"{row['ms a submission'] / wall / 10:.0f} %"
    seconds_of_cells_alone(notebooks[0])
    cells = seconds_of_cells_alone(notebooks[0])
    rows.append({"part": "processor time of the machine", "ms a submission": 1e3 * busy})
    rows.append({"part": "the solution's cells alone", "ms a submission": 1e3 * cells})
    rows.append({"part": "start-up, once a worker", "ms a submission": 1e3 * start_up})
    publish("where_time_goes", rows)


if __name__ == "__main__":
    main()
