"""The bank of misconceptions and equivalents that each exercise function has.

A bank file, `tests/hidden/<assignment>/bank/<function>.py`, holds plain functions. Each stands on
its own (its source is pasted into a notebook to make a test submission) and uses only the names
that the assignment's first cell imports.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from autograder.assignment import Assignment, BrokenCheckError

_read: dict[Path, tuple[tuple[tuple[Path, int, int], ...], Bank]] = {}


@dataclass(frozen=True)
class Misconception:
    """A known wrong way to write a function.

    `sentence` completes "Your results agree with ..."; `see` names the place in the book that
    explains it, as `page#anchor`.
    """

    function: str
    name: str
    sentence: str
    see: str
    implementation: Callable[..., Any]

    @property
    def source(self) -> str:
        """The student's code that holds this misconception."""
        return source_as(self.implementation, self.function)


@dataclass(frozen=True)
class Equivalent:
    """A correct way to write a function that looks different from the solution."""

    function: str
    name: str
    implementation: Callable[..., Any]

    @property
    def source(self) -> str:
        """The student's code, with the function's own name."""
        return source_as(self.implementation, self.function)


@dataclass(frozen=True)
class Bank:
    """All misconceptions and equivalents of an assignment."""

    misconceptions: tuple[Misconception, ...]
    equivalents: tuple[Equivalent, ...]

    def misconceptions_of(self, function: str) -> tuple[Misconception, ...]:
        """Return the misconceptions about one function."""
        return tuple(entry for entry in self.misconceptions if entry.function == function)

    def equivalents_of(self, function: str) -> tuple[Equivalent, ...]:
        """Return the equivalents of one function."""
        return tuple(entry for entry in self.equivalents if entry.function == function)


def misconception(sentence: str, *, see: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a function of a bank file as a misconception."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__dict__["bank_entry"] = ("misconception", sentence, see)
        return function

    return mark


def equivalent(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function of a bank file as a correct equivalent."""
    function.__dict__["bank_entry"] = ("equivalent", "", "")
    return function


def source_as(implementation: Callable[..., Any], name: str) -> str:
    """Return a bank function's source without its decorator, renamed to `name`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(implementation)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    definition.name = name
    return ast.unparse(definition) + "\n"


def load_bank(assignment: Assignment) -> Bank:
    """Return an assignment's bank, read again if one of its files was edited.

    Raises
    ------
    BrokenCheckError
        If a file of the bank cannot be imported.
    """
    files = sorted(assignment.bank.glob("*.py"))
    stamp = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    known = _read.get(assignment.bank)
    if known is None or known[0] != stamp:
        known = _read[assignment.bank] = stamp, read_bank(assignment)
    return known[1]


def read_bank(assignment: Assignment) -> Bank:
    """Return an assignment's bank, read anew.

    Raises
    ------
    BrokenCheckError
        If a file of the bank cannot be imported.
    """
    misconceptions: list[Misconception] = []
    equivalents: list[Equivalent] = []
    for path in sorted(assignment.bank.glob("*.py")):
        function = path.stem
        spec = spec_from_file_location(f"bank_{assignment.name}_{function}", path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise BrokenCheckError(f"{path}: {type(error).__name__}: {error}") from error
        for name, value in vars(module).items():
            entry = getattr(value, "bank_entry", None)
            if entry is None:
                continue
            kind, sentence, see = entry
            if kind == "misconception":
                misconceptions.append(Misconception(function, name, sentence, see, value))
            else:
                equivalents.append(Equivalent(function, name, value))
    return Bank(tuple(misconceptions), tuple(equivalents))
