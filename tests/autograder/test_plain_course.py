"""A course of plain nbgrader notebooks, without hidden checks, is graded as stock nbgrader does."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import nbgrader
import pytest
from bs4 import BeautifulSoup
from nbgrader.api import Gradebook

from autograder.cli import main
from autograder.course import Course
from autograder.misspelt import misspelt_settings
from autograder.record import Record
from tests.autograder.plain_course import (
    EXAMPLE,
    cell,
    hand_in,
    make_class,
    make_course,
    nbgrader_command,
    records,
)

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
# what differs of a graded course of its owner's making and of one that sets the autograder up
SET_UP = """
from autograder.nbgrader_plugin import use_autograder

use_autograder(c)
"""

ADDED_STEP = """
c.Autograde.autograde_preprocessors.append("nbconvert.preprocessors.ClearOutputPreprocessor")
c.ClearOutputPreprocessor.enabled = True
"""
HOOKS = """
import json, os

def note(step, assignment, student, notebooks):
    names = [os.path.relpath(path, "submitted") for path in notebooks]
    done = os.path.exists(f"autograded/{student}/{assignment}")
    with open("calls.jsonl", "a") as file:
        print(json.dumps([step, assignment, student, names, done]), file=file)

def correct(assignment, student, notebooks):
    note("before", assignment, student, notebooks)
    for path in notebooks:
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(text.replace("return None", "return 2 * x"))

def tell(assignment, student, notebooks):
    note("after", assignment, student, notebooks)
    raise ValueError("no letter box")

c.Autograde.pre_convert_hook = correct
c.Autograde.post_convert_hook = tell
"""
HIDDEN_CHECK = '''
import pytest
from autograder.checking import Tolerance


@pytest.mark.points(1)
def test_values(student):
    """The sum of the numbers in the file."""
    student.check("total", lambda: 7, tolerance=Tolerance(0))
'''


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return make_course(tmp_path_factory.mktemp("released") / "plain")


@pytest.fixture(scope="module")
def handed_in(released, tmp_path_factory):
    root = tmp_path_factory.mktemp("handed_in") / "plain"
    shutil.copytree(released, root)
    make_class(root)
    return root


@pytest.fixture(scope="module")
def stock(handed_in, tmp_path_factory):
    """What stock nbgrader records of the class."""
    root = tmp_path_factory.mktemp("stock") / "plain"
    shutil.copytree(handed_in, root)
    nbgrader_command(root, "autograde", "ps")
    return records(root)


@pytest.fixture(scope="module")
def graded(handed_in, tmp_path_factory):
    """The class, graded by `autograder grade`."""
    root = tmp_path_factory.mktemp("graded") / "plain"
    shutil.copytree(handed_in, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["grade", "ps", "--workers", "1"]) == 0
    return root


@pytest.fixture
def here(released, tmp_path, monkeypatch):
    root = tmp_path / "plain"
    shutil.copytree(released, root)
    monkeypatch.chdir(root)
    return root


def test_every_score_is_stock_nbgraders(stock, graded):
    assert records(graded) == stock
    # the class is worth comparing: full, partial and no points, late work, manual grading
    scores = {student: stock[student][0] for student in ("good", "half", "wrong", "blank")}
    assert scores == {"good": 7, "half": 2, "wrong": 1, "blank": 0}
    assert stock["warns", "numbers"] == (1, 8, 1)
    assert stock["good", "words", "essay"][3]


def test_nbgraders_own_command_scores_the_same_where_the_autograder_is_set_up(
    handed_in, stock, tmp_path
):
    root = tmp_path / "plain"
    shutil.copytree(handed_in, root)
    with (root / "nbgrader_config.py").open("a") as file:
        file.write(SET_UP)
    for student in ("wrong", "stuck", "one_notebook", "blank"):
        shutil.rmtree(root / "submitted" / student)
    nbgrader_command(root, "autograde", "ps")
    assert records(root) == {
        key: stock[key] for key in stock if whose(key) in ("good", "half", "warns")
    }


def whose(key):
    return key if isinstance(key, str) else key[0]


def test_nbgraders_example_is_graded_the_same(tmp_path, monkeypatch):
    root = tmp_path / "example"
    shutil.copytree(EXAMPLE / "source", root / "source")
    # what `nbgrader quickstart` writes, but for comments
    (root / "nbgrader_config.py").write_text(
        "c = get_config()\nc.IncludeHeaderFooter.header = 'source/header.ipynb'\n"
    )
    nbgrader_command(root, "generate_assignment", "ps1")
    shutil.copytree(EXAMPLE / "submitted", root / "submitted")
    shutil.copytree(root, tmp_path / "stock")
    nbgrader_command(tmp_path / "stock", "autograde", "ps1")
    monkeypatch.chdir(root)
    assert main(["grade", "ps1", "--workers", "1"]) == 0
    theirs = records(tmp_path / "stock", "ps1")
    assert records(root, "ps1") == theirs
    assert (theirs["bitdiddle"][0], theirs["hacker"][0]) == (1.5, 3)


def test_a_second_run_has_nothing_to_do_and_force_gives_the_same_bytes(
    graded, tmp_path, monkeypatch, capsys
):
    root = tmp_path / "plain"
    shutil.copytree(graded, root)
    monkeypatch.chdir(root)
    before = files_below(root / "autograded")
    assert main(["grade", "ps", "--workers", "1"]) == 0
    assert "0 graded now, 7 unchanged" in " ".join(capsys.readouterr().out.split())
    assert main(["grade", "ps", "--workers", "1", "--student", "good", "--force"]) == 0
    assert files_below(root / "autograded") == before
    assert (root / "autograded/half/ps/data.txt").read_text() == "3\n4\n"


def files_below(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def test_another_file_of_the_instructors_grades_anew(graded, tmp_path, monkeypatch, capsys):
    root = tmp_path / "plain"
    shutil.copytree(graded, root)
    monkeypatch.chdir(root)
    (root / "source/ps/helper.py").write_text("expected = 8\n")
    assert main(["grade", "ps", "--workers", "1", "--student", "good"]) == 0
    assert "1 graded now" in " ".join(capsys.readouterr().out.split())
    assert records(root)["good", "numbers", "test_total"][0] == 0


def test_table_report_and_feedback_name_the_tests(graded, monkeypatch, capsys):
    monkeypatch.chdir(graded)
    assert main(["grade", "ps"]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "grading. numbers: Tests not passed: test_mean, test_partial. words: Tests" in table
    assert table.count("Handed in 1 day late.") == 1
    assert (
        "Waits for manual grading. words: There is no file 'words.ipynb' in the submission; "
        "the folder holds 'mine.ipynb'." in table
    )
    assert main(["report", "ps"]) == 0
    shown = capsys.readouterr().out.split()
    assert shown == [str(graded / "reports/ps" / name) for name in ("index.html", "grades.csv")]
    page = (graded / "reports/ps/index.html").read_text()
    assert '<th scope="row"><code>test_mean</code>' in page
    assert "Misconceptions" not in page
    for name in ("numbers", "words"):
        assert f'href="../../feedback/good/ps/{name}.html">{name}<' in page
    feedback = (graded / "feedback/wrong/ps/numbers.html").read_text()
    assert "1 of 8 points" in feedback
    assert "<summary>The tests</summary>" in feedback
    assert (graded / "logs/grade_ps.log").is_file()
    assert not (graded / "course").exists()


@pytest.fixture(scope="module")
def reported(graded, tmp_path_factory):
    """The graded class with its pages."""
    root = tmp_path_factory.mktemp("reported") / "plain"
    shutil.copytree(graded, root)
    with Gradebook(f"sqlite:///{root}/gradebook.db") as gradebook:
        given = gradebook.find_grade("plot", "numbers", "ps", "good")
        given.manual_score, given.extra_credit, given.needs_manual_grade = 2, 1, False
        gradebook.db.commit()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["report", "ps"]) == 0
    return root


def page_of(root, student, notebook):
    """Return the text of a feedback page."""
    text = (root / f"feedback/{student}/ps/{notebook}.html").read_text()
    return " ".join(BeautifulSoup(text, "html.parser").body.get_text(" ").split())


def test_what_waits_for_manual_grading_is_not_shown_as_no_points(reported):
    """Bug: a part that nobody had graded yet was shown as 0 points."""
    page = page_of(reported, "good", "words")
    assert "1 of 8 points so far 2 parts are not graded yet." in page
    assert "essay not graded yet (3 points)" in page
    assert "Cell 2: task, not graded yet (4 points)" in page
    report = (reported / "reports/ps/index.html").read_text()
    assert "<dt>Waiting for manual grading</dt><dd>7</dd>" in report
    assert "Mean score so far" in report
    done = page_of(reported, "good", "numbers")
    assert "so far" not in done
    assert "not graded yet" not in done


def test_a_penalty_is_a_plain_number(reported):
    """Bug: "after 1.0 taken off for lateness"."""
    assert "so far, after 1 taken off for lateness" in page_of(reported, "warns", "numbers")


def test_extra_credit_is_called_so(reported):
    """Bug: "3 of 2 points" stood there without a word."""
    page = page_of(reported, "good", "numbers")
    assert "plot 3 of 2 points, with 1 of extra credit" in page
    assert "9 of 8 points, with 1 of extra credit" in page


def test_what_a_task_tells_the_grader_is_not_shown(reported):
    """Bug: the page showed the mark scheme of a task, as nbgrader's own does."""
    page = page_of(reported, "good", "words")
    assert "Draw a picture." in page
    assert "MARK SCHEME" not in page
    assert "A point for each colour." not in page


def test_what_was_released_is_not_called_an_answer(reported):
    """Bug: the page on a notebook that was not handed in showed its stubs as "your answer"."""
    page = page_of(reported, "one_notebook", "words")
    assert "not handed in; this is the released text" in page
    assert "your answer" not in page
    assert "Not run: The notebook was not handed in, so nothing was checked." in page
    assert "your answer" in page_of(reported, "one_notebook", "numbers")


def test_a_test_that_was_stopped_says_so(reported):
    assert "Stopped: after 3 seconds" in page_of(reported, "stuck", "numbers")


def test_sentences_of_the_autograders_own_are_no_program_text(reported):
    """Bug: they stood in a line that does not wrap, most of it out of sight on a small screen."""
    page = BeautifulSoup(
        (reported / "feedback/one_notebook/ps/words.html").read_text(), "html.parser"
    )
    (sentence,) = page.find_all(string=re.compile("Not run: "))
    assert (sentence.parent.name, sentence.parent["class"]) == ("p", ["sentence"])


def test_sentences_name_their_notebook_or_are_told_once(here, capsys):
    """Bug: equal sentences on two notebooks were one, and one on the submission stood twice."""
    folder = hand_in(here, "good", {})
    for path in folder.glob("*.ipynb"):
        path.write_bytes(b"")
    (folder / "link.txt").symlink_to("data.txt")
    assert main(["grade", "ps", "--workers", "1"]) == 0
    assert main(["report", "ps"]) == 0
    told = (
        "The file 'link.txt' is a link and was left out. numbers: The notebook file is empty. "
        "words: The notebook file is empty."
    )
    assert told in " ".join(capsys.readouterr().out.split())
    report = (here / "reports/ps/index.html").read_text()
    damaged = BeautifulSoup(report, "html.parser").find(id="troubled").find_next("li")
    assert damaged.get_text() == f"good, 0 of 16 points: {told}"


@pytest.fixture(scope="module")
def elsewhere(released, tmp_path_factory):
    """A graded course without its release folder, with a step and a hidden check of its own."""
    root = tmp_path_factory.mktemp("elsewhere") / "plain"
    shutil.copytree(released, root)
    hand_in(root, "good", {})
    looks = "import os\ndef double(x):\n    return 2 * x if os.path.exists({!r}) else None"
    hand_in(root, "spy", {"double": looks.format(str(root / "gradebook.db"))})
    shutil.rmtree(root / "release")
    with (root / "nbgrader_config.py").open("a") as file:
        file.write(ADDED_STEP)
    check = root / "tests/hidden/ps/test_total.py"
    check.parent.mkdir(parents=True)
    check.write_text(HIDDEN_CHECK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["grade", "ps", "--workers", "1"]) == 0
    return root


def test_a_release_folder_elsewhere_changes_no_score(elsewhere, stock, monkeypatch, capsys):
    graded = records(elsewhere)
    for name in ("numbers", "words"):
        assert graded["good", name] == stock["good", name]
    monkeypatch.chdir(elsewhere)
    assert main(["grade", "ps"]) == 0
    assert "had been edited" not in capsys.readouterr().out


def test_a_notebook_sees_nothing_of_the_course(elsewhere):
    assert records(elsewhere)["spy", "words", "test_double"][0] == 0


RIGHT = "return sum(values) / len(values)"
LOUD = {
    "hides_errors": "get_ipython().set_custom_exc((Exception,), lambda *_, **__: None)",
    "shows_no_traceback": "get_ipython()._showtraceback = lambda *_: None",
    "much_text": "print('x' * 3_000_000)",
    "many_outputs": "[display(number) for number in range(3000)]",
    "long_message": "raise ValueError('x' * 3_000_000)",
    "much_text_right": f"print('x' * 3_000_000); {RIGHT}",
    "many_outputs_right": f"[display(number) for number in range(3000)]; {RIGHT}",
    "warns_at_last_right": f"print('x' * 3_000_000); warnings.warn('slow'); {RIGHT}",
}


def test_a_score_does_not_depend_on_what_is_shown(here):
    """Bug: an error that the notebook hid was a passed test, much output a failed one."""
    for student, body in LOUD.items():
        hand_in(here, student, {"mean": f"def mean(values):\n    {body}\n"})
    assert main(["grade", "ps", "--workers", "1"]) == 0
    earned = {
        student: tuple(
            records(here)[student, "numbers", f"test_{name}"][0] for name in ("mean", "partial")
        )
        for student in LOUD
    }
    # what stock nbgrader gives them
    assert earned == {
        student: (0, 0) if not student.endswith("right") or "warns" in student else (2, 3)
        for student in LOUD
    }


def test_steps_that_a_course_adds_are_taken(elsewhere):
    notebook = nbformat.read(elsewhere / "autograded/good/ps/numbers.ipynb", as_version=4)
    assert all(cell.get("outputs", []) == [] for cell in notebook.cells)


def test_a_courses_hooks_are_called_for_each_submission_that_is_graded(here, capsys):
    """The first corrects what was handed in; the second fails, which is in the log."""
    for student in ("ann", "bob"):
        hand_in(here, student, {"double": "def double(x):\n    return None"})
    with (here / "nbgrader_config.py").open("a") as file:
        file.write(HOOKS)
    assert main(["grade", "ps", "--workers", "1"]) == 0
    assert records(here)["ann", "words", "test_double"][0] == 1
    calls = [json.loads(line) for line in (here / "calls.jsonl").read_text().splitlines()]
    for student in ("ann", "bob"):
        names = [f"{student}/ps/numbers.ipynb", f"{student}/ps/words.ipynb"]
        assert [call for call in calls if call[2] == student] == [
            ["before", "ps", student, names, False],
            ["after", "ps", student, names, True],
        ]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "hook" in line]
    first = "post_convert_hook failed: ValueError: no letter box"
    log = here / "logs/grade_ps.log"
    assert re.fullmatch(rf".* failed 2 times, first with (ann|bob): {first}; see {log}", line)
    log = log.read_text()
    assert "bob: post_convert_hook failed: ValueError: no letter box" in log
    assert main(["grade", "ps", "--workers", "1"]) == 0
    shown = capsys.readouterr()
    assert "0 graded now, 2 unchanged" in " ".join(shown.out.split())
    assert "hook" not in shown.err
    assert len((here / "calls.jsonl").read_text().splitlines()) == len(calls)


def test_a_hook_that_is_no_function_is_an_error_that_names_it(here, capsys):
    hand_in(here, "good", {})
    with (here / "nbgrader_config.py").open("a") as file:
        file.write('c.Autograde.pre_convert_hook = "no_such_module.hook"\n')
    error = error_of(capsys, "grade", "ps")
    assert "pre_convert_hook" in error
    assert "no_such_module" in error


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("Autograde.permissions", "read"),
        ("CourseDirectory.db_url", 3),
        ("ExecutePreprocessor.timeout", "abc"),
        ("JudgeSubmission.cell_seconds", "abc"),
        ("JudgeSubmission.class_seed_file", "/proc/none"),
        ("AssignLatePenalties.plugin_class", "latepen.Nope"),
        ("AssignLatePenalties.plugin_class", "nbgrader.plugins.Nope"),
        ("LateSubmissionPlugin.penalty_method", "nil"),
        ("LimitOutput.max_lines", "abc"),
        ("OverwriteCells.enabled", "abc"),
    ],
)
def test_a_setting_that_nbgrader_does_not_take_is_an_error_that_names_it(
    here, capsys, setting, value
):
    hand_in(here, "good", {})
    with (here / "nbgrader_config.py").open("a") as file:
        file.write(f"c.{setting} = {value!r}\n")
    error = error_of(capsys, "grade", "ps")
    assert "nbgrader_config.py" in error
    assert setting.rpartition(".")[2] in error
    assert repr(value) in error


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("nope.Nope", "'nope.Nope' cannot be imported: No module named 'nope'"),
        ("json.loads", "expected a preprocessor of nbconvert"),
    ],
)
def test_a_step_that_is_not_there_is_an_error_that_names_it(here, capsys, step, words):
    hand_in(here, "good", {})
    with (here / "nbgrader_config.py").open("a") as file:
        file.write(f"c.Autograde.autograde_preprocessors = [{step!r}]\n")
    assert words in error_of(capsys, "grade", "ps")


def test_doctor_names_a_time_limit_that_is_no_number(here, capsys):
    """Bug: it ended with a traceback, as did `grade`."""
    with (here / "nbgrader_config.py").open("a") as file:
        file.write("c.ExecutePreprocessor.timeout = 'abc'\n")
    assert main(["doctor"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The 'timeout' trait of an Execute instance expected an int, not the str 'abc'" in shown


MISSPELT = """
c.CourseDirectory.submited_directory = "x"
c.ExecutePreprocesor.timeout = 3
c.ExecutePreprocesor.enabled = True
c.NbConvertBase.pre_convert_hook = print
"""
KNOWN = """
import sys, types
from nbgrader.plugins import BasePlugin
from traitlets import Float

class Hourly(BasePlugin):
    rate = Float().tag(config=True)

plugins = sys.modules["plugins_of_mine"] = types.ModuleType("plugins_of_mine")
plugins.Hourly = Hourly
c.AssignLatePenalties.plugin_class = "plugins_of_mine.Hourly"
c.Hourly.rate = 2.0
c.BasePlugin.rate = 2.0
c.Exchange.root = "/srv/exchange"
c.FormgradeApp.log_level = 30
c.BaseConverter.pre_convert_hook = None
c.HTMLExporter.template_name = "classic"
c.JudgeSubmission.cell_seconds = 5.0
c.Autograde.SaveAutoGrades.enabled = True
c.Nothing
"""


def test_settings_that_are_misspelt_are_named(here, capsys, monkeypatch):
    """Bug: a setting that nothing takes was passed over in silence."""
    monkeypatch.setenv("COLUMNS", "300")
    sentences = [
        "c.CourseDirectory.submited_directory has no effect: CourseDirectory has no such option; "
        "did you mean submitted_directory?",
        "c.ExecutePreprocesor.timeout, c.ExecutePreprocesor.enabled have no effect: "
        "there is no ExecutePreprocesor; did you mean ExecutePreprocessor?",
        "c.NbConvertBase.pre_convert_hook has no effect: NbConvertBase has no such option; "
        "did you mean BaseConverter.pre_convert_hook?",
    ]
    with (here / "nbgrader_config.py").open("a") as file:
        file.write(MISSPELT)
    assert main(["doctor"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"nbgrader_config.py {' '.join(sentences)}" in shown
    assert main(["grade", "ps"]) == 2
    assert capsys.readouterr().err.splitlines()[:3] == [
        f"autograder: nbgrader_config.py: {sentence}" for sentence in sentences
    ]


@pytest.mark.parametrize("more", ["", SET_UP])
def test_no_setting_that_is_taken_is_called_misspelt(here, more):
    with (here / "nbgrader_config.py").open("a") as file:
        file.write(KNOWN + more)
    assert misspelt_settings(Course.load(here).own) == []


@pytest.mark.parametrize("output", ["nbgrader_config.py", "/proc/x"])
def test_a_report_that_cannot_be_written_names_its_folder(graded, monkeypatch, capsys, output):
    """Bug: a traceback for a file, "[Errno 2]" alone for what cannot be made."""
    monkeypatch.chdir(graded)
    error = error_of(capsys, "report", "ps", "--output", output)
    assert f"cannot be written to '{output}'" in error
    assert "expected --output to be a folder" in error


def test_hidden_checks_can_be_added_for_a_cell(elsewhere):
    (record,) = Path(elsewhere / "autograded/good/ps").glob("numbers.ipynb")
    verdict = Record.read_from(nbformat.read(record, as_version=4)).cells["test_total"]
    assert [(check.description, check.outcome) for check in verdict.checks] == [
        ("The sum of the numbers in the file.", "passed")
    ]


def test_a_course_where_notebooks_would_see_it_is_refused(here, monkeypatch, capsys):
    hand_in(here, "good", {})
    monkeypatch.setattr("autograder.confinement.interpreter_folders", lambda: [str(here.parent)])
    assert main(["grade", "ps", "--workers", "1"]) == 2
    error = capsys.readouterr().err
    assert f"can read all that is in {here.parent}" in error
    assert not (here / "autograded").exists()


def test_settings_are_read_as_nbgrader_reads_them(here, tmp_path, monkeypatch):
    """The user's own come first, then the course's, which may lie elsewhere."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "nbgrader_config.py").write_text(
        "c.JudgeSubmission.call_seconds = 4\nc.ExecutePreprocessor.timeout = 99\n"
    )
    monkeypatch.setattr("autograder.course.jupyter_config_path", lambda: [str(own)])
    course = Course.load(here)
    assert (course.root, course.set_up) == (here, False)
    assert course.config.JudgeSubmission.call_seconds == 4
    assert course.config.JudgeSubmission.cell_seconds == 3
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "nbgrader_config.py").write_text("c.CourseDirectory.root = '../plain'\n")
    moved = Course.load(beside)
    assert moved.assignment_names() == ["ps"]
    assert moved.config.JudgeSubmission.cell_seconds == 99
    with (here / "nbgrader_config.py").open("a") as file:
        file.write(SET_UP)
    assert Course.load(here).set_up


def error_of(capsys, *arguments):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    return shown.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("release", "ps"), "use `nbgrader generate_assignment` instead"),
        (("release",), "there is nothing to release"),
        (("check", "release/ps/numbers.ipynb", "--assignment", "ps"), "solutions/ps/ps.md"),
        (("check", "release/ps/numbers.ipynb"), "has only plain nbgrader notebooks, no solutions/"),
        (("sample-class", "ps"), "solutions/ps/ps.md"),
        (("grade", "psi"), "expected one of ps; did you mean 'ps'?"),
        (("report", "ps"), "run `autograder grade ps` first"),
        (("grade", "ps"), "submitted/*/ps"),
    ],
)
def test_what_cannot_be_done_is_said(here, capsys, arguments, words):
    assert words in error_of(capsys, *arguments)


def test_doctor_tells_of_the_course(here, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["doctor"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"course {here} gradebook sqlite:///gradebook.db assignments ps (tests" in shown
    assert "do not use the autograder" in shown
    with (here / "nbgrader_config.py").open("a") as file:
        file.write(SET_UP)
    assert main(["doctor"]) == 0
    assert "use the autograder, too" in " ".join(capsys.readouterr().out.split())
    (here / "nbgrader_config.py").write_text("1 / 0\n")
    assert main(["doctor"]) == 0
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_doctor_outside_a_course_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    assert "is not inside a course" in " ".join(capsys.readouterr().out.split())


def test_where_no_assignment_is_the_places_are_named(here, capsys):
    """Bug: "expected one of (none)", without a word on where it looked."""
    shutil.rmtree(here / "source/ps")
    (here / "source/ps").mkdir()
    (here / "gradebook.db").unlink()
    error = error_of(capsys, "grade", "ps")
    assert f"unknown assignment 'ps': there is none in this course, neither {here}/source" in error
    assert f"source/*/*.ipynb, nor {here}/solutions/*/*.md" in error
    assert "in the gradebook sqlite:///gradebook.db" in error


def test_asking_makes_no_gradebook(here, capsys):
    (here / "gradebook.db").unlink()
    error_of(capsys, "grade", "psi")
    assert not (here / "gradebook.db").exists()


@pytest.mark.parametrize("command", ["grade", "report"])
def test_a_gradebook_that_is_not_there_is_named_and_not_made(here, tmp_path, capsys, command):
    """Bug: a wrong --db made folders and an empty gradebook, and advised to release."""
    hand_in(here, "good", {})
    (here / "autograded/good/ps").mkdir(parents=True)
    url = f"sqlite:///{tmp_path}/nowhere/x.db"
    error = error_of(capsys, command, "ps", "--db", url)
    assert f"there is no gradebook {url}: expected one that" in error
    assert "--db" in error
    assert not (tmp_path / "nowhere").exists()


def test_another_gradebook_is_named_where_it_lacks_the_assignment(here, tmp_path, capsys):
    hand_in(here, "good", {})
    url = f"sqlite:///{tmp_path}/other.db"
    Gradebook(url).close()
    error = error_of(capsys, "grade", "ps", "--db", url)
    assert f"assignment 'ps' is not in the gradebook {url} yet" in error


def test_an_assignment_that_is_not_generated_says_what_to_do(here, capsys):
    hand_in(here, "good", {})
    with Gradebook(f"sqlite:///{here}/gradebook.db") as gradebook:
        gradebook.remove_assignment("ps")
    assert "run `nbgrader generate_assignment ps` first" in error_of(capsys, "grade", "ps")


def test_a_gradebook_of_an_older_nbgrader_says_what_to_do(here, capsys):
    old = Path(nbgrader.__file__).parent / "tests" / "apps" / "files" / "gradebook.db"
    shutil.copy(old, here / "gradebook.db")
    error = error_of(capsys, "grade", "ps")
    assert "sqlite:///gradebook.db cannot be read: no such column" in error
    assert "run `nbgrader db upgrade`" in error


def test_a_notebook_in_another_language_is_refused(here, capsys):
    hand_in(here, "good", {})
    path = here / "release/ps/words.ipynb"
    notebook = json.loads(path.read_text())
    notebook["metadata"]["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    path.write_text(json.dumps(notebook))
    assert "'words' of 'ps' is written in R" in error_of(capsys, "grade", "ps")


def test_settings_that_cannot_be_read_are_named(here, capsys):
    (here / "nbgrader_config.py").write_text("c.CourseDirectory.course_id = \n")
    error = error_of(capsys, "grade", "ps")
    assert f"{here / 'nbgrader_config.py'} cannot be read: SyntaxError" in error


def test_a_cell_of_the_released_notebook_must_be_one_that_the_gradebook_knows(here, capsys):
    hand_in(here, "good", {})
    path = here / "release/ps/numbers.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(cell("test_new", "", grade=True, locked=True, points=1))
    nbformat.write(notebook, path)
    error = error_of(capsys, "grade", "ps")
    assert "run `nbgrader generate_assignment ps` again" in error
