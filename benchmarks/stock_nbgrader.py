"""Grades one attack with stock `nbgrader autograde` and says what it achieved.

Runs inside the container of `container.py`, where it finds a course on `/mnt`. Prints one line of
JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import nbformat  # noqa: E402
from nbformat import NotebookNode  # noqa: E402

from tests.autograder.attack_course import (  # noqa: E402
    HIDDEN_MARK,
    LATER_INPUT,
    LOOT,
    PREAMBLE,
    TOKEN,
    Attack,
    Course,
    active_content,
    course,
    loot_in,
    tampered,
)

CELL_SECONDS = 10
GRADING_SECONDS = 45
# a process that is about to end may do so
SETTLE_SECONDS = 0.3
STUDENT = "attacker"
TIMES = ("cell_seconds", "call_seconds")
TEMPLATE_INSIDE = "/mnt"
READY = "the course is ready"
HIDDEN_TESTS = {
    "test_values": (2, "x = torch.randn(5)\nassert torch.allclose(square(x), x * x)"),
    "test_large": (
        1,
        f"x = torch.tensor([{LATER_INPUT}], dtype=torch.float64)\n"
        f"assert (square(x) == {LATER_INPUT} ** 2).all()",
    ),
}


def source_notebook() -> NotebookNode:
    """Return the same exercise with its tests in the notebook, as nbgrader knows it."""
    cells = [nbformat.v4.new_code_cell(PREAMBLE)]
    cells.append(_cell("square", "### BEGIN SOLUTION\n### END SOLUTION", solution=True))
    for name, (points, tests) in HIDDEN_TESTS.items():
        hidden = f'### BEGIN HIDDEN TESTS\nMARK = "{HIDDEN_MARK}"\n{tests}\n### END HIDDEN TESTS'
        cells.append(_cell(name, hidden, points=points))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _cell(name: str, source: str, *, points: int = 0, solution: bool = False) -> NotebookNode:
    cell = nbformat.v4.new_code_cell(source)
    cell.metadata["nbgrader"] = {
        "grade": not solution,
        "grade_id": name,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
        **({} if solution else {"points": points}),
    }
    return cell


def make_template(root: Path) -> None:
    """Make the course that each attack finds, with the assignment generated."""
    source = root / "source" / "toy" / "toy.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(source_notebook(), source)
    if nbgrader(root, "generate_assignment", "toy") != 0:
        raise RuntimeError("the assignment could not be generated")
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


def nbgrader(root: Path, *arguments: str, seconds: float = CELL_SECONDS) -> int | None:
    """Run a command of nbgrader's in the course; return its status, or None if it hung."""
    command = [sys.executable, "-m", "nbgrader", *arguments]
    command += [f"--course-dir={root}", f"--ExecutePreprocessor.timeout={int(seconds)}"]
    # nbgrader starts alembic, which lies beside the interpreter
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    try:
        done = subprocess.run(
            command,
            cwd=root,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PATH": path},
            timeout=GRADING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


def submission(made: Course, attack: Attack, released: NotebookNode) -> dict[str, Any]:
    """Return the released notebook with an attack in place of the answer."""
    notebook = nbformat.from_dict(json.loads(json.dumps(released)))
    names = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in notebook.cells]
    position = names.index("square")
    first, *others = map(made.filled, attack.sources)
    notebook.cells[position].source = first
    extra = [nbformat.v4.new_code_cell(source) for source in others]
    extra += map(nbformat.v4.new_markdown_cell, attack.texts)
    notebook.cells[position + 1 : position + 1] = extra
    return tampered(notebook, attack.tamper)


def hand_in(made: Course, attack: Attack, student: str) -> None:
    """Put an attack where a student's submission lies."""
    released = nbformat.read(made.root / "release" / "toy" / "toy.ipynb", as_version=4)
    handed_in = made.root / "submitted" / student / "toy" / "toy.ipynb"
    handed_in.parent.mkdir(parents=True)
    handed_in.write_text(json.dumps(submission(made, attack, released)))


def graded(attack: Attack) -> dict[str, Any]:
    """Grade an attack; return what can be seen afterwards."""
    with course() as made:
        shutil.copytree(TEMPLATE_INSIDE, made.root, dirs_exist_ok=True)
        hand_in(made, attack, STUDENT)
        before = processes()
        print(READY, flush=True)
        for _ in range(2 if attack.accomplice else 1):
            status = nbgrader(
                made.root,
                "autograde",
                "toy",
                f"--student={STUDENT}",
                "--force",
                seconds=max(CELL_SECONDS, *map(attack.limits.get, TIMES, (0, 0))),
            )
        if attack.name.startswith("injected"):
            nbgrader(made.root, "generate_feedback", "toy", f"--student={STUDENT}")
        seen = seen_afterwards(made.root, STUDENT)
        return {**seen, "status": status, "left": sorted(processes() - before)}


def seen_afterwards(root: Path, student: str) -> dict[str, Any]:
    """Return what gradebook, autograded notebook and feedback page of a student say."""
    from nbgrader.api import Gradebook

    written = root / "autograded" / student / "toy" / "toy.ipynb"
    outputs = outputs_of(written.read_text(errors="replace") if written.is_file() else "")
    earned = None
    # an attack may have destroyed the gradebook in any way
    with contextlib.suppress(Exception), Gradebook(f"sqlite:///{root}/gradebook.db") as gradebook:
        earned = gradebook.find_submission("toy", student).score
    page = root / "feedback" / student / "toy" / "toy.html"
    active = active_content(page.read_text(errors="replace")) if page.is_file() else []
    return {
        "active": [item[:200] for item in active],
        "earned": earned,
        "recorded": outputs is not None and earned is not None,
        "loot": loot_in(outputs or "")
        .removeprefix(LOOT)
        .replace(str(root), "COURSE")
        .strip()[:200],
        "shows a secret": any(s in (outputs or "") for s in (TOKEN, HIDDEN_MARK, "12345")),
    }


def processes() -> set[str]:
    """Return the numbers of the processes in the container."""
    time.sleep(SETTLE_SECONDS)
    return {path.name for path in Path("/proc").glob("[0-9]*")}


def outputs_of(text: str) -> str | None:
    """Return the outputs of a notebook as text, or None if there is no notebook."""
    try:
        notebook = json.loads(text)
    except ValueError:
        return None
    return json.dumps([cell.get("outputs") for cell in notebook["cells"]])


if __name__ == "__main__":
    print(json.dumps(graded(Attack(**json.loads(sys.argv[1])))))
