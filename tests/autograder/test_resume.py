"""A run that is killed, and started again with the same command, ends as if nothing had happened.

The processes are real and so are the signals.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autograder.assignment import Assignment
from autograder.course import Course
from autograder.sample_class import make_sample_class
from autograder.summary import read_records

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
SIZE = 24
KILLS = 3
# what sleeps or loops until its limit would only make the test slow
QUICK = "c.JudgeSubmission.cell_seconds = 1\nc.JudgeSubmission.call_seconds = 1\n"
GRACE_SECONDS = 60


@pytest.fixture(scope="module")
def class_root(released_toy, tmp_path_factory):
    root = tmp_path_factory.mktemp("resume") / "course"
    shutil.copytree(released_toy, root)
    with (root / "nbgrader_config.py").open("a") as file:
        file.write(QUICK)
    make_sample_class(Course.load(root), Assignment("toy", root), size=SIZE)
    for number, folder in enumerate(sorted((root / "course" / "submitted").iterdir())):
        if number % 3 == 0:
            (folder / "toy" / "data").mkdir(parents=True, exist_ok=True)
            (folder / "toy" / "data" / "numbers.txt").write_text("1 2 3")
    # the secret has to be the same in all copies
    (root / "course" / "class_seed.txt").write_text("a secret\n")
    return root


def grading(root, *options):
    """Start `autograder grade` as a process of its own, in a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "autograder", "grade", "toy", "--json", "--workers", "2", *options],
        cwd=root,
        env={**os.environ, "AUTOGRADER_ROOT": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def grade_to_the_end(root, *options):
    process = grading(root, *options)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return {row["student"]: row for row in json.loads(output)}


def outcome(root):
    """Return what a run leaves: every file of the autograded folders, and the gradebook's rows."""
    course = Course.load(root)
    folder = root / "course" / "autograded"
    files = {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_file()
    }
    with course.gradebook() as gradebook:
        rows = {}
        for submission in gradebook.assignment_submissions("toy"):
            (notebook,) = submission.notebooks
            rows[submission.student_id] = (
                submission.timestamp,
                notebook.late_submission_penalty,
                sorted((g.name, g.auto_score, g.needs_manual_grade) for g in notebook.grades),
                sorted((c.name, c.auto_comment) for c in notebook.comments),
            )
    return files, rows


@pytest.fixture(scope="module")
def uninterrupted(class_root, tmp_path_factory):
    root = tmp_path_factory.mktemp("uninterrupted") / "course"
    shutil.copytree(class_root, root)
    grade_to_the_end(root)
    return outcome(root)


def recorded(root):
    course, assignment = Course.load(root), Assignment("toy", root)
    done = 0
    for folder in (root / "course" / "autograded").glob("*/toy"):
        done += bool(read_records(course, assignment, folder.parent.name))
    return done


def wait_for(condition, seconds=GRACE_SECONDS):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_until_more_than(count, root, process):
    wait_for(lambda: recorded(root) > count or process.poll() is not None)


def descendants(pid):
    """Return the processes below one, each with the time of its start, which makes it unique."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (status := status_of(int(folder.name))):
            parents[int(folder.name)] = int(status[1])
    found, level = set(), {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found |= {(child, status_of(child)[19]) for child in level if status_of(child)}
    return found


def status_of(pid):
    """Return the fields of a process's status after its name, or nothing if it is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else fields


def all_ended(processes):
    return not any(status_of(pid)[19:20] == [start] for pid, start in processes)


def test_killed_again_and_again_a_run_ends_as_if_nothing_had_happened(
    class_root, uninterrupted, tmp_path
):
    root = tmp_path / "course"
    shutil.copytree(class_root, root)
    random_moments = random.Random(4)
    progress = [0]
    for _ in range(KILLS):
        process = grading(root)
        before = recorded(root)
        # a killed run has to get somewhere, or the test would show nothing
        wait_until_more_than(before, root, process)
        time.sleep(random_moments.uniform(0, 1.5))
        below = descendants(process.pid)
        process.kill()
        process.communicate()
        wait_for(lambda below=below: all_ended(below))
        progress.append(recorded(root))
        if progress[-1] == SIZE:
            break
    assert progress[1] < SIZE
    rows = grade_to_the_end(root)
    unchanged = sum(row["status"] == "unchanged" for row in rows.values())
    assert unchanged >= progress[-1] > 0
    assert outcome(root) == uninterrupted
    assert not list((root / "course" / "autograded").rglob(".*"))


def test_nothing_is_graded_twice_without_need_and_all_of_it_with_force(class_root, tmp_path):
    root = tmp_path / "course"
    shutil.copytree(class_root, root)
    first = grade_to_the_end(root)
    before = outcome(root)
    assert {row["status"] for row in first.values()} == {"graded"}
    again = grade_to_the_end(root)
    assert {row["status"] for row in again.values()} == {"unchanged"}
    forced = grade_to_the_end(root, "--force")
    assert {row["status"] for row in forced.values()} == {"graded"}
    assert outcome(root) == before
    for row in (*first.values(), *again.values(), *forced.values()):
        del row["status"]
    assert first == again == forced


@pytest.fixture
def without_nohup():
    """Have commands end with their terminal, wherever the tests were started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(
    class_root, uninterrupted, tmp_path, number
):
    root = tmp_path / "course"
    shutil.copytree(class_root, root)
    process = grading(root)
    wait_until_more_than(0, root, process)
    below = descendants(process.pid)
    assert below
    start = time.monotonic()
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=GRACE_SECONDS)
    assert process.returncode == 130
    assert time.monotonic() - start < GRACE_SECONDS
    assert output == ""
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    assert f"of {SIZE} submissions are done" in errors
    assert all_ended(below)
    done = recorded(root)
    assert 0 < done < SIZE
    rows = grade_to_the_end(root)
    assert sum(row["status"] == "unchanged" for row in rows.values()) == done
    assert outcome(root) == uninterrupted


@pytest.mark.parametrize("generation", [1, 2], ids=["server", "worker"])
def test_a_process_that_is_killed_costs_nobody_anything(
    class_root, uninterrupted, tmp_path, generation
):
    root = tmp_path / "course"
    shutil.copytree(class_root, root)
    process = grading(root)
    wait_until_more_than(0, root, process)
    pid = process.pid
    for _ in range(generation):
        pid = next(child for child in children(pid) if b"worker_server" in command_line(child))
    os.kill(pid, signal.SIGKILL)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert {row["status"] for row in json.loads(output)} == {"graded"}
    assert outcome(root) == uninterrupted


def children(pid):
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_result_depends_neither_on_the_order_nor_on_the_number_of_workers(
    class_root, uninterrupted, tmp_path
):
    root = tmp_path / "course"
    shutil.copytree(class_root, root)
    students = sorted(path.name for path in (root / "course" / "submitted").iterdir())
    random.Random(1).shuffle(students)
    for student in students[:4]:
        grade_to_the_end(root, "--student", student, "--workers", "1")
    grade_to_the_end(root, "--workers", "1")
    assert outcome(root) == uninterrupted


def test_a_torn_file_is_graded_again(class_root, uninterrupted, tmp_path):
    root = tmp_path / "course"
    shutil.copytree(class_root, root)
    grade_to_the_end(root)
    torn = sorted((root / "course" / "autograded").glob("*/toy/toy.ipynb"))
    for number, path in enumerate(torn[:3]):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[: 100 * number])
    rows = grade_to_the_end(root)
    assert sum(row["status"] == "graded" for row in rows.values()) == 3
    assert outcome(root) == uninterrupted
