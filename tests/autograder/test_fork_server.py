"""One server loads what warm processes need, and whatever ends early takes nothing else with it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import iniconfig
import pytest

from autograder import engine, fork_server
from autograder.child.process_tree import descendants, parent_of
from autograder.fork_server import Need
from autograder.limits import Limits
from autograder.not_allowed import NOTHING, NotAllowed
from autograder.student_process import StudentProcess, WarmProcess, WarmProcessEndedError


@pytest.fixture
def none_yet(monkeypatch):
    monkeypatch.setattr(fork_server, "_current", None)
    monkeypatch.setattr(fork_server, "_retired", [])
    yield
    fork_server._close_all()


@pytest.fixture
def warm_processes(none_yet):
    made = []

    def make(confined=True, **options):
        made.append(WarmProcess(confined=confined, modules=(), **options))
        made[-1].wait_until_ready()
        return made[-1]

    yield make
    for process in made:
        process.close()


def shown_by(warm, source):
    process = StudentProcess(warm, [], Limits(), NOTHING)
    try:
        (output,), _ = process.run_cell(source)
    finally:
        process.close()
    return output["data"]["text/plain"]


def test_warm_processes_of_one_kind_are_forked_from_one_server(warm_processes):
    first, second = warm_processes(), warm_processes()
    server = fork_server._current
    (python,) = [pid for pid in descendants(server.process.pid) if parent_of_both(pid, first)]
    assert parent_of_both(python, second)
    assert fork_server._retired == []
    assert shown_by(first, "1 + 1") == shown_by(second, "1 + 1") == "2"


def parent_of_both(pid, warm):
    return number_of(warm) in descendants(pid) and len(descendants(pid)) <= 2


def number_of(warm):
    lines = Path(f"/proc/self/fdinfo/{warm.peer.pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


def ended(pid):
    command = Path(f"/proc/{pid}/cmdline")
    for _ in range(1000):
        # one that nobody has asked for yet has none
        if not command.exists() or not command.read_bytes():
            return True
        time.sleep(0.01)
    return False


def test_another_exercise_gets_a_parent_of_its_own_and_the_last_one_leaves_when_it_is_not_used(
    warm_processes,
):
    first = warm_processes(not_allowed=NotAllowed(("math.gcd",)))
    parent = parent_of(number_of(first))
    second = warm_processes()
    assert parent_of(number_of(second)) != parent
    assert parent_of(parent) == parent_of(parent_of(number_of(second)))
    source = (
        "import math\ntry:\n    found = math.gcd(4, 6)\nexcept Exception:\n    found = 0\nfound"
    )
    assert (shown_by(first, source), shown_by(second, source)) == ("0", "2")
    assert Path(f"/proc/{parent}/cmdline").read_bytes()
    first.close()
    assert ended(parent)
    assert shown_by(second, source) == "2"


def test_a_parent_that_was_killed_is_forked_again_by_the_same_server(warm_processes):
    first = warm_processes()
    server, parent = fork_server._current, parent_of(number_of(first))
    os.kill(parent, signal.SIGKILL)
    assert ended(parent)
    second = warm_processes()
    assert fork_server._current is server
    assert parent_of(number_of(second)) != parent
    assert shown_by(first, "1 + 1") == shown_by(second, "1 + 1") == "2"


def test_who_is_gone_before_a_process_was_forked_for_it_harms_no_other(none_yet):
    WarmProcess(confined=True, modules=()).close()
    warm = WarmProcess(confined=True, modules=())
    try:
        assert shown_by(warm, "1 + 1") == "2"
        forked = set(descendants(parent_of(number_of(warm))))
        assert all(map(ended, forked - {number_of(warm)}))
    finally:
        warm.close()


def test_a_warm_process_that_is_killed_takes_no_other_with_it(warm_processes):
    first, second = warm_processes(), warm_processes()
    os.kill(number_of(first), signal.SIGKILL)
    assert first.peer.wait(10)
    assert not first.alive()
    assert second.alive()
    assert shown_by(second, "1 + 1") == "2"
    assert shown_by(warm_processes(), "2 + 2") == "4"


def test_warm_processes_of_another_kind_get_a_server_and_leave_the_others_alone(
    warm_processes, tmp_path
):
    first = warm_processes()
    server = fork_server._current
    second = warm_processes(secret=[tmp_path])
    assert fork_server._current is not server
    assert fork_server._retired == [server]
    assert shown_by(first, "1 + 1") == shown_by(second, "1 + 1") == "2"
    first.close()
    server.process.wait(timeout=10)
    latest = fork_server._current
    warm_processes()
    assert fork_server._retired == [latest]


def test_a_server_that_has_died_is_started_again(warm_processes):
    warm_processes()
    server = fork_server._current
    server.process.kill()
    server.process.wait()
    assert shown_by(warm_processes(), "1 + 1") == "2"
    assert fork_server._current is not server


def test_a_warm_process_that_does_not_answer_any_more_is_not_taken_for_alive(warm_processes):
    warm = warm_processes()
    os.kill(number_of(warm), signal.SIGSTOP)
    warm.connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(WarmProcessEndedError):
        warm.end_submission()
    assert not warm.alive()


def test_a_process_that_cannot_know_that_the_server_has_died_starts_another(
    warm_processes, monkeypatch
):
    warm_processes()
    server = fork_server._current
    # as in a process that was forked
    monkeypatch.setattr(fork_server.ForkServer, "has_ended", lambda self: False)
    server.process.kill()
    assert server.hangs_up()
    assert shown_by(warm_processes(), "1 + 1") == "2"
    assert fork_server._current is not server


def test_the_end_of_a_server_shows_though_what_it_has_forked_goes_on(warm_processes):
    warm = warm_processes(confined=False)
    server = fork_server._current
    server.process.kill()
    assert server.hangs_up()
    assert warm.alive()


def test_a_server_forgets_what_has_ended(warm_processes):
    first = warm_processes()
    number = number_of(first)
    first.close()
    warm_processes()
    assert number not in descendants(fork_server._current.process.pid)


def test_a_server_that_is_dying_is_asked_for_nothing(none_yet, monkeypatch):
    """A submission was tried again at once, by the same server, and then counted as failed."""
    monkeypatch.setattr(engine, "_warm", {})
    warm = engine.warm_process()
    process = StudentProcess(warm, [], Limits(), NOTHING)
    server = fork_server._current
    # as in a process that was forked, which cannot know
    monkeypatch.setattr(fork_server.ForkServer, "has_ended", lambda self: False)
    os.kill(number_of(warm), signal.SIGKILL)
    threading.Timer(0.3, server.process.kill).start()
    with pytest.raises(WarmProcessEndedError):
        process.close()
    assert shown_by(engine.warm_process(), "1 + 1") == "2"
    engine.warm_process().close()


def test_a_submission_whose_warm_process_ends_as_it_starts_can_be_tried_again(warm_processes):
    warm = warm_processes()
    os.kill(number_of(warm), signal.SIGSTOP)
    threading.Timer(0.3, os.kill, [number_of(warm), signal.SIGKILL]).start()
    with pytest.raises(WarmProcessEndedError):
        StudentProcess(warm, [], Limits(), NOTHING)


def test_no_folder_is_made_for_what_is_confined(warm_processes, tmp_path, monkeypatch):
    """It was left behind by a server that was killed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    warm_processes()
    assert list(tmp_path.iterdir()) == []


def test_a_warm_process_works_on_the_cores_of_the_process_it_serves(warm_processes):
    cores = os.sched_getaffinity(0)
    warm_processes()
    try:
        os.sched_setaffinity(0, {max(cores)})
        assert os.sched_getaffinity(number_of(warm_processes())) == {max(cores)}
    finally:
        os.sched_setaffinity(0, cores)


def test_a_warm_process_whose_cores_are_gone_works_on_those_that_are_there(
    warm_processes, monkeypatch
):
    cores = os.sched_getaffinity(0)
    with monkeypatch.context() as context:
        context.setattr(os, "sched_getaffinity", lambda _: {10_000})
        warm = warm_processes()
    assert os.sched_getaffinity(number_of(warm)) == cores


def test_a_secret_folder_is_covered_in_what_a_submission_sees(warm_processes):
    folder = Path(iniconfig.__file__).parent
    warm = warm_processes(secret=[folder])
    source = f"import os\nos.listdir({str(folder)!r}), len(os.listdir({str(folder.parent)!r})) > 1"
    assert shown_by(warm, source) == "([], True)"


def test_the_folders_of_a_course_that_hold_answers_or_submissions_are_secret(tmp_path):
    names = {path.relative_to(tmp_path).parts for path in fork_server.secret_folders(tmp_path)}
    assert names >= {("solutions",), ("tests",), ("lossref",), ("course",)}
    assert fork_server.secret_folders(None) == []


@pytest.mark.parametrize("confined", [True, False])
def test_a_submission_has_nothing_of_the_graders_environment(warm_processes, monkeypatch, confined):
    monkeypatch.setenv("COURSE_TOKEN", "secret-token")
    source = "import os\n'COURSE_TOKEN' in os.environ"
    assert shown_by(warm_processes(confined=confined), source) == "False"


IMPORTS = f"""
import importlib, sys

def imported():
    found = []
    for name in ("lossref", "autograder", "tests"):
        try:
            found.append(importlib.import_module(name))
        except ModuleNotFoundError:
            pass
    return len(found)

finder = sys.meta_path.pop(0)
by_path = imported()
sys.meta_path.insert(0, finder)
sys.path.append({str(Path(__file__).parents[2])!r})
by_path, imported()
"""


def test_the_grader_cannot_be_imported_where_nothing_is_confined_either(warm_processes):
    assert shown_by(warm_processes(confined=False), IMPORTS) == "(0, 0)"


LEAVES_A_PROCESS = """
import os, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        time.sleep(600)
    os._exit(0)
os.wait()
int(os.read(reader, 100))
"""


def test_no_process_outlives_a_submission_where_nothing_is_confined_either(warm_processes):
    pid = shown_by(warm_processes(confined=False), LEAVES_A_PROCESS)
    assert not Path(f"/proc/{pid}").exists()


def test_a_submission_ends_with_its_warm_process_where_nothing_is_confined_either(warm_processes):
    warm = warm_processes(confined=False)
    process = StudentProcess(warm, [], Limits(), NOTHING)
    warm.close()
    assert process.peer.wait(10)
    process.peer.close()


FORKED = """
import os, sys
from autograder import engine, fork_server
from autograder.limits import Limits
from autograder.not_allowed import NOTHING
from autograder.student_process import StudentProcess, WarmProcess, WarmProcessEndedError

def right():
    warm = WarmProcess(confined=sys.argv[1] == "confined", modules=())
    process = StudentProcess(warm, [], Limits(), NOTHING)
    (output,), _ = process.run_cell("1 + 1")
    process.close()
    warm.close()
    return output["data"]["text/plain"] == "2"

assert right()
server = fork_server._current
pid = os.fork()
if pid == 0:
    code = 2
    try:
        code = 0 if right() and fork_server._current is server else 1
        fork_server._close_all()
    finally:
        os._exit(code)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), server.process.poll(), right())
print(os.path.isdir(server.home or "/"))
"""


@pytest.mark.parametrize("how", ["confined", "unconfined"])
def test_a_process_that_was_forked_uses_the_server_and_does_not_end_it(how):
    # in a process of its own: what other tests have loaded (JAX) warns when theirs forks
    command = [sys.executable, "-W", "error", "-c", FORKED, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("0 None True\nTrue\n", "")


def test_what_is_started_ahead_is_used_and_started_once(warm_processes, tmp_path):
    fork_server.start_ahead(True, tmp_path)
    ahead = fork_server._current
    fork_server.start_ahead(True, tmp_path / "another")
    assert fork_server._current is ahead
    warm_processes(secret=fork_server.secret_folders(tmp_path))
    assert fork_server._current is ahead


def test_a_server_that_nobody_uses_ends_with_the_process_that_started_it(none_yet, tmp_path):
    fork_server.start_ahead(False, tmp_path)
    server = fork_server._current
    fork_server._close_all()
    assert server.process.returncode is not None
    assert not Path(server.home).exists()


def test_what_is_not_used_any_more_ends_with_the_process_that_started_it_too(none_yet, tmp_path):
    servers = [fork_server.fork_server(True, secret) for secret in ([], [tmp_path])]
    fork_server._close_all()
    assert None not in [server.process.returncode for server in servers]


def test_a_server_that_has_ended_leaves_no_folder(none_yet, tmp_path):
    server = fork_server.fork_server(False)
    fork_server.fork_server(True)
    assert Path(server.home).exists()
    server.process.wait(timeout=60)
    fork_server.fork_server(True, [tmp_path])
    assert not Path(server.home).exists()


STARTS = """
from autograder import fork_server

fork_server.start_ahead(False, None)
print(fork_server._current.home, fork_server._current.process.pid)
"""


def test_a_process_that_ends_takes_its_server_with_it():
    command = [sys.executable, "-c", STARTS]
    # what the server writes to is a pipe that this would wait for
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    home, pid = done.stdout.split()
    assert not Path(home).exists()
    assert not Path(f"/proc/{pid}").exists()


READS = """
from autograder.limits import Limits
from autograder.not_allowed import NOTHING
from autograder.student_process import StudentProcess, WarmProcess

warm = WarmProcess(confined=True, modules=())
process = StudentProcess(warm, [], Limits(), NOTHING)
print(process.run_cell("import os; os.read(0, 5)")[0][0]["data"]["text/plain"])
process.close()
warm.close()
"""


def test_what_is_typed_for_the_grader_reaches_no_submission():
    command = [sys.executable, "-c", READS]
    done = subprocess.run(
        command, input="typed", stdout=subprocess.PIPE, text=True, check=True, timeout=120
    )
    assert done.stdout == "b''\n"


@pytest.mark.parametrize("module", ["torch", "rfc3987_syntax", "pytest"])
def test_handing_out_work_loads_nothing_slow(module):
    code = f"import sys, autograder.cli, autograder.grading; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_whoever_asks_can_tell_whether_a_server_still_loads(warm_processes):
    assert not fork_server.is_loading()
    fork_server.start_ahead(True, None)
    assert fork_server.is_loading()
    # the warm process, too, is made only when all is loaded
    warm_processes()
    # asking takes nothing from who asks next
    assert [fork_server.is_loading() for _ in range(3)] == [False] * 3


def test_what_is_made_ready_ahead_belongs_to_loading_and_is_used(warm_processes):
    fork_server.make_ready(Need())
    assert fork_server._current is None
    fork_server.start_ahead(True, None)
    # slower to load than all else
    fork_server.make_ready(Need(modules=("sympy",)))
    while fork_server.is_loading():
        time.sleep(0.01)
    server = fork_server._current.process.pid
    (parent,) = [pid for pid in descendants(server) if not descendants(pid)]
    warm = WarmProcess(confined=True, modules=("sympy",), secret=fork_server.secret_folders(None))
    try:
        warm.wait_until_ready()
        assert parent_of(number_of(warm)) == parent
    finally:
        warm.close()


def test_a_server_that_has_ended_loads_no_more(none_yet):
    fork_server.start_ahead(True, None)
    assert fork_server.is_loading()
    fork_server._current.process.kill()
    fork_server._current.process.wait()
    assert not fork_server.is_loading()
