"""Forks without other threads run no handlers, and forks with some run all."""

import subprocess
import sys
from pathlib import Path

import pytest

from autograder.child import forking

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
