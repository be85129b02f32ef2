"""A small course with one assignment, `toy`, whose only function is `square`."""

import shutil
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


TOY_SOURCE = '''---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Squares

Write $x^2$.

| function | what it gives | where it is explained |
|---|---|---|
| `square_of_a_tensor_of_numbers` | `torch.Tensor` | `a_place_with_a_long_name_in_the_book` |

```{code-cell} ipython3
---
nbgrader: {grade: false, grade_id: imports, locked: true, schema_version: 3, solution: false, task: false}
---
import torch
```

```{code-cell} ipython3
---
nbgrader: {grade: false, grade_id: square, locked: false, schema_version: 3, solution: true, task: false}
---
def square(x):
    """Return x times x."""
    ### BEGIN SOLUTION
    return x * x
    ### END SOLUTION
```

Try it.

```{code-cell} ipython3
square(torch.tensor(3.0))
```

```{code-cell} ipython3
---
nbgrader: {grade: true, grade_id: test_square, locked: true, points: 6, schema_version: 3, solution: false, task: false}
---
assert square(torch.tensor(3.0)) == 9, "three times three is nine"
```

+++ {"nbgrader": {"grade": true, "grade_id": "essay", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}}

Because a square is never negative.
'''  # noqa: E501

REPOSITORY = Path(__file__).parents[2]
QUICK_CONFIG = """
c.JudgeSubmission.cell_seconds = 5
c.JudgeSubmission.call_seconds = 2
c.JudgeSubmission.book_url = "https://example.org/book/{page}.html#{anchor}"
"""


def release_toy(root: Path) -> None:
    """Make a course whose assignment `toy` is released."""
    from autograder.course import Course
    from autograder.release import release

    assignment = Assignment("toy", root)
    assignment.source.parent.mkdir(parents=True)
    assignment.source.write_text(TOY_SOURCE)
    assignment.bank.mkdir(parents=True)
    (assignment.checks / "test_square.py").write_text(CHECKS)
    (assignment.bank / "square.py").write_text(BANK)
    config = (REPOSITORY / "nbgrader_config.py").read_text()
    (root / "nbgrader_config.py").write_text(config + QUICK_CONFIG)
    release(Course.load(root), assignment)


@pytest.fixture(scope="session")
def released_toy(tmp_path_factory) -> Path:
    """The root of a course whose assignment `toy` is released."""
    root = tmp_path_factory.mktemp("released") / "course"
    release_toy(root)
    return root


@pytest.fixture
def toy_course(released_toy, tmp_path):
    """A fresh copy of the released course."""
    from autograder.course import Course

    shutil.copytree(released_toy, tmp_path / "course")
    return Course.load(tmp_path / "course")


@pytest.fixture
def hand_in(toy_course):
    """Return a function that hands in a solved toy notebook after `change` was done to it."""

    def hand_in(student="ada", change=lambda notebook: None, answer=None, **files):
        notebook = nbformat.read(Assignment("toy", toy_course.root).release, as_version=4)
        cells = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell for cell in notebook.cells}
        cells["square"].source = answer or "def square(x):\n    return x * x"
        cells["essay"].source = "My answer."
        change(notebook)
        folder = toy_course.folder("submitted", student, "toy")
        folder.mkdir(parents=True)
        (folder / "toy.ipynb").write_text(nbformat.writes(notebook))
        for name, data in files.items():
            (folder / name.replace("_", ".")).write_text(data)
        return folder

    return hand_in
