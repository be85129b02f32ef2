"""What is started ahead is used or ended, and what only hands out work loads nothing slow."""

import subprocess
import sys

import pytest

from autograder import spawned


@pytest.fixture
def nothing_ahead(monkeypatch):
    monkeypatch.setattr(spawned, "_ahead", {})
    monkeypatch.setattr(spawned, "_spawned_ahead", False)


def test_what_was_started_ahead_is_used_once(nothing_ahead, tmp_path):
    spawned.spawn_ahead(True, tmp_path)
    (ahead,) = spawned._ahead.values()
    secret = spawned.secret_folders(tmp_path)
    other = spawned.spawn(True, secret[:1])
    taken = spawned.spawn(True, secret)
    again = spawned.spawn(True, secret)
    try:
        assert taken is ahead
        assert other is not ahead
        assert again is not ahead
    finally:
        for process in (taken, again, other):
            process.close(at_once=True)


def test_it_is_started_ahead_once_and_ended_if_nobody_takes_it(nothing_ahead, tmp_path):
    spawned.spawn_ahead(True, tmp_path)
    (ahead,) = spawned._ahead.values()
    spawned.spawn_ahead(True, tmp_path / "another")
    assert list(spawned._ahead.values()) == [ahead]
    spawned._close_unused()
    assert ahead.process.returncode is not None
    assert spawned._ahead == {}


@pytest.mark.parametrize("module", ["torch", "rfc3987_syntax", "pytest"])
def test_handing_out_work_loads_nothing_slow(module):
    code = f"import sys, autograder.cli, autograder.grading; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
