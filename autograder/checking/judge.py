"""Runs the hidden checks of an assignment on the trusted side and gathers the verdicts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from autograder.assignment import Assignment
from autograder.bank import Bank, Misconception, load_bank
from autograder.checking.cache import ResultCache
from autograder.checking.collected import (
    BrokenCheckError,
    CollectedCheck,
    CollectedChecks,
    collected_checks,
)
from autograder.checking.compare import (
    Tolerance,
    compare_gradients,
    compare_inputs,
    compare_values,
)
from autograder.checking.failure import CheckFailedError, StudentStoppedError
from autograder.checking.student import (
    ById,
    Caller,
    DirectCaller,
    RecordedCall,
    Reply,
    Student,
)
from autograder.verdict import CellVerdict, CheckOutcome, CheckResult, Finding

__all__ = ["BrokenCheckError", "CellJudge", "judge", "judge_cell", "seeded_generator"]

NO_RESULT = "The check could not make sense of your result."
MAX_TROUBLE_CHARACTERS = 300
_misconceived = ResultCache()
judge_key = pytest.StashKey["CellJudge"]()


@dataclass
class Check:
    """What became of one check's cases; it passes when each of them is known to."""

    cases: int
    cases_passed: int = 0
    outcome: CheckOutcome = "passed"
    message: str = ""
    trouble: str = ""

    def note(self, error: BaseException | None) -> None:
        """Note what a case came to; the first case that fails speaks for its check."""
        if error is None:
            self.cases_passed += 1
        elif self.outcome == "passed":
            self.outcome, self.message, self.trouble = judge_exception(error)

    def result(self, check: CollectedCheck) -> CheckResult:
        """Return the check's result."""
        outcome, message = self.outcome, self.message
        if outcome == "passed" and self.cases_passed != self.cases:
            outcome, message = "failed", NO_RESULT
        hint = "" if outcome == "passed" else check.hint
        return CheckResult(check.name, check.description, check.points, outcome, message, hint)


@dataclass(eq=False)
class CellJudge:
    """Runs the checks of one grade cell against one submission.

    Checks share a process of the student's for as long as they all pass. One that does not pass is
    judged again in a process of its own, and so is each that follows it.
    """

    function: str
    make_caller: Callable[[], Caller]
    class_seed: str
    calls: list[RecordedCall] = field(default_factory=list)
    caller: Caller | None = None

    def student(self, generator: torch.Generator) -> Student:
        """Return the student's functions."""
        if self.caller is None:
            self.renew()
        assert self.caller is not None
        return Student(self.caller, generator, self.calls)

    def renew(self) -> None:
        """Take a new caller, in whose process nothing was called yet."""
        self.close_caller()
        self.caller = self.make_caller()

    def close_caller(self) -> None:
        """Give back the caller."""
        close = getattr(self.caller, "close", None)
        if close is not None:
            close()
        self.caller = None

    def judge(self, collected: CollectedChecks) -> list[tuple[CollectedCheck, Check]]:
        """Run all checks of the cell."""
        collected.config.stash[judge_key] = self
        judged = []
        all_passed = True
        try:
            for check in collected.checks:
                done = self._shared(collected, check) if all_passed else None
                if done is None:
                    done = self._alone(collected, check)
                all_passed = all_passed and done.cases_passed == done.cases
                judged.append((check, done))
        finally:
            self.close_caller()
            del collected.config.stash[judge_key]
        return judged

    def _shared(self, collected: CollectedChecks, check: CollectedCheck) -> Check | None:
        """Run a check where others ran before it; return None unless it passes."""
        if self.caller is None:
            return None
        first_call = len(self.calls)
        done = Check(len(check.cases))
        for case in check.cases:
            error = collected.run(case)
            done.note(error)
            if error is not None:
                del self.calls[first_call:]
                return None
        return done

    def _alone(self, collected: CollectedChecks, check: CollectedCheck) -> Check:
        """Run a check where nothing was called before."""
        self.renew()
        done = Check(len(check.cases))
        for case in check.cases:
            done.note(collected.run(case))
        return done


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
    judged = judge.judge(collected_checks(assignment, path))
    results = tuple(done.result(check) for check, done in judged)
    findings: tuple[Finding, ...] = ()
    if any(result.outcome == "failed" for result in results):
        bank = bank or load_bank(assignment)
        findings = recognise(judge.calls, bank.misconceptions_of(judge.function))
    troubles = "; ".join(f"{check.name}: {done.trouble}" for check, done in judged if done.trouble)
    return CellVerdict(grade_id, results, findings, troubles)


def recognise(
    calls: Sequence[RecordedCall], misconceptions: Sequence[Misconception]
) -> tuple[Finding, ...]:
    """Return the misconceptions whose results agree with the submission's in every call."""
    return tuple(
        Finding(entry.name, entry.sentence, entry.see)
        for entry in misconceptions
        if calls and all(_agrees(call, entry) for call in calls)
    )


def _result_of(call: RecordedCall, misconception: Misconception) -> Reply | str:
    """Return a misconception's reply to a call, or the name of the exception it raises."""
    caller = DirectCaller({misconception.function: misconception.implementation})
    try:
        return caller(
            call.function,
            call.arguments,
            gradient_of=call.gradient_of,
            cotangent=call.cotangent,
            directions=call.directions,
        )
    except CheckFailedError as error:
        return error.raised


def _agrees(call: RecordedCall, misconception: Misconception) -> bool:
    """Tell whether a misconception does in one call what the submission did."""
    key = ById(misconception.implementation), call.request
    reply = _misconceived.get(key, lambda: _result_of(call, misconception))
    if call.reply is None or isinstance(reply, str):
        return call.reply is None and reply == call.raised
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
