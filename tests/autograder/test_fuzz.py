"""Random and damaged messages and notebooks never make the trusted side raise anything new."""

import os
import time

import pytest

from tests.autograder.fuzz_properties import PROPERTIES

FEW, MANY = 150, 20_000
# an hour: FUZZ_SECONDS=3600 make test-slow
SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_holds_for_a_few(name):
    PROPERTIES[name].try_out(FEW, repeatable=True)


@pytest.mark.slow
@pytest.mark.timeout(3600 + SECONDS)
@pytest.mark.parametrize("name", PROPERTIES)
def test_it_holds_for_many(name):
    end = time.monotonic() + SECONDS / len(PROPERTIES)
    PROPERTIES[name].try_out(MANY, repeatable=False)
    while time.monotonic() < end:
        PROPERTIES[name].try_out(MANY // 10, repeatable=False)
