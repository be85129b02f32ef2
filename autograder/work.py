"""What goes to a worker and what comes back, as bytes.

The process that hands out the work loads this module and not what does it.
"""

from __future__ import annotations

import base64
import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from autograder.assignment import BrokenCheckError, hidden_assignment
from autograder.fork_server import is_loading, start_ahead
from autograder.limits import Limits
from autograder.loading import load
from autograder.record import Record

WORKER = "autograder.worker"


@dataclass(frozen=True)
class Setting:
    """What is the same for all submissions of an assignment.

    `skeletons` holds, for each notebook, the texts of the released notebook and of the one that is
    corrected by the gradebook; `steps` and `later_steps` name the preprocessors that change what a
    cell shows before and after scores are taken from it.
    """

    root: Path
    assignment: str
    skeletons: Mapping[str, tuple[str, str]]
    class_seed: str = ""
    limits: Limits = field(default_factory=Limits)
    confined: bool = True
    book_url: str = ""
    steps: Sequence[str] = ()
    later_steps: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What a worker needs to grade one submission.

    `notebooks` holds the files as they were handed in, `problems` why one could not be read,
    `files` what lies beside them, `notes` what is to be said of the submission as a whole.
    """

    setting: Setting
    student: str
    notebooks: Mapping[str, bytes]
    problems: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: Sequence[str] = ()
    seconds_late: float = 0.0
    digest: str = ""

    def to_bytes(self) -> bytes:
        """Return this work as bytes."""
        content = {**vars(self), "setting": {**vars(self.setting)}}
        content["setting"]["root"] = str(self.setting.root)
        content["setting"]["limits"] = asdict(self.setting.limits)
        for name in ("notebooks", "files"):
            content[name] = {
                key: base64.b64encode(data).decode() for key, data in content[name].items()
            }
        return json.dumps(content).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Work:
        """Return the work that `to_bytes` wrote."""
        content = json.loads(data)
        setting = content["setting"]
        setting["root"] = Path(setting["root"])
        setting["limits"] = Limits(**setting["limits"])
        content["setting"] = Setting(**setting)
        for name in ("notebooks", "files"):
            content[name] = {key: base64.b64decode(text) for key, text in content[name].items()}
        return cls(**content)


@dataclass(frozen=True)
class GradedNotebook:
    """What is kept of a notebook: its autograded text, and what goes into the gradebook."""

    text: str
    scores: Mapping[str, float | None]
    comments: Mapping[str, str | None]
    record: Record


def grade_bytes(request: bytes, root: Path | None = None) -> bytes:
    """Grade the `Work` in `request`; return what is to be kept, or what is wrong with the checks.

    `root` is where the course's checks lie, if not where the request says.
    """
    work = _work_in(request, root)
    _prepare_for(work)
    try:
        graded = load(WORKER).grade_submission(work)
    except BrokenCheckError as error:
        return json.dumps({"broken_check": str(error)}).encode()
    content = {name: {**vars(nb), "record": nb.record.to_dict()} for name, nb in graded.items()}
    return json.dumps({"notebooks": content}).encode()


def prepare(request: bytes, root: Path | None = None) -> None:
    """Start and load what grading such requests needs, in this process and those it forks."""
    work = _work_in(request, root)
    _prepare_for(work)
    load(WORKER).prepare(work.setting)


def rehearse(request: bytes, root: Path | None = None) -> bool:
    """Judge the bank until all is loaded; tell whether that left nothing in this process."""
    left_nothing: bool = load(WORKER).rehearse(_work_in(request, root).setting, go_on=is_loading)
    gc.freeze()
    return left_nothing


def _work_in(request: bytes, root: Path | None) -> Work:
    work = Work.from_bytes(request)
    return work if root is None else replace(work, setting=replace(work.setting, root=root))


def _prepare_for(work: Work) -> None:
    """Start what loads its libraries beside this process."""
    assignment = hidden_assignment(work.setting.root, work.setting.assignment)
    start_ahead(work.setting.confined, assignment.root if assignment else None)


def read_graded(reply: bytes) -> dict[str, GradedNotebook]:
    """Return the graded notebooks in a worker's reply.

    Raises
    ------
    BrokenCheckError
        If a hidden check could not be collected.
    """
    content = json.loads(reply)
    if "broken_check" in content:
        raise BrokenCheckError(content["broken_check"])
    return {
        name: GradedNotebook(**{**notebook, "record": Record.from_dict(notebook["record"])})
        for name, notebook in content["notebooks"].items()
    }
