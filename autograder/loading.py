"""Imports what is slow to load, and spares it the search for garbage, then and at the end."""

from __future__ import annotations

import atexit
import gc
import importlib
from functools import cache
from types import ModuleType

# as it ends, Python would search all that was loaded, for up to a second
atexit.register(gc.freeze)


@cache
def load(name: str) -> ModuleType:
    """Import a module without a search for garbage: there is none in what is imported."""
    searches = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        if searches:
            gc.enable()
