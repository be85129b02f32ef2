"""Numbers that prose states: computed by a cell, formatted once, pasted by name."""

from __future__ import annotations

import math
from typing import Any

from myst_nb import glue

MINUS = "\N{MINUS SIGN}"
SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(value: Any, digits: int = 3) -> str:
    """Write a number for prose: `digits` significant digits, a power of ten when far from 1.

    Integers are written in full. `value` may be a Python number, an mpmath number, or a NumPy,
    torch or JAX scalar.

    >>> number(1797), number(2.302585), number(-2.06e-9), number(float("inf"))
    ('1,797', '2.30', '−2.06 × 10⁻⁹', '∞')
    """
    if digits < 1:
        raise ValueError(f"digits must be at least 1, got {digits}")
    if isinstance(value, bool | str):
        raise TypeError(f"value must be one number, got {value!r}")
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    try:
        plain = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"value must be one number, got {value!r}") from error
    return _real(plain, digits)


def _real(value: float, digits: int) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 <= power < 6:
        text = f"{value:,.{max(digits - 1 - power, 0)}f}"
    else:
        text = f"{mantissa} × 10{str(power).translate(SUPERSCRIPT)}"
    return text.replace("-", MINUS)


def percent(value: Any, decimals: int = 1) -> str:
    """Write a share as a percentage.

    >>> percent(0.9532)
    '95.3%'
    """
    return f"{float(value):.{decimals}%}".replace("-", MINUS)


def state(name: str, value: Any, digits: int = 3) -> None:
    """Give a computed number (or a finished text) a name that prose pastes with `{glue:text}`."""
    text = value if isinstance(value, str) else number(value, digits)
    glue(name, text, display=False)
