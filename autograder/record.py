"""What is kept of a graded submission, in the metadata of its autograded notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbformat import NotebookNode

from autograder.intake import NO_FILE
from autograder.verdict import CellVerdict, CheckResult, Finding

METADATA_KEY = "autograder"


@dataclass
class Record:
    """The trusted side's account of one graded notebook.

    `problem` says why the submission could not be read or graded, `repairs` what was mended on the
    way in, `incidents` what was stopped while it ran; `shared` holds those of these sentences that
    are said of the submission as a whole, and so stand in the record of each of its notebooks;
    `digest` names everything that the result depends on.
    """

    repairs: list[str] = field(default_factory=list)
    problem: str = ""
    incidents: list[str] = field(default_factory=list)
    cells: dict[str, CellVerdict] = field(default_factory=dict)
    seconds_late: float = 0.0
    digest: str = ""
    shared: list[str] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """All that a reader should know apart from the checks."""
        problem = [self.problem] if self.problem else []
        return [*problem, *self._lateness, *self.repairs, *self.incidents]

    @property
    def not_handed_in(self) -> bool:
        """Whether there is no file of this notebook."""
        return self.problem.startswith(NO_FILE)

    @property
    def of_submission(self) -> list[str]:
        """The sentences on the submission as a whole."""
        return [*self._lateness, *self.shared]

    @property
    def of_notebook(self) -> list[str]:
        """The sentences on this notebook alone."""
        return [text for text in self.sentences if text not in self.of_submission]

    @property
    def _lateness(self) -> list[str]:
        return [f"Handed in {duration(self.seconds_late)} late."] if self.seconds_late else []

    @property
    def findings(self) -> list[Finding]:
        """The misconceptions that were recognised."""
        return [finding for cell in self.cells.values() for finding in cell.findings]

    def write_to(self, notebook: NotebookNode) -> None:
        """Keep this record in a notebook's metadata."""
        notebook.metadata[METADATA_KEY] = NotebookNode(self.to_dict())

    @classmethod
    def read_from(cls, notebook: Mapping[str, Any]) -> Record:
        """Return the record that a notebook keeps, or an empty one; cells in their order there."""
        record = cls.from_dict(notebook["metadata"].get(METADATA_KEY, {}))
        cells = notebook["cells"]
        names = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in cells]
        record.cells = {name: record.cells[name] for name in names if name in record.cells}
        return record

    def to_dict(self) -> dict[str, Any]:
        """Return this record as what JSON can hold, as `dataclasses.asdict` would, but faster."""
        return {**vars(self), "cells": {name: _cell_dict(c) for name, c in self.cells.items()}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """Return the record that `to_dict` made `data` from."""
        fields = {key: value for key, value in data.items() if key != "cells"}
        cells = {name: cell_from_dict(cell) for name, cell in data.get("cells", {}).items()}
        return cls(**fields, cells=cells)


def _cell_dict(cell: CellVerdict) -> dict[str, Any]:
    checks = [{**vars(check)} for check in cell.checks]
    findings = [{**vars(finding)} for finding in cell.findings]
    return {**vars(cell), "checks": checks, "findings": findings}


def cell_from_dict(data: dict[str, Any]) -> CellVerdict:
    """Return the verdict on a cell that `dataclasses.asdict` made `data` from."""
    return CellVerdict(
        grade_id=data["grade_id"],
        checks=tuple(CheckResult(**check) for check in data["checks"]),
        findings=tuple(Finding(**finding) for finding in data["findings"]),
        note=data["note"],
    )


def duration(seconds: float) -> str:
    """Return a duration in words, in its two largest units.

    Examples
    --------
    >>> duration(60 * 60 * 25)
    '1 day 1 hour'
    >>> duration(30)
    '30 seconds'
    """
    parts = []
    left = round(seconds)
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(parts[:2]) or "0 seconds"


def points_text(earned: float, points: float) -> str:
    """Return points in words.

    Examples
    --------
    >>> points_text(2.5, 4)
    '2.5 of 4 points'
    """
    return f"{number(earned)} of {number(points)} point{'' if points == 1 else 's'}"


def number(value: float) -> str:
    """Return a number without needless digits.

    Examples
    --------
    >>> number(2.0), number(1 / 3)
    ('2', '0.33')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")
