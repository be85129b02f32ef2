"""Runs the hidden checks of one grade cell against one submission."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch

from autograder.checking.collected import CollectedCheck, CollectedChecks
from autograder.checking.failure import CheckFailedError, StudentStoppedError
from autograder.checking.known_cases import (
    Decided,
    Exchange,
    ReplayingCaller,
    follow,
    never_remember,
    remember,
)
from autograder.checking.student import Caller, ProcessCaller, RecordedCall, Reply, Student
from autograder.verdict import CheckResult, Judgement

NO_RESULT = "The check could not make sense of your result."
PASSED = Judgement("passed")
MAX_TROUBLE_CHARACTERS = 300
judge_key = pytest.StashKey["CellJudge"]()


@dataclass
class Check:
    """What became of one check's cases; it passes when each of them is known to.

    `alone` tells that nothing was called before in its process; `replies` are digests of all
    replies it had there.
    """

    cases: int
    alone: bool = True
    cases_passed: int = 0
    judgement: Judgement = PASSED
    calls: list[RecordedCall] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)

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

    @property
    def stopped(self) -> bool:
        """Whether its process can be asked nothing more."""
        return self.judgement.outcome == "stopped"

    @property
    def ran_short(self) -> bool:
        """Whether it failed as it would where earlier calls had used something up."""
        raised = any(call.raised for call in self.calls)
        return self.stopped or (raised and not self.passed)

    def confirms(self, earlier: Check) -> bool:
        """Tell whether all replies, and what they came to, are those of an earlier trial."""
        return (
            (self.alone or not self.stopped)
            and self.judgement == earlier.judgement
            and self.replies[: len(earlier.replies)] == earlier.replies
        )

    def result(self, check: CollectedCheck) -> CheckResult:
        """Return the check's result."""
        outcome, message = self.judgement.outcome, self.judgement.message
        if outcome == "passed" and not self.passed:
            outcome, message = "failed", NO_RESULT
        hint = "" if outcome == "passed" else check.hint
        return CheckResult(check.name, check.description, check.points, outcome, message, hint)


@dataclass(frozen=True)
class OverheardCaller(ProcessCaller):
    """Asks a student's process and notes its replies."""

    caller: ProcessCaller
    replies: list[bytes] = field(default_factory=list)

    def exchange(self, function: str, request: bytes) -> bytes:
        """Send a request and return the reply."""
        reply = self.caller.exchange(function, request)
        self.replies.append(hashlib.blake2b(reply).digest())
        return reply

    def understand(self, function: str, reply: bytes) -> Reply:
        """Read a reply as the student's process would have it read."""
        return self.caller.understand(function, reply)

    @property
    def used(self) -> bool:
        """Whether something was called in the process before this caller was made."""
        return bool(getattr(self.caller, "used", False))

    def give_back(self) -> None:
        """Leave the process to the checks of another grade cell, or end it."""
        getattr(self.caller, "give_back", self.close)()

    def close(self) -> None:
        """End the process."""
        getattr(self.caller, "close", bool)()


@dataclass(eq=False)
class CellJudge:
    """Runs the checks of one grade cell against one submission.

    A process is shared by the checks that pass in it. What comes after one that fails could depend
    on what that one left behind, as it could itself on those before it. So these are judged again
    in a second process, the last one first: before each, other calls were made there than in the
    first. Where all replies are the same they depend on neither; where one is not, each of these
    checks gets a process of its own.

    Functions that are `settled` leave nothing behind but memory; of their checks those alone are
    judged again that stopped or raised, since earlier calls may have used something up.
    """

    function: str
    make_caller: Callable[[], Caller]
    class_seed: str
    settled: bool = False
    calls: list[RecordedCall] = field(default_factory=list)
    caller: Caller | None = None
    replaying: ReplayingCaller | None = None

    def student(self, generator: torch.Generator) -> Student:
        """Return the student's functions."""
        caller = self.replaying or self.caller or self.renew()
        return Student(caller, generator, self.calls)

    def renew(self) -> Caller:
        """Take a new caller; only the first may be of a process that other checks have used."""
        self.close_caller()
        caller = self.make_caller()
        self.caller = OverheardCaller(caller) if isinstance(caller, ProcessCaller) else caller
        return self.caller

    def close_caller(self) -> None:
        """Give back the caller."""
        getattr(self.caller, "close", bool)()
        self.caller = None

    def judge(self, collected: CollectedChecks) -> list[tuple[CollectedCheck, Check]]:
        """Run all checks of the cell."""
        collected.config.stash[judge_key] = self
        done: list[Check] = []
        try:
            while len(done) < len(collected.checks):
                done += self._judge_together(collected, collected.checks[len(done) :])
            leaves_nothing = self.settled or all(check.passed for check in done)
            if leaves_nothing and isinstance(self.caller, OverheardCaller):
                self.caller.give_back()
                self.caller = None
        finally:
            self.close_caller()
            del collected.config.stash[judge_key]
        self.calls = [call for check in done for call in check.calls]
        return list(zip(collected.checks, done, strict=True))

    def _judge_together(
        self, collected: CollectedChecks, checks: Sequence[CollectedCheck]
    ) -> list[Check]:
        """Judge checks in one process, for as long as it lasts, and what is in doubt in others."""
        tried: list[Check] = []
        self.close_caller()
        for check in checks:
            tried.append(self._try(collected, check))
            if tried[-1].stopped:
                break
        failed = [index for index, check in enumerate(tried) if not check.passed]
        first = failed[0] if failed else len(tried)
        doubtful = [
            index
            for index in range(first, len(tried))
            if not tried[index].alone and (tried[index].ran_short or not self.settled)
        ]
        return self._judge_again(collected, checks, tried, doubtful) if doubtful else tried

    def _judge_again(
        self,
        collected: CollectedChecks,
        checks: Sequence[CollectedCheck],
        tried: list[Check],
        doubtful: Sequence[int],
    ) -> list[Check]:
        """Return what checks came to, those in doubt after a second trial."""
        self.close_caller()
        again = {
            index: self._try(collected, checks[index], to_the_end=True)
            for index in reversed(doubtful)
        }
        if not all(check.confirms(tried[index]) for index, check in again.items()):
            for index in [index for index, check in again.items() if not check.alone]:
                self.close_caller()
                again[index] = self._try(collected, checks[index], to_the_end=True)
        return [again.get(index, check) for index, check in enumerate(tried)]

    def _try(
        self, collected: CollectedChecks, check: CollectedCheck, *, to_the_end: bool = False
    ) -> Check:
        """Run a check's cases in the process that is there, or else in a new one.

        What is tried again need not go on after a case that fails; what stands must, since a
        misconception is recognised by all calls.
        """
        alone = self.caller is None
        caller = self.caller or self.renew()
        heard: list[bytes] = []
        if isinstance(caller, OverheardCaller):
            heard, alone = caller.replies, alone and not caller.used
        heard.clear()
        done = Check(len(check.cases), alone=alone)
        self.calls = done.calls
        for case in check.cases:
            done.note(self._run(collected, case))
            if not (done.alone or to_the_end or done.judgement.outcome == "passed"):
                break
        done.replies = heard.copy()
        if done.stopped:
            self.close_caller()
        return done

    def _run(self, collected: CollectedChecks, case: pytest.Item) -> Judgement | None:
        """Run one case, as far as it is not known what it makes of the replies."""
        if not isinstance(self.caller, ProcessCaller):
            return judge_exception(collected.run(case))
        name = (collected.version, case.nodeid, self.class_seed)
        known = follow(name, self.caller)
        if isinstance(known, Decided):
            self.calls += known.calls
            return known.judgement
        first_call = len(self.calls)
        judgement, replaying = self._replay(collected, case, known)
        if not replaying.is_repeatable():
            never_remember(name)
            del self.calls[first_call:]
            return self._replay(collected, case, [])[0]
        if not replaying.stopped:
            remember(name, replaying.made, Decided(judgement, tuple(self.calls[first_call:])))
        return judgement

    def _replay(
        self, collected: CollectedChecks, case: pytest.Item, known: Sequence[Exchange]
    ) -> tuple[Judgement | None, ReplayingCaller]:
        """Run one case, which first gets the replies that are known."""
        assert isinstance(self.caller, ProcessCaller)
        replaying = self.replaying = ReplayingCaller(self.caller, known)
        try:
            judgement = judge_exception(collected.run(case))
        finally:
            self.replaying = None
        if replaying.stopped:
            # a case that expects a failure could have taken this for it
            judgement = Judgement("stopped", replaying.stopped)
        return judgement, replaying


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


def seeded_generator(class_seed: str, case: str) -> torch.Generator:
    """Return a generator that depends on the class's secret and the case alone."""
    digest = hashlib.sha256(f"{class_seed}\0{case}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
