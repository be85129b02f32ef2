import copy
import json
import random

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbgrader.nbgraderformat import MetadataValidator

from autograder.intake import Submission, parse_submission
from autograder.rebuild import grade_id_of, rebuild


def managed(name, source, *, cell_type="code", grade=False, solution=False, points=None):
    make = nbformat.v4.new_code_cell if cell_type == "code" else nbformat.v4.new_markdown_cell
    cell = make(source, id=name)
    cell.metadata["nbgrader"] = {
        "grade": grade,
        "grade_id": name,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
        "cell_type": cell_type,
    }
    if points is not None:
        cell.metadata.nbgrader["points"] = points
    return cell


def released():
    stub = "def {}(x):\n    raise NotImplementedError()"
    text = nbformat.v4.new_markdown_cell("Write two functions.", id="text")
    return nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        cells=[
            text,
            managed("imports", "import math"),
            managed("first", stub.format("first"), solution=True),
            managed("test_first", "assert first(1) == 1", grade=True, points=2),
            nbformat.v4.new_code_cell("first(2)", id="try"),
            managed("second", stub.format("second"), solution=True),
            managed("test_second", "assert second(1) == 1", grade=True, points=1),
            managed("essay", "YOUR ANSWER HERE", cell_type="markdown", grade=True, solution=True,
                    points=3),
        ],
    )  # fmt: skip


ORDER = ["imports", "first", "test_first", "second", "test_second", "essay"]
OWN_FIRST = "def first(x):\n    return x"
OWN_SECOND = "def second(x):\n    return x**2"


@pytest.fixture
def submitted():
    notebook = released()
    cell_of(notebook, "first").source = OWN_FIRST
    cell_of(notebook, "second").source = OWN_SECOND
    return notebook


def cell_of(notebook, name):
    return next(cell for cell in notebook.cells if grade_id_of(cell) == name)


def names(notebook):
    return [grade_id_of(cell) for cell in notebook.cells if grade_id_of(cell)]


def rebuilt(notebook):
    return rebuild(released(), parse_submission(json.dumps(notebook).encode()))


def test_an_undamaged_submission_stays_as_it_is(submitted):
    result = rebuilt(submitted)
    assert result.repairs == []
    assert [c.source for c in result.notebook.cells] == [c.source for c in submitted.cells]
    assert [c.metadata for c in result.notebook.cells] == [c.metadata for c in submitted.cells]
    assert result.notebook.metadata == released().metadata


def test_own_cells_stay_in_place_without_metadata_or_outputs(submitted):
    own = nbformat.v4.new_code_cell("helper = 1", id="own")
    own.metadata["tags"] = ["skip-execution"]
    own.outputs = [nbformat.v4.new_output("stream", text="forged")]
    submitted.cells.insert(3, own)
    result = rebuilt(submitted)
    cell = result.notebook.cells[3]
    assert (cell.source, cell.metadata, cell.outputs) == ("helper = 1", {}, [])
    assert names(result.notebook) == ORDER


def test_tags_on_released_cells_are_gone(submitted):
    cell_of(submitted, "test_first").metadata["tags"] = ["skip-execution"]
    assert "tags" not in cell_of(rebuilt(submitted).notebook, "test_first").metadata


def test_an_edited_grade_cell_gets_its_text_and_points_back(submitted):
    cell = cell_of(submitted, "test_first")
    cell.source, cell.metadata.nbgrader["points"] = "pass", 100
    result = rebuilt(submitted)
    assert cell_of(result.notebook, "test_first") == cell_of(released(), "test_first")
    assert result.repairs == [
        "The points of `test_first` had been changed; they were put back.",
        "The locked cell `test_first` had been edited; its text was put back.",
    ]


def test_white_space_at_line_ends_is_no_edit(submitted):
    cell_of(submitted, "imports").source = "import math  \n"
    result = rebuilt(submitted)
    assert result.repairs == []
    assert cell_of(result.notebook, "imports").source == "import math"


@pytest.mark.parametrize("name", ["imports", "test_first", "test_second", "essay"])
def test_a_missing_cell_is_put_back_in_its_place(submitted, name):
    submitted.cells = [cell for cell in submitted.cells if grade_id_of(cell) != name]
    result = rebuilt(submitted)
    assert names(result.notebook) == ORDER
    assert cell_of(result.notebook, name) == cell_of(released(), name)
    assert result.repairs == [f"The cell `{name}` was missing; it was put back."]


def test_a_missing_grade_cell_stands_after_the_helpers_of_its_answer(submitted):
    helper = nbformat.v4.new_code_cell("helper = 1", id="helper")
    submitted.cells = [cell for cell in submitted.cells if grade_id_of(cell) != "test_first"]
    submitted.cells.insert(3, helper)
    sources = [cell.source for cell in rebuilt(submitted).notebook.cells]
    assert sources.index("helper = 1") < sources.index("assert first(1) == 1")
    assert sources.index("assert first(1) == 1") < sources.index(OWN_SECOND)


def test_a_missing_answer_does_not_replace_what_was_written_elsewhere(submitted):
    cell_of(submitted, "first").source = "z = 1"
    cell_of(submitted, "first").metadata = {}
    cell_of(submitted, "imports").source = "x"
    next(cell for cell in submitted.cells if cell.id == "first").id = "other"
    submitted.cells.insert(1, nbformat.v4.new_code_cell(f"{OWN_FIRST}\n1", id="o2"))
    submitted.cells[1].source = "first = lambda x: x"
    result = rebuilt(submitted)
    assert cell_of(result.notebook, "first").source == ""
    assert names(result.notebook) == ORDER


def test_the_last_copy_that_was_worked_on_counts(submitted):
    place = submitted.cells.index(cell_of(submitted, "first"))
    stub = copy.deepcopy(cell_of(released(), "first"))
    older = copy.deepcopy(submitted.cells[place])
    older.source = "def first(x):\n    return 'older'"
    submitted.cells[place:place] = [older]
    submitted.cells.insert(place + 2, stub)
    result = rebuilt(submitted)
    assert cell_of(result.notebook, "first").source == OWN_FIRST
    sources = [cell.source for cell in result.notebook.cells]
    assert sources.index(older.source) < sources.index(OWN_FIRST)
    assert stub.source not in sources
    assert "there 3 times" in result.repairs[0]


def test_a_copied_grade_cell_is_there_once(submitted):
    submitted.cells.append(copy.deepcopy(cell_of(submitted, "test_first")))
    result = rebuilt(submitted)
    assert names(result.notebook) == ORDER
    assert result.repairs == ["The cell `test_first` was there 2 times; one was kept."]


@pytest.mark.parametrize("place", [0, 2, 8])
def test_a_moved_grade_cell_goes_back_after_its_answer(submitted, place):
    cell = cell_of(submitted, "test_first")
    submitted.cells.remove(cell)
    submitted.cells.insert(place, cell)
    result = rebuilt(submitted)
    assert names(result.notebook) == ORDER
    assert any("`test_first` had been moved" in repair for repair in result.repairs)


def test_imports_moved_to_the_end_come_first_again(submitted):
    cell = cell_of(submitted, "imports")
    submitted.cells.remove(cell)
    submitted.cells.append(cell)
    assert names(rebuilt(submitted).notebook) == ORDER


def test_answers_stay_in_the_students_order_and_grade_cells_follow_them(submitted):
    first, second = cell_of(submitted, "first"), cell_of(submitted, "second")
    i, j = submitted.cells.index(first), submitted.cells.index(second)
    submitted.cells[i], submitted.cells[j] = second, first
    order = names(rebuilt(submitted).notebook)
    assert order.index("second") < order.index("first") < order.index("test_first")
    assert order.index("second") < order.index("test_second")


def test_cells_without_metadata_are_recognised_by_id_text_or_function(submitted):
    for cell in submitted.cells:
        cell.metadata = {}
    with_ids = rebuilt(submitted)
    for cell in submitted.cells:
        del cell["id"]
    without_ids = rebuilt(submitted)
    for result in (with_ids, without_ids):
        assert result.repairs == []
        assert names(result.notebook) == ORDER
        assert cell_of(result.notebook, "first").source == OWN_FIRST


def test_a_changed_cell_type_is_put_back(submitted):
    cell = cell_of(submitted, "first")
    cell.cell_type = "markdown"
    result = rebuilt(submitted)
    assert cell_of(result.notebook, "first").cell_type == "code"
    assert cell_of(result.notebook, "first").source == OWN_FIRST
    assert "had become a markdown cell" in result.repairs[0]


def test_another_kernel_is_named_and_replaced(submitted):
    submitted.metadata.kernelspec["name"] = "julia"
    result = rebuilt(submitted)
    assert result.notebook.metadata.kernelspec.name == "python3"
    assert "'julia'" in result.repairs[0]


@pytest.mark.parametrize("version", [0, 1, 99, "x"])
def test_a_submission_cannot_bring_its_own_schema_version(submitted, version):
    for cell in submitted.cells:
        if grade_id_of(cell):
            cell.metadata.nbgrader["schema_version"] = version
    MetadataValidator().validate_nb(rebuilt(submitted).notebook)


def test_what_cannot_be_read_becomes_the_released_notebook():
    result = rebuild(released(), Submission(problem="It is empty."))
    assert result.problem == "It is empty."
    assert [c.source for c in result.notebook.cells] == [c.source for c in released().cells]


@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_whatever_is_done_to_the_cells_the_result_is_sound(rng, changes):
    notebook = released()
    notebook.metadata["autograder"] = {"problem": "forged"}
    for _ in range(changes):
        mangle(notebook, rng)
    result = rebuilt(notebook)
    nbformat.validate(result.notebook)
    MetadataValidator().validate_nb(result.notebook)
    assert sorted(names(result.notebook)) == sorted(ORDER)
    assert "autograder" not in result.notebook.metadata
    for name in ("imports", "test_first", "test_second"):
        assert cell_of(result.notebook, name) == cell_of(released(), name)
    order = names(result.notebook)
    assert order.index("first") < order.index("test_first")
    assert order.index("second") < order.index("test_second")
    again = rebuilt(result.notebook)
    assert again.notebook.cells == result.notebook.cells


def mangle(notebook, rng: random.Random):
    cells = notebook.cells
    place = rng.randrange(len(cells)) if cells else 0
    kind = rng.randrange(6)
    if kind == 0 and cells:
        del cells[place]
    elif kind == 1 and cells:
        cells.insert(rng.randrange(len(cells) + 1), copy.deepcopy(cells[place]))
    elif kind == 2 and cells:
        cells.insert(rng.randrange(len(cells)), cells.pop(place))
    elif kind == 3 and cells:
        cells[place]["source"] = rng.choice(["pass", OWN_FIRST, OWN_SECOND, ""])
    elif kind == 4 and cells:
        cells[place]["metadata"] = rng.choice([{}, {"nbgrader": {"grade_id": "first"}}])
    else:
        cells.insert(place, nbformat.v4.new_code_cell("own = 1"))
