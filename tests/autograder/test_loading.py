"""What is loaded is not searched for garbage, and the search itself goes on afterwards."""

import gc
import subprocess
import sys

import pytest

from autograder.loading import load

SEARCHES = """
import gc
from autograder.loading import load

searches = []
gc.callbacks.append(lambda phase, information: searches.append(information["generation"]))
load("module_of_many_objects")
print(len(searches), gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
AT_THE_END = """
import atexit, gc

# what is registered first comes last
atexit.register(lambda: print(gc.get_freeze_count() > 100_000))
import autograder.loading

kept = [[] for _ in range(200_000)]
"""


def said_by(source, folder):
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_nothing_is_searched_while_a_module_is_loaded(tmp_path):
    (tmp_path / "module_of_many_objects.py").write_text("kept = [[] for _ in range(200_000)]")
    assert said_by(SEARCHES, tmp_path) == ["0", "True", "True"]


def test_nothing_is_searched_as_the_process_ends(tmp_path):
    assert said_by(AT_THE_END, tmp_path) == ["True"]


def test_a_search_that_was_off_stays_off():
    gc.disable()
    try:
        load("colorsys")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_module_that_is_not_there_leaves_the_search_on():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load("no_such_module")
    assert gc.isenabled()
