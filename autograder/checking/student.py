"""The student's functions, as a hidden check sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import FunctionType
from typing import Any, Protocol

import torch

from autograder.checking.cache import ResultCache
from autograder.checking.compare import Tolerance, compare_gradients, compare_inputs, compare_values
from autograder.checking.failure import (
    CheckFailedError,
    StudentStoppedError,
    exception_failure,
)
from autograder.child import protocol
from autograder.child.calls import Outcome, call_function, copy_argument, exception_name

__all__ = [
    "Caller",
    "CheckFailedError",
    "DirectCaller",
    "RecordedCall",
    "Reply",
    "Student",
    "StudentStoppedError",
    "Tolerance",
]


RECOGNITION = Tolerance(1e-4, 1e-6)
_expected = ResultCache()


@dataclass(frozen=True)
class Reply:
    """What a call of a student's function gave.

    `gradients` holds, for each argument that asked for one, d sum(cotangent * value) / d argument,
    or None where the function does not depend on it; `inputs` are the arguments after the call;
    `double_gradients` are d sum(direction * gradient) / d argument, summed over the gradients.
    """

    value: Any
    gradients: tuple[torch.Tensor | None, ...] = ()
    inputs: tuple[Any, ...] = ()
    double_gradients: tuple[torch.Tensor | None, ...] = ()


class Caller(Protocol):
    """Calls one function of a submission and returns the reply."""

    def __call__(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        gradient_of: Sequence[int] = (),
        cotangent: torch.Tensor | None = None,
        directions: Sequence[torch.Tensor] = (),
    ) -> Reply:
        """Call `function`; raise `CheckFailedError` with words for the student if that fails."""
        ...


class ProcessCaller(ABC):
    """Calls the functions in a student's process, in two steps."""

    @abstractmethod
    def exchange(self, function: str, request: bytes) -> bytes:
        """Send a request; return the reply, which nobody has read yet.

        Raises
        ------
        StudentStoppedError
            If no reply comes; so does every request that follows.
        """

    @abstractmethod
    def understand(self, function: str, reply: bytes) -> Reply:
        """Read a reply; raise `CheckFailedError` with words for the student if the call failed."""

    def __call__(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        gradient_of: Sequence[int] = (),
        cotangent: torch.Tensor | None = None,
        directions: Sequence[torch.Tensor] = (),
    ) -> Reply:
        """Call a function; raise `CheckFailedError` with words for the student if that fails."""
        request = [function, list(arguments), list(gradient_of), cotangent, list(directions)]
        return self.understand(function, self.exchange(function, protocol.encode(request)))


@dataclass(frozen=True)
class DirectCaller:
    """Calls trusted functions of this process: solutions, misconceptions and equivalents."""

    functions: dict[str, Callable[..., Any]]

    def __call__(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        gradient_of: Sequence[int] = (),
        cotangent: torch.Tensor | None = None,
        directions: Sequence[torch.Tensor] = (),
    ) -> Reply:
        """Call a function as the student's process would."""
        if function not in self.functions:
            raise CheckFailedError(f"The notebook does not define `{function}`.")
        try:
            done = call_function(
                self.functions[function], arguments, gradient_of, cotangent, directions
            )
        except (Exception, SystemExit) as error:
            name = exception_name(error)
            raise exception_failure(function, name, 0) from error
        return Reply(
            done.value,
            tuple(done.gradients),
            tuple(done.arguments),
            tuple(done.double_gradients),
        )


@dataclass(frozen=True)
class RecordedCall:
    """A call that a check made, kept so that misconceptions can be recognised.

    `reply` is None where the student's function raised the exception named `raised`.
    """

    function: str
    arguments: tuple[Any, ...]
    gradient_of: tuple[int, ...]
    cotangent: torch.Tensor | None
    tolerance: Tolerance
    reply: Reply | None
    raised: str
    directions: tuple[torch.Tensor, ...] = ()
    agreements: dict[Hashable, bool] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def request(self) -> bytes:
        """What was asked, as bytes: equal for every submission that was asked the same."""
        gradient_of, directions = list(self.gradient_of), list(self.directions)
        return protocol.encode(
            [self.function, list(self.arguments), gradient_of, self.cotangent, directions]
        )


@dataclass
class Student:
    """Calls a submission's functions and compares what they give with a reference."""

    caller: Caller
    generator: torch.Generator
    calls: list[RecordedCall] = field(default_factory=list)

    def call(
        self,
        function: str,
        *arguments: Any,
        gradient_of: Sequence[int] = (),
        cotangent: torch.Tensor | None = None,
        directions: Sequence[torch.Tensor] = (),
        tolerance: Tolerance = RECOGNITION,
    ) -> Reply:
        """Call a student's function; `tolerance` is for recognising misconceptions only."""
        reply: Reply | None = None
        raised = ""
        try:
            reply = self.caller(
                function,
                arguments,
                gradient_of=gradient_of,
                cotangent=cotangent,
                directions=directions,
            )
        except StudentStoppedError:
            raise
        except CheckFailedError as error:
            raised = error.raised
            raise
        finally:
            if reply is not None or raised:
                self.calls.append(
                    RecordedCall(
                        function,
                        # a check may go on to change its inputs in place
                        tuple(map(copy_argument, arguments)),
                        tuple(gradient_of),
                        cotangent,
                        tolerance,
                        reply,
                        raised,
                        tuple(directions),
                    )
                )
        return reply

    def check(
        self,
        function: str,
        reference: Callable[..., Any],
        *arguments: Any,
        tolerance: Tolerance,
        gradient_of: Sequence[int] = (),
        gradient_tolerance: Tolerance | None = None,
        double: bool = False,
    ) -> None:
        """Check value, shape, dtype, device, untouched inputs and gradients against `reference`.

        With `double` the gradients' own gradients are checked too, along random directions.
        """
        expected = expected_outcome(reference, arguments).value
        reply = self.call(function, *arguments, tolerance=tolerance)
        compare_values(function, reply.value, expected, tolerance)
        compare_inputs(function, reply.inputs, arguments)
        if not gradient_of:
            return
        cotangent = self._like(expected)
        directions = [self._like(arguments[index]) for index in gradient_of] if double else []
        done = expected_outcome(reference, arguments, gradient_of, cotangent, directions)
        tolerance = gradient_tolerance or tolerance
        reply = self.call(
            function,
            *arguments,
            gradient_of=gradient_of,
            cotangent=cotangent,
            directions=directions,
            tolerance=tolerance,
        )
        compare_gradients(function, reply.gradients, done.gradients, tolerance)
        compare_gradients(
            function, reply.double_gradients, done.double_gradients, tolerance, "double gradient"
        )

    def _like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return random numbers in the form of `tensor`."""
        drawn = torch.randn(tensor.shape, generator=self.generator, dtype=torch.float64)
        return drawn.to(tensor)

    def check_raises(self, function: str, exception: str, *arguments: Any) -> None:
        """Check that a call raises the named built-in exception."""
        try:
            self.call(function, *arguments)
        except StudentStoppedError:
            raise
        except CheckFailedError as error:
            if error.raised == exception:
                return
            if not error.raised:
                raise
            raise CheckFailedError(
                f"`{function}` raised {error.raised}; it should raise {exception} here.",
                raised=error.raised,
            ) from error
        raise CheckFailedError(f"`{function}` returned; it should raise {exception} here.")


def expected_outcome(
    reference: Callable[..., Any],
    arguments: Sequence[Any],
    gradient_of: Sequence[int] = (),
    cotangent: torch.Tensor | None = None,
    directions: Sequence[torch.Tensor] = (),
) -> Outcome:
    """Call a reference as `call_function` does, once for all submissions that are asked the same.

    The reference must depend on its arguments alone. What is returned must not be changed.
    """

    def compute() -> Outcome:
        done = call_function(reference, arguments, gradient_of, cotangent, directions)
        # without the graph, which would keep its tensors alive
        return Outcome(
            _detached(done.value), _detached(done.gradients), [], _detached(done.double_gradients)
        )

    asked = [list(arguments), list(gradient_of), cotangent, list(directions)]
    if not _can_be_named(asked):
        return compute()
    outcome: Outcome = _expected.get((_identity(reference), protocol.encode(asked)), compute)
    return outcome


def _identity(reference: Callable[..., Any]) -> Hashable:
    """Return what stays the same when a check defines the same function anew."""
    if (
        isinstance(reference, FunctionType)
        and not reference.__closure__
        and not reference.__defaults__
        and not reference.__kwdefaults__
    ):
        # equal code says something else beside other constants, such as those of an edited file
        return reference.__code__, ById(reference.__globals__)
    # kept by the cache, so that no other object can take its place
    return ById(reference)


@dataclass(frozen=True)
class ById:
    """An object that equals itself alone, whatever its class says."""

    held: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


def _can_be_named(value: Any) -> bool:
    """Tell whether a value's bytes say everything about it."""
    if isinstance(value, list | tuple):
        return all(_can_be_named(item) for item in value)
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor and value.dtype in protocol.TENSOR_DTYPES
    return value is None or isinstance(value, bool | int | float | str)


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, list | tuple):
        return type(value)(_detached(item) for item in value)
    return value
