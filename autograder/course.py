"""The nbgrader course that an assignment is released, handed in and graded in."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning
from traitlets.config import Config, PyFileConfigLoader

from autograder.assignment import Assignment

CONFIG_FILE = "nbgrader_config.py"


class CourseError(Exception):
    """Something of the course is not there or not as it should be; the message says what."""


@dataclass(frozen=True)
class Course:
    """A course folder with its nbgrader configuration."""

    root: Path
    config: Config

    @classmethod
    def load(cls, root: Path) -> Course:
        """Read the configuration of the course at `root`."""
        if not (root / CONFIG_FILE).is_file():
            raise CourseError(f"{root} is not a course: expected a file {CONFIG_FILE} there")
        _let_nbgrader_find_alembic()
        config = PyFileConfigLoader(CONFIG_FILE, path=str(root)).load_config()
        return cls(root, config)

    def directory(self, config: Config | None = None) -> CourseDirectory:
        """Return nbgrader's view of the course."""
        return CourseDirectory(config=config or self.config)

    def gradebook(self) -> Gradebook:
        """Open the gradebook; close it by using it in a `with` statement."""
        directory = self.directory()
        prefix = "sqlite:///"
        if directory.db_url.startswith(prefix):
            Path(directory.db_url.removeprefix(prefix)).parent.mkdir(parents=True, exist_ok=True)
        return Gradebook(directory.db_url, directory.course_id)

    def folder(self, step: str, student: str, assignment: str) -> Path:
        """Return the folder of a step (`submitted`, `autograded`, ...) of one submission."""
        directory = self.directory()
        name = getattr(directory, f"{step}_directory")
        return Path(os.path.normpath(directory.format_path(name, student, assignment)))

    def students_with(self, step: str, assignment: str) -> list[str]:
        """Return the students who have a folder of an assignment in a step."""
        pattern = self.folder(step, "*", assignment)
        position = pattern.parts.index("*")
        base = Path(*pattern.parts[:position])
        return sorted(
            folder.parts[position]
            for folder in base.glob(str(Path(*pattern.parts[position:])))
            if folder.is_dir()
        )

    def notebook_names(self, assignment: Assignment) -> list[str]:
        """Return the names of an assignment's notebooks, as the gradebook knows them."""
        with self.gradebook() as gradebook:
            try:
                notebooks = gradebook.find_assignment(assignment.name).notebooks
            except MissingEntry:
                raise CourseError(
                    f"assignment {assignment.name!r} is not in the gradebook yet: "
                    f"run `autograder release {assignment.name}` first"
                ) from None
            return sorted(notebook.name for notebook in notebooks)


def _let_nbgrader_find_alembic() -> None:
    """Put this Python's commands on the path: nbgrader calls `alembic` to make a gradebook."""
    commands = str(Path(sys.executable).parent)
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if commands not in folders:
        os.environ["PATH"] = os.pathsep.join([commands, *folders])


def quiet_nbgrader(level: int = logging.CRITICAL) -> None:
    """Keep nbgrader's own log, which repeats what the autograder says, off the terminal."""
    # nbgrader was written for an older SQLAlchemy
    warnings.filterwarnings("ignore", category=SAWarning)
    logging.getLogger("traitlets").setLevel(level)
    logging.getLogger("alembic").setLevel(level)
