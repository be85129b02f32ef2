"""What a result depends on, and what it does not."""

import shutil

import pytest

from autograder import grading
from autograder.assignment import Assignment
from autograder.course import Course
from autograder.grading import make_setting, state_digest

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")


def digest_of(course):
    assignment = Assignment("toy", course.root)
    return state_digest(course, assignment, make_setting(course, assignment, ["toy"]))


def append(path, text):
    path.write_text(path.read_text() + text)


def edit_check(root):
    append(root / "tests/hidden/toy/test_square.py", "# another check\n")


def edit_misconception(root):
    append(root / "tests/hidden/toy/bank/square.py", "# another misconception\n")


def withdraw_a_name(root):
    (root / "tests/hidden/toy/not_allowed.txt").write_text("torch.square\n")


def edit_shared_fixture(root):
    (root / "tests/hidden/conftest.py").write_text("# a fixture for all assignments\n")


def edit_released_notebook(root):
    path = root / "exercises/toy/toy.ipynb"
    path.write_text(path.read_text().replace("Try it.", "Try it now."))


def change_a_setting(root):
    append(root / "nbgrader_config.py", "c.JudgeSubmission.cell_seconds = 7\n")


def change_what_a_step_does(root):
    append(root / "nbgrader_config.py", "c.LimitOutput.max_lines = 3\n")


def change_the_secret(root):
    (root / "course/class_seed.txt").write_text("another secret\n")


AFFECTING = [
    edit_check,
    edit_misconception,
    withdraw_a_name,
    edit_shared_fixture,
    edit_released_notebook,
    change_a_setting,
    change_what_a_step_does,
    change_the_secret,
]


@pytest.mark.parametrize("change", AFFECTING, ids=lambda change: change.__name__)
def test_a_change_of_what_judges_a_submission_grades_it_again(toy_course, change):
    before = digest_of(toy_course)
    change(toy_course.root)
    assert digest_of(Course.load(toy_course.root)) != before


PLUGIN = """
from nbgrader.plugins import BasePlugin

class Hourly(BasePlugin):
    def late_submission_penalty(self, student_id, score, total_seconds_late):
        return 1
"""


@pytest.mark.parametrize("place", ["settings", "a module"])
def test_what_lateness_costs_grades_again_when_it_was_edited(toy_course, monkeypatch, place):
    """Bug: a plugin's name alone was looked at, and the old penalties stayed."""
    settings, module = toy_course.root / "nbgrader_config.py", toy_course.root / "my_plugin.py"
    if place == "settings":
        append(settings, f"{PLUGIN}\nc.AssignLatePenalties.plugin_class = Hourly\n")
        edited = settings
    else:
        module.write_text(PLUGIN)
        append(settings, 'c.AssignLatePenalties.plugin_class = "my_plugin.Hourly"\n')
        monkeypatch.syspath_prepend(toy_course.root)
        edited = module
    before = digest_of(Course.load(toy_course.root))
    edited.write_text(edited.read_text().replace("return 1", "return 2"))
    assert digest_of(Course.load(toy_course.root)) != before


def test_another_package_or_gradebook_grades_again(toy_course, monkeypatch, tmp_path):
    before = digest_of(toy_course)
    monkeypatch.setattr(grading, "environment", lambda: {"torch": "another version"})
    assert digest_of(toy_course) != before
    monkeypatch.undo()
    shutil.copy(toy_course.root / "course/gradebook.db", toy_course.root / "course/other.db")
    other = Course.load(toy_course.root)
    url = other.config.CourseDirectory.db_url
    other.config.CourseDirectory.db_url = url.replace("gradebook.db", "other.db")
    assert digest_of(other) != before


def test_checks_of_another_assignment_and_the_courses_place_grade_nothing_again(
    toy_course, tmp_path
):
    before = digest_of(toy_course)
    another = toy_course.root / "tests/hidden/another"
    another.mkdir()
    (another / "test_cube.py").write_text("# a check of another assignment\n")
    cache = toy_course.root / "tests/hidden/toy/__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "test_square.pyc").write_bytes(b"made by Python")
    assert digest_of(toy_course) == before
    shutil.move(toy_course.root, tmp_path / "elsewhere")
    assert digest_of(Course.load(tmp_path / "elsewhere")) == before
