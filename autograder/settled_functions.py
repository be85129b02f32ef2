"""Tells, by reading, whether a notebook's functions are at its end what they were at a grade cell.

Then one snapshot at the end stands for one at each grade cell, and no call leaves anything behind
for another. This is no question of trust: who deceives the reading has functions of their own
judged, as they were at another moment or after other calls. Whatever is not plainly a function of
its arguments is not settled.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

# all loaded before a notebook runs, so that no file of the submission can stand for one
MODULES = frozenset(("__future__", "collections", "functools", "itertools", "math", "matplotlib"))
MODULES |= {"numpy", "torch", "typing"}
MODULE_NAMES = frozenset(("math", "np", "numpy", "torch"))
# these reach what a cell does not spell out
FAR_REACHING = frozenset(
    (
        *("breakpoint", "compile", "delattr", "display", "eval", "exec", "exit", "get_ipython"),
        *("getattr", "globals", "In", "input", "locals", "open", "Out", "quit", "setattr", "vars"),
    )
)
# attributes that change a library for all its users, or read what may have changed, such as a file
CHANGES = re.compile(
    r"_|set_(?!title|[xyz]|aspect|axis|visible|facecolor)|set(?!_)|register|use_|enable_(?!grad)"
    r"|disable|load|from_?file|genfromtxt|memmap|read"
)
# attributes whose results depend on what was drawn before
RANDOM = re.compile(
    r"rand|seed|.*dropout|bernoulli|.*(multinomial|normal_?$|poisson|uniform|rsample)"
    r"|exponential_|geometric_|cauchy_|orthogonal_|sparse_|choice|sample|shuffle|permutation"
    r"|gumbel|rrelu|.*binomial|fractional_|.*lowrank|lobpcg|(new_)?empty|scaled_dot_product"
)
# attributes that, in a function, read or change what it shares with others, such as a figure
SHARED = re.compile(
    r"(gca|gcf|cla|clf|rcParams|style|environ|modules|os|sys|builtins)$|switch_|enter_"
)
# a module whose functions draw on a figure that is current
FIGURES = frozenset(("plt", "pyplot"))
RANDOM_MODULES = re.compile(r"numpy\.random|torch\.(random|distributions|nn\.init)")
# imports of these do not fail, so that what follows them in their cell is reached
SURE_MODULES = MODULES | {"matplotlib.pyplot", "torch.nn", "torch.nn.functional"}
# of a whole notebook, which is read in 20 µs a character at most
MAX_READ_CHARACTERS = 100_000
# what is remembered of one can take a hundred times as much memory
MAX_REMEMBERED_CHARACTERS = 20_000
REMEMBERED_CELLS = 200


class Binding(NamedTuple):
    """What a name is given at the top level of a cell: a function, a constant, a module, other.

    `first` tells that nothing but imports comes before it in its cell, so that it is reached.
    """

    name: str
    what: str
    first: bool = False


@dataclass(frozen=True)
class Reading:
    """What one cell binds at its top level, and which global names its functions use."""

    bindings: tuple[Binding, ...]
    used: frozenset[str]


def settled_functions(
    sources: Mapping[int, str], grade_cells: Mapping[int, str]
) -> dict[str, frozenset[str]] | None:
    """Return, for each grade cell, the names that are bound only after it; None if not settled.

    `sources` are the cells that are run, in order, and `grade_cells` the names of the grade cells
    among them, both by index.

    Examples
    --------
    >>> cells = {0: "def f(x): return x + 1", 1: "f(1)", 2: "def g(x): return f(x)", 3: "g(1)"}
    >>> settled_functions(cells, {1: "test_f", 3: "test_g"})
    {'test_f': frozenset({'g'}), 'test_g': frozenset()}
    >>> settled_functions({**cells, 2: "f = torch.exp"}, {1: "test_f", 3: "test_g"}) is None
    True
    """
    if sum(map(len, sources.values())) > MAX_READ_CHARACTERS:
        return None
    notebook = _Notebook()
    for index, source in sources.items():
        known = len(source) <= MAX_REMEMBERED_CHARACTERS
        reading = _remembered_reading(source) if known else _reading(source)
        if reading is None:
            return None
        notebook.add(index, reading)
    asked = {name.removeprefix("test_") for name in grade_cells.values()}
    # a check may ask for other functions than that which its grade cell is named after
    asked |= notebook.functions()
    if not all(notebook.stays(name, index) for name, index in notebook.uses) or not all(
        notebook.is_one_function(name) for name in asked
    ):
        return None
    return {name: notebook.bound_after(index) for index, name in grade_cells.items()}


@dataclass
class _Notebook:
    """All bindings and uses of the cells read so far."""

    bound: dict[str, list[tuple[int, str, bool]]] = field(default_factory=dict)
    uses: set[tuple[str, int]] = field(default_factory=set)

    def add(self, index: int, reading: Reading) -> None:
        for name, what, first in reading.bindings:
            self.bound.setdefault(name, []).append((index, what, first))
        self.uses |= {(name, index) for name in reading.used}

    def stays(self, name: str, user: int) -> bool:
        """Tell whether a function of a cell finds the same under a name whenever it is called."""
        bound = self.bound.get(name)
        if bound is None:
            return hasattr(builtins, name)
        kinds = {what for _, what, _ in bound}
        is_module = len(kinds) == 1 and all(what.startswith("import ") for what in kinds)
        # the error that keeps a cell from an import does not keep a later cell from it
        always = any(first for index, _, first in bound if index == bound[0][0])
        once = len(bound) == 1 and bound[0][1] != "other"
        return (once or (is_module and always)) and bound[0][0] <= user

    def is_one_function(self, name: str) -> bool:
        """Tell whether a name is bound by one `def`, or never."""
        return [what for _, what, _ in self.bound.get(name, [])] in ([], ["function"])

    def functions(self) -> set[str]:
        """Return the names of all functions that are defined outside of others."""
        return {
            name
            for name, bound in self.bound.items()
            if any(what == "function" for _, what, _ in bound)
        }

    def bound_after(self, index: int) -> frozenset[str]:
        """Return the names that no cell up to `index` binds."""
        return frozenset(name for name, bound in self.bound.items() if bound[0][0] > index)


def _reading(source: str) -> Reading | None:
    """Read a cell; return None if one of its functions could keep or change something."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
            table = symtable.symtable(source, "<cell>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    try:
        bindings = tuple(_bindings(tree.body))
        plain = all(map(_is_plain, ast.walk(tree))) and all(map(_keeps_nothing, _functions(tree)))
        plain = plain and not any(map(_depends_on_others, _inside_functions(tree)))
        reached = frozenset(_globals_below(table)) | set(table.get_identifiers())
        if not plain or not FAR_REACHING.isdisjoint(reached):
            return None
        used = {*_globals_below(table, of_functions=True), *_names_of_defaults(tree)}
        return Reading(bindings, frozenset(used))
    except RecursionError:
        return None


_remembered_reading = lru_cache(maxsize=REMEMBERED_CELLS)(_reading)


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.Lambda]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            yield node


def _is_plain(node: ast.AST) -> bool:
    """Tell whether a node neither reaches nor changes what its cell does not spell out."""
    if isinstance(node, ast.Attribute):
        return isinstance(node.ctx, ast.Load) and not CHANGES.match(node.attr)
    if isinstance(node, ast.Import):
        return all(alias.name.partition(".")[0] in MODULES for alias in node.names)
    if isinstance(node, ast.With):
        # a generator that is left there keeps what the `with` changed, such as torch's mode
        return not any(isinstance(below, ast.Yield | ast.YieldFrom) for below in ast.walk(node))
    if isinstance(node, ast.ImportFrom):
        names = {alias.name for alias in node.names}
        known = not node.level and (node.module or "").partition(".")[0] in MODULES
        return known and "*" not in names and not any(map(CHANGES.match, names))
    return not isinstance(
        node,
        ast.ClassDef | ast.AsyncFunctionDef | ast.Global | ast.Nonlocal | ast.Await | ast.Delete,
    )


def _keeps_nothing(function: ast.FunctionDef | ast.Lambda) -> bool:
    """Tell whether a function has nothing of its own that lasts from call to call."""
    is_decorated = bool(getattr(function, "decorator_list", []))
    return not is_decorated and all(
        isinstance(default, ast.Name) or _is_constant(default) for default in _defaults(function)
    )


def _defaults(function: ast.FunctionDef | ast.Lambda) -> Iterator[ast.expr]:
    yield from function.args.defaults
    yield from filter(None, function.args.kw_defaults)


def _names_of_defaults(tree: ast.AST) -> Iterator[str]:
    """Yield the names that are defaults; each has to stay what it is, as if used in a call."""
    for default in (default for function in _functions(tree) for default in _defaults(function)):
        if isinstance(default, ast.Name):
            yield default.id


def _inside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what is run only when a function is called, and the functions' heads."""
    pending = [(tree, False)]
    while pending:
        node, inside = pending.pop()
        inside = inside or isinstance(node, ast.FunctionDef | ast.Lambda)
        if inside:
            yield node
        pending += [(child, inside) for child in ast.iter_child_nodes(node)]


def _depends_on_others(node: ast.AST) -> bool:
    """Tell whether a node in a function depends on what was drawn or changed before."""
    if isinstance(node, ast.Name):
        return node.id in FIGURES
    if isinstance(node, ast.Attribute) and SHARED.match(node.attr):
        return True
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        # an entry of what belongs to something else, such as a module's table
        return isinstance(node.value, ast.Attribute)
    return _is_random(node)


def _is_random(node: ast.AST) -> bool:
    """Tell whether a node draws random numbers, as layers do for their first weights."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr[:1].isupper() or bool(RANDOM.match(node.func.attr))
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any(binding.what == "other" for binding in _imported(node))
    return isinstance(node, ast.Attribute) and bool(RANDOM.match(node.attr))


def _is_constant(node: ast.AST | None) -> bool:
    """Tell whether an expression is made of numbers and words alone, or read from a module."""
    if isinstance(node, ast.Attribute):
        if _is_number_format(node.value):
            return True
        known = isinstance(node.value, ast.Name) and node.value.id in MODULE_NAMES
        return known and not RANDOM.match(node.attr)
    if isinstance(node, ast.Call):
        module = getattr(getattr(node.func, "value", None), "id", "")
        return module == "math" and not node.keywords and all(map(_is_constant, node.args))
    if isinstance(node, ast.UnaryOp):
        return _is_constant(node.operand)
    if isinstance(node, ast.BinOp):
        return _is_constant(node.left) and _is_constant(node.right)
    if isinstance(node, ast.Tuple):
        return all(map(_is_constant, node.elts))
    return isinstance(node, ast.Constant)


def _is_number_format(node: ast.expr) -> bool:
    """Tell whether an expression is that of what a dtype can hold, `torch.finfo(dtype)`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    is_constant = all(map(_is_constant, (node.func, *node.args)))
    return is_constant and node.func.attr in ("finfo", "iinfo")


def _bindings(body: Sequence[ast.stmt]) -> Iterator[Binding]:
    """Yield all that statements bind outside of functions."""
    head = list(takewhile(_is_sure, body))
    # the first that can fail does so in each cell that has it
    head += [
        node for node in body[len(head) :][:1] if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    for statement in head:
        yield from (binding._replace(first=True) for binding in _imported(statement))
    pending: list[ast.AST] = list(body[len(head) :])
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef):
            yield Binding(node.name, "function")
            pending += [node.args, *filter(None, [node.returns])]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imported(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_constant(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            yield from (Binding(name, "constant") for name in names)
            pending += [target for target in targets if not isinstance(target, ast.Name)]
            pending += [node.annotation] if isinstance(node, ast.AnnAssign) else []
        elif not isinstance(node, ast.Lambda):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                yield Binding(node.id, "other")
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                yield Binding(node.name, "other")
            elif isinstance(node, ast.MatchMapping) and node.rest:
                yield Binding(node.rest, "other")
            pending += ast.iter_child_nodes(node)


def _is_sure(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import) and all(alias.name in SURE_MODULES for alias in node.names)


def _imported(node: ast.stmt) -> Iterator[Binding]:
    """Yield what an import binds; what draws random numbers is no module, but other."""
    for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
        if isinstance(node, ast.ImportFrom):
            module = f"{node.module}.{alias.name}"
            # layers draw their first weights
            is_layer = module.startswith("torch.nn.") and alias.name[:1].isupper()
            is_random = is_layer or RANDOM.match(alias.name) or RANDOM_MODULES.match(module)
            name, what = alias.asname or alias.name, f"{node.module}:{alias.name}"
        else:
            is_random = RANDOM_MODULES.match(alias.name) if alias.asname else None
            name = alias.asname or alias.name.partition(".")[0]
            what = alias.name if alias.asname else name
        yield Binding(name, "other" if is_random else f"import {what}")


def _globals_below(table: symtable.SymbolTable, *, of_functions: bool = False) -> Iterator[str]:
    """Yield the global names that the scopes below one use, or the functions among them alone."""
    for child in table.get_children():
        # a comprehension, at the top level of a cell, is run where it stands
        runs_here = table.get_type() == "module" and ".0" in child.get_identifiers()
        if not (of_functions and runs_here):
            yield from (symbol.get_name() for symbol in child.get_symbols() if symbol.is_global())
        yield from _globals_below(child, of_functions=of_functions)
