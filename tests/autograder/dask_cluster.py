"""A real Dask scheduler and real workers, each a process in a folder of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DASK = str(Path(sys.executable).with_name("dask"))
START_SECONDS = 60


class DaskCluster:
    """A scheduler and workers that do not see the folders in `hidden`."""

    def __init__(self, hidden=(), scheme="tcp", **environment):
        self.home = Path(tempfile.mkdtemp(prefix="cluster-"))
        self.hidden = hidden
        self.environment = {**os.environ, **environment}
        self.processes = []
        file = self.home / "scheduler.json"
        options = ["--host", f"{scheme}://127.0.0.1", "--port", "0", "--no-dashboard"]
        self.scheduler = self._start(
            "scheduler", [DASK, "scheduler", *options, "--scheduler-file", str(file)]
        )
        self.address = self._wait_for(file)["address"]

    def _start(self, name, command, **environment):
        folder = self.home / name
        folder.mkdir()
        with (folder / "log.txt").open("w") as log:
            process = subprocess.Popen(
                command,
                cwd=folder,
                # what is switched off leaves its temporary folders behind
                env={"TMPDIR": str(folder)} | self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def _wait_for(self, file):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                return json.loads(file.read_text())
            time.sleep(0.05)
        raise AssertionError(f"no scheduler: {self.logs()}")

    def start_worker(self, *options, **environment):
        number = len(self.processes)
        folder = self.home / f"worker-{number}"
        hide = [word for path in self.hidden for word in ("--tmpfs", str(path))]
        command = ["bwrap", "--dev-bind", "/", "/", *hide, "--"] if hide else []
        command += [DASK, "worker", self.address, "--nthreads", "1", "--no-dashboard"]
        command += ["--local-directory", str(folder / "scratch"), "--name", folder.name, *options]
        return self._start(folder.name, command, **environment)

    def kill(self, process):
        """Kill a process and all that it started, as when its machine is switched off."""
        pids = [process.pid, *descendants(process.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        return pids

    def logs(self):
        return {path.parent.name: path.read_text() for path in self.home.glob("*/log.txt")}

    def close(self):
        for process in reversed(self.processes):
            self.kill(process)
        shutil.rmtree(self.home, ignore_errors=True)


def descendants(pid):
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found
