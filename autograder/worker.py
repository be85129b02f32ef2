"""The work on one submission as a function from bytes to bytes.

It keeps nothing between calls that a later one could notice, and needs nothing but its argument and
the course's files, so any `concurrent.futures.Executor` can run it, in a process here or on another
machine. What was handed in goes in as it is; what goes into the gradebook and the autograded folder
comes out.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import Preprocessor
from traitlets.config import Config
from traitlets.utils.importstring import import_item

from autograder.assignment import Assignment, hidden_assignment
from autograder.checking.judge import BrokenCheckError
from autograder.engine import Limits, grade_notebook
from autograder.intake import Submission, parse_submission
from autograder.judged_notebook import comments_of, scores_of, write_verdict
from autograder.rebuild import rebuild
from autograder.record import Record
from autograder.skeleton import Skeleton
from autograder.verdict import SubmissionVerdict


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
    work = Work.from_bytes(request)
    if root is not None:
        work = replace(work, setting=replace(work.setting, root=root))
    try:
        graded = grade_submission(work)
    except BrokenCheckError as error:
        return json.dumps({"broken_check": str(error)}).encode()
    content = {name: {**vars(nb), "record": asdict(nb.record)} for name, nb in graded.items()}
    return json.dumps({"notebooks": content}).encode()


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


def grade_submission(work: Work, problem: str = "") -> dict[str, GradedNotebook]:
    """Rebuild, run, judge and write each notebook; with `problem`, write only that."""
    assignment = hidden_assignment(work.setting.root, work.setting.assignment)
    with tempfile.TemporaryDirectory(prefix="files-") as folder:
        for name, data in work.files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return {
            name: _graded(work, name, assignment, Path(folder), problem)
            for name in work.setting.skeletons
        }


def _graded(
    work: Work, name: str, assignment: Assignment | None, folder: Path, problem: str
) -> GradedNotebook:
    setting = work.setting
    skeleton = _skeleton(*setting.skeletons[name])
    problem = problem or work.problems.get(name, "")
    submission = Submission(problem=problem) if problem else parse_submission(work.notebooks[name])
    rebuilt = rebuild(skeleton.released, submission)
    notebook = rebuilt.notebook
    skeleton.correct(notebook)
    record = Record(
        repairs=[*work.notes, *rebuilt.repairs],
        problem=rebuilt.problem,
        seconds_late=work.seconds_late,
        digest=work.digest,
    )
    verdict = SubmissionVerdict()
    if not record.problem:
        verdict = grade_notebook(
            notebook,
            assignment,
            limits=setting.limits,
            class_seed=setting.class_seed,
            folder=folder,
            confined=setting.confined,
        )
    write_verdict(notebook, assignment, verdict, record, book_url=setting.book_url)
    names = {"assignment": setting.assignment, "notebook": name, "student": work.student}
    config = json.dumps(setting.config)
    for step in _steps(tuple(setting.steps), config):
        notebook, _ = step(notebook, {"nbgrader": names})
    scores, comments = scores_of(notebook, record), comments_of(notebook, record)
    for step in _steps(tuple(setting.later_steps), config):
        notebook, _ = step(notebook, {"nbgrader": names})
    nbformat.validate(notebook)
    text = nbformat.v4.writes(notebook) + "\n"
    return GradedNotebook(text, scores, comments, record)


@lru_cache(maxsize=16)
def _skeleton(released: str, corrected: str) -> Skeleton:
    return Skeleton(*(nbformat.reads(text, as_version=4) for text in (released, corrected)))


@lru_cache(maxsize=2)
def _steps(names: tuple[str, ...], config: str) -> list[Preprocessor]:
    """Return nbgrader's and nbconvert's own steps, configured for the course."""
    return [import_item(name)(config=Config(json.loads(config))) for name in names]
