"""What the sources of the chapters keep."""

from __future__ import annotations

import re

import pytest

from tests.book.built import CHAPTERS, ROOT

# What is not prose: front matter, cells and other fenced blocks without text, code, formulas, roles
NOT_PROSE = [
    r"\A---\n.*?\n---\n",
    r"^```\{code-cell\}.*?^```$",
    r"^\$\$.*?^\$\$.*?$",
    r"^:\w+:.*?$",
    r"\{[\w:]+\}`[^`]*`",
    r"`[^`]*`",
    r"\$[^$]*\$",
    r"\]\([^)]*\)",
]
TYPED_NUMBER = r"\d+\.\d+|\d+e[-+]?\d+|\d+\s?%|10\^"


def prose(text: str) -> str:
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.MULTILINE | re.DOTALL)
    return text


def typed_numbers(text: str) -> list[str]:
    return re.findall(TYPED_NUMBER, prose(text))


def unused_names(text: str) -> set[str]:
    named = re.findall(r'\b(?:state|figure|stepped_figure)\(\s*"([^"]+)"', text)
    pasted = re.findall(r"\{glue:text\}`([^`]+)`", text)
    pasted += re.findall(r"\{glue:figure\} (\S+)", text)
    return set(named) - set(pasted)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_computed_number_is_typed_into_prose(chapter: str) -> None:
    assert typed_numbers((ROOT / f"{chapter}.md").read_text("utf-8")) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_named_result_is_pasted_somewhere(chapter: str) -> None:
    assert unused_names((ROOT / f"{chapter}.md").read_text("utf-8")) == set()


def test_typed_numbers_are_found() -> None:
    text = (
        "The loss is 0.187, or 83%, or 1e-7.\n```{code-cell} ipython3\n0.5\n```\n"
        "But `0.25`, {glue:text}`x` and $0.75$ are not prose.\n"
    )
    assert typed_numbers(text) == ["0.187", "83%", "1e-7"]


def test_unused_names_are_found() -> None:
    text = 'state("a", 1)\nstate(\n    "b", 2)\nfigure("c", picture)\n{glue:text}`a`\n'
    assert unused_names(text) == {"b", "c"}
