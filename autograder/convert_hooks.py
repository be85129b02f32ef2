"""Calls a course's own functions before and after a submission is graded, as nbgrader would."""

from __future__ import annotations

import logging
from pathlib import Path

from nbgrader.converters import Autograde

from autograder.course import Course

log = logging.getLogger("autograder.grading")


class ConvertHooks:
    """The functions that a course's settings name `pre_convert_hook` and `post_convert_hook`.

    Each is given the names of the assignment and of the student, and the paths of the student's
    notebooks. They are the instructor's, and run in the process that hands out the work. What
    failed, with whom and why, is added to `failures`.
    """

    def __init__(self, course: Course, assignment: str, failures: list[str]) -> None:
        self.course = course
        self.assignment = assignment
        self.converter = course.converter(Autograde)
        self.failures = failures

    def before(self, student: str) -> bool:
        """Call what is to be called before grading; return whether there is such a function."""
        return self._call("pre_convert_hook", student)

    def after(self, student: str) -> bool:
        """Call what is to be called after grading; return whether there is such a function."""
        return self._call("post_convert_hook", student)

    def _call(self, name: str, student: str) -> bool:
        hook = getattr(self.converter, name)
        if hook is None:
            return False
        folder = self.course.folder("submitted", student, self.assignment)
        try:
            hook(assignment=self.assignment, student=student, notebooks=_notebooks(folder))
        except Exception as error:  # nbgrader goes on, too
            failure = f"{student}: {name} failed: {type(error).__name__}: {error}"
            log.warning(failure)
            self.failures.append(failure)
        return True


def _notebooks(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.ipynb"))
