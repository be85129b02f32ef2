import os
import subprocess
from datetime import datetime

import pytest

from autograder import submission_folder
from autograder.submission_folder import MAX_DEPTH, MAX_NAME_BYTES, read_folder

# deeper than Python's recursion limit
LEVELS = 1_200


@pytest.fixture
def deep(tmp_path):
    """A submission with folders nested more than 1,000 deep, and a file at the bottom."""
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "near.txt").write_text("near")
    at = os.open(folder, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("far.txt", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    yield folder
    # shutil.rmtree would meet the recursion limit
    subprocess.run(["rm", "-rf", folder], check=True)


def test_folders_nested_more_than_a_thousand_deep_are_left_out_and_named(deep):
    read = read_folder(deep, [])
    assert set(read.files) == {"near.txt"}
    (note,) = read.notes
    assert f"a folder more than {MAX_DEPTH} levels deep and was left out" in note
    assert read.digest() == read_folder(deep, []).digest()


def test_files_that_are_too_large_together_are_left_out_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(submission_folder, "MAX_EXTRA_BYTES", 2**20)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"x" * 600_000)
    read = read_folder(tmp_path, [])
    assert set(read.files) == {"a"}
    assert read.notes == [
        f"The file '{name}' is beyond the 1 MiB that files may have together and was left out."
        for name in ("b", "c")
    ]


def test_files_with_names_that_cannot_be_kept_are_left_out_and_named(tmp_path):
    deep = tmp_path.joinpath(*["d" * 200] * 6)
    deep.mkdir(parents=True)
    (deep / "far.txt").write_text("far")
    (tmp_path / "near.txt").write_text("near")
    (tmp_path / os.fsdecode(b"\xff.txt")).write_text("not UTF-8")
    read = read_folder(tmp_path, [])
    assert set(read.files) == {"near.txt"}
    odd, long = sorted(read.notes)
    assert f"in folders whose names have more than {MAX_NAME_BYTES} bytes together" in long
    assert odd == "The file '?.txt' is not named in UTF-8 and was left out."


def test_more_files_than_anyone_needs_are_left_out_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(submission_folder, "MAX_ENTRIES", 5)
    monkeypatch.setattr(submission_folder, "MAX_NOTES", 2)
    for number in range(9):
        (tmp_path / f"{number}").symlink_to("nowhere")
    read = read_folder(tmp_path, [])
    assert not read.files
    assert [note.startswith(f"The file '{n}' is a link") for n, note in enumerate(read.notes)] == [
        True,
        True,
        False,
    ]
    assert read.notes[2] == "4 more files were left out."


def test_what_nbgrader_ignores_is_ignored_in_silence(tmp_path):
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.txt").write_text("x")
    (tmp_path / "kept.txt").write_text("kept")
    (tmp_path / "cached.pyc").write_text("x")
    (tmp_path / "other.ipynb").write_text("{}")
    read = read_folder(tmp_path, [], ["__pycache__", "*.pyc"])
    assert set(read.files) == {"kept.txt"}
    assert read.notes == [
        "The notebook 'other.ipynb' is none of the assignment's; it was not graded."
    ]


@pytest.mark.parametrize(
    ("names", "held"),
    [
        (["Problem 1 (copy).ipynb"], "'Problem 1 (copy).ipynb'"),
        (["problem 1.ipynb"], "'problem 1.ipynb'"),
        (["ps1/Problem 1.ipynb", "Problem 2.ipynb", "data.txt"], "'ps1/Problem 1.ipynb'"),
        (["ps1.zip", "timestamp.txt"], "'ps1.zip'"),
        (["e.ipynb", "d.ipynb"], "'d.ipynb' and 'e.ipynb'"),
        (["e.ipynb", "a/b.ipynb", "d", "c.ipynb"], "'c.ipynb', 'e.ipynb' and 'a/b.ipynb'"),
        (
            ["e.ipynb", "a/b.ipynb", "d.ipynb", "c.ipynb"],
            "'c.ipynb', 'd.ipynb', 'e.ipynb' and 1 more",
        ),
        ([".ipynb_checkpoints/Problem 1.ipynb", "timestamp.txt"], ""),
    ],
)
def test_what_is_there_instead_of_a_notebook_is_named(tmp_path, names, held):
    """Bug: a renamed, nested or zipped notebook was only said not to be there."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("2026-01-01" if name == "timestamp.txt" else "{}")
    read = read_folder(tmp_path, ["Problem 1", "Problem 2"], ["cached*"])
    told = "There is no file 'Problem 1.ipynb' in the submission"
    assert read.problems["Problem 1"] == told + (f"; the folder holds {held}." if held else ".")
    assert read.notes == []
    assert read.digest() == read_folder(tmp_path, ["Problem 1", "Problem 2"]).digest()


def test_notebooks_beside_the_assignments_are_named(tmp_path):
    for name in ("toy", "scratch", ".hidden", "cached"):
        (tmp_path / f"{name}.ipynb").write_text("{}")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "toy.ipynb").write_text("{}")
    read = read_folder(tmp_path, ["toy"], ["cached*"])
    assert read.notes == [
        "The notebook 'scratch.ipynb' is none of the assignment's; it was not graded."
    ]
    (tmp_path / "more.ipynb").write_text("{}")
    assert read_folder(tmp_path, ["toy"], ["cached*"]).notes == [
        "The notebooks 'more.ipynb' and 'scratch.ipynb' are none of the assignment's; "
        "they were not graded."
    ]


def test_a_linked_notebook_is_told_of_as_before(tmp_path):
    (tmp_path / "toy.ipynb").symlink_to("nowhere")
    (tmp_path / "other.ipynb").write_text("{}")
    read = read_folder(tmp_path, ["toy"])
    assert "symbolic link" in read.problems["toy"]
    assert "'other.ipynb' is none of" in read.notes[0]


def test_a_digest_depends_on_every_name_and_byte(tmp_path):
    (tmp_path / "toy.ipynb").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    digests = [read_folder(tmp_path, ["toy"]).digest()]
    (tmp_path / "data" / "a.txt").write_text("b")
    digests.append(read_folder(tmp_path, ["toy"]).digest())
    (tmp_path / "data" / "a.txt").rename(tmp_path / "data" / "b.txt")
    digests.append(read_folder(tmp_path, ["toy"]).digest())
    (tmp_path / "toy.ipynb").write_text("[]")
    digests.append(read_folder(tmp_path, ["toy"]).digest())
    (tmp_path / "toy.ipynb").unlink()
    digests.append(read_folder(tmp_path, ["toy"]).digest())
    assert len(set(digests)) == len(digests)


def test_the_time_is_read_as_nbgrader_reads_it(tmp_path):
    (tmp_path / "timestamp.txt").write_text("2026-01-01 14:30:00+02:00\n")
    assert read_folder(tmp_path, []).timestamp == datetime(2026, 1, 1, 12, 30)
    (tmp_path / "timestamp.txt").write_text("2026-01-01 14:30:00 UTC" + " " * 2_000)
    read = read_folder(tmp_path, [])
    assert read.timestamp is None
    assert "which is not a time; it was ignored" in read.notes[0]
