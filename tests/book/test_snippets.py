"""Snippets, the wrong-and-right pairs and the table of library differences."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup

from book.means.library_table import Answer, Case, library_table, relative_error
from book.means.snippets import shown, source_of, value_of, wrong_and_right


def cell(markup: str, selector: str) -> list[str]:
    return [element.get_text() for element in BeautifulSoup(markup, "html.parser").select(selector)]


def sample(x: float) -> float:
    """Docstring that is not shown."""
    # this comment is shown
    return x + 1


def test_value_of_is_that_of_the_last_expression() -> None:
    names = {"x": 2}
    assert value_of("y = 3 * x\ny + 1", names) == 7
    assert names == {"x": 2}


@pytest.mark.parametrize("source", ["", "y = 1"])
def test_snippet_without_a_value_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="must end in an expression"):
        value_of(source, {})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.tensor(0.25, requires_grad=True), "0.250"),
        (np.float32("nan"), "NaN"),
        (3, "3"),
        (torch.tensor([1.0, -math.inf]), "[1.00, −∞]"),
        ("text", "text"),
        (True, "True"),
        (torch.float32, "torch.float32"),
    ],
)
def test_results_are_shown_as_numbers(value: object, text: str) -> None:
    assert shown(value) == text


def test_pair_shows_both_results() -> None:
    pair = wrong_and_right(wrong="x < 3", right="x * 2", namespace={"x": 1.5})._repr_html_()
    assert cell(pair, ".wrong samp") == ["True"]
    assert cell(pair, ".right samp") == ["3.00"]
    assert cell(pair, ".wrong pre") == ["x < 3\n"]


def test_pair_with_equal_results_is_refused() -> None:
    with pytest.raises(ValueError, match="the wrong snippet gives the right result, 4"):
        wrong_and_right(wrong="2 + 2", right="2 * 2", namespace={})


def test_pair_shows_the_expected_exception() -> None:
    pair = wrong_and_right(wrong="[][1]", right="[0][0]", raises=IndexError, namespace={})
    assert pair.wrong_result == "IndexError: list index out of range"


def test_pair_refuses_an_exception_that_does_not_come() -> None:
    with pytest.raises(ValueError, match="expected IndexError from '1', got 1"):
        wrong_and_right(wrong="1", right="2", raises=IndexError, namespace={})


@pytest.mark.parametrize("raises", [None, IndexError])
def test_pair_does_not_hide_an_unexpected_exception(raises: type[Exception] | None) -> None:
    with pytest.raises(ZeroDivisionError):
        wrong_and_right(wrong="1 / 0", right="2", raises=raises, namespace={})


def test_source_is_shown_without_its_docstring() -> None:
    assert source_of(sample).text == (
        "def sample(x: float) -> float:\n    # this comment is shown\n    return x + 1"
    )


def warn_and_answer() -> float:
    warnings.warn("  mind\n  this ", stacklevel=2)
    return 1.0


def table(exact: object, **calls: str) -> object:
    case = Case("only", "Title <b>", exact, calls)
    return library_table("Caption", [case], namespace={"np": np, "warn": warn_and_answer})


def test_table_runs_the_calls_that_it_shows() -> None:
    made = table(2, first="np.float32(2)", second="1 + np.float64(2)")
    markup = made._repr_html_()
    assert cell(markup, "tbody code") == ["np.float32(2)", "1 + np.float64(2)"]
    assert cell(markup, "tbody td") == ["2.00000", "none", "3.00000", "0.50"]
    assert made.value("only", "second") == 3.0
    assert "Title <b>: exactly 2." in cell(markup, "tr.case th")[0]


def test_table_shows_what_a_library_warns_of() -> None:
    markup = table(1, first="warn()")._repr_html_()
    assert cell(markup, ".warning") == ["Warns: “mind this”"]


def test_table_refuses_an_answer_that_is_not_one_number() -> None:
    with pytest.raises(ValueError, match=r"first: 'np.zeros\(2\)' must give one number"):
        table(1, first="np.zeros(2)")


def test_table_refuses_two_cases_of_one_name() -> None:
    with pytest.raises(ValueError, match=r"a name of its own, got \['a'\] twice"):
        library_table("Caption", [Case("a", "", 1, {}), Case("a", "", 1, {})], namespace={})


@pytest.mark.parametrize(("case", "library"), [("other", "first"), ("only", "other")])
def test_table_names_what_it_does_not_know(case: str, library: str) -> None:
    with pytest.raises(KeyError, match="other"):
        table(1, first="1").value(case, library)


@pytest.mark.parametrize(
    ("value", "eps", "exact", "text"),
    [
        (0.5, 2.0**-23, Fraction(1, 2), "none"),
        (1 / 3, 2.0**-52, Fraction(1, 3), "rounding only"),
        (0.0, 2.0**-23, mpmath.mpf("2e-9"), "1.0"),
        (float(np.float32(0.1)), 2.0**-23, mpmath.mpf("0.1"), "rounding only"),
        (0.1 * (1 + 3e-7), 2.0**-23, mpmath.mpf("0.1"), "3.0 × 10⁻⁷"),
        (math.nan, 2.0**-23, Fraction(1, 2), "not a number"),
        (math.inf, 2.0**-23, mpmath.inf, "none"),
        (16.1, 2.0**-23, mpmath.inf, "infinite"),
        (1e-3, 2.0**-23, 0, "infinite"),
        (1.0, 2.0**-23, None, "—"),
    ],
)
def test_relative_error_is_said_in_words(
    value: float, eps: float, exact: object, text: str
) -> None:
    assert relative_error(Answer("library", "call", value, eps), exact) == text
