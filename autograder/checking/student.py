"""The student's functions, as a hidden check sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


class CheckFailedError(AssertionError):
    """A check does not hold; the message is what the student reads."""


class StudentStoppedError(CheckFailedError):
    """The student's process hung, died or broke the protocol during a call."""


@dataclass(frozen=True)
class Tolerance:
    """The largest accepted difference: `atol + rtol * |expected|`."""

    rtol: float
    atol: float = 0.0


@dataclass(frozen=True)
class Reply:
    """What a call of a student's function gave.

    `gradients` holds, for each argument that asked for one, d sum(cotangent * value) / d argument,
    or None where the function does not depend on it; `inputs` are the arguments after the call.
    """

    value: Any
    gradients: tuple[torch.Tensor | None, ...] = ()
    inputs: tuple[Any, ...] = ()


class Caller(Protocol):
    """Calls one function of a submission and returns the reply."""

    def __call__(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        gradient_of: Sequence[int] = (),
        cotangent: torch.Tensor | None = None,
    ) -> Reply:
        """Call `function`; raise `CheckFailedError` with words for the student if that fails."""
        ...


@dataclass(frozen=True)
class RecordedCall:
    """A call that a check made, kept so that misconceptions can be recognised."""

    function: str
    arguments: tuple[Any, ...]
    reference: Callable[..., Any] | None
    value: Any
    tolerance: Tolerance


@dataclass
class Student:
    """Calls a submission's functions and compares what they give with a reference."""

    caller: Caller
    calls: list[RecordedCall] = field(default_factory=list)
