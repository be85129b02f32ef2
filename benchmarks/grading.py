"""Time the autograder against stock `nbgrader autograde` on the same submissions.

    python benchmarks/grading.py --submissions 24 --stock 6 --workers 2

Makes a course in a temporary folder, fills it with submissions made from the solution, the
misconceptions and the equivalents of an assignment, grades all of them with the autograder
(confined, verdict outside, gradebook and outputs written) and the first few with stock nbgrader,
which runs only the visible examples: it has less to do. Prints seconds a submission and their
ratio, and writes `benchmarks/results/grading.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
UNDAMAGED = ("solution", "equivalent", "misconception", "several")
DAMAGED = 21
COMMANDS = Path(sys.executable).parent
STOCK_CONFIG = """
from pathlib import Path
ROOT = Path(__file__).resolve().parent
c = get_config()
c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.source_directory = "course/source"
c.CourseDirectory.release_directory = "exercises"
c.CourseDirectory.submitted_directory = "course/submitted"
c.CourseDirectory.autograded_directory = "course/autograded"
c.CourseDirectory.db_url = f"sqlite:///{ROOT}/course/gradebook.db"
"""


def make_course(folder: Path, assignment: str, size: int) -> list[str]:
    """Copy the course and fill it with `size` submissions that no damage slows down."""
    for name in ("solutions", "exercises", "tests/hidden"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    call(folder, "autograder", "release", assignment)
    call(folder, "autograder", "sample-class", assignment, f"--size={size + 2 * DAMAGED}")
    kinds = json.loads((folder / "course" / f"sample_class_{assignment}.json").read_text())
    kept = [name for name, kind in kinds.items() if kind.split()[0] in UNDAMAGED][:size]
    keep(folder, kept)
    return kept


def keep(folder: Path, students: list[str]) -> None:
    """Remove all submissions but those of `students`."""
    for path in (folder / "course" / "submitted").iterdir():
        if path.name not in students:
            shutil.rmtree(path)


def call(folder: Path, *command: str) -> float:
    """Run a command of this environment in a folder; return its seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        [str(COMMANDS / command[0]), *command[1:]],
        cwd=folder,
        env={**os.environ, "PATH": f"{COMMANDS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assignment", default="cross_entropy")
    parser.add_argument("--submissions", type=int, default=24)
    parser.add_argument("--stock", type=int, default=6, help="how many stock nbgrader grades")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "course"
        students = make_course(folder, options.assignment, options.submissions)
        for count in options.workers:
            took = call(
                folder, "autograder", "grade", options.assignment, "--force", f"--workers={count}"
            )
            seconds[f"autograder, workers: {count}"] = took / options.submissions
        took = call(folder, "nbgrader", "autograde", options.assignment, "--force")
        seconds["nbgrader autograde with our configuration"] = took / options.submissions
        (folder / "nbgrader_config.py").write_text(STOCK_CONFIG)
        keep(folder, students[: options.stock])
        shutil.rmtree(folder / "course" / "autograded")
        took = call(folder, "nbgrader", "autograde", options.assignment)
        seconds["stock nbgrader autograde"] = took / options.stock
    show(seconds)
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    report = {"options": vars(options), "seconds_a_submission": seconds}
    (results / "grading.json").write_text(json.dumps(report, indent=1))


def show(seconds: dict[str, float]) -> None:
    """Print seconds a submission, and how many times faster than stock that is."""
    stock = list(seconds.values())[-1]
    table = Table("way of grading", "s a submission", "stock / this")
    for way, value in seconds.items():
        table.add_row(way, f"{value:.3f}", f"{stock / value:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
