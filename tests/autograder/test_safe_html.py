import pandas
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import IPythonRenderer
from pygments.lexer import Lexer

from autograder import safe_html
from autograder.markup_room import MARK_WORK, MAX_PAGE_WORK, Room
from autograder.safe_html import (
    ATTRIBUTES,
    COLOURING_WORK,
    LINK,
    MAX_COLOURED_LINE,
    MAX_HTML_MARKS,
    MAX_SOURCE_SHOWN,
    PICTURE,
    TAGS,
    TOO_MUCH_CODE,
    TOO_MUCH_HTML,
    clean_html,
    clean_student_html,
    code_to_html,
    text_to_html,
)
from autograder.safe_markdown import (
    MARKDOWN_WORK,
    MATHML_ATTRIBUTES,
    MATHML_TAGS,
    MAX_MARKDOWN_CHARACTERS,
    PICTURE_LEFT_OUT,
    TOO_MUCH_MARKDOWN,
    markdown_to_html,
    mathml,
)

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src='https://example.org/track.png'>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<iframe src='https://example.org'></iframe>",
    "<style>body { display: none }</style>",
    "<p style='position: fixed'>x</p>",
    "<p id='test_softmax' onclick='alert(1)'>x</p>",
    "<form action='https://example.org'><input name='x'></form>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--<img src='--><img src=x onerror=alert(1)>'>",
    "<base href='https://example.org'><meta http-equiv='refresh' content='0;url=x'><link rel=x>",
]


def dangers(text):
    found = []
    for element in BeautifulSoup(text, "html.parser").find_all(True):
        if element.name in MATHML_TAGS:
            found += [name for name in element.attrs if name not in MATHML_ATTRIBUTES]
            continue
        if element.name not in TAGS:
            found.append(element.name)
        for name, value in element.attrs.items():
            allowed = name == "class" or name in ATTRIBUTES.get(element.name, ())
            allowed |= (element.name, name) == ("a", "href") and bool(LINK.match(value))
            allowed |= (element.name, name) == ("img", "src") and bool(PICTURE.match(value))
            if not allowed:
                found.append(f"{element.name} {name}={value}")
    return found


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("render", [clean_html, clean_student_html, markdown_to_html])
def test_markup_that_runs_or_fetches_is_removed(render, attack):
    assert dangers(attack)
    assert dangers(render(attack)) == []
    assert "alert(1)</script>" not in render(attack)


@given(st.text(alphabet="<>/=\"'!-$\\ abimgsrconeyx(){}`*\n", max_size=80))
def test_no_text_becomes_dangerous(text):
    assert dangers(clean_html(text)) == []
    assert dangers(markdown_to_html(text)) == []


def test_harmless_markup_stays():
    table = "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"
    assert clean_student_html(table) == table
    picture = '<img src="data:image/png;base64,QQ=="/>'
    assert "base64,QQ==" in clean_html(picture)
    link = '<a href="https://example.org/x#y">x</a>'
    assert clean_html(link) == link


def test_a_student_cannot_borrow_the_graders_look():
    assert clean_html('<li class="check passed">x</li>') == '<li class="check passed">x</li>'
    assert clean_student_html('<li class="check passed">x</li>') == "<li>x</li>"


@pytest.mark.parametrize("classes", ["score", "check passed", "modal-backdrop", "alert score"])
def test_markdown_cannot_borrow_the_look_of_a_page(classes):
    """Bug: a box over formgrader's whole page, and a score as the grader shows it."""
    for source in (f'<div class="{classes}">x</div>', f"<b class='{classes}'>x</b> $x$"):
        shown = BeautifulSoup(markdown_to_html(source), "html.parser")
        assert [e["class"] for e in shown.find_all(class_=True)] == []
    box = '<div class="alert alert-info">x</div>'
    assert box in markdown_to_html(box)


def test_formulas_become_mathml():
    rendered = markdown_to_html("The loss $-\\ln p_y$ is\n\n$$L = \\frac{1}{N} \\sum_n \\ell_n$$\n")
    assert rendered.count("<math") == 2
    assert '<math display="block">' in rendered
    assert "<mfrac>" in rendered
    assert "\ue000" not in rendered


@pytest.mark.parametrize(
    "tex",
    [r"\text{<img src=x onerror=alert(1)>}", r"\text{<b>x</b>}", r"\frac{", "x" * 5_000, r"\left("],
)
def test_a_formula_that_cannot_be_done_is_shown_as_text(tex):
    assert mathml(tex).startswith("<code>")
    assert dangers(mathml(tex)) == []


def test_a_link_in_a_formula_is_dropped():
    assert "javascript" not in mathml(r"\href{javascript:alert(1)}{x}")


FORMULA_THAT_RUNS = r"$\text{' src=x onerror=alert(1) x=}$"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    "source",
    [
        f"{FORMULA_THAT_RUNS} <abbr title='&#xe000;0&#xe001;\"'>x</abbr>",
        f"{FORMULA_THAT_RUNS} <img src='{PIXEL}' alt='&#57344;0&#57345;\"'>",
        f"{FORMULA_THAT_RUNS} <a href='https://example.org/&#xe000;0&#xe001;'>x</a>",
        f"<div title='\n\n{FORMULA_THAT_RUNS}\n\n'>x</div>",
        f'![" {FORMULA_THAT_RUNS}]({PIXEL})',
        f"![' {FORMULA_THAT_RUNS.translate({39: 34})}]({PIXEL})",
        f'![" {FORMULA_THAT_RUNS}](attachment:a.png)',
    ],
)
def test_no_formula_is_put_into_an_attribute(source):
    shown = markdown_to_html(source, {"a.png": {"image/png": "iVBORw0KGgo="}})
    assert dangers(shown) == []
    attributes = [e.attrs for e in BeautifulSoup(shown, "html.parser").find_all(True)]
    assert "<math" not in str(attributes)


def test_a_formula_in_the_text_of_a_picture_is_its_source():
    shown = markdown_to_html(f"![the $\\alpha < 1$ of it]({PIXEL})")
    (picture,) = BeautifulSoup(shown, "html.parser").find_all("img")
    assert picture["alt"] == "the \\alpha < 1 of it"
    assert "<math" in markdown_to_html("![the $\\alpha$ of it](attachment:none.png)")


@pytest.mark.parametrize("mark", ["\ue0000\ue001", "&#xe000;0&#xe001;", "<var class='0'>0</var>"])
def test_marks_for_formulas_cannot_be_forged(mark):
    assert markdown_to_html(f"$x$ {mark} {mark}").count("<math") == 1


def test_attached_pictures_are_shown_and_missing_ones_are_not():
    shown = markdown_to_html("![plot](attachment:a.png)", {"a.png": {"image/png": "QQ=="}})
    assert 'src="data:image/png;base64,QQ=="' in shown
    assert "<img" not in markdown_to_html("![plot](attachment:none.png)")


def test_the_boxes_of_a_task_list_are_characters():
    """Bug: with the forms' elements the boxes went, and done looked like not done."""
    html = markdown_to_html("- [ ] to do\n- [x] done\n\n1. [x] also\n\n   more\n2. a list's\n")
    items = [
        item.get_text(" ", strip=True) for item in BeautifulSoup(html, "html.parser").select("li")
    ]
    assert items == ["☐ to do", "☑ done", "☑ also more", "a list's"]


def test_text_becomes_escaped_text_with_code():
    assert text_to_html("`f` <b>") == "<code>f</code> &lt;b&gt;"
    assert text_to_html("one ` only") == "one ` only"


@pytest.mark.parametrize("text", ["https://example.org/a", "notes.txt", "/etc/passwd"])
def test_text_that_looks_like_an_address_gives_no_warning(text):
    assert clean_student_html(text) == text
    assert text in clean_html(text)


NUMBERED = "".join(f"<b id=x{number}>" for number in range(200))
SLOW_HTML = {
    "many tags": "<br>" * (MAX_HTML_MARKS + 1),
    "many entities": "&" * (MAX_HTML_MARKS + 1),
    "nested": "<div>" * 200,
    "paragraphs that are not closed": "<p>" * 200,
    "formatting opened again in each block": NUMBERED[: 90 * 9] + "<p></p>" * 200,
    "formatting in tables": "<table><b>" * 100,
    "links in paragraphs": "<p><a>" * 100,
    "closed in what looks like a comment": "<b><p title='<!--</b></p>-->'>" * 200,
}


@pytest.mark.parametrize("html", SLOW_HTML.values(), ids=SLOW_HTML.keys())
def test_html_that_would_take_long_is_shown_as_text(html):
    shown = clean_student_html(html)
    assert shown.startswith(f"<p>{TOO_MUCH_HTML}</p><pre>&")
    assert dangers(shown) == []
    assert shown.count("<") == 4


def test_html_is_given_up_at_the_first_tag_too_many(monkeypatch):
    opened = []
    push = safe_html.BoundedSoup.pushTag

    def counted(self, tag):
        opened.append(tag)
        push(self, tag)

    monkeypatch.setattr(safe_html.BoundedSoup, "pushTag", counted)
    clean_student_html("<b><p>" * 2_000)
    # the tree's root is opened as a tag is
    assert len(opened) == safe_html.MAX_OPEN_TAGS + 1


@pytest.mark.parametrize("open_end", ["<a", "<a b='", "<a b=\"'", "<!-", "<?", "<![CDATA[", "</a"])
def test_a_parser_is_given_whole_tags_only(monkeypatch, open_end):
    given_text = []
    soup = safe_html.BoundedSoup
    monkeypatch.setattr(
        safe_html, "BoundedSoup", lambda text, kind: given_text.append(text) or soup(text, kind)
    )
    shown = clean_student_html(f"{open_end} x " * 50 + "<b>y</b>")
    assert given_text[0].count("<") == 2
    assert shown.endswith("<b>y</b>")
    assert shown.count("&lt;") == 50


def test_comments_and_declarations_are_dropped():
    assert clean_student_html("<!DOCTYPE html>a<!-- <b>x</b> - -- ->--><b>c</b>") == "a<b>c</b>"
    assert clean_student_html("a<!--b") == "a"


def test_a_tag_of_many_attributes_is_text():
    many = "<td " + " ".join(f"a{number}=1" for number in range(500)) + ">"
    assert clean_student_html(many).startswith("&lt;td a0=1")
    attributes = "<td a='>' b=\"'\" c = d e f=/ colspan=2>"
    assert clean_student_html(f"<table><tr>{attributes}1") == (
        '<table><tbody><tr><td colspan="2">1</td></tr></tbody></table>'
    )


def test_many_pictures_to_be_fetched_become_their_text():
    assert clean_student_html("<img src=x alt='a<b'>!" * 2) == "&lt;img src=x alt='a&lt;b'&gt;!" * 2
    assert clean_student_html("<img src=x alt='a&lt;b'>!" * 2) == "a&lt;b!" * 2


@pytest.mark.parametrize(("rows", "columns", "width"), [(60, 40, 8), (60, 20, 70)])
def test_a_large_table_stays_a_table(rows, columns, width):
    table = pandas.DataFrame([["x" * width] * columns] * rows).to_html()
    shown = clean_student_html(table)
    assert shown.startswith("<table>")
    assert shown.count("<td>") == rows * columns


def test_only_so_much_html_has_a_place():
    room = Room(10 * MARK_WORK)
    assert clean_student_html("<b>x</b>", room) == "<b>x</b>"
    assert clean_student_html("&" * 9, room).startswith(f"<p>{TOO_MUCH_HTML}")
    assert clean_student_html("<i>x</i>", room) == "<i>x</i>"


def test_the_source_of_what_is_too_long_is_cut():
    shown = clean_student_html("&" * (MAX_SOURCE_SHOWN + 5))
    assert shown.count("&amp;") == MAX_SOURCE_SHOWN
    assert "[5 characters left out]" in shown


SLOW_MARKDOWN = {
    "long": "x" * (MAX_MARKDOWN_CHARACTERS + 1),
    "html": "<div>\n" * 200,
    "environments without end": "\\begin{a}" * 400,
    "formulas without end": "\\\\(" * 400,
    "stars": "*a " * 6_000,
    "lists": "- a\n" * 6_000,
    "tables": "|a" * 6_000,
    "paragraphs": "a\n\n" * 3_500,
}


@pytest.mark.parametrize("source", SLOW_MARKDOWN.values(), ids=SLOW_MARKDOWN.keys())
def test_markdown_that_would_take_long_is_shown_as_text(source):
    assert markdown_to_html(source).startswith(f"<p>{TOO_MUCH_MARKDOWN}</p><pre>")


def test_markdown_is_the_same_whatever_ends_its_lines():
    source = "# a\n\n- b\n- c\n"
    assert "<li>b" in markdown_to_html(source)
    for end in ("\r", "\r\n"):
        room, same = Room(), Room()
        shown = markdown_to_html(source.replace("\n", end), room=room)
        assert shown == markdown_to_html(source, room=same)
        assert room == same


def test_markdown_that_was_refused_for_its_html_has_used_up_room():
    room, source = Room(MAX_PAGE_WORK), '"' * (MAX_HTML_MARKS + 1)
    assert markdown_to_html(source, room=room).startswith(f"<p>{TOO_MUCH_MARKDOWN}")
    assert MAX_PAGE_WORK - room.left == MARKDOWN_WORK * len(source) + MAX_HTML_MARKS * MARK_WORK
    little = Room(2 * MARKDOWN_WORK * len(source))
    assert markdown_to_html(source, room=little).startswith(f"<p>{TOO_MUCH_MARKDOWN}")
    assert little.left == 0


def test_only_so_much_plain_text_has_a_place():
    room = Room(0, text=100_000)
    shown = [code_to_html("<" * 3_000, str, room) for _ in range(5)]
    assert [text.count("&lt;") for text in shown] == [3_000] * 3 + [90, 0]
    assert "[2910 characters left out]" in shown[3]
    assert markdown_to_html("*a*" * 50, room=room).endswith(
        "<pre>\n[150 characters left out]</pre>"
    )


def test_markdown_takes_room_for_its_parts_and_for_the_ends_of_formulas_it_looks_for():
    """Bug: a page of what is many parts, or of formulas without an end, took half a minute."""
    room = Room(MAX_PAGE_WORK)
    markdown_to_html(r"\\)" * 10_000, room=room)
    assert MAX_PAGE_WORK - room.left > 150_000
    room = Room(MAX_PAGE_WORK)
    markdown_to_html(r"\\(" * 300 + "a" * 40_000, room=room)
    assert MAX_PAGE_WORK - room.left > 1_200_000


def test_formulas_that_have_no_place_are_shown_as_text():
    room = Room(1_600)
    assert markdown_to_html("$x^2$", room=room).startswith("<p><math")
    assert markdown_to_html("$x^{1234567890}$", room=room) == "<p><code>x^{1234567890}</code></p>\n"


def test_a_formula_that_is_referred_to_again_and_again_is_shown_once():
    again = "&#xe000;0&#xe001;" * 500
    assert markdown_to_html(rf"$\vec x$ {again}").count("<mover") == 1


def test_the_markup_of_formulas_has_a_place_on_the_page():
    room, formula = Room(10_000), r"\vec x" * 10
    shown = markdown_to_html(f"${formula}$", room=room)
    assert shown.count("<mover") == 10
    # two dollar signs, the formula's source, a paragraph and the element that stands for it
    work = MARKDOWN_WORK * (len(formula) + 2) + MARK_WORK * (2 + len(formula) / 2 + 4)
    assert 10_000 - room.left == work + len(mathml(formula))


def test_an_attachment_is_not_shown_again_and_again():
    room = Room(pictures=80)
    attachments = {"a": {"image/png": "QQ=="}}
    shown = markdown_to_html("![p](attachment:a)" * 3, attachments, room)
    assert shown.count("<img") == 1
    assert shown.count(f"p {PICTURE_LEFT_OUT}") == 2


def test_a_picture_that_has_no_place_is_not_built(monkeypatch):
    """Bug: each of thousands of references to one picture was built before it was left out."""
    built = []
    image = IPythonRenderer.image
    monkeypatch.setattr(
        IPythonRenderer, "image", lambda *arguments: built.append(1) or image(*arguments)
    )
    attachments = {"a": {"image/png": "QQ==" * 100}}
    shown = markdown_to_html("![p](attachment:a)" * 50, attachments, Room(pictures=1_100))
    assert shown.count("<img") == 2
    assert len(built) <= 3


def test_code_is_coloured_where_that_is_quick():
    def colour(source):
        return f'<span class="k">{source}</span>'

    assert code_to_html("x", colour, Room()) == '<span class="k">x</span>'
    plain = f"<p>{TOO_MUCH_CODE}</p><pre>"
    dots = "." * (MAX_COLOURED_LINE + 1)
    assert code_to_html(dots, colour, Room()) == f"{plain}{dots}</pre>"
    assert code_to_html("a\n" * 20_000, colour, Room()).startswith(plain)
    assert code_to_html("<", colour, Room(1)) == f"{plain}&lt;</pre>"


def counted(colour, calls):
    def counting(source):
        calls.append(source)
        return colour(source)

    return counting


@pytest.mark.parametrize("marks", [0, 500])
def test_code_is_not_coloured_where_the_page_has_no_room_left(marks):
    calls, room = [], Room(MAX_PAGE_WORK)
    colour = counted(lambda source: "<i>x</i>" * marks, calls)
    cell = "." * MAX_COLOURED_LINE + "\n"
    for _ in range(5_000):
        code_to_html(cell, colour, room)
    assert len(calls) <= MAX_PAGE_WORK / (COLOURING_WORK * len(cell))
    assert room.left < COLOURING_WORK * len(cell)


def test_what_colours_cost_is_spent_though_they_have_no_place():
    room = Room(COLOURING_WORK + 3 * MARK_WORK)
    assert code_to_html("x", lambda source: "<b>x</b>" * 4, room).startswith(f"<p>{TOO_MUCH_CODE}")
    assert room.left == 0


@pytest.mark.parametrize("end", ["\f", "\v", "\u2028", "\x1c"])
def test_only_what_ends_a_line_for_the_lexer_ends_a_long_line(end):
    calls = []
    code_to_html(f"{'.' * 600}{end}{'.' * 600}", counted(str, calls), Room())
    assert calls == []


FENCED = "```{}\n{}\n```"


def test_python_in_markdown_is_coloured_and_other_code_is_text():
    assert '<span class="k">' in markdown_to_html(FENCED.format("python", "pass"))
    assert markdown_to_html(FENCED.format("makefile", "a: <b>\n\tc")) == (
        "<pre><code>a: &lt;b&gt;\n\tc\n</code></pre>\n"
    )
    assert markdown_to_html(FENCED.format("mermaid", "<b>x</b>")).startswith("<pre><code>&lt;b")


@pytest.mark.parametrize(
    ("language", "code", "work"),
    [
        ("make", "." * 900, MAX_PAGE_WORK),
        ("python", "." * (MAX_COLOURED_LINE + 1), MAX_PAGE_WORK),
        ("python", "1\n" * 1_000, 2 * COLOURING_WORK * 1_000 + 1_010 * MARK_WORK),
    ],
)
def test_code_in_markdown_that_would_take_long_is_not_coloured(monkeypatch, language, code, work):
    lexed = []
    get_tokens = Lexer.get_tokens
    monkeypatch.setattr(
        Lexer, "get_tokens", lambda self, text: lexed.append(text) or get_tokens(self, text)
    )
    assert "<span" not in markdown_to_html(FENCED.format(language, code), room=Room(work))
    assert lexed == []
