import nbformat
import pytest
import torch

from autograder import not_allowed
from autograder.engine import grade_notebook
from autograder.not_allowed import (
    MAX_NAME_PARTS,
    MAX_REMEMBERED_CHARACTERS,
    MAX_SEARCHED_CHARACTERS,
    read_not_allowed,
    uses,
)

NAMES = [
    "torch.softmax",
    "torch.Tensor.softmax",
    "torch.nn.functional.softmax",
    "torch.nn.Softmax",
    "torch.distributions",
]
OPERATORS = ["_softmax", "softmax.int", "_safe_softmax"]
HAND_WRITTEN = "def square(x):\n    return x * x"
WAYS = {
    "the function": "torch.softmax(x, 0)",
    "the method": "x.softmax(0)",
    "the module's function": "torch.nn.functional.softmax(x, dim=0)",
    "the class": "torch.nn.Softmax(0)(x)",
    "a name put together": "getattr(torch, 'soft' + 'max')(x, 0)",
    "the base class's method": "torch._C.TensorBase.softmax(x, 0)",
    "the module of bindings": "torch._C._VariableFunctions.softmax(x, 0)",
    "the operator": "torch.ops.aten._softmax(x, 0, False)",
    "the composite operator": "torch.ops.aten.softmax.int(x, 0)",
    "attention": "torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None])[0]",
    "a module that holds it": "torch.distributions.Categorical(logits=x).probs",
}


@pytest.fixture
def strict(toy):
    (toy.checks / "not_allowed.txt").write_text("\n".join(NAMES))
    (toy.checks / "not_allowed_operators.txt").write_text("\n".join(OPERATORS))
    return toy


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_each_way_to_a_library_function_is_refused_in_words(strict, toy_notebook, way):
    source = f"def square(x):\n    {way}\n    return x * x"
    cell = grade_notebook(toy_notebook(source), strict).cells["test_square"]
    assert cell.checks[0].outcome == "failed"
    assert "which this exercise asks you to write by hand" in cell.checks[0].message


def test_work_written_by_hand_keeps_its_points(strict, toy_notebook):
    verdict = grade_notebook(toy_notebook(HAND_WRITTEN), strict)
    assert verdict.cells["test_square"].earned == 3
    assert verdict.incidents == []


def test_a_use_outside_the_exercise_costs_nothing_and_is_reported(strict, toy_notebook):
    notebook = toy_notebook(HAND_WRITTEN)
    notebook.cells.insert(1, nbformat.v4.new_code_cell("torch.softmax(torch.ones(2), 0)"))
    verdict = grade_notebook(notebook, strict)
    assert verdict.cells["test_square"].earned == 3
    assert verdict.incidents == [
        "Cell 2 uses `torch.softmax`, which this exercise asks you to write by hand."
    ]
    assert verdict.outputs[1][0]["ename"] == "NotAllowedError"


def test_the_next_submission_of_another_exercise_has_the_function_again(
    strict, toy_notebook, tmp_path
):
    grade_notebook(toy_notebook(HAND_WRITTEN), strict)
    notebook = toy_notebook("def square(x):\n    torch.softmax(x, 0)\n    return x * x")
    (strict.checks / "not_allowed.txt").unlink()
    (strict.checks / "not_allowed_operators.txt").unlink()
    assert grade_notebook(notebook, strict).cells["test_square"].earned == 3


def found(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return uses(nbformat.v4.new_notebook(cells=cells), NAMES)


@pytest.mark.parametrize(
    "source",
    [
        "torch.softmax(x, 0)",
        "import torch as t\nt.softmax(x, 0)",
        "from torch import softmax",
        "from torch import softmax as s\ns(x, 0)",
        "import torch.nn.functional as F\nF.softmax(x, 0)",
        "from torch.nn import functional\nfunctional.softmax(x, 0)",
        "x.softmax(0)",
        "(x + 1).softmax(0)",
        "torch.distributions.Categorical(x)",
        "from torch.distributions import Categorical",
        "f = torch.softmax",
        "x.softmax(0).a.b",
        "x.a.softmax.b",
        "torch.softmax.__call__.__call__",
        "if a:\n    if b:\n        if c:\n            import torch as t\nt.softmax.a",
    ],
)
def test_the_static_read_finds(source):
    assert len(found(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def softmax(x):\n    return x",
        "softmax(x)",
        "# torch.softmax",
        "'torch.softmax'",
        "def f(:",
    ],
)
def test_the_static_read_leaves_alone(source):
    assert found(source) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from torch._decomp.decompositions import _softmax", "torch._decomp"),
        ("import torch._refs as r\nr.softmax(x, 0)", "torch._refs"),
        ("import subprocess, sys", "subprocess"),
        ("import sys\nprint(sys.executable)", "sys.executable"),
        ("from os import fork\nfork()", "os.fork"),
        ("import os\nos.execv('python', [])", "os.execv"),
    ],
)
def test_a_way_round_is_reported_as_what_it_is(source, name):
    assert found(source, "import os, sys\nos.path, sys.path") == [
        f"Cell 1 uses `{name}`, which can get round what this exercise asks you to write by hand."
    ]


def test_a_cell_that_uses_both_is_told_of_both():
    assert found("import subprocess\ntorch.softmax(x, 0)") == [
        "Cell 1 uses `torch.softmax`, which this exercise asks you to write by hand.",
        "Cell 1 uses `subprocess`, which can get round what this exercise asks you to write by "
        "hand.",
    ]


def test_an_import_in_one_cell_is_known_in_the_next():
    sentences = found("import torch.nn.functional as F", "F.softmax(x, 0)")
    assert sentences == [
        "Cell 2 uses `torch.nn.functional.softmax`, which this exercise asks you to write by hand."
    ]


def test_each_listed_name_above_a_name_is_found():
    assert found("torch.nn.Softmax.softmax; torch.distributions.a.b; x.softmax") == [
        "Cell 1 uses `torch.Tensor.softmax`, `torch.distributions`, `torch.nn.Softmax`, "
        "which this exercise asks you to write by hand."
    ]


def test_a_name_means_what_it_was_last_imported_as():
    sentences = found("t.softmax", "import torch as t", "t.softmax", "import os as t", "t.softmax")
    assert [sentence.partition(", ")[0] for sentence in sentences] == [
        "Cell 1 uses `torch.Tensor.softmax`",
        "Cell 3 uses `torch.softmax`",
    ]


def test_a_chain_of_980_attributes_gives_no_recursion_error():
    assert len(found("torch.softmax" + ".a" * 980)) == 1
    assert len(found("x.softmax(0)" + ".a" * 980)) == 1


NOT_SEARCHED = "too long to be searched for names that are not allowed."


@pytest.mark.parametrize("dot", [".", " . ", "\\\n.", ".\u0301"])
def test_an_import_of_3000_parts_is_not_given_to_the_parser(dot):
    source = "import a" + f"{dot}a" * 3_000
    assert found(source, source) == [f"Cell 1 and 1 more cell are {NOT_SEARCHED}"]


def test_many_short_names_are_searched():
    assert len(found("x = [" + "torch.softmax, " * MAX_NAME_PARTS + "]")) == 1


def test_an_import_is_kept_no_longer_than_the_longest_listed_name():
    mention, package = not_allowed._parsed_mentions("import a" + ".a" * 500, frozenset(NAMES))
    assert mention.parts == ("a",) * 4
    assert package == ("a", ("a",))


def test_so_much_of_a_notebook_is_searched_and_no_more():
    use, long = "torch.softmax", "#" * (MAX_SEARCHED_CHARACTERS - 20)
    sentences = found(use, "#" * (MAX_SEARCHED_CHARACTERS + 1), long, use, "t = 1")
    assert sentences == [
        "Cell 1 uses `torch.softmax`, which this exercise asks you to write by hand.",
        f"Cell 2 and 1 more cell are {NOT_SEARCHED}",
    ]
    assert found(long, use + " " * 20) == [f"Cell 2 is {NOT_SEARCHED}"]


def test_without_listed_names_no_cell_is_too_long():
    cell = nbformat.v4.new_code_cell("#" * (MAX_SEARCHED_CHARACTERS + 1))
    assert uses(nbformat.v4.new_notebook(cells=[cell]), ()) == []


def test_what_a_long_cell_names_is_not_remembered():
    def remembered():
        return not_allowed._remembered_mentions.cache_info().currsize

    not_allowed._remembered_mentions.cache_clear()
    assert len(found("torch.softmax" + " " * MAX_REMEMBERED_CHARACTERS)) == 1
    assert remembered() == 0
    assert len(found("torch.softmax")) == 1
    assert remembered() == 1


def test_a_use_is_remembered_once_and_as_text():
    mentions = not_allowed._parsed_mentions("a.b; a.b; x.softmax(0).c\n" * 9, frozenset(NAMES))
    assert mentions == (
        ("a", ("b",), ()),
        ("x", ("softmax",), ("softmax",)),
    )


def test_every_listed_operator_of_the_course_exists(request):
    from autograder.assignment import assignment_names, find_assignment

    root = request.config.rootpath
    for name in assignment_names(root):
        lists = read_not_allowed(find_assignment(name, root))
        assert lists.names
        for operator in lists.operators:
            packet, _, overload = operator.partition(".")
            assert hasattr(getattr(torch.ops.aten, packet), overload or "default"), operator
