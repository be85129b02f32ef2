"""Where the files of an assignment are, and what can be wrong with them."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

CONFIG_FILE = "nbgrader_config.py"


class UnknownAssignmentError(LookupError):
    """No assignment of that name is there."""


class BrokenCheckError(RuntimeError):
    """A hidden check or its bank cannot be used: the instructor's mistake, not a student's."""


@dataclass(frozen=True)
class Assignment:
    """The files of one assignment of the course at `root`."""

    name: str
    root: Path

    @property
    def source(self) -> Path:
        """The instructor's text notebook: solutions and visible examples."""
        return self.root / "solutions" / self.name / f"{self.name}.md"

    @property
    def release(self) -> Path:
        """The student's notebook, generated from the source."""
        return self.root / "exercises" / self.name / f"{self.name}.ipynb"

    @property
    def checks(self) -> Path:
        """The folder of hidden checks; grade cell `test_softmax` has `test_softmax.py` there."""
        return self.root / "tests" / "hidden" / self.name

    @property
    def bank(self) -> Path:
        """The folder of misconceptions and equivalents, one file per function."""
        return self.checks / "bank"

    @property
    def release_command(self) -> str:
        """The command that releases it: nbgrader's own where there is no text source."""
        command = "autograder release" if self.source.is_file() else "nbgrader generate_assignment"
        return f"{command} {self.name}"

    def check_file(self, grade_id: str) -> Path | None:
        """Return the hidden checks of one grade cell, or None when it has none."""
        path = self.checks / f"{grade_id}.py"
        return path if path.is_file() else None


def project_root() -> Path:
    """Return the course's root: `AUTOGRADER_ROOT`, else the nearest folder that nbgrader knows."""
    if "AUTOGRADER_ROOT" in os.environ:
        return Path(os.environ["AUTOGRADER_ROOT"]).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / CONFIG_FILE).is_file():
            return folder
    raise FileNotFoundError(
        f"{here} is not inside a course: expected nbgrader's {CONFIG_FILE} here or above (an empty "
        "file will do); change into the course or set AUTOGRADER_ROOT"
    )


def assignment_names(root: Path) -> list[str]:
    """Return the names of all assignments with a source."""
    return sorted(path.parent.name for path in root.glob("solutions/*/*.md"))


def find_assignment(name: str, root: Path | None = None) -> Assignment:
    """Return the assignment called `name`; raise `UnknownAssignmentError` if it has no source."""
    root = project_root() if root is None else root
    return named_assignment(name, assignment_names(root), root)


def named_assignment(name: str, names: Collection[str], root: Path) -> Assignment:
    """Return the assignment called `name`; raise `UnknownAssignmentError` if not in `names`."""
    if name not in names:
        close = get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UnknownAssignmentError(
            f"unknown assignment {name!r}: expected one of {', '.join(names) or '(none)'}{hint}"
        )
    return Assignment(name, root)


def hidden_assignment(root: Path, name: str) -> Assignment | None:
    """Return the assignment if it has hidden checks, else None."""
    assignment = Assignment(name, root)
    return assignment if any(assignment.checks.glob("test_*.py")) else None
