"""What every assignment's source, the instructor's text notebook, promises its students."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import pytest
import torch

from autograder.assignment import Assignment, assignment_names, find_assignment

ROOT = Path(__file__).parents[2]
ASSIGNMENTS = [find_assignment(name, ROOT) for name in assignment_names(ROOT)]
SECTIONS = ("Task", "Approach", "Example", "Hints", "Parameters", "Returns")

every_assignment = pytest.mark.parametrize(
    "assignment", ASSIGNMENTS, ids=lambda assignment: assignment.name
)


def code_cells(assignment: Assignment, kind: str) -> list[Any]:
    """Return the code cells that carry an nbgrader mark: "locked", "solution" or "grade"."""
    cells = jupytext.read(assignment.source).cells
    return [
        cell
        for cell in cells
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get(kind)
    ]


def solution_namespace(assignment: Assignment) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    imports = [
        cell for cell in code_cells(assignment, "locked") if not cell.metadata.nbgrader.grade
    ]
    for cell in [*imports, *code_cells(assignment, "solution")]:
        exec(compile(cell.source, assignment.source.name, "exec"), namespace)
    return namespace


def solution_functions(assignment: Assignment) -> dict[str, Any]:
    namespace = solution_namespace(assignment)
    return {name: namespace[name] for name in _names(code_cells(assignment, "solution"))}


def _names(cells: list[Any]) -> list[str]:
    return [cell.metadata.nbgrader.grade_id for cell in cells]


@every_assignment
def test_each_function_is_explained_in_the_same_sections(assignment):
    for name, function in solution_functions(assignment).items():
        lines = [line.strip() for line in function.__doc__.splitlines()]
        found = [line for line in lines if line in SECTIONS]
        assert found == list(SECTIONS), name


@every_assignment
def test_the_examples_in_docstrings_are_right(assignment):
    namespace = solution_namespace(assignment)
    runner = doctest.DocTestRunner(verbose=False)
    for name, function in solution_functions(assignment).items():
        test = doctest.DocTestParser().get_doctest(function.__doc__, namespace, name, None, 0)
        assert test.examples, name
        report: list[str] = []
        assert runner.run(test, out=report.append).failed == 0, "".join(report)


@every_assignment
def test_the_visible_examples_accept_the_solution_and_reject_zeros(assignment):
    namespace = solution_namespace(assignment)
    for cell in code_cells(assignment, "grade"):
        exec(compile(cell.source, "visible", "exec"), dict(namespace))
        function = cell.metadata.nbgrader.grade_id.removeprefix("test_")
        solution = namespace[function]
        zeros = {
            **namespace,
            function: lambda *inputs, right=solution: torch.zeros_like(right(*inputs)),
        }
        with pytest.raises(AssertionError, match="should"):
            exec(compile(cell.source, "visible", "exec"), zeros)


@every_assignment
def test_each_grade_cell_says_where_the_full_check_is(assignment):
    for cell in code_cells(assignment, "grade"):
        assert f"autograder check {assignment.name}.ipynb" in cell.source


@every_assignment
def test_links_lead_to_chapters_and_their_anchors(assignment):
    targets = re.findall(r"\]\((\.\./[^)]*)\)", assignment.source.read_text())
    assert targets
    for target in targets:
        path, _, anchor = target.partition("#")
        chapter = (assignment.release.parent / path).resolve()
        assert chapter.is_file(), target
        assert not anchor or f"({anchor})=" in chapter.read_text().splitlines(), target


@every_assignment
def test_the_text_names_everything_that_is_not_allowed(assignment):
    items = [line for line in assignment.source.read_text().splitlines() if line.startswith("- ")]
    listed = set(re.findall(r"`([\w.]+)`", " ".join(items)))
    names = (assignment.checks / "not_allowed.txt").read_text().split()
    assert [name for name in names if name not in listed] == []


@every_assignment
def test_the_whole_notebook_runs_with_the_solution(assignment, tmp_path):
    notebook = jupytext.read(assignment.source)
    nbclient.execute(notebook, cwd=tmp_path, timeout=120)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
