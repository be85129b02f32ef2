"""Modules made from the signatures and docstrings of functions."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

# These belong to a batch, so the call brings them.
PER_CALL = ("mask", "denominator")


class Loss(torch.nn.Module):
    """A loss function with its options fixed."""

    function: Callable[..., Any]
    arrays: tuple[str, ...]
    """What a call takes by position."""
    named: tuple[str, ...]
    """What a call takes by keyword alone."""

    def __init__(self, *positional: Any, **options: Any) -> None:
        super().__init__()
        name, parameters = type(self).__name__, inspect.signature(type(self)).parameters
        takes = f"takes {', '.join(parameters)}" if parameters else "takes no options"
        if positional:
            raise TypeError(f"{name} {takes} by keyword, but got {positional[0]!r} by position")
        for option in options:
            if option not in parameters:
                raise TypeError(f"{name} {takes}, but not {option!r}")
        for option, parameter in parameters.items():
            if parameter.default is parameter.empty and option not in options:
                raise TypeError(f"{name} needs {option}")
        self.options = tuple(options)
        for option, value in options.items():
            if isinstance(value, np.ndarray):
                value = torch.from_numpy(value.copy())
            if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
                self.register_buffer(option, value)
            else:
                setattr(self, option, value)

    def forward(self, *arrays: Any, **named: Any) -> Any:
        """Compute the loss."""
        name = type(self).__name__
        if len(arrays) > len(self.arrays):
            takes = ", ".join(self.arrays)
            raise TypeError(f"{name} is called with {takes}, but got {len(arrays)} arrays")
        for key in named:
            if key not in self.arrays and key not in self.named:
                takes = ", ".join((*self.arrays, *self.named))
                raise TypeError(f"{name} is called with {takes}, but not {key!r}")
        given = dict(zip(self.arrays, arrays, strict=False))
        options = {option: getattr(self, option) for option in self.options}
        return self.function(**given, **named, **options)

    def extra_repr(self) -> str:
        """List the options that were given."""
        given = ((option, getattr(self, option)) for option in self.options)
        return ", ".join(
            f"{option}={tuple(value.shape) if isinstance(value, torch.Tensor) else value!r}"
            for option, value in given
        )


def module(
    name: str,
    function: Callable[..., Any],
    *,
    arrays: tuple[str, ...] = (),
    named: tuple[str, ...] = (),
    remark: str = "",
) -> type[Loss]:
    """Make the module of a function.

    The function's keyword arguments are the module's options, but for those that a call takes:
    `arrays` after the function's own by position, `named` beside mask and denominator.
    """
    parameters = inspect.signature(function).parameters.values()
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    by_position = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    by_keyword = [p.name for p in keywords if p.name in (*PER_CALL, *named)]
    options = [p for p in keywords if p.name not in (*arrays, *by_keyword)]
    cls = type(
        name,
        (Loss,),
        {
            "function": staticmethod(function),
            "arrays": (*by_position, *arrays),
            "named": tuple(by_keyword),
            "__signature__": inspect.Signature(options),
            "__module__": "lossref.nn",
        },
    )
    cls.__doc__ = _documentation(cls, function, [option.name for option in options], remark)
    return cls


def _documentation(
    cls: type[Loss], function: Callable[..., Any], options: list[str], remark: str
) -> str:
    """The function's docstring, with the module's options and calls."""
    text = inspect.getdoc(function) or ""
    intro, *rest = re.split(r"^(\w+)\n-+\n", text, flags=re.MULTILINE)
    sections = dict(zip(rest[::2], rest[1::2], strict=True))
    entries = re.findall(r"^\S.*\n(?:(?: +.*)?\n?)*", sections.get("Parameters", ""), re.MULTILINE)
    chosen = [entry for entry in entries if set(entry.split(" :")[0].split(", ")) & set(options)]
    takes = ", ".join(f"``{array}``" for array in cls.arrays)
    if cls.named:
        takes += " and by keyword " + ", ".join(f"``{key}``" for key in cls.named)
    call = f"A module to be called with {takes}; see :func:`lossref.{function.__name__}`. {remark}"
    parts = [intro.rstrip(), textwrap.fill(call.rstrip(), 92)]
    if chosen:
        parts.append("Parameters\n----------\n" + "".join(chosen).rstrip())
    if "References" in sections:
        parts.append("References\n----------\n" + sections["References"].rstrip())
    examples = _examples(sections.get("Examples", ""), cls.__name__, function.__name__, options)
    parts.append("Examples\n--------\n" + examples)
    return "\n\n".join(parts) + "\n"


def _examples(text: str, name: str, function: str, options: list[str]) -> str:
    """Examples of a function, with the module called in its place."""
    lines = []
    for example in doctest.DocTestParser().get_examples(text):
        tree = ast.parse(example.source)
        calls = _ModuleCalls(name, function, options)
        source = ast.unparse(calls.visit(tree)) if calls.inside(tree) else example.source.rstrip()
        first, *others = source.split("\n")
        lines += [f">>> {first}", *(f"... {line}" for line in others)]
        lines += example.want.rstrip("\n").split("\n") if example.want else []
    return "\n".join(lines)


class _ModuleCalls(ast.NodeTransformer):
    """Turns `lossref.loss(x, option=1)` into `lossref.nn.Loss(option=1)(x)`."""

    def __init__(self, name: str, function: str, options: list[str]) -> None:
        self.name, self.function, self.options = name, function, options

    def inside(self, tree: ast.AST) -> bool:
        """Whether there is such a call."""
        return any(isinstance(n, ast.Call) and self._is_call(n) for n in ast.walk(tree))

    def _is_call(self, node: ast.Call) -> bool:
        return ast.unparse(node.func) == f"lossref.{self.function}"

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Split a call of the function in two."""
        self.generic_visit(node)
        if not self._is_call(node):
            return node
        fixed = [keyword for keyword in node.keywords if keyword.arg in self.options]
        brought = [keyword for keyword in node.keywords if keyword not in fixed]
        made = ast.Call(ast.parse(f"lossref.nn.{self.name}", mode="eval").body, [], fixed)
        return ast.Call(made, node.args, brought)
