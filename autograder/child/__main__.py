"""Starts the server of warm processes, each of which forks a child for a submission at a time.

Started by its path, with a socket to the trusted side and one to say there that all is loaded.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(
        "notebook_runner", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    sys.modules["notebook_runner"] = importlib.util.module_from_spec(spec)
    sys.path = [entry for entry in sys.path if Path(entry) != folder]
    importlib.import_module("notebook_runner.server").main(*map(int, sys.argv[1:]))
