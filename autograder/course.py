"""The nbgrader course that an assignment is released, handed in and graded in."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from jupyter_core.paths import jupyter_config_path
from nbconvert.preprocessors import Preprocessor
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import BaseConverter
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import AssignLatePenalties, Execute
from sqlalchemy import URL, NullPool, create_engine, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, SAWarning, SQLAlchemyError
from traitlets import TraitError
from traitlets.config import Config, Configurable, PyFileConfigLoader
from traitlets.utils.importstring import import_item

from autograder.assignment import (
    CONFIG_FILE,
    Assignment,
    UnknownAssignmentError,
    assignment_names,
    find_assignment,
    named_assignment,
)
from autograder.nbgrader_plugin import JudgeSubmission, uses_autograder, with_autograder

AnyConfigured = TypeVar("AnyConfigured", bound=Configurable)
AnyConverter = TypeVar("AnyConverter", bound=BaseConverter)
# any number that no other program would lock in the same PostgreSQL database
TABLES_LOCK = 7_120_926_450_331


class CourseError(Exception):
    """Something of the course is not there or not as it should be; the message says what."""


@dataclass(frozen=True)
class Course:
    """A course folder with its nbgrader configuration.

    `settings_file` is the course's own file of settings, `own` what it says; `set_up` tells whether
    it makes nbgrader's own commands use the autograder, too.
    """

    root: Path
    config: Config
    settings_file: Path
    set_up: bool
    own: Config

    @classmethod
    def load(cls, root: Path) -> Course:
        """Read the settings of the course at `root` as nbgrader would, those of the user too.

        A course that does not set the autograder up is graded by it all the same.

        Raises
        ------
        CourseError
            If there are no settings, or they cannot be read.
        """
        if not (root / CONFIG_FILE).is_file():
            raise CourseError(f"{root} is not a course: expected a file {CONFIG_FILE} there")
        _let_nbgrader_find_alembic()
        config, own = Config(), _settings(root)
        for folder in map(Path, reversed(jupyter_config_path())):
            if (folder / CONFIG_FILE).is_file():
                config.merge(_settings(folder))
        config.merge(copy.deepcopy(own))
        file = root / CONFIG_FILE
        root = root / Path(str(config.CourseDirectory.get("root", ""))).expanduser()
        config.CourseDirectory.root = str(root)
        if not uses_autograder(config):
            with _named_setting(Execute, config):
                Execute(config=config)  # its time limit becomes the autograder's
        return cls(root, with_autograder(config), file, uses_autograder(config), own)

    def directory(self, config: Config | None = None) -> CourseDirectory:
        """Return nbgrader's view of the course.

        Raises
        ------
        CourseError
            If a setting is none that nbgrader takes.
        """
        return self.configured(CourseDirectory, config)

    def judge(self) -> JudgeSubmission:
        """Return what judges submissions, with the course's settings.

        Raises
        ------
        CourseError
            If a setting is none that it takes.
        """
        return self.configured(JudgeSubmission)

    def class_seed(self) -> str:
        """Return the class's secret.

        Raises
        ------
        CourseError
            If its file can be neither read nor made.
        """
        judge = self.judge()
        try:
            return judge.class_seed
        except OSError as error:
            raise _unusable(
                f"JudgeSubmission.class_seed_file is {judge.class_seed_file!r}, which can be "
                f"neither read nor made: {error.strerror or error}"
            ) from error

    def late_penalties(self) -> AssignLatePenalties:
        """Return what asks the course's plugin what lateness costs.

        Raises
        ------
        CourseError
            If there is no such plugin, or a setting is none that it takes.
        """
        penalties = self.configured(AssignLatePenalties)
        with _named_setting(AssignLatePenalties, self.config):
            penalties.init_plugin()
        return penalties

    def require_step(self, name: str) -> None:
        """Make sure that a preprocessor can be had with the course's settings.

        Raises
        ------
        CourseError
            If there is none of that name, or a setting is none that it takes.
        """
        try:
            kind = import_item(name)
        except (AttributeError, ImportError, ValueError) as error:
            raise _unusable(f"the step {name!r} cannot be imported: {error}") from error
        if not (isinstance(kind, type) and issubclass(kind, Preprocessor)):
            raise _unusable(f"the step {name!r} is {kind!r}, expected a preprocessor of nbconvert")
        self.configured(kind)

    def configured(
        self, kind: type[AnyConfigured], config: Config | None = None, **parts: Any
    ) -> AnyConfigured:
        """Return an object of a class that takes the course's settings, made of some parts.

        Raises
        ------
        CourseError
            If a setting is none that it takes.
        """
        config = config or self.config
        with _named_setting(kind, config):
            made: AnyConfigured = kind(config=config, **parts)
        return made

    def converter(self, kind: type[AnyConverter], config: Config | None = None) -> AnyConverter:
        """Return what nbgrader does a step of its work with.

        Raises
        ------
        CourseError
            If a setting is none that nbgrader takes.
        """
        return self.configured(kind, config, coursedir=self.directory(config))

    def gradebook(self, *, make: bool = False) -> Gradebook:
        """Open the gradebook; close it by using it in a `with` statement.

        With `make` a file that is not there is made, and the folders above it.

        Raises
        ------
        CourseError
            If it is not there or cannot be opened.
        """
        directory = self.directory()
        try:
            url = make_url(directory.db_url)
            file = _file_of(url)
            if file is not None and make:
                file.parent.mkdir(parents=True, exist_ok=True)
            elif file is not None and not file.is_file():
                raise CourseError(
                    f"there is no gradebook {self.gradebook_name}: expected one that "
                    "`nbgrader generate_assignment` or `autograder release` has made; "
                    "see --db and c.CourseDirectory.db_url"
                )
            with _one_at_a_time(url):
                return Gradebook(directory.db_url, directory.course_id)
        except (ImportError, OSError, SQLAlchemyError) as error:
            reason = str(getattr(error, "orig", None) or error).strip()
            raise CourseError(
                f"the gradebook {self.gradebook_name} cannot be opened: {reason}; expected an "
                "address such as sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"
            ) from error

    @property
    def gradebook_name(self) -> str:
        """The gradebook's address, without a password, and relative to the course where it can."""
        text = self.directory().db_url
        try:
            url = make_url(text)
        except ArgumentError:
            return repr(text)
        if url.get_backend_name() == "sqlite" and url.database:
            path = Path(url.database)
            if path.is_relative_to(self.root):
                return f"sqlite:///{path.relative_to(self.root)}"
        return url.render_as_string(hide_password=True)

    def folder(self, step: str, student: str, assignment: str) -> Path:
        """Return the folder of a step (`submitted`, `autograded`, ...) of one submission."""
        name = getattr(self._layout, f"{step}_directory")
        return Path(os.path.normpath(self._layout.format_path(name, student, assignment)))

    @cached_property
    def _layout(self) -> CourseDirectory:
        """What knows where folders are, which is asked of every submission."""
        return self.directory()

    def students_with(self, step: str, assignment: str) -> list[str]:
        """Return the students who have a folder of an assignment in a step."""
        position = self.folder(step, "*", assignment).parts.index("*")
        places = self._places(step, assignment)
        return sorted(
            place.parts[position] for place in places if place.is_dir() and _is_text(place)
        )

    def passed_over(self, step: str, assignment: str) -> list[str]:
        """Say what lies where a student's folder of an assignment in a step should be."""
        pattern = self.folder(step, "*", assignment)
        position = pattern.parts.index("*")
        above, rest = Path(*pattern.parts[:position]), Path(*pattern.parts[position + 1 :])
        # a submission's own folder is tried, and tells of it
        students = [] if pattern.name == "*" else sorted(above.glob("[!.]*"))
        closed = [path for path in students if path.is_dir() and not os.access(path, os.X_OK)]
        submissions = [path / rest for path in students if path not in closed]
        places = sorted(
            place
            for place in self._places(step, assignment)
            if not place.parts[position].startswith(".")
        )
        reasons = {
            "is a folder that cannot be entered": closed,
            "is a link that leads nowhere": [
                path for path in submissions if path.is_symlink() and not path.exists()
            ],
            "is a file, expected a folder": [path for path in places if not path.is_dir()],
            # the gradebook could not hold it
            "is not named in UTF-8": [path for path in places if not _is_text(path)],
        }
        return [f"{path} {reason}" for reason, paths in reasons.items() for path in paths]

    def _places(self, step: str, assignment: str) -> Iterator[Path]:
        """Yield what is where the folders of an assignment in a step should be."""
        pattern = self.folder(step, "*", assignment)
        position = pattern.parts.index("*")
        base = Path(*pattern.parts[:position])
        return base.glob(str(Path(*pattern.parts[position:])))

    @property
    def results(self) -> Path:
        """The folder that holds the autograded submissions; reports and logs lie there, too."""
        pattern = self.folder("autograded", "*", "*")
        steps = Path(*pattern.parts[: pattern.parts.index("*")])
        return self.root if steps == self.root else steps.parent

    def assignment_names(self) -> list[str]:
        """Return the names of all assignments: with a source of either kind, or in the gradebook.

        No gradebook is made for asking.

        Raises
        ------
        CourseError
            If the gradebook cannot be read.
        """
        names = {*assignment_names(self.root), *self._nbgrader_sources()}
        if self._may_have_a_gradebook():
            names |= self._known_assignments()
        return sorted(names)

    def _may_have_a_gradebook(self) -> bool:
        """Whether it is not sure, without asking a server, that there is none."""
        try:
            file = _file_of(make_url(self.directory().db_url))
        except ArgumentError:
            return True
        return file is None or file.is_file()

    def _known_assignments(self) -> set[str]:
        with self.gradebook() as gradebook:
            try:
                return {entry.name for entry in gradebook.assignments}
            except DBAPIError as error:
                raise CourseError(
                    f"the gradebook {self.gradebook_name} cannot be read: {error.orig}; if an "
                    "older nbgrader made it, run `nbgrader db upgrade`"
                ) from error

    def _nbgrader_sources(self) -> set[str]:
        pattern = self.folder("source", ".", "*")
        position = pattern.parts.index("*")
        found = Path(*pattern.parts[:position]).glob(
            "/".join((*pattern.parts[position:], "*.ipynb"))
        )
        return {path.parts[position] for path in found}

    def find_assignment(self, name: str) -> Assignment:
        """Return the assignment called `name`; raise `UnknownAssignmentError` if there is none."""
        names = self.assignment_names()
        if not names:
            place = self.folder("source", ".", "*") / "*.ipynb"
            raise UnknownAssignmentError(
                f"unknown assignment {name!r}: there is none in this course, neither {place}, nor "
                f"{self.root}/solutions/*/*.md, nor one in the gradebook {self.gradebook_name}"
            )
        return named_assignment(name, names, self.root)

    def find_source(self, name: str, purpose: str) -> Assignment:
        """Return the assignment called `name`, which must have a text source for a purpose.

        Raises
        ------
        CourseError
            If it is an assignment of plain nbgrader notebooks.
        UnknownAssignmentError
            If there is none of that name.
        """
        try:
            return find_assignment(name, self.root)
        except UnknownAssignmentError:
            if name not in self.assignment_names():
                if assignment_names(self.root):
                    raise
                raise CourseError(
                    f"unknown assignment {name!r}: this course has only plain nbgrader notebooks, "
                    f"no solutions/*/*.md, which {purpose}"
                ) from None
        raise CourseError(
            f"assignment {name!r} is one of plain nbgrader notebooks: there is no "
            f"solutions/{name}/{name}.md, which {purpose}"
        )

    def notebook_names(self, assignment: Assignment) -> list[str]:
        """Return the names of an assignment's notebooks, as the gradebook knows them.

        Raises
        ------
        CourseError
            If the assignment is not released.
        """
        with self.gradebook() as gradebook:
            try:
                notebooks = gradebook.find_assignment(assignment.name).notebooks
            except MissingEntry:
                notebooks = []
            if not notebooks:
                raise CourseError(
                    f"assignment {assignment.name!r} is not in the gradebook "
                    f"{self.gradebook_name} yet: run `{assignment.release_command}` first"
                )
            return sorted(notebook.name for notebook in notebooks)


def _settings(folder: Path) -> Config:
    try:
        return PyFileConfigLoader(CONFIG_FILE, path=str(folder)).load_config()
    except Exception as error:  # the file is a program
        reason = f"{type(error).__name__}: {error}"
        raise CourseError(f"{folder / CONFIG_FILE} cannot be read: {reason}") from error


@contextlib.contextmanager
def _named_setting(kind: type[Configurable], config: Config) -> Iterator[None]:
    """Say which setting it is that a class of nbgrader does not take."""
    try:
        yield
    except (AttributeError, ImportError, TraitError, ValueError) as error:
        # what a hook's name cannot be found for does not name the hook
        hooks = [
            f"; {section}.{name} is {value!r}"
            for section in kind.section_names()
            for name, value in config[section].items()
            if name.endswith("_hook")
        ]
        raise _unusable(f"{type(error).__name__}: {error}{''.join(hooks)}") from error


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _unusable(reason: str) -> CourseError:
    return CourseError(f"a setting in {CONFIG_FILE} cannot be used: {reason}")


def _file_of(url: URL) -> Path | None:
    """Return the file that a gradebook is, if it is one."""
    named = url.database and "uri" not in url.query and url.database != ":memory:"
    return Path(url.database or "") if named and url.get_backend_name() == "sqlite" else None


@contextlib.contextmanager
def _one_at_a_time(url: URL) -> Iterator[None]:
    """Let one process at a time make the tables of a new gradebook."""
    file = _file_of(url)
    if file is not None:
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    elif url.get_backend_name() == "postgresql":
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(select(func.pg_advisory_lock(TABLES_LOCK)))
            yield
    else:
        yield


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
