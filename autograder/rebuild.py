"""Rebuilds a submission on the released notebook.

The student's answers and own cells stay, in their order. Everything else (locked cells, grade
cells, points, tags, kernel) is the released notebook's again, and each difference that mattered
becomes a sentence.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader import utils

from autograder.intake import Submission, SubmittedCell, quoted

DEFINITION = re.compile(r"^(?:async +)?def +(\w+)", re.MULTILINE)
# a solution cell outweighs any number of locked cells when the order is in doubt
SOLUTION_WEIGHT = 10_000


@dataclass
class Rebuilt:
    """A submission on the released notebook.

    `problem` is not empty if the submission could not be read; the notebook is then the released
    one.
    """

    notebook: NotebookNode
    repairs: list[str] = field(default_factory=list)
    problem: str = ""


@dataclass(eq=False)
class Entry:
    """One cell of the notebook that is being rebuilt; `rank` is -1 for the student's own cells."""

    rank: int
    cell: NotebookNode

    @property
    def managed(self) -> bool:
        """Whether the released notebook has this cell."""
        return self.rank >= 0


def rebuild(released: NotebookNode, submission: Submission) -> Rebuilt:
    """Put a submission's answers and own cells on the released notebook."""
    if submission.problem:
        return Rebuilt(_cleared(released), list(submission.repairs), submission.problem)
    return _Rebuilding(released, submission).result()


def _cleared(released: NotebookNode) -> NotebookNode:
    notebook = copy.deepcopy(released)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def grade_id_of(cell: NotebookNode) -> str:
    """Return the name that nbgrader knows a cell by, or an empty string."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", "") or "")


def is_judged(cell: NotebookNode) -> bool:
    """Tell whether a cell is graded automatically."""
    return bool(cell.cell_type == "code" and utils.is_grade(cell) and not utils.is_solution(cell))


@dataclass(frozen=True)
class _Candidate:
    """What a cell that lost its metadata is recognised by."""

    cell_type: str
    cell_id: str
    text: str
    functions: frozenset[str]

    @classmethod
    def of(cls, cell: SubmittedCell) -> _Candidate:
        functions = frozenset(DEFINITION.findall(cell.source))
        return cls(cell.cell_type, cell.cell_id, _plain(cell.source), functions)

    @classmethod
    def released(cls, cell: NotebookNode) -> _Candidate:
        functions = DEFINITION.findall(cell.source) if utils.is_solution(cell) else []
        return cls(cell.cell_type, cell.get("id", ""), _plain(cell.source), frozenset(functions))


def _has_same_id(cell: _Candidate, released: _Candidate) -> bool:
    return bool(cell.cell_id) and cell.cell_id == released.cell_id


def _has_same_text(cell: _Candidate, released: _Candidate) -> bool:
    return (cell.cell_type, cell.text) == (released.cell_type, released.text)


def _defines_same_functions(cell: _Candidate, released: _Candidate) -> bool:
    is_code = cell.cell_type == released.cell_type == "code"
    return is_code and bool(released.functions) and released.functions <= cell.functions


class _Rebuilding:
    """The steps of one rebuilding."""

    def __init__(self, released: NotebookNode, submission: Submission) -> None:
        self.released = _cleared(released)
        self.managed = [cell for cell in self.released.cells if grade_id_of(cell)]
        self.ranks = {grade_id_of(cell): rank for rank, cell in enumerate(self.managed)}
        self.submission = submission
        self.repairs = list(submission.repairs)
        self.entries: list[Entry] = []

    def result(self) -> Rebuilt:
        """Take all steps."""
        self._note_kernel()
        claims = self._claims()
        self._collect(claims, self._keepers(claims))
        self._pull_out_moved_cells()
        self._insert_missing_cells()
        self._put_grade_cells_after_their_answers()
        notebook = nbformat.v4.new_notebook(metadata=self.released.metadata)
        notebook.cells = [entry.cell for entry in self.entries]
        _name_own_cells(self.entries)
        return Rebuilt(notebook, self.repairs)

    def _note_kernel(self) -> None:
        expected = self.released.metadata.get("kernelspec", {}).get("name", "")
        found = self.submission.kernel
        if found and expected and found != expected:
            self.repairs.append(
                f"The notebook asks for the kernel {quoted(found)}; it was run with {expected!r}."
            )

    def _claims(self) -> list[int]:
        """Return for each submitted cell the rank of the released cell it stands for, or -1."""
        cells = [_Candidate.of(cell) for cell in self.submission.cells]
        claims = [self.ranks.get(cell.grade_id, -1) for cell in self.submission.cells]
        missing = set(range(len(self.managed))) - set(claims)
        released = [_Candidate.released(cell) for cell in self.managed]
        for stands_for in (_has_same_id, _has_same_text, _defines_same_functions):
            for place, cell in enumerate(cells):
                for rank in sorted(missing) if claims[place] < 0 else ():
                    if stands_for(cell, released[rank]):
                        claims[place] = rank
                        missing.discard(rank)
                        break
        return claims

    def _keepers(self, claims: list[int]) -> dict[int, int]:
        """Return for each rank the place of the submitted cell that counts."""
        places: dict[int, list[int]] = defaultdict(list)
        for place, rank in enumerate(claims):
            if rank >= 0:
                places[rank].append(place)
        keepers = {}
        for rank, candidates in sorted(places.items()):
            if utils.is_solution(self.managed[rank]):
                changed = [place for place in candidates if self._differs(place, rank)]
                keepers[rank] = (changed or candidates)[-1]
            else:
                keepers[rank] = candidates[0]
            if len(candidates) > 1:
                self._note_duplicate(rank, len(candidates))
        return keepers

    def _note_duplicate(self, rank: int, count: int) -> None:
        name = grade_id_of(self.managed[rank])
        if utils.is_solution(self.managed[rank]):
            what = "the last one that was worked on counts as the answer"
        else:
            what = "one was kept"
        self.repairs.append(f"The cell `{name}` was there {count} times; {what}.")

    def _differs(self, place: int, rank: int) -> bool:
        source = self.submission.cells[place].source
        return _plain(source) != _plain(self.managed[rank].source)

    def _collect(self, claims: list[int], keepers: dict[int, int]) -> None:
        """Line up the cells that stay, in the student's order."""
        for place, (cell, rank) in enumerate(zip(self.submission.cells, claims, strict=True)):
            if rank < 0:
                self.entries.append(Entry(-1, _own_cell(cell)))
            elif keepers[rank] == place:
                self.entries.append(Entry(rank, self._restored(cell, rank)))
            elif utils.is_solution(self.managed[rank]) and self._differs(place, rank):
                self.entries.append(Entry(-1, _own_cell(cell)))

    def _restored(self, cell: SubmittedCell, rank: int) -> NotebookNode:
        """Return the released cell, with the student's text if it is an answer."""
        # a copy of the text alone: the rest is this submission's already, and stays as it is
        restored = NotebookNode(self.managed[rank])
        name = grade_id_of(restored)
        if cell.cell_type != restored.cell_type:
            self.repairs.append(
                f"The cell `{name}` had become a {cell.cell_type} cell; it is a "
                f"{restored.cell_type} cell again."
            )
        points = restored.metadata.nbgrader.get("points")
        if None not in (points, cell.points) and float(points) != cell.points:
            self.repairs.append(f"The points of `{name}` had been changed; they were put back.")
        if utils.is_solution(restored):
            restored.source = cell.source
            if restored.cell_type == "markdown" and cell.attachments:
                restored["attachments"] = NotebookNode(cell.attachments)
        elif self._is_edited(cell, restored):
            self.repairs.append(f"The locked cell `{name}` had been edited; its text was put back.")
        return restored

    @staticmethod
    def _is_edited(cell: SubmittedCell, restored: NotebookNode) -> bool:
        return _plain(cell.source) != _plain(restored.source)

    def _pull_out_moved_cells(self) -> None:
        """Take out locked cells that are out of order; they are inserted again."""
        placed = [entry for entry in self.entries if entry.managed]
        kept = _heaviest_increasing(placed)
        for entry in placed:
            if id(entry) not in kept and not utils.is_solution(entry.cell):
                self.entries.remove(entry)
                self._insert(entry, kept)
                kept.add(id(entry))
                self._note_moved(entry)

    def _note_moved(self, entry: Entry) -> None:
        self.repairs.append(
            f"The cell `{grade_id_of(entry.cell)}` had been moved; it was put back in its place."
        )

    def _insert_missing_cells(self) -> None:
        present = {entry.rank for entry in self.entries}
        fixed = _heaviest_increasing([entry for entry in self.entries if entry.managed])
        for rank, cell in enumerate(self.managed):
            if rank in present:
                continue
            self.repairs.append(f"The cell `{grade_id_of(cell)}` was missing; it was put back.")
            entry = Entry(rank, copy.deepcopy(cell))
            if utils.is_solution(cell) and not utils.is_grade(cell):
                # the stub would replace a function that the student wrote in another cell
                entry.cell.source = ""
            self._insert(entry, fixed)
            fixed.add(id(entry))

    def _insert(self, entry: Entry, fixed: set[int]) -> None:
        """Insert a cell between its neighbours among the cells whose place is right."""
        before = [i for i, e in enumerate(self.entries) if id(e) in fixed and e.rank < entry.rank]
        after = [i for i, e in enumerate(self.entries) if id(e) in fixed and e.rank > entry.rank]
        start = before[-1] + 1 if before else 0
        end = after[0] if after else len(self.entries)
        code = [i for i in range(start, end) if self.entries[i].cell.cell_type == "code"]
        if is_judged(entry.cell):
            # after the student's own code, which the answer may need
            place = code[-1] + 1 if code else start
        elif before:
            place = start
        else:
            place = code[0] if code else end
        self.entries.insert(place, entry)

    def _put_grade_cells_after_their_answers(self) -> None:
        """Move each grade cell that stands before an answer that it grades."""
        for entry in [entry for entry in self.entries if is_judged(entry.cell)]:
            answers = self._answers_of(entry.rank)
            last = max((i for i, e in enumerate(self.entries) if e.rank in answers), default=-1)
            place = next(i for i, other in enumerate(self.entries) if other is entry)
            if last > place:
                self.entries.pop(place)
                self.entries.insert(last, entry)
                self._note_moved(entry)

    def _answers_of(self, rank: int) -> set[int]:
        """Return the answers between a grade cell and the answer group before it."""
        answers: set[int] = set()
        for earlier in range(rank - 1, -1, -1):
            cell = self.managed[earlier]
            if utils.is_solution(cell):
                answers.add(earlier)
            elif is_judged(cell) and answers:
                break
        return answers


def _heaviest_increasing(entries: list[Entry]) -> set[int]:
    """Return the identities of the heaviest entries whose ranks increase."""
    best: list[tuple[int, list[int]]] = []
    for place, entry in enumerate(entries):
        weight = SOLUTION_WEIGHT if utils.is_solution(entry.cell) else 1
        before = [best[i] for i in range(place) if entries[i].rank < entry.rank]
        total, chain = max(before, key=lambda item: item[0], default=(0, []))
        best.append((total + weight, [*chain, place]))
    _, chain = max(best, key=lambda item: item[0], default=(0, []))
    return {id(entries[place]) for place in chain}


def _own_cell(cell: SubmittedCell) -> NotebookNode:
    """Return a student's own cell: its text, and no metadata that could steer the run."""
    content: dict[str, Any] = {"cell_type": cell.cell_type, "metadata": {}, "source": cell.source}
    if cell.cell_type == "code":
        content |= {"execution_count": None, "outputs": []}
    elif cell.cell_type == "markdown" and cell.attachments:
        content["attachments"] = cell.attachments
    own: NotebookNode = nbformat.from_dict(content)
    return own


def _name_own_cells(entries: list[Entry]) -> None:
    """Give each of the student's own cells an id that depends on its place and text alone."""
    taken = {entry.cell.get("id") for entry in entries if entry.managed}
    for place, entry in enumerate(entries):
        if entry.managed:
            continue
        digest = hashlib.sha256(f"{place}\0{entry.cell.source}".encode()).hexdigest()
        entry.cell["id"] = next(
            f"own-{digest[start : start + 12]}"
            for start in range(50)
            if f"own-{digest[start : start + 12]}" not in taken
        )
        taken.add(entry.cell["id"])


def _plain(source: str) -> str:
    """Return a cell's text without the white space that editors add or remove at line ends."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())
