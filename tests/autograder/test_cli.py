import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from autograder import cli
from autograder.assignment import Assignment
from autograder.cli import main
from autograder.recorder import FolderWriter
from tests.autograder.ordinary_user import as_ordinary_user

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")


@pytest.fixture
def here(toy_course, monkeypatch):
    monkeypatch.chdir(toy_course.root)
    return toy_course


def error_of(capsys, *arguments):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err
    return shown.err


@pytest.mark.parametrize("command", ["grade", "report", "release", "sample-class"])
def test_an_unknown_assignment_is_named(here, capsys, command):
    error = error_of(capsys, command, "toi")
    assert error == (
        "autograder: unknown assignment 'toi': expected one of toy; did you mean 'toy'?\n"
    )


def test_a_terminal_that_lacks_characters_gets_the_tables_without_them():
    """Bug: on a terminal without dashes, `grade` ended with a traceback when all was graded."""
    code = (
        "import sys\n"
        "from autograder import cli\n"
        "cli._doctor = lambda options: print('a\u2013b')\n"
        "sys.exit(cli.main(['doctor']))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.stdout, done.stderr) == ("a?b\n", "")


def test_an_interrupt_while_the_command_is_loaded_shows_no_traceback():
    code = (
        "import os, signal, sys\n"
        "from importlib.metadata import entry_points\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'autograder.course':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        # ignored where the tests run in the background of a shell
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "(command,) = entry_points(group='console_scripts', name='autograder')\n"
        "command.load()()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_command_under_nohup_outlives_its_terminal():
    stop = threading.Event()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._stopping(stop), cli._ended_like_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not stop.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_report_that_is_terminated_says_how_to_go_on(here, capsys, hand_in, monkeypatch, number):
    """Bug: its processes were left to end by themselves, with tracebacks."""
    hand_in("ada")
    here.folder("autograded", "ada", "toy").mkdir(parents=True)

    def end(*_):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(cli, "write_feedback", end)
    before = signal.signal(number, lambda *_: None)
    try:
        handler = signal.getsignal(number)
        assert main(["report", "toy"]) == 130
        assert signal.getsignal(number) == handler
    finally:
        signal.signal(number, before)
    assert "stopped; the same command goes on" in capsys.readouterr().err


def test_a_missing_submission_folder_is_named(here, capsys, hand_in):
    assert "course/submitted/*/toy" in error_of(capsys, "grade", "toy")
    hand_in("ada")
    error = error_of(capsys, "grade", "toy", "--student", "bob")
    assert "student 'bob'" in error
    assert "course/submitted/bob/toy" in error


def test_an_assignment_that_is_not_released_says_what_to_do(here, capsys, hand_in):
    hand_in("ada")
    with here.gradebook() as gradebook:
        gradebook.remove_assignment("toy")
    assert "run `autograder release toy` first" in error_of(capsys, "grade", "toy")


def test_a_folder_that_cannot_be_written_is_named_and_the_same_command_goes_on(
    here, capsys, hand_in, monkeypatch
):
    hand_in("ada")

    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FolderWriter, "write", write)
        assert main(["grade", "toy", "--workers", "1"]) == 2
    shown = capsys.readouterr()
    assert "an autograded folder could not be written: [Errno 28] No space left" in shown.err
    assert "the same command goes on" in shown.err
    assert main(["grade", "toy", "--workers", "1"]) == 0
    assert "1 graded now, 0 unchanged" in capsys.readouterr().out


def test_a_log_that_cannot_be_written_is_named(here, capsys, hand_in):
    hand_in("ada")
    (here.results / "logs").write_text("in the way")
    assert f"'{here.results / 'logs'}'" in error_of(capsys, "grade", "toy")


def test_a_disk_that_is_full_shows_no_traceback_of_the_log():
    code = (
        "import logging, pathlib, autograder.cli\n"
        "autograder.cli._log_to(pathlib.Path('/dev/full'))\n"
        "logging.getLogger('autograder').warning('a notebook was stopped')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "--- Logging error ---" not in done.stderr


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"not JSON", "it is not JSON"), (b"", "file is empty"), (b"[]", "it holds a list")],
)
def test_a_notebook_that_cannot_be_read_is_named(here, capsys, tmp_path, data, words):
    path = tmp_path / "mine.ipynb"
    path.write_bytes(data)
    error = error_of(capsys, "check", str(path), "--assignment", "toy")
    assert str(path) in error
    assert words in error
    missing = error_of(capsys, "check", str(tmp_path / "toy.ipynb"))
    assert f"There is no file '{tmp_path / 'toy.ipynb'}'" in missing
    assert "There is no file 'nothing.ipynb'" in error_of(capsys, "check", "nothing.ipynb")


def test_outside_a_course_the_folder_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert f"{tmp_path} is not inside a course" in error_of(capsys, "grade", "toy")


def test_a_broken_check_file_is_named(here, capsys, hand_in):
    hand_in("ada")
    (Assignment("toy", here.root).checks / "test_square.py").write_text("import no_such_module\n")
    assert main(["grade", "toy"]) == 2
    error = capsys.readouterr().err
    assert "no_such_module" in error
    assert "Traceback (most recent call last)" not in error


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_limit_that_makes_no_sense_is_refused(here, value, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["grade", "toy", "--time-limit", value])
    assert stop.value.code == 2
    assert "--time-limit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("grade", "toy", "--workers", "x"), "--workers: 'x' is not a whole number"),
        (("grade", "toy", "--workers", "0"), "--workers: '0' is not a whole number of 1 or more"),
        (("grade", "toy", "--time-limit", "x"), "'x' is not a positive number of seconds"),
        (("sample-class", "toy", "--seed", "x"), "--seed: 'x' is not a whole number"),
        (("sample-class", "toy", "--size", "2.5"), "--size: '2.5' is not a whole number"),
        (("grade", "toy", "--student", ""), "--student: it is empty"),
        (("grade", "toy", "--scheduler", ""), "--scheduler: it is empty"),
        (("grade", "toy", "--db", ""), "--db: it is empty"),
        (("check", "toy.ipynb", "--assignment", ""), "--assignment: it is empty"),
        (("report", "toy", "--output", ""), "--output: it is empty"),
    ],
)
def test_an_option_that_makes_no_sense_says_what_was_expected(here, capsys, arguments, words):
    """Bug: `--student ''`, of a variable that is not set, graded the whole class."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_a_file_in_place_of_a_submission_is_named(here, capsys, hand_in):
    """Bug: it was passed over in silence."""
    hand_in("ada")
    for student in ("bob", ".trash"):
        place = here.folder("submitted", student, "toy")
        place.parent.mkdir()
        place.write_text("a file")
    for student, target in (("eve", "toy"), ("jim", "nowhere")):
        place = here.folder("submitted", student, "toy")
        place.parent.mkdir()
        place.symlink_to(target)
    assert main(["grade", "toy", "--workers", "1"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "passed over" in line]
    assert [line.partition("submitted/")[2] for line in told] == [
        "eve/toy is a link that leads nowhere; it was passed over",
        "jim/toy is a link that leads nowhere; it was passed over",
        "bob/toy is a file, expected a folder; it was passed over",
    ]
    assert "'bob': there is no folder" in error_of(capsys, "grade", "toy", "--student", "bob")


def test_a_folder_that_cannot_be_entered_is_named():
    """Bug: whatever it held was missing from the results in silence."""
    # where another user can come, whom the tests' own folder keeps out
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "nbgrader_config.py").write_text("")
        (root / "submitted" / "ada").mkdir(parents=True)
        (root / "submitted" / "ada").chmod(0)
        code = (
            "from pathlib import Path\n"
            "from autograder.course import Course\n"
            f"print(*Course.load(Path({name!r})).passed_over('submitted', 'toy'))"
        )
        command = as_ordinary_user([sys.executable, "-c", code])
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (root / "submitted" / "ada").chmod(0o700)
    assert done.stdout == f"{root}/submitted/ada is a folder that cannot be entered\n"


def test_a_folder_that_is_not_named_in_utf8_is_named_and_stops_nobody(here, capfd, hand_in):
    """Bug: the gradebook refused the name, with a traceback, and nothing more was recorded."""
    hand_in("ada")
    hand_in(os.fsdecode(b"M\xfcller"))
    assert main(["grade", "toy", "--workers", "1", "--json"]) == 0
    told = capfd.readouterr()
    assert [row["student"] for row in json.loads(told.out)] == ["ada"]
    assert "ller/toy is not named in UTF-8; it was passed over" in told.err


def test_grade_prints_a_table_and_then_json(here, capsys, hand_in):
    hand_in("ada")
    hand_in("bob", answer="def square(x):\n    return 2 * x")
    assert main(["grade", "toy", "--workers", "1"]) == 0
    table = capsys.readouterr().out
    assert "6/8" in table
    assert "doubling instead of squaring" in " ".join(table.split())
    assert main(["grade", "toy", "--json", "--student", "bob"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["student"], row["score"], row["status"]) == ("bob", 2, "unchanged")


def test_a_long_name_leaves_room_for_what_happened(here, monkeypatch, capsys, hand_in):
    """Bug: a name of 200 characters left no column for what happened to anybody."""
    hand_in("n" * 200)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["grade", "toy", "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 checks passed" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_check_shows_a_learner_each_check(here, capsys, tmp_path):
    notebook = nbformat.read(Assignment("toy", here.root).release, as_version=4)
    answer = next(cell for cell in notebook.cells if cell.id == "square")
    path = tmp_path / "toy.ipynb"
    answer.source = "def square(x):\n    return 2 * x"
    path.write_text(nbformat.writes(notebook))
    assert main(["check", str(path)]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "test_square 1 of 3 points" in shown
    assert "failed The values and the gradient of x times x." in shown
    assert "Hint: Multiply x by itself." in shown
    assert "Your results agree with doubling instead of squaring." in shown
    answer.source = "def square(x):\n    return x * x"
    path.write_text(nbformat.writes(notebook))
    assert main(["check", str(path)]) == 0
    assert "total 3 of 3 points" in " ".join(capsys.readouterr().out.split())
    assert not (here.root / "course" / "autograded").exists()


def test_report_writes_page_table_and_feedback(here, capsys, hand_in):
    hand_in("ada")
    assert main(["grade", "toy", "--workers", "1"]) == 0
    capsys.readouterr()
    assert main(["report", "toy"]) == 0
    folder = here.root / "course" / "reports" / "toy"
    assert capsys.readouterr().out.split() == [
        str(folder / "index.html"),
        str(folder / "grades.csv"),
    ]
    assert (here.root / "course/feedback/ada/toy/toy.html").is_file()


def test_a_student_of_any_name_gets_a_page(here, capsys, hand_in):
    """Bug: nbgrader took a bracket in a name for a pattern, and a line break for the name's end."""
    names = ["br[a]ck", "[x]", " before", "two\nlines", "{0}", "*"]
    for name in names:
        hand_in(name)
    assert main(["grade", "toy", "--workers", "1"]) == 0
    assert main(["report", "toy"]) == 0
    for name in names:
        page = (here.root / "course/feedback" / name / "toy/toy.html").read_text()
        assert "6 of 8 points" in page


def test_a_page_that_cannot_be_made_is_told_with_the_reason(here, capsys, hand_in):
    hand_in("ada")
    assert main(["grade", "toy", "--workers", "1"]) == 0
    with here.gradebook() as gradebook:
        gradebook.db.delete(gradebook.find_comment("essay", "toy", "toy", "ada"))
        gradebook.db.commit()
    assert main(["report", "toy"]) == 1
    log = (here.root / "course/logs/report_toy.log").read_text()
    for told in (capsys.readouterr().err, log):
        assert "no feedback page could be made" in told
        assert "toy.ipynb: MissingEntry: No such taskcomment" in told


def test_a_torn_notebook_keeps_no_other_student_from_the_report(here, capsys, hand_in):
    """Bug: it ended the report with a traceback, and nobody's was written."""
    hand_in("ada")
    hand_in("bob")
    assert main(["grade", "toy", "--workers", "1"]) == 0
    torn = here.folder("autograded", "bob", "toy") / "toy.ipynb"
    torn.chmod(0o644)
    torn.write_bytes(torn.read_bytes()[:300])
    assert main(["report", "toy"]) == 1
    assert "no feedback page could be made for 'bob'" in capsys.readouterr().err
    with (here.root / "course/reports/toy/grades.csv").open() as file:
        happened = {row["student"]: row["what_happened"] for row in csv.DictReader(file)}
    assert happened["ada"] == "Waits for manual grading. 2 of 2 checks passed."
    assert "is not an autograded notebook" in happened["bob"]
    assert "`autograder grade toy` makes it anew" in happened["bob"]


def test_feedback_numbers_the_cells_that_its_sentences_name(here, hand_in):
    """The number of a cell that was stopped is the one above that cell."""

    def end_the_process(notebook):
        notebook.cells.insert(2, nbformat.v4.new_code_cell("import os\nos._exit(1)"))

    hand_in("ada", end_the_process)
    assert main(["grade", "toy", "--workers", "1"]) == 0
    assert main(["report", "toy"]) == 0
    page = BeautifulSoup(
        (here.root / "course/feedback/ada/toy/toy.html").read_text(), "html.parser"
    )
    sentences = page.find(class_="notice").get_text()
    (number,) = re.findall(r"Cell (\d+): the process that ran the notebook ended here", sentences)
    (label,) = (
        label for label in page.find_all(class_="label") if "os._exit" in label.parent.get_text()
    )
    assert label.get_text() == f"Cell {number}"
    numbers = [int(re.match(r"Cell (\d+)", label.get_text())[1]) for label in page(class_="label")]
    assert numbers == sorted(set(numbers))


def test_doctor_says_what_is_installed_and_confined(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for name in ("python", "torch", "nbgrader", "devices", "confinement", "memory limit"):
        assert name in shown


def test_the_module_can_be_run():
    run = subprocess.run(
        [sys.executable, "-m", "autograder", "--help"], capture_output=True, text=True, check=True
    )
    assert "sample-class" in run.stdout
