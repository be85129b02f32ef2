"""Runs the hidden checks of an assignment on the trusted side and gathers the verdicts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from autograder.assignment import Assignment, BrokenCheckError
from autograder.bank import Bank, Misconception, load_bank
from autograder.checking.cache import ResultCache
from autograder.checking.collected import (
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
from autograder.checking.known_cases import (
    Decided,
    ReplayingCaller,
    follow,
    never_remember,
    remember,
)
from autograder.checking.student import (
    ById,
    Caller,
    DirectCaller,
    ProcessCaller,
    RecordedCall,
    Reply,
    Student,
)
from autograder.verdict import CellVerdict, CheckResult, Finding, Judgement

__all__ = ["BrokenCheckError", "CellJudge", "judge", "judge_cell", "seeded_generator"]

NO_RESULT = "The check could not make sense of your result."
PASSED = Judgement("passed")
MAX_TROUBLE_CHARACTERS = 300
_misconceived = ResultCache()
judge_key = pytest.StashKey["CellJudge"]()


@dataclass
class Check:
    """What became of one check's cases; it passes when each of them is known to."""

    cases: int
    cases_passed: int = 0
    judgement: Judgement = PASSED

    def note(self, judgement: Judgement | None) -> None:
        """Note what a case came to; the first case that fails speaks for its check."""
        if judgement is None:
            self.cases_passed += 1
        elif self.judgement.outcome == "passed":
            self.judgement = judgement

    @property
    def passed(self) -> bool:
        """Whether all cases passed."""
        return self.judgement.outcome == "passed" and self.cases_passed == self.cases

    def result(self, check: CollectedCheck) -> CheckResult:
        """Return the check's result."""
        outcome, message = self.judgement.outcome, self.judgement.message
        if outcome == "passed" and not self.passed:
            outcome, message = "failed", NO_RESULT
        hint = "" if outcome == "passed" else check.hint
        return CheckResult(check.name, check.description, check.points, outcome, message, hint)


@dataclass(eq=False)
class CellJudge:
    """Runs the checks of one grade cell against one submission.

    Checks share a process of the student's for as long as they pass. One that does not pass there
    is judged again in a process in which nothing was called before, and the next gets another.
    """

    function: str
    make_caller: Callable[[], Caller]
    class_seed: str
    calls: list[RecordedCall] = field(default_factory=list)
    caller: Caller | None = None
    replaying: ReplayingCaller | None = None

    def student(self, generator: torch.Generator) -> Student:
        """Return the student's functions."""
        caller = self.replaying or self.caller or self.renew()
        return Student(caller, generator, self.calls)

    def renew(self) -> Caller:
        """Take a new caller, in whose process nothing was called yet."""
        self.close_caller()
        self.caller = self.make_caller()
        return self.caller

    def close_caller(self) -> None:
        """Give back the caller."""
        close = getattr(self.caller, "close", None)
        if close is not None:
            close()
        self.caller = None

    def judge(self, collected: CollectedChecks) -> list[tuple[CollectedCheck, Check]]:
        """Run all checks of the cell."""
        collected.config.stash[judge_key] = self
        try:
            return [(check, self._judged(collected, check)) for check in collected.checks]
        finally:
            self.close_caller()
            del collected.config.stash[judge_key]

    def _judged(self, collected: CollectedChecks, check: CollectedCheck) -> Check:
        """Run a check where others passed, if there is such a process, or where none ran before."""
        if self.caller is not None:
            first_call = len(self.calls)
            done = Check(len(check.cases))
            for case in check.cases:
                done.note(self._run(collected, case))
                if done.judgement.outcome != "passed":
                    break
            if done.passed:
                return done
            del self.calls[first_call:]
        self.renew()
        done = Check(len(check.cases))
        for case in check.cases:
            done.note(self._run(collected, case))
        if not done.passed:
            self.close_caller()
        return done

    def _run(self, collected: CollectedChecks, case: pytest.Item) -> Judgement | None:
        """Run one case, as far as it is not known what it makes of the replies."""
        if not isinstance(self.caller, ProcessCaller):
            return judge_exception(collected.run(case))
        name = (collected.version, case.nodeid, self.class_seed)
        try:
            known = follow(name, self.caller)
        except StudentStoppedError as error:
            return judge_exception(error)
        if isinstance(known, Decided):
            self.calls += known.calls
            return known.judgement
        self.replaying = ReplayingCaller(self.caller, known)
        first_call = len(self.calls)
        try:
            judgement = judge_exception(collected.run(case))
        finally:
            replaying, self.replaying = self.replaying, None
        if not replaying.is_repeatable():
            never_remember(name)
            del self.calls[first_call:]
            return judge_exception(collected.run(case))
        if judgement is None or judgement.outcome != "stopped":
            remember(name, replaying.made, Decided(judgement, tuple(self.calls[first_call:])))
        return judgement


def judge_exception(error: BaseException | None) -> Judgement | None:
    """Return what an exception that ended a case says about it."""
    if error is None:
        return None
    if isinstance(error, StudentStoppedError):
        return Judgement("stopped", str(error))
    if isinstance(error, CheckFailedError):
        return Judgement("failed", str(error))
    if isinstance(error, AssertionError):
        return Judgement("failed")
    words = str(error)[:MAX_TROUBLE_CHARACTERS]
    return Judgement(
        "failed", NO_RESULT, f"the check itself raised {type(error).__name__}: {words}"
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
    judged = judge.judge(collected_checks(assignment, path))
    results = tuple(done.result(check) for check, done in judged)
    findings: tuple[Finding, ...] = ()
    if any(result.outcome == "failed" for result in results):
        bank = bank or load_bank(assignment)
        findings = recognise(judge.calls, bank.misconceptions_of(judge.function))
    troubles = "; ".join(
        f"{check.name}: {done.judgement.trouble}"
        for check, done in judged
        if done.judgement.trouble
    )
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
    implementation = ById(misconception.implementation)
    if implementation not in call.agreements:
        key = implementation, call.request
        reply = _misconceived.get(key, lambda: _result_of(call, misconception))
        call.agreements[implementation] = _equal(call, reply)
    return call.agreements[implementation]


def _equal(call: RecordedCall, reply: Reply | str) -> bool:
    """Tell whether a call gave what a misconception gives, or raised what it raises."""
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
