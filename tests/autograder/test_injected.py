"""What students inject into outputs and text does nothing on any page that people open."""

import shutil

import pytest
from nbconvert.filters import strings

from autograder.safe_html import MAX_COLOURED_LINE, TOO_MUCH_CODE, TOO_MUCH_HTML
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
