"""Runs submitted notebooks and judges them outside the student's process."""

import importlib
import sys


def _import_jsonschema() -> None:
    """Import jsonschema, which nbformat needs, without a format that no notebook uses.

    For it jsonschema would build a grammar of internationalized addresses, which takes longer than
    importing torch. What is missing is left out, as jsonschema does where it is not installed.
    """
    grammar = "rfc3987_syntax"
    if "jsonschema" not in sys.modules and grammar not in sys.modules:
        sys.modules[grammar] = None  # type: ignore[assignment]
        try:
            importlib.import_module("jsonschema")
        finally:
            del sys.modules[grammar]


_import_jsonschema()
