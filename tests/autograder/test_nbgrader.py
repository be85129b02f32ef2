"""nbgrader's own commands and formgrader, set up by `nbgrader_config.py` alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbconvert.exporters import HTMLExporter
from nbgrader.apps.api import NbGraderAPI
from nbgrader.server_extensions.formgrader import handlers

from autograder.course import Course

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SHOW = f"from IPython.display import HTML, display\ndisplay(HTML({SCRIPT!r}))\nprint({SCRIPT!r})"


def nbgrader(course, *arguments):
    """Run one of nbgrader's commands as an instructor does, in the course's folder."""
    commands = Path(sys.executable).parent
    return subprocess.run(
        [commands / "nbgrader", *arguments],
        cwd=course.root,
        env={**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def autograde(course, assignment, student="ada"):
    """Autograde as formgrader's button does, in this process."""
    api = NbGraderAPI(course.directory(), config=course.config)
    result = api.autograde(assignment, student)
    assert result["success"], result


def scores(course, student="ada", assignment="toy"):
    with course.gradebook() as gradebook:
        notebook = gradebook.find_submission_notebook(assignment, assignment, student)
        return {grade.name: grade.auto_score for grade in notebook.grades}


def add_markup(notebook):
    notebook.cells += [
        nbformat.v4.new_markdown_cell(f"# Notes {SCRIPT}\n\n{SCRIPT}", id="notes"),
        nbformat.v4.new_code_cell(SHOW, id="show"),
    ]
    for cell in notebook.cells:
        if cell.id == "essay":
            cell.source = f"Written. {SCRIPT}"


def test_autograde_and_feedback_as_an_instructor_runs_them(toy_course, hand_in):
    hand_in("ada", add_markup, "def square(x):\n    return 2 * x")
    (hand_in("bob") / "toy.ipynb").write_text("{ not JSON")
    (hand_in("cyd") / "toy.ipynb").write_bytes(b"")
    run = nbgrader(toy_course, "autograde", "toy")
    assert run.returncode == 0, run.stderr
    assert scores(toy_course, "ada") == {"test_square": 2, "essay": None}
    assert scores(toy_course, "bob") == scores(toy_course, "cyd") == {"test_square": 0, "essay": 0}

    run = nbgrader(toy_course, "generate_feedback", "toy")
    assert run.returncode == 0, run.stderr
    ada, bob, cyd = (
        (toy_course.folder("feedback", student, "toy") / "toy.html").read_text()
        for student in ("ada", "bob", "cyd")
    )
    assert "2 of 8 points" in ada
    assert "Your results agree with doubling instead of squaring." in ada
    assert 'href="https://example.org/book/toy.html#square"' in ada
    assert "it is not JSON (line 1" in bob
    assert "The notebook file is empty." in cyd
    assert_no_script(ada)
    assert "torch.randn" not in ada
    assert "def test_values" not in ada


def assert_no_script(page):
    assert "<script" not in page.replace("&lt;script", "")
    assert "onerror=" not in page.replace("onerror=alert(2)&gt;", "").replace(
        '<span class="s2">', ""
    ).replace("img src=x onerror=alert(2)", "")


def test_formgraders_button_takes_the_same_way(toy_course, hand_in):
    hand_in()
    autograde(toy_course, "toy")
    assert scores(toy_course) == {"test_square": 6, "essay": None}
    api = NbGraderAPI(toy_course.directory(), config=toy_course.config)
    result = api.generate_feedback("toy", "ada")
    assert result["success"], result
    page = toy_course.folder("feedback", "ada", "toy") / "toy.html"
    assert "6 of 8 points" in page.read_text()


def test_formgraders_page_shows_the_checks_and_runs_no_students_script(toy_course, hand_in):
    hand_in("ada", add_markup)
    autograde(toy_course, "toy")
    config = toy_course.config
    config.HTMLExporter.template_name = "formgrade"
    config.HTMLExporter.extra_template_basedirs = [handlers.template_path]
    resources = {
        "assignment_id": "toy",
        "notebook_id": "toy",
        "submission_id": "1",
        "index": 0,
        "total": 1,
        "base_url": "",
        "student": "ada",
        "last_name": "",
        "first_name": "",
        "notebook_path": "toy.ipynb",
    }
    path = toy_course.folder("autograded", "ada", "toy") / "toy.ipynb"
    page, _ = HTMLExporter(config=config).from_filename(str(path), resources=resources)
    assert "6 of 6 points" in page
    assert "The values and the gradient of x times x." in page
    assert "<script>alert(1)</script>" not in page
    assert "<img src=x" not in page
    assert "\x1b[" not in page


def test_formgrader_can_show_the_configuration(toy_course):
    assert "SubmissionExporter" in json.dumps(toy_course.config)


def test_formgrader_runs_no_script_of_a_notebook_that_was_graded_before(toy_course):
    data = {"text/html": SCRIPT, "application/javascript": "alert(3)"}
    outputs = [
        nbformat.v4.new_output("display_data", data=data),
        nbformat.v4.new_output("display_data", data={"text/html": SCRIPT}),
        nbformat.v4.new_output("error", traceback=["\x1b[38;2;250;250;250mpale\x1b[0m"]),
    ]
    cell = nbformat.v4.new_code_cell("1", outputs=outputs)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    config = toy_course.config
    config.HTMLExporter.template_name = "basic"
    page, _ = HTMLExporter(config=config).from_notebook_node(notebook)
    assert "alert(" not in page
    assert "pale" in page
    assert "rgb(250,250,250)" not in page.replace(" ", "")


def test_no_execute_gives_no_points_away(toy_course, hand_in):
    hand_in(answer="def square(x):\n    return 0")
    run = nbgrader(toy_course, "autograde", "toy", "--no-execute")
    assert run.returncode == 0, run.stderr
    assert scores(toy_course)["test_square"] == 0


def plain_cell(name, source, *, kind="code", points=None, **flags):
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}[kind]
    cell = make(source, id=name)
    cell.metadata["nbgrader"] = {
        "grade": False,
        "grade_id": name,
        "locked": False,
        "schema_version": 3,
        "solution": False,
        "task": False,
        **flags,
    }
    if points is not None:
        cell.metadata.nbgrader["points"] = points
    return cell


HIDDEN = (
    "assert double(1) == 2\n### BEGIN HIDDEN TESTS\nassert double(4) == 8\n### END HIDDEN TESTS"
)
SOLVED = "### BEGIN SOLUTION\ndef double(x):\n    return 2 * x\n### END SOLUTION"


@pytest.fixture(scope="module")
def released_plain(tmp_path_factory):
    """An ordinary nbgrader course: tests in the notebook, no hidden check files, no exercises."""
    root = tmp_path_factory.mktemp("plain") / "course"
    root.mkdir()
    config = (Path(__file__).parents[2] / "nbgrader_config.py").read_text()
    (root / "nbgrader_config.py").write_text(config + "c.JudgeSubmission.cell_seconds = 5\n")
    course = Course.load(root)
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}},
        cells=[
            plain_cell("double", SOLVED, solution=True),
            plain_cell("test_double", HIDDEN, grade=True, locked=True, points=3),
            plain_cell("partial", "double(1) / 4", grade=True, locked=True, points=1),
            plain_cell("essay", "x", kind="markdown", grade=True, solution=True, points=2),
            plain_cell("chore", "Do it.", kind="markdown", task=True, locked=True, points=2),
        ],
    )
    folder = course.folder("source", ".", "plain")
    folder.mkdir(parents=True)
    (folder / "plain.ipynb").write_text(nbformat.writes(notebook))
    course.gradebook(make=True).close()
    result = NbGraderAPI(course.directory(), config=course.config).generate_assignment("plain")
    assert result["success"], result
    return root


@pytest.fixture
def plain_course(released_plain, tmp_path):
    shutil.copytree(released_plain, tmp_path / "course")
    return Course.load(tmp_path / "course")


ANSWERS = {
    "right": "def double(x):\n    return 2 * x",
    "passes_the_visible_test": "def double(x):\n    return 2",
    "wrong": "def double(x):\n    return x",
    "warns": "import warnings\ndef double(x):\n    warnings.warn('careful')\n    return 2 * x",
    "empty": "",
}


def hand_in_plain(course, student, answer):
    released = course.folder("release", ".", "plain") / "plain.ipynb"
    notebook = nbformat.read(released, as_version=4)
    notebook.cells[0].source = answer
    notebook.cells[3].source = "My answer."
    folder = course.folder("submitted", student, "plain")
    folder.mkdir(parents=True)
    (folder / "plain.ipynb").write_text(nbformat.writes(notebook))


def test_a_plain_course_gets_the_scores_that_stock_nbgrader_gives(plain_course):
    for student, answer in ANSWERS.items():
        hand_in_plain(plain_course, student, answer)
    run = nbgrader(plain_course, "autograde", "plain")
    assert run.returncode == 0, run.stderr
    ours = {student: scores(plain_course, student, "plain") for student in ANSWERS}
    strip_our_settings(plain_course)
    run = nbgrader(plain_course, "autograde", "plain", "--force")
    assert run.returncode == 0, run.stderr
    theirs = {student: scores(plain_course, student, "plain") for student in ANSWERS}
    assert ours == theirs
    assert ours["right"] == {"test_double": 3, "partial": 0.5, "essay": None, "chore": None}
    assert ours["passes_the_visible_test"]["test_double"] == 0


def strip_our_settings(course):
    path = course.root / "nbgrader_config.py"
    lines = [
        line
        for line in path.read_text().splitlines()
        if "use_autograder" not in line and "JudgeSubmission" not in line
    ]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    "answer",
    ["import os\nos._exit(0)", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"],
)
def test_a_test_that_never_ran_earns_nothing_in_a_plain_course(plain_course, answer):
    hand_in_plain(plain_course, "ada", answer)
    autograde(plain_course, "plain")
    given = scores(plain_course, "ada", "plain")
    assert (given["test_double"], given["partial"]) == (0, 0)


def test_a_linked_folder_is_not_followed_by_nbgraders_own_command(toy_course, hand_in):
    hand_in("bob", notes_txt="Bob's")
    folder = toy_course.folder("submitted", "ada", "toy")
    folder.parent.mkdir(parents=True)
    folder.symlink_to("../bob/toy")
    autograde(toy_course, "toy")
    assert set(scores(toy_course).values()) == {0}
    names = {path.name for path in toy_course.folder("autograded", "ada", "toy").iterdir()}
    assert names == {"toy.ipynb"}


def test_a_plain_course_without_a_release_folder_is_graded_from_the_gradebook(plain_course):
    hand_in_plain(plain_course, "ada", ANSWERS["right"])
    for path in plain_course.folder("release", ".", "plain").iterdir():
        path.unlink()
    autograde(plain_course, "plain")
    assert scores(plain_course, "ada", "plain")["test_double"] == 3


def test_an_unreadable_submission_waits_for_nobody_in_a_plain_course(plain_course):
    hand_in_plain(plain_course, "ada", ANSWERS["right"])
    (plain_course.folder("submitted", "ada", "plain") / "plain.ipynb").write_bytes(b"")
    autograde(plain_course, "plain")
    assert set(scores(plain_course, "ada", "plain").values()) == {0}
    with plain_course.gradebook() as gradebook:
        assert not gradebook.find_submission("plain", "ada").needs_manual_grade
