"""What this machine can do: versions, devices, confinement; and what the course here is."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from autograder.assignment import hidden_assignment, project_root
from autograder.confinement import missing_confinement
from autograder.course import Course, CourseError
from autograder.misspelt import misspelt_settings

PACKAGES = ("nbgrader", "nbconvert", "ipython", "numpy", "torch", "pytest")


def examine() -> dict[str, str]:
    """Return what was found out, by name."""
    found = {
        "python": f"{sys.version.split()[0]} ({sys.executable})",
        "system": platform.platform(),
        "cores": str(len(os.sched_getaffinity(0))),
        "user": "root" if os.geteuid() == 0 else f"uid {os.geteuid()}, without privileges",
    }
    found |= {name: _version(name) for name in PACKAGES}
    found["devices"] = ", ".join(_devices())
    missing = missing_confinement()
    found["confinement"] = f"not available: {missing}" if missing else "available"
    found["user namespaces"] = _user_namespaces()
    found["security modules"] = _read("/sys/kernel/security/lsm") or "unknown"
    found["control groups"] = (
        "version 2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "not version 2"
    )
    found["memory limit"] = "kept by a watch over each submission; control groups are not used"
    return found


def examine_course() -> dict[str, str]:
    """Return what was found out about the course that this folder belongs to, by name."""
    try:
        course = Course.load(project_root())
        names = course.assignment_names()
    except (CourseError, FileNotFoundError) as error:
        return {"course": str(error)}
    kinds = {True: "hidden checks", False: "tests in the notebook alone"}
    told = [f"{name} ({kinds[hidden_assignment(course.root, name) is not None]})" for name in names]
    commands = (
        "use the autograder, too"
        if course.set_up
        else f"do not use the autograder: {course.settings_file.name} does not call use_autograder"
    )
    found = {
        "course": str(course.root),
        "gradebook": course.gradebook_name,
        "assignments": ", ".join(told) or "none",
        "nbgrader's commands": commands,
    }
    if misspelt := misspelt_settings(course.own):
        found[course.settings_file.name] = "\n".join(misspelt)
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [
            f"cuda:{number} ({torch.cuda.get_device_name(number)})"
            for number in range(torch.cuda.device_count())
        ]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def _user_namespaces() -> str:
    limit = _read("/proc/sys/user/max_user_namespaces")
    if not limit:
        return "not supported"
    restricted = _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    note = ", restricted for ordinary users by AppArmor" if restricted else ""
    return "switched off" if limit == "0" else f"up to {limit}{note}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
