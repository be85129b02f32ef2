"""What all tests share: which of them this machine can run."""

import pytest
import torch


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that need a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    needless = [item for item in items if item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=needless)
    items[:] = [item for item in items if item not in needless]
