import platform
import re
import signal
from pathlib import Path

import nbformat
import pytest

from autograder.bank import load_bank
from autograder.engine import Limits, NotebookRun, grade_notebook, often_used
from autograder.student_process import StudentProcess, WarmProcess, WarmProcessEndedError

QUICK = Limits(cell_seconds=2, call_seconds=1)
RIGHT = "def square(x):\n    return x * x"
# what is no plain function of its arguments could remember earlier calls
NOT_SETTLED = "import os\n"


def grade(toy, notebook):
    verdict = grade_notebook(notebook, toy, limits=QUICK)
    return verdict, verdict.cells["test_square"]


def outputs_of(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    run = NotebookRun(nbformat.v4.new_notebook(cells=cells), None, limits=QUICK)
    try:
        return run.run_cells()
    finally:
        run.close()


def test_a_right_solution_earns_all_points(toy, toy_notebook):
    verdict, cell = grade(toy, toy_notebook(RIGHT))
    assert (cell.earned, cell.points) == (3, 3)
    assert verdict.incidents == []
    assert cell.findings == ()


def test_each_misconception_is_named_and_loses_points(toy, toy_notebook):
    for entry in load_bank(toy).misconceptions:
        _, cell = grade(toy, toy_notebook(entry.source))
        assert cell.earned < cell.points, entry.name
        assert [finding.name for finding in cell.findings] == [entry.name]


def test_the_snapshot_is_taken_at_the_grade_cell(toy, toy_notebook):
    later = "def square(x):\n    return x * x"
    _, cell = grade(toy, toy_notebook("def square(x):\n    return 2 * x", later))
    assert cell.earned < cell.points


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("while True: pass", "did not return within 1 seconds"),
        ("import os; os._exit(0)", "process ended"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "process ended"),
        ("return bytearray(10**12)", "raised MemoryError"),
        ("return [f() for f in [lambda: square(x)]]", "raised RecursionError"),
        ("raise SystemExit", "raised SystemExit"),
    ],
)
def test_what_breaks_in_one_check_costs_that_check(toy, toy_notebook, body, message):
    source = f"def square(x):\n    if x.numel() == 0:\n        {body}\n    return x * x"
    _, cell = grade(toy, toy_notebook(source))
    values, empty = cell.checks
    assert values.outcome == "passed"
    assert empty.outcome != "passed"
    assert message in empty.message
    assert cell.earned == 2


COUNTING = "calls = []\ndef square(x):\n    calls.append(1)\n"


def test_what_a_passing_check_leaves_behind_costs_no_later_check(toy, toy_notebook):
    # one call in the grade cell, and two for each of the first check's two dtypes
    source = COUNTING + "    return x * x if len(calls) <= 5 else None"
    _, cell = grade(toy, toy_notebook(source))
    assert [check.outcome for check in cell.checks] == ["passed", "passed"]


def test_what_a_failing_check_leaves_behind_earns_no_later_check(toy, toy_notebook):
    source = COUNTING + "    return None if len(calls) <= 5 else x * x"
    _, cell = grade(toy, toy_notebook(source))
    assert [check.outcome for check in cell.checks] == ["failed", "failed"]


ONE_FOR_NOTHING = """
import torch
from autograder.bank import misconception


@misconception("taking the square of nothing for one", see="toy#empty")
def one_for_nothing(x):
    return x * x if x.numel() else torch.ones(1)
"""


def test_what_a_check_saw_before_it_is_judged_again_is_forgotten(toy, toy_notebook):
    (toy.bank / "square.py").write_text(ONE_FOR_NOTHING)
    # in a process of its own the second check makes the second call, after that of the grade cell
    source = COUNTING + (
        "    if x.numel():\n        return x * x\n"
        "    return torch.ones(1) if len(calls) == 2 else torch.zeros(7)\n"
    )
    _, cell = grade(toy, toy_notebook(source))
    assert [check.outcome for check in cell.checks] == ["passed", "failed"]
    assert [finding.name for finding in cell.findings] == ["one_for_nothing"]


def test_checks_share_a_process_for_as_long_as_they_pass(toy, toy_notebook, monkeypatch):
    taken = []
    caller_at = StudentProcess.caller_at
    monkeypatch.setattr(
        StudentProcess, "caller_at", lambda *given: taken.append(1) or caller_at(*given)
    )
    grade(toy, toy_notebook(RIGHT))
    assert len(taken) == 1
    # the second check passes: twice nothing is nothing
    grade(toy, toy_notebook(f"{NOT_SETTLED}def square(x):\n    return 2 * x"))
    assert len(taken) == 1 + 2


FOUR_CHECKS = '''
import pytest
import torch
from autograder.checking import Tolerance


@pytest.mark.points(1)
@pytest.mark.parametrize("value", [1.0])
def test_{0}(student, value):
    """The square of one."""
    student.check("square", lambda x: x * x, torch.tensor({1}), tolerance=Tolerance(1e-6))
'''


@pytest.fixture
def processes(toy, monkeypatch):
    """Four checks of the toy's function, and a list that grows with each process they take."""
    checks = "".join(FOUR_CHECKS.format(name, name) for name in "1234")
    (toy.checks / "test_square.py").write_text(
        checks.replace("torch.tensor(", "torch.tensor(1.0 * ")
    )
    taken = []
    caller_at = StudentProcess.caller_at
    monkeypatch.setattr(
        StudentProcess, "caller_at", lambda *given: taken.append(1) or caller_at(*given)
    )
    return taken


def outcomes(toy, notebook):
    _, cell = grade(toy, notebook)
    return [check.outcome for check in cell.checks]


def test_what_follows_a_check_that_fails_takes_one_more_process(toy, toy_notebook, processes):
    source = "def square(x):\n    return x if x in (2, 3) else x * x"
    expected = ["passed", "failed", "failed", "passed"]
    assert outcomes(toy, toy_notebook(NOT_SETTLED + source)) == expected
    assert len(processes) == 2
    assert outcomes(toy, toy_notebook(source)) == expected
    assert len(processes) == 2 + 1


DOUBLED = """
from autograder.bank import misconception


@misconception("doubling in place of squaring", see="toy#doubled")
def doubled(x):
    return 2 * x
"""


@pytest.mark.parametrize(("at_five", "named"), [("2 * x", ["doubled"]), ("0 * x", [])])
def test_a_misconception_agrees_in_every_case_of_what_is_judged_again(
    toy, toy_notebook, processes, at_five, named
):
    values = iter(["[2.0]", "[3.0, 5.0]", "[7.0]"])
    checks = "".join(FOUR_CHECKS.format(name, "value") for name in "237")
    (toy.checks / "test_square.py").write_text(re.sub(r"\[1\.0\]", lambda _: next(values), checks))
    (toy.bank / "square.py").write_text(DOUBLED)
    source = f"{NOT_SETTLED}def square(x):\n    return {at_five} if x.sum() == 5 else 2 * x"
    _, cell = grade(toy, toy_notebook(source))
    assert [check.outcome for check in cell.checks] == ["passed", "failed", "failed"]
    assert [finding.name for finding in cell.findings] == named
    assert len(processes) == 2


def test_checks_that_depend_on_earlier_calls_get_a_process_each(toy, toy_notebook, processes):
    source = (
        "seen = []\n"
        "def square(x):\n"
        "    seen.append(x.sum())\n"
        "    return x * x if x.sum() == 1 or x.sum() == 4 and 2 in seen[-3:-1] else x * 0\n"
    )
    notebook = toy_notebook(source)
    notebook.cells[2].source = ""
    assert outcomes(toy, notebook) == ["passed", "failed", "failed", "failed"]
    # all four; the last three, the fourth first, which fails there; the others by themselves
    assert len(processes) == 1 + 1 + 2


def test_a_check_that_ends_its_process_is_judged_by_itself(toy, toy_notebook, processes):
    notebook = toy_notebook(
        "import os\ndef square(x):\n    return os._exit(1) if x == 2 else x * x"
    )
    assert outcomes(toy, notebook) == ["passed", "stopped", "passed", "passed"]
    # the first two; the second; the last two
    assert len(processes) == 3


def test_only_modules_that_locked_cells_use_are_loaded_beforehand():
    def cell(source, locked):
        return nbformat.v4.new_code_cell(source, metadata={"nbgrader": {"locked": locked}})

    cells = [cell("import torch\nfrom sklearn.datasets import load_digits", True)]
    cells += [cell("import pandas", False), cell("import pandasql  # not pandas", True)]
    cells += [cell("step = torch.optim.SGD(weights, 0.1)", True)]
    assert often_used(cells) == {"sklearn.datasets", "torch._dynamo"}


def test_how_the_warm_process_was_started_does_not_show_in_the_environment():
    verdict = outputs_of("import os\n'PYTHONMALLOC' in os.environ")
    assert verdict.outputs[0][0]["data"]["text/plain"] == "False"


def test_sets_of_text_have_the_same_order_wherever_a_notebook_is_graded():
    verdict = outputs_of("import sys\nsys.flags.hash_randomization")
    assert verdict.outputs[0][0]["data"]["text/plain"] == "0"


def test_garbage_is_collected_in_a_submission():
    verdict = outputs_of("import gc\ngc.isenabled()")
    assert verdict.outputs[0][0]["data"]["text/plain"] == "True"


def test_a_submission_holds_no_connection_but_its_own():
    """With that of the server it could take what is meant for another's warm process."""
    source = (
        "import os, stat\n"
        "numbers = [n for n in range(3, 1000) if os.path.exists(f'/proc/self/fd/{n}')]\n"
        "sum(stat.S_ISSOCK(os.fstat(n).st_mode) for n in numbers)"
    )
    verdict = outputs_of(source)
    assert verdict.outputs[0][0]["data"]["text/plain"] == "1"


def test_a_submission_is_not_told_why_an_earlier_one_was_ended():
    limits = Limits(cell_seconds=60, memory=2**30, file_size=2**30, folder_size=2**31)
    holding = (
        "import mmap, time\n"
        "file = open('large', 'w+b')\n"
        "file.truncate(900 * 2**20)\n"
        # the kernel's limit of a process leaves this out
        "held = mmap.mmap(file.fileno(), 0)\n"
        "for _ in range(900):\n    held.write(b'1' * 2**20)\n"
        "held = held, b'1' * (300 * 2**20)\n"
        "time.sleep(60)"
    )
    ends = []
    for source in (holding, "import os\nos._exit(1)"):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        run = NotebookRun(notebook, None, limits=limits)
        ends += run.run_cells().stopped.values()
        run.close()
    assert ends == [
        "the notebook used more than 1 GiB of memory",
        "the process that ran the notebook ended here",
    ]


def test_a_notebook_draws_the_same_random_numbers_wherever_it_is_graded():
    source = "import random, torch, numpy\ntorch.rand(1), random.random(), numpy.random.rand()"
    drawn = []
    for warm in (WarmProcess(confined=True), WarmProcess(confined=True)):
        for _ in range(2):
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
            run = NotebookRun(notebook, None, limits=QUICK, warm=warm)
            drawn.append(run.run_cells().outputs[0][0]["data"]["text/plain"])
            run.close()
        warm.close()
    assert drawn == [drawn[0]] * 4


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def test_the_memory_of_a_submission_comes_in_large_pages_where_there_are_any():
    source = (
        "import re, pathlib\n"
        "text = pathlib.Path('/proc/self/smaps_rollup').read_text()\n"
        "int(re.search(r'AnonHugePages: *(\\d+)', text).group(1)) > 10_000"
    )
    verdict = outputs_of(source)
    kernel = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    there_are_any = (
        kernel >= (6, 1) and LARGE_PAGES.exists() and "[never]" not in LARGE_PAGES.read_text()
    )
    assert verdict.outputs[0][0]["data"]["text/plain"] == str(there_are_any)


def test_an_endless_cell_is_stopped_and_the_rest_still_runs(toy, toy_notebook):
    notebook = toy_notebook(RIGHT)
    notebook.cells.insert(1, nbformat.v4.new_code_cell("while True: pass"))
    verdict, cell = grade(toy, notebook)
    assert cell.earned == 3
    assert verdict.incidents == ["Cell 2: it was stopped after 2 seconds."]
    assert (sorted(verdict.stopped), verdict.not_run) == ([1], [])


def test_a_cell_that_ignores_the_interrupt_loses_what_follows_only(toy, toy_notebook):
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass"
    notebook = toy_notebook(RIGHT, stubborn, "print('never')")
    notebook.cells[4].metadata["nbgrader"] = {"solution": True, "grade_id": "essay"}
    verdict, cell = grade(toy, notebook)
    assert cell.earned == 3
    assert len(verdict.incidents) == 1
    assert "did not give way" in verdict.incidents[0]
    assert verdict.outputs[4] == []
    assert (sorted(verdict.stopped), verdict.not_run) == ([3, 4], [4])


def test_what_a_score_is_read_from_is_kept_where_a_notebook_shows_too_much(monkeypatch):
    monkeypatch.setattr("autograder.student_process.SUBMISSION_OUTPUT_BYTES", 1000)
    verdict = outputs_of(
        "print('x' * 2000)",
        "print('x'); 0.5",
        "import sys; print('x', file=sys.stderr)",
        "raise ValueError('x')",
        "'x' * 200",
    )
    note = "[output beyond 64 MiB of a notebook is not kept]"
    shown = [[output["output_type"] for output in verdict.outputs[index]] for index in range(5)]
    assert shown == [
        ["stream"],
        ["stream", "execute_result"],
        ["stream", "stream"],
        ["stream", "error"],
        ["stream", "execute_result"],
    ]
    assert {verdict.outputs[index][0]["text"] for index in range(5)} == {f"{note}\n"}
    assert verdict.outputs[1][1]["data"] == {"text/plain": "0.5"}
    assert verdict.outputs[2][1]["name"] == "stderr"
    assert verdict.outputs[3][1]["ename"] == "ValueError"
    assert verdict.outputs[4][1]["data"] == {"text/plain": note}


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_a_process_that_ends_early_is_reported(toy, toy_notebook, end):
    verdict, cell = grade(toy, toy_notebook(f"import os\n{end}"))
    assert cell.earned == 0
    assert verdict.incidents == ["Cell 2: the process that ran the notebook ended here."]
    assert all("not reached" in check.message for check in cell.checks)


def test_no_process_of_a_submission_outlives_it(toy, toy_notebook, tmp_path):
    mark = tmp_path / "alive"
    source = (
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        f"        time.sleep(1)\n        open({str(mark)!r}, 'w').close()\n        os._exit(0)\n"
        "    os._exit(0)\n" + RIGHT
    )
    _, cell = grade(toy, toy_notebook(source))
    assert cell.earned == 3
    outputs_of("import time; time.sleep(1.5)")
    assert not mark.exists()


def test_the_reference_and_the_grader_cannot_be_imported():
    verdict = outputs_of(
        "import lossref", "import autograder", "import sys; 'autograder' in sys.modules"
    )
    assert verdict.outputs[0][0]["ename"] == "ModuleNotFoundError"
    assert verdict.outputs[1][0]["ename"] == "ModuleNotFoundError"
    assert verdict.outputs[2][0]["data"]["text/plain"] == "False"


FORGERIES = {
    "equal to everything": (
        "class Equal(float):\n"
        "    __eq__ = __ge__ = __le__ = lambda self, other: True\n"
        "def square(x):\n    return Equal(1.0)"
    ),
    "tensor subclass": (
        "class Yes(torch.Tensor):\n"
        "    @classmethod\n"
        "    def __torch_function__(cls, func, types, args=(), kwargs=None):\n"
        "        return True\n"
        "def square(x):\n    return x.clone().as_subclass(Yes)"
    ),
    "patched comparisons": (
        "torch.isclose = torch.allclose = torch.equal = lambda *a, **k: torch.tensor(True)\n"
        "torch.testing.assert_close = lambda *a, **k: None\n"
        "def square(x):\n    return 2 * x"
    ),
    "number in the grade cell": (
        "import sys\n"
        "sys.displayhook = lambda value: print(3)\n"
        "get_ipython().displayhook = lambda value=None: None\n"
        "def square(x):\n    print(3.0)\n    return 2 * x"
    ),
}


@pytest.mark.parametrize("source", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_result_earns_nothing_for_values(toy, toy_notebook, source):
    _, cell = grade(toy, toy_notebook(source))
    assert cell.checks[0].outcome != "passed"


def test_a_message_never_repeats_what_the_student_saw(toy, toy_notebook):
    source = "def square(x):\n    raise ValueError('secret ' + str(x.tolist()))"
    _, cell = grade(toy, toy_notebook(source))
    assert [check.message for check in cell.checks] == [
        "`square` raised ValueError at line 2 of `square`."
    ] * 2


def test_an_invented_exception_cannot_carry_text_out(toy, toy_notebook):
    source = "def square(x):\n    raise type('leak_' + str(len(x)), (Exception,), {})"
    _, cell = grade(toy, toy_notebook(source))
    assert "leak" not in cell.checks[0].message


def test_a_function_that_is_not_written_is_said_to_be_so(toy, toy_notebook):
    _, cell = grade(toy, toy_notebook("def square(x):\n    raise NotImplementedError"))
    assert cell.checks[0].message == "`square` is not written yet."


def test_a_missing_function_is_named(toy, toy_notebook):
    _, cell = grade(toy, toy_notebook("x = 1"))
    assert cell.checks[0].message == "The notebook does not define `square`."


def test_the_outputs_are_those_that_jupyter_shows():
    verdict = outputs_of(
        "print('a'); print('b')\n1 + 1",
        "import sys; print('late', file=sys.stderr)",
        "1 / 0",
        "import matplotlib.pyplot as plt\nplt.plot([0, 1]);",
        "import asyncio\nawait asyncio.sleep(0)\n'done'",
        "%%capture\nprint('hidden')",
        "!echo from a subprocess",
        "input()",
    )
    kinds = [[output["output_type"] for output in verdict.outputs[i]] for i in range(8)]
    assert kinds == [
        ["stream", "execute_result"],
        ["stream"],
        ["error"],
        ["display_data"],
        ["execute_result"],
        [],
        ["stream"],
        ["error"],
    ]
    assert verdict.outputs[0][0]["text"] == "a\nb\n"
    assert verdict.outputs[0][1]["data"]["text/plain"] == "2"
    assert verdict.outputs[1][0]["name"] == "stderr"
    assert verdict.outputs[2][0]["ename"] == "ZeroDivisionError"
    assert "image/png" in verdict.outputs[3][0]["data"]
    assert verdict.outputs[6][0]["text"].split() == ["from", "a", "subprocess"]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("import subprocess, sys\nsubprocess.run(['echo', 'hi'], stdout=sys.stdout);", "hi\n"),
        ("import faulthandler\nfaulthandler.enable()\nprint('enabled')", "enabled\n"),
        ("import io, sys\nprint(isinstance(sys.stdout, io.TextIOBase))", "True\n"),
        (
            "import multiprocessing, math\n"
            "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
            "    print(pool.map(math.sqrt, [4]))",
            "[2.0]\n",
        ),
        ("import getpass\nprint(getpass.getuser() != '')", "True\n"),
    ],
    ids=["stream of a program", "faulthandler", "kind of stream", "new interpreters", "user"],
)
def test_what_works_in_a_kernel_works(source, shown):
    (output,) = outputs_of(source).outputs[0]
    assert output["output_type"] == "stream", output["ename"]
    assert output["text"] == shown


def test_a_compiler_makes_no_header_that_is_larger_than_a_file_may_be():
    """Bug: `torch.compile` failed wherever there is a compiler."""
    source = "import torch._inductor.config as config\nconfig.cpp_cache_precompile_headers"
    (output,) = outputs_of(source).outputs[0]
    assert output["data"]["text/plain"] == "False"


def test_an_installation_without_a_network_is_tried_once():
    """Bug: `%pip install` at its top had every notebook wait for pip's retries."""
    text = "".join(output["text"] for output in outputs_of("%pip install no-such").outputs[0])
    assert "No matching distribution found for no-such" in text
    assert "Retrying" not in text


def test_a_display_is_updated_in_its_place():
    verdict = outputs_of("handle = display('first', display_id='here')\nhandle.update('second')")
    assert [out["data"]["text/plain"] for out in verdict.outputs[0]] == ["'second'"]


def test_help_goes_to_the_pager_and_input_is_refused():
    verdict = outputs_of("?len", "input('name? ')")
    assert verdict.outputs[0] == []
    assert verdict.outputs[1][0]["ename"] == "StdinNotImplementedError"


def test_of_text_that_is_too_long_the_beginning_is_kept():
    verdict = outputs_of("print('first'); print('x' * 3_000_000)")
    first, note = verdict.outputs[0]
    assert first["text"].startswith("first\nxxx")
    assert len(first["text"]) == 2 * 2**20
    assert note["text"] == "[output beyond 2 MiB or 2000 pieces is not kept]\n"


def test_endless_output_is_cut():
    verdict = outputs_of("for _ in range(10**6):\n    print('x' * 100)")
    text = verdict.outputs[0][0]["text"]
    assert len(text) <= 2 * 2**20
    assert "not kept" in verdict.outputs[0][1]["text"]


SLOW_TO_SERVE = """
import sys, time
for module in list(sys.modules.values()):
    if serve := vars(module).get("serve_calls"):
        module.serve_calls = lambda *parts: (time.sleep(30), serve(*parts))
def square(x):
    return x * x
"""


def test_a_process_that_is_slow_to_start_is_not_waited_for_beyond_the_time_limit(toy, toy_notebook):
    """Bug: each check waited for its process, whatever was left of the submission's time."""
    limits = Limits(cell_seconds=2, call_seconds=1, total_seconds=7)
    verdict = grade_notebook(toy_notebook(SLOW_TO_SERVE), toy, limits=limits)
    checks = verdict.cells["test_square"].checks
    assert {check.message for check in checks} == {"The submission has used up its time."}


def test_what_follows_the_last_grade_cell_is_not_run(toy, toy_notebook):
    verdict, cell = grade(toy, toy_notebook(RIGHT, "while True: pass"))
    assert cell.earned == 3
    assert verdict.incidents == []
    assert "Not run" in verdict.outputs[3][0]["text"]


def test_one_submission_leaves_nothing_for_the_next(toy, toy_notebook):
    grade(toy, toy_notebook(RIGHT + "\nimport builtins\nbuiltins.leftover = 1"))
    verdict = outputs_of("import builtins; hasattr(builtins, 'leftover') or 'square' in globals()")
    assert verdict.outputs[0][0]["data"]["text/plain"] == "False"


def test_the_submission_folder_is_copied_and_never_changed(tmp_path):
    (tmp_path / "data.txt").write_text("given")
    cell = nbformat.v4.new_code_cell("open('data.txt').read(), open('data.txt', 'w').write('x')")
    run = NotebookRun(nbformat.v4.new_notebook(cells=[cell]), None, files=tmp_path)
    try:
        verdict = run.run_cells()
    finally:
        run.close()
    assert verdict.outputs[0][0]["data"]["text/plain"] == "('given', 1)"
    assert (tmp_path / "data.txt").read_text() == "given"


def test_the_warm_process_is_started_again_when_it_has_died(toy, toy_notebook):
    from autograder.engine import warm_process

    grade(toy, toy_notebook(RIGHT))
    kill(warm_process())
    _, cell = grade(toy, toy_notebook(RIGHT))
    assert cell.earned == 3


def kill(warm):
    warm.peer.signal(signal.SIGKILL)
    assert warm.peer.wait(10)


def test_a_submission_is_not_blamed_for_the_end_of_the_warm_process(toy, toy_notebook):
    run = NotebookRun(toy_notebook(RIGHT), toy, limits=QUICK)
    kill(run.process.warm)
    assert run.process.peer.wait(10)
    verdict = run.run_cells()
    assert "ended" in " ".join(verdict.stopped.values())
    with pytest.raises(WarmProcessEndedError, match="short of memory"):
        run.close()
    _, cell = grade(toy, toy_notebook(RIGHT))
    assert cell.earned == 3


def test_connections_are_closed_though_the_submission_cannot_be_ended(
    toy, toy_notebook, monkeypatch
):
    run = NotebookRun(toy_notebook(RIGHT), toy, limits=QUICK)
    run.run_cells()
    peers = [run.process.peer, *run.process.snapshots.values()]
    end = run.process.warm.end_submission

    def fail():
        end()
        raise RuntimeError("no answer")

    monkeypatch.setattr(run.process.warm, "end_submission", fail)
    with pytest.raises(RuntimeError, match="no answer"):
        run.close()
    assert {peer.connection.fileno() for peer in peers} == {-1}
    assert len(peers) == 2
