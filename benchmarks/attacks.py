"""Run the attacks of the tests against stock `nbgrader autograde` and against the autograder.

Stock nbgrader runs as an ordinary user inside a sandbox of its own, with the gradebook, another
student's submission and a bystander process inside, so that an attack that works harms nothing.
Prints a table and writes `benchmarks/results/attacks.json`. Names, or parts of names, choose
attacks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.autograder.attack_course import (  # noqa: E402
    HIDDEN_MARK,
    LATER_INPUT,
    LOOT,
    PREAMBLE,
    TOKEN,
    Attack,
    Course,
    Lab,
    all_attacks,
    command_lines,
    course,
    tampered,
)
from tests.autograder.test_attacks import AS_ORDINARY_USER  # noqa: E402

CELL_SECONDS = 10
ATTACK_SECONDS = 90
STUDENT = "attacker"
TEMPLATE_INSIDE = "/mnt"
READY = "the course is ready"
SANDBOX = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev"]
SANDBOX += ["--proc", "/proc", "--size", str(2**29), "--tmpfs", "/tmp"]
SANDBOX += ["--size", str(2**29), "--tmpfs", "/var/tmp", "--tmpfs", "/dev/shm"]
LIMITS = ["prlimit", f"--data={4 * 2**30}", "--nproc=400", f"--fsize={2**28}"]

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


def submission(made: Course, attack: Attack, released: NotebookNode) -> dict[str, Any]:
    """Return the released notebook with an attack in place of the answer."""
    notebook = nbformat.from_dict(json.loads(json.dumps(released)))
    names = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in notebook.cells]
    position = names.index("square")
    first, *others = map(made.filled, attack.sources)
    notebook.cells[position].source = first
    extra = [nbformat.v4.new_code_cell(source) for source in others]
    notebook.cells[position + 1 : position + 1] = extra
    return tampered(notebook, attack.tamper)


def nbgrader(root: Path, *arguments: str) -> int | None:
    """Run a command of nbgrader's in the course; return its status, or None if it hung."""
    command = [sys.executable, "-m", "nbgrader", *arguments]
    command += [f"--course-dir={root}", f"--ExecutePreprocessor.timeout={CELL_SECONDS}"]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, timeout=ATTACK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        print(done.stderr.decode(errors="replace")[-2000:], file=sys.stderr)
    return done.returncode


def stock_result(attack: Attack) -> dict[str, Any]:
    """Return what an attack achieves against stock nbgrader; runs inside the sandbox."""
    from nbgrader.api import Gradebook

    with course() as made:
        shutil.copytree(TEMPLATE_INSIDE, made.root, dirs_exist_ok=True)
        released = nbformat.read(made.root / "release" / "toy" / "toy.ipynb", as_version=4)
        handed_in = made.root / "submitted" / STUDENT / "toy" / "toy.ipynb"
        handed_in.parent.mkdir(parents=True)
        handed_in.write_text(json.dumps(submission(made, attack, released)))
        print(READY, flush=True)
        for _ in range(2 if attack.accomplice else 1):
            status = nbgrader(made.root, "autograde", "toy", f"--student={STUDENT}", "--force")
        graded = made.root / "autograded" / STUDENT / "toy" / "toy.ipynb"
        said = graded.read_text(errors="replace") if graded.is_file() else ""
        earned = None
        # an attack may have destroyed the gradebook in any way
        with (
            contextlib.suppress(Exception),
            Gradebook(f"sqlite:///{made.root}/gradebook.db") as gradebook,
        ):
            earned = gradebook.find_submission("toy", STUDENT).score
        outputs = outputs_of(said)
        return {
            "earned": earned,
            "status": status,
            "hung": status is None,
            "recorded": bool(said) and earned is not None,
            "found": LOOT in outputs,
            "shows a secret": any(s in outputs for s in (TOKEN, HIDDEN_MARK, "12345")),
            "outlived": made.outlives in command_lines(),
        }


def outputs_of(text: str) -> str:
    try:
        notebook = json.loads(text)
    except ValueError:
        return ""
    return json.dumps([cell.get("outputs") for cell in notebook["cells"]])


def achieved(attack: Attack, result: dict[str, Any]) -> str:
    """Say what an attack achieved against stock nbgrader, or return an empty string."""
    if result["hung"]:
        return "the grader hangs"
    if not result["recorded"]:
        return "no result is recorded"
    if (result["earned"] or 0) > attack.may_earn:
        return f"{result['earned']:g} of 3 points"
    if result["found"]:
        return "finds what it looks for"
    if result["outlived"]:
        return "a process is left"
    if attack.name.startswith("theft") and result["shows a secret"]:
        return "shows hidden inputs or checks"
    return ""


def make_template(root: Path) -> None:
    """Make the course that each attack finds, with the assignment generated."""
    source = root / "source" / "toy" / "toy.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(source_notebook(), source)
    if nbgrader(root, "generate_assignment", "toy") != 0:
        raise RuntimeError("the assignment could not be generated")
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


def run_stock(attack: Attack, template: Path) -> dict[str, Any]:
    """Run one attack against stock nbgrader, in a sandbox, as an ordinary user."""
    command = [
        *LIMITS,
        *SANDBOX,
        "--ro-bind",
        str(template),
        TEMPLATE_INSIDE,
        sys.executable,
        __file__,
        "--inside",
        attack.name,
    ]
    environment = {**os.environ, "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    if os.getuid() == 0:
        given_up = ["unshare", "--mount", "sh", "-c", AS_ORDINARY_USER, "sh", sys.base_prefix]
        command = [*given_up, *command]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            timeout=3 * ATTACK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"hung": True, "recorded": False}
    if READY not in done.stdout:
        raise RuntimeError(f"{attack.name} could not be set up: {done.stderr}")
    last = done.stdout.strip().splitlines()[-1:]
    try:
        return dict(json.loads(last[0]))
    except ValueError:
        # the attack ended the grader itself
        return {"hung": False, "recorded": False, "said": done.stderr[-500:]}


def main(parts: list[str]) -> None:
    """Run, print, write."""
    attacks = [a for a in all_attacks().values() if not parts or any(p in a.name for p in parts)]
    start = time.perf_counter()
    # nbgrader starts alembic, which lies beside the interpreter
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as template,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        make_template(Path(template))
        stock = []
        # one line each as it comes: the whole takes many minutes
        for attack, result in zip(
            attacks, pool.map(lambda one: run_stock(one, Path(template)), attacks), strict=True
        ):
            print(f"stock: {attack.name:40} {achieved(attack, result) or '-'}", flush=True)
            stock.append(result)
    rows = []
    with course() as made:
        lab = Lab(made)
        lab.honest()
        for attack, result in zip(attacks, stock, strict=True):
            against_stock = achieved(attack, result)
            against_ours = "; ".join(lab.trouble(attack))
            rows.append(
                {"attack": attack.name, "title": attack.title, "stock": against_stock}
                | {"ours": against_ours, "details": result}
            )
            print(f"{attack.name:40} {against_stock or '-':32} {against_ours or '-'}", flush=True)
    counts = Counter(
        {
            "attacks": len(rows),
            "work against stock nbgrader": sum(bool(row["stock"]) for row in rows),
            "work against the autograder": sum(bool(row["ours"]) for row in rows),
        }
    )
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    print(f"{time.perf_counter() - start:.0f} s")
    if not parts:
        report = {"counts": counts, "rows": rows}
        results = ROOT / "benchmarks" / "results"
        results.mkdir(exist_ok=True)
        (results / "attacks.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        print(json.dumps(stock_result(all_attacks()[sys.argv[2]])))
    else:
        main(sys.argv[1:])
