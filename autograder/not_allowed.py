"""What an assignment does not allow, and where a submission uses it.

`not_allowed.txt` beside the hidden checks lists dotted names, and `not_allowed_operators.txt` the
`aten` operators behind them. A static read reports each use in words; it costs no points, since a
student may well compare a result with the library's in a cell of their own.
"""

from __future__ import annotations

import ast
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

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
# other homes of the same functions, and what starts an interpreter that has them all
WAYS_ROUND = frozenset(
    (
        *("torch._decomp", "torch._inductor", "torch._prims", "torch._refs"),
        *("multiprocessing", "pty", "subprocess", "sys.executable"),
        *("os.fork", "os.forkpty", "os.popen", "os.posix_spawn", "os.posix_spawnp", "os.system"),
        *(f"os.{how}{rest}" for how in ("exec", "spawn") for rest in ("l", "le", "lp", "lpe")),
        *(f"os.{how}{rest}" for how in ("exec", "spawn") for rest in ("v", "ve", "vp", "vpe")),
    )
)
# parsing takes up to 600 bytes and 7 µs for each character of a notebook
MAX_SEARCHED_CHARACTERS = 100_000
# Python's parser makes a string of each beginning of an imported name
MAX_NAME_PARTS = 1_000
NAME_PART = r"""[^\s\\.,:;()\[\]{}=+\-*/%&|^~<>!@#'"]++"""
# a single part matches, too: nothing is read twice
DOTTED_NAME = re.compile(rf"{NAME_PART}(?:[\s\\]*+\.[\s\\]*+{NAME_PART})*+")
MAX_REMEMBERED_CHARACTERS = 20_000
REMEMBERED_CELLS = 100
METHODS = "torch.Tensor."
BY_HAND = "this exercise asks you to write by hand"
GETS_ROUND = "can get round what this exercise asks you to write by hand"


class Import(NamedTuple):
    """A name that an import binds, or none, and the first parts of what it stands for."""

    bound: str
    parts: tuple[str, ...]


class Use(NamedTuple):
    """A name, or none for another expression, the first attributes read from it, and methods."""

    name: str
    attributes: tuple[str, ...]
    methods: tuple[str, ...]


# the attributes read from an expression, the nearest first; nothing is copied to lengthen it
Chain = tuple[str, "Chain"] | None


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
    """Return a sentence for each cell that uses names that are not allowed, or may get round it."""
    listed = frozenset(names)
    if not listed:
        return []
    reader = _Reader(listed | WAYS_ROUND)
    sentences, left_out, room = [], [], MAX_SEARCHED_CHARACTERS
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code" or cell.metadata.get("nbgrader", {}).get("locked"):
            continue
        if len(cell.source) > room or not _has_modest_names(cell.source):
            left_out.append(number)
            continue
        room -= len(cell.source)
        found = set(reader.read(cell.source))
        for kind, words in ((listed, BY_HAND), (WAYS_ROUND - listed, GETS_ROUND)):
            if used := ", ".join(f"`{name}`" for name in sorted(found & kind)):
                sentences.append(f"Cell {number} uses {used}, which {words}.")
    return [*sentences, *_not_searched(left_out)]


def _not_searched(numbers: list[int]) -> list[str]:
    """Return a sentence about the cells that were not searched, if there are any."""
    if not numbers:
        return []
    others = len(numbers) - 1
    more = f" and {others} more cell{'' if others == 1 else 's'}" if others else ""
    which = f"Cell {numbers[0]}{more} {'are' if others else 'is'}"
    return [f"{which} too long to be searched for names that are not allowed."]


def _has_modest_names(source: str) -> bool:
    """Tell whether no dotted name in a cell has more parts than a parser could take quickly."""
    if source.count(".") < MAX_NAME_PARTS:
        return True
    dotted = DOTTED_NAME.finditer(source)
    return all(found.group().count(".") < MAX_NAME_PARTS for found in dotted)


def _mentions(source: str, names: frozenset[str]) -> tuple[Import | Use, ...]:
    """Return what a cell names things with; one that is not Python does not."""
    if len(source) > MAX_REMEMBERED_CHARACTERS:
        return _parsed_mentions(source, names)
    return _remembered_mentions(source, names)


def _parsed_mentions(source: str, names: frozenset[str]) -> tuple[Import | Use, ...]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(_once(_walked(tree, names)))


# most cells are the same in many submissions
_remembered_mentions = lru_cache(maxsize=REMEMBERED_CELLS)(_parsed_mentions)


def _walked(tree: ast.AST, names: frozenset[str]) -> Iterator[Import | Use]:
    """Walk as `ast.walk` does, and take the attributes read from an expression as one."""
    depth, methods = _longest(names), _methods(names)
    pending: deque[tuple[ast.AST, Chain]] = deque([(tree, None)])
    while pending:
        node, chain = pending.popleft()
        if isinstance(node, ast.Attribute):
            pending.append((node.value, (node.attr, chain)))
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node, depth)
        elif isinstance(node, ast.Name) or chain:
            attributes = tuple(_links(chain))
            called = tuple(dict.fromkeys(name for name in attributes if name in methods))
            name = node.id if isinstance(node, ast.Name) else ""
            if name or called:
                yield Use(name, attributes[:depth], called)
        pending.extend((child, None) for child in ast.iter_child_nodes(node))


def _imports(node: ast.Import | ast.ImportFrom, depth: int) -> Iterator[Import]:
    module = _parts(node.module, depth) if isinstance(node, ast.ImportFrom) and node.module else ()
    for alias in node.names:
        bound = alias.asname or (alias.name if module else "")
        yield Import(bound, (*module, *_parts(alias.name, depth))[:depth])
        if not bound:
            (package,) = _parts(alias.name, 1)
            yield Import(package, (package,))


def _parts(name: str, depth: int) -> tuple[str, ...]:
    return tuple(name.split(".", depth)[:depth])


def _links(chain: Chain) -> Iterator[str]:
    while chain:
        name, chain = chain
        yield name


def _once(mentions: Iterator[Import | Use]) -> Iterator[Import | Use]:
    """Leave out a use that is repeated before another import gives it another meaning."""
    seen: set[Use] = set()
    for mention in mentions:
        if isinstance(mention, Import):
            seen.clear()
        elif mention in seen:
            continue
        else:
            seen.add(mention)
        yield mention


def _longest(names: frozenset[str]) -> int:
    return max(name.count(".") + 1 for name in names)


def _methods(names: frozenset[str]) -> dict[str, str]:
    return {name.rpartition(".")[2]: name for name in names if name.startswith(METHODS)}


class _Reader:
    """Follows imports from cell to cell and finds the names that code refers to."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.listed = {tuple(name.split(".")): name for name in names}
        self.methods = _methods(names)
        self.aliases: dict[str, tuple[str, ...]] = {"torch": ("torch",)}

    def read(self, source: str) -> Iterator[str]:
        """Yield the names that a cell uses; a cell that is not Python has none."""
        for mention in _mentions(source, self.names):
            if isinstance(mention, Import):
                yield from self._named(mention.parts)
                if mention.bound:
                    self.aliases[mention.bound] = mention.parts
            elif mention.name in self.aliases:
                yield from self._named((*self.aliases[mention.name], *mention.attributes))
            else:
                yield from (self.methods[name] for name in mention.methods)

    def _named(self, parts: tuple[str, ...]) -> Iterator[str]:
        """Yield each name that is not allowed and is what the parts spell, or lies above it."""
        for end in range(1, len(parts) + 1):
            if parts[:end] in self.listed:
                yield self.listed[parts[:end]]
