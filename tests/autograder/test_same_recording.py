"""`autograder grade` and `nbgrader autograde` with our configuration leave the same behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.assignment import Assignment
from autograder.course import Course
from autograder.grading import Batch
from autograder.sample_class import make_sample_class

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
# what loops would only take its time; nbgrader passes over folders without a notebook, and links
KINDS = {
    "solution",
    "equivalent",
    "blank",
    "syntax error",
    "deleted grade cell",
    "duplicated cells",
    "exit in function",
    "empty file",
    "wrong kernel",
    "late",
    "not JSON",
    "old format",
    "not UTF-8",
    "moved grade cell",
    "edited grade cell",
    "lost metadata",
    "forged score",
    "markup",
}
LATE_WORK_LOSES_ALL = 'c.LateSubmissionPlugin.penalty_method = "zero"\n'


@pytest.fixture(scope="module")
def handed_in(released_toy, tmp_path_factory):
    root = tmp_path_factory.mktemp("same") / "course"
    shutil.copytree(released_toy, root)
    with (root / "nbgrader_config.py").open("a") as file:
        file.write(LATE_WORK_LOSES_ALL)
    course = Course.load(root)
    kinds = make_sample_class(course, Assignment("toy", root), size=36)
    chosen = {kind: student for student, kind in kinds.items() if kind in KINDS}
    assert set(chosen) == KINDS
    for folder in (root / "course" / "submitted").iterdir():
        if folder.name not in chosen.values():
            shutil.rmtree(folder)
    beside = course.folder("submitted", chosen["solution"], "toy")
    (beside / "data").mkdir()
    (beside / "data" / "numbers.txt").write_text("1 2 3")
    (beside / "given.txt").write_text("a student's own version")
    (beside / "notes.pyc").write_bytes(b"ignored by nbgrader")
    (course.folder("source", ".", "toy") / "given.txt").write_text("the instructor's version")
    (root / "course" / "class_seed.txt").write_text("a secret\n")
    return root, chosen


def outcome(root):
    course = Course.load(root)
    folder = root / "course" / "autograded"
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".ipynb":
            notebook = json.loads(data)
            # nbgrader's own way grades a submission again when its time changes, not its content
            del notebook["metadata"]["autograder"]["digest"]
            data = json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False)
        files[str(path.relative_to(folder))] = (path.stat().st_mode, data)
    with course.gradebook() as gradebook:
        rows = {
            submission.student_id: (
                submission.timestamp,
                submission.score,
                submission.max_score,
                submission.needs_manual_grade,
                submission.late_submission_penalty,
                sorted((g.name, g.auto_score, g.needs_manual_grade) for g in notebook.grades),
                sorted((c.name, c.auto_comment) for c in notebook.comments),
            )
            for submission in gradebook.assignment_submissions("toy")
            for notebook in submission.notebooks
        }
    return files, rows


def test_gradebook_and_folders_are_those_of_nbgraders_own_command(handed_in, tmp_path):
    root, chosen = handed_in
    theirs = tmp_path / "theirs"
    shutil.copytree(root, theirs)
    commands = Path(sys.executable).parent
    run = subprocess.run(
        [commands / "nbgrader", "autograde", "toy"],
        cwd=theirs,
        env={**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    ours = tmp_path / "ours"
    shutil.copytree(root, ours)
    Batch(Course.load(ours), Assignment("toy", ours), sorted(chosen.values()), workers=1).run()
    our_files, our_rows = outcome(ours)
    their_files, their_rows = outcome(theirs)
    assert our_rows == their_rows
    assert sorted(our_files) == sorted(their_files)
    for name, content in our_files.items():
        assert content == their_files[name], name
    late = our_rows[chosen["late"]]
    assert (late[1], late[4]) == (6, 6)
    given = our_files[f"{chosen['solution']}/toy/given.txt"]
    assert given[1] == b"the instructor's version"
