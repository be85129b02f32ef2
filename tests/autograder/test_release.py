import nbformat
import pytest

from autograder.assignment import Assignment
from autograder.cli import main
from autograder.course import CourseError
from autograder.release import release, release_difference, source_notebook


@pytest.fixture
def toy_assignment(toy_course):
    return Assignment("toy", toy_course.root)


def released_sources(assignment):
    return {
        cell.metadata.get("nbgrader", {}).get("grade_id"): cell.source
        for cell in nbformat.read(assignment.release, as_version=4).cells
    }


def test_the_student_gets_stubs_in_place_of_solutions(toy_assignment):
    sources = released_sources(toy_assignment)
    assert "raise NotImplementedError()" in sources["square"]
    assert "return x * x" not in toy_assignment.release.read_text()
    assert sources["essay"] == "YOUR ANSWER HERE"
    assert sources["imports"] == "import torch"


def test_the_gradebook_knows_the_points(toy_course):
    with toy_course.gradebook() as gradebook:
        assert gradebook.find_assignment("toy").max_score == 8


def test_a_second_release_changes_nothing(toy_course, toy_assignment):
    before = toy_assignment.release.read_bytes()
    assert release(toy_course, toy_assignment) == []
    assert release_difference(toy_course, toy_assignment) == ""
    toy_assignment.release.unlink()
    assert release(toy_course, toy_assignment) == [toy_assignment.release]
    assert toy_assignment.release.read_bytes() == before


def test_the_check_shows_how_the_committed_file_differs(toy_course, toy_assignment):
    text = toy_assignment.release.read_text()
    toy_assignment.release.write_text(text.replace("Try it.", "Try it twice."))
    difference = release_difference(toy_course, toy_assignment)
    assert '-    "Try it twice."' in difference
    assert '+    "Try it."' in difference
    assert "Try it twice." in toy_assignment.release.read_text()


def test_the_check_changes_no_gradebook(toy_course, toy_assignment):
    source = toy_assignment.source.read_text()
    toy_assignment.source.write_text(source.replace("points: 6", "points: 60"))
    assert release_difference(toy_course, toy_assignment)
    with toy_course.gradebook() as gradebook:
        assert gradebook.find_assignment("toy").max_score == 8


def test_files_beside_the_source_are_released_and_removed_again(toy_course, toy_assignment):
    data = toy_assignment.source.parent / "data.csv"
    data.write_text("1,2\n")
    release(toy_course, toy_assignment)
    assert (toy_assignment.release.parent / "data.csv").read_text() == "1,2\n"
    data.unlink()
    assert release_difference(toy_course, toy_assignment).startswith("--- committed/data.csv")
    assert release(toy_course, toy_assignment) == [toy_assignment.release.parent / "data.csv"]
    assert release_difference(toy_course, toy_assignment) == ""


def test_cell_ids_depend_on_content_alone(toy_assignment, tmp_path):
    ids = [cell.id for cell in source_notebook(toy_assignment.source).cells]
    assert ids == [cell.id for cell in source_notebook(toy_assignment.source).cells]
    assert {"imports", "square", "test_square", "essay"} < set(ids)
    twice = tmp_path / "twice.md"
    header = toy_assignment.source.read_text().split("# Squares")[0]
    cell = "```{code-cell} ipython3\nsame\n```\n\n"
    twice.write_text(header + cell + cell)
    first, second = (cell.id for cell in source_notebook(twice).cells)
    assert second == f"{first}-2"


def test_a_broken_source_is_one_clear_error(toy_course, toy_assignment):
    source = toy_assignment.source.read_text()
    toy_assignment.source.write_text(source.replace("### END SOLUTION", ""))
    with pytest.raises(CourseError, match="could not release 'toy'"):
        release(toy_course, toy_assignment)


def test_the_command_fails_when_a_notebook_is_out_of_step(toy_course, monkeypatch, capsys):
    monkeypatch.chdir(toy_course.root)
    assert main(["release", "--check"]) == 0
    path = Assignment("toy", toy_course.root).release
    path.write_text(path.read_text().replace("Try it.", "Try."))
    assert main(["release", "toy", "--check"]) == 1
    assert "exercises/toy is out of step" in capsys.readouterr().err
    assert main(["release"]) == 0
    assert main(["release", "--check"]) == 0
