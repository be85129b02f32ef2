"""What feedback and formgrader's pages make of a cell, and what they keep of it."""

from collections import OrderedDict

import jinja2
import nbformat
import pytest

from autograder import page_filters
from autograder.markup_room import MARK_WORK, Room
from autograder.page_filters import (
    KEPT_TEXTS,
    MAX_KEPT_CHARACTERS,
    clean_filter,
    code_filter,
    markdown_filter,
)
from autograder.safe_html import (
    COLOURING_WORK,
    MAX_COLOURED_LINE,
    TOO_MUCH_CODE,
)
from autograder.safe_markdown import (
    markdown_to_html,
)


def test_the_cells_of_a_page_share_its_room():
    environment = jinja2.Environment()
    environment.filters["markdown"] = markdown_filter
    page = environment.from_string("{{ '$x$' | markdown }}{{ '$y$' | markdown }}")
    resources = {page_filters.ROOM: Room(9 * MARK_WORK)}
    assert page.render(resources=resources).count("<math") == 1
    assert page.render(resources={}).count("<math") == 2
    assert page.render().count("<math") == 2


@pytest.fixture
def kept(monkeypatch):
    kept = OrderedDict()
    monkeypatch.setattr(page_filters, "_kept", kept)
    return kept


@pytest.fixture
def page():
    """Render one piece of Markdown and one of code in a room, with a cell's attachments."""
    environment = jinja2.Environment()
    environment.filters.update(markdown=markdown_filter, code=code_filter)
    template = environment.from_string("{{ text | markdown }}{{ text | code(metadata) }}")

    def render(text, room, **names):
        return template.render(text=text, resources={page_filters.ROOM: room}, **names)

    return render


def test_what_every_notebook_holds_is_rendered_once_and_takes_its_room_each_time(
    kept, page, monkeypatch
):
    rooms = [Room(), Room(), Room(10_000)]
    shown = page("*a* $x$", rooms[0])
    assert "<math" in shown
    assert '<span class="o">' in shown
    for name in ("markdown_to_html", "code_to_html"):
        monkeypatch.setattr(page_filters, name, lambda *_: pytest.fail("it was rendered again"))
    assert [page("*a* $x$", room) for room in rooms[1:]] == [shown, shown]
    assert rooms[0] == rooms[1] != Room()
    assert Room().left - rooms[1].left == 10_000 - rooms[2].left


def test_what_lacks_something_for_want_of_room_is_not_kept(kept, page):
    # the formula takes more than all that comes after it
    text = f"*a* ${'x+' * 20}x$"
    shown = page(text, Room())
    assert len(kept) == 2
    # known, and yet too much for this page
    assert "<math" not in page(text, Room(1_000))
    for left in range(0, 10_000, 100):
        kept.clear()
        page(text, Room(left))
        assert page(text, Room()) == shown


def test_what_takes_room_for_text_takes_it_each_time(kept, page):
    rooms = [Room(), Room()]
    for room in rooms:
        assert TOO_MUCH_CODE in page("." * (MAX_COLOURED_LINE + 1), room)
    assert rooms[0] == rooms[1]
    assert rooms[0].text < Room().text


def test_what_looks_otherwise_in_another_notebook_is_rendered_for_each(kept, page):
    javascript = {"metadata": {"language_info": {"name": "javascript"}}}
    picture = {"attachments": {"a": {"image/png": "QUJD"}}}
    text = "![let](attachment:a)"
    plain = page(text, Room())
    assert page(text, Room(), nb=javascript) != plain
    assert page(text, Room(), metadata={"magics_language": "html"}) != plain
    assert "data:image/png;base64,QUJD" in page(text, Room(), cell=picture)
    assert "data:image" not in page(text, Room())


def test_little_is_kept_and_what_was_used_last(kept, page):
    page("first", Room())
    for number in range(KEPT_TEXTS // 2 - 1):
        page(str(number), Room())
    page("first", Room())
    assert len(kept) == KEPT_TEXTS
    page("another", Room())
    assert len(kept) == KEPT_TEXTS
    assert [text for _, text in kept][-4:] == ["first", "first", "another", "another"]
    assert "0" not in {text for _, text in kept}
    large = f"${'x+' * 1_000}x$ " * 6
    assert len(page(large, Room())) > MAX_KEPT_CHARACTERS
    assert ("Markdown", large) not in kept


def test_code_is_coloured_as_the_notebooks_language_within_the_room_of_the_page():
    environment = jinja2.Environment()
    environment.filters["highlight_code"] = code_filter
    page = environment.from_string("{{ 'let x' | highlight_code(metadata={}) }}" * 2)
    javascript = nbformat.v4.new_notebook(metadata={"language_info": {"name": "javascript"}})
    assert page.render(nb=javascript).count('<span class="kd">let</span>') == 2
    python = nbformat.v4.new_notebook()
    assert page.render(nb=python).count('<span class="n">let</span>') == 2
    # the lexer's work and that of three elements in another
    room = Room(len("let x") * (1 + COLOURING_WORK) + 12 * MARK_WORK)
    resources = {page_filters.ROOM: room}
    assert page.render(nb=python, resources=resources).count('<span class="n">let</span>') == 1


def test_a_formula_in_shown_markdown_is_still_one():
    """Bug: Markdown was cleaned once more, without its formulas."""
    environment = jinja2.Environment()
    environment.filters |= {"markdown2html": markdown_filter, "clean_html": clean_filter}
    page = environment.from_string(r"{{ '$x^2$ <b class=a>' | markdown2html | clean_html }}")
    assert page.render() == markdown_to_html("$x^2$ <b class=a>")
    page = environment.from_string("{{ '<math><mi>x</mi></math>' | clean_html }}")
    assert page.render() == "x"
