"""The student's file of every assignment holds nothing that students must not see."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autograder.assignment import Assignment, assignment_names, find_assignment

ROOT = Path(__file__).parents[2]
ASSIGNMENTS = [find_assignment(name, ROOT) for name in assignment_names(ROOT)]
# Such lines stand in any notebook and give nothing away.
TRIVIAL = re.compile(r"(import|from)\s.*|\W*|\W*\w+\W*")


def telling_lines(text: str) -> set[str]:
    """Return the lines of a text that would give something away."""
    lines = {line.strip() for line in text.splitlines()}
    return {line for line in lines if not TRIVIAL.fullmatch(line)}


def solution_lines(assignment: Assignment) -> set[str]:
    regions = re.findall(
        r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", assignment.source.read_text(), re.DOTALL
    )
    return set().union(*map(telling_lines, regions))


def hidden_lines(assignment: Assignment) -> set[str]:
    files = assignment.checks.rglob("*.py")
    return set().union(*(telling_lines(path.read_text()) for path in files))


def strings(value: Any) -> Iterator[str]:
    """Yield every string in a notebook: sources, metadata, outputs, and the keys of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        yield "".join(item for item in value if isinstance(item, str))
        for item in value:
            yield from strings(item)


def leaked(notebook: dict[str, Any], secrets: set[str]) -> set[str]:
    """Return the secret lines that a notebook holds, alone or inside a longer line."""
    text = "\n".join(strings(notebook))
    return {line for line in secrets if line in text}


@pytest.fixture(params=ASSIGNMENTS, ids=lambda assignment: assignment.name)
def assignment(request: pytest.FixtureRequest) -> Assignment:
    return request.param


@pytest.fixture
def release(assignment: Assignment) -> dict[str, Any]:
    assert assignment.release.is_file(), "run `autograder release` first"
    return json.loads(assignment.release.read_text())


def test_no_line_of_a_solution_is_released(assignment, release):
    secrets = solution_lines(assignment)
    assert secrets
    assert leaked(release, secrets) == set()


def test_no_line_of_a_hidden_check_or_bank_is_released(assignment, release):
    secrets = hidden_lines(assignment)
    assert secrets
    assert leaked(release, secrets) == set()


def test_a_leak_is_found_in_source_metadata_and_output(assignment, release):
    secret = max(solution_lines(assignment) | hidden_lines(assignment), key=len)
    cell = release["cells"][-1]
    for place in (
        {**cell, "source": ["x = 1\n", f"    {secret}\n"]},
        {**cell, "metadata": {"note": {"deep": [secret]}}},
        {**cell, "outputs": [{"data": {"text/plain": [f"before\n{secret}"]}}]},
    ):
        assert leaked({**release, "cells": [place]}, {secret}) == {secret}


def test_the_release_has_no_output_and_no_solution_mark(release):
    for cell in release["cells"]:
        assert not cell.get("outputs")
        assert "BEGIN SOLUTION" not in "".join(cell["source"])
        assert cell.get("execution_count") is None


def test_each_solution_cell_keeps_signature_and_docstring(release):
    cells = [
        cell
        for cell in release["cells"]
        if cell["cell_type"] == "code" and cell["metadata"].get("nbgrader", {}).get("solution")
    ]
    assert cells
    for cell in cells:
        source = "".join(cell["source"])
        assert f"def {cell['metadata']['nbgrader']['grade_id']}(" in source
        assert "Approach" in source
        assert source.rstrip().endswith("raise NotImplementedError()")
