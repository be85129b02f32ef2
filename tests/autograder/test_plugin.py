"""What the trusted side writes into a notebook."""

import nbformat
from nbgrader.utils import determine_grade

from autograder.nbgrader_plugin import explanations, write_verdict
from autograder.record import Record, duration
from autograder.verdict import CellVerdict, CheckResult, SubmissionVerdict


def notebook_of(*cells):
    notebook = nbformat.v4.new_notebook()
    for name, kind in cells:
        cell = nbformat.v4.new_code_cell("1")
        cell.metadata["nbgrader"] = {
            "grade": kind == "grade",
            "grade_id": name,
            "locked": kind == "grade",
            "schema_version": 3,
            "solution": kind == "solution",
            "task": False,
            "points": 2,
        }
        notebook.cells.append(cell)
    return notebook


def scores_after(verdict, record=None):
    notebook = notebook_of(("ran", "grade"), ("stopped", "grade"), ("never_ran", "grade"))
    write_verdict(notebook, None, verdict, record or Record())
    return [determine_grade(cell)[0] for cell in notebook.cells]


def test_only_a_test_that_ran_to_its_end_can_earn_points():
    verdict = SubmissionVerdict(outputs={0: [], 1: []}, stopped={1: "it was stopped"})
    assert scores_after(verdict) == [2, 0, 0]


def test_a_test_that_was_begun_is_not_called_one_that_was_not_run():
    """Bug: "Not run: it was stopped after 3 seconds" stood below a test that had been run."""
    notebook = notebook_of(("slow", "grade"), ("end", "grade"), ("later", "grade"))
    stopped = {0: "it was stopped after 3 seconds", 1: "the process ended", 2: "the process ended"}
    verdict = SubmissionVerdict(outputs={0: [], 1: [], 2: []}, stopped=stopped, not_run=[2])
    write_verdict(notebook, None, verdict, Record())
    assert [cell.outputs[-1].traceback for cell in notebook.cells] == [
        ["Stopped: after 3 seconds"],
        ["Stopped: the process ended"],
        ["Not run: the process ended"],
    ]
    assert [determine_grade(cell)[0] for cell in notebook.cells] == [0, 0, 0]


def test_a_submission_that_was_not_run_earns_nothing():
    assert scores_after(SubmissionVerdict(), Record(problem="It is empty.")) == [0, 0, 0]


def test_a_judged_cell_without_a_verdict_earns_nothing(toy, toy_notebook):
    notebook = toy_notebook("square = None")
    record = Record()
    write_verdict(notebook, toy, SubmissionVerdict(outputs={2: []}), record)
    assert determine_grade(notebook.cells[2]) == (0, 3)
    assert record.cells["test_square"].note == "The checks of this cell gave no result."


def test_the_record_comes_back_from_the_notebook():
    checks = (CheckResult("a", "It does a.", 2, "passed"),)
    record = Record(["mended"], "", ["stopped"], {"g": CellVerdict("g", checks)}, 3.0, "digest")
    notebook = notebook_of(("g", "grade"))
    record.write_to(notebook)
    assert Record.read_from(nbformat.reads(nbformat.writes(notebook), as_version=4)) == record


def test_each_answer_is_explained_by_the_checks_that_follow_it():
    failed = (CheckResult("a", "It does a.", 2, "failed", "It does not."),)
    notebook = notebook_of(("f", "solution"), ("tf", "grade"), ("h", "solution"), ("th", "grade"))
    cells = {"tf": CellVerdict("tf", failed), "th": CellVerdict("th", (), note="Not run.")}
    texts = explanations(notebook, Record(incidents=["Cell 1 was stopped."], cells=cells))
    assert texts["f"] == (
        "Cell 1 was stopped. 0 of 1 checks passed. Not passed: It does a. It does not."
    )
    assert texts["h"] == "Not run."


def test_durations_are_in_words():
    assert duration(0) == "0 seconds"
    assert duration(61) == "1 minute 1 second"
    assert duration(2 * 86_400 + 3 * 3_600 + 59) == "2 days 3 hours"
