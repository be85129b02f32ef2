"""How a check says that it does not hold."""

from __future__ import annotations

import builtins

EXCEPTIONS = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
# a line number says something about the input; no more than this much
MAX_LINE = 500


def known_exception(name: str) -> str:
    """Return the name of a built-in exception; any other name could hold a hidden input."""
    return name if name in EXCEPTIONS else "an exception"


class CheckFailedError(AssertionError):
    """A check does not hold; the message is what the student reads.

    `raised` is the name of the exception that the student's function raised, if it did.
    """

    def __init__(self, message: str, *, raised: str = "") -> None:
        super().__init__(message)
        self.raised = raised


class StudentStoppedError(CheckFailedError):
    """The student's process hung, died or broke the protocol during a call."""


def exception_failure(function: str, name: str, line: int) -> CheckFailedError:
    """Return the failure that says which exception a student's function raised, and where.

    The exception's own text is left out, since it could hold a hidden input.
    """
    if name == "NotImplementedError":
        return CheckFailedError(f"`{function}` is not written yet.", raised=name)
    where = f" at line {line} of `{function}`" if 0 < line <= MAX_LINE else ""
    return CheckFailedError(f"`{function}` raised {name}{where}.", raised=name)
