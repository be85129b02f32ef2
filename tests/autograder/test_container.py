"""What runs in the benchmarks' container reaches nothing outside and is stopped at its limits."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.autograder.attack_course import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import container

PROGRAMS = {
    "memory": (
        "import os, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        held = bytearray(b'x') * (40 * 2**20)\n"
        "        time.sleep(60)\n"
        "time.sleep(60)",
        "memory",
    ),
    "time": ("while True: pass", "time"),
}


PROBE = (
    "import os, signal, socket\n"
    "print(open('/mnt/given').read())\n"
    "for path in ('/planted', '/mnt/planted', '/var/planted'):\n"
    "    try: open(path, 'w'); print('wrote', path)\n"
    "    except OSError: pass\n"
    "print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit())[-1] < 100)\n"
    "print([name for _, name in socket.if_nameindex()])\n"
    "print(os.getuid())\n"
    "os.kill(-1, signal.SIGKILL)\n"
)


@pytest.mark.parametrize("limit", PROGRAMS)
def test_the_container_stops_a_program_that_exceeds(limit, monkeypatch):
    monkeypatch.setattr(container, "MEMORY", 80 * 2**20)
    program, stopped = PROGRAMS[limit]
    ended = container.run([sys.executable, "-c", program], shown={}, seconds=2)
    assert ended.stopped == stopped


def test_the_container_shows_folders_and_lets_nothing_out():
    """No process, no write, no connection of a program in the container reaches the machine."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        Path(folder, "given").write_text("given")
        ended = container.run(
            [sys.executable, "-uc", PROBE], shown={"/mnt": Path(folder)}, seconds=30
        )
    user = container.FIRST_USER if os.getuid() == 0 else os.getuid()
    assert ended.said.splitlines() == ["given", "True", "['lo']", str(user)], ended.complained
