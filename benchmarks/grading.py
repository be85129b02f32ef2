"""Time the autograder against stock `nbgrader autograde` on the same submissions.

    python benchmarks/grading.py --submissions 24 --stock 3
    python benchmarks/grading.py --parts local --submissions 200 --course COURSE
    python benchmarks/grading.py --parts none

Makes a course in a temporary folder (or in `--course`, which is kept and used again), fills it with
submissions made from the solution, the misconceptions and the equivalents of an assignment, and
grades them in the ways that `--parts` names:

local   `autograder grade`, confined, verdict outside, gradebook and outputs written
nbgrader   `nbgrader autograde` with our configuration, as formgrader runs it
stock   stock `nbgrader autograde`, which runs the released notebook's own asserts, on `--stock` of
        the submissions
plain   the autograder on those same asserts, without hidden checks; its scores must be stock's
dask    `autograder grade --scheduler` with workers in processes of their own, and what a task costs
        beside its work
memory  the proportional set size of all processes of `autograder grade`, over time
feedback   `autograder report`, all pages and the class report, beside stock
        `nbgrader generate_feedback` for `--stock` of the submissions

Start-up is told apart by grading a few submissions first: rate and start-up are the line through
both. With `--rounds` both are run so often, in turns, and the line leads through their medians:
start-up differs by more from run to run than a few submissions take. Each part is kept in
`benchmarks/results/grading.json` until it is measured again; the tables are computed from what is
there.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from autograder.assignment import Assignment  # noqa: E402
from autograder.executors import open_executor  # noqa: E402
from autograder.work import Setting, Work, grade_bytes  # noqa: E402
from tests.autograder.dask_cluster import DaskCluster, descendants  # noqa: E402

PARTS = ("local", "nbgrader", "stock", "plain", "dask", "memory", "feedback")
BY_SIZE = ("local", "dask", "memory", "feedback")
UNDAMAGED = ("solution", "equivalent", "misconception", "several")
DAMAGED = 21
COMMANDS = Path(sys.executable).parent
RESULTS = ROOT / "benchmarks" / "results" / "grading.json"
SAMPLE_SECONDS = 0.5
TASKS = 200
STOCK_CONFIG = """
from pathlib import Path
ROOT = Path(__file__).resolve().parent
c = get_config()
c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.source_directory = "course/source"
c.CourseDirectory.release_directory = "exercises"
c.CourseDirectory.submitted_directory = "course/submitted"
c.CourseDirectory.autograded_directory = "course/autograded"
c.CourseDirectory.feedback_directory = "course/stock_feedback"
c.CourseDirectory.db_url = f"sqlite:///{ROOT}/course/gradebook.db"
"""
# what the table on paper is about
STUDENTS, ASSIGNMENTS, MACHINES, CORES = 10_000, 11, 10, 16


@dataclass
class Measured:
    """One run of a command: its time, and what its processes used."""

    seconds: float = 0.0
    main_cpu_seconds: float = 0.0
    memory: list[tuple[float, float]] = field(default_factory=list)

    @property
    def peak_mib(self) -> float:
        """The largest memory of all processes together, in MiB."""
        return max((mib for _, mib in self.memory), default=0.0)


@dataclass
class BenchmarkCourse:
    """A course of sample submissions, of which some are held back at a time."""

    folder: Path
    assignment: str

    @property
    def submitted(self) -> Path:
        return self.folder / "course" / "submitted"

    @property
    def held_back(self) -> Path:
        return self.folder / "course" / "held_back"

    def make(self, size: int) -> None:
        """Copy the course and make `size` submissions that no damage slows down."""
        for name in ("solutions", "exercises", "tests/hidden"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy(ROOT / "nbgrader_config.py", self.folder)
        self.run("autograder", "release", self.assignment)
        self.run("autograder", "sample-class", self.assignment, f"--size={size + 2 * DAMAGED}")
        kept = [name for name, kind in self.kinds().items() if kind.split()[0] in UNDAMAGED]
        self.held_back.mkdir()
        self.take(kept[:size])
        for path in self.held_back.iterdir():
            shutil.rmtree(path)

    def kinds(self) -> dict[str, str]:
        """Return what each submission was made from."""
        name = f"sample_class_{self.assignment}.json"
        return json.loads((self.folder / "course" / name).read_text())

    def students(self) -> list[str]:
        """Return all students, in order."""
        folders = itertools.chain(self.submitted.iterdir(), self.held_back.iterdir())
        return sorted(path.name for path in folders)

    def take(self, students: list[str]) -> None:
        """Hold back all submissions but those of `students`."""
        for path in list(self.submitted.iterdir()):
            if path.name not in students:
                path.rename(self.held_back / path.name)
        for student in students:
            with contextlib.suppress(FileNotFoundError):
                (self.held_back / student).rename(self.submitted / student)

    def run(self, *command: str, memory: bool = False) -> Measured:
        """Run a command of this environment in the course's folder."""
        measured = Measured()
        start = time.perf_counter()
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [str(COMMANDS / command[0]), *command[1:]],
                cwd=self.folder,
                env={**os.environ, "PATH": f"{COMMANDS}:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SAMPLE_SECONDS)
                    break
                measured.main_cpu_seconds = cpu_seconds(process.pid)
                if memory:
                    measured.memory.append((time.perf_counter() - start, tree_mib(process.pid)))
            measured.seconds = time.perf_counter() - start
            if process.returncode != 0:
                said.seek(0)
                raise SystemExit(f"{' '.join(command)} failed:\n{said.read().decode()}")
        return measured

    def scores(self, students: list[str]) -> dict[str, float]:
        """Return what the gradebook holds, by what was handed in: other courses have others."""
        book = sqlite3.connect(self.folder / "course" / "gradebook.db")
        query = (
            "select student.id, sum(coalesce(grade.auto_score, 0)) from grade "
            "join submitted_notebook on grade.notebook_id = submitted_notebook.id "
            "join submitted_assignment on submitted_notebook.assignment_id = "
            "submitted_assignment.id "
            "join student on submitted_assignment.student_id = student.id group by student.id"
        )
        with contextlib.closing(book):
            found = dict(book.execute(query).fetchall())
        return {self.digest(student): found[student] for student in students}

    def digest(self, student: str) -> str:
        """Return a digest of what a student handed in."""
        digest = hashlib.sha256()
        for path in sorted((self.submitted / student / self.assignment).rglob("*.ipynb")):
            digest.update(path.read_bytes())
        return digest.hexdigest()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process itself has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree_mib(pid: int) -> float:
    """Return the proportional set size of a process and all below it, in MiB."""
    total = 0
    for number in [pid, *descendants(pid)]:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def start_and_rate(
    course: BenchmarkCourse, few: int, rounds: int, *options: str
) -> dict[str, object]:
    """Grade a few submissions, then all; return start-up and seconds a submission."""
    everyone = course.students()
    command = ("autograder", "grade", course.assignment, "--force", *options)
    runs: list[list[Measured]] = [[], []]
    for _ in range(rounds):
        for students, measured in zip((everyone[:few], everyone), runs, strict=True):
            course.take(students)
            measured.append(course.run(*command))
    seconds, main_seconds = (
        [statistics.median(getattr(run, name) for run in measured) for measured in runs]
        for name in ("seconds", "main_cpu_seconds")
    )
    more = max(len(everyone) - few, 1)
    rate = (seconds[1] - seconds[0]) / more
    return {
        "submissions": len(everyone),
        "seconds": seconds[1],
        "start_seconds": seconds[0] - few * rate,
        "seconds_a_submission": rate,
        "main_seconds_a_submission": (main_seconds[1] - main_seconds[0]) / more,
        "rounds": [[run.seconds for run in measured] for measured in runs],
    }


def measure_local(course: BenchmarkCourse, options: argparse.Namespace) -> dict[str, object]:
    found: dict[str, object] = {}
    for workers in options.workers:
        found[f"{workers}"] = start_and_rate(
            course, 2 * workers, options.rounds, f"--workers={workers}"
        )
    found["scores"] = course.scores(course.students())
    return found


def measure_memory(course: BenchmarkCourse, options: argparse.Namespace) -> dict[str, object]:
    everyone = course.students()
    found: dict[str, object] = {}
    for count in sorted({min(100, len(everyone)), len(everyone)}):
        course.take(everyone[:count])
        measured = course.run("autograder", "grade", course.assignment, "--force", memory=True)
        found[f"{count}"] = {
            "peak_mib": measured.peak_mib,
            "over_time": [(round(when, 1), round(mib)) for when, mib in measured.memory],
        }
    return found


def measure_nbgrader(course: BenchmarkCourse, options: argparse.Namespace) -> dict[str, object]:
    students = course.students()[: options.nbgrader]
    course.take(students)
    measured = course.run("nbgrader", "autograde", course.assignment, "--force")
    return {
        "submissions": len(students),
        "seconds": measured.seconds,
        "scores": course.scores(students),
    }


def measure_stock(course: BenchmarkCourse, options: argparse.Namespace) -> dict[str, object]:
    students = course.students()[: options.stock]
    course.take(students)
    with another_configuration(course, STOCK_CONFIG):
        measured = course.run("nbgrader", "autograde", course.assignment, "--force")
    return {
        "submissions": len(students),
        "seconds": measured.seconds,
        "scores": course.scores(students),
    }


def measure_plain(course: BenchmarkCourse, options: argparse.Namespace) -> dict[str, object]:
    students = course.students()[: options.stock]
    course.take(students)
    hidden = course.folder / "tests" / "hidden" / course.assignment
    away = course.folder / "hidden_checks"
    hidden.rename(away)
    try:
        measured = course.run("autograder", "grade", course.assignment, "--force")
    finally:
        away.rename(hidden)
    return {
        "submissions": len(students),
        "seconds": measured.seconds,
        "scores": course.scores(students),
    }


def measure_feedback(course: BenchmarkCourse, options: argparse.Namespace) -> dict[str, object]:
    students = course.students()
    course.run("autograder", "grade", course.assignment)
    few = students[: options.stock]
    others = f"c.CourseDirectory.student_id_exclude = {','.join(students[options.stock :])!r}"
    with another_configuration(course, f"{STOCK_CONFIG}{others}\n"):
        measured = course.run("nbgrader", "generate_feedback", course.assignment, "--force")
    found = {"stock": {"submissions": len(few), "seconds": measured.seconds}}
    for workers in options.workers:
        shutil.rmtree(course.folder / "course" / "feedback", ignore_errors=True)
        measured = course.run("autograder", "report", course.assignment, f"--workers={workers}")
        found[f"{workers}"] = {"submissions": len(students), "seconds": measured.seconds}
    return found


@contextlib.contextmanager
def another_configuration(course: BenchmarkCourse, text: str):
    path = course.folder / "nbgrader_config.py"
    ours = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(ours)


def measure_dask(course: BenchmarkCourse, options: argparse.Namespace) -> dict[str, object]:
    found: dict[str, object] = {}
    assignment = Assignment(course.assignment, course.folder)
    found["local task"] = seconds_a_task(assignment, workers=1)
    for count in options.dask_workers:
        cluster = DaskCluster(hidden=[course.folder])
        try:
            for _ in range(count):
                cluster.start_worker()
            wait_for_workers(cluster, count)
            found[f"{count}"] = {
                "task": seconds_a_task(assignment, scheduler=cluster.address),
                **start_and_rate(
                    course, 2 * count, options.rounds, f"--scheduler={cluster.address}"
                ),
            }
        finally:
            cluster.close()
    return found


def wait_for_workers(cluster: DaskCluster, count: int) -> None:
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


def seconds_a_task(assignment: Assignment, **where: object) -> float:
    """Return the time of a task that has nothing to grade."""
    request = Work(Setting(assignment.root, assignment.name, {}), "nobody", {}).to_bytes()
    with open_executor(assignment, **where) as executor:
        for _ in range(4 * executor.size):
            executor.submit(grade_bytes, request).result()
        start = time.perf_counter()
        for future in [executor.submit(grade_bytes, request) for _ in range(TASKS)]:
            future.result()
        return (time.perf_counter() - start) / TASKS


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assignment", default="cross_entropy")
    parser.add_argument("--submissions", type=int, default=24)
    parser.add_argument("--stock", type=int, default=3, help="how many stock nbgrader grades")
    parser.add_argument("--nbgrader", type=int, default=6, help="how many our configuration grades")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dask-workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=1, help="how often what gives a rate is run")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "none"], default=list(PARTS))
    parser.add_argument("--course", type=Path, help="a folder for the course, kept for another run")
    options = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if options.parts != ["none"]:
        with tempfile.TemporaryDirectory() as name:
            course = BenchmarkCourse(options.course or Path(name) / "course", options.assignment)
            if not course.submitted.is_dir():
                course.make(options.submissions)
            measure(course, options, known)
    for table in tables(known):
        Console(width=None if sys.stdout.isatty() else 120).print(table)


def measure(course: BenchmarkCourse, options: argparse.Namespace, known: dict) -> None:
    """Measure the parts asked for; keep each as soon as it is known."""
    run = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for part in options.parts:
        course.take(course.students())
        found = globals()[f"measure_{part}"](course, options)
        size = len(course.students())
        key = f"{part} {size}" if part in BY_SIZE else part
        known[key] = {"run": run, "cores": len(os.sched_getaffinity(0)), **found}
        known["kinds"] = course.kinds()
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def tables(known: dict) -> list[Table]:
    """Return the tables that can be computed from what was measured."""
    made = [speed_table(known)]
    if "stock" in known:
        made.append(score_table(known))
    if any(key.startswith("memory") for key in known):
        made.append(memory_table(known))
    if any(key.startswith("dask") for key in known):
        made.append(dask_table(known))
    if any(key.startswith("feedback") for key in known):
        made.append(feedback_table(known))
    if best_local(known):
        made.append(paper_table(known))
    return made


def speed_table(known: dict) -> Table:
    """Seconds a submission of each way, and how many times faster than stock that is."""
    stock = known.get("stock")
    base = stock["seconds"] / stock["submissions"] if stock else None
    table = Table("way of grading", "submissions", "s in all", "start-up, s", "s each after",
                  "s each in all", "stock / after", "stock / in all", "run",
                  title="Speed")  # fmt: skip
    for name, row in speed_rows(known):
        each, after = row["seconds"] / row["submissions"], row.get("seconds_a_submission")
        table.add_row(
            name,
            str(row["submissions"]),
            f"{row['seconds']:.1f}",
            f"{row['start_seconds']:.1f}" if "start_seconds" in row else "-",
            f"{after:.3f}" if after else "-",
            f"{each:.3f}",
            f"{base / after:.1f}" if base and after else "-",
            f"{base / each:.1f}" if base else "-",
            row["run"],
        )
    table.caption = "the ratios are to stock's seconds a submission, measured on its own few"
    return table


def speed_rows(known: dict) -> list[tuple[str, dict]]:
    rows = []
    for key, part in known.items():
        if key.startswith(("local", "dask")):
            name = "autograder, workers" if key.startswith("local") else "autograder, Dask workers"
            for count, row in part.items():
                if isinstance(row, dict) and "seconds" in row:
                    rows.append((f"{name}: {count}", {**row, "run": part["run"]}))
    names = {"nbgrader": "nbgrader, our configuration", "plain": "autograder, asserts alone"}
    names["stock"] = "stock nbgrader"
    rows += [(name, known[key]) for key, name in names.items() if key in known]
    return rows


def score_table(known: dict) -> Table:
    """Whether the scores agree, where they are of the same checks and where they are not."""
    stock = known["stock"]["scores"]
    table = Table("scores of", "submissions", "as stock's", "higher", "lower", title="Scores")
    ours = {"asserts alone": known.get("plain", {}).get("scores", {})}
    for key, part in known.items():
        if key.startswith("local"):
            ours[f"hidden checks, {key}"] = part["scores"]
    if "nbgrader" in known:
        ours["hidden checks, through nbgrader"] = known["nbgrader"]["scores"]
    for name, scores in ours.items():
        both = [(scores[work], stock[work]) for work in stock if work in scores]
        table.add_row(
            name,
            str(len(both)),
            str(sum(mine == theirs for mine, theirs in both)),
            str(sum(mine > theirs for mine, theirs in both)),
            str(sum(mine < theirs for mine, theirs in both)),
        )
    table.caption = "stock runs the asserts of the released notebook: it knows no hidden check"
    return table


def memory_table(known: dict) -> Table:
    """The peak of all processes together."""
    table = Table("submissions", "peak, MiB", "run", title="Memory (PSS of the process tree)")
    for key, part in known.items():
        if key.startswith("memory"):
            for count, row in part.items():
                if isinstance(row, dict):
                    table.add_row(count, f"{row['peak_mib']:.0f}", part["run"])
    return table


def dask_table(known: dict) -> Table:
    """What a task costs beside its work."""
    table = Table("executor", "ms a task without work", title="Overhead a task")
    for key, part in known.items():
        if key.startswith("dask"):
            table.add_row("local, workers: 1", f"{1000 * part['local task']:.2f}")
            for count, row in part.items():
                if isinstance(row, dict):
                    table.add_row(f"Dask, workers: {count}", f"{1000 * row['task']:.2f}")
    return table


def feedback_table(known: dict) -> Table:
    """What a feedback page takes, start-up and class report included."""
    table = Table("feedback pages by", "pages", "s in all", "s each", "stock / this", "run",
                  title="Feedback")  # fmt: skip
    for key, part in known.items():
        if key.startswith("feedback"):
            stock = part["stock"]["seconds"] / part["stock"]["submissions"]
            for name, row in part.items():
                if isinstance(row, dict):
                    each = row["seconds"] / row["submissions"]
                    way = "stock nbgrader" if name == "stock" else f"autograder, workers: {name}"
                    table.add_row(way, str(row["submissions"]), f"{row['seconds']:.1f}",
                                  f"{each:.3f}", f"{stock / each:.1f}", part["run"])  # fmt: skip
    return table


def best_local(known: dict) -> dict | None:
    """Return the row of one worker with the most submissions."""
    rows = [part["1"] for key, part in known.items() if key.startswith("local") and "1" in part]
    return max(rows, key=lambda row: row["submissions"], default=None)


def on_paper(known: dict) -> dict[str, float]:
    """Compute a large course on a cluster from what one worker was measured to need."""
    row = best_local(known)
    submissions = STUDENTS * ASSIGNMENTS
    dask = [part for key, part in known.items() if key.startswith("dask")]
    tasks = [row["task"] for part in dask for row in part.values() if isinstance(row, dict)]
    overhead = min(tasks, default=0.0)
    return {
        "submissions": submissions,
        "worker": row["seconds_a_submission"],
        "writer": row["main_seconds_a_submission"],
        "overhead": overhead,
        "workers_minutes": submissions * row["seconds_a_submission"] / (MACHINES * CORES) / 60,
        "writer_minutes": submissions * (row["main_seconds_a_submission"] + overhead) / 60,
    }


def paper_table(known: dict) -> Table:
    """The course on paper, as a table."""
    paper = on_paper(known)
    table = Table("on paper, from measured times", "value", title="A large course on a cluster")
    course = f"{STUDENTS:,} students, {ASSIGNMENTS} assignments"
    table.add_row(course, f"{paper['submissions']:,} submissions")
    table.add_row("one worker, s a submission", f"{paper['worker']:.3f}")
    table.add_row("the one writer, s a submission", f"{paper['writer']:.4f}")
    measured = any(key.startswith("dask") for key in known)
    overhead = f"{paper['overhead']:.4f}" if measured else "not measured, taken as 0"
    table.add_row("Dask, s a task", overhead)
    table.add_row(
        f"{MACHINES} machines of {CORES} cores, minutes", f"{paper['workers_minutes']:.1f}"
    )
    table.add_row("the one writer and scheduler, minutes", f"{paper['writer_minutes']:.1f}")
    longest = max(paper["workers_minutes"], paper["writer_minutes"])
    table.add_row("all of it, minutes (the longer of the two)", f"{longest:.1f}")
    return table


if __name__ == "__main__":
    main()
