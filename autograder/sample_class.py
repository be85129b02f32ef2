"""Makes a class of submissions to try the grading on: right, wrong, odd and damaged ones.

The class depends on its seed, its size and the assignment alone.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader import utils

from autograder.assignment import Assignment
from autograder.bank import Bank, load_bank
from autograder.course import Course, CourseError
from autograder.rebuild import grade_id_of, is_judged
from autograder.release import source_notebook

MIN_SIZE = 24
DEADLINE = datetime(2026, 10, 30, 22, 0)
SOLUTION_MARK = re.compile(r"^.*### (?:BEGIN|END) SOLUTION.*\n?", re.MULTILINE)
GIVEN_NAMES = """
Ada Akira Amara Anya Bao Carlos Chidi Dalia Diego Elif Emre Fatima Freya Hana Hugo Ines Ivan Jamal
Jonas Kofi Lena Lucia Mei Milan Nadia Noor Omar Priya Ravi Rosa Sami Tariq Thabo Uma Viktor Wanja
Ximena Yara Yusuf Zoe
"""
FAMILY_NAMES = """
Abe Adeyemi Alvarez Bauer Chen Costa Dimitrov Eriksen Farah Garcia Haddad Ito Jansen Kaya Khan Kim
Kowalski Larsen Mbeki Moreau Nakamura Nguyen Novak Okafor Patel Petrov Rahman Rossi Santos Schmidt
Silva Suzuki Tan Tran Vega Weber Yilmaz Zhang
"""


@dataclass
class Sample:
    """One made-up submission: its files, and how late it is."""

    kind: str
    files: dict[str, bytes] = field(default_factory=dict)
    late: timedelta = timedelta()
    links: dict[str, str] = field(default_factory=dict)


def make_sample_class(
    course: Course, assignment: Assignment, *, size: int = MIN_SIZE, seed: int = 0
) -> dict[str, str]:
    """Write a sample class below the course's submitted folder; return each student's kind.

    Raises
    ------
    CourseError
        If `size` is too small, the assignment has not been released, or somebody who is not of an
        earlier sample class has handed in work by one of the names.
    """
    if size < MIN_SIZE:
        raise CourseError(f"a sample class of {size} is too small: expected {MIN_SIZE} or more")
    names = course.notebook_names(assignment)
    rng = random.Random(f"{seed} {assignment.name}")
    samples = list(Maker(assignment, names[0], rng).samples(size))
    rng.shuffle(samples)
    width = max(3, len(str(size)))
    students = {f"student{number:0{width}}": s for number, s in enumerate(samples, start=1)}
    kinds = {student: sample.kind for student, sample in students.items()}
    _replace_previous(course, assignment, kinds)
    deadline = _register(course, assignment, list(students))
    for student, sample in students.items():
        early = timedelta(minutes=rng.randrange(30, 6 * 24 * 60))
        time = deadline + sample.late if sample.late else deadline - early
        _write(course.folder("submitted", student, assignment.name), sample, time)
    return kinds


def manifest(course: Course, assignment: Assignment) -> Path:
    """Return the file that says which student of the sample class is of which kind."""
    submitted = course.folder("submitted", "_", assignment.name).parent.parent
    return submitted.parent / f"sample_class_{assignment.name}.json"


def _replace_previous(course: Course, assignment: Assignment, kinds: dict[str, str]) -> None:
    """Remove an earlier sample class, and note who is of this one before anything is written."""
    path = manifest(course, assignment)
    previous = json.loads(path.read_text()) if path.is_file() else {}
    for student in kinds.keys() - previous.keys():
        folder = course.folder("submitted", student, assignment.name)
        if os.path.lexists(folder):
            raise CourseError(
                f"{folder} is there, and is of no sample class that {path.name} knows: move it "
                "away, or make the sample class in a copy of the course"
            )
    for student in previous:
        shutil.rmtree(course.folder("submitted", student, assignment.name), ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kinds, indent=1) + "\n")


def _register(course: Course, assignment: Assignment, students: list[str]) -> datetime:
    """Put the students into the gradebook; return the deadline, which is set if there is none."""
    rng = random.Random("names")
    with course.gradebook() as gradebook:
        for student in students:
            first, last = rng.choice(GIVEN_NAMES.split()), rng.choice(FAMILY_NAMES.split())
            gradebook.update_or_create_student(student, first_name=first, last_name=last)
        deadline: datetime | None = gradebook.find_assignment(assignment.name).duedate
        if deadline is None:
            deadline = DEADLINE
            gradebook.update_or_create_assignment(assignment.name, duedate=deadline)
    return deadline


def _write(folder: Path, sample: Sample, time: datetime) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in sample.files.items():
        (folder / name).write_bytes(data)
    for name, target in sample.links.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    (folder / "timestamp.txt").write_text(f"{time:%Y-%m-%d %H:%M:%S} UTC\n")


class Maker:
    """Makes submissions of one notebook of an assignment."""

    def __init__(self, assignment: Assignment, name: str, rng: random.Random) -> None:
        self.assignment = assignment
        self.file = f"{name}.ipynb"
        self.rng = rng
        self.released = nbformat.read(assignment.release.parent / self.file, as_version=4)
        self.solved = self._solve(assignment.source.parent / f"{name}.md")
        self.bank: Bank = load_bank(assignment)
        self.functions = sorted(
            {entry.function for entry in self.bank.misconceptions}
            | {entry.function for entry in self.bank.equivalents}
        )
        if not self.bank.misconceptions or not self.bank.equivalents:
            raise CourseError(f"{assignment.bank} holds no misconceptions or no equivalents")

    def _solve(self, source: Path) -> NotebookNode:
        """Return the released notebook with the instructor's answers."""
        answers = {
            grade_id_of(cell): SOLUTION_MARK.sub("", cell.source)
            for cell in source_notebook(source).cells
            if utils.is_solution(cell)
        }
        solved = copy.deepcopy(self.released)
        for cell in solved.cells:
            if utils.is_solution(cell):
                cell.source = answers[grade_id_of(cell)]
        return solved

    def samples(self, size: int) -> Iterator[Sample]:
        """Make `size` submissions: one of each first kind, then the other kinds in turn."""
        first = [self.solution, *self.usual_damage()]
        more = [self.misconception] * 6 + [self.equivalent] * 5
        rest = [*self.rare_damage(), self.several_misconceptions]
        makers = [*first, *more, *rest]
        while len(makers) < size:
            makers += [self.misconception, self.equivalent, self.several_misconceptions]
        for make in makers[:size]:
            yield make()

    def usual_damage(self) -> list[Callable[[], Sample]]:
        """Return makers of what happens in every class."""
        return [
            self.blank,
            self.syntax_error,
            self.deleted_grade_cell,
            self.duplicated_cells,
            self.endless_loop,
            self.killed_process,
            self.exit_in_function,
            self.empty_file,
            self.wrong_kernel,
            self.late,
            self.not_json,
            self.missing_notebook,
        ]

    def rare_damage(self) -> list[Callable[[], Sample]]:
        """Return makers of what happens now and then."""
        return [
            self.old_format,
            self.not_utf8,
            self.moved_grade_cell,
            self.edited_grade_cell,
            self.lost_metadata,
            self.forged_score,
            self.linked_notebook,
            self.markup,
        ]

    def _sample(self, kind: str, notebook: NotebookNode) -> Sample:
        return Sample(kind, {self.file: (nbformat.writes(notebook) + "\n").encode()})

    def _copy(self) -> NotebookNode:
        return copy.deepcopy(self.solved)

    def _grade_cells(self, notebook: NotebookNode) -> list[int]:
        return [i for i, cell in enumerate(notebook.cells) if is_judged(cell)]

    def _answers(self, notebook: NotebookNode) -> list[int]:
        return [
            i
            for i, cell in enumerate(notebook.cells)
            if utils.is_solution(cell) and cell.cell_type == "code"
        ]

    def _replace(self, notebook: NotebookNode, function: str, source: str) -> None:
        definition = re.compile(rf"^def {re.escape(function)}\b", re.MULTILINE)
        for index in self._answers(notebook):
            if definition.search(notebook.cells[index].source):
                notebook.cells[index].source = source
                return
        raise CourseError(f"{self.assignment.release} has no answer that defines {function!r}")

    def solution(self) -> Sample:
        """Make a submission that is all right."""
        return self._sample("solution", self._copy())

    def misconception(self) -> Sample:
        """Make a submission with one known mistake."""
        entry = self.rng.choice(self.bank.misconceptions)
        notebook = self._copy()
        self._replace(notebook, entry.function, entry.source)
        return self._sample(f"misconception {entry.function}: {entry.name}", notebook)

    def several_misconceptions(self) -> Sample:
        """Make a submission with a mistake in each of two functions."""
        notebook = self._copy()
        for function in self.rng.sample(self.functions, min(2, len(self.functions))):
            entries = self.bank.misconceptions_of(function)
            if entries:
                self._replace(notebook, function, self.rng.choice(entries).source)
        return self._sample("several misconceptions", notebook)

    def equivalent(self) -> Sample:
        """Make a submission that is right in another way, in every function."""
        notebook = self._copy()
        for function in self.functions:
            entries = self.bank.equivalents_of(function)
            if entries:
                self._replace(notebook, function, self.rng.choice(entries).source)
        return self._sample("equivalent", notebook)

    def blank(self) -> Sample:
        """Make a submission that nobody worked on."""
        return self._sample("blank", self.released)

    def syntax_error(self) -> Sample:
        """Make a submission with an answer that Python cannot read."""
        notebook = self._copy()
        notebook.cells[self._answers(notebook)[0]].source += "\nprint((1, 2)\n"
        return self._sample("syntax error", notebook)

    def deleted_grade_cell(self) -> Sample:
        """Make a submission without one of its grade cells."""
        notebook = self._copy()
        del notebook.cells[self._grade_cells(notebook)[0]]
        return self._sample("deleted grade cell", notebook)

    def duplicated_cells(self) -> Sample:
        """Make a submission with an answer and a grade cell twice."""
        notebook = self._copy()
        for index in (self._grade_cells(notebook)[0], self._answers(notebook)[0]):
            twin = copy.deepcopy(notebook.cells[index])
            twin["id"] = f"{twin['id'][:50]}-twin"
            notebook.cells.insert(index + 1, twin)
        return self._sample("duplicated cells", notebook)

    def endless_loop(self) -> Sample:
        """Make a submission with a cell that never ends."""
        notebook = self._copy()
        cell = nbformat.v4.new_code_cell("while True:\n    pass", id="endless")
        notebook.cells.insert(self._answers(notebook)[-1], cell)
        return self._sample("endless loop", notebook)

    def killed_process(self) -> Sample:
        """Make a submission with a cell that kills its own process half-way."""
        notebook = self._copy()
        answers = self._answers(notebook)
        kill = "import os\nos.kill(os.getpid(), 9)"
        cell = nbformat.v4.new_code_cell(kill, id="kill")
        notebook.cells.insert(answers[len(answers) // 2], cell)
        return self._sample("killed process", notebook)

    def exit_in_function(self) -> Sample:
        """Make a submission with an answer that ends its process when it is called."""
        notebook = self._copy()
        cell = notebook.cells[self._answers(notebook)[-1]]
        name = re.findall(r"^def (\w+)", cell.source, re.MULTILINE)[-1]
        cell.source = f"import os\n\n\ndef {name}(*arguments):\n    os._exit(0)\n"
        return self._sample("exit in function", notebook)

    def empty_file(self) -> Sample:
        """Make a submission of no bytes."""
        return Sample("empty file", {self.file: b""})

    def wrong_kernel(self) -> Sample:
        """Make a submission that asks for a kernel that is not there."""
        notebook = self._copy()
        notebook.metadata["kernelspec"] = {
            "name": "deep-learning-2019",
            "display_name": "Deep learning",
            "language": "python",
        }
        return self._sample("wrong kernel", notebook)

    def late(self) -> Sample:
        """Make a submission after the deadline."""
        sample = self._sample("late", self._copy())
        sample.late = timedelta(days=2, hours=3, minutes=20)
        return sample

    def not_json(self) -> Sample:
        """Make a submission that was cut off on the way."""
        data = nbformat.writes(self.solved).encode()
        return Sample("not JSON", {self.file: data[: 2 * len(data) // 3]})

    def missing_notebook(self) -> Sample:
        """Make a submission of something else."""
        return Sample("missing notebook", {"notes.txt": b"See the attached notebook.\n"})

    def old_format(self) -> Sample:
        """Make a submission saved by a program of 2014."""
        old = nbformat.convert(self._copy(), 3)
        return Sample("old format", {self.file: nbformat.writes(old, version=3).encode()})

    def not_utf8(self) -> Sample:
        """Make a submission saved in another encoding."""
        notebook = self._copy()
        cell = nbformat.v4.new_markdown_cell("Erledigt: schöne Grüße.", id="greeting")
        notebook.cells.append(cell)
        text = nbformat.writes(notebook)
        return Sample("not UTF-8", {self.file: text.encode("cp1252", "replace")})

    def moved_grade_cell(self) -> Sample:
        """Make a submission with a grade cell at the top."""
        notebook = self._copy()
        notebook.cells.insert(0, notebook.cells.pop(self._grade_cells(notebook)[-1]))
        return self._sample("moved grade cell", notebook)

    def edited_grade_cell(self) -> Sample:
        """Make a submission with a grade cell that was emptied and made worth more."""
        notebook = self._copy()
        cell = notebook.cells[self._grade_cells(notebook)[0]]
        cell.source = "pass"
        cell.metadata.nbgrader["points"] = 100
        cell.metadata["tags"] = ["skip-execution"]
        return self._sample("edited grade cell", notebook)

    def lost_metadata(self) -> Sample:
        """Make a submission saved by a program that drops all metadata and cell ids."""
        notebook = self._copy()
        for cell in notebook.cells:
            cell.metadata = NotebookNode()
            del cell["id"]
        notebook.metadata = NotebookNode()
        notebook.nbformat_minor = 4
        text = json.dumps(notebook, indent=1)
        return Sample("lost metadata", {self.file: text.encode()})

    def forged_score(self) -> Sample:
        """Make a submission that prints and shows full marks, without any answer."""
        notebook = copy.deepcopy(self.released)
        forgery = "import builtins\nbuiltins.print('100')\n100"
        for index in reversed(self._grade_cells(notebook)):
            notebook.cells[index].source = "100"
            cell = nbformat.v4.new_code_cell(forgery, id=f"forged-{index}")
            notebook.cells.insert(index, cell)
        return self._sample("forged score", notebook)

    def linked_notebook(self) -> Sample:
        """Make a submission that is a link to a file outside."""
        return Sample("linked notebook", links={self.file: "/etc/hostname"})

    def markup(self) -> Sample:
        """Make a submission that tries to run a script in whoever reads it."""
        notebook = self._copy()
        script = "<script>document.title='taken over'</script><img src=x onerror=alert(1)>"
        code = f"from IPython.display import HTML, display\ndisplay(HTML({script!r}))"
        notebook.cells += [
            nbformat.v4.new_markdown_cell(f"My notes {script}", id="markup-text"),
            nbformat.v4.new_code_cell(code, id="markup-output"),
        ]
        return self._sample("markup", notebook)
