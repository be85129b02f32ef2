"""What a result depends on apart from the course and the submission: Python, packages, our code."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

# what runs a notebook, judges it, or writes its outputs
PACKAGES = (
    "bleach",
    "ipython",
    "jupytext",
    "matplotlib",
    "nbclient",
    "nbconvert",
    "nbformat",
    "nbgrader",
    "numpy",
    "pyseccomp",
    "pytest",
    "torch",
)
OWN_PACKAGES = ("autograder", "lossref")
MISSING = "missing"


@functools.cache
def environment() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter, and digests of our own code.

    Read once in a process: what is imported does not change with the files.
    """
    found = {"python": platform.python_version(), "system": platform.system()}
    found |= {name: _version(name) for name in PACKAGES}
    return found | {name: _digest(name) for name in OWN_PACKAGES}


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return a phrase for each way in which an environment differs from the one expected.

    Examples
    --------
    >>> differences({"torch": "2.13.0", "numpy": "2.4.0"}, {"torch": "2.9.0", "numpy": "2.4.0"})
    ['torch is 2.9.0, expected 2.13.0']
    """
    return [
        f"{name} is {found.get(name, MISSING)}, expected {value}"
        for name, value in expected.items()
        if found.get(name, MISSING) != value
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING


def _digest(package: str) -> str:
    """Return a digest of a package's source, which changes more often than its version."""
    spec = find_spec(package)
    folders = (spec and spec.submodule_search_locations) or []
    if not folders:
        return MISSING
    digest = hashlib.sha256()
    for folder in map(Path, folders):
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"of source {digest.hexdigest()[:12]}"
