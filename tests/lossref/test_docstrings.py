"""Every public name is documented, and its example runs."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import lossref

MODULES = [module.name for module in pkgutil.iter_modules(lossref.__path__)]
FUNCTIONS = [name for name in lossref.__all__ if inspect.isfunction(getattr(lossref, name))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(f"lossref.{name}"))
    assert result.failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_is_complete(name):
    function = getattr(lossref, name)
    text = inspect.getdoc(function)
    for section in ("Parameters", "Returns", "Raises", "Examples"):
        assert f"{section}\n{'-' * len(section)}\n" in text, f"{name} has no section {section}"
    assert ">>> " in text
    parameters = text.split("Parameters\n")[1].split("\n\nReturns\n")[0]
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter} :" in parameters or f"{parameter}, " in parameters, parameter
