"""The parameters that mean the same in every loss, documented once.

`takes_arrays` adds them to the docstring of each function that has them and does not say more.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

SHARED = {
    "mask": (
        "boolean array, optional",
        "True where an entry counts, broadcast to the shape of ``{first}``. Entries left out touch "
        "neither value nor gradient, even if they hold NaN or infinity.",
    ),
    "denominator": ("number or 0-d array, optional", "What the mean divides by instead."),
    "nan_if_empty": (
        "bool",
        "A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.",
    ),
}

HEADING = "Parameters\n----------\n"


def with_shared_parameters(function: Callable[..., Any]) -> str | None:
    """The docstring of a function, with the shared parameters at their places."""
    text, names = inspect.getdoc(function), list(inspect.signature(function).parameters)
    if text is None or HEADING not in text:
        return text
    before, after = text.split(HEADING, 1)
    section, _, rest = after.partition("\n\n")
    entries = re.findall(r"^\S.*\n?(?:^ .*\n?)*", section, re.MULTILINE)
    documented = {name: entry for entry in entries for name in entry.split(" :")[0].split(", ")}
    for name in names:
        if name in SHARED and name not in documented:
            kind, meaning = SHARED[name]
            meaning = textwrap.fill(meaning.format(first=names[0]), 92)
            documented[name] = f"{name} : {kind}\n{textwrap.indent(meaning, '    ')}"
    # An entry of two names stands once.
    ordered = dict.fromkeys(documented[name].rstrip() for name in names if name in documented)
    return before + HEADING + "\n".join(ordered) + "\n\n" + rest
