"""Whole submissions through intake, judging and nbgrader's gradebook."""

import json
import os
import shutil
from collections import Counter
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path

import nbformat
import pytest
from sqlalchemy import make_url

from autograder.assignment import Assignment, BrokenCheckError
from autograder.class_seed import read_class_seed
from autograder.course import Course, CourseError
from autograder.grading import Batch, GradingStoppedError, submitted_students
from autograder.recorder import FolderWriter, Result
from autograder.sample_class import make_sample_class
from autograder.summary import read_records
from autograder.work import Work

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")

pool = []


@pytest.fixture(scope="module", autouse=True)
def _workers():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        pool[:] = [executor]
        yield


def grade(course, *students, **options):
    assignment = Assignment("toy", course.root)
    students = students or submitted_students(course, assignment)
    options = {"executor": pool[0]} | options
    rows = Batch(course, assignment, list(students), **options).run()
    return {row.student: row for row in rows}


def in_gradebook(course, student="ada"):
    with course.gradebook() as gradebook:
        notebook = gradebook.find_submission_notebook("toy", "toy", student)
        grades = {grade.name: grade for grade in notebook.grades}
        comments = {comment.name: comment.comment for comment in notebook.comments}
        return {
            "scores": {name: grade.auto_score for name, grade in grades.items()},
            "manual": {name for name, grade in grades.items() if grade.needs_manual_grade},
            "comments": comments,
            "penalty": notebook.late_submission_penalty,
        }


def autograded(course, student="ada"):
    path = course.folder("autograded", student, "toy") / "toy.ipynb"
    return nbformat.read(path, as_version=4)


def cell_of(notebook, grade_id):
    cells = notebook.cells
    return next(c for c in cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def test_a_right_submission_is_recorded_with_points_and_words(toy_course, hand_in):
    hand_in()
    row = grade(toy_course)["ada"]
    book = in_gradebook(toy_course)
    assert book["scores"] == {"test_square": 6, "essay": None}
    assert book["manual"] == {"essay"}
    assert book["comments"]["square"] == "2 of 2 checks passed."
    assert (row.score, row.max_score) == (6, 8)
    assert row.happened == "Waits for manual grading. 2 of 2 checks passed."
    cell = cell_of(autograded(toy_course), "test_square")
    assert cell.outputs[0].data["text/plain"] == "6.0"
    assert "6 of 6 points" in cell.outputs[0].data["text/html"]


def test_a_misconception_is_named_in_gradebook_and_notebook(toy_course, hand_in):
    hand_in(answer="def square(x):\n    return 2 * x")
    grade(toy_course)
    assert "agree with doubling" in in_gradebook(toy_course)["comments"]["square"]
    html = cell_of(autograded(toy_course), "test_square").outputs[0].data["text/html"]
    assert "Your results agree with doubling instead of squaring." in html
    assert 'href="https://example.org/book/toy.html#square"' in html


def test_part_of_the_checks_earns_part_of_the_points(toy_course, hand_in):
    hand_in(answer="def square(x):\n    assert x.numel()\n    return x * x")
    grade(toy_course)
    assert in_gradebook(toy_course)["scores"]["test_square"] == 4


def test_what_the_student_prints_is_shown_and_never_scored(toy_course, hand_in):
    def forge(notebook):
        cell_of(notebook, "test_square").source = "6"
        forgery = "import sys\nprint('printed', file=sys.stderr)\n6"
        notebook.cells.insert(3, nbformat.v4.new_code_cell(forgery))

    hand_in(change=forge, answer="def square(x):\n    print('<b>6</b>')\n    return 6")
    grade(toy_course)
    assert in_gradebook(toy_course)["scores"]["test_square"] == 0
    outputs = cell_of(autograded(toy_course), "test_square").outputs
    assert [output.output_type for output in outputs] == ["execute_result", "display_data"]
    assert outputs[0].data["text/plain"] == "0.0"
    assert "<b>6</b>" in outputs[1].data["text/plain"]


def test_a_warning_on_stderr_costs_nothing(toy_course, hand_in):
    noisy = "import sys\ndef square(x):\n    print('careful', file=sys.stderr)\n    return x * x"
    hand_in(answer=noisy)
    grade(toy_course)
    assert in_gradebook(toy_course)["scores"]["test_square"] == 6


def test_an_untouched_submission_earns_nothing_and_waits_for_nobody(toy_course, hand_in):
    released = nbformat.read(Assignment("toy", toy_course.root).release, as_version=4)

    def undo(notebook):
        notebook.cells = released.cells

    hand_in(change=undo)
    grade(toy_course)
    book = in_gradebook(toy_course)
    assert book["scores"] == {"test_square": 0, "essay": 0}
    assert book["manual"] == set()
    assert book["comments"]["square"].startswith("No response. 0 of 2 checks passed.")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe\x00"])
def test_an_unreadable_notebook_gets_a_zero_and_a_reason(toy_course, hand_in, data):
    path = hand_in() / "toy.ipynb"
    path.write_bytes(data)
    row = grade(toy_course)["ada"]
    book = in_gradebook(toy_course)
    assert book["scores"] == {"test_square": 0, "essay": 0}
    assert book["manual"] == set()
    problem = read_records(toy_course, Assignment("toy", toy_course.root), "ada")["toy"].problem
    assert problem
    assert problem in book["comments"]["square"]
    assert row.happened == problem
    assert path.read_bytes() == data


def test_a_folder_without_a_notebook_gets_a_zero_and_a_reason(toy_course, hand_in):
    (hand_in() / "toy.ipynb").unlink()
    row = grade(toy_course)["ada"]
    assert (row.score, row.max_score) == (0, 8)
    assert row.happened == "There is no file 'toy.ipynb' in the submission."
    assert in_gradebook(toy_course)["manual"] == set()


def test_files_named_as_the_courses_folders_stop_nobody(toy_course, hand_in):
    """Bug: a file handed in where the source has a folder stopped the class, on every run."""
    source = toy_course.folder("source", ".", "toy")
    (source / "data").mkdir(parents=True)
    (source / "data" / "x.csv").write_text("1")
    (source / "helper.txt").write_text("help")
    (hand_in("ada") / "data").write_text("mine")
    (hand_in("bob") / "helper.txt").mkdir()
    (toy_course.folder("submitted", "bob", "toy") / "helper.txt" / "a").write_text("mine")
    hand_in("cay")
    rows = grade(toy_course)
    assert {student: row.score for student, row in rows.items()} == dict.fromkeys(rows, 6)
    assert (
        "The file 'data' is where the course has a folder of that name and was left out."
        in rows["ada"].happened
    )
    assert (
        "The file 'helper.txt/a' is in a folder where the course has a file of that name"
        in rows["bob"].happened
    )
    for student in rows:
        autograded = toy_course.folder("autograded", student, "toy")
        assert (autograded / "data" / "x.csv").read_text() == "1"
        assert (autograded / "helper.txt").read_text() == "help"


def test_files_that_cannot_be_written_beside_a_notebook_stop_nobody(toy_course, caplog):
    writer = FolderWriter(toy_course, "toy")
    writer.write(Result("ada", {}, {"a": b"1", "a/b": b"2"}, None, 0))
    assert list(toy_course.folder("autograded", "ada", "toy").iterdir()) == []
    assert "ada: the files handed in were left out: " in caplog.text


def test_a_linked_notebook_and_linked_files_are_not_followed(toy_course, hand_in, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = hand_in()
    (folder / "link.txt").symlink_to(secret)
    (folder / "toy.ipynb").rename(tmp_path / "real.ipynb")
    (folder / "toy.ipynb").symlink_to(tmp_path / "real.ipynb")
    os.mkfifo(folder / "pipe")
    row = grade(toy_course)["ada"]
    assert row.score == 0
    assert "symbolic link" in row.happened
    assert "'link.txt' is a link and was left out" in row.happened
    assert "'pipe' is not a regular file and was left out" in row.happened
    names = {path.name for path in toy_course.folder("autograded", "ada", "toy").iterdir()}
    assert names == {"toy.ipynb"}


def test_a_linked_folder_is_not_followed(toy_course, hand_in):
    """Bug: a link to the course's source was graded as the solution that is there."""
    hand_in("bob", notes_txt="Bob's")
    for student, target in (("ada", "../../source/toy"), ("eve", "../bob/toy")):
        folder = toy_course.folder("submitted", student, "toy")
        folder.parent.mkdir(parents=True)
        folder.symlink_to(target)
    rows = grade(toy_course)
    assert {student: row.score for student, row in rows.items()} == {"ada": 0, "bob": 6, "eve": 0}
    for student in ("ada", "eve"):
        assert "folder is a symbolic link" in rows[student].happened
        names = {path.name for path in toy_course.folder("autograded", student, "toy").iterdir()}
        assert names == {"toy.ipynb"}


def test_files_beside_the_notebook_can_be_read_by_it(toy_course, hand_in):
    answer = "factor = float(open('factor.txt').read())\ndef square(x):\n    return factor * x * x"
    hand_in(answer=answer, factor_txt="1.0")
    grade(toy_course)
    assert in_gradebook(toy_course)["scores"]["test_square"] == 6


def test_late_work_is_recorded_as_late_and_keeps_its_points(toy_course, hand_in):
    with toy_course.gradebook() as gradebook:
        gradebook.update_or_create_assignment("toy", duedate=datetime(2026, 1, 1, 12))
    hand_in(timestamp_txt="2026-01-01 14:30:00 UTC")
    row = grade(toy_course)["ada"]
    assert row.happened.startswith("Handed in 2 hours 30 minutes late.")
    assert row.score == 6
    assert "2 hours 30 minutes late" in in_gradebook(toy_course)["comments"]["square"]


def test_a_late_penalty_of_nbgraders_own_is_kept(toy_course, hand_in):
    with (toy_course.root / "nbgrader_config.py").open("a") as file:
        file.write('c.LateSubmissionPlugin.penalty_method = "zero"\n')
    course = Course.load(toy_course.root)
    with course.gradebook() as gradebook:
        gradebook.update_or_create_assignment("toy", duedate=datetime(2026, 1, 1, 12))
    hand_in(timestamp_txt="2026-01-02 12:00:00 UTC")
    row = grade(course)["ada"]
    assert in_gradebook(course)["penalty"] == 6
    assert row.score == 0
    assert "6 points taken off for lateness" in row.happened


PENALTIES = """
from nbgrader.plugins import BasePlugin

class Hourly(BasePlugin):
    asked = []
    broken = {"bob": KeyError("boom")}

    def late_submission_penalty(self, student_id, score, total_seconds_late):
        self.asked.append(student_id)
        if student_id in self.broken:
            raise self.broken[student_id]
        return {"nan": float("nan"), "word": "one"}.get(student_id, 1)

c.AssignLatePenalties.plugin_class = Hourly
"""


def test_a_late_penalty_that_fails_on_a_student_holds_up_nobody(toy_course, hand_in):
    """Bug: the whole class stopped with a traceback, on every run, and no student was named."""
    with (toy_course.root / "nbgrader_config.py").open("a") as file:
        file.write(PENALTIES)
    course = Course.load(toy_course.root)
    plugin = course.config.AssignLatePenalties.plugin_class
    with course.gradebook() as gradebook:
        gradebook.update_or_create_assignment("toy", duedate=datetime(2026, 1, 1, 12))
    for student in ("ada", "bob", "nan", "word"):
        hand_in(student, timestamp_txt="2026-01-02 12:00:00 UTC")
    rows = grade(course)
    assert {name: (row.status, row.score) for name, row in rows.items()} == {
        "ada": ("graded", 5),
        "bob": ("failed", 6),
        "nan": ("failed", 6),
        "word": ("failed", 6),
    }
    assert rows["bob"].trouble == (
        f"The late-submission plugin {plugin.__module__}.Hourly failed on student 'bob': "
        "KeyError: 'boom'."
    )
    assert "'nan': ValueError: it gave nan, expected a number" in rows["nan"].trouble
    assert "What lateness costs could not be worked out" in rows["bob"].happened
    plugin.broken.clear()
    plugin.asked.clear()
    rows = grade(course, "ada", "bob")
    assert {name: (row.status, row.score) for name, row in rows.items()} == {
        "ada": ("unchanged", 5),
        "bob": ("graded", 5),
    }
    assert plugin.asked == ["bob"]
    assert rows["bob"].trouble == ""


@pytest.mark.parametrize("text", ["yesterday", "\x00", "9" * 500])
def test_a_timestamp_that_is_no_time_is_ignored_and_named(toy_course, hand_in, text):
    hand_in(timestamp_txt=text)
    row = grade(toy_course)["ada"]
    assert row.score == 6
    assert "timestamp.txt holds" in row.happened


def test_only_what_changed_is_graded_again(toy_course, hand_in):
    folder = hand_in("ada")
    hand_in("bob")
    assert {row.status for row in grade(toy_course).values()} == {"graded"}
    assert {row.status for row in grade(toy_course).values()} == {"unchanged"}
    (folder / "toy.ipynb").write_text("{}")
    rows = grade(toy_course)
    assert {name: row.status for name, row in rows.items()} == {"ada": "graded", "bob": "unchanged"}
    assert rows["ada"].score == 0
    assert {row.status for row in grade(toy_course, force=True).values()} == {"graded"}


@pytest.mark.parametrize(
    ("force", "words"),
    [
        (False, "the same command goes on from here"),
        (True, "the same command without --force grades what is new or has changed"),
    ],
)
def test_a_stop_says_what_the_same_command_does(toy_course, hand_in, force, words):
    """Bug: with --force, which begins again, it was said to go on."""
    hand_in()
    batch = Batch(toy_course, Assignment("toy", toy_course.root), ["ada"], force, executor=pool[0])
    batch.stop.set()
    with pytest.raises(GradingStoppedError, match=words):
        batch.run()


def test_a_change_of_the_checks_grades_again(toy_course, hand_in):
    hand_in()
    grade(toy_course)
    checks = Assignment("toy", toy_course.root).checks / "test_square.py"
    checks.write_text(checks.read_text().replace("points(1)", "points(4)"))
    assert grade(toy_course)["ada"].status == "graded"


def test_a_gradebook_from_before_a_second_submission_is_brought_up_to_date(toy_course, hand_in):
    folder = hand_in(answer="def square(x):\n    return 2 * x", timestamp_txt="2026-10-01 10:00")
    grade(toy_course)
    book = Path(make_url(toy_course.directory().db_url).database)
    before = book.read_bytes()
    shutil.rmtree(folder)
    hand_in(timestamp_txt="2026-10-02 10:00")
    assert grade(toy_course)["ada"].score == 6
    book.write_bytes(before)
    row = grade(toy_course)["ada"]
    assert (row.status, row.score) == ("graded", 6)
    assert grade(toy_course)["ada"].status == "unchanged"


def test_a_manual_grade_survives_grading_again(toy_course, hand_in):
    hand_in()
    grade(toy_course)
    with toy_course.gradebook() as gradebook:
        essay = gradebook.find_grade("essay", "toy", "toy", "ada")
        essay.manual_score, essay.needs_manual_grade = 1.5, False
        gradebook.db.commit()
    row = grade(toy_course, force=True)["ada"]
    assert row.score == 7.5


def test_a_submission_that_the_grader_fails_on_is_recorded_and_the_next_follows(
    toy_course, hand_in, monkeypatch
):
    hand_in("ada")
    hand_in("bob")
    to_bytes = Work.to_bytes

    def failing(self):
        if self.student == "ada":
            raise ZeroDivisionError("a fault of the grader's")
        return to_bytes(self)

    monkeypatch.setattr(Work, "to_bytes", failing)
    rows = grade(toy_course)
    assert rows["bob"].score == 6
    assert rows["ada"].status == "failed"
    assert "ZeroDivisionError: a fault of the grader's" in rows["ada"].trouble
    assert in_gradebook(toy_course)["scores"]["test_square"] == 0
    assert "through a fault of the grader's" in in_gradebook(toy_course)["comments"]["square"]
    monkeypatch.undo()
    assert grade(toy_course)["ada"].score == 6


class Dying(Executor):
    """Fails requests as if their process had ended, `times` times for each."""

    def __init__(self, times):
        self.times = times
        self.seen = Counter()

    def submit(self, function, request):
        student = Work.from_bytes(request).student
        self.seen[student] += 1
        if self.seen[student] <= self.times:
            future = Future()
            future.set_exception(BrokenExecutor("the process ended"))
            return future
        return pool[0].submit(function, request)


def test_a_worker_that_dies_costs_nobody_anything(toy_course, hand_in):
    hand_in("ada")
    hand_in("bob")
    rows = grade(toy_course, executor=Dying(1))
    assert {name: (row.score, row.trouble) for name, row in rows.items()} == {
        "ada": (6, ""),
        "bob": (6, ""),
    }


def test_a_submission_that_ends_every_worker_is_recorded_as_failed(toy_course, hand_in):
    hand_in("ada")
    row = grade(toy_course, executor=Dying(5))["ada"]
    assert (row.status, row.score) == ("failed", 0)
    assert "BrokenExecutor: the process ended" in row.trouble


@pytest.mark.parametrize("name", ["test_square.py", "bank/square.py"])
def test_broken_checks_stop_the_batch_and_are_named(toy_course, hand_in, name):
    """Bug: what could not be imported in the bank cost every student all points."""
    hand_in()
    broken = Assignment("toy", toy_course.root).checks / name
    broken.parent.mkdir(exist_ok=True)
    broken.write_text("import no_such_module\n")
    with pytest.raises(BrokenCheckError, match=rf"(?s){name}.*no_such_module"):
        grade(toy_course)


def test_missing_submissions_are_one_clear_error(toy_course, hand_in):
    assignment = Assignment("toy", toy_course.root)
    with pytest.raises(CourseError, match=r"no folder .*submitted/\*/toy"):
        submitted_students(toy_course, assignment)
    hand_in("ada")
    with pytest.raises(CourseError, match=r"student 'bob': there is no folder .*/bob/toy"):
        submitted_students(toy_course, assignment, "bob")


def test_the_class_seed_is_made_once_and_for_the_owner_only(toy_course, hand_in):
    hand_in()
    grade(toy_course)
    path = next((toy_course.root / "course").glob("class_seed*"))
    seed = path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    grade(toy_course, force=True)
    assert path.read_text() == seed


def test_a_class_seed_that_is_empty_is_never_used(toy_course, hand_in, monkeypatch):
    """Bug: a disk that was full for a moment left the class with a secret of no characters."""
    hand_in()
    path = toy_course.root / "course" / "class_seed.txt"
    with monkeypatch.context() as full_disk:
        full_disk.setattr("secrets.token_hex", lambda size: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            read_class_seed(path)
    assert not path.exists()
    path.write_text("\n")
    with pytest.raises(CourseError, match=r"class_seed\.txt is empty; remove it"):
        grade(toy_course)
    path.unlink()
    assert len(read_class_seed(path)) == 32


ALL_RIGHT = {"solution", "deleted grade cell", "duplicated cells", "wrong kernel", "late"}
ALL_RIGHT |= {"equivalent", "old format", "not UTF-8", "moved grade cell", "edited grade cell"}
ALL_RIGHT |= {"lost metadata", "markup", "endless loop"}
NOTHING = {"blank", "syntax error", "exit in function", "empty file", "not JSON"}
NOTHING |= {"missing notebook", "forged score", "linked notebook", "killed process"}
WORDS = {
    "blank": "`square` is not written yet",
    "syntax error": "The notebook does not define `square`.",
    "deleted grade cell": "`test_square` was missing",
    "duplicated cells": "`test_square` was there 2 times",
    "endless loop": "stopped after 5 seconds",
    "killed process": "the process that ran the notebook ended",
    "empty file": "file is empty",
    "wrong kernel": "'deep-learning-2019'",
    "late": "2 days 3 hours late",
    "not JSON": "not JSON",
    "missing notebook": "no file 'toy.ipynb'",
    "old format": "format '3'",
    "not UTF-8": "not UTF-8",
    "moved grade cell": "had been moved",
    "edited grade cell": "points of `test_square` had been changed",
    "forged score": "had been edited",
    "linked notebook": "symbolic link",
}


@pytest.fixture(scope="module")
def sample_class(_workers, released_toy, tmp_path_factory):
    root = tmp_path_factory.mktemp("sample") / "course"
    shutil.copytree(released_toy, root)
    course = Course.load(root)
    kinds = make_sample_class(course, Assignment("toy", root), size=36)
    return course, kinds, grade(course)


def test_every_kind_of_submission_ends_with_a_score_and_a_reason(sample_class):
    course, kinds, rows = sample_class
    assert len(rows) == 36
    assert set(WORDS) | ALL_RIGHT | NOTHING <= set(kinds.values())
    for student, kind in kinds.items():
        row = rows[student]
        scores = in_gradebook(course, student)["scores"]
        assert row.status == "graded", (kind, row.trouble)
        assert None not in {scores["test_square"]}, kind
        assert row.happened, kind
        assert WORDS.get(kind, "") in row.happened, kind
        if kind in ALL_RIGHT:
            assert scores["test_square"] == 6, kind
        elif kind in NOTHING:
            assert scores["test_square"] == 0, kind
        else:
            assert scores["test_square"] < 6, kind
            assert "Agrees with" in row.happened, kind


def test_the_submitted_files_stay_untouched(sample_class, released_toy, tmp_path):
    course, _, _ = sample_class
    root = tmp_path / "again"
    shutil.copytree(released_toy, root)
    again = Course.load(root)
    make_sample_class(again, Assignment("toy", root), size=36)
    assert contents(again.root / "course/submitted") == contents(course.root / "course/submitted")


def contents(folder):
    return {
        path.relative_to(folder): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_a_class_depends_on_its_seed(toy_course):
    assignment = Assignment("toy", toy_course.root)
    first = make_sample_class(toy_course, assignment, seed=0)
    assert len(first) == 24
    assert make_sample_class(toy_course, assignment, seed=0) == first
    assert make_sample_class(toy_course, assignment, seed=1) != first


def test_a_smaller_class_replaces_a_larger_one(toy_course):
    assignment = Assignment("toy", toy_course.root)
    make_sample_class(toy_course, assignment, size=30)
    make_sample_class(toy_course, assignment, size=24)
    assert len(submitted_students(toy_course, assignment)) == 24
    with pytest.raises(CourseError, match="class of 23 is too small"):
        make_sample_class(toy_course, assignment, size=23)


def test_a_sample_class_overwrites_nobodys_work(toy_course, hand_in):
    """Bug: a student who was called like one of the class lost what was handed in."""
    folder = hand_in("student007", notes_txt="My work.")
    before = contents(folder)
    with pytest.raises(CourseError, match="student007/toy is there, and is of no sample class"):
        make_sample_class(toy_course, Assignment("toy", toy_course.root))
    assert contents(toy_course.root / "course/submitted" / "student007" / "toy") == before
    assert submitted_students(toy_course, Assignment("toy", toy_course.root)) == ["student007"]
    with toy_course.gradebook() as gradebook:
        assert gradebook.students == []


def test_results_can_be_read_by_a_program(sample_class):
    _, _, rows = sample_class
    data = json.loads(json.dumps([row.as_json() for row in rows.values()]))
    assert {"student", "score", "max_score", "happened", "records"} <= set(data[0])
