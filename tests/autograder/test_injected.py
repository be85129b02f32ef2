"""What students inject into outputs and text does nothing on any page that people open."""

import re
import shutil

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert.filters import strings

from autograder.safe_html import MAX_COLOURED_LINE, NO_DESCRIPTION, TOO_MUCH_CODE, TOO_MUCH_HTML
from tests.autograder.attack_course import Attack, active_content, all_attacks
from tests.autograder.attack_feedback import FeedbackLab

INJECTED = {name: attack for name, attack in all_attacks().items() if name.startswith("injected/")}
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")


@pytest.fixture(scope="module")
def lab(released_toy, tmp_path_factory):
    root = tmp_path_factory.mktemp("injected") / "course"
    shutil.copytree(released_toy, root)
    return FeedbackLab(root)


@pytest.mark.parametrize(
    "page",
    [
        "<script>injected()</script>",
        "<b onclick='injected()'>",
        "<a href='javascript:injected()'>",
        "<img src='https://injected.example'>",
        "<style>@import 'https://injected.example'</style>",
        "<p style='background: url(https://injected.example)'>",
    ],
)
def test_active_content_is_seen(page):
    assert active_content(page)


@pytest.mark.parametrize("name", INJECTED)
def test_injected_content_does_nothing_on_the_pages(name, lab):
    pages = lab.pages(INJECTED[name])
    assert "injected" in "".join(pages)
    assert [active_content(page) for page in pages] == [[], []]


def test_code_that_would_take_long_is_coloured_on_neither_page(lab):
    """Bug: formgrader's page coloured code of any length, which took minutes."""
    dots = "." * (MAX_COLOURED_LINE + 1)
    for page in lab.pages(Attack("own/long_code", "Writes long code", (dots,))):
        assert page.count(TOO_MUCH_CODE) == 1
        assert f"{dots}</pre>" in page
        # the test's own code
        assert '<span class="k">assert</span>' in page


def test_no_element_of_a_page_is_closed_by_what_it_shows(lab):
    closing = "</p></pre></code></td></table></div></details></section></main></body></html>"
    opening = "<table><section><div><main><pre><!--<![CDATA[<textarea><title>"
    shown = [f"display({kind}({text!r}))" for kind in ("HTML", "Markdown", "Latex", "SVG")
             for text in (closing, opening)]  # fmt: skip
    sources = ("from IPython.display import HTML, SVG, Latex, Markdown", *shown)
    attack = Attack("own/unbalanced", "Closes elements", sources, texts=(closing, opening))
    page, _ = lab.pages(attack)
    notebook = nbformat.read(
        lab.course.folder("autograded", "own-unbalanced", "toy") / "toy.ipynb", 4
    )
    cells = BeautifulSoup(page, "html.parser").select("body > main > .cell")
    # raw cells have no box
    assert len(cells) == len([cell for cell in notebook.cells if cell.cell_type != "raw"])
    for name in ("div", "section", "table", "pre", "details", "main", "body"):
        assert len(re.findall(rf"<{name}\b", page)) == page.count(f"</{name}>"), name


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "image/svg+xml"])
def test_a_picture_says_that_it_has_no_description(kind, lab):
    picture = {kind: "<svg></svg>" if "svg" in kind else "QUJD"}
    html = "<img src='data:image/png;base64,QUJD'>"
    sources = (f"display({picture}, {{'text/html': {html!r}}}, raw=True)",)
    page, _ = lab.pages(Attack(f"own/{kind[6:9]}", "Shows pictures", sources))
    pictures = BeautifulSoup(page, "html.parser").select("img")
    assert [shown["alt"] for shown in pictures] == [NO_DESCRIPTION] * 2


def test_a_raw_cell_is_shown_as_a_students_html(lab):
    """Bug: its classes were kept, and its tags were cleaned however many there were."""
    looks, many = '<b class="score">all points</b>', "<b><p>" * 2_000
    for page in lab.pages(Attack("own/raw_cell", "Writes raw cells", (), texts=(looks, many))):
        assert page.count("<b>all points</b>") == 2
        assert page.count(TOO_MUCH_HTML) == 1


def test_nobody_looks_for_links_from_each_of_many_brackets(lab, monkeypatch):
    """Bug: formgrader's page took two seconds for a cell of 20 kB."""
    monkeypatch.setattr(strings, "markdown_url_pattern", None)
    brackets = "[" * 20_000
    for page in lab.pages(Attack("own/brackets", "Writes brackets", (), texts=(brackets,))):
        assert page.count(brackets) == 3
