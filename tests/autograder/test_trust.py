"""What the trusted side does with what nobody vouches for."""

import json
import os
import subprocess

import nbformat
import pytest
import torch

from autograder import student_process
from autograder.checking import Tolerance, judge
from autograder.checking.cell_judge import Check
from autograder.checking.collected import CollectedCheck
from autograder.checking.compare import compare_inputs, compare_values
from autograder.checking.failure import MAX_LINE, CheckFailedError, StudentStoppedError
from autograder.checking.student import DirectCaller, Student
from autograder.child import protocol
from autograder.engine import MAX_FILES, NotebookRun, files_of, grade_notebook
from autograder.limits import Limits
from autograder.student_process import (
    TOO_MANY_VALUES,
    readable_outputs,
    understand_reply,
)
from tests.autograder.attack_course import PREAMBLE

TOLERANCE = Tolerance(1e-9)


def words_for(reply):
    with pytest.raises(CheckFailedError) as caught:
        understand_reply("f", reply, frozenset({"torch.softmax"}))
    return str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        3.0,
        ["returned"],
        ["returned", 1.0, [], []],
        ["returned", 1.0, None, [], []],
        ["raised", "ValueError", "1"],
        ["raised", 1, 1],
        ["outputs", "[]"],
        [["returned"], 1.0, [], [], []],
    ],
)
def test_a_reply_of_another_form_stops_the_check(reply):
    with pytest.raises(StudentStoppedError, match="wrong form"):
        understand_reply("f", reply, frozenset())


def test_words_of_the_students_side_reach_no_message():
    secret = "x0_123"
    assert words_for(["raised", secret, 1]) == "`f` raised an exception at line 1 of `f`."
    assert secret not in words_for(["not callable", secret])
    assert secret not in words_for(["not allowed", secret])
    assert "torch.softmax" in words_for(["not allowed", "torch.softmax"])
    with pytest.raises(CheckFailedError) as caught:
        compare_values("f", protocol.Unsupported(secret), torch.ones(1), TOLERANCE)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("line", [0, -1, MAX_LINE + 1, 2**40])
def test_a_line_number_out_of_range_is_not_told(line):
    assert words_for(["raised", "ValueError", line]) == "`f` raised ValueError."


@pytest.mark.parametrize("shape", [(0, 123456), (1, 1, 1, 1, 7)])
def test_a_shape_out_of_proportion_is_not_told(shape):
    with pytest.raises(CheckFailedError, match=r"another shape; expected \(2,\)"):
        compare_values("f", torch.empty(shape), torch.ones(2), TOLERANCE)


def test_arguments_that_are_missing_after_a_call_fail_the_check():
    with pytest.raises(CheckFailedError, match="could not be read"):
        compare_inputs("f", [], [torch.ones(1)])


def test_a_message_with_too_many_values_is_refused():
    few = protocol.encode([None] * (protocol.MAX_VALUES - 1))
    many = protocol.encode([None] * protocol.MAX_VALUES)
    assert len(protocol.decode(few)) == protocol.MAX_VALUES - 1
    with pytest.raises(protocol.ProtocolError, match="more than"):
        protocol.decode(many)


def test_the_bools_of_an_array_are_bools():
    data = b"a" + bytes([protocol.ARRAY_DTYPES.index("bool"), 1]) + (2).to_bytes(8, "big")
    assert protocol.decode(data + b"\1\0").tolist() == [True, False]
    with pytest.raises(protocol.ProtocolError, match="bool"):
        protocol.decode(data + b"\1\2")


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"x": value}
    return [{"output_type": "display_data", "data": {}, "metadata": value}]


@pytest.mark.parametrize(
    "outputs",
    [nested(100), nested(600), [stream("")] * 5_000, {}, [1], [{"output_type": "evil"}], None],
    ids=["deep", "deeper", "many", "no list", "a number", "unknown kind", "nothing"],
)
def test_outputs_that_no_notebook_could_use_are_refused(outputs):
    with pytest.raises(protocol.ProtocolError):
        readable_outputs(json.dumps(outputs))


def test_outputs_keep_their_text_and_lose_half_characters():
    text = json.dumps([stream("a\ud800b"), stream("\U0001f600 ü")])
    assert [output["text"] for output in readable_outputs(text)] == ["a?b", "\U0001f600 ü"]
    assert readable_outputs(json.dumps(nested(10))) == nested(10)


@pytest.mark.parametrize("half", ["\\ud800", "\\uD800", "\\uDc00", "\\udFFF"])
def test_half_a_character_in_capitals_is_lost_too(half):
    text = json.dumps([stream("a half b")]).replace("half", half)
    (output,) = readable_outputs(text)
    assert output["text"] == "a ? b"


def displayed(**bundle):
    return {"output_type": "display_data", "data": bundle, "metadata": {}}


MANY_VALUES = {
    "numbers": [{"output_type": "display_data", "data": {}, "metadata": {"x": [0] * 500_000}}],
    "keys": [displayed(**{str(number): "" for number in range(170_000)})],
    "lists": [{"output_type": "display_data", "data": {}, "metadata": {"x": [[]] * 250_000}}],
    "lines": [stream([""] * 250_000)],
}


@pytest.mark.parametrize("outputs", MANY_VALUES.values(), ids=MANY_VALUES.keys())
def test_outputs_of_too_many_values_are_refused_before_they_are_read(outputs, monkeypatch):
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("read"))
    with pytest.raises(protocol.ProtocolError, match="too many values"):
        readable_outputs(json.dumps(outputs))


@pytest.mark.parametrize(
    "outputs",
    [
        [displayed(**{"text/plain": "a, b", "text/html": "<b>"})] * 2_000,
        [displayed(**{"application/vnd.plotly.v1+json": {"x": [0.37] * 200_000}})],
        [stream(", ".join(["[1, 2]"] * 400_000))],
        [stream('"{,\\' * 200_000)],
    ],
    ids=["many outputs", "a figure", "printed lists", "printed quotes"],
)
def test_honest_outputs_of_many_values_are_kept(outputs):
    assert readable_outputs(json.dumps(outputs)) == outputs


def test_a_notebook_keeps_so_many_values_and_no_more(monkeypatch):
    monkeypatch.setattr(student_process, "SUBMISSION_OUTPUT_VALUES", 100)
    cells = [nbformat.v4.new_code_cell(f"print({number})") for number in range(20)]
    run = NotebookRun(nbformat.v4.new_notebook(cells=cells), None)
    try:
        outputs = run.run_cells().outputs
    finally:
        run.close()
    assert outputs[0][0]["text"] == "0\n"
    assert outputs[19][0]["text"] == f"{TOO_MANY_VALUES}\n"


def test_a_check_whose_cases_did_not_all_run_has_not_passed():
    check = CollectedCheck("test_x", "x", 2.0, "", ())
    assert Check(cases=2, cases_passed=1).result(check).outcome == "failed"
    assert Check(cases=2, cases_passed=2).result(check).earned == 2.0


def cube(x):
    return x**3


class FrozenGradient(torch.autograd.Function):
    """x cubed, whose gradient is right and does not depend on x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.detach())
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (3 * ctx.saved_tensors[0] ** 2).detach()


def check_double(function, *arguments, gradient_of=(0,)):
    student = Student(DirectCaller({"f": function}), torch.Generator().manual_seed(0))
    reference = cube if len(arguments) == 1 else (lambda x, y: x * y**2)
    student.check(
        "f", reference, *arguments, tolerance=TOLERANCE, gradient_of=gradient_of, double=True
    )
    return student.calls


def test_double_gradients_are_compared():
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    check_double(lambda x: x * x * x, x)
    with pytest.raises(CheckFailedError, match="double gradient"):
        check_double(FrozenGradient.apply, x)


def test_double_gradients_of_several_arguments_are_summed_over_directions():
    x, y = torch.tensor([[3.0], [5.0]], dtype=torch.float64)
    calls = check_double(lambda x, y: x * y * y, x, y, gradient_of=(0, 1))
    _, call = calls
    u, v = call.directions
    c = call.cotangent
    by_x, by_y = call.reply.double_gradients
    torch.testing.assert_close(by_x, 2 * y * v * c)
    torch.testing.assert_close(by_y, (2 * y * u + 2 * x * v) * c)


def test_double_gradients_come_from_the_students_process(toy, toy_notebook):
    checks = toy.checks / "test_square.py"
    checks.write_text(
        checks.read_text().replace("gradient_of=(0,)", "gradient_of=(0,), double=True")
    )
    frozen = (
        "class Square(torch.autograd.Function):\n"
        "    @staticmethod\n"
        "    def forward(ctx, x):\n        ctx.save_for_backward(x)\n        return x * x\n"
        "    @staticmethod\n"
        "    def backward(ctx, g):\n        return g * 2 * ctx.saved_tensors[0].detach()\n"
        "square = Square.apply"
    )
    right = grade_notebook(toy_notebook("def square(x):\n    return x * x"), toy)
    wrong = grade_notebook(toy_notebook(frozen), toy)
    assert right.cells["test_square"].earned == 3
    values, empty = wrong.cells["test_square"].checks
    assert (values.outcome, empty.outcome) == ("failed", "passed")
    assert "double gradient" in values.message


def test_a_detached_gradient_has_no_double_gradient(toy):
    cell = judge(toy, {"square": lambda x: x.detach() ** 2})["test_square"]
    assert "No gradient flows" in cell.checks[0].message


def test_the_memory_search_of_the_attacks_finds_what_is_there():
    source = (
        PREAMBLE + "\nkept = bytes([104, 97, 121]) + b'stack-' + bytes([110, 101, 101, 100])\n"
        "found_in_memory(b'ha[y]stack-ne[e]d'), found_in_memory(b'ha[y]stack-hi[d]den')"
    )
    run = NotebookRun(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), None)
    try:
        outputs = run.run_cells().outputs[0]
    finally:
        run.close()
    assert outputs[0]["data"]["text/plain"] == "(True, False)"


@pytest.mark.parametrize("place", ["a folder", "memory"])
def test_only_so_many_files_are_handed_over(tmp_path, place):
    names = [f"{number}.txt" for number in range(MAX_FILES + 5)]
    for name in names if place == "a folder" else ():
        (tmp_path / name).touch()
    files, left_out = files_of(
        tmp_path if place == "a folder" else dict.fromkeys(names, b""), Limits()
    )
    assert len(files) == MAX_FILES
    assert len(left_out) == 1
    assert str(MAX_FILES) in left_out[0]


def test_a_folder_of_any_depth_is_read(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1_200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        assert files_of(tmp_path, Limits()) == ([], [])
    finally:
        # too deep for Python's own way of removing folders
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


@pytest.mark.parametrize("place", ["a folder", "memory"])
def test_a_file_too_large_for_the_submission_is_left_out_and_named(tmp_path, place):
    given = {"small.txt": b"kept", "data/large.bin": bytes(2_000)}
    for name, content in given.items() if place == "a folder" else ():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    files, left_out = files_of(tmp_path if place == "a folder" else given, Limits(file_size=1_000))
    assert files == [("small.txt", b"kept")]
    words = "The file 'data/large.bin' was left out: it has 2000 bytes, more than the 1000 allowed."
    assert left_out == [words]
