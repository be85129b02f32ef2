import nbformat
import pytest
from nbgrader.utils import determine_grade

from autograder import safe_html
from autograder.judged_notebook import write_verdict
from autograder.markup_room import Room
from autograder.outputs import (
    as_display,
    book_link,
    clamped_outputs,
    judged_outputs,
    not_run_output,
    own_sentence,
    score_of,
    tidied,
    verdict_html,
    verdict_text,
)
from autograder.record import Record
from autograder.safe_html import TOO_MUCH_HTML
from autograder.verdict import CellVerdict, CheckResult, Finding, SubmissionVerdict

PASSED = CheckResult("test_a", "The mean is right.", 1, "passed")
FAILED = CheckResult("test_b", "Large <logits> work.", 3, "failed", "`f` gave <nan>.", "Shift.")
FINDING = Finding("summed", "a sum instead of a mean", "cross-entropy#mean")
VERDICT = CellVerdict("test_f", (PASSED, FAILED), (FINDING,))


def graded(outputs, points=4):
    cell = nbformat.v4.new_code_cell("test", outputs=outputs)
    cell.metadata["nbgrader"] = {
        "grade": True,
        "grade_id": "test_f",
        "points": points,
        "solution": False,
        "locked": True,
    }
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    return determine_grade(cell)[0]


NOISE = [
    {"output_type": "stream", "name": "stderr", "text": "a warning\n"},
    {"output_type": "error", "ename": "E", "evalue": "x", "traceback": ["\x1b[31mE\x1b[0m: x"]},
    {"output_type": "execute_result", "data": {"text/plain": "100"}, "metadata": {}},
    {"output_type": "display_data", "data": {"image/png": "QQ=="}, "metadata": {}},
]


def test_nbgrader_reads_the_score_whatever_the_notebook_printed():
    assert graded(judged_outputs(VERDICT, 4, [])) == 1
    assert graded(judged_outputs(VERDICT, 4, NOISE)) == 1
    assert graded(judged_outputs(CellVerdict("test_f", (), note="not run"), 4, NOISE)) == 0


def test_the_score_is_the_share_of_the_cells_points():
    assert score_of(VERDICT, 4) == 1
    assert score_of(VERDICT, 8) == 2
    assert score_of(CellVerdict("test_f", (PASSED, PASSED)), 3) == 3
    assert score_of(CellVerdict("test_f", ()), 3) == 0


def test_what_the_notebook_printed_is_shown_as_text_and_pictures_only():
    shown = as_display(NOISE)
    assert [output.output_type for output in shown] == ["display_data", "display_data"]
    assert shown[0].data == {
        "text/plain": "What the notebook showed here:\na warning\nE: x\n100",
    }
    assert shown[1].data == {"image/png": "QQ=="}
    assert as_display([]) == []


def test_the_list_of_checks_says_what_a_student_needs():
    html = verdict_html(VERDICT, 4, "https://example.org/{page}.html#{anchor}")
    for part in (
        "<strong>1 of 4 points</strong>",
        "Passed:</strong> The mean is right.",
        "(1 of 1 point)",
        "Not passed:</strong> Large &lt;logits&gt; work.",
        "(0 of 3 points)",
        "<code>f</code> gave &lt;nan&gt;.",
        "Hint: Shift.",
        "Your results agree with a sum instead of a mean.",
        'href="https://example.org/cross-entropy.html#mean"',
    ):
        assert part in html
    assert "<logits>" not in html


def test_without_a_book_the_place_is_named():
    assert book_link("cross-entropy#mean", "") == "See <em>Cross entropy, mean</em> in the book."
    assert book_link("", "") == ""
    assert book_link('x"><script>#y', "u/{page}").count("<script>") == 0


def test_the_comment_names_the_misconception_or_the_first_miss():
    assert verdict_text(VERDICT) == (
        "1 of 2 checks passed. Your results agree with a sum instead of a mean."
    )
    without = CellVerdict("test_f", (PASSED, FAILED))
    assert verdict_text(without).endswith("Not passed: Large <logits> work. `f` gave <nan>.")
    assert verdict_text(CellVerdict("test_f", (), note="Not run.")) == "Not run."


@pytest.mark.parametrize(
    ("text", "grade"), [("1.5", 1.5), ("7", 4), ("inf", 4), ("nan", 4), ("-1", 4), ("words", 4)]
)
def test_a_tests_own_partial_score_never_stops_nbgrader(text, grade):
    result = nbformat.v4.new_output("execute_result", data={"text/plain": text})
    assert graded(clamped_outputs([result], 4)) == grade


def test_a_result_without_text_never_stops_nbgrader():
    result = nbformat.v4.new_output("execute_result", data={"text/html": "<b>x</b>"})
    assert graded(clamped_outputs([result], 4)) == 4


@pytest.mark.parametrize("name", ["NotRun", "Stopped"])
@pytest.mark.parametrize("traceback", [["All points"], [], ["a\n" * 9_000]])
def test_no_error_of_a_students_is_a_sentence_of_the_autograders(name, traceback):
    """Bug: a process can send any traceback, and each line of it took a page a little time."""
    raw = nbformat.v4.new_output("error", ename=name, evalue="", traceback=traceback)
    (error,) = tidied([raw])
    assert own_sentence(error) == ""
    assert len(error.traceback) == 2
    assert "\n".join(error.traceback).strip() == "".join(traceback).strip()


def test_a_test_that_was_not_run_earns_nothing():
    assert graded([not_run_output("the process ended")]) == 0


def test_outputs_are_cut_to_size_and_cannot_run():
    long = {"output_type": "stream", "name": "stdout", "text": "x" * 10**6}
    script = {"text/html": "<script>1</script>ok", "application/javascript": "alert(1)"}
    hidden = {"output_type": "display_data", "data": script, "metadata": {}}
    only_script = {"application/javascript": "alert(1)"}
    useless = {"output_type": "display_data", "data": only_script, "metadata": {}}
    text, html = tidied([long, hidden, useless])
    assert len(text.text) < 21_000
    assert "980000 characters left out" in text.text
    assert html.data == {"text/html": "ok"}


def test_lone_surrogates_in_outputs_can_be_written():
    stream = {"output_type": "stream", "name": "stdout", "text": "\ud800"}
    assert tidied([stream])[0].text == "?"


def test_html_that_is_too_long_is_not_dropped_in_silence():
    long = {"output_type": "display_data", "data": {"text/html": "x" * 100_001}, "metadata": {}}
    assert tidied([long])[0].data == {
        "text/plain": "[HTML of 100001 characters is too long to be shown]"
    }
    long["data"]["text/plain"] = "a figure"
    assert tidied([long])[0].data == {"text/plain": "a figure"}


def test_the_cells_of_a_notebook_share_the_room_for_html():
    shown = {"output_type": "display_data", "data": {"text/html": "<br>" * 5_000}, "metadata": {}}
    cells = [nbformat.v4.new_code_cell("show()") for _ in range(20)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    verdict = SubmissionVerdict(outputs={place: [dict(shown)] for place in range(20)})
    write_verdict(notebook, None, verdict, Record())
    data = [cell.outputs[0].data for cell in notebook.cells]
    assert [list(kinds) for kinds in data] == [["text/html"]] * 9 + [["text/plain"]] * 11
    assert data[-1]["text/plain"].startswith(f"{TOO_MUCH_HTML}\n<br><br>")


def test_html_that_has_no_place_makes_way_for_the_text_beside_it():
    """Bug: its source was HTML again, which the pages cleaned once more, however often it came."""
    shown = {"text/html": "&" * 20_000, "text/plain": "a table"}
    outputs = [{"output_type": "display_data", "data": shown, "metadata": {}}] * 2
    assert [output.data for output in tidied(outputs)] == [{"text/plain": "a table"}] * 2


def test_the_cells_of_a_notebook_share_the_room_for_text():
    """Bug: 64 MiB of references took nbconvert minutes and gigabytes to read again."""
    room = Room(text=103_000)
    shown = {"output_type": "stream", "name": "stdout", "text": "<" * 6_000}
    first, second, note = tidied([shown] * 50, room)
    assert first.text == shown["text"]
    assert second.text == f"{'<' * 3_000}\n[3000 characters left out]"
    assert note.text == "[outputs left out: 48]\n"


@pytest.mark.parametrize(
    ("decides", "grade"),
    [
        (nbformat.v4.new_output("error", ename="AssertionError", evalue="", traceback=[]), 0),
        (nbformat.v4.new_output("stream", name="stderr", text="x"), 0),
        (nbformat.v4.new_output("execute_result", data={"text/plain": "1.5"}), 1.5),
    ],
)
def test_a_test_that_has_no_room_to_be_shown_is_graded_as_ever(decides, grade):
    printed = nbformat.v4.new_output("stream", name="stdout", text="<")
    outputs = tidied([printed] * 50 + [decides], Room(text=0))
    assert "[outputs left out: 49]\n" in [output.get("text") for output in outputs]
    assert graded(clamped_outputs(outputs, 4)) == grade


def test_html_beside_a_verdict_is_not_cleaned(monkeypatch):
    monkeypatch.setattr(safe_html, "cleaned", None)
    shown = {"text/html": "<b>x</b>", "text/plain": "x"}
    (text,) = as_display([{"output_type": "display_data", "data": shown, "metadata": {}}])
    assert text.data["text/plain"] == "What the notebook showed here:\nx"
