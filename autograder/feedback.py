"""Writes the feedback pages through nbgrader's own converter."""

from __future__ import annotations

import copy
import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from nbgrader.converters import GenerateFeedback
from nbgrader.converters.base import NbGraderException

from autograder.assignment import Assignment
from autograder.course import Course


def write_feedback(
    course: Course,
    assignment: Assignment,
    students: Sequence[str],
    progress: Callable[[str], None] = lambda student: None,
) -> list[str]:
    """Write the pages that are missing or older than the grading; return whose could not be."""
    failed = []
    for student in students:
        progress(student)
        if not _is_stale(course, assignment, student):
            continue
        config = copy.deepcopy(course.config)
        config.CourseDirectory.assignment_id = assignment.name
        config.CourseDirectory.student_id = glob.escape(student)
        converter = course.converter(GenerateFeedback, config)
        converter.force = True
        try:
            converter.start()
        except NbGraderException:
            failed.append(student)
    return failed


def feedback_pages(course: Course, assignment: Assignment, student: str) -> list[Path]:
    """Return a student's feedback pages."""
    return sorted(course.folder("feedback", student, assignment.name).glob("*.html"))


def _is_stale(course: Course, assignment: Assignment, student: str) -> bool:
    autograded = course.folder("autograded", student, assignment.name)
    pages = {page.stem: page for page in feedback_pages(course, assignment, student)}
    for notebook in autograded.glob("*.ipynb"):
        page = pages.get(notebook.stem)
        if page is None or page.stat().st_mtime_ns < notebook.stat().st_mtime_ns:
            return True
    return False
