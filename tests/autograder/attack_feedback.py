"""Grades attacks in a whole course, and reads the pages that people then open."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbconvert.exporters import HTMLExporter
from nbgrader.apps.api import NbGraderAPI
from nbgrader.server_extensions.formgrader import handlers

from autograder.assignment import Assignment
from autograder.course import Course
from autograder.feedback import feedback_pages, write_feedback
from tests.autograder.attack_course import PREAMBLE, Attack, active_content


class FeedbackLab:
    """A course with a released assignment, in which attacks are handed in and graded."""

    def __init__(self, root: Path) -> None:
        self.course = Course.load(root)
        self.assignment = Assignment("toy", root)

    def hand_in(self, attack: Attack) -> str:
        """Hand in the released notebook with the attack in it; return the student's name."""
        student = attack.name.replace("/", "-")
        notebook = nbformat.read(self.assignment.release, as_version=4)
        cells = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell for cell in notebook.cells}
        cells["square"].source = "\n".join((PREAMBLE, *attack.sources))
        cells["essay"].source = "\n\n".join(attack.texts) or "My answer."
        notebook.cells += [nbformat.v4.new_markdown_cell(text) for text in attack.texts]
        notebook.cells += [nbformat.v4.new_raw_cell(text) for text in attack.texts]
        folder = self.course.folder("submitted", student, "toy")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "toy.ipynb").write_text(nbformat.writes(notebook))
        return student

    def pages(self, attack: Attack) -> list[str]:
        """Grade an attack; return its feedback page, and formgrader's page of it."""
        student = self.hand_in(attack)
        graded = NbGraderAPI(self.course.directory(), config=self.course.config)
        assert graded.autograde("toy", student)["success"]
        assert write_feedback(self.course, self.assignment, [student]) == {}
        (page,) = feedback_pages(self.course, self.assignment, student)
        return [page.read_text(), self._for_the_instructor(student)]

    def _for_the_instructor(self, student: str) -> str:
        config = self.course.config
        config.HTMLExporter.template_name = "formgrade"
        config.HTMLExporter.extra_template_basedirs = [handlers.template_path]
        names = ("last_name", "first_name", "base_url", "notebook_path", "submission_id")
        resources = dict.fromkeys(names, "") | {"notebook_id": "toy", "assignment_id": "toy"}
        resources |= {"index": 0, "total": 1, "student": student}
        path = self.course.folder("autograded", student, "toy") / "toy.ipynb"
        page, _ = HTMLExporter(config=config).from_filename(str(path), resources=resources)
        return str(page)

    def trouble(self, attack: Attack) -> list[str]:
        """Return what of an attack would run, fetch or lead elsewhere where people look at it."""
        return [sentence for page in self.pages(attack) for sentence in active_content(page)]
