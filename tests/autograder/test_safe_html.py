import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from autograder.safe_html import (
    ATTRIBUTES,
    LINK,
    MATHML_ATTRIBUTES,
    MATHML_TAGS,
    PICTURE,
    TAGS,
    clean_html,
    clean_student_html,
    markdown_to_html,
    mathml,
    text_to_html,
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


def test_marks_for_formulas_cannot_be_forged():
    assert markdown_to_html("\ue0000\ue001 and \ue0007\ue001") == "<p>0 and 7</p>\n"


def test_attached_pictures_are_shown_and_missing_ones_are_not():
    shown = markdown_to_html("![plot](attachment:a.png)", {"a.png": {"image/png": "QQ=="}})
    assert 'src="data:image/png;base64,QQ=="' in shown
    assert "<img" not in markdown_to_html("![plot](attachment:none.png)")


def test_text_becomes_escaped_text_with_code():
    assert text_to_html("`f` <b>") == "<code>f</code> &lt;b&gt;"
    assert text_to_html("one ` only") == "one ` only"


@pytest.mark.parametrize("text", ["https://example.org/a", "notes.txt", "/etc/passwd"])
def test_text_that_looks_like_an_address_gives_no_warning(text):
    assert clean_student_html(text) == text
    assert text in clean_html(text)
