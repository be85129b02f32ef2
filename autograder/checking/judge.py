"""Runs the hidden checks of an assignment on the trusted side and gathers the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from autograder.assignment import Assignment, BrokenCheckError
from autograder.bank import Bank, Misconception, load_bank
from autograder.checking.cache import ResultCache
from autograder.checking.cell_judge import CellJudge
from autograder.checking.collected import collected_checks
from autograder.checking.compare import (
    Tolerance,
    compare_gradients,
    compare_inputs,
    compare_values,
)
from autograder.checking.failure import CheckFailedError
from autograder.checking.student import ById, Caller, DirectCaller, RecordedCall, Reply
from autograder.verdict import CellVerdict, Finding

_misconceived = ResultCache()


def judge_cell(
    assignment: Assignment,
    grade_id: str,
    make_caller: Callable[[], Caller],
    *,
    class_seed: str = "",
    bank: Bank | None = None,
    settled: bool = False,
) -> CellVerdict:
    """Run the hidden checks of one grade cell; `settled` functions leave nothing behind.

    Raises
    ------
    BrokenCheckError
        If the check file is missing, cannot be imported, or lacks points or a docstring.
    """
    path = assignment.check_file(grade_id)
    if path is None:
        raise BrokenCheckError(f"grade cell {grade_id!r} has no check file in {assignment.checks}")
    judge = CellJudge(grade_id.removeprefix("test_"), make_caller, class_seed, settled)
    judged = judge.judge(collected_checks(assignment, path))
    results = tuple(done.result(check) for check, done in judged)
    findings: tuple[Finding, ...] = ()
    # a check that could not be carried out says nothing of the function
    pairs = zip(results, judged, strict=True)
    if any(
        result.outcome == "failed" and not done.judgement.trouble for result, (_, done) in pairs
    ):
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
    tolerance = Tolerance(4 * call.tolerance.rtol, 4 * call.tolerance.atol)
    if _plainly_differ(call.reply.value, reply.value, tolerance):
        return False
    try:
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


def _plainly_differ(mine: Any, theirs: Any, tolerance: Tolerance) -> bool:
    """Tell whether two tensors of one form are not close; to say in words how takes longer."""
    return (
        isinstance(mine, torch.Tensor)
        and isinstance(theirs, torch.Tensor)
        and (mine.shape, mine.dtype, mine.device) == (theirs.shape, theirs.dtype, theirs.device)
        and not tolerance.accepts(mine, theirs)
    )


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
