"""The class's secret, which the checks' random inputs come from."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def read_class_seed(path: Path) -> str:
    """Return the secret kept at `path`; make one that only the owner can read if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(16) + "\n")
    return path.read_text().strip()
