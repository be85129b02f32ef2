"""Numbers for prose."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

from book.means.numbers import number, percent, state


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1797, 3, "1,797"),
        (-3, 3, "−3"),
        (2.302585, 4, "2.303"),
        (0.0009996, 3, "0.00100"),
        (0.00001234, 3, "1.23 × 10⁻⁵"),
        (-2.0611536e-9, 6, "−2.06115 × 10⁻⁹"),
        (123456.7, 3, "123,457"),
        (9.9999e6, 2, "1.0 × 10⁷"),
        (1234567.8, 3, "1.23 × 10⁶"),
        (0.0001234, 3, "0.000123"),
        (0.0, 3, "0"),
        (-0.0, 3, "0"),
        (float("inf"), 3, "∞"),
        (float("-inf"), 3, "−∞"),
        (float("nan"), 3, "NaN"),
        (torch.tensor(0.25), 2, "0.25"),
        (np.float32(1.5), 3, "1.50"),
        (mpmath.mpf("1e-40"), 2, "1.0 × 10⁻⁴⁰"),
        (Fraction(1, 3), 3, "0.333"),
    ],
)
def test_number_is_written_for_prose(value: object, digits: int, text: str) -> None:
    assert number(value, digits) == text


@pytest.mark.parametrize("value", [torch.zeros(2), "0.5", None, True])
def test_number_refuses_what_is_not_one_number(value: object) -> None:
    with pytest.raises(TypeError, match="number"):
        number(value)


def test_number_refuses_no_digits() -> None:
    with pytest.raises(ValueError, match="digits must be at least 1, got 0"):
        number(1.0, 0)


@pytest.mark.parametrize(("value", "text"), [(0.95321, "95.3%"), (-0.5, "−50.0%"), (1, "100.0%")])
def test_percent_has_one_decimal(value: float, text: str) -> None:
    assert percent(value) == text


def test_state_glues_the_text_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    glued: list[tuple[str, str, bool]] = []
    monkeypatch.setattr(
        "book.means.numbers.glue", lambda name, text, display: glued.append((name, text, display))
    )
    state("loss", 0.18683)
    state("verdict", "exactly 0")
    assert glued == [("loss", "0.187", False), ("verdict", "exactly 0", False)]
