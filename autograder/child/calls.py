"""Calls one function and gathers what a check wants to know of the call."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import torch


def call_function(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    gradient_of: Sequence[int],
    cotangent: torch.Tensor | None,
) -> tuple[Any, list[torch.Tensor | None], list[Any]]:
    """Return the value, the gradients asked for, and the arguments as the call left them."""
    own = [copy_argument(argument) for argument in arguments]
    for index in gradient_of:
        own[index].requires_grad_(True)
    value = function(*own)
    gradients: list[torch.Tensor | None] = []
    if gradient_of:
        gradients = _gradients(value, [own[index] for index in gradient_of], cotangent)
    return value, gradients, own


def copy_argument(argument: Any) -> Any:
    """Return a copy whose changes do not reach the original."""
    if isinstance(argument, torch.Tensor):
        return argument.detach().clone()
    if isinstance(argument, list | tuple):
        return type(argument)(copy_argument(item) for item in argument)
    return argument


def _gradients(
    value: Any, leaves: list[torch.Tensor], cotangent: torch.Tensor | None
) -> list[torch.Tensor | None]:
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return [None] * len(leaves)
    if cotangent is None:
        cotangent = torch.ones_like(value)
    if cotangent.shape != value.shape:
        return [None] * len(leaves)
    return list(torch.autograd.grad(value, leaves, cotangent.to(value.dtype), allow_unused=True))


def exception_name(error: BaseException) -> str:
    """Return the name of the nearest built-in class, so that a made-up class name says nothing."""
    for kind in type(error).__mro__:
        if getattr(builtins, kind.__name__, None) is kind:
            return str(kind.__name__)
    return "Exception"


def error_line(error: BaseException, function: Callable[..., Any]) -> int:
    """Return the line inside `function` (its first line is 1) where the error arose, or 0."""
    code = getattr(function, "__code__", None)
    trace = error.__traceback__
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code is code:
            line = trace.tb_lineno - trace.tb_frame.f_code.co_firstlineno + 1
        trace = trace.tb_next
    return line
