"""The class's secret, which the checks' random inputs come from."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def read_class_seed(path: Path) -> str:
    """Return the secret kept at `path`; make one that only the owner can read if there is none.

    Raises
    ------
    OSError
        If it can be neither read nor made, or is empty, which everybody could guess.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(16) + "\n")
        except BaseException:
            path.unlink()
            raise
    secret = path.read_text().strip()
    if not secret:
        raise OSError(f"{path} is empty; remove it, and a new secret is made")
    return secret
