"""Fixtures for hidden checks that look at one side of a function at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from autograder.checking import CheckFailedError, Student, Tolerance
from autograder.checking.compare import compare_gradients, compare_values
from autograder.checking.student import expected_outcome


@pytest.fixture
def check_values(student: Student) -> Callable[..., None]:
    """Give a check of values and shape alone.

    A result in the wrong dtype or a changed input then costs the check about dtypes, not all.
    """

    def check(
        function: str, reference: Callable[..., Any], *arguments: Any, tolerance: Tolerance
    ) -> None:
        expected = expected_outcome(reference, arguments).value
        value = student.call(function, *arguments, tolerance=tolerance).value
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value = value.to(expected)
        compare_values(function, value, expected, tolerance)

    return check


@pytest.fixture
def check_gradients(student: Student) -> Callable[..., None]:
    """Give a check of gradients alone, with a random cotangent."""

    def check(
        function: str,
        reference: Callable[..., torch.Tensor],
        *arguments: Any,
        of: tuple[int, ...],
        tolerance: Tolerance,
    ) -> None:
        result = expected_outcome(reference, arguments).value
        cotangent = torch.randn(result.shape, generator=student.generator).to(result)
        expected = expected_outcome(reference, arguments, of, cotangent).gradients
        reply = student.call(
            function, *arguments, gradient_of=of, cotangent=cotangent, tolerance=tolerance
        )
        value = reply.value
        if isinstance(value, torch.Tensor) and value.shape != result.shape:
            raise CheckFailedError(
                f"`{function}` returned shape {tuple(value.shape)}; "
                f"expected {tuple(result.shape)}, so its gradient was not looked at."
            )
        compare_gradients(function, reply.gradients, expected, tolerance)

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many of the bank's wrong implementations lost points, and right ones none."""
    counts: dict[str, dict[str, list[bool]]] = {}
    for category in ("passed", "failed"):
        for report in terminalreporter.stats.get(category, []):
            for name, value in getattr(report, "user_properties", ()):
                if name == "bank" and report.when == "call":
                    function, kind, as_it_should = value
                    kinds = counts.setdefault(function, {})
                    kinds.setdefault(kind, []).append(as_it_should)
    if not counts:
        return
    terminalreporter.section("hidden checks against the bank")
    terminalreporter.write_line(
        f"{'function':<40}{'wrong, rejected':>18}{'wrong, named':>15}{'right, accepted':>18}"
    )
    for function, kinds in sorted(counts.items()):
        cells = [
            f"{sum(kinds.get(kind, []))} of {len(kinds.get(kind, []))}"
            for kind in ("rejected", "named", "accepted")
        ]
        terminalreporter.write_line(f"{function:<40}{cells[0]:>18}{cells[1]:>15}{cells[2]:>18}")
