"""Equal replies are judged once, and nothing else is taken for equal."""

import pytest
import torch

from autograder.checking import StudentStoppedError, known_cases
from autograder.checking.cache import ResultCache
from autograder.checking.judge import judge_cell
from autograder.rehearsal import TrustedCaller

CHECKS = '''
import pytest
import torch
from pathlib import Path
from autograder.checking import Tolerance

# what lies beside the checks has them collected anew when it changes
RUNS = Path(__file__).parents[1] / "runs.txt"


@pytest.mark.points(2)
def test_two_calls(student, generator):
    """The values at two points."""
    with RUNS.open("a") as file:
        file.write("two\\n")
    x = torch.randn(3, generator=generator)
    for argument in (x, x + 1):
        student.check("square", lambda x: x * x, argument, tolerance=Tolerance(1e-6))


@pytest.mark.points(1)
def test_one_call(student):
    """The value at 3."""
    with RUNS.open("a") as file:
        file.write("one\\n")
    student.check("square", lambda x: x * x, torch.tensor(3.0), tolerance=Tolerance(1e-6))
'''


class Functions(TrustedCaller):
    """Answers as a student's process does, in this process, and counts the requests."""

    def __init__(self, square, stops=False):
        super().__init__({"square": square})
        self.stops = stops
        self.requests = 0

    def exchange(self, function, request):
        self.requests += 1
        if self.stops:
            raise StudentStoppedError("The process ended.")
        return super().exchange(function, request)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(known_cases, "_known", ResultCache())
    monkeypatch.setattr(known_cases, "_unrepeatable", set())


@pytest.fixture
def course(toy):
    (toy.checks / "test_square.py").write_text(CHECKS)
    return toy


def verdict_on(course, functions, class_seed="seed"):
    return judge_cell(course, "test_square", lambda: functions, class_seed=class_seed)


def runs(course):
    return (course.checks.parent / "runs.txt").read_text().split()


def test_equal_replies_are_judged_once(course):
    for square in (lambda x: x * x, lambda x: 2 * x, lambda x: [][0]):
        first, again = Functions(square), Functions(square)
        verdict = verdict_on(course, first)
        before = runs(course)
        assert verdict_on(course, again) == verdict
        assert runs(course) == before
        assert again.requests == first.requests


def test_the_misconception_is_named_from_known_replies_too(course):
    names = [
        [finding.name for finding in verdict_on(course, Functions(lambda x: 2 * x)).findings]
        for _ in range(2)
    ]
    assert names[0] == names[1] == ["doubled"]


def test_a_check_that_cannot_be_carried_out_names_no_misconception(course):
    """Bug: a right function agreed with a misconception that differs in its gradient alone."""
    words = '"""The value at 3."""'
    broken = CHECKS.replace(words, f'{words}\n    raise OSError("no such file")')
    (course.checks / "test_square.py").write_text(broken)
    verdict = verdict_on(course, Functions(lambda x: x * x))
    assert [check.outcome for check in verdict.checks] == ["passed", "failed"]
    assert verdict.note == "test_one_call: the check itself raised OSError: no such file"
    assert not verdict.findings


def test_another_reply_has_the_check_run_again(course):
    assert verdict_on(course, Functions(lambda x: x * x)).earned == 3
    assert verdict_on(course, Functions(lambda x: x * x + (x == 3))).earned == 2
    assert runs(course).count("two") == 1
    # in the shared process, and then in one of its own
    assert runs(course).count("one") == 2


def test_a_reply_that_is_there_is_not_asked_for_again(course):
    seen = []

    def wrong_the_second_time(x):
        seen.append(x)
        return x * x if len(seen) == 1 else x

    assert verdict_on(course, Functions(lambda x: x * x)).earned == 3
    functions = Functions(wrong_the_second_time)
    assert verdict_on(course, functions).checks[0].outcome == "failed"
    # the second check's one call is made in two processes
    assert functions.requests == 2 + 1 + 1


@pytest.mark.parametrize("change", ["class seed", "check file"])
def test_nothing_is_known_of_other_inputs_or_checks(course, change):
    verdict_on(course, Functions(lambda x: x * x))
    if change == "check file":
        (course.checks / "test_square.py").write_text(CHECKS.replace("tensor(3.0)", "tensor(4.0)"))
    class_seed = "another" if change == "class seed" else "seed"
    verdict_on(course, Functions(lambda x: x * x), class_seed)
    assert runs(course).count("two") == 2


def test_a_stopped_process_is_not_remembered(course):
    stopped = verdict_on(course, Functions(lambda x: x * x, stops=True))
    assert [check.outcome for check in stopped.checks] == ["stopped", "stopped"]
    assert verdict_on(course, Functions(lambda x: x * x)).earned == 3
    stopped = verdict_on(course, Functions(lambda x: x * x, stops=True))
    assert [check.outcome for check in stopped.checks] == ["stopped", "stopped"]
    assert verdict_on(course, Functions(lambda x: x * x)).earned == 3


class AnswersOnce(Functions):
    """Squares a vector, doubles a number, and ends at a process's second request."""

    def __init__(self):
        super().__init__(lambda x: x * x if x.dim() else 2 * x)

    def exchange(self, function, request):
        reply = super().exchange(function, request)
        self.stops = True
        return reply

    def close(self):
        self.stops = False


def test_what_a_stopped_process_did_before_counts_whoever_was_judged_before(course):
    first = verdict_on(course, AnswersOnce())
    assert [check.outcome for check in first.checks] == ["stopped", "failed"]
    assert not first.findings
    verdict_on(course, Functions(lambda x: x * x))
    assert verdict_on(course, AnswersOnce()) == first


def test_a_check_that_asks_something_else_each_time_is_run_each_time(course):
    drawn = CHECKS.replace("torch.randn(3, generator=generator)", "torch.rand(3)")
    (course.checks / "test_square.py").write_text(drawn)
    for _ in range(3):
        assert verdict_on(course, Functions(lambda x: x * x)).earned == 3
        assert verdict_on(course, Functions(lambda x: x.abs() * x.abs() + 1)).earned == 0
    assert len(known_cases._unrepeatable) == 1
    assert runs(course).count("two") >= 6


def test_replies_that_differ_in_one_bit_are_told_apart(course):
    verdict_on(course, Functions(lambda x: x * x))
    before = len(runs(course))
    verdict_on(course, Functions(lambda x: torch.nextafter(x * x, x * x + 1)))
    assert len(runs(course)) > before


EXPECTS_A_FAILURE = '''
import pytest
import torch
from autograder.checking import CheckFailedError


@pytest.mark.points(1)
def test_refuses(student):
    """A number below zero is refused."""
    with pytest.raises(CheckFailedError):
        student.call("square", torch.tensor(-1.0))


@pytest.mark.points(2)
def test_gives_something(student):
    """Zero gives a value."""
    try:
        student.call("square", torch.tensor(0.0))
    except CheckFailedError:
        assert False
'''


def refuses(x):
    if x < 0:
        raise ValueError
    return x * x


def test_a_process_that_stops_is_no_failure_that_a_check_expects(course):
    """Bug: what such a check made of it was remembered, and decided on all who came later."""
    (course.checks / "test_square.py").write_text(EXPECTS_A_FAILURE)
    stopped = verdict_on(course, Functions(refuses, stops=True))
    assert [check.outcome for check in stopped.checks] == ["stopped", "stopped"]
    assert [check.message for check in stopped.checks] == ["The process ended."] * 2
    assert verdict_on(course, Functions(refuses)).earned == 3
    assert verdict_on(course, Functions(lambda x: x * x)).earned == 2


ASKS_ANEW = '''
import pytest
import torch

asked = [1.0]


@pytest.mark.points(3)
def test_square(student):
    """Another number each time, and then 2."""
    asked[0] += 1
    for number in (asked[0], 2.0):
        try:
            student.call("square", torch.tensor(number))
        except RuntimeError:
            pass
'''


def test_a_case_that_asks_something_else_is_noticed_though_it_makes_nothing_of_it(course):
    (course.checks / "test_square.py").write_text(ASKS_ANEW)
    assert verdict_on(course, Functions(lambda x: x * x)).earned == 3
    assert not known_cases._unrepeatable
    assert verdict_on(course, Functions(lambda x: x + 5)).earned == 3
    assert known_cases._unrepeatable


def test_a_settled_function_that_raises_after_other_calls_is_tried_alone(course):
    """Bug: memory that earlier calls had left made a right function raise, and lose its points."""
    callers = []

    def caller_of_short_breath():
        calls = []

        def square(x):
            calls.append(x)
            if len(calls) > 2:
                raise MemoryError
            return x * x

        callers.append(Functions(square))
        return callers[-1]

    verdict = judge_cell(
        course, "test_square", caller_of_short_breath, class_seed="seed", settled=True
    )
    assert verdict.earned == 3
    assert len(callers) == 2


def test_a_settled_function_that_is_wrong_is_not_tried_again(course):
    callers = []

    def caller():
        callers.append(Functions(lambda x: x * x + (x == 3)))
        return callers[-1]

    verdict = judge_cell(course, "test_square", caller, class_seed="seed", settled=True)
    assert verdict.earned == 2
    assert len(callers) == 1
