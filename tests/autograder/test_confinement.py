"""A submission's process sees and reaches nothing but the interpreter and its own folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from autograder import confinement
from autograder.child import memory
from autograder.engine import Limits, NotebookRun, grade_notebook
from tests.autograder.ordinary_user import as_ordinary_user

ATTEMPTS = {
    "read the course": "open(ROOT + '/README.md')",
    "read the home folder": "import os; open(HOME + '/.bashrc')",
    "write into the root": "open('/planted', 'w')",
    "write among the libraries": "import torch; open(torch.__file__, 'a')",
    "write into /dev": "open('/dev/planted', 'w')",
    "open a network socket": "import socket; socket.socket(socket.AF_INET)",
    "open a packet socket": "import socket; socket.socket(17, 3)",
    "mount": "libc('mount', b'none', b'/tmp', b'tmpfs', 0, None)",
    "make a user namespace": "libc('unshare', 0x10000000)",
    "make a mount namespace": "libc('unshare', 0x00020000)",
    "trace the first process": "libc('ptrace', 16, 1, 0, 0)",
    "change the root": "libc('chroot', b'/tmp')",
    "set the host's name": "libc('sethostname', b'x', 1)",
    "signal the first process's parent": "import os; os.kill(os.getppid() + 100000, 9)",
    "fill the disk": ("for i in range(99):\n    open(f'fill{i}', 'wb').write(bytes(20 * 2**20))"),
    "write a huge file": "open('huge', 'wb').write(bytes(150 * 2**20))",
    "open many files": "files = [open('/dev/null') for _ in range(1000)]",
    "take much memory": "x = bytearray(8 * 2**30)",
    "start many processes": (
        "import os, time\n"
        "for _ in range(500):\n    if os.fork() == 0:\n        time.sleep(30)\n        os._exit(0)"
    ),
    "become root": "import os; os.setuid(0) if os.getuid() else int('root already')",
    "change a kernel setting": "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')",
}

PREAMBLE = f"""
import ctypes, os
ROOT, HOME = {str(Path(__file__).parents[2])!r}, {str(Path.home())!r}
def libc(name, *arguments):
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""

LIMITS = Limits(cell_seconds=20, folder_size=64 * 2**20)


def attempt_all() -> dict[str, str]:
    """Return, for each attempt, the name of the error that stopped it, or an empty string."""
    cells = [nbformat.v4.new_code_cell(source) for source in (PREAMBLE, *ATTEMPTS.values())]
    run = NotebookRun(nbformat.v4.new_notebook(cells=cells), None, limits=LIMITS)
    try:
        verdict = run.run_cells()
    finally:
        run.close()
    assert verdict.incidents == []
    assert verdict.outputs[0] == []
    stopped = {}
    for index, name in enumerate(ATTEMPTS, start=1):
        errors = [out["ename"] for out in verdict.outputs[index] if out["output_type"] == "error"]
        stopped[name] = errors[0] if errors else ""
    return stopped


@pytest.fixture(scope="module")
def stopped_for_this_user():
    return attempt_all()


@pytest.fixture(scope="module")
def stopped_for_an_ordinary_user():
    """Run the attempts as a user without privileges, where the tests are run by root."""
    if os.getuid() != 0:
        return attempt_all()
    code = (
        "import json, runpy, sys\n"
        f"module = runpy.run_path({__file__!r})\n"
        "json.dump(module['attempt_all'](), sys.stdout)"
    )
    return loaded_from(as_ordinary_user([sys.executable, "-c", code]))


def loaded_from(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_is_stopped(name, stopped_for_this_user):
    assert stopped_for_this_user[name]


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_is_stopped_for_an_ordinary_user(name, stopped_for_an_ordinary_user):
    assert stopped_for_an_ordinary_user[name]


def test_a_file_is_copied_with_its_mode_though_it_can_have_no_access_list():
    source = "open('a', 'w').close()\n!chmod 640 a && cp -p a b && stat -c %a b"
    run = NotebookRun(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), None, limits=LIMITS
    )
    try:
        (output,) = run.run_cells().outputs[0]
    finally:
        run.close()
    assert output["text"].split() == ["640"]


def test_memory_that_was_swapped_out_counts(monkeypatch, tmp_path):
    """A process can ask for that, and so could fill the machine's swap beside its limit."""
    (tmp_path / "status").write_text("RssAnon:\t  10 kB\nVmSwap:\t  20 kB\n")
    (tmp_path / "smaps_rollup").write_text("Pss_Anon:  1 kB\nSwap:  9 kB\nSwapPss:  2 kB\n")
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / path.rpartition("/")[2])
    assert memory.private_memory(1) == 30 * 1024
    assert memory.proportional_memory(1) == 3 * 1024


ROOT_OF_A_NAMESPACE = ["unshare", "--user", "--map-root-user", sys.executable, "-c"]


def test_root_of_a_namespace_without_other_users_grades_as_the_user_it_is_outside():
    """Once every submission failed there, since it could not become a user of its own."""
    code = (
        "import json, os, runpy, sys\n"
        f"module = runpy.run_path({__file__!r})\n"
        "json.dump([os.getuid(), module['attempt_all']()], sys.stdout)"
    )
    user, stopped = loaded_from(as_ordinary_user([*ROOT_OF_A_NAMESPACE, code]))
    assert user == 0
    assert [name for name in ATTEMPTS if not stopped[name]] == []


def test_root_in_a_namespace_without_other_users_is_told_that_it_cannot_confine():
    code = (
        "import json, sys\n"
        "from autograder.confinement import missing_confinement\n"
        "json.dump(missing_confinement(), sys.stdout)"
    )
    missing = loaded_from([*ROOT_OF_A_NAMESPACE, code])
    # whoever is an ordinary user outside can be confined
    assert ("no other user to become" in missing) == (os.getuid() == 0)


def test_root_of_a_kernel_without_user_namespaces_can_become_anybody(monkeypatch, tmp_path):
    monkeypatch.setattr(confinement, "OWN_STATUS", tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert confinement.users_of_their_own.__wrapped__()


def test_an_interpreter_that_is_named_by_way_of_another_folder_can_be_confined(tmp_path):
    """Once `../course/.venv/bin/python -m autograder` found no interpreter in the sandbox."""
    roundabout = str(tmp_path / os.path.relpath(sys.executable, tmp_path))
    code = (
        "import json, sys\n"
        "from autograder.confinement import missing_confinement\n"
        f"sys.executable = {roundabout!r}\n"
        "json.dump(missing_confinement(), sys.stdout)"
    )
    assert loaded_from([sys.executable, "-c", code]) == ""


def test_the_environment_holds_nothing_of_the_graders(monkeypatch):
    monkeypatch.setenv("COURSE_TOKEN", "secret-token")
    cell = nbformat.v4.new_code_cell(
        "import os, pathlib\n"
        "seen = str(dict(os.environ))\n"
        "for path in pathlib.Path('/proc').glob('[0-9]*/environ'):\n"
        "    try:\n        seen += path.read_text()\n    except OSError:\n        pass\n"
        "'secret-token' in seen"
    )
    run = NotebookRun(nbformat.v4.new_notebook(cells=[cell]), None, limits=LIMITS)
    try:
        outputs = run.run_cells().outputs[0]
    finally:
        run.close()
    assert outputs[0]["data"]["text/plain"] == "False"


def test_without_confinement_grading_refuses_and_says_what_to_do(monkeypatch, toy, toy_notebook):
    monkeypatch.setattr(confinement, "missing_confinement", lambda: "bubblewrap is not installed")
    monkeypatch.setattr("autograder.engine._warm", {})
    with pytest.raises(confinement.ConfinementUnavailableError) as caught:
        grade_notebook(toy_notebook("x = 1"), toy)
    assert "bubblewrap is not installed" in str(caught.value)
    assert "--unconfined" in str(caught.value)
    assert "container" in str(caught.value)


def test_unconfined_grading_works_when_it_is_asked_for(toy, toy_notebook):
    notebook = toy_notebook("def square(x):\n    return x * x")
    verdict = grade_notebook(notebook, toy, confined=False)
    assert verdict.cells["test_square"].earned == 3


def test_secret_folders_inside_a_shown_folder_are_covered(tmp_path, monkeypatch):
    secret = tmp_path / "solutions"
    secret.mkdir()
    monkeypatch.setattr(confinement, "SYSTEM_FOLDERS", (str(tmp_path),))
    command = confinement.sandbox_command([secret, tmp_path / "missing"])
    position = command.index(str(secret))
    assert command[position - 1] == "--tmpfs"
    assert str(tmp_path / "missing") not in command
