"""No attack earns a point, finds a secret, reaches the host or harms the next submission."""

import json
import os
import subprocess
import sys

import pytest

from autograder.confinement import LAYERS
from tests.autograder.attack_course import ATTACKS, REPOSITORY, all_attacks, course
from tests.autograder.attack_lab import Lab
from tests.autograder.ordinary_user import as_ordinary_user

ALL = all_attacks()
WITH_LAYER = {name: attack.layer for name, attack in ALL.items() if attack.layer}
# what root gives up by becoming an ordinary user, an ordinary user gives up as capabilities
LAYERS_OF_ROOT_ONLY = {"user"}
LAYERS_OF_USERS_ONLY = {"capabilities"}


@pytest.fixture(scope="module")
def lab():
    with course() as made:
        lab = Lab(made)
        assert lab.honest().cells["test_square"].earned == 3
        yield lab
        lab.close()


def test_there_are_many_attacks_of_each_kind():
    counts = {folder.name: len(list(folder.glob("*.md"))) for folder in ATTACKS.iterdir()}
    assert min(counts.values()) >= 10
    assert sum(counts.values()) >= 60


@pytest.mark.parametrize("name", ALL)
def test_an_attack_achieves_nothing(name, lab):
    assert lab.trouble(ALL[name]) == []


def stopped_by_its_layer(layer):
    """Return whether the layer does anything for the user who runs this."""
    foreign = LAYERS_OF_USERS_ONLY if os.getuid() == 0 else LAYERS_OF_ROOT_ONLY
    return layer not in foreign


def test_each_layer_has_an_attack_that_it_alone_stops():
    assert set(WITH_LAYER.values()) == set(LAYERS)


@pytest.mark.parametrize(
    "name", [name for name, layer in WITH_LAYER.items() if stopped_by_its_layer(layer)]
)
def test_an_attack_works_when_its_layer_alone_is_off(name, lab):
    assert lab.loot_without(ALL[name], WITH_LAYER[name])


def test_an_ordinary_user_is_protected_too():
    """Where root runs the tests, a user without privileges runs those that root's power affects."""
    command = [sys.executable, "-m", "tests.autograder.attack_lab"]
    command += [name for name in ALL if name.startswith(("theft", "escape"))]
    done = subprocess.run(
        as_ordinary_user(command), cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {name: found for name, found in result["troubles"].items() if found} == {}
    works = {name for name, found in result["loot"].items() if found}
    assert works == {name for name in result["loot"] if WITH_LAYER[name] != "user"}
