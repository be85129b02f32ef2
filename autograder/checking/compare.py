"""Compares what a student's function gave with what was expected, in words for the student.

The words never hold a hidden input or an expected value.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autograder.checking.failure import CheckFailedError
from autograder.child.protocol import Unsupported

KNOWN_TYPES = {name for name, value in vars(builtins).items() if isinstance(value, type)} | {
    *("Parameter", "Size", "Tensor", "bool_", "builtin_function_or_method", "device", "dtype"),
    *("function", "generator", "module", "ndarray", "partial"),
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"),
}
MAX_SHOWN_DIMENSIONS = 4
MAX_SHOWN_SIZE = 1000


@dataclass(frozen=True)
class Tolerance:
    """The largest accepted difference: `atol + rtol * |expected|`."""

    rtol: float
    atol: float = 0.0

    def accepts(self, value: torch.Tensor, expected: torch.Tensor) -> bool:
        """Tell whether every entry is close enough; NaN and inf must stand in the same places."""
        return bool(
            torch.isclose(
                value.double(), expected.double(), rtol=self.rtol, atol=self.atol, equal_nan=True
            ).all()
        )


def compare_values(function: str, value: Any, expected: Any, tolerance: Tolerance) -> None:
    """Raise `CheckFailedError` unless type, shape, dtype, device and entries agree."""
    if isinstance(expected, torch.Tensor):
        _compare_tensors(f"`{function}` returned", value, expected, tolerance)
    elif isinstance(expected, list | tuple):
        _compare_sequences(function, value, expected, tolerance)
    elif isinstance(expected, bool | str) or expected is None:
        if type(value) is not type(expected) or value != expected:
            raise CheckFailedError(f"`{function}` returned a wrong {type(expected).__name__}.")
    else:
        _compare_numbers(function, value, expected, tolerance)


def _compare_sequences(
    function: str, value: Any, expected: Sequence[Any], tolerance: Tolerance
) -> None:
    if not isinstance(value, list | tuple) or len(value) != len(expected):
        raise CheckFailedError(
            f"`{function}` returned {_kind(value)}; expected {len(expected)} values."
        )
    for mine, theirs in zip(value, expected, strict=True):
        compare_values(function, mine, theirs, tolerance)


def _compare_numbers(function: str, value: Any, expected: Any, tolerance: Tolerance) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckFailedError(f"`{function}` returned {_kind(value)}; expected a number.")
    if not tolerance.accepts(_as_tensor(value), _as_tensor(expected)):
        raise CheckFailedError(f"`{function}` returned a wrong number.")


def _as_tensor(number: float) -> torch.Tensor:
    # torch's default would round to float32, where 1e300 and 1e200 are both infinite
    return torch.tensor(float(number), dtype=torch.float64)


def _compare_tensors(what: str, value: Any, expected: torch.Tensor, tolerance: Tolerance) -> None:
    if not isinstance(value, torch.Tensor):
        raise CheckFailedError(f"{what} {_kind(value)}; expected a torch tensor.")
    if value.shape != expected.shape:
        raise CheckFailedError(f"{what} {_shape(value)}; expected {tuple(expected.shape)}.")
    if value.dtype != expected.dtype:
        raise CheckFailedError(f"{what} {value.dtype}; expected {expected.dtype}.")
    if value.device != expected.device:
        raise CheckFailedError(f"{what} a tensor on {value.device}; expected {expected.device}.")
    if torch.equal(value, expected):
        return
    for name, test in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        if bool((test(value) & ~test(expected)).any()):
            raise CheckFailedError(f"{what} {name} where another value belongs.")
    if not tolerance.accepts(value, expected):
        raise CheckFailedError(f"{what} wrong values{_size_of_error(value, expected)}.")


def _size_of_error(value: torch.Tensor, expected: torch.Tensor) -> str:
    """Say how far off the values are, in words too round to measure with."""
    difference = (value.double() - expected.double()).abs()
    scale = expected.double().abs().clamp_min(torch.finfo(torch.float64).tiny)
    finite = difference.isfinite() & expected.isfinite()
    if not bool(finite.any()):
        return ""
    worst = float((difference / scale)[finite].max())
    if worst < 1e-2:
        return ": close, but not to the accuracy that this dtype can give"
    return ": they are off by more than 1 %"


def compare_inputs(function: str, after: Sequence[Any], before: Sequence[Any]) -> None:
    """Raise `CheckFailedError` if the call changed one of its arguments in place."""
    if len(after) != len(before):
        raise CheckFailedError(f"What `{function}` did to its arguments could not be read.")
    for index, (mine, theirs) in enumerate(zip(after, before, strict=True)):
        if isinstance(theirs, torch.Tensor) and not _same_tensor(mine, theirs):
            raise CheckFailedError(
                f"`{function}` changed argument {index + 1} in place; leave the inputs as they are."
            )


def _same_tensor(value: Any, expected: torch.Tensor) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.shape == expected.shape
        and value.dtype == expected.dtype
        and (
            torch.equal(value, expected)
            or (
                torch.equal(torch.nan_to_num(value), torch.nan_to_num(expected))
                and torch.equal(torch.isnan(value), torch.isnan(expected))
            )
        )
    )


def compare_gradients(
    function: str,
    gradients: Sequence[torch.Tensor | None],
    expected: Sequence[torch.Tensor | None],
    tolerance: Tolerance,
    kind: str = "gradient",
) -> None:
    """Raise `CheckFailedError` unless the gradients, or double gradients, agree."""
    if len(gradients) != len(expected):
        raise CheckFailedError(f"The {kind}s of `{function}` could not be computed.")
    for mine, theirs in zip(gradients, expected, strict=True):
        if theirs is None:
            continue
        if mine is None:
            raise CheckFailedError(
                f"No {kind} flows through `{function}`: its result does not depend on the input "
                "in a way that autograd can follow."
            )
        _compare_tensors(f"The {kind} of `{function}` has", mine, theirs, tolerance)


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    return known_kind(value.type_name if isinstance(value, Unsupported) else type(value).__name__)


def known_kind(name: str) -> str:
    """Return a well-known type's name with its article; any other could hold a hidden input."""
    return f"a {name}" if name in KNOWN_TYPES else "something else"


def _shape(tensor: torch.Tensor) -> str:
    """Return a shape in words; one that is out of all proportion could hold a hidden input."""
    shape = tuple(tensor.shape)
    if len(shape) > MAX_SHOWN_DIMENSIONS or max(shape, default=0) > MAX_SHOWN_SIZE:
        return "another shape"
    return f"shape {shape}"
