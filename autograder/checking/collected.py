"""The checks of one file, collected once and run with pytest's own runner for every submission."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from _pytest.config import _prepareconfig
from _pytest.python import DirectParamFixtureDef
from _pytest.runner import runtestprotocol

from autograder.assignment import Assignment, BrokenCheckError

# what a check could use stays: parametrisation, fixtures, marks, monkeypatch, tmp_path
LEFT_OUT = (
    *("cacheprovider", "capture", "debugging", "doctest", "faulthandler", "junitxml"),
    *("legacypath", "logging", "pastebin", "setuponly", "setupplan", "stepwise"),
    *("threadexception", "unittest", "unraisableexception", "warnings"),
)
# more than a course has; a worker that sees many versions of courses must not keep them all
MAX_COLLECTED = 200
_collected: dict[Path, CollectedChecks] = {}


@dataclass(frozen=True)
class CollectedCheck:
    """One test function and its parametrised cases."""

    name: str
    description: str
    points: float
    hint: str
    cases: tuple[pytest.Item, ...]


class CollectedChecks:
    """The checks of one file, and the pytest session that they belong to.

    Fixtures of every scope are set up anew in each run of a case.
    """

    def __init__(self, assignment: Assignment, path: Path) -> None:
        from autograder.checking import plugin

        self.path = path
        self.stamp = _stamp(assignment, path)
        self.version = hashlib.sha256(repr(self.stamp).encode()).hexdigest()
        self.errors: list[str] = []
        self.caught: list[BaseException] = []
        arguments = [
            str(path),
            "--quiet",
            "--disable-plugin-autoload",
            "--import-mode=importlib",
            f"--rootdir={assignment.root}",
            "-c",
            os.devnull,
            "--tb=no",
            "--assert=plain",
            "--override-ini=tmp_path_retention_policy=failed",
            *(f"-pno:{name}" for name in LEFT_OUT),
        ]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                self.config = _prepareconfig(arguments, [plugin, self])
                # in a path, brackets and colons would name a case of a check
                invocation = replace(self.config.invocation_params, dir=path.parent)
                self.config.invocation_params = invocation
                self.config.args = [path.name]
                self.session = _started_session(self.config)
            except (Exception, SystemExit) as error:
                raise BrokenCheckError(f"{path}: {error} {said.getvalue()}") from error
        if self.errors or not self.session.items:
            raise BrokenCheckError(f"{path}: {' '.join(self.errors) or 'it holds no checks'}")
        self.checks = _grouped(self.session.items)
        self.given = {item: _direct_parameters(item) for item in self.session.items}
        # asked for at every hook; all conftests are known by now
        vars(self.session)["gethookproxy"] = cache(self.session.gethookproxy)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a check file that cannot be imported."""
        if report.failed:
            self.errors.append(str(report.longrepr))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Give a case its parameters; pytest makes a fixture of each, which is slow."""
        if isinstance(item, pytest.Function):
            item.funcargs.update(self.given[item])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> pytest.TestReport:
        """Note what a case raised; nobody reads the traceback that pytest would make of it."""
        if call.excinfo is not None:
            self.caught.append(call.excinfo.value)
        assert call.when != "collect"
        outcome: Any = "passed" if call.excinfo is None else "failed"
        return pytest.TestReport(item.nodeid, item.location, {}, outcome, None, call.when)

    def run(self, case: pytest.Item) -> BaseException | None:
        """Run one case with fixtures of its own; return what it raised first, if it did."""
        self.caught.clear()
        case.user_properties.clear()
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                runtestprotocol(case, log=False, nextitem=None)
            except pytest.exit.Exception as error:
                raise BrokenCheckError(f"{case.nodeid} called pytest.exit") from error
        for raised in self.caught:
            if isinstance(raised, pytest.skip.Exception):
                raise BrokenCheckError(
                    f"{case.nodeid} was skipped ({raised.msg}); a check has to pass or fail, "
                    "wherever it is run: its points could not be earned"
                )
        return self.caught[0] if self.caught else None

    def close(self) -> None:
        """End the session, and with it what its fixtures and plugins hold."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.config.hook.pytest_sessionfinish(session=self.session, exitstatus=0)
            self.config._ensure_unconfigure()


def collected_checks(assignment: Assignment, path: Path) -> CollectedChecks:
    """Return the checks of a file, collected again if it or what it imports was edited.

    Raises
    ------
    BrokenCheckError
        If the file cannot be imported, holds no checks, or one lacks points or a docstring.
    """
    known = _collected.get(path)
    if known is not None:
        if known.stamp == _stamp(assignment, path):
            return known
        _collected.pop(path).close()
    while len(_collected) >= MAX_COLLECTED:
        _collected.pop(next(iter(_collected))).close()
    _drop_stale_modules(path)
    _collected[path] = CollectedChecks(assignment, path)
    return _collected[path]


def _started_session(config: pytest.Config) -> pytest.Session:
    """Return a session with the collected items, ready to run them."""
    session: pytest.Session = pytest.Session.from_config(config)
    config._do_configure()
    config.hook.pytest_sessionstart(session=session)
    config.hook.pytest_collection(session=session)
    return session


def _grouped(items: list[pytest.Item]) -> tuple[CollectedCheck, ...]:
    """Return the checks with their cases, in the order of the file."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(check_name(item), []).append(item)
    return tuple(describe(name, tuple(group)) for name, group in cases.items())


def _direct_parameters(item: pytest.Item) -> dict[str, Any]:
    """Return the parameters of a case that no fixture is asked to make something of."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return {}
    made_by = item._fixtureinfo.name2fixturedefs
    return {
        name: value
        for name, value in item.callspec.params.items()
        if isinstance(made_by.get(name, [None])[-1], DirectParamFixtureDef)
    }


def check_name(item: pytest.Item) -> str:
    """Return the name of the test function that a case belongs to, with that of its class."""
    name = str(getattr(item, "originalname", item.name))
    kind = getattr(item, "cls", None)
    return f"{kind.__qualname__}.{name}" if kind else name


def describe(name: str, cases: tuple[pytest.Item, ...]) -> CollectedCheck:
    """Read what a check's author wrote about it."""
    item = cases[0]
    documentation = (getattr(item, "obj", None).__doc__ or "").strip()
    if not documentation:
        raise BrokenCheckError(f"the hidden check {name} has no docstring for the student to read")
    points = item.get_closest_marker("points")
    if points is None:
        raise BrokenCheckError(f"the hidden check {name} has no mark `points`")
    hint = item.get_closest_marker("hint")
    return CollectedCheck(
        name,
        documentation.splitlines()[0],
        float(points.args[0]),
        str(hint.args[0]) if hint else "",
        cases,
    )


def _stamp(assignment: Assignment, path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a check file, or one beside it that it may read, is edited."""
    # with names in place of `Path` objects: this is asked for every grade cell of a submission
    conftests = (f"{folder}/conftest.py" for folder in path.parents)
    with os.scandir(assignment.checks) as entries:
        beside = [entry.path for entry in entries if entry.is_file()]
    files = {str(path), *beside, *conftests}
    return tuple((file, *_written(file)) for file in sorted(files))


def _written(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)  # noqa: PTH116
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _drop_stale_modules(path: Path) -> None:
    """Forget check files of another course, or of before an edit, that go by the same name."""
    names = (f"/{path.name}", "/conftest.py")
    for module_name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").endswith(names):
            del sys.modules[module_name]
