"""The hidden checks of every assignment against its solution and its bank."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import pytest
import torch

from autograder.assignment import Assignment, assignment_names, find_assignment
from autograder.bank import Equivalent, Misconception, load_bank
from autograder.checking import judge
from autograder.checking.cell_judge import CellJudge
from autograder.checking.collected import collected_checks
from autograder.checking.student import DirectCaller
from autograder.verdict import CellVerdict

ROOT = Path(__file__).parents[2]
ASSIGNMENTS = [find_assignment(name, ROOT) for name in assignment_names(ROOT)]
BANKS = {assignment.name: load_bank(assignment) for assignment in ASSIGNMENTS}
# Checks draw their inputs from a class's secret, so one draw that happens to work proves little.
CLASS_SEEDS = ("", "another class")


def grade_cells(assignment: Assignment) -> dict[str, float]:
    """Return the points of each grade cell in an assignment's source."""
    metadata = [
        cell.metadata.get("nbgrader", {}) for cell in jupytext.read(assignment.source).cells
    ]
    return {entry["grade_id"]: entry["points"] for entry in metadata if entry.get("grade")}


@cache
def definitions(assignment: Assignment, *, solutions: bool) -> dict[str, Any]:
    """Run the first code cell of an assignment, and its solution cells if asked."""
    namespace: dict[str, Any] = {}
    cells = [cell for cell in jupytext.read(assignment.source).cells if cell.cell_type == "code"]
    chosen = [cells[0]]
    if solutions:
        chosen += [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")]
    for cell in chosen:
        exec(compile(cell.source, assignment.source.name, "exec"), namespace)
    return namespace


def solution_of(assignment: Assignment, function: str) -> Callable[..., Any]:
    return definitions(assignment, solutions=True)[function]


def pasted(assignment: Assignment, entry: Misconception | Equivalent) -> Callable[..., Any]:
    """Return a bank entry as a student's notebook would hold it."""
    namespace = dict(definitions(assignment, solutions=False))
    exec(compile(entry.source, entry.name, "exec"), namespace)
    return namespace[entry.function]


def judged(
    assignment: Assignment, function: str, implementation: Callable[..., Any], seed: str = ""
) -> CellVerdict:
    verdict = judge(assignment, {function: implementation}, class_seed=seed)[f"test_{function}"]
    assert verdict.note == "", "a check raised an error of its own"
    return verdict


def functions_of(assignment: Assignment) -> list[str]:
    return [grade_id.removeprefix("test_") for grade_id in grade_cells(assignment)]


FUNCTIONS = [
    pytest.param(assignment, function, id=f"{assignment.name}-{function}")
    for assignment in ASSIGNMENTS
    for function in functions_of(assignment)
]
MISCONCEPTIONS = [
    pytest.param(assignment, entry, id=f"{assignment.name}-{entry.function}-{entry.name}")
    for assignment in ASSIGNMENTS
    for entry in BANKS[assignment.name].misconceptions
]
EQUIVALENTS = [
    pytest.param(assignment, entry, id=f"{assignment.name}-{entry.function}-{entry.name}")
    for assignment in ASSIGNMENTS
    for entry in BANKS[assignment.name].equivalents
]


@pytest.mark.parametrize(("assignment", "entry"), MISCONCEPTIONS)
def test_a_misconception_loses_points_and_is_the_only_one_named(assignment, entry, record_property):
    verdicts = [
        judged(assignment, entry.function, pasted(assignment, entry), seed) for seed in CLASS_SEEDS
    ]
    rejected = all(verdict.earned < verdict.points for verdict in verdicts)
    named = [[finding.name for finding in verdict.findings] for verdict in verdicts]
    label = f"{assignment.name}.{entry.function}"
    record_property("bank", (label, "rejected", rejected))
    record_property("bank", (label, "named", all(names == [entry.name] for names in named)))
    assert rejected
    assert named == [[entry.name]] * len(CLASS_SEEDS)
    assert verdicts[0].findings[0].sentence == entry.sentence


@pytest.mark.parametrize(("assignment", "entry"), EQUIVALENTS)
def test_an_equivalent_gets_all_points(assignment, entry, record_property):
    verdicts = [
        judged(assignment, entry.function, pasted(assignment, entry), seed) for seed in CLASS_SEEDS
    ]
    accepted = all(verdict.earned == verdict.points for verdict in verdicts)
    record_property("bank", (f"{assignment.name}.{entry.function}", "accepted", accepted))
    assert accepted, [check for check in verdicts[0].checks if check.outcome != "passed"]


@pytest.mark.parametrize(("assignment", "function"), FUNCTIONS)
def test_the_solution_gets_the_points_that_its_grade_cell_states(assignment, function):
    verdict = judged(assignment, function, solution_of(assignment, function))
    assert verdict.earned == verdict.points == grade_cells(assignment)[f"test_{function}"]


@pytest.mark.parametrize("fake", ["zeros", "ones", "nan", "argument", "none", "unfinished"])
@pytest.mark.parametrize(("assignment", "function"), FUNCTIONS)
def test_a_made_up_result_earns_nothing(assignment, function, fake):
    solution = solution_of(assignment, function)

    def fill(arguments, value):
        return solution(*arguments).detach() * 0 + value

    def unfinished():
        raise NotImplementedError

    fakes = {
        "zeros": lambda *arguments: torch.nan_to_num(fill(arguments, 0.0)),
        "ones": lambda *arguments: torch.nan_to_num(fill(arguments, 0.0)) + 1,
        "nan": lambda *arguments: fill(arguments, torch.nan),
        "argument": lambda *arguments: arguments[0],
        "none": lambda *arguments: None,
        "unfinished": lambda *arguments: unfinished(),
    }
    verdict = judged(assignment, function, fakes[fake])
    assert [check.name for check in verdict.checks if check.outcome == "passed"] == []
    assert verdict.findings == ()


def tensors_in(values: Any) -> list[torch.Tensor]:
    """Return the tensors that say more than one number."""
    return [
        value
        for value in values
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 1
    ]


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=lambda assignment: assignment.name)
@pytest.mark.parametrize("seed", CLASS_SEEDS)
def test_no_check_is_given_what_another_expects(assignment, seed):
    """Functions can keep what they were given: the processes of a submission share a folder."""
    calls = []
    for function in functions_of(assignment):
        caller = DirectCaller({function: solution_of(assignment, function)})
        cell = CellJudge(function, lambda caller=caller: caller, seed)
        cell.judge(collected_checks(assignment, assignment.check_file(f"test_{function}")))
        calls += cell.calls
    replies = [call.reply for call in calls if call.reply is not None]
    expected = tensors_in(
        value
        for reply in replies
        for value in (reply.value, *reply.gradients, *reply.double_gradients)
    )
    # what is all zeros, or another number, is no secret
    expected = [value for value in expected if value.min() < value.max()]
    assert len(expected) > len(FUNCTIONS)
    for call in calls:
        for given in tensors_in(call.arguments):
            alike = [value.detach() for value in expected if value.shape == given.shape]
            assert not any(torch.allclose(value.to(given), given) for value in alike), call.function


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=lambda assignment: assignment.name)
def test_every_check_file_belongs_to_a_grade_cell_and_has_a_bank(assignment):
    check_files = {path.stem for path in assignment.checks.glob("test_*.py")}
    bank_files = {f"test_{path.stem}" for path in assignment.bank.glob("*.py")}
    assert check_files == bank_files == set(grade_cells(assignment))


@pytest.mark.parametrize(("assignment", "function"), FUNCTIONS)
def test_each_bank_is_large_enough_and_says_each_thing_once(assignment, function):
    bank = BANKS[assignment.name]
    misconceptions = bank.misconceptions_of(function)
    assert len(misconceptions) >= 8
    assert len(bank.equivalents_of(function)) >= 4
    sentences = [entry.sentence for entry in misconceptions]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize(("assignment", "entry"), MISCONCEPTIONS)
def test_a_misconception_leads_to_a_place_in_the_book(assignment, entry):
    page, anchor = entry.see.split("#")
    chapter = ROOT / "book" / "chapters" / f"{page}.md"
    assert f"({anchor})=" in chapter.read_text().splitlines()


def attributes(source: str) -> set[str]:
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize(("assignment", "entry"), EQUIVALENTS)
def test_an_equivalent_uses_only_what_students_may_use(assignment, entry):
    names = (assignment.checks / "not_allowed.txt").read_text().split()
    assert attributes(entry.source).isdisjoint(name.split(".")[-1] for name in names)
