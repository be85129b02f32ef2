"""What the trusted side decided about a submission."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

CheckOutcome = Literal["passed", "failed", "stopped"]


@dataclass(frozen=True)
class Finding:
    """A misconception that a submission's results agree with."""

    name: str
    sentence: str
    see: str


@dataclass(frozen=True)
class Judgement:
    """Why a case does not hold: words for the student, and others for the instructor."""

    outcome: CheckOutcome
    message: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class CheckResult:
    """The result of one hidden check.

    `description` is the first line of the check's docstring; `message` says in words what went
    wrong and never holds a hidden input or an expected value.
    """

    name: str
    description: str
    points: float
    outcome: CheckOutcome
    message: str = ""
    hint: str = ""

    @property
    def earned(self) -> float:
        """The points of a passed check, else 0."""
        return self.points if self.outcome == "passed" else 0.0


@dataclass(frozen=True)
class CellVerdict:
    """The verdict on one grade cell: its checks, and the misconceptions they point to."""

    grade_id: str
    checks: tuple[CheckResult, ...]
    findings: tuple[Finding, ...] = ()
    note: str = ""

    @property
    def points(self) -> float:
        """The most that can be earned."""
        return sum(check.points for check in self.checks)

    @property
    def earned(self) -> float:
        """What was earned."""
        return sum(check.earned for check in self.checks)


@dataclass
class SubmissionVerdict:
    """Everything the trusted side knows after grading one notebook.

    `outputs` maps the index of a code cell in the notebook to the outputs it produced; `stopped`
    maps the index of one that did not run to its end to the reason, and those in `not_run` did not
    even begin; `incidents` says in words what was stopped, damaged or mended.
    """

    cells: dict[str, CellVerdict] = field(default_factory=dict)
    outputs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    stopped: dict[int, str] = field(default_factory=dict)
    not_run: list[int] = field(default_factory=list)
    incidents: list[str] = field(default_factory=list)
