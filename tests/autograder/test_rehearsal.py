"""What the bank's functions reply is known before there is a submission, and changes no verdict."""

import tempfile
from functools import partial

import nbformat
import numpy
import pytest
import torch

from autograder import engine, rehearsal, work, worker
from autograder.assignment import BrokenCheckError
from autograder.checking import known_cases
from autograder.checking.cache import ResultCache
from autograder.checking.judge import judge_cell
from autograder.engine import NotebookRun, grade_notebook
from autograder.fork_server import Need
from autograder.not_allowed import NOTHING
from autograder.rehearsal import TrustedCaller, judge_bank
from autograder.student_process import OFTEN_USED, need_of
from autograder.work import Setting, Work
from tests.autograder.conftest import BANK, CHECKS

# beside the folder of the checks, so that a run that is noted leaves them as they are
NOTED = """
from pathlib import Path

RUNS = Path(__file__).parents[1] / "runs.txt"

@pytest.fixture(autouse=True)
def noted(request):
    with RUNS.open("a") as file:
        file.write(request.node.name + "\\n")
"""
SEED = "seed"


def always():
    return True


def never():
    return False


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(known_cases, "_known", ResultCache())
    monkeypatch.setattr(known_cases, "_unrepeatable", set())


@pytest.fixture
def noted(toy):
    """A course that notes which cases were run."""
    (toy.checks / "test_square.py").write_text(CHECKS + NOTED)
    return toy


@pytest.fixture
def judged(monkeypatch):
    """Return the names of the functions of the bank that are judged, in order."""
    names = []

    def judge(assignment, grade_id, make_caller, **options):
        names.extend(function.__name__ for function in make_caller().functions.values())
        return judge_cell(assignment, grade_id, make_caller, **options)

    monkeypatch.setattr(rehearsal, "judge_cell", judge)
    return names


def runs(assignment):
    path = assignment.checks.parent / "runs.txt"
    return path.read_text().split() if path.exists() else []


def verdict_on(assignment, function):
    caller = partial(TrustedCaller, {"square": function})
    return judge_cell(assignment, "test_square", caller, class_seed=SEED)


def test_no_check_is_run_for_what_was_rehearsed(noted):
    before = [verdict_on(noted, lambda x: x**2), verdict_on(noted, lambda x: 2 * x)]
    known_cases._known = ResultCache()
    judge_bank(noted, SEED, always)
    rehearsed = runs(noted)
    assert [verdict_on(noted, lambda x: x**2), verdict_on(noted, lambda x: 2 * x)] == before
    assert [verdict.earned for verdict in before] == [3, 1]
    assert runs(noted) == rehearsed
    verdict_on(noted, lambda x: 3 * x)
    assert len(runs(noted)) > len(rehearsed)


@pytest.mark.parametrize(
    ("solution", "name"),
    [("x**2", ""), ("2 * x", "doubled"), ("x.detach() ** 2", "detached")],
)
def test_a_students_process_replies_as_was_rehearsed(noted, toy_notebook, solution, name):
    judge_bank(noted, SEED, always)
    rehearsed = runs(noted)
    notebook = toy_notebook(f"def square(x):\n    return {solution}")
    cell = grade_notebook(notebook, noted, class_seed=SEED).cells["test_square"]
    assert [finding.name for finding in cell.findings] == ([name] if name else [])
    assert runs(noted) == rehearsed


def test_another_class_seed_was_not_rehearsed(noted):
    judge_bank(noted, "another", always)
    rehearsed = runs(noted)
    verdict_on(noted, lambda x: x**2)
    assert len(runs(noted)) > len(rehearsed)


def test_right_and_wrong_functions_of_each_grade_cell_come_in_turn(toy, judged):
    (toy.checks / "test_cube.py").write_text(CHECKS.replace("square", "cube"))
    cube = BANK.replace("def doubled", "def tripled").replace("def power", "def product")
    (toy.bank / "cube.py").write_text(cube)
    judge_bank(toy, SEED, always)
    first = ["product", "power", "tripled", "doubled"]
    assert judged == [
        *first,
        *("detached", "detached", "in_place", "in_place", "raising", "raising"),
    ]


def test_it_stops_as_soon_as_it_is_told_to(toy, judged):
    answers = iter([True, True, True, False])
    judge_bank(toy, SEED, lambda: next(answers))
    assert judged == ["power", "doubled"]


def test_nothing_is_collected_where_there_is_no_time(toy, judged):
    (toy.checks / "test_square.py").write_text("this is not Python")
    judge_bank(toy, SEED, never)
    assert judged == []


def test_a_broken_check_is_named(toy):
    (toy.checks / "test_square.py").write_text("this is not Python")
    with pytest.raises(BrokenCheckError, match=r"test_square\.py"):
        judge_bank(toy, SEED, always)


def test_a_check_with_a_temporary_folder_is_left_to_each_worker(toy, judged):
    (toy.checks / "test_square.py").write_text(CHECKS.replace("generator)", "generator, tmp_path)"))
    judge_bank(toy, SEED, always)
    assert judged == []


def test_a_bank_function_without_checks_is_left_out(toy, judged):
    (toy.bank / "cube.py").write_text(BANK)
    judge_bank(toy, SEED, always)
    assert len(judged) == 5


def test_nothing_of_it_is_seen(toy, capfd):
    loud = """
    import sys, warnings
    warnings.warn("loud")
    print("loud")
    print("loud", file=sys.stderr)
    return 2 * x
"""
    (toy.bank / "square.py").write_text(BANK.replace("\n    return 2 * x\n", loud))
    judge_bank(toy, SEED, always)
    assert capfd.readouterr() == ("", "")


def test_where_there_is_a_gpu_nothing_is_rehearsed(toy, judged, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    judge_bank(toy, SEED, always)
    assert judged == []


@pytest.mark.parametrize("loading", [True, False])
def test_it_lasts_while_the_libraries_of_the_students_process_load(
    noted, judged, monkeypatch, loading
):
    monkeypatch.setattr(work, "start_ahead", lambda confined, root: None)
    monkeypatch.setattr(work, "is_loading", lambda: loading)
    assert work.rehearse(Work(Setting(noted.root, noted.name, {}, SEED), "nobody", {}).to_bytes())
    assert len(judged) == (5 if loading else 0)
    rehearsed = runs(noted)
    verdict_on(noted, lambda x: x**2)
    assert (runs(noted) == rehearsed) == loading


OPENS = """
DATA = __import__("os").open(__file__, 0)


@pytest.mark.points(2)"""
DRAWS = """    torch.rand(1)
    return 2 * x
"""


@pytest.mark.parametrize(
    ("bank", "checks", "left_nothing"),
    [
        (BANK, CHECKS, True),
        (BANK, CHECKS.replace("\n\n@pytest.mark.points(2)", OPENS), False),
        (BANK.replace("    return 2 * x\n", DRAWS), CHECKS, False),
        (BANK.replace("2 * x", "torch.set_default_dtype(torch.float64)"), CHECKS, False),
        (BANK.replace("2 * x", "__import__('os').environ.update(LEFT='1')"), CHECKS, False),
        (BANK.replace("2 * x", "__import__('tempfile').mkdtemp()"), CHECKS, False),
        (BANK.replace("2 * x", "__import__('random').random()"), CHECKS, False),
        (BANK.replace("2 * x", "__import__('numpy').random.rand()"), CHECKS, False),
        (BANK.replace("2 * x", "__import__('numpy').seterr(all='raise')"), CHECKS, False),
        (BANK.replace("2 * x", "torch.set_grad_enabled(False)"), CHECKS, False),
    ],
)
def test_what_is_left_behind_is_noticed(toy, tmp_path, monkeypatch, bank, checks, left_nothing):
    """Bug: workers shared the place in a file that a check had opened, and lost points by it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("LEFT", "")
    (toy.bank / "square.py").write_text(
        bank.replace("from autograder", "import torch\nfrom autograder", 1)
    )
    (toy.checks / "test_square.py").write_text(checks)
    setting = Setting(toy.root, toy.name, {}, SEED)
    errors = numpy.geterr()
    try:
        assert worker.rehearse(setting, always) == left_nothing
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        numpy.seterr(**errors)


def test_a_misconception_that_keeps_what_it_saw_is_still_recognised(toy):
    """Bug: it had seen the bank's own calls before it was compared with a student's function."""
    keeps = "def doubled(x, seen=[]):\n    seen.append(x.sum())\n    return sum(seen)"
    source = BANK.replace("def doubled(x):\n    return 2 * x", keeps)
    assert source != BANK
    (toy.bank / "square.py").write_text(source)

    def square(x, seen=[]):  # noqa: B006 - the mistake that is recognised
        seen.append(x.sum())
        return sum(seen)

    turns = iter([True] * 3)
    judge_bank(toy, SEED, lambda: next(turns, False))
    assert [finding.name for finding in verdict_on(toy, square).findings] == ["doubled"]


class StartedError(Exception):
    """Stands for the start of a process."""


@pytest.mark.parametrize("has_checks", [True, False])
def test_what_is_made_ready_is_what_the_first_submission_asks_for(
    toy, toy_notebook, monkeypatch, has_checks
):
    """A process that was made ready for something else is not used, and nobody would notice."""
    (toy.checks / "not_allowed.txt").write_text("math.gcd\n")
    (toy.checks / "not_allowed_operators.txt").write_text("square\n")
    notebook = toy_notebook("def square(x):\n    return x * x", "import sklearn")
    notebook.cells[0].source += "\nimport pandas"
    notebook.cells[0].metadata["nbgrader"] = {"locked": True}
    ready, asked = [], []

    def start(modules, not_allowed, **_):
        asked.append(need_of(modules, not_allowed))
        raise StartedError

    monkeypatch.setattr(engine, "_warm", {})
    monkeypatch.setattr(engine, "make_ready", ready.append)
    monkeypatch.setattr(engine, "WarmProcess", start)
    text = nbformat.writes(notebook)
    name = toy.name if has_checks else "plain"
    worker.prepare(Setting(toy.root, name, {"toy": (text, text), "other": ("", "")}, SEED))
    with pytest.raises(StartedError):
        NotebookRun(notebook, toy if has_checks else None)
    assert ready == asked
    expected = (
        Need(("pandas",), ("math.gcd",), ("square",))
        if has_checks
        else need_of(OFTEN_USED, NOTHING)
    )
    assert ready == [expected]


def test_a_course_without_hidden_checks_has_nothing_to_judge_bank(tmp_path, judged, monkeypatch):
    monkeypatch.setattr(work, "start_ahead", lambda confined, root: None)
    monkeypatch.setattr(work, "is_loading", always)
    assert work.rehearse(Work(Setting(tmp_path, "plain", {}, SEED), "nobody", {}).to_bytes())
    assert judged == []
