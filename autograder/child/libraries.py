"""What the warm process loads and does once, so that no submission has to do it again.

A submission is a fork of the warm process. Whatever it touches first, a library's cache, a page of
memory, is paid again in every fork, so it is worth doing here all that notebooks commonly do.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
from collections.abc import Sequence

from . import protocol
from .serving import answer
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
# one traceback, and one picture, runs what it needs often enough
SLOW_CELLS = (
    "import matplotlib.pyplot as plt; plt.plot([0, 1]); plt.show()",
    'assert torch.allclose(share(torch.ones(2, 2), torch.eye(2)), torch.ones(())), "not 1"',
    "share(1)",
)
HOLE_SIZES = (*(2**power for power in range(20, 10, -1)), *range(1024, 16, -16))
# what the allocator keeps for itself of each piece
PIECE_HEADER = 8


def load_libraries() -> NotebookShell:
    """Import what all notebooks use, and do once what is slow the first time."""
    import torch

    torch.set_num_threads(1)
    shell = make_shell()
    for _ in range(ROUNDS):
        _exercise(shell)
    for source in SLOW_CELLS:
        run_cell(shell, source)
    shell.reset(new_session=True)
    return shell


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


def spare_forks() -> None:
    """Leave libraries nothing to do in each fork, where every object costs a page of memory."""
    from matplotlib import font_manager

    # without threads none of logging's locks can be held by another, so none is made anew
    getattr(logging, "_at_fork_reinit_lock_weakset", set()).clear()
    # fonts are closed in a fork; here they are closed for all
    getattr(getattr(font_manager, "_get_font", None), "cache_clear", list)()


def fill_holes() -> None:
    """Use up the free memory that lies between the objects of this process, for good.

    What a fork makes anew then lies together at the end of the memory, not in a thousand pages
    that it shares with this process, each of which the kernel would have to copy first.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_size_t
    libc.malloc.argtypes = libc.free.argtypes = [ctypes.c_size_t]
    libc.sbrk.argtypes = [ctypes.c_ssize_t]
    libc.mallinfo2.restype = _MallocInformation
    heap_end = libc.sbrk(0)
    information = libc.mallinfo2()
    top, heap_start = heap_end - information.keepcost, heap_end - information.arena
    for size in HOLE_SIZES:
        while heap_start <= (piece := libc.malloc(size - PIECE_HEADER)) < top - size:
            pass
        libc.free(piece)


class _MallocInformation(ctypes.Structure):
    """What `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    ]
