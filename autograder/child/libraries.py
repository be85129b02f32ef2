"""What the warm process loads and does once, so that no submission has to do it again.

A submission is a fork of the warm process. Whatever it touches first, a library's cache, a page of
memory, is paid again in every fork, so it is worth doing here all that notebooks commonly do.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import stack_data
from pygments.formatters.terminal256 import Terminal256Formatter
from pygments.lexer import RegexLexerMeta

from . import not_allowed, protocol
from .calls import answer
from .shell import NotebookShell, make_shell, run_cell

# CPython settles on how to run a function after it has run a few times
ROUNDS = 10
CELLS = (
    """
import math
import torch

def share(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    shifted = x - x.amax(dim=1, keepdim=True)
    part = shifted.exp() / shifted.exp().sum(dim=1, keepdim=True)
    picked = part.gather(1, weight.argmax(dim=1)[:, None])[:, 0]
    return torch.where(picked > 0, picked, 1.0).log().mean() + (part * weight).sum(1).mean()
""",
    """
x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
share(x, torch.ones(2, 2)).backward()
assert isinstance(x.grad, torch.Tensor), "no gradient"
assert torch.allclose(x.grad, x.grad + 0.0), "another gradient"
print(x.grad, math.log(2.0))
x.detach()
""",
)
# one picture, and one traceback, runs what it needs often enough
PICTURE_CELL = "import matplotlib.pyplot as plt; plt.plot([0, 1]); plt.show()"
TRACEBACK_CELLS = (
    'assert torch.allclose(share(torch.ones(2, 2), torch.eye(2)), torch.ones(())), "not 1"',
    "share(1)",
    # a traceback parses all of each file that it leads through
    "torch.ones(()).backward()",
)
HOLE_SIZES = (*(2**power for power in range(20, 10, -1)), *range(1024, 16, -16))
# what the allocator keeps for itself of each piece
PIECE_HEADER = 8
LARGE_PAGE = 2 * 2**20
MADV_COLLAPSE = 25


def load_libraries() -> NotebookShell:
    """Import what all notebooks use, and do once what is slow the first time."""
    import torch

    torch.set_num_threads(1)
    share_lexers()
    share_colours()
    shell = make_shell()
    _rehearse(shell, [PICTURE_CELL])
    return shell


def share_lexers() -> None:
    """Let a lexer without rules of its own use those of the lexer it is made from.

    A traceback colours its lines with a new class of lexer each time, and would have the same rules
    compiled anew.
    """
    compile_rules = RegexLexerMeta.process_tokendef

    def rules_of(lexer: Any, name: str, definitions: Any = None) -> Any:
        parents = [parent for parent in lexer.__bases__ if "_tokens" in vars(parent)]
        if name or {"tokens", "flags"} & vars(lexer).keys() or len(parents) != 1:
            return compile_rules(lexer, name, definitions)
        return parents[0]._tokens

    RegexLexerMeta.process_tokendef = rules_of


def share_colours() -> None:
    """Let tracebacks share a table of colours.

    Each would look up anew which of 256 colours is nearest to every colour of its style.
    """
    name = "style_with_executing_node"
    vars(stack_data)[name] = functools.cache(vars(stack_data)[name])
    choose = Terminal256Formatter._setup_styles
    chosen: dict[Any, Any] = {}

    def choose_once(formatter: Any) -> None:
        kind = formatter.style, formatter.usebold, formatter.useunderline, formatter.useitalic
        if kind not in chosen:
            choose(formatter)
            chosen[kind] = formatter.style_string
        formatter.style_string = chosen[kind]

    Terminal256Formatter._setup_styles = choose_once


def _rehearse(shell: NotebookShell, slow_cells: Sequence[str]) -> None:
    """Do what notebooks commonly do, often enough, and forget it."""
    for source in slow_cells:
        run_cell(shell, source)
    for _ in range(ROUNDS):
        _exercise(shell)
    for source in TRACEBACK_CELLS:
        run_cell(shell, source)
    shell.reset(new_session=True)
    # what `multiprocessing` asks `__main__` for where it starts a new interpreter
    shell.user_ns["__spec__"] = None


def load_modules(modules: Sequence[str]) -> None:
    """Import modules as far as they are there, and do what is slow at the first use of one."""
    import torch

    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "torch.testing" in modules:
        # what it says of a difference takes the symbolic shapes of torch, and these sympy
        with contextlib.suppress(AssertionError):
            torch.testing.assert_close(torch.zeros(2), torch.ones(2))


def _exercise(shell: NotebookShell) -> None:
    """Run a small notebook and answer calls of its function, as a submission does."""
    import torch

    for source in CELLS:
        run_cell(shell, source)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = torch.ones(2, 2, dtype=dtype)
        for gradient_of, directions in (([], []), ([0], []), ([0], [x])):
            request = ["share", [x, x], gradient_of, torch.ones((), dtype=dtype), directions]
            protocol.encode(answer(protocol.decode(protocol.encode(request)), shell.user_ns))
    protocol.encode(answer(["share", [1, 1], [], None, []], shell.user_ns))


def forget_methods(shell: NotebookShell) -> None:
    """Leave in the interpreter's cache of methods those alone that every notebook looks up.

    It is full of names from all imports, and a fork that needs the place of one writes to it,
    wherever it lies: a page of memory each.
    """
    getattr(sys, "_clear_type_cache", list)()
    _rehearse(shell, [])
    not_allowed.used.clear()


def seed_generators() -> None:
    """Have every submission draw the same random numbers, whoever grades it, and when."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that notebooks have
    torch.manual_seed(0)


def fill_holes() -> None:
    """Use up the free memory that lies between the objects of this process, for good.

    What a fork makes anew then lies together at the end of the memory, not in a thousand pages
    that it shares with this process, each of which the kernel would have to copy first.
    """
    heap = Heap.of_this_process()
    if heap is None:
        return
    for size in HOLE_SIZES:
        while heap.start <= (piece := heap.libc.malloc(size - PIECE_HEADER)) < heap.top - size:
            pass
        heap.libc.free(piece)


def use_large_pages() -> None:
    """Have the heap in large pages: a fork copies one entry for each, where it would copy 512.

    The allocator's own setting for this does not work in the sandbox, which shows no `/sys`. Where
    the kernel is older than 6.1, or has no large pages, forks are slower and all else is the same.
    """
    heap = Heap.of_this_process()
    if heap is not None:
        start, end = -(-heap.start // LARGE_PAGE) * LARGE_PAGE, heap.end // LARGE_PAGE * LARGE_PAGE
        heap.libc.madvise(start, end - start, MADV_COLLAPSE)


class _MallocInformation(ctypes.Structure):
    """What `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    ]


@dataclass(frozen=True)
class Heap:
    """Where the allocator's memory begins, where what it has not given away yet, and its end."""

    libc: ctypes.CDLL
    start: int
    top: int
    end: int

    @classmethod
    def of_this_process(cls) -> Heap | None:
        """Return the heap, or None where the allocator does not tell."""
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "mallinfo2"):
            return None
        libc.malloc.restype = libc.sbrk.restype = ctypes.c_size_t
        libc.malloc.argtypes = libc.free.argtypes = [ctypes.c_size_t]
        libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
        libc.sbrk.argtypes = [ctypes.c_ssize_t]
        libc.mallinfo2.restype = _MallocInformation
        end, information = libc.sbrk(0), libc.mallinfo2()
        return cls(libc, end - information.arena, end - information.keepcost, end)
