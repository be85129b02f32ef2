"""Calls one function, gathers what a check wants to know of the call, and words the reply."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import not_allowed

Gradients = list[torch.Tensor | None]


@dataclass(frozen=True)
class Outcome:
    """What a call gave: its value, gradients, the arguments as it left them, double gradients."""

    value: Any
    gradients: Gradients
    arguments: list[Any]
    double_gradients: Gradients


def answer(request: list[Any], namespace: dict[str, Any]) -> list[Any]:
    """Call the function that a request names; return the reply."""
    name, *call = request
    function = namespace.get(name)
    if function is None:
        return ["undefined"]
    if not callable(function):
        return ["not callable", type(function).__name__]
    not_allowed.used.clear()
    try:
        done = call_function(function, *call)
        return ["returned", done.value, done.gradients, done.arguments, done.double_gradients]
    except BaseException as error:
        if not_allowed.used:
            return ["not allowed", not_allowed.used[0]]
        return ["raised", exception_name(error), error_line(error, function)]


def call_function(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    gradient_of: Sequence[int] = (),
    cotangent: torch.Tensor | None = None,
    directions: Sequence[torch.Tensor] = (),
) -> Outcome:
    """Call a function with copies of the arguments.

    The gradients are those of sum(cotangent * value) by the arguments `gradient_of`; the double
    gradients those of the sum of direction * gradient over all of them.
    """
    own = [copy_argument(argument) for argument in arguments]
    leaves = [own[index].requires_grad_(True) for index in gradient_of]
    value = function(*own)
    gradients: Gradients = []
    double_gradients: Gradients = []
    if leaves:
        gradients = _gradients(value, leaves, cotangent, keep_graph=bool(directions))
    if directions:
        double_gradients = _double_gradients(gradients, leaves, directions)
    return Outcome(value, gradients, own, double_gradients)


def copy_argument(argument: Any) -> Any:
    """Return a copy whose changes do not reach the original."""
    if isinstance(argument, torch.Tensor):
        return argument.detach().clone()
    if isinstance(argument, list | tuple):
        return type(argument)(copy_argument(item) for item in argument)
    return argument


def _gradients(
    value: Any, leaves: list[torch.Tensor], cotangent: torch.Tensor | None, *, keep_graph: bool
) -> Gradients:
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return [None] * len(leaves)
    if cotangent is not None and cotangent.shape != value.shape:
        return [None] * len(leaves)
    # a sum has the same gradient as `grad_outputs`, which would have torch import sympy
    total = value.sum() if cotangent is None else (value * cotangent.to(value.dtype)).sum()
    return list(torch.autograd.grad(total, leaves, allow_unused=True, create_graph=keep_graph))


def _double_gradients(
    gradients: Gradients, leaves: list[torch.Tensor], directions: Sequence[torch.Tensor]
) -> Gradients:
    total = sum(
        (gradient * direction).sum()
        for gradient, direction in zip(gradients, directions, strict=True)
        if gradient is not None and gradient.requires_grad
    )
    if not isinstance(total, torch.Tensor):
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))


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
