"""Processes here and on a cluster: what they give back, and what becomes of those that end."""

import base64
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import Executor
from io import BytesIO
from pathlib import Path

import dask
import nbformat
import pytest

from autograder import worker_process
from autograder.assignment import Assignment
from autograder.cluster import Cluster, checked_address
from autograder.confinement import ConfinementUnavailableError
from autograder.course_archive import pack, unpack
from autograder.environment import differences, environment
from autograder.executors import LocalPool, open_executor
from autograder.grading import Batch, submitted_students
from autograder.work import Work
from autograder.worker_process import (
    ClusterError,
    GradingFaultError,
    WorkerEndedError,
    WorkerProcess,
    WorkerProcesses,
    reference,
)
from tests.autograder.dask_cluster import DaskCluster

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")

TASKS = """
import os
import signal
import time


def process_number(request, root=None):
    return str(os.getpid()).encode()


def seen_below_root(request, root=None):
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.py"))
    return "\\n".join([str(root), *names]).encode()


def cores(request, root=None):
    time.sleep(float(request))
    return " ".join(map(str, sorted(os.sched_getaffinity(0)))).encode()


def print_and_reply(request, root=None):
    print("not a result")
    return request


def raise_error(request, root=None):
    raise ValueError(request.decode())


def end_this_process(request, root=None):
    os.kill(os.getpid(), signal.SIGKILL)


def end_by_signal(request, root=None):
    os.kill(os.getpid(), int(request))
    time.sleep(60)


def exit_with(request, root=None):
    os._exit(int(request))


def leave(request, root=None):
    raise SystemExit("to the end of the process")


def write_at_exit(request, root=None):
    import atexit
    from pathlib import Path

    atexit.register(Path(request.decode()).write_text, "ended")
    return b""


def surroundings(request, root=None):
    names = "OMP_NUM_THREADS", "MKL_NUM_THREADS"
    shown = [os.readlink("/proc/self/fd/0"), str(os.getsid(0)), *map(os.environ.get, names)]
    return " ".join(shown).encode()


def raise_of_kind(request, root=None):
    from concurrent.futures import BrokenExecutor
    from autograder.confinement import ConfinementUnavailableError

    raise {b"ended": BrokenExecutor, b"unconfined": ConfinementUnavailableError}[request]("why")


def reply_though_interrupted(request, root=None):
    from pathlib import Path

    try:
        Path(request.decode()).write_text(str(os.getpid()))
        time.sleep(600)
    except KeyboardInterrupt:
        return b"nobody reads this"


def ignore_interrupts(request, root=None):
    import sys
    from pathlib import Path

    sys.modules["__main__"].INTERRUPTS = 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(request.decode()).write_text(str(os.getpid()))
    time.sleep(600)


def end_this_process_with_files(request, root=None):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/student.py", "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)


def wait_with_files(request, root=None):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "student.py").touch()
        time.sleep(600)


def end_this_worker(request, root=None):
    from pathlib import Path

    server = Path(f"/proc/{os.getppid()}/stat").read_text()
    os.kill(int(server.rpartition(")")[2].split()[1]), signal.SIGKILL)


def compute_for_good(request, root=None):
    allowed, _ = signal.getitimer(signal.ITIMER_PROF)
    if not allowed:
        return b"nothing would end it"
    # what is allowed, in a second instead
    signal.setitimer(signal.ITIMER_PROF, allowed / 100)
    while True:
        pass


def wait_for_long(request, root=None):
    from pathlib import Path
    Path(request.decode()).write_text(str(os.getpid()))
    time.sleep(600)
"""


PREPARED_TASKS = """
import os
import signal
from pathlib import Path

from autograder.loading import load

loaded_by = []


def prepare(request, root=None):
    load("autograder.worker")
    loaded_by.append(os.getpid())
    gradient()
    if request == b"bad":
        raise ValueError("not for the server to say")


def rehearse(request, root=None):
    if request == b"endless":
        allowed, _ = signal.getitimer(signal.ITIMER_REAL)
        # what is allowed, in a second instead
        signal.setitimer(signal.ITIMER_REAL, allowed / 20)
        while allowed:
            pass
    if request == b"ends":
        os._exit(3)
    if request == b"leaves":
        raise SystemExit
    if request == b"fails":
        raise ValueError
    return request != b"opens"


def gradient():
    import torch

    x = torch.ones(1, requires_grad=True)
    (x * x).sum().backward()
    return x.grad.item()


def what_was_prepared(request, root=None):
    threads = len(list(Path(f"/proc/{os.getppid()}/task").iterdir()))
    return f"{set(loaded_by) == {os.getppid()}} {threads} {gradient()}".encode()
"""


@pytest.fixture(scope="module")
def tasks_folder():
    # not below pytest's folder, which is hidden from the workers
    folder = Path(tempfile.mkdtemp(prefix="tasks-"))
    (folder / "executor_tasks.py").write_text(TASKS)
    (folder / "prepared_tasks.py").write_text(PREPARED_TASKS)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def tasks(tasks_folder, monkeypatch):
    monkeypatch.syspath_prepend(str(tasks_folder))
    monkeypatch.setenv("PYTHONPATH", before(str(tasks_folder)))
    return importlib.import_module("executor_tasks")


def before(folder):
    """Return a Python path on which a folder comes first."""
    return os.pathsep.join([folder, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])


def ended(pid, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def wait_for(path, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written in {seconds} s")


def test_the_local_pool_gives_each_reply_to_its_request():
    with LocalPool(2) as pool:
        futures = [pool.submit(base64.b64encode, bytes([n])) for n in range(20)]
        assert [f.result() for f in futures] == [base64.b64encode(bytes([n])) for n in range(20)]


def test_the_local_pool_uses_its_processes_again(tasks):
    with LocalPool(2) as pool:
        futures = [pool.submit(tasks.process_number, b"") for _ in range(10)]
        numbers = {future.result() for future in futures}
    assert 1 <= len(numbers) <= 2
    assert str(os.getpid()).encode() not in numbers


def test_a_process_that_ends_costs_its_own_request_alone(tasks):
    with LocalPool(1) as pool:
        bad = pool.submit(tasks.end_this_process, b"")
        good = [pool.submit(tasks.process_number, b"") for _ in range(3)]
        with pytest.raises(WorkerEndedError, match="ended by SIGKILL"):
            bad.result()
        assert len({future.result() for future in good}) == 1


@pytest.mark.parametrize(
    ("function", "number", "words"),
    [
        ("end_by_signal", signal.SIGTERM, "ended by SIGTERM"),
        ("exit_with", 3, "ended with status 3"),
    ],
)
def test_how_a_process_ended_is_told(tasks, function, number, words):
    with LocalPool(1) as pool, pytest.raises(WorkerEndedError, match=words):
        pool.submit(getattr(tasks, function), b"%d" % number).result()


def test_a_process_that_cannot_go_on_ends_and_says_why(tasks, capfd):
    with LocalPool(1) as pool, pytest.raises(WorkerEndedError, match="ended with status 1"):
        pool.submit(tasks.leave, b"").result()
    assert "SystemExit: to the end of the process" in capfd.readouterr().err


@pytest.fixture
def processes():
    made = WorkerProcesses()
    yield made
    made.close()


def test_a_process_that_ends_between_two_requests_costs_nothing(tasks, processes):
    for _ in range(2):
        assert processes.run(reference(tasks.process_number), b"").kind == "done"
        kill_what_is_idle(processes)


def kill_what_is_idle(processes):
    (process,) = processes.idle
    os.kill(process.pid, signal.SIGKILL)
    assert process._wait(10)


def test_a_server_that_ends_is_started_again_beside_the_same_files(
    tasks, processes, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, pid = processes.run(reference(tasks.process_number), b"")
    processes.server.process.kill()
    processes.server.process.wait()
    # nobody else holds the other end of its connection
    assert processes.server.connection.poll(10)
    assert processes.run(reference(tasks.process_number), b"") == ("done", pid)
    kill_what_is_idle(processes)
    assert processes.run(reference(tasks.process_number), b"").kind == "done"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_closed_starts_nothing(tasks, processes):
    processes.close()
    outcome = processes.run(reference(tasks.process_number), b"")
    assert outcome == ("ended", b"grading was stopped")
    assert processes.server is None


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_what_is_closed_leaves_no_descriptor_open(tasks, processes):
    before = descriptors()
    processes.run(reference(tasks.process_number), b"")
    kill_what_is_idle(processes)
    processes.run(reference(tasks.end_this_process), b"")
    processes.server.process.kill()
    processes.server.process.wait()
    processes.run(reference(tasks.process_number), b"")
    processes.close()
    assert descriptors() == before


def test_a_server_that_hangs_is_killed(tasks, processes, monkeypatch):
    processes.run(reference(tasks.process_number), b"")
    server = processes.server.process
    monkeypatch.setattr(worker_process, "END_SECONDS", 0.2)
    os.kill(server.pid, signal.SIGSTOP)
    processes.close()
    assert server.returncode == -signal.SIGKILL


def test_a_process_that_hangs_is_killed(tasks, processes, monkeypatch):
    _, pid = processes.run(reference(tasks.process_number), b"")
    # it is waited for five seconds longer than it is interrupted
    monkeypatch.setattr(worker_process, "INTERRUPTS", -4.8)
    os.kill(int(pid), signal.SIGSTOP)
    processes.close()
    assert ended(int(pid), seconds=1)


def test_a_process_has_nothing_of_the_command_but_its_errors(tasks):
    code = (
        "import executor_tasks\n"
        "from autograder.executors import LocalPool\n"
        "with LocalPool(1) as pool:\n"
        "    print(pool.submit(executor_tasks.surroundings, b'').result().decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": "7"},
        input="typed",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    standard_input, session, *threads = done.stdout.split()
    assert standard_input == "/dev/null"
    assert int(session) != os.getsid(0)
    assert threads == ["1", "1"]


@pytest.mark.parametrize("place", ["the folder it is started in", "PYTHONPATH"])
def test_a_process_runs_the_source_of_the_command(tasks, tmp_path, monkeypatch, place):
    (tmp_path / "autograder").mkdir()
    (tmp_path / "autograder" / "__init__.py").write_text("raise RuntimeError('another')\n")
    if place == "PYTHONPATH":
        monkeypatch.setenv("PYTHONPATH", before(str(tmp_path)))
    else:
        monkeypatch.chdir(tmp_path)
    with LocalPool(1) as pool:
        assert pool.submit(base64.b64encode, b"a").result() == b"YQ=="


def test_a_process_does_at_its_end_what_it_was_asked_to(tasks, tmp_path):
    with LocalPool(1) as pool:
        pool.submit(tasks.write_at_exit, str(tmp_path / "note").encode()).result()
    assert (tmp_path / "note").read_text() == "ended"


@pytest.mark.parametrize(
    ("kind", "error"),
    [("ended", WorkerEndedError), ("unconfined", ConfinementUnavailableError)],
)
def test_what_is_not_the_graders_fault_is_told_apart(tasks, kind, error):
    with LocalPool(1) as pool, pytest.raises(error, match="why"):
        pool.submit(tasks.raise_of_kind, kind.encode()).result()


def test_a_reply_that_nobody_waits_for_is_dropped_without_a_word(tasks, tmp_path, capfd):
    pool = LocalPool(1)
    pool.submit(tasks.reply_though_interrupted, str(tmp_path / "pid").encode())
    wait_for(tmp_path / "pid")
    pool.shutdown(wait=False)
    assert capfd.readouterr().err == ""


def test_a_process_that_is_killed_leaves_no_files(tasks, tmp_path, monkeypatch):
    """Bug: a student's files stayed in the machine's temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with LocalPool(1) as pool:
        with pytest.raises(WorkerEndedError):
            pool.submit(tasks.end_this_process_with_files, b"").result()
        assert [path.name for path in tmp_path.rglob("*.py")] == ["student.py"]
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_is_killed_leaves_no_files(tasks, tmp_path):
    """Bug: the run's temporary folder stayed in the machine's."""
    script = (
        "import executor_tasks\n"
        "from autograder.executors import LocalPool\n"
        "LocalPool(1).submit(executor_tasks.wait_with_files, b'')\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as command:
        wait_until(lambda: list(tmp_path.rglob("student.py")))
        command.kill()
    wait_until(lambda: not list(tmp_path.iterdir()))


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def test_a_request_that_computes_for_good_is_ended_and_costs_itself_alone(tasks):
    with LocalPool(1) as pool:
        bad = pool.submit(tasks.compute_for_good, b"")
        good = pool.submit(base64.b64encode, b"a")
        with pytest.raises(WorkerEndedError, match="own work on it took more than 120 seconds"):
            bad.result()
        assert good.result() == b"YQ=="


@pytest.mark.parametrize("request_bytes", [b"good", b"bad"])
def test_what_requests_need_is_loaded_before_forking_by_a_process_of_one_thread(
    tasks, request_bytes
):
    """A fork of a process with several threads could wait for ever for a lock of another."""
    prepared = importlib.import_module("prepared_tasks")
    with LocalPool(2) as pool:
        replies = [pool.submit(prepared.what_was_prepared, request_bytes) for _ in range(4)]
        assert {reply.result() for reply in replies} == {b"True 1 2.0"}


@pytest.mark.parametrize("request_bytes", [b"endless", b"ends", b"leaves", b"fails", b"opens"])
def test_what_is_tried_out_before_forking_costs_nobody_a_result(tasks, request_bytes):
    """Bug: a function of the bank that had no end, or that ended the process, cost all points."""
    prepared = importlib.import_module("prepared_tasks")
    with LocalPool(2) as pool:
        replies = [pool.submit(prepared.what_was_prepared, request_bytes) for _ in range(4)]
        assert {reply.result() for reply in replies} == {b"True 1 2.0"}
        # another process has taken the place of the one that tried
        assert not pool.processes.server.rehearses


def cores_of(tasks, pool, requests):
    return [reply.result() for reply in [pool.submit(tasks.cores, b"1") for _ in range(requests)]]


def test_each_worker_has_a_core_of_its_own_where_there_is_one_for_each(tasks):
    ours = sorted(os.sched_getaffinity(0))
    each = sorted(b"%d" % core for core in ours)
    with LocalPool() as pool:
        assert sorted(cores_of(tasks, pool, len(ours))) == each
        with pytest.raises(WorkerEndedError):
            pool.submit(tasks.end_this_process, b"").result()
        # the one that takes its place is put where it was
        assert sorted(cores_of(tasks, pool, len(ours))) == each


def test_what_takes_the_place_of_a_process_that_ended_idle_is_put_where_it_was(tasks):
    ours = sorted(os.sched_getaffinity(0))
    each = sorted(b"%d" % core for core in ours)
    with LocalPool() as pool:
        assert sorted(cores_of(tasks, pool, len(ours))) == each
        idle = pool.processes.idle
        idle.sort(key=lambda process: process.core)
        os.kill(idle[-1].pid, signal.SIGKILL)
        assert idle[-1]._wait(10)
        assert sorted(cores_of(tasks, pool, len(ours))) == each


def test_workers_that_are_fewer_than_the_cores_have_all_of_them(tasks, monkeypatch):
    ours = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*ours, 10_000})
    with LocalPool(len(ours)) as pool:
        assert cores_of(tasks, pool, 1) == [" ".join(map(str, ours)).encode()]


def test_a_worker_whose_core_is_gone_works_on_those_that_are_there(tasks):
    processes = WorkerProcesses(cores=[10_000])
    ours = " ".join(map(str, sorted(os.sched_getaffinity(0)))).encode()
    assert processes.run(reference(tasks.cores), b"0") == ("done", ours)
    processes.close()


def test_what_a_request_raises_is_told_by_name(tasks):
    with LocalPool(1) as pool:
        with pytest.raises(GradingFaultError, match="ValueError: no such thing"):
            pool.submit(tasks.raise_error, b"no such thing").result()
        assert pool.submit(base64.b64encode, b"a").result() == b"YQ=="


def test_standard_output_is_for_results_alone(tasks, capfd, monkeypatch):
    # what a worker has printed must not be lost when it ends
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with LocalPool(1) as pool:
        assert pool.submit(tasks.print_and_reply, b"yes").result() == b"yes"
    assert capfd.readouterr() == ("", "not a result\n")


def test_leaving_by_an_exception_stops_the_work_and_leaves_no_process(tasks, tmp_path, capfd):
    pool = LocalPool(1)
    futures = [pool.submit(tasks.wait_for_long, str(tmp_path / "pid").encode())]
    futures += [pool.submit(tasks.wait_for_long, b"/nowhere") for _ in range(3)]
    pid = int(wait_for(tmp_path / "pid"))

    def interrupted():
        with pool:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    # it ends when it is interrupted, not when it has been so in vain for long enough
    assert time.monotonic() - start < worker_process.INTERRUPTS
    assert ended(pid, seconds=1)
    assert all(future.done() for future in futures)
    assert capfd.readouterr().err == ""


def test_work_is_stopped_though_the_command_ignores_interrupts(tasks, tmp_path):
    """Bug: for a command that a shell had started in the background it took ten seconds."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pool = LocalPool(1)
        pool.submit(tasks.wait_for_long, str(tmp_path / "pid").encode())
        wait_for(tmp_path / "pid")
        start = time.monotonic()
        pool.shutdown(wait=False)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - start < worker_process.INTERRUPTS


def test_what_waits_for_a_request_ends_at_once_when_it_is_closed(tasks, processes):
    processes.run(reference(tasks.process_number), b"")
    start = time.monotonic()
    processes.idle[0].close()
    assert time.monotonic() - start < worker_process.INTERRUPTS


def test_what_is_closed_twice_closes_nothing_else(tasks, processes):
    processes.run(reference(tasks.process_number), b"")
    processes.idle[0].close()
    # these have the numbers that were closed
    reader, writer = os.pipe()
    processes.idle[0].close()
    os.close(reader)
    os.close(writer)


def test_a_server_that_ends_before_it_has_forked_is_told(tasks, processes):
    processes.run(reference(tasks.process_number), b"")
    processes.server.process.kill()
    processes.server.process.wait()
    request = reference(tasks.process_number).encode(), b"", b""
    outcome = WorkerProcess(processes.server).run(request)
    assert outcome == ("ended", b"the process that workers are forked from has ended")


@pytest.mark.parametrize("function", ["wait_for_long", "ignore_interrupts"])
def test_the_processes_end_with_the_command_that_is_killed(tasks, tmp_path, function):
    program = (
        "import executor_tasks, sys\n"
        "from autograder.executors import LocalPool\n"
        f"LocalPool(1).submit(executor_tasks.{function}, sys.argv[1].encode()).result()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "pid")]
    with subprocess.Popen(command) as process:
        pid = int(wait_for(tmp_path / "pid"))
        process.kill()
    assert ended(pid)


def test_an_archive_depends_on_the_checks_alone(toy):
    (toy.root / "tests" / "hidden" / "conftest.py").write_text("shared = True\n")
    (toy.root / "tests" / "hidden" / "other").mkdir()
    (toy.root / "tests" / "hidden" / "other" / "test_other.py").write_text("other = True\n")
    (toy.checks / "__pycache__").mkdir()
    (toy.checks / "__pycache__" / "test_square.pyc").write_bytes(b"made")
    archive = pack(toy)
    assert sorted(zipfile.ZipFile(BytesIO(archive)).namelist()) == [
        "tests/hidden/conftest.py",
        "tests/hidden/toy/bank/square.py",
        "tests/hidden/toy/test_square.py",
    ]
    os.utime(toy.checks / "test_square.py", (0, 0))
    assert pack(toy) == archive
    (toy.checks / "test_square.py").write_text("changed = True\n")
    assert pack(toy) != archive


def test_an_archive_is_unpacked_once_into_a_folder_for_its_owner(toy, tmp_path):
    first = unpack(pack(toy), tmp_path)
    (first / "kept").touch()
    assert unpack(pack(toy), tmp_path) == first
    assert (first / "kept").exists()
    assert first.stat().st_mode & 0o077 == 0
    (toy.checks / "test_square.py").write_text("changed = True\n")
    second = unpack(pack(toy), tmp_path)
    assert second != first
    assert (second / "tests/hidden/toy/test_square.py").read_text() == "changed = True\n"


def test_an_environment_names_what_differs():
    ours = environment()
    assert differences(ours, dict(ours)) == []
    assert ours["autograder"].startswith("of source ")
    theirs = {**ours, "torch": "1.0"}
    del theirs["numpy"]
    assert differences(ours, theirs) == [
        f"numpy is missing, expected {ours['numpy']}",
        f"torch is 1.0, expected {ours['torch']}",
    ]


@pytest.mark.parametrize(
    "address",
    ["", "10.0.0.1:8786", "http://10.0.0.1:8786", "tcp://10.0.0.1", "tcp://:8786", "tcp://a:b"],
)
def test_what_is_not_a_scheduler_address_is_named(address):
    with pytest.raises(ClusterError, match="expected tcp://HOST:PORT") as error:
        checked_address(address)
    assert repr(address) in str(error.value)


def test_a_cluster_without_dask_is_named(toy, monkeypatch):
    monkeypatch.delitem(sys.modules, "autograder.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"needs the package distributed, .* extra `cluster`"):
        open_executor(toy, scheduler="tcp://127.0.0.1:8786")


# the rest runs on real schedulers and workers


@pytest.fixture(scope="module")
def cluster(tasks_folder, tmp_path_factory):
    """Two workers that do not see the courses of these tests."""
    hidden = [tmp_path_factory.getbasetemp()]
    path = before(str(tasks_folder))
    cluster = DaskCluster(
        hidden, PYTHONPATH=path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1"
    )
    cluster.start_worker()
    cluster.start_worker()
    yield cluster
    cluster.close()


@pytest.fixture
def own_cluster(tasks_folder, tmp_path_factory):
    """Return what makes a scheduler without workers, for a test that breaks it."""
    made = []

    def make(**options):
        made.append(DaskCluster([tmp_path_factory.getbasetemp()], **options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


def toy_of(course):
    return Assignment("toy", course.root)


def run_batch(course, executor, progress=lambda student: None, **options):
    assignment = toy_of(course)
    students = submitted_students(course, assignment)
    rows = Batch(course, assignment, students, executor=executor, **options).run(progress)
    return {row.student: row for row in rows}


def scores(rows):
    return {student: (row.score, row.happened) for student, row in rows.items()}


def notebooks(course):
    return {
        str(path.relative_to(course.root)): path.read_text()
        for path in sorted((course.root / "course" / "autograded").rglob("*.ipynb"))
    }


SLOW = "import time\ntime.sleep(1)\ndef square(x):\n    return x * x"
WRONG = "def square(x):\n    return 2 * x"


def test_a_cluster_grades_as_this_machine_does(toy_course, hand_in, cluster):
    hand_in("ada")
    hand_in("bob", answer=WRONG)
    hand_in("cleo", change=lambda nb: nb.cells.insert(1, nbformat.v4.new_code_cell("1 / 0")))
    hand_in("dana", answer="def square(x):\n    import os\n    os._exit(1)")
    with LocalPool(2) as pool:
        here = scores(run_batch(toy_course, pool))
    texts = notebooks(toy_course)
    with Cluster(cluster.address, toy_of(toy_course)) as there:
        assert scores(run_batch(toy_course, there, force=True)) == here
    assert notebooks(toy_course) == texts
    assert here["ada"][0] > here["bob"][0]


def test_the_checks_travel_with_the_work(toy_course, tasks, cluster):
    with Cluster(cluster.address, toy_of(toy_course)) as there:
        futures = [there.submit(tasks.seen_below_root, b"") for _ in range(4)]
        replies = {future.result() for future in futures}
    for reply in replies:
        root, *names = reply.decode().splitlines()
        assert not root.startswith(str(toy_course.root))
        assert names == ["tests/hidden/toy/bank/square.py", "tests/hidden/toy/test_square.py"]


def test_the_command_grades_on_a_cluster(toy_course, hand_in, cluster):
    hand_in("ada")
    before_it = cluster.logs()["scheduler"].count("Receive client connection")
    done = command(toy_course, "--scheduler", cluster.address, "--json")
    assert done.returncode == 0, done.stderr
    assert cluster.logs()["scheduler"].count("Receive client connection") == before_it + 1
    assert json.loads(done.stdout)[0]["score"] == 6


def command(course, *options, **environment):
    return subprocess.run(
        [str(Path(sys.executable).with_name("autograder")), "grade", "toy", *options],
        cwd=course.root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_process_that_ends_on_a_cluster_costs_its_own_request(toy_course, tasks, cluster):
    with Cluster(cluster.address, toy_of(toy_course)) as there:
        with pytest.raises(WorkerEndedError, match="ended by SIGKILL"):
            there.submit(tasks.end_this_process, b"").result()
        with pytest.raises(GradingFaultError, match="ValueError: nonsense"):
            there.submit(tasks.raise_error, b"nonsense").result()
        assert there.submit(tasks.print_and_reply, b"yes").result() == b"yes"


def test_a_request_that_kills_its_worker_again_and_again_is_given_up(toy_course, tasks, cluster):
    with Cluster(cluster.address, toy_of(toy_course)) as there:
        with pytest.raises(WorkerEndedError, match="the 2 workers that it was given to ended"):
            there.submit(tasks.end_this_worker, b"").result(timeout=120)
        assert there.submit(tasks.print_and_reply, b"yes").result(timeout=120) == b"yes"


class KilledBy(Executor):
    """Gives one student's work to a function that ends its process."""

    def __init__(self, pool, student, function):
        self.pool, self.student, self.function = pool, student, function
        self.times = 0

    def submit(self, fn, request):
        if Work.from_bytes(request).student != self.student:
            return self.pool.submit(fn, request)
        self.times += 1
        return self.pool.submit(self.function, request)


def test_a_submission_that_ends_its_process_each_time_is_recorded_as_trouble(
    toy_course, hand_in, tasks
):
    for student in ("ada", "bob", "cleo"):
        hand_in(student)
    with LocalPool(2) as pool:
        killing = KilledBy(pool, "bob", tasks.end_this_process)
        rows = run_batch(toy_course, killing)
    assert [rows[name].status for name in ("ada", "bob", "cleo")] == ["graded", "failed", "graded"]
    assert "ended by SIGKILL" in rows["bob"].happened
    assert killing.times == 2


def test_a_worker_killed_in_the_middle_changes_no_score(toy_course, hand_in, own_cluster):
    students = [f"student{number}" for number in range(6)]
    for number, student in enumerate(students):
        hand_in(student, answer=SLOW if number % 2 else WRONG)
    with LocalPool(2) as pool:
        expected = scores(run_batch(toy_course, pool))
    cluster = own_cluster()
    first, _ = cluster.start_worker(), cluster.start_worker()
    killed = []

    def kill_once(student):
        if not killed:
            killed.extend(cluster.kill(first))

    with Cluster(cluster.address, toy_of(toy_course)) as there:
        there.client.wait_for_workers(2, timeout=60)
        there.size = 2
        rows = run_batch(toy_course, there, kill_once, force=True)
    assert killed
    assert scores(rows) == expected
    assert all(ended(pid) for pid in killed)


def test_a_scheduler_killed_in_the_middle_loses_nothing(toy_course, hand_in, own_cluster):
    students = [f"student{number}" for number in range(8)]
    for student in students:
        hand_in(student, answer=SLOW)
    cluster = own_cluster()
    cluster.start_worker()
    done = []

    def kill(student):
        if not done:
            cluster.kill(cluster.scheduler)
        done.append(student)

    with (
        pytest.raises(ClusterError, match=r"connection to the scheduler at .* was lost") as error,
        Cluster(cluster.address, toy_of(toy_course), patience=20) as there,
    ):
        run_batch(toy_course, there, kill)
    assert "the same command goes on from there" in str(error.value)
    assert 0 < len(done) < len(students)
    with LocalPool(2) as pool:
        rows = run_batch(toy_course, pool)
    assert {name for name, row in rows.items() if row.status == "unchanged"} == set(done)
    assert {row.score for row in rows.values()} == {6}


def test_a_cluster_that_loses_its_last_worker_is_given_up(toy_course, tasks, own_cluster):
    cluster = own_cluster()
    worker = cluster.start_worker(PYTHONPATH=os.environ["PYTHONPATH"])
    with Cluster(cluster.address, toy_of(toy_course)) as there:
        there.patience = 3
        note = cluster.home / "pid"
        future = there.submit(tasks.wait_for_long, str(note).encode())
        wait_for(note)
        cluster.kill(worker)
        with pytest.raises(ClusterError, match="has had no worker for 3 seconds"):
            future.result(timeout=60)


def test_a_scheduler_that_is_not_there_is_named(toy_course, hand_in):
    hand_in()
    done = command(toy_course, "--scheduler", "tcp://127.0.0.1:9")
    assert done.returncode == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9: expected one" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_without_workers_is_named(toy_course, own_cluster):
    with pytest.raises(ClusterError, match=r"no worker for 0\.5 seconds: expected one or more"):
        Cluster(own_cluster().address, toy_of(toy_course), patience=0.5)


def test_a_worker_with_another_package_is_named(toy_course, own_cluster):
    cluster = own_cluster()
    fake = cluster.home / "packages" / "torch-0.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n")
    cluster.start_worker(PYTHONPATH=before(str(fake.parent)))
    expected = f"torch is 0.0.1, expected {environment()['torch']}"
    with pytest.raises(ClusterError, match=re.escape(expected)):
        Cluster(cluster.address, toy_of(toy_course))


def test_a_worker_with_another_package_that_joins_later_gets_nothing_to_grade(
    toy_course, tasks, own_cluster
):
    cluster = own_cluster()
    fake = cluster.home / "packages" / "torch-0.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n")
    path = os.environ["PYTHONPATH"]
    first = cluster.start_worker(PYTHONPATH=path)
    with Cluster(cluster.address, toy_of(toy_course)) as there:
        cluster.start_worker(PYTHONPATH=f"{fake.parent}{os.pathsep}{path}")
        there.client.wait_for_workers(2, timeout=60)
        cluster.kill(first)
        expected = f"torch is 0.0.1, expected {environment()['torch']}"
        with pytest.raises(ClusterError, match=re.escape(expected)):
            there.submit(tasks.process_number, b"").result(timeout=60)


def test_a_worker_without_the_project_is_named(toy_course, own_cluster):
    cluster = own_cluster()
    folder = cluster.home / "packages"
    folder.mkdir()
    (folder / "autograder.py").write_text("raise ModuleNotFoundError('no autograder here')\n")
    cluster.start_worker(PYTHONPATH=before(str(folder)))
    with pytest.raises(ClusterError, match=r"cannot grade: .*no autograder here.*; expected the"):
        Cluster(cluster.address, toy_of(toy_course))


def openssl(folder, *arguments):
    program = shutil.which("openssl")
    assert program, "openssl is not installed: see apt.txt"
    run = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def make_certificates(folder):
    """Make an authority, a certificate that it signed, and the settings of Dask that use them."""
    folder.mkdir()
    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(folder, *new, "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(folder, *new, "-subj", "/CN=cluster", "-keyout", "key.pem", "-out", "request.pem")
    sign = ("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key")
    openssl(folder, *sign, "-CAcreateserial", "-out", "certificate.pem")
    pair = {"cert": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}
    tls = {"ca-file": str(folder / "ca.pem"), "scheduler": pair, "worker": pair, "client": pair}
    settings = {"distributed": {"comm": {"require-encryption": True, "tls": tls}}}
    # JSON is YAML
    (folder / "distributed.yaml").write_text(json.dumps(settings))
    return {"DASK_CONFIG": str(folder)}


@pytest.fixture(scope="module")
def certificates():
    # not below pytest's folder, which is hidden from the workers
    folder = Path(tempfile.mkdtemp(prefix="certificates-"))
    made = {name: make_certificates(folder / name) for name in ("ours", "of_strangers", "none")}
    (folder / "none" / "certificate.pem").unlink()
    yield made
    shutil.rmtree(folder)


def test_a_cluster_over_tls_grades_for_those_with_its_certificates_alone(
    toy_course, hand_in, own_cluster, certificates
):
    hand_in("ada")
    cluster = own_cluster(scheme="tls", **certificates["ours"])
    cluster.start_worker()
    assert cluster.address.startswith("tls://")
    for address, settings in [
        (cluster.address, certificates["of_strangers"]),
        (cluster.address.replace("tls://", "tcp://"), {}),
    ]:
        refused = command(toy_course, "--scheduler", address, **settings)
        assert refused.returncode == 2, refused.stderr
        assert f"no Dask scheduler answers at {address}: expected one" in refused.stderr
        assert "Traceback" not in refused.stderr
    done = command(toy_course, "--scheduler", cluster.address, "--json", **certificates["ours"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["score"] == 6


@pytest.mark.parametrize(
    ("address", "whose", "words"),
    [
        ("tls://127.0.0.1:9", "", "names no certificates"),
        ("tls://127.0.0.1:9", "none", "certificates cannot be read"),
        ("tcp://127.0.0.1:9", "ours", "requires encryption"),
    ],
)
def test_settings_of_dask_that_do_not_fit_an_address_are_named(
    toy, certificates, address, whose, words
):
    settings = {}
    if whose:
        folder = Path(certificates[whose]["DASK_CONFIG"])
        settings = {
            "distributed.comm.require-encryption": True,
            "distributed.comm.tls.ca-file": str(folder / "ca.pem"),
            "distributed.comm.tls.client.cert": str(folder / "certificate.pem"),
            "distributed.comm.tls.client.key": str(folder / "key.pem"),
        }
    with dask.config.set(settings), pytest.raises(ClusterError, match=words):
        Cluster(address, toy)


def test_a_student_reaches_no_port_of_the_cluster(toy_course, hand_in, cluster):
    with Cluster(cluster.address, toy_of(toy_course)) as there:
        addresses = [cluster.address, *there.client.nthreads()]
        ports = [int(address.rpartition(":")[2]) for address in addresses]
        probe = (
            "import socket\n"
            f"for port in {ports}:\n"
            "    try:\n"
            "        socket.create_connection(('127.0.0.1', port), 2).close()\n"
            "        print('reached')\n"
            "    except OSError as error:\n"
            "        print('refused', type(error).__name__)\n"
        )
        for port in ports:
            socket.create_connection(("127.0.0.1", port), 5).close()
        hand_in("eve", change=lambda nb: nb.cells.insert(1, nbformat.v4.new_code_cell(probe)))
        run_batch(toy_course, there)
    text = next(iter(notebooks(toy_course).values()))
    shown = [
        output.text
        for cell in nbformat.reads(text, as_version=4).cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ]
    assert "".join(shown).split().count("refused") == len(ports)
    assert "reached" not in "".join(shown)
