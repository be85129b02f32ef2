"""A container for programs that must not reach the machine: stock nbgrader while it is attacked.

bubblewrap gives namespaces of every kind and a file system that can be read only, the temporary
folders apart, which are in memory and limited. The program runs as a user of its own, on one core,
with limits on every process; what all of them hold together, and how long, is watched from outside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from autograder.child.memory import private_memory, proportional_memory  # noqa: E402
from autograder.child.process_tree import descendants  # noqa: E402
from autograder.confinement import interpreter_folders  # noqa: E402
from tests.autograder.ordinary_user import as_ordinary_user  # noqa: E402

# no other program on the machine runs as this user, or as those that follow, and counts against
# the limits of a user
FIRST_USER = 23456
MEMORY = 5 * 2**30
WATCH_SECONDS = 0.1
FOLDER_SIZE = 2**29
LIMITS = [f"--data={4 * 2**30}", "--nproc=400", f"--fsize={2**28}", "--nofile=1024", "--core=0"]
SANDBOX = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
SANDBOX += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
OWN_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")
for folder in OWN_FOLDERS:
    SANDBOX += ["--size", str(FOLDER_SIZE), "--perms", "1777", "--tmpfs", folder]
# what runs must be seen, wherever it lies
for needed in (str(ROOT), *interpreter_folders()):
    if needed.startswith(tuple(f"{folder}/" for folder in OWN_FOLDERS)):
        SANDBOX += ["--ro-bind", needed, needed]


@dataclass(frozen=True)
class Ended:
    """How a program in the container ended; `stopped` says whether it had to be: by which limit."""

    said: str
    complained: str
    stopped: str = ""


def run(
    command: Sequence[str],
    *,
    shown: Mapping[str, Path],
    seconds: float,
    cpu_seconds: int = 120,
    user: int = FIRST_USER,
) -> Ended:
    """Run a program to its end, or to a limit; `shown` folders can be read under other names."""
    core = min(os.sched_getaffinity(0))
    limits = ["prlimit", *LIMITS, f"--cpu={cpu_seconds}"]
    sandbox = list(SANDBOX)
    for name, path in shown.items():
        sandbox += ["--ro-bind", str(path), name]
    confined = ["taskset", "-c", str(core), "nice", *limits, *sandbox, *command]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        process = subprocess.Popen(
            as_ordinary_user(confined, user),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=complained,
            env={**os.environ, "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            stopped = _watch(process, time.monotonic() + seconds)
        finally:
            # its first process takes all others of the namespace with it
            process.kill()
            process.wait()
        return Ended(_text(said), _text(complained), stopped)


def _watch(process: subprocess.Popen[bytes], deadline: float) -> str:
    """Wait for the end; return the limit that was reached, if one was."""
    while process.poll() is None:
        if time.monotonic() > deadline:
            return "time"
        pids = descendants(process.pid)
        # the first sum is quick and counts shared pages often; the second is exact and slow
        if sum(map(private_memory, pids)) > MEMORY < sum(map(proportional_memory, pids)):
            return "memory"
        time.sleep(WATCH_SECONDS)
    return ""


def _text(file: object) -> str:
    file.seek(0)  # type: ignore[attr-defined]
    return file.read(2**20).decode(errors="replace")  # type: ignore[attr-defined]
