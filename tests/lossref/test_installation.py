"""What is installed: a typed package that needs numpy and torch alone."""

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The contents of the wheel, as they lie in an environment."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def closure(names):
    """The distributions that these need, themselves among them."""
    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        waiting += [re.match(r"[\w.-]+", r)[0] for r in requires if "extra ==" not in r]
    return found


def test_the_wheel_holds_the_types_and_no_tests(installed):
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*.*")}
    assert {"lossref/py.typed", "lossref/nn.pyi", "lossref/nn.py"} <= files
    modules = {path.name for path in (ROOT / "lossref").glob("*.py*") if path.is_file()}
    assert {f"lossref/{name}" for name in modules} <= files
    assert {name.split("/")[0] for name in files} == {
        "lossref",
        "autograder",
        *(name.split("/")[0] for name in files if ".dist-info/" in name),
    }


BARE = """
import importlib.machinery, sys

known = {{*{modules!r}, *sys.stdlib_module_names}}

class Bare(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        # The interpreter's own build is described in a module whose name holds the platform.
        if top in known or top.startswith("_sysconfigdata"):
            return super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *args, **kwargs):
        # torch looks for optional packages by their metadata.
        found = super().find_distributions(*args, **kwargs)
        return [d for d in found if d.name.lower().replace("_", "-") in {distributions!r}]

builtin, frozen = importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter
sys.meta_path = [builtin, frozen, Bare]
sys.path.insert(0, {site!r})
"""

COMPUTE = """
import numpy as np, torch, lossref
assert lossref.__file__.startswith({site!r}), lossref.__file__
x, y = np.array([[0.0, 2.0]]), np.array([1])
value, gradient = lossref.value_and_grad(lossref.cross_entropy)(x, y)
assert abs(value - np.log1p(np.exp(-2.0))) < 1e-15, value
loss = lossref.nn.CrossEntropyLoss()(torch.zeros(2, 4, requires_grad=True), torch.tensor([0, 3]))
loss.backward()
hidden, weight = torch.ones(3, 2, requires_grad=True), torch.ones(5, 2, requires_grad=True)
lossref.linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 4])).backward()
print(loss.item())
"""


def bare(installed, code):
    """Run code where only numpy, torch, what they need and the wheel can be imported."""
    distributions = closure(["numpy", "torch"])
    modules = {"lossref"} | {
        top
        for top, owners in importlib.metadata.packages_distributions().items()
        if distributions & {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners}
    }
    preamble = BARE.format(modules=modules, distributions=distributions, site=str(installed))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", preamble + code.format(site=str(installed))],
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_imports_and_computes_with_numpy_and_torch_alone(installed):
    done = bare(installed, COMPUTE)
    assert done.returncode == 0, done.stderr
    assert abs(float(done.stdout) - 1.3862943) < 1e-6


def test_the_bare_environment_refuses_everything_else(installed):
    done = bare(installed, "import scipy")
    assert "No module named 'scipy'" in done.stderr
