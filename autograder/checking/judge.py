"""Runs the hidden checks of an assignment on the trusted side and gathers the verdicts."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from autograder.assignment import Assignment
from autograder.bank import Bank, Misconception, load_bank
from autograder.checking.compare import (
    Tolerance,
    compare_gradients,
    compare_inputs,
    compare_values,
)
from autograder.checking.failure import CheckFailedError, StudentStoppedError
from autograder.checking.student import Caller, DirectCaller, RecordedCall, Student
from autograder.verdict import CellVerdict, CheckOutcome, CheckResult, Finding

NO_RESULT = "The check could not make sense of your result."
MAX_TROUBLE_CHARACTERS = 300
_read_at: dict[Path, int] = {}
judge_key = pytest.StashKey["CellJudge"]()


class BrokenCheckError(RuntimeError):
    """A hidden check cannot be collected: the instructor's mistake, not a student's."""


@dataclass
class Check:
    """One test function and what became of its cases."""

    name: str
    description: str
    points: float
    hint: str
    outcome: CheckOutcome = "passed"
    message: str = ""
    trouble: str = ""
    cases: int = 0
    cases_passed: int = 0

    def result(self) -> CheckResult:
        """Return the check's result; a check passes when each of its cases is known to."""
        outcome, message = self.outcome, self.message
        if outcome == "passed" and self.cases_passed != self.cases:
            outcome, message = "failed", NO_RESULT
        hint = "" if outcome == "passed" else self.hint
        return CheckResult(self.name, self.description, self.points, outcome, message, hint)


# pytest keeps its plugins in sets, which needs identity in place of equality
@dataclass(eq=False)
class CellJudge:
    """Collects the outcomes of one grade cell's checks; a pytest plugin."""

    function: str
    make_caller: Callable[[], Caller]
    class_seed: str
    checks: dict[str, Check] = field(default_factory=dict)
    calls: list[RecordedCall] = field(default_factory=list)
    collection_errors: list[str] = field(default_factory=list)
    current: str = ""
    caller: Caller | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        """Make this judge known to the fixtures."""
        config.stash[judge_key] = self

    def student_for(self, check: str, generator: torch.Generator) -> Student:
        """Return the student's functions; all cases of one check share one caller."""
        if check != self.current or self.caller is None:
            self.close_caller()
            self.caller = self.make_caller()
            self.current = check
        return Student(self.caller, generator, self.calls)

    def close_caller(self) -> None:
        """Give back the caller of the check before."""
        close = getattr(self.caller, "close", None)
        if close is not None:
            close()
        self.caller = None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note each check's points, description and hint."""
        for item in items:
            check = describe(item)
            self.checks.setdefault(check.name, check).cases += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a check file that cannot be imported."""
        if report.failed:
            self.collection_errors.append(str(report.longrepr))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Iterator[None]:
        """Note what a case came to; the first case that fails speaks for its check."""
        report = yield
        check = self.checks[check_name(item)]
        if call.when == "call" and call.excinfo is None:
            check.cases_passed += 1
        if call.excinfo is not None and check.outcome == "passed":
            check.outcome, check.message, check.trouble = judge_exception(call.excinfo.value)
        return report


def judge_exception(error: BaseException) -> tuple[CheckOutcome, str, str]:
    """Return outcome, words for the student, and words for the instructor."""
    if isinstance(error, StudentStoppedError):
        return "stopped", str(error), ""
    if isinstance(error, CheckFailedError):
        return "failed", str(error), ""
    if isinstance(error, AssertionError):
        return "failed", "", ""
    words = str(error)[:MAX_TROUBLE_CHARACTERS]
    trouble = f"the check itself raised {type(error).__name__}: {words}"
    return "failed", NO_RESULT, trouble


def check_name(item: pytest.Item) -> str:
    """Return the name of the test function that a case belongs to."""
    return str(getattr(item, "originalname", item.name))


def describe(item: pytest.Item) -> Check:
    """Read what a check's author wrote about it."""
    name = check_name(item)
    documentation = (getattr(item, "obj", None).__doc__ or "").strip()
    if not documentation:
        raise BrokenCheckError(f"the hidden check {name} has no docstring for the student to read")
    points = item.get_closest_marker("points")
    if points is None:
        raise BrokenCheckError(f"the hidden check {name} has no mark `points`")
    hint = item.get_closest_marker("hint")
    return Check(
        name,
        documentation.splitlines()[0],
        float(points.args[0]),
        str(hint.args[0]) if hint else "",
    )


def seeded_generator(class_seed: str, name: str) -> torch.Generator:
    """Return a generator that depends on the class's secret and the case's name alone."""
    digest = hashlib.sha256(f"{class_seed}\0{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def judge_cell(
    assignment: Assignment,
    grade_id: str,
    make_caller: Callable[[], Caller],
    *,
    class_seed: str = "",
    bank: Bank | None = None,
) -> CellVerdict:
    """Run the hidden checks of one grade cell.

    Raises
    ------
    BrokenCheckError
        If the check file is missing, cannot be imported, or lacks points or a docstring.
    """
    path = assignment.check_file(grade_id)
    if path is None:
        raise BrokenCheckError(f"grade cell {grade_id!r} has no check file in {assignment.checks}")
    judge = CellJudge(grade_id.removeprefix("test_"), make_caller, class_seed)
    _run_pytest(assignment, path, judge)
    findings: tuple[Finding, ...] = ()
    if any(check.outcome == "failed" for check in judge.checks.values()):
        bank = bank or load_bank(assignment)
        findings = recognise(judge.calls, bank.misconceptions_of(judge.function))
    troubles = "; ".join(
        f"{check.name}: {check.trouble}" for check in judge.checks.values() if check.trouble
    )
    results = tuple(check.result() for check in judge.checks.values())
    return CellVerdict(grade_id, results, findings, troubles)


def _run_pytest(assignment: Assignment, path: Path, judge: CellJudge) -> None:
    """Run pytest in this process, alone with our plugin and silent."""
    from autograder.checking import plugin

    arguments = [
        str(path),
        "--quiet",
        "--disable-plugin-autoload",
        "--import-mode=importlib",
        f"--rootdir={assignment.root}",
        "-c",
        os.devnull,
        "--tb=no",
        *(f"-pno:{name}" for name in ("cacheprovider", "capture", "faulthandler", "logging")),
        *(f"-pno:{name}" for name in ("unraisableexception", "threadexception", "warnings")),
    ]
    _drop_stale_modules(path)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main(arguments, plugins=[plugin, judge])
    judge.close_caller()
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise BrokenCheckError(f"{path}: {' '.join(judge.collection_errors) or said.getvalue()}")


def _drop_stale_modules(path: Path) -> None:
    """Forget check files of another course, or of before an edit, that go by the same name."""
    files = {path, *(folder / "conftest.py" for folder in path.parents)}
    names = (f"/{path.name}", "/conftest.py")
    for module_name, module in list(sys.modules.items()):
        name = getattr(module, "__file__", None) or ""
        if not name.endswith(names):
            continue
        file = Path(name)
        if file not in files or _read_at.get(file) != _modified(file):
            del sys.modules[module_name]
    _read_at.update({file: _modified(file) for file in files})


def _modified(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def recognise(
    calls: Sequence[RecordedCall], misconceptions: Sequence[Misconception]
) -> tuple[Finding, ...]:
    """Return the misconceptions whose results agree with the submission's in every call."""
    return tuple(
        Finding(entry.name, entry.sentence, entry.see)
        for entry in misconceptions
        if calls and all(_agrees(call, entry) for call in calls)
    )


def _agrees(call: RecordedCall, misconception: Misconception) -> bool:
    """Tell whether a misconception does in one call what the submission did."""
    caller = DirectCaller({misconception.function: misconception.implementation})
    try:
        reply = caller(
            call.function,
            call.arguments,
            gradient_of=call.gradient_of,
            cotangent=call.cotangent,
            directions=call.directions,
        )
    except CheckFailedError as error:
        return call.reply is None and error.raised == call.raised
    if call.reply is None:
        return False
    try:
        tolerance = Tolerance(4 * call.tolerance.rtol, 4 * call.tolerance.atol)
        compare_values(call.function, call.reply.value, reply.value, tolerance)
        compare_inputs(call.function, call.reply.inputs, reply.inputs)
        if len(call.reply.gradients) != len(reply.gradients):
            return False
        for mine, theirs in zip(call.reply.gradients, reply.gradients, strict=True):
            if (mine is None) != (theirs is None):
                return False
        compare_gradients(call.function, call.reply.gradients, reply.gradients, tolerance)
        compare_gradients(
            call.function, call.reply.double_gradients, reply.double_gradients, tolerance
        )
    except CheckFailedError:
        return False
    return True


def judge(
    assignment: Assignment, functions: dict[str, Callable[..., Any]], *, class_seed: str = ""
) -> dict[str, CellVerdict]:
    """Judge trusted functions in this process, for the tests of checks and banks.

    Only the grade cells of the functions given are judged.
    """
    bank = load_bank(assignment)
    return {
        f"test_{name}": judge_cell(
            assignment,
            f"test_{name}",
            lambda: DirectCaller(functions),
            class_seed=class_seed,
            bank=bank,
        )
        for name in functions
    }
