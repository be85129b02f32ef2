"""A small course with one assignment, `toy`, whose only function is `square`."""

from pathlib import Path

import nbformat
import pytest

from autograder.assignment import Assignment

CHECKS = '''
import pytest
import torch
from autograder.checking import Tolerance


@pytest.mark.points(2)
@pytest.mark.hint("Multiply x by itself.")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values(student, dtype, device, generator):
    """The values and the gradient of x times x."""
    x = torch.randn(5, generator=generator, dtype=dtype).to(device)
    student.check("square", lambda x: x * x, x, tolerance=Tolerance(1e-6), gradient_of=(0,))


@pytest.mark.points(1)
def test_empty(student):
    """The square of nothing is nothing."""
    student.check("square", lambda x: x * x, torch.empty(0), tolerance=Tolerance(1e-6))
'''

BANK = """
from autograder.bank import equivalent, misconception


@misconception("doubling instead of squaring", see="toy#square")
def doubled(x):
    return 2 * x


@misconception("a result that is cut off from the graph", see="toy#square")
def detached(x):
    return x.detach() ** 2


@misconception("a square that overwrites its input", see="toy#square")
def in_place(x):
    x *= x
    return x


@misconception("a function that always raises", see="toy#square")
def raising(x):
    raise ValueError(str(x))


@equivalent
def power(x):
    return x**2
"""


@pytest.fixture
def toy(tmp_path: Path) -> Assignment:
    assignment = Assignment("toy", tmp_path / "course_root")
    assignment.bank.mkdir(parents=True)
    (assignment.checks / "test_square.py").write_text(CHECKS)
    (assignment.bank / "square.py").write_text(BANK)
    return assignment


@pytest.fixture
def toy_notebook():
    """Return a function that makes a toy submission with the given solution cell."""

    def make(solution: str, *after: str):
        cell = nbformat.v4.new_code_cell
        graded = cell("square(torch.ones(2))")
        graded.metadata["nbgrader"] = {
            "grade": True,
            "grade_id": "test_square",
            "points": 3,
            "locked": True,
            "solution": False,
            "schema_version": 3,
        }
        sources = [cell("import torch"), cell(solution), graded, *map(cell, after)]
        return nbformat.v4.new_notebook(cells=sources)

    return make
