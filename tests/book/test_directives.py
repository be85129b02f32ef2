"""The book's directives, in a small book of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from tests.book.built import ROOT

CONFIGURATION = """
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary",
              "book.means.sphinx_extension"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_execution_mode = "force"
autosummary_generate = False
"""
QUESTION = """
::::{question} zero
What is $0 \\log 0$?

:::{answer} wrong `NaN`
So says floating-point *arithmetic*.
:::
:::{answer} right Zero.
The limit is zero.
:::
:::{answer} wrong One.
No limit gives one.
:::
::::
"""


def build(folder: Path, text: str, header: str = "") -> tuple[int, str, BeautifulSoup]:
    (folder / "conf.py").write_text(CONFIGURATION, "utf-8")
    (folder / "index.md").write_text(f"{header}# Title\n\n{text}", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", ".", "out"],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    page = folder / "out" / "index.html"
    html = page.read_text("utf-8") if page.is_file() else ""
    return done.returncode, done.stderr, BeautifulSoup(html, "html.parser")


def test_question_letters_its_answers_and_hides_their_feedback(tmp_path: Path) -> None:
    code, messages, page = build(tmp_path, QUESTION)
    assert (code, messages) == (0, "")
    answers = page.select("#question-zero details")
    assert [answer.summary.get_text() for answer in answers] == ["A. NaN", "B. Zero.", "C. One."]
    assert {answer["name"] for answer in answers} == {"question-zero"}
    assert [answer.select_one(".verdict").get_text() for answer in answers] == [
        "Not so.",
        "Right.",
        "Not so.",
    ]
    assert not any(answer.has_attr("open") for answer in answers)
    assert answers[0].select_one(".feedback em").get_text() == "arithmetic"
    assert answers[0].summary.code is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("right Zero", "wrong Zero", "got 3 with 0 right"),
        ("wrong One", "right One", "got 3 with 2 right"),
        ("right Zero.", "correct Zero.", "begins with 'right' or 'wrong', got 'correct Zero.'"),
        ("No limit gives one.", "", "Content block expected"),
    ],
)
def test_question_that_cannot_be_answered_stops_the_build(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    code, messages, _ = build(tmp_path, QUESTION.replace(old, new))
    assert code == 1
    assert message in messages


def test_boxes_have_their_titles(tmp_path: Path) -> None:
    code, messages, page = build(
        tmp_path, ":::{goals}\nTo learn.\n:::\n\n:::{take-away}\nKeep it.\n:::\n"
    )
    assert (code, messages) == (0, "")
    assert page.select_one(".goals .admonition-title").get_text() == "Goals"
    assert page.select_one(".take-away .admonition-title").get_text() == "Take-away"


def test_missing_exercise_says_where_it_comes_from(tmp_path: Path) -> None:
    code, messages, page = build(tmp_path, "```{exercise-download} no_such\n```\n")
    assert (code, messages) == (0, "")
    assert "exercises/no_such/no_such.ipynb" in page.select_one(".exercise-download").get_text()
    assert page.select_one(".exercise-download a") is None


def write_losses(folder: Path) -> None:
    names = ("hinge", "entropy")
    functions = (f'def {name}(x):\n    """Return the {name} of x."""\n' for name in names)
    (folder / "losses.py").write_text(
        "__all__ = ['entropy', 'hinge']\n\n" + "\n\n".join(functions), "utf-8"
    )


def test_reference_documents_the_named_functions_and_links_to_their_sections(
    tmp_path: Path,
) -> None:
    write_losses(tmp_path)
    text = "(here)=\n## Margins\n\n```{library-reference} losses\nhinge: here\nentropy\n```\n"
    code, messages, page = build(tmp_path, text)
    assert (code, messages) == (0, "")
    assert [term["id"] for term in page.select("dt.sig")] == ["losses.hinge", "losses.entropy"]
    links = [link["href"] for link in page.select("dl.py dd a.reference")]
    assert links == ["#here"]


def test_reference_without_names_documents_all(tmp_path: Path) -> None:
    write_losses(tmp_path)
    code, messages, page = build(tmp_path, "```{library-reference} losses\n```\n")
    assert (code, messages) == (0, "")
    assert [term["id"] for term in page.select("dt.sig")] == ["losses.entropy", "losses.hinge"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hinge: nowhere", "undefined label: 'nowhere'"),
        ("hing", "hing not public in package 'losses'"),
    ],
)
def test_reference_to_what_is_not_there_stops_the_build(
    tmp_path: Path, line: str, message: str
) -> None:
    write_losses(tmp_path)
    code, messages, _ = build(tmp_path, f"```{{library-reference}} losses\n{line}\n```\n")
    assert code == 1
    assert message in messages


def test_reference_of_a_package_without_public_names_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "empty_package.py").write_text("", "utf-8")
    code, messages, _ = build(tmp_path, "```{library-reference} empty_package\n```\n")
    assert code == 1
    assert "'empty_package' names nothing public" in messages


def test_chapter_pastes_what_its_cells_computed(tmp_path: Path) -> None:
    code, messages, page = build(
        tmp_path,
        "```{code-cell} ipython3\nfrom book.means import state\nstate('x', 1 / 8)\n```\n\n"
        "It is {glue:text}`x`.\n",
        header="---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n",
    )
    assert code == 0, messages
    assert page.select_one(".pasted-text").get_text() == "0.125"
