"""The pytest plugin that hidden checks are written against, and that runs them by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autograder.assignment import Assignment
from autograder.checking.cell_judge import CellJudge, judge_key, seeded_generator
from autograder.checking.collected import check_name
from autograder.checking.student import Student
from autograder.engine import NotebookRun, read_notebook
from autograder.fork_server import secret_folders
from autograder.student_process import WarmProcess

by_hand_key = pytest.StashKey["HandRun"]()
# for the fixtures here, which would be slower if they asked for `request`
_running: list[pytest.Item] = []


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks of a hidden check."""
    config.addinivalue_line("markers", "points(n): what the check is worth")
    config.addinivalue_line("markers", "hint(text): what helps a student whose check fails")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for running checks by hand."""
    group = parser.getgroup("hidden checks")
    group.addoption(
        "--submission", metavar="NOTEBOOK", help="the notebook to check; default: the solution"
    )
    group.addoption("--class-seed", default="", help="the secret that the random inputs come from")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a check that takes `device` on every device of this machine."""
    parametrised = {
        name
        for mark in metafunc.definition.iter_markers("parametrize")
        for name in str(mark.args[0]).replace(" ", "").split(",")
    }
    if "device" in metafunc.fixturenames and "device" not in parametrised:
        devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        metafunc.parametrize("device", devices)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note which case is running."""
    _running[:] = [item]


@pytest.fixture
def generator() -> torch.Generator:
    """Give a random generator that depends on the class seed and the case alone.

    Where two cases drew the same, an input of one could be what another expects.
    """
    (case,) = _running
    judge = case.config.stash.get(judge_key, None)
    seed = judge.class_seed if judge else case.config.getoption("--class-seed")
    return seeded_generator(seed, f"{case.path.name}\0{check_name(case)}\0{case.name}")


@pytest.fixture
def student(generator: torch.Generator) -> Student:
    """Give the submission's functions."""
    (case,) = _running
    judge = case.config.stash.get(judge_key, None)
    if judge is None:
        run = case.config.stash.setdefault(by_hand_key, HandRun(case.config))
        judge = run.judge_for(case.path, check_name(case))
    return judge.student(generator)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the notebook that was run by hand."""
    run = config.stash.get(by_hand_key, None)
    if run is not None:
        run.close()


class HandRun:
    """The notebook named with `--submission`, or each assignment's solution, run once."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.runs: dict[str, NotebookRun] = {}
        self.judges: dict[Path, CellJudge] = {}
        self.current: tuple[Path, str] | None = None
        self.warm: list[WarmProcess] = []

    def judge_for(self, path: Path, check: str) -> CellJudge:
        """Return the judge of the grade cell that a check file belongs to.

        The cases of one check share a process of the student's; each check has its own.
        """
        if path not in self.judges:
            run = self._run_of(Assignment(path.parent.name, self.config.rootpath))
            seed = self.config.getoption("--class-seed")
            self.judges[path] = CellJudge(
                path.stem.removeprefix("test_"), run.caller_of(path.stem), seed
            )
        if self.current != (path, check):
            self.judges[path].renew()
            self.current = path, check
        return self.judges[path]

    def _run_of(self, assignment: Assignment) -> NotebookRun:
        if assignment.name not in self.runs:
            named = self.config.getoption("--submission")
            notebook = read_notebook(Path(named) if named else assignment.source)
            # a warm process of its own: another run would end this one's processes
            self.warm.append(WarmProcess(confined=True, secret=secret_folders(assignment.root)))
            run = NotebookRun(notebook, assignment, warm=self.warm[-1])
            run.run_cells()
            self.runs[assignment.name] = run
        return self.runs[assignment.name]

    def close(self) -> None:
        """End the notebooks' processes."""
        for judge in self.judges.values():
            judge.close_caller()
        for run in self.runs.values():
            run.close()
        for warm in self.warm:
            warm.close()
