"""What the cases of checks made of replies, kept so that equal replies are judged once.

A case depends on the class seed and on what the student's functions reply, and on nothing else. So
what it asks first is the same for every submission, and so is what it asks next, or decides, after
the same replies. The student's process is asked all the same; only the check need not run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from autograder.checking.cache import ResultCache
from autograder.checking.failure import StudentStoppedError
from autograder.checking.student import ProcessCaller, RecordedCall, Reply
from autograder.verdict import Judgement

_known = ResultCache()
_unrepeatable: set[Hashable] = set()


class UnrepeatableCaseError(RuntimeError):
    """A case asks something else than it asked before, after the same replies."""


@dataclass(frozen=True)
class Exchange:
    """A request, as bytes, and the reply to it."""

    function: str
    request: bytes
    reply: bytes


@dataclass(frozen=True)
class Asked:
    """What a case asks next."""

    function: str
    request: bytes


@dataclass(frozen=True)
class Decided:
    """What a case came to, and the calls that it made."""

    judgement: Judgement | None
    calls: tuple[RecordedCall, ...]


@dataclass
class ReplayingCaller(ProcessCaller):
    """Gives a case the replies that are there already, then asks the student's process.

    `stopped` says why no reply came, and `differed` that something else was asked than before,
    whatever the case made of that.
    """

    caller: ProcessCaller
    given: Sequence[Exchange]
    made: list[Exchange] = field(default_factory=list)
    stopped: str = ""
    differed: bool = False

    def exchange(self, function: str, request: bytes) -> bytes:
        """Return the reply to a request, asked for before or now."""
        if len(self.made) < len(self.given):
            exchange = self.given[len(self.made)]
            if exchange.request != request:
                self.differed = True
                raise UnrepeatableCaseError
        else:
            exchange = Exchange(function, request, self._asked(function, request))
        self.made.append(exchange)
        return exchange.reply

    def _asked(self, function: str, request: bytes) -> bytes:
        try:
            return self.caller.exchange(function, request)
        except StudentStoppedError as error:
            self.stopped = str(error)
            raise

    def understand(self, function: str, reply: bytes) -> Reply:
        """Read a reply as the student's process would have it read."""
        return self.caller.understand(function, reply)

    def is_repeatable(self) -> bool:
        """Tell whether the case made all the calls that it had made before."""
        return not self.differed and len(self.made) >= len(self.given)


def follow(case: Hashable, caller: ProcessCaller) -> Decided | list[Exchange]:
    """Ask what a case asks for as long as that is known; return what it decides, or the replies.

    Where the student's process stops the case has to meet that itself, after the calls before it.
    """
    exchanges: list[Exchange] = []
    if case in _unrepeatable:
        return exchanges
    state = b""
    known = _known.find((case, state))
    while isinstance(known, Asked):
        try:
            reply = caller.exchange(known.function, known.request)
        except StudentStoppedError:
            return exchanges
        exchanges.append(Exchange(known.function, known.request, reply))
        state = _after(state, reply)
        known = _known.find((case, state))
    return known if isinstance(known, Decided) else exchanges


def remember(case: Hashable, exchanges: Sequence[Exchange], decided: Decided) -> None:
    """Keep what a case asked and decided."""
    state = b""
    for exchange in exchanges:
        _known.keep((case, state), Asked(exchange.function, exchange.request))
        state = _after(state, exchange.reply)
    _known.keep((case, state), decided)


def never_remember(case: Hashable) -> None:
    """Run a case anew for every submission."""
    _unrepeatable.add(case)


def _after(state: bytes, reply: bytes) -> bytes:
    return hashlib.blake2b(state + hashlib.blake2b(reply).digest()).digest()
