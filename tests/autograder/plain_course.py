"""An ordinary nbgrader course, as an instructor who never heard of this project would have it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import nbgrader
from nbgrader.api import Gradebook

EXAMPLE = Path(nbgrader.__file__).parent / "docs" / "source" / "user_guide"
CONFIG = """
c = get_config()
c.CourseDirectory.course_id = "plain"
c.ExecutePreprocessor.timeout = 3
c.LateSubmissionPlugin.penalty_method = "zero"
"""
LATE = "2026-03-02 12:00:00 UTC"
IN_TIME = "2026-02-01 12:00:00 UTC"
DUE = "2026-03-01 12:00:00 UTC"
DATA = "3\n4\n"
HIDDEN = """assert mean([1, 2]) == 1.5
### BEGIN HIDDEN TESTS
assert mean([5]) == 5
### END HIDDEN TESTS"""
TASK = """Draw a picture.

=== BEGIN MARK SCHEME ===
A point for each colour.
=== END MARK SCHEME ==="""
PARTIAL = """score = 0
score += mean([2, 4]) == 3
score += 2 * (mean([0, 0, 3]) == 1)
score"""


def nbgrader_command(root, *arguments):
    """Run a command of nbgrader's own in a course."""
    commands = Path(sys.executable).parent
    run = subprocess.run(
        [commands / "nbgrader", *arguments],
        cwd=root,
        env={**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run


def cell(name, source, kind="code", **metadata):
    made = getattr(nbformat.v4, f"new_{kind}_cell")(source)
    made.metadata["nbgrader"] = {
        "grade": False,
        "grade_id": name,
        "locked": False,
        "schema_version": 3,
        "solution": False,
        "task": False,
        **metadata,
    }
    return made


def tested(name, source, points):
    return cell(name, source, grade=True, locked=True, points=points)


def answered(name, solution, kind="code", **metadata):
    solution = f"### BEGIN SOLUTION\n{solution}\n### END SOLUTION"
    return cell(name, solution, kind, solution=True, **metadata)


def sources():
    """Return the course's two notebooks: every kind of cell that nbgrader knows."""
    numbers = [
        nbformat.v4.new_markdown_cell("# Means"),
        cell("imports", "import statistics\nimport warnings", locked=True),
        answered("mean", "def mean(values):\n    return sum(values) / len(values)"),
        nbformat.v4.new_code_cell("mean([1, 2, 3])"),
        tested("test_mean", HIDDEN, 2),
        tested("test_partial", PARTIAL, 3),
        answered("total", "def total():\n    return sum(int(x) for x in open('data.txt'))"),
        tested("test_total", "from helper import expected\nassert total() == expected", 1),
        answered("plot", "print('a figure')", grade=True, points=2),
        tested("test_bonus", "assert mean([1.5, 2.5]) == 2", 0),
    ]
    words = [
        answered("essay", "Because.", "markdown", grade=True, points=3),
        cell("task", TASK, "markdown", task=True, locked=True, points=4),
        answered("double", "def double(x):\n    return 2 * x"),
        tested("test_double", "assert double(2) == 4", 1),
    ]
    return {"numbers": numbers, "words": words}


def make_course(root):
    """Make the course at `root` and release its assignment `ps` with nbgrader's own command."""
    source = root / "source" / "ps"
    source.mkdir(parents=True)
    (root / "nbgrader_config.py").write_text(CONFIG)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name, cells in sources().items():
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        # the form that notebooks had before their cells had ids
        if name == "words":
            notebook.nbformat_minor = 4
            for made in notebook.cells:
                del made["id"]
        nbformat.write(notebook, source / f"{name}.ipynb")
    (source / "data.txt").write_text(DATA)
    (source / "helper.py").write_text("expected = 7\n")
    nbgrader_command(root, "generate_assignment", "ps")
    nbgrader_command(root, "db", "assignment", "add", "ps", f"--duedate={DUE}")
    return root


GOOD = {
    "mean": "def mean(values):\n    return statistics.fmean(values)",
    "total": "def total():\n    with open('data.txt') as file:\n        return sum(map(int, file))",
    "plot": "print('my figure')",
    "essay": "For a reason.",
    "double": "def double(x):\n    return x + x",
}
STUDENTS = {
    "good": {},
    "wrong": {
        "mean": "def mean(values):\n    return values[0]",
        "double": "def double(x):\n    raise ValueError(x)",
    },
    "half": {
        "mean": "def mean(values):\n    return sum(values) / 2",
        "double": "import sys\ndef double(x):\n    sys.exit(0)",
    },
    "warns": {
        "mean": "def mean(values):\n    warnings.warn('slow')\n    return statistics.fmean(values)",
        "double": "def double(x):\n    print('doubling', x)\n    return 2 * x",
    },
    "stuck": {
        "mean": "def mean(values:\n    return 1",
        "total": "def total():\n    while True:\n        pass",
    },
    "one_notebook": {},
    "blank": None,
}


def hand_in(root, student, changes):
    """Hand in the released notebooks, with answers unless `changes` is None."""
    folder = root / "submitted" / student / "ps"
    shutil.copytree(root / "release" / "ps", folder)
    for path in folder.glob("*.ipynb"):
        notebook = json.loads(path.read_text())
        for one in notebook["cells"]:
            name = one["metadata"].get("nbgrader", {}).get("grade_id")
            if changes is not None and name in GOOD:
                one["source"] = {**GOOD, **changes}[name]
        path.write_text(json.dumps(notebook))
    return folder


def make_class(root):
    """Hand in for each student: in time and late, with files missing, changed or added."""
    submitted = {student: hand_in(root, student, how) for student, how in STUDENTS.items()}
    (submitted["good"] / "timestamp.txt").write_text(IN_TIME)
    (submitted["half"] / "data.txt").write_text("0\n")
    for name in ("data.txt", "helper.py"):
        (submitted["warns"] / name).unlink()
    (submitted["warns"] / "timestamp.txt").write_text(LATE)
    (submitted["one_notebook"] / "words.ipynb").unlink()
    shutil.copy(submitted["good"] / "words.ipynb", submitted["one_notebook"] / "mine.ipynb")


def records(root, assignment="ps"):
    """Return all that a gradebook says of an assignment's submissions, by what it is said of."""
    found = {}
    with Gradebook(f"sqlite:///{root}/gradebook.db") as gradebook:
        for submission in gradebook.assignment_submissions(assignment):
            student = submission.student_id
            late = submission.total_seconds_late
            found[student] = (submission.score, submission.max_score, submission.timestamp, late)
            for notebook in submission.notebooks:
                penalty = notebook.late_submission_penalty
                found[student, notebook.name] = (notebook.score, notebook.max_score, penalty)
                for grade in notebook.grades:
                    found[student, notebook.name, grade.name] = (
                        grade.auto_score,
                        grade.manual_score,
                        grade.extra_credit,
                        grade.needs_manual_grade,
                        grade.failed_tests,
                        grade.max_score,
                    )
    return found
