"""Fixtures of the `lossref` tests: devices and seeded generators."""

import sys
from pathlib import Path

import pytest
import torch

# The oracle is a module beside the tests, which importlib mode does not put on the path.
sys.path.insert(0, str(Path(__file__).parent))


DEVICES = ["cpu"]
if torch.cuda.is_available():
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.fixture(params=DEVICES)
def place(request):
    """The CPU, and a GPU where there is one."""
    return request.param


@pytest.fixture
def generator():
    """A seeded generator, so that a failure can be repeated."""
    return torch.Generator().manual_seed(20240607)
