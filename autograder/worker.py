"""The work on one submission as a function from bytes to bytes.

It keeps nothing between calls and needs nothing but its argument and the course's files, so any
`concurrent.futures.Executor` can run it, in a process here or on another machine.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.assignment import hidden_assignment
from autograder.checking.judge import BrokenCheckError
from autograder.engine import Limits, grade_notebook
from autograder.record import verdict_from_dict
from autograder.verdict import SubmissionVerdict


@dataclass(frozen=True)
class Work:
    """What a worker needs to grade one submission: its notebooks and the files beside them."""

    notebooks: Mapping[str, NotebookNode]
    root: Path
    assignment: str
    class_seed: str
    limits: Limits
    confined: bool = True
    files: Mapping[str, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return this work as bytes."""
        content = {
            "notebooks": {name: nbformat.writes(nb) for name, nb in self.notebooks.items()},
            "root": str(self.root),
            "assignment": self.assignment,
            "class_seed": self.class_seed,
            "limits": asdict(self.limits),
            "confined": self.confined,
            "files": {name: base64.b64encode(data).decode() for name, data in self.files.items()},
        }
        return json.dumps(content).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Work:
        """Return the work that `to_bytes` wrote."""
        content = json.loads(data)
        texts = content["notebooks"]
        return cls(
            notebooks={name: nbformat.reads(text, as_version=4) for name, text in texts.items()},
            root=Path(content["root"]),
            assignment=content["assignment"],
            class_seed=content["class_seed"],
            limits=Limits(**content["limits"]),
            confined=content["confined"],
            files={name: base64.b64decode(text) for name, text in content["files"].items()},
        )


def grade_bytes(request: bytes) -> bytes:
    """Grade the `Work` in `request`; return its verdicts, or what is wrong with the checks."""
    work = Work.from_bytes(request)
    assignment = hidden_assignment(work.root, work.assignment)
    verdicts = {}
    with tempfile.TemporaryDirectory(prefix="files-") as folder:
        for name, data in work.files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for name, notebook in work.notebooks.items():
            try:
                verdict = grade_notebook(
                    notebook,
                    assignment,
                    limits=work.limits,
                    class_seed=work.class_seed,
                    folder=Path(folder),
                    confined=work.confined,
                )
            except BrokenCheckError as error:
                return json.dumps({"broken_check": str(error)}).encode()
            verdicts[name] = asdict(verdict)
    return json.dumps({"verdicts": verdicts}).encode()


def read_verdicts(reply: bytes) -> dict[str, SubmissionVerdict]:
    """Return the verdicts in a worker's reply, by notebook.

    Raises
    ------
    BrokenCheckError
        If a hidden check could not be collected.
    """
    content = json.loads(reply)
    if "broken_check" in content:
        raise BrokenCheckError(content["broken_check"])
    return {name: verdict_from_dict(data) for name, data in content["verdicts"].items()}
