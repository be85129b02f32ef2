"""A gradebook in a real PostgreSQL server, which the tests start for themselves."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from autograder.assignment import Assignment
from autograder.cli import main
from autograder.course import Course, CourseError
from autograder.release import release
from autograder.report import class_rows

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
USER = "grader"


def server_programs():
    """Return the folder of PostgreSQL's server programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Server:
    """A PostgreSQL server in a temporary folder, run by an unprivileged user."""

    def __init__(self, folder):
        self.programs = server_programs()
        assert self.programs, "PostgreSQL is not installed: see apt.txt"
        self.data = folder / "data"
        # the server refuses to run as root
        self.owner = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        folder.mkdir()
        if os.getuid() == 0:
            shutil.chown(folder, self.owner)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        log = folder / "log"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", log, "-o", options, "start")

    def run(self, program, *arguments):
        as_owner = {"user": self.owner} if os.getuid() == 0 else {}
        command = [str(self.programs / program), *map(str, arguments)]
        run = subprocess.run(
            command, cwd="/", capture_output=True, text=True, check=False, **as_owner
        )
        assert run.returncode == 0, run.stdout + run.stderr

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")

    def url(self, database):
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def new_database(self, name):
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("postgresql")
    for parent in (folder, *folder.parents):
        # pytest keeps its folders to their owner, and the server is somebody else
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    server = Server(folder / "server")
    yield server
    server.stop()


def gradebook_of(course):
    with course.gradebook() as gradebook:
        return {
            submission.student_id: sorted(
                (grade.name, grade.auto_score, grade.needs_manual_grade)
                for notebook in submission.notebooks
                for grade in notebook.grades
            )
            for submission in gradebook.assignment_submissions("toy")
        }


def test_a_course_is_graded_reported_and_resumed_there(
    server, toy_course, hand_in, monkeypatch, capsys
):
    url = server.new_database("course")
    hand_in("ada")
    hand_in("bob", answer="def square(x):\n    return 2 * x", timestamp_txt="2026-01-01 12:00 UTC")
    (hand_in("cyd") / "toy.ipynb").write_bytes(b"")
    monkeypatch.chdir(toy_course.root)
    assert main(["grade", "toy", "--workers", "1"]) == 0
    in_sqlite = gradebook_of(toy_course)

    course = Course.load(toy_course.root)
    course.config.CourseDirectory.db_url = url
    release(course, Assignment("toy", course.root))
    capsys.readouterr()
    assert main(["grade", "toy", "--workers", "1", "--db", url]) == 0
    assert "3 graded now, 0 unchanged" in " ".join(capsys.readouterr().out.split())
    assert gradebook_of(course) == in_sqlite
    assert {len(grades) for grades in in_sqlite.values()} == {2}

    with course.gradebook() as gradebook:
        essay = gradebook.find_grade("essay", "toy", "toy", "ada")
        essay.manual_score, essay.extra_credit, essay.needs_manual_grade = 1.5, 1.0, False
        gradebook.db.commit()
    assert main(["grade", "toy", "--workers", "1", "--db", url]) == 0
    assert "0 graded now, 3 unchanged" in " ".join(capsys.readouterr().out.split())
    rows = {row.student: row for row in class_rows(course, Assignment("toy", course.root))}
    assert (rows["ada"].score, rows["bob"].score, rows["cyd"].score) == (8.5, 2, 0)
    assert main(["report", "toy", "--db", url]) == 0
    page = course.folder("feedback", "ada", "toy") / "toy.html"
    assert "8.5 of 8 points" in page.read_text()


OPENING = """
import sys
from pathlib import Path
from autograder.course import Course

course = Course.load(Path(sys.argv[1]))
course.config.CourseDirectory.db_url = sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
with course.gradebook() as gradebook:
    print(len(gradebook.assignments))
"""


def test_processes_that_open_a_new_gradebook_at_once_all_can(server, toy_course):
    url = server.new_database("opened_at_once")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", OPENING, toy_course.root, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, ends
    assert [said for said, _ in ends] == ["0\n"] * 4


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://grader:secret@127.0.0.1:1/course", "refused"),
        ("postgres-of-mine", "Could not parse"),
        ("sqlserver9://there/course", "sqlserver9"),
    ],
)
def test_a_gradebook_that_cannot_be_opened_is_one_clear_error(toy_course, url, words):
    toy_course.config.CourseDirectory.db_url = url
    with pytest.raises(CourseError, match="cannot be opened") as raised:
        toy_course.gradebook()
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "postgresql://USER:PASSWORD@HOST/DATABASE" in str(raised.value)


def test_a_database_that_is_not_there_is_named(server, toy_course):
    toy_course.config.CourseDirectory.db_url = server.url("nowhere")
    with pytest.raises(CourseError, match='database "nowhere" does not exist'):
        toy_course.gradebook()
