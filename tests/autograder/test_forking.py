"""Forks without other threads run no handlers, and forks with some run all."""

import subprocess
import sys
from pathlib import Path

import pytest

from autograder.child import confinement, forking

ROOT = Path(__file__).parents[2]
FORK = """
import os, sys, threading
sys.path.insert(0, {root!r})
from autograder.child.forking import fork

os.register_at_fork(after_in_child=lambda: print("put in order", flush=True))
leave = threading.Event()
if {threads}:
    threading.Thread(target=leave.wait).start()
if fork() == 0:
    lock = threading.Lock()
    worker = threading.Thread(target=lambda: print("in a thread", flush=True))
    worker.start()
    worker.join()
    print("child", threading.active_count(), flush=True)
    os._exit(0)
os.wait()
leave.set()
print("parent")
"""


@pytest.mark.parametrize("threads", [False, True])
def test_locks_are_made_anew_only_where_a_thread_could_hold_them(threads):
    done = subprocess.run(
        [sys.executable, "-c", FORK.format(root=str(ROOT), threads=threads)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    expected = ["in a thread", "child 1", "parent"]
    assert done.stdout.splitlines() == ["put in order"] * threads + expected


def test_a_fork_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(forking, "_other_threads", lambda: 0)
    monkeypatch.setattr(forking, "_libc", type("", (), {"fork": staticmethod(lambda: -1)}))
    with pytest.raises(OSError, match="fork failed"):
        forking.fork()


FORK_INTO = """
import os, sys
sys.path.insert(0, {root!r})
from autograder.child import confinement
from autograder.child.forking import fork_into

try:
    pid = fork_into({namespaces})
except OSError as error:
    sys.exit(str(error))
if pid == 0:
    child = os.fork()
    if child == 0:
        os._exit(0)
    print(os.getpid(), child, os.waitpid(child, 0), flush=True)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def run_fork_into(namespaces):
    return subprocess.run(
        [sys.executable, "-c", FORK_INTO.format(root=str(ROOT), namespaces=namespaces)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_process_is_forked_into_namespaces_of_its_own():
    done = run_fork_into(confinement.CLONE_NEWUSER | confinement.CLONE_NEWPID)
    # the first of its namespace, whose child is the second, and which its parent can wait for
    assert done.stdout.splitlines() == ["1 2 (2, 0)", "7"]


def test_namespaces_that_cannot_be_had_are_an_error_that_says_why():
    shared_file_system = 0x200
    done = run_fork_into(confinement.CLONE_NEWNS | shared_file_system)
    assert "clone: Invalid argument" in done.stderr


def test_a_machine_whose_system_call_is_not_known_is_named(monkeypatch):
    monkeypatch.setattr(forking.platform, "machine", lambda: "vax")
    with pytest.raises(OSError, match=r"machine of type 'vax', expected x86_64 or"):
        forking.fork_into(confinement.CLONE_NEWPID)
