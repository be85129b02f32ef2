"""Grades one notebook: runs it in the student's process and judges it outside that process."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

from autograder.assignment import Assignment
from autograder.bank import load_bank
from autograder.checking.judge import judge_cell
from autograder.checking.student import Caller
from autograder.fork_server import leave_server_that_ends, make_ready, secret_folders
from autograder.intake import quoted, read_file, require_size
from autograder.limits import Limits
from autograder.not_allowed import NOTHING, NotAllowed, read_not_allowed, uses
from autograder.outputs import AFTER_THE_LAST_ANSWER
from autograder.settled_functions import settled_functions
from autograder.student_process import OFTEN_USED, StudentProcess, WarmProcess, need_of
from autograder.verdict import SubmissionVerdict

__all__ = ["Limits", "NotebookRun", "grade_notebook", "read_notebook"]

UNCLEAR = "a hidden check could not be carried out; the instructor can see why."
NOT_RUN = {"output_type": "stream", "name": "stdout", "text": AFTER_THE_LAST_ANSWER}
MAX_FILES = 2_000
# what even an empty file takes of a file system
BLOCK = 4096
# what a notebook finds beside it: the contents by name, or the folder that holds them
GivenFiles = Mapping[str, bytes] | Path | None
_warm: dict[bool, WarmProcess] = {}


def grade_notebook(
    notebook: NotebookNode,
    assignment: Assignment | None,
    *,
    limits: Limits | None = None,
    class_seed: str = "",
    files: GivenFiles = None,
    confined: bool = True,
) -> SubmissionVerdict:
    """Run a notebook and judge its grade cells; nothing that a student does raises.

    Parameters
    ----------
    notebook
        Notebook (nbformat 4) whose grade cells are the instructor's.
    assignment
        Where the hidden checks are; None for a course without hidden checks.
    limits
        What the submission may use.
    class_seed
        The secret that the checks' random inputs come from.
    files
        What the notebook finds in its working folder: the contents by name, or a folder, which is
        copied and never changed.
    confined
        Whether the notebook's process is confined; if not, it can read and write what you can.

    Raises
    ------
    BrokenCheckError
        If a hidden check cannot be collected.
    ConfinementUnavailableError
        If `confined` and this machine cannot confine a process.
    """
    start = partial(
        NotebookRun, notebook, assignment, limits=limits, files=files, confined=confined
    )
    run = start(settle=True)
    try:
        verdict = run.run_cells()
        if run.lost_settled():
            run.close()
            run = start()
            verdict = run.run_cells()
        if assignment is not None:
            bank = load_bank(assignment)
            for grade_id in run.judged:
                cell = judge_cell(
                    assignment,
                    grade_id,
                    run.caller_of(grade_id),
                    class_seed=class_seed,
                    bank=bank,
                    settled=run.later is not None,
                )
                if cell.note:
                    # the note is for the instructor: it could hold a hidden input
                    verdict.incidents.append(f"{grade_id}: {UNCLEAR}")
                verdict.cells[grade_id] = cell
    finally:
        run.close()
    return verdict


class NotebookRun:
    """One run of a notebook, with a snapshot at each grade cell that has hidden checks.

    With `settle`, one at the end stands for all where reading shows that the functions stay what
    they are. `warm` and `without`, a warm process of one's own and layers of confinement to leave
    out, are for tests.
    """

    def __init__(
        self,
        notebook: NotebookNode,
        assignment: Assignment | None,
        *,
        limits: Limits | None = None,
        files: GivenFiles = None,
        confined: bool = True,
        warm: WarmProcess | None = None,
        without: Sequence[str] = (),
        settle: bool = False,
    ) -> None:
        self.notebook = notebook
        self.assignment = assignment
        self.judged = [name for cell in notebook.cells if (name := _judged_id(cell, assignment))]
        limits = limits or Limits()
        own_files, self.noticed = files_of(files, limits)
        root = assignment.root if assignment is not None else None
        not_allowed = read_not_allowed(assignment)
        self.noticed += uses(notebook, not_allowed.names)
        modules = _often_used(notebook, assignment)
        warm = warm or warm_process(confined, root, modules, not_allowed)
        self.process = StudentProcess(warm, own_files, limits, not_allowed, without)
        # names that are defined only after a grade cell, if the functions are settled
        self.later = self._settled() if settle else None
        self.reached: list[str] = []

    def _settled(self) -> dict[str, frozenset[str]] | None:
        """Return what `settled_functions` says of the cells that are run."""
        cells = enumerate(_cells_that_count(self.notebook, self.assignment))
        sources = {index: cell.source for index, cell in cells if cell.cell_type == "code"}
        ids = {index: _grade_id(self.notebook.cells[index]) for index in sources}
        judged = {index: name for index, name in ids.items() if name in self.judged}
        return settled_functions(sources, judged) if judged else None

    def run_cells(self) -> SubmissionVerdict:
        """Run the code cells in order; return the outputs and what had to be stopped.

        Where hidden checks judge the notebook, what comes after the last answer or grade cell
        cannot change a verdict and is not run.
        """
        verdict = SubmissionVerdict(incidents=list(self.noticed))
        stopped = ""
        last = len(_cells_that_count(self.notebook, self.assignment)) - 1
        for index, cell in enumerate(self.notebook.cells):
            if cell.cell_type != "code":
                continue
            if index > last:
                verdict.outputs[index] = [dict(NOT_RUN)]
                continue
            is_over = self.process.is_over
            if is_over:
                self._keep_settled()
            outputs, reason = self.process.run_cell(cell.source)
            verdict.outputs[index] = outputs
            if reason:
                verdict.stopped[index] = reason
            if reason and is_over:
                verdict.not_run.append(index)
            if reason and reason != stopped:
                verdict.incidents.append(f"Cell {index + 1}: {reason}.")
                stopped = reason
            grade_id = _grade_id(cell)
            # where the process has ended, a second run would come no further
            if grade_id in self.judged and not self.process.ended:
                self.reached.append(grade_id)
                if self.later is None:
                    self.process.take_snapshot(grade_id, last=index == last)
        self._keep_settled(last=True)
        return verdict

    def _keep_settled(self, *, last: bool = False) -> None:
        """Take the one snapshot of settled functions, if it is not there yet."""
        if self.later is not None and self.reached and not self.process.snapshots:
            self.process.take_snapshot(*self.reached, last=last)

    def lost_settled(self) -> bool:
        """Tell whether the process ended before the one snapshot of settled functions was taken."""
        return self.later is not None and bool(self.reached) and not self.process.snapshots

    def caller_of(self, grade_id: str) -> Callable[[], Caller]:
        """Return what makes a caller of the functions as they were at a grade cell."""
        undefined = (self.later or {}).get(grade_id, frozenset())
        return lambda: self.process.caller_at(grade_id, undefined)

    def close(self) -> None:
        """End the notebook's processes."""
        self.process.close()


def files_of(given: GivenFiles, limits: Limits) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Return a submission's files, and sentences about those that were left out."""
    files: list[tuple[str, bytes]] = []
    left_out: list[str] = []
    room = limits.folder_size // 2
    entries = _entries_of(given)
    if len(entries) > MAX_FILES:
        left_out.append(f"Only {MAX_FILES} of {len(entries)} files and folders were read.")
    for name, entry in entries[:MAX_FILES]:
        if isinstance(entry, Path) and entry.is_symlink():
            left_out.append(f"The file {quoted(name)} is a symbolic link and was left out.")
        elif isinstance(entry, bytes) or entry.is_file():
            most = max(0, min(room, limits.file_size))
            try:
                content = read_file(entry, most) if isinstance(entry, Path) else entry
                require_size(len(content), most)
            except OSError as error:
                reason = error.strerror or error
                left_out.append(f"The file {quoted(name)} was left out: {reason}.")
                continue
            room -= len(content) + BLOCK
            files.append((name, content))
    return files, left_out


def _entries_of(given: GivenFiles) -> Sequence[tuple[str, Path | bytes]]:
    """Return the names and places of what lies below a folder, or the names and contents given."""
    if isinstance(given, Path):
        return [(str(path.relative_to(given)), path) for path in _paths_below(given)]
    return sorted((given or {}).items())


def _paths_below(folder: Path) -> list[Path]:
    """Return all that lies below a folder, however deep, without following links."""
    found: list[Path] = []
    pending = [folder]
    while pending and len(found) <= MAX_FILES:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                found.append(Path(entry.path))
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
    return sorted(found)


def _cells_that_count(
    notebook: NotebookNode, assignment: Assignment | None
) -> Sequence[NotebookNode]:
    """Return the cells down to the last that can change a verdict: all, without hidden checks."""
    cells: Sequence[NotebookNode] = notebook.cells
    if not any(_judged_id(cell, assignment) for cell in cells):
        return cells
    last = max(index for index, cell in enumerate(cells) if _is_answer_or_grade(cell))
    return cells[: last + 1]


def _judged_id(cell: NotebookNode, assignment: Assignment | None) -> str:
    """Return the name of a grade cell that has hidden checks, or an empty string."""
    name = _grade_id(cell)
    has_checks = name and assignment is not None and assignment.check_file(name)
    return name if has_checks else ""


def _is_answer_or_grade(cell: NotebookNode) -> bool:
    metadata: Any = cell.metadata.get("nbgrader", {})
    return any(metadata.get(kind) for kind in ("grade", "solution", "task"))


def _grade_id(cell: NotebookNode) -> str:
    """Return the id of an automatically graded cell, or an empty string."""
    metadata: Any = cell.metadata.get("nbgrader", {})
    if cell.cell_type == "code" and metadata.get("grade") and not metadata.get("solution"):
        return str(metadata.get("grade_id", ""))
    return ""


def make_process_ready(notebook: NotebookNode, assignment: Assignment | None) -> None:
    """Have all made ready that the process of such a notebook needs, if its server loads now."""
    modules = _often_used(notebook, assignment)
    make_ready(need_of(modules, read_not_allowed(assignment)))


def _often_used(notebook: NotebookNode, assignment: Assignment | None) -> frozenset[str]:
    """Return which modules that are slow at first use the instructor's cells use."""
    if assignment is None:
        return frozenset(OFTEN_USED)
    return often_used(_cells_that_count(notebook, assignment))


def often_used(cells: Sequence[NotebookNode]) -> frozenset[str]:
    """Return which of the modules that are slow at first use locked cells use."""
    locked = [cell.source for cell in cells if cell.metadata.get("nbgrader", {}).get("locked")]
    source = "\n".join(locked)
    return frozenset(name for name, pattern in OFTEN_USED.items() if re.search(pattern, source))


def warm_process(
    confined: bool = True,
    root: Path | None = None,
    modules: frozenset[str] = frozenset(),
    not_allowed: NotAllowed = NOTHING,
) -> WarmProcess:
    """Return this process's warm process, which has loaded `modules`.

    It is started when it is first needed, has died, lacks one of the modules, or has withdrawn a
    name that is allowed now.
    """
    known = _warm.get(confined)
    if known is not None and not known.fits(modules, not_allowed):
        modules |= known.modules
        if not known.alive():
            leave_server_that_ends()
        _warm.pop(confined).close()
    if confined not in _warm:
        _warm[confined] = WarmProcess(
            confined=confined,
            secret=secret_folders(root),
            modules=sorted(modules),
            not_allowed=not_allowed,
        )
        atexit.register(_warm[confined].close)
    return _warm[confined]


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook file, or the text notebook (MyST) of an assignment's source."""
    if path.suffix == ".md":
        return jupytext.read(path)
    return nbformat.read(path, as_version=4)
