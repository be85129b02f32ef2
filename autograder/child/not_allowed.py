"""Makes library functions that an exercise asks for by hand unavailable in the student's process.

First the names are replaced, then the operators behind them, so that another way to the same
operator (a method, a compiled graph, `torch.ops`) finds the same refusal. This deters and reports;
an equivalent operator that nobody listed still works.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

DISPATCH_KEYS = (
    "CPU",
    "CUDA",
    "SparseCPU",
    "NestedTensorCPU",
    "CompositeExplicitAutograd",
    "CompositeImplicitAutograd",
)

used: list[str] = []
_libraries: list[Any] = []


class NotAllowedError(RuntimeError):
    """The exercise asks for this to be written by hand."""


def withdraw(names: Sequence[str], operators: Sequence[str]) -> None:
    """Replace what the dotted names and the `aten` operators stand for by a refusal."""
    for name in names:
        _replace(name)
    if not operators:
        return
    library = torch.library.Library("aten", "IMPL")
    _libraries.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for operator in operators:
            _override(library, operator)


def refusal(name: str) -> Callable[..., NoReturn]:
    """Return a function that refuses to stand in for `name`."""

    def refuse(*_: object, **__: object) -> NoReturn:
        used.append(name)
        raise NotAllowedError(f"{name} is not allowed here: the exercise asks you to write it")

    return refuse


def _replace(name: str) -> None:
    holder, attribute = _holder_of(name)
    if hasattr(holder, attribute):
        setattr(holder, attribute, _Refusal(name))


def _holder_of(name: str) -> tuple[Any, str]:
    """Return the module or class that holds a dotted name, and the last part of the name."""
    path, _, attribute = name.rpartition(".")
    parts = path.split(".")
    holder: Any = importlib.import_module(parts[0])
    for part in parts[1:]:
        holder = getattr(holder, part)
    return holder, attribute


class _Refusal:
    """Stands for a withdrawn function, class or module."""

    def __init__(self, name: str) -> None:
        self._refuse = refusal(name)

    def __call__(self, *_: object, **__: object) -> NoReturn:
        self._refuse()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def __get__(self, instance: Any, owner: Any = None) -> Callable[..., NoReturn]:
        return self._refuse


def _override(library: Any, operator: str) -> None:
    """Refuse in every kernel that an operator has."""
    name = operator.strip("_").partition(".")[0]
    for key in DISPATCH_KEYS:
        # an operator of another torch release is not there, and so cannot be used either
        with contextlib.suppress(RuntimeError):
            if torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{operator}", key):
                library.impl(operator, refusal(name), key, allow_override=True)
