"""What an assignment does not allow, and where a submission uses it.

`not_allowed.txt` beside the hidden checks lists dotted names, and `not_allowed_operators.txt` the
`aten` operators behind them. A static read reports each use in words; it costs no points, since a
student may well compare a result with the library's in a cell of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from nbformat import NotebookNode

from autograder.assignment import Assignment


@dataclass(frozen=True)
class NotAllowed:
    """The names and operators that an assignment does not allow."""

    names: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()

    @cached_property
    def words(self) -> frozenset[str]:
        """All that a refusal can name."""
        operators = (operator.strip("_").partition(".")[0] for operator in self.operators)
        return frozenset((*self.names, *operators))


NOTHING = NotAllowed()
NamingNode = ast.Import | ast.ImportFrom | ast.Attribute | ast.Name


def read_not_allowed(assignment: Assignment | None) -> NotAllowed:
    """Read the lists of an assignment; both may be missing."""
    if assignment is None:
        return NOTHING
    return NotAllowed(
        _lines(assignment.checks / "not_allowed.txt"),
        _lines(assignment.checks / "not_allowed_operators.txt"),
    )


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text().split()) if path.is_file() else ()


def uses(notebook: NotebookNode, names: Iterable[str]) -> list[str]:
    """Return a sentence for each cell that uses names that are not allowed."""
    reader = _Reader(frozenset(names))
    sentences = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and not cell.metadata.get("nbgrader", {}).get("locked"):
            found = sorted(set(reader.read(cell.source)))
            if found:
                listed = ", ".join(f"`{name}`" for name in found)
                sentences.append(
                    f"Cell {index + 1} uses {listed}, "
                    "which this exercise asks you to write by hand."
                )
    return sentences


@lru_cache(maxsize=100)
def _naming_nodes(source: str) -> tuple[NamingNode, ...]:
    """Return what a cell names things with; most cells are the same in many submissions."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, NamingNode))


class _Reader:
    """Follows imports from cell to cell and finds the names that code refers to."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.methods = {
            name.rpartition(".")[2]: name for name in names if name.startswith("torch.Tensor.")
        }
        self.aliases = {"torch": "torch"}

    def read(self, source: str) -> Iterator[str]:
        """Yield the names that a cell uses; a cell that is not Python has none."""
        for node in _naming_nodes(source):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from self._import(node)
            elif isinstance(node, ast.Attribute):
                yield from self._attribute(node)
            else:
                yield from self._named(self.aliases.get(node.id, ""))

    def _import(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
        for alias in node.names:
            name = prefix + alias.name
            if alias.asname or prefix:
                self.aliases[alias.asname or alias.name] = name
            yield from self._named(name)

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        name = self._dotted(node)
        if name:
            yield from self._named(name)
        elif node.attr in self.methods:
            yield self.methods[node.attr]

    def _dotted(self, node: ast.expr) -> str:
        """Return the dotted name that an expression spells, with aliases undone, or nothing."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, "")
        if isinstance(node, ast.Attribute):
            base = self._dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        return ""

    def _named(self, name: str) -> Iterator[str]:
        """Yield a name that is not allowed, if this is one or lies below one."""
        while name:
            if name in self.names:
                yield name
            name = name.rpartition(".")[0]
