"""One snapshot at a notebook's end, where it stands for one at each grade cell."""

import signal

import nbformat
import pytest

from autograder import engine
from autograder.engine import Limits, grade_notebook
from autograder.settled_functions import settled_functions
from autograder.student_process import StudentProcess

QUICK = Limits(cell_seconds=2, call_seconds=1)
CHECKS = '''
import pytest
import torch
from autograder.checking import Tolerance


@pytest.mark.points(2)
@pytest.mark.parametrize("value", [1.0, 2.0, 3.0])
def test_values(student, value):
    """The values."""
    reference = lambda x: x ** {power}
    student.check("{name}", reference, torch.tensor(value), tolerance=Tolerance(1e-6))


@pytest.mark.points(1)
def test_minus_one(student):
    """The value at minus one."""
    student.check("{name}", lambda x: x ** {power}, -torch.ones(1), tolerance=Tolerance(1e-6))
'''
SQUARE = "def square(x):\n    return x * x"
CUBE = "def cube(x):\n    return x * square(x)"
DEMONSTRATION = "values = torch.tensor([1.0, 2.0])\nprint(values)"


@pytest.fixture
def powers(toy):
    """The toy assignment with a second function, `cube`."""
    for name, power in (("square", 2), ("cube", 3)):
        (toy.checks / f"test_{name}.py").write_text(CHECKS.format(name=name, power=power))
    return toy


def notebook_of(square, cube, *after):
    """Return a notebook with two answers, a grade cell after each, and further cells."""
    cell = nbformat.v4.new_code_cell
    cells = [cell("import math\nimport torch"), cell(square), cell("square(torch.ones(2))")]
    cells += [cell(cube), cell("cube(torch.ones(2))"), *map(cell, after)]
    for index, name in ((2, "square"), (4, "cube")):
        cells[index].metadata["nbgrader"] = {
            "grade": True,
            "grade_id": f"test_{name}",
            "points": 3,
            "locked": True,
            "solution": False,
            "schema_version": 3,
        }
    return nbformat.v4.new_notebook(cells=cells)


def earned(verdict):
    return sum(cell.earned for cell in verdict.cells.values())


def settled(*sources, grade_cells=((1, "test_square"), (3, "test_cube"))):
    return settled_functions(dict(enumerate(sources)), dict(grade_cells))


@pytest.mark.parametrize(
    "cube",
    [
        CUBE,
        "def cube(x, power=3, *, scale: float = -1.0, dtype=torch.float32):\n    return x",
        "EPSILON = 1e-12\nHALF = math.pi / 2\ndef cube(x):\n    return x ** 3 + EPSILON * HALF",
        "LOG_TWO = math.log(2.0)\ndef cube(x):\n    return x * LOG_TWO",
        "EPSILON = torch.finfo(torch.float32).eps\ndef cube(x):\n    return x * EPSILON",
        "import math\nimport torch.nn.functional as F\ndef cube(x):\n    return F.relu(x) * math.e",
        "import math\ndef cube(x):\n    y = x.clone()\n    y[0] = y[0] ** 3\n    return y",
        "def cube(x):\n    def inner(y):\n        return y * x\n    return inner(x * x)",
        "def helper(x):\n    return x\ndef cube(x):\n    return helper(x) * square(x)",
        "for value in range(3):\n    result = square(value)\ncube = 'not a function'.upper",
        "torch.manual_seed(0)\nx = torch.randn(3)\ndef cube(x):\n    return x ** 3",
        "axes = 1\ntotal = sum(square(value) for value in [1, 2])\nprint(total, axes)",
        "def cube(x):\n    raise NotImplementedError",
        "with torch.no_grad():\n    print(square(torch.ones(1)))\ndef cube(x):\n    return x ** 3",
        "def cube(input):\n    return input ** 3",
        "E: float = 1e-12\ndef cube(x, epsilon=E, *, inner=square):\n    return inner(x)",
        "from torch import Tensor\ndef cube(x: Tensor) -> Tensor:\n    return x ** 3",
        "from torch import randn\nx = randn(3)\ndef cube(x):\n    return x ** 3",
        "def rows(x):\n    for row in x:\n        yield row\ndef cube(x):\n    return x ** 3",
        "def cube(x):\n    close = x.clamp(0).classes()\n    return close.T[0]",
    ],
)
def test_a_notebook_of_plain_functions_is_settled(cube):
    # `cube` itself may be anything here: the grade cell that asks for it is left out
    found = settled(SQUARE, "square(1)", cube, grade_cells=[(1, "test_square")])
    assert found is not None
    assert "square" not in found["test_square"]


def test_an_import_after_one_that_can_fail_may_not_be_reached():
    cube = "import math\ndef cube(x):\n    return x * math.pi"
    for first, is_settled in (("import torch", True), ("from torch import misspelt", False)):
        square = f"{first}\nimport math\n{SQUARE} * math.pi"
        assert (settled(square, "square(1)", cube, "cube(1)") is not None) is is_settled


def test_names_that_are_bound_later_are_told():
    found = settled(SQUARE, "y = square(1)", CUBE, "cube(2)")
    assert found == {"test_square": {"cube"}, "test_cube": set()}


PYPLOT = "import matplotlib.pyplot"
UNSETTLED = {
    "defined twice": "def square(x):\n    return x",
    "assigned anew": "square = torch.square",
    "deleted": "del square",
    "a loop variable": "for square in range(3):\n    pass",
    "an imported name": "from torch import square",
    "another meaning of a module": "import torch\ndef f(x):\n    return torch.exp(x)\n"
    "import numpy as torch",
    "a caught error": "try:\n    pass\nexcept ValueError as square:\n    pass",
    "assigned in an expression": "print(square := 3)",
    "a matched name": "match 3:\n    case square:\n        pass",
    "a global that changes": "count = [0]\ndef cube(x):\n    count[0] += 1\n    return x",
    "a global that is declared": "count = 0\ndef cube(x):\n    global count\n    count += 1",
    "a number computed from what may change": "HALF = math.fsum([1, 2])\ndef cube(x):\n"
    "    return HALF",
    "another attribute of a call": "SIZE = torch.ones(3).shape\ndef cube(x):\n    return SIZE",
    "a default that lasts": "def cube(x, seen=[]):\n    return x",
    "a default that is a tensor": "one = square\ndef cube(x, y=one.data):\n    return x",
    "a keyword's default that lasts": "def cube(x, *, seen={}):\n    return x",
    "a decorator": "import functools\n@functools.cache\ndef cube(x):\n    return x",
    "an attribute of a function": "square.count = 0",
    "an attribute of a module": "torch.square = abs",
    "a hidden attribute": "square.__defaults__",
    "a class": "class Memory:\n    seen = []",
    "random numbers": "def cube(x):\n    return x + torch.rand(1)",
    "a layer's first weights": "def cube(x):\n    return torch.nn.Linear(1, 1)(x)",
    "an imported layer": "from torch.nn import Linear\ndef cube(x):\n    return Linear(1, 1)(x)",
    "an imported generator": "from torch import randn\ndef cube(x):\n    return x + randn(1)",
    "a generator that is imported in a function": "def cube(x):\n    from torch import randn\n"
    "    return x + randn(1)",
    "a generator by another name": "draw = torch.randn\ndef cube(x):\n    return x + draw(1)",
    "a module of generators": "import numpy.random as r\ndef cube(x):\n    return r.laplace()",
    "all generators": "from numpy import random as draw\ndef cube(x):\n    return draw.laplace()",
    "a layer's usual first weights": "def cube(x):\n    w = torch.empty(1, 1)\n"
    "    torch.nn.init.xavier_uniform_(w)\n    return x * w",
    "an imported first weight": "from torch.nn.init import constant_\ndef cube(x):\n"
    "    return constant_(x, 1)",
    "a sample with gradients": "from torch.distributions import Normal as draw\ndef cube(x):\n"
    "    return draw(x, 1)",
    "a generator that waits in a mode": "def rows(x):\n    with torch.no_grad():\n"
    "        yield x\nnext(rows(1))",
    "a name of a comprehension": "factor = torch.ones(1)\ndef listcomp(x):\n    return x * factor",
    "assigned in an annotation": "def cube(x) -> (square := 3):\n    return x",
    "assigned in an annotation of a constant": "x: (square := int) = 3",
    "another function defined twice": "def helper(x):\n    return x\ndef helper(x):\n    return 0",
    "a default that changes": "one = torch.ones(1)\ndef cube(x, y=one):\n    return x",
    "a keyword's default that changes": "one = []\ndef cube(x, *, y=one):\n    return x",
    "what is typed": "x = input()",
    "assigned with another name": "square, y = 1, 2",
    "a matched rest": "match [3]:\n    case [*square]:\n        pass",
    "a matched mapping's rest": "match {}:\n    case {**square}:\n        pass",
    "assigned in an argument's annotation": "def cube(x: (square := 3)):\n    return x",
    "a list among constants": "one = (1, [2])\ndef cube(x):\n    return one",
    "a list beside a constant": "one = 2 * [3]\ndef cube(x):\n    return one",
    "a changed sign": "one = -torch.ones(1)\ndef cube(x):\n    return one",
    "a module beside the notebook": "from .math import pi",
    "an imported setting": "from torch import set_default_dtype as use\nuse(torch.float64)",
    "what errors do": "import numpy as np\nnp.seterr(all='raise')",
    "a file": "torch.load('x.pt')",
    "a new seed": "def cube(x):\n    return x * torch.seed()",
    "noise": "def cube(x):\n    return torch.nn.functional.gumbel_softmax(x)",
    "a sample": "def cube(x):\n    return x.rsample()",
    "a local name of a generator": "def cube(x):\n    draw = torch.rand\n    return draw(1)",
    "a generator that waits in another": "def rows(x):\n    with torch.no_grad():\n"
    "        yield from x",
    "no text": "\0",
    "an evaluated text in a function": "def cube(x):\n    return [eval('x') for _ in x]",
    "an evaluated text in a comprehension": "[eval('x') for _ in square(3)]",
    "a setting": "torch.set_default_dtype(torch.float64)",
    "an evaluated text": "exec('square = 3')",
    "an unknown module": "import helpers",
    "a module of the notebook's folder": "from .helpers import f",
    "all names of a module": "from torch import *",
    "a magic": "%timeit square(1)",
    "a shell command": "!ls",
    "a help request": "square?",
    "a name of the shell": "def cube(x):\n    return _",
    "an awaited value": "async def cube(x):\n    return x",
    "a global tensor": "factor = torch.ones(1)\ndef cube(x):\n    return x * factor",
    "used by a lambda": "f = lambda x: factor * x\nfactor = torch.ones(1)",
    "used by a comprehension": "def cube(x):\n    return [factor for _ in x]\nfactor = [1]",
    "draws on the current figure": f"{PYPLOT} as plt\ndef cube(x):\n    plt.plot([1])",
    "the current figure": f"{PYPLOT}\ndef cube(x):\n    return matplotlib.pyplot.gca()",
    "a setting of figures": "import matplotlib\ndef cube(x):\n    matplotlib.rcParams.clear()",
    "a style": "import matplotlib\ndef cube(x):\n    matplotlib.style.use('dark')",
    "a level that is entered": "def cube(x):\n    torch.autograd.forward_ad.enter_dual_level()",
    "a table of a module": "def cube(x):\n    torch.typecodes['n'] = 1",
    "an entry that is removed": "def cube(x):\n    del torch.typecodes['n']",
    "the environment": "def cube(x):\n    torch.environ.update(n='1')",
    "modules": "def cube(x):\n    torch.modules.pop('torch')",
    "another module within one": "def cube(x):\n    return torch.os.getcwd()",
    "memory that nobody wrote": "def cube(x):\n    return torch.empty(3) + x",
    "drawn for attention": "def cube(x):\n    return torch.scaled_dot_product_attention(x, x, x)",
    "drawn for a decomposition": "def cube(x):\n    return torch.svd_lowrank(x)",
    "drawn for eigenvalues": "def cube(x):\n    return torch.lobpcg(x)",
    "drawn from a binomial": "def cube(x):\n    return torch.binomial(x, x)",
    "drawn for pooling": "def cube(x):\n    return torch.fractional_max_pool2d(x, 2, 2)",
    "not Python": "def cube(x:\n",
    "too long": "x = 1\n" * 20_000,
}


@pytest.mark.parametrize("later", UNSETTLED.values(), ids=UNSETTLED)
def test_a_notebook_whose_functions_could_change_is_not_settled(later):
    square = f"import torch\n{SQUARE}"
    assert settled(square, "square(1)", "y = 1", "y") is not None
    assert settled(square, "square(1)", later, "y") is None


def test_a_function_that_uses_what_is_defined_only_later_is_not_settled():
    uses_helper = "def square(x):\n    return helper(x)"
    assert settled(uses_helper, "square(1)", "def helper(x):\n    return x", "y") is None
    assert settled("def helper(x):\n    return x", uses_helper, "square(1)", "y") is not None


def test_a_builtin_that_a_function_uses_and_a_later_cell_binds_is_not_settled():
    assert settled("def square(x):\n    return len(x)", "square(1)", "len = 3", "y") is None
    assert settled("len = 3\ndef square(x):\n    return len", "square(1)", "y = 1", "y") is not None


@pytest.mark.parametrize("before", ["1 / 0\n", "if square(1):\n    ", "print(square(1)); "])
def test_a_module_that_an_error_may_have_kept_from_being_imported_is_not_settled(before):
    uses = "\ndef cube(x):\n    return math.e * x"
    again = "import math"
    assert settled(SQUARE, "square(1)", before + again + uses, "y = 1", again) is None
    assert settled(SQUARE, "square(1)", before + again + uses, "y = 1") is not None
    assert settled(SQUARE, "square(1)", f"import torch\n{again}{uses}", before + again) is not None
    assert settled(SQUARE, "square(1)", f"{again}\n{before}{again}{uses}", again) is not None


def test_what_is_to_be_judged_has_to_be_a_plain_function():
    assert settled("square = lambda x: x", "square(1)", CUBE, "cube(1)") is None
    assert settled("pass", "1", CUBE.replace("square(x)", "x * x"), "cube(1)") is not None


@pytest.mark.parametrize("deep", ["-{}1", "(1, {}3)", "1 + {}1", "lambda: {}1", "x.{}y", "[{}1]"])
@pytest.mark.parametrize("place", ["{}", "def square(x):\n    return {}", "x = {}"])
def test_a_text_nested_too_deeply_is_not_settled_and_ends_nothing(deep, place):
    before, after = deep.split("{}")
    assert settled(place.format(before * 8_000 + after), "1") is None


@pytest.mark.parametrize("place", ["x = {}", "def square(x={}):\n    pass", "lambda x={}: x"])
def test_a_constant_nested_more_deeply_than_is_read_ends_nothing(place):
    for depth in range(100, 1_000, 50):
        settled(place.format("-" * depth + "1"), "1")


@pytest.fixture
def taken(monkeypatch):
    """The grade cells of each snapshot that is taken."""
    found = []
    take = StudentProcess.take_snapshot

    def note(process, *grade_ids, last=False):
        found.append(grade_ids)
        take(process, *grade_ids, last=last)

    monkeypatch.setattr(StudentProcess, "take_snapshot", note)
    return found


def test_settled_functions_are_kept_once_at_the_end(powers, taken):
    verdict = grade_notebook(notebook_of(SQUARE, CUBE, DEMONSTRATION), powers, limits=QUICK)
    assert earned(verdict) == 6
    assert taken == [("test_square", "test_cube")]


def test_other_functions_are_kept_at_each_grade_cell(powers, taken):
    again = notebook_of(SQUARE, f"{CUBE}\ndef square(x):\n    return 0 * x")
    verdict = grade_notebook(again, powers, limits=QUICK)
    assert [verdict.cells[name].earned for name in ("test_square", "test_cube")] == [3, 0]
    assert taken == [("test_square",), ("test_cube",)]


def test_the_last_cell_that_counts_need_not_be_a_grade_cell(powers, taken):
    notebook = notebook_of(SQUARE, CUBE, "an_answer = 3")
    notebook.cells[-1].metadata["nbgrader"] = {"solution": True, "grade_id": "answer"}
    assert earned(grade_notebook(notebook, powers, limits=QUICK)) == 6
    assert taken == [("test_square", "test_cube")]


def test_a_check_does_not_see_what_is_defined_after_its_grade_cell(powers):
    checks = powers.checks / "test_square.py"
    checks.write_text(checks.read_text().replace('"square"', '"cube"'))
    verdict = grade_notebook(notebook_of(SQUARE, CUBE), powers, limits=QUICK)
    cell = verdict.cells["test_square"]
    assert {check.message for check in cell.checks} == {"The notebook does not define `cube`."}
    assert verdict.cells["test_cube"].earned == 3


def test_functions_are_kept_though_the_process_ends_before_the_notebook(powers, taken):
    # one long step of Python's own, which no interrupt ends
    notebook = notebook_of(SQUARE, f"sum(range(10**12))\n{CUBE}")
    verdict = grade_notebook(notebook, powers, limits=QUICK)
    assert [verdict.cells[name].earned for name in ("test_square", "test_cube")] == [3, 0]
    assert "did not give way" in " ".join(verdict.incidents)
    assert taken[0] == ("test_square",)


def test_functions_are_kept_though_the_time_is_up_before_the_notebook_ends(powers, taken):
    limits = Limits(cell_seconds=5, call_seconds=1, total_seconds=3)
    waits = "while True:\n    pass"
    verdict = grade_notebook(notebook_of(SQUARE, waits), powers, limits=limits)
    assert taken == [("test_square",)]
    messages = [check.message for cell in verdict.cells.values() for check in cell.checks]
    assert set(messages) == {
        "The submission has used up its time.",
        "This cell was not reached: the submission had used up its time.",
    }


def test_a_notebook_that_ends_before_its_first_grade_cell_is_not_run_again(powers, monkeypatch):
    started = []
    start = engine.NotebookRun.__init__

    def note(run, *given, **named):
        started.append(run)
        start(run, *given, **named)

    monkeypatch.setattr(engine.NotebookRun, "__init__", note)
    verdict = grade_notebook(
        notebook_of(f"sum(range(10**12))\n{SQUARE}", CUBE), powers, limits=QUICK
    )
    messages = {check.message for cell in verdict.cells.values() for check in cell.checks}
    assert len(messages) == 1
    assert "This cell was not reached: it was stopped" in messages.pop()
    assert len(started) == 1


def test_a_function_that_only_another_cells_checks_ask_for_is_kept_there(powers):
    checks = powers.checks / "test_square.py"
    checks.write_text(checks.read_text().replace('"square"', '"helper"'))
    helper = "def helper(x):\n    return x * x"
    notebook = notebook_of(f"{SQUARE}\n{helper}", f"{CUBE}\ndef helper(x):\n    return x + 7")
    assert earned(grade_notebook(notebook, powers, limits=QUICK)) == 6


def test_a_module_that_is_imported_only_after_a_grade_cell_is_not_there_before(powers):
    square = "def square(x):\n    return x * next(itertools.repeat(x))\n1 / 0\nimport itertools"
    notebook = notebook_of(square, f"import itertools\n{CUBE}")
    verdict = grade_notebook(notebook, powers, limits=QUICK)
    assert [verdict.cells[name].earned for name in ("test_square", "test_cube")] == [0, 3]


SAME = {
    "right": (SQUARE, CUBE),
    "wrong": ("def square(x):\n    return 2 * x", CUBE),
    "wrong at one": ("def square(x):\n    return x * x if x != 2 else x", CUBE),
    "endless": ("def square(x):\n    while x < 3: pass\n    return x * x", CUBE),
    "ending": ("def square(x):\n    return [1][int(x)]", CUBE),
    "missing": ("pass", "def cube(x):\n    return x ** 3"),
    "not written": ("def square(x):\n    raise NotImplementedError", CUBE),
    "in place": ("def square(x):\n    x *= x\n    return x", CUBE),
    "after an error": (SQUARE, f"1 / 0\n{CUBE}"),
}


@pytest.mark.parametrize(("square", "cube"), SAME.values(), ids=SAME)
def test_the_verdict_is_that_of_a_snapshot_at_each_grade_cell(
    powers, taken, monkeypatch, square, cube
):
    notebook = notebook_of(square, cube)
    once = grade_notebook(notebook, powers, limits=QUICK)
    assert len(taken) == 1
    monkeypatch.setattr(engine, "settled_functions", lambda *_: None)
    each = grade_notebook(notebook, powers, limits=QUICK)
    assert len(taken) == 3
    assert once == each


@pytest.fixture
def forked(monkeypatch):
    """Whether each caller that is made has a process of its own."""
    found = []
    caller_at = StudentProcess.caller_at

    def note(*given):
        found.append(caller_at(*given))
        return found[-1]

    monkeypatch.setattr(StudentProcess, "caller_at", note)
    return found


def test_grade_cells_share_a_process_for_as_long_as_their_checks_pass(powers, forked):
    grade_notebook(notebook_of(SQUARE, CUBE), powers, limits=QUICK)
    assert [caller.used for caller in forked] == [False, True]
    assert forked[0].peer is forked[1].peer


def test_a_shared_process_that_ends_between_two_grade_cells_costs_nothing(
    powers, forked, monkeypatch
):
    keep = StudentProcess.keep

    def kill(process, snapshot, peer):
        peer.signal(signal.SIGKILL)
        assert peer.wait(10)
        return keep(process, snapshot, peer)

    monkeypatch.setattr(StudentProcess, "keep", kill)
    assert earned(grade_notebook(notebook_of(SQUARE, CUBE), powers, limits=QUICK)) == 6
    assert [caller.used for caller in forked] == [False, True, False, False]


def test_settled_functions_are_not_tried_again_after_a_check_that_fails(powers, forked):
    wrong = "def square(x):\n    return x if x == 2 else x * x"
    cube = "def cube(x):\n    return x ** 3"
    verdict = grade_notebook(notebook_of(wrong, cube), powers, limits=QUICK)
    outcomes = [check.outcome for cell in verdict.cells.values() for check in cell.checks]
    assert outcomes == ["failed", "passed", "passed", "passed"]
    assert [caller.used for caller in forked] == [False, True]


def test_a_check_whose_shared_process_stops_is_tried_in_one_of_its_own(powers, forked):
    endless = "def cube(x):\n    while x == 2:\n        pass\n    return x ** 3"
    verdict = grade_notebook(notebook_of(SQUARE, endless), powers, limits=QUICK)
    outcomes = [check.outcome for check in verdict.cells["test_cube"].checks]
    assert outcomes == ["stopped", "passed"]
    # both cells; the check that stopped; the one after it
    assert [caller.used for caller in forked] == [False, True, False, False]


def test_grade_cells_with_snapshots_of_their_own_share_no_process(powers, forked, monkeypatch):
    monkeypatch.setattr(engine, "settled_functions", lambda *_: None)
    assert earned(grade_notebook(notebook_of(SQUARE, CUBE), powers, limits=QUICK)) == 6
    assert [caller.used for caller in forked] == [False, False]
    assert {caller.peer.connection.fileno() for caller in forked} == {-1}
