"""The type stub of `lossref.nn`, made from the signatures.

Run after a signature has changed: python tests/lossref/nn_stub.py
"""

import inspect
from pathlib import Path

from lossref import nn

PATH = Path(nn.__file__).with_suffix(".pyi")

HEAD = '''"""Types of the modules, generated from the functions' signatures."""

from typing import Any

from lossref._arrays import Array
from lossref._modules import Loss as Loss
'''


def definition(name, arguments, result):
    """One line where it fits, and else one for each argument."""
    line = f"    def {name}({', '.join(arguments)}) -> {result}: ..."
    if len(line) <= 100:
        return line
    inside = "".join(f"        {argument},\n" for argument in arguments)
    return f"    def {name}(\n{inside}    ) -> {result}: ..."


def quoted(parameter):
    """A parameter whose default is a string keeps double quotes."""
    text = str(parameter).split(" = ")[0].replace("'", "")
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    return f"{text} = " + (f'"{default}"' if isinstance(default, str) else repr(default))


def of_class(cls):
    known = inspect.signature(cls.function).parameters
    options = [quoted(parameter) for parameter in inspect.signature(cls).parameters.values()]
    keyword, position = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    arrays = [quoted(known[array].replace(kind=position)) for array in cls.arrays]
    named = [quoted(known[name].replace(kind=keyword)) for name in cls.named]
    call = ["self", *arrays, *(["*", *named] if named else [])]
    summary = cls.__doc__.partition("\n")[0]
    made = ["self", *(["*", *options] if options else [])]
    lines = [
        f"class {cls.__name__}(Loss):",
        f'    """{summary}"""',
        "",
        definition("__init__", made, "None"),
        definition("forward", call, "Array"),
        definition("__call__", call, "Array"),
    ]
    return "\n".join(lines)


def text():
    classes = [getattr(nn, name) for name in nn.__all__]
    return HEAD + "".join("\n" + of_class(cls) + "\n" for cls in classes if cls is not nn.Loss)


if __name__ == "__main__":
    PATH.write_text(text())
