import os
import shutil
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from autograder.assignment import Assignment
from autograder.bank import load_bank
from autograder.checking import BrokenCheckError, CheckFailedError, Tolerance, collected, judge
from autograder.checking.cache import ResultCache
from autograder.checking.cell_judge import seeded_generator
from autograder.checking.compare import compare_inputs, compare_values
from autograder.checking.judge import judge_cell
from autograder.checking.student import DirectCaller, expected_outcome

EXACT = Tolerance(0.0)


@pytest.mark.parametrize(
    ("value", "expected", "message"),
    [
        (1.0, torch.ones(()), "a float; expected a torch tensor"),
        (None, torch.ones(()), "None; expected a torch tensor"),
        (torch.ones(2), torch.ones(3), r"shape \(2,\); expected \(3,\)"),
        (torch.ones(3, 1), torch.ones(3), r"shape \(3, 1\)"),
        (torch.ones(2).double(), torch.ones(2), "torch.float64; expected torch.float32"),
        (torch.tensor([float("nan")]), torch.ones(1), "NaN where"),
        (torch.tensor([float("inf")]), torch.ones(1), "infinity where"),
        (torch.tensor([1.0]), torch.tensor([float("inf")]), "wrong values"),
        (torch.tensor([0.5]), torch.ones(1), "more than 1 %"),
        (torch.tensor([1.0001]), torch.ones(1), "close, but not"),
        (2.0, 1.0, "wrong number"),
        (1.0 + 1e-9, 1.0, "wrong number"),
        (1e200, 1e300, "wrong number"),
        (True, 1.0, "a bool; expected a number"),
        ([1.0], [1.0, 2.0], "expected 2 values"),
        ([1.0, 3.0], [1.0, 2.0], "wrong number"),
        (False, True, "wrong bool"),
    ],
)
def test_each_difference_has_its_own_words(value, expected, message):
    with pytest.raises(CheckFailedError, match=message):
        compare_values("f", value, expected, EXACT)


def test_equal_values_pass_and_nan_belongs_where_nan_is_expected():
    nan = torch.tensor([float("nan"), 1.0, float("-inf")])
    compare_values("f", nan.clone(), nan, EXACT)
    compare_values("f", [1, 2.0], (1.0, 2.0), EXACT)


def test_a_changed_input_is_found_by_its_position():
    with pytest.raises(CheckFailedError, match="changed argument 2"):
        compare_inputs("f", [torch.ones(1), torch.zeros(1)], [torch.ones(1), torch.ones(1)])


def test_the_words_hold_no_expected_value():
    with pytest.raises(CheckFailedError) as caught:
        compare_values("f", torch.tensor([1.0]), torch.tensor([7.25]), EXACT)
    assert "7.25" not in str(caught.value)


def test_the_bank_is_judged_in_this_process(toy):
    bank = load_bank(toy)
    for entry in bank.misconceptions:
        cell = judge(toy, {"square": entry.implementation})["test_square"]
        assert cell.earned < cell.points
        assert [finding.name for finding in cell.findings] == [entry.name]
    for entry in bank.equivalents:
        cell = judge(toy, {"square": entry.implementation})["test_square"]
        assert cell.earned == cell.points


def test_a_bank_entry_is_pasted_under_the_functions_name(toy):
    entry = load_bank(toy).misconceptions[0]
    assert entry.source == "def square(x):\n    return 2 * x\n"


def test_random_inputs_depend_on_the_class_seed_and_the_case():
    def draw(seed, name):
        return float(torch.rand((), generator=seeded_generator(seed, name)))

    assert draw("a", "x") == draw("a", "x")
    assert len({draw("a", "x"), draw("b", "x"), draw("a", "y")}) == 3


DRAWS = """
import pytest


def draw(student, generator, name):
    student.call(name, generator.initial_seed())


@pytest.mark.points(1)
@pytest.mark.parametrize("size", [1, 2])
def test_values(student, generator, size):
    \"\"\"Draws.\"\"\"
    draw(student, generator, "NAME")


class TestOther:
    @pytest.mark.points(1)
    @pytest.mark.parametrize("size", [1, 2])
    def test_values(self, student, generator, size):
        \"\"\"Draws.\"\"\"
        draw(student, generator, "NAME")
"""


def test_no_two_cases_draw_the_same(toy):
    """Bug: checks of one name in two files or classes drew the same numbers."""
    drawn = []
    for name in ("square", "cube"):
        (toy.checks / f"test_{name}.py").write_text(DRAWS.replace("NAME", name))
        judge(toy, {name: drawn.append})
    assert len(set(drawn)) == len(drawn) == 8


PARAMETERS = """
import pytest

@pytest.fixture
def doubled(request):
    return 2 * request.param

@pytest.fixture
def next_one(plain):
    return plain + 1

@pytest.fixture(params=[100])
def own(request):
    return request.param

@pytest.mark.points(1)
@pytest.mark.parametrize("doubled", [10, 20], indirect=True)
@pytest.mark.parametrize(("plain", "other"), [(1, "a"), (2, "b")])
def test_parameters(student, doubled, plain, other, next_one, own):
    \"\"\"Tells what it was given.\"\"\"
    student.call("square", [doubled, plain, other, next_one, own])
"""


def test_a_check_gets_its_parameters_and_what_fixtures_make_of_them(toy):
    (toy.checks / "test_square.py").write_text(PARAMETERS)
    given = []
    for _ in range(2):
        judge(toy, {"square": given.append})
    cases = [[20, 1, "a", 2, 100], [40, 1, "a", 2, 100], [20, 2, "b", 3, 100], [40, 2, "b", 3, 100]]
    assert sorted(given) == sorted(2 * cases)


BROKEN = {
    "syntax error": "def test_values(student:",
    "failing import": "import no_such_module",
    "no checks": "x = 1",
    "no points": 'def test_values(student):\n    """Reads well."""',
    "no docstring": ("import pytest\n@pytest.mark.points(1)\ndef test_values(student):\n    pass"),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_check_file_is_the_instructors_error(toy, text):
    (toy.checks / "test_broken.py").write_text(text)
    with pytest.raises(BrokenCheckError, match=r"test_broken|test_values"):
        judge_cell(toy, "test_broken", lambda: DirectCaller({}))


def test_a_check_that_trips_over_a_result_is_told_to_the_instructor(toy):
    (toy.checks / "test_square.py").write_text(
        "import pytest\n\n@pytest.mark.points(1)\ndef test_values(student):\n"
        '    """Reads well."""\n    student.call("square", 2.0).value[5]\n'
    )
    cell = judge(toy, {"square": lambda x: x})["test_square"]
    assert cell.earned == 0
    assert "TypeError" in cell.note
    assert "TypeError" not in cell.checks[0].message


USES_PYTEST = '''
import numpy as np
import pytest

@pytest.fixture(scope="module")
def seen():
    return []

@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("session")

@pytest.mark.points(1)
@pytest.mark.parametrize("name", ["a", "b"])
def test_fixtures(student, seen, folder, tmp_path, monkeypatch, name):
    """Reads well."""
    monkeypatch.setenv("LEFT_BEHIND", name)
    for place in (folder, tmp_path):
        assert not list(place.iterdir())
        (place / "file").touch()
    seen.append(name)
    assert seen == [name]
    student.call("square", 2.0)
'''


def test_fixtures_of_every_scope_are_set_up_anew(toy):
    (toy.checks / "test_square.py").write_text(USES_PYTEST)
    for _ in range(2):
        cell = judge(toy, {"square": lambda x: x})["test_square"]
        assert cell.earned == 1, cell
    assert "LEFT_BEHIND" not in os.environ


def test_a_check_file_that_was_edited_is_collected_anew(toy):
    path = toy.checks / "test_square.py"
    square = {"square": lambda x: x * x}
    assert judge(toy, square)["test_square"].points == 3
    path.write_text(path.read_text().replace("points(2)", "points(5)"))
    assert judge(toy, square)["test_square"].points == 6


def test_the_conftest_beside_a_check_file_is_read_anew_when_it_was_edited(toy):
    conftest = toy.checks / "conftest.py"
    (toy.checks / "test_square.py").write_text(
        "import pytest\n\n@pytest.mark.points(1)\ndef test_values(number):\n"
        '    """Reads well."""\n    assert number == 2\n'
    )
    for number in (1, 2):
        conftest.write_text(f"import pytest\n\n@pytest.fixture\ndef number():\n    return {number}")
        os.utime(conftest, (number, number))
        assert judge(toy, {"square": None})["test_square"].earned == number - 1


def test_a_file_beside_the_checks_that_was_edited_is_read_anew(toy):
    """Bug: a process that lives long, such as formgrader's, judged by the data of before."""
    (toy.checks / "test_square.py").write_text(
        "import pytest\nfrom pathlib import Path\n"
        "EXPECTED = Path(__file__).with_name('expected.txt').read_text()\n\n"
        "@pytest.mark.points(1)\ndef test_values():\n"
        '    """Reads well."""\n    assert EXPECTED == "2"\n'
    )
    for number in (1, 2):
        data = toy.checks / "expected.txt"
        data.write_text(str(number))
        os.utime(data, (number, number))
        assert judge(toy, {"square": None})["test_square"].earned == number - 1


def test_only_so_many_check_files_are_kept(toy, monkeypatch):
    monkeypatch.setattr(collected, "MAX_COLLECTED", 2)
    for name in ("one", "two", "three", "one"):
        shutil.copy(toy.checks / "test_square.py", toy.checks / f"test_{name}.py")
        os.utime(toy.checks / f"test_{name}.py", (1, 1))
        assert judge_cell(toy, f"test_{name}", lambda: DirectCaller({})).points == 3
        assert len(collected._collected) <= 2


@pytest.mark.parametrize("name", ["a [class]", "a::class"])
def test_checks_are_found_whatever_the_folder_above_is_called(toy, tmp_path, name):
    root = toy.root.rename(tmp_path / name)
    moved = Assignment("toy", root)
    checks = collected.collected_checks(moved, moved.checks / "test_square.py").checks
    assert [check.points for check in checks] == [2, 1]


def test_checks_of_one_name_in_two_classes_are_two_checks(toy):
    """Bug: they were one, which earned the points of the first alone."""
    text = """
import pytest
import torch
from autograder.checking import Tolerance


class TestPositive:
    @pytest.mark.points(2)
    def test_value(self, student):
        \"\"\"The square of 3.\"\"\"
        student.check("square", lambda x: x * x, torch.tensor(3.0), tolerance=Tolerance(1e-6))


class TestNegative:
    @pytest.mark.points(5)
    def test_value(self, student):
        \"\"\"The square of -3.\"\"\"
        student.check("square", lambda x: x * x, torch.tensor(-3.0), tolerance=Tolerance(1e-6))
"""
    (toy.checks / "test_square.py").write_text(text)
    cell = judge(toy, {"square": lambda x: x * x.abs()})["test_square"]
    assert (cell.earned, cell.points) == (2, 7)


def test_a_bank_that_was_edited_is_read_anew(toy):
    assert len(load_bank(toy).misconceptions) == 4
    path = toy.bank / "square.py"
    path.write_text(path.read_text().replace("@equivalent", '@misconception("x", see="y")'))
    assert len(load_bank(toy).misconceptions) == 5


def test_a_check_cannot_end_the_grading(toy):
    (toy.checks / "test_square.py").write_text(
        "import pytest\n\n@pytest.mark.points(1)\ndef test_values(student):\n"
        '    """Reads well."""\n    pytest.exit("enough")\n'
    )
    with pytest.raises(BrokenCheckError, match=r"pytest\.exit"):
        judge(toy, {"square": lambda x: x})


@pytest.mark.parametrize(
    ("mark", "body"),
    [
        ("", '    pytest.{}("no device")\n'),
        ('@pytest.mark.{}if(True, reason="no device")\n', "    pass\n"),
    ],
)
def test_a_check_that_is_skipped_stops_the_class_and_costs_no_points(toy, mark, body):
    (toy.checks / "test_square.py").write_text(
        f"import pytest\n\n{mark}@pytest.mark.points(1)\ndef test_values(student):\n"
        f'    """Reads well."""\n{body}'.format("skip")
    )
    with pytest.raises(BrokenCheckError, match=r"test_values was skipped \(.*no device"):
        judge(toy, {"square": lambda x: x})


def test_a_misconception_is_recognised_by_a_check_that_changes_its_inputs_in_place(toy):
    text = """
import pytest
import torch
from autograder.checking import Tolerance


@pytest.mark.points(1)
def test_two_points(student):
    \"\"\"The values at two points.\"\"\"
    x = torch.full((3,), 2.0)
    for _ in range(2):
        student.check("square", lambda x: x * x, x, tolerance=Tolerance(1e-6))
        x += 1
"""
    (toy.checks / "test_square.py").write_text(text)
    found = judge(toy, {"square": times(2)})["test_square"].findings
    assert [finding.name for finding in found] == ["doubled"]


def times(by):
    return lambda x: x * by


def counted(calls):
    def reference(x):
        calls.append(1)
        return x * len(calls)

    return reference


def test_a_reference_is_computed_once_for_the_same_arguments():
    calls = []
    reference = counted(calls)
    x = torch.ones(2)
    for argument, count in ((x, 1), (x.clone(), 1), (2 * x, 2), (x.double(), 3)):
        expected_outcome(reference, [argument])
        assert len(calls) == count
    expected_outcome(reference, [x], (0,), torch.ones(2))
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([lambda x, by=by: x * by for by in (1, 2)]),
        ([partial(torch.mul, other=by) for by in (1, 2)]),
        ([times(by) for by in (1, 2)]),
    ],
    ids=["default", "partial", "closure"],
)
def test_references_that_differ_in_what_they_hold_are_told_apart(one, other):
    x = torch.ones(2)
    assert not torch.equal(expected_outcome(one, [x]).value, expected_outcome(other, [x]).value)


def test_a_reference_is_computed_anew_when_a_constant_of_its_file_was_edited(toy):
    file = toy.checks / "test_square.py"
    scaled = file.read_text().replace("lambda x: x * x", "lambda x: x * SCALE")
    for scale in (2, 3):
        file.write_text(f"{scaled}\n\nSCALE = {scale}\n")
        assert judge(toy, {"square": times(scale)})["test_square"].earned == 3


def test_an_argument_that_bytes_do_not_tell_is_never_looked_up():
    calls = []
    for _ in range(2):
        expected_outcome(lambda x: calls.append(1), [object()])
    assert len(calls) == 2


def test_the_results_that_are_kept_are_bounded():
    cache = ResultCache(max_bytes=100_000)
    for number in range(100):
        cache.get(("f", bytes([number])), lambda: torch.ones(100))
    assert cache.bytes <= 100_000
    assert 5 <= len(cache.results) < 15
    assert cache.get(("f", bytes([99])), lambda: None) is not None
    assert cache.get(("f", bytes([0])), lambda: None) is None


@pytest.mark.parametrize(
    "large",
    [
        np.zeros(10**6),
        "x" * 10**6,
        b"x" * 10**6,
        [torch.zeros(0)] * 1_000,
        [1.5] * 10**5,
        {str(number): number for number in range(10_000)},
    ],
    ids=["array", "text", "bytes", "empty tensors", "numbers", "dictionary"],
)
def test_a_large_result_of_any_kind_counts_and_drives_out_no_other(large):
    """Bug: what was neither a tensor nor bytes counted as nothing, and was kept for good."""
    cache = ResultCache(max_bytes=1_000_000)
    cache.keep(("small", b""), torch.ones(1))
    before = cache.bytes
    cache.keep(("large", b""), SimpleNamespace(value=large))
    assert cache.find(("large", b"")) is None
    assert cache.find(("small", b"")) is not None
    assert cache.bytes == before


def test_checks_run_by_hand_against_a_named_notebook(toy, toy_notebook):
    for source, status in (("return x * x", 0), ("return 2 * x", 1)):
        path = toy.root / "mine.ipynb"
        nbformat.write(toy_notebook(f"def square(x):\n    {source}"), path)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "autograder.checking.plugin"]
        command += ["--rootdir", str(toy.root), "--submission", str(path), str(toy.checks)]
        done = subprocess.run(command, cwd=toy.root, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        assert "3 passed" in done.stdout or "2 failed, 1 passed" in done.stdout
