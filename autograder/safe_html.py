"""Turns what students wrote into HTML that can neither run code nor fetch anything."""

from __future__ import annotations

import html
import re
from typing import Any, cast
from xml.etree import ElementTree

import bleach
from bs4 import BeautifulSoup
from jinja2 import pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert as latex_to_mathml
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TAGS = _words(
    "a abbr b blockquote br caption code dd del details div dl dt em figcaption figure h1 h2 h3 h4 "
    "h5 h6 hr i img kbd li ol p pre q s small span strong sub summary sup table tbody td tfoot th "
    "thead tr tt u ul var"
)
ATTRIBUTES = {
    "abbr": {"title"},
    "img": {"alt", "width", "height"},
    "ol": {"start"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
}
DROPPED_WITH_CONTENT = ("script", "style", "template", "iframe", "object", "noscript", "svg")
MATHML_TAGS = _words(
    "math mrow mi mo mn ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover "
    "munderover mmultiscripts mprescripts mtable mtr mtd mpadded mphantom mstyle menclose"
)
MATHML_ATTRIBUTES = _words(
    "display stretchy fence separator form minsize maxsize movablelimits largeop lspace rspace "
    "columnalign rowspacing columnspacing mathvariant accent accentunder linethickness width "
    "height depth scriptlevel displaystyle notation symmetric"
)
MATHML_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
MAX_TEX_CHARACTERS = 4_000
MAX_MARKDOWN_CHARACTERS = 100_000
LINK = re.compile(r"(?:https?://|file:///|mailto:|#)", re.IGNORECASE)
PICTURE = re.compile(r"data:image/(?:png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*\Z")
# private-use characters, which the cleaning leaves alone, mark where formulas go back in
FORMULA = re.compile("\ue000(\\d+)\ue001")


def _is_allowed(tag: str, name: str, value: str) -> bool:
    if name == "class":
        return True
    if tag == "a" and name == "href":
        return bool(LINK.match(value))
    if tag == "img" and name == "src":
        return bool(PICTURE.match(value))
    return name in ATTRIBUTES.get(tag, ())


def _is_allowed_without_class(tag: str, name: str, value: str) -> bool:
    return name != "class" and _is_allowed(tag, name, value)


def clean_html(text: str | bytes) -> str:
    """Return HTML with harmless tags and attributes only."""
    return _clean(text.decode() if isinstance(text, bytes) else str(text), keep_classes=True)


def clean_student_html(text: str) -> str:
    """Return a student's HTML without anything harmful and without the grader's own look."""
    return _clean(text, keep_classes=False)


def _clean(text: str, *, keep_classes: bool) -> str:
    cleaned: str = bleach.clean(
        # text without a tag has nothing to drop, and a parser warns of what looks like an address
        _without_dropped(text) if "<" in text else text,
        tags=TAGS,
        attributes=_is_allowed if keep_classes else _is_allowed_without_class,
        protocols={"http", "https", "file", "mailto", "data"},
        strip=True,
        strip_comments=True,
    )
    return cleaned


def _without_dropped(text: str) -> str:
    """Return HTML without what is dropped with its content, and without pictures to be fetched."""
    soup = BeautifulSoup(text, "html.parser")
    for element in soup.find_all(DROPPED_WITH_CONTENT):
        element.decompose()
    for picture in soup.find_all("img"):
        if not PICTURE.match(str(picture.get("src", ""))):
            picture.replace_with(str(picture.get("alt", "")))
    return str(soup)


def mathml(tex: str, *, display: bool = False) -> str:
    """Return a formula as MathML, or its TeX source as text where that cannot be done."""
    fallback = f"<code>{html.escape(tex)}</code>"
    if len(tex) > MAX_TEX_CHARACTERS:
        return fallback
    try:
        text = latex_to_mathml(tex, display="block" if display else "inline")
        root = ElementTree.fromstring(text)
    except Exception:  # the converter's errors have no common class
        return fallback
    for element in root.iter():
        element.tag = element.tag.removeprefix(MATHML_NAMESPACE)
        if element.tag not in MATHML_TAGS:
            return fallback
        for name in set(element.attrib) - MATHML_ATTRIBUTES:
            del element.attrib[name]
    return ElementTree.tostring(root, encoding="unicode")


class _Renderer(IPythonRenderer):  # type: ignore[misc]
    """Renders Markdown, with formulas set aside until everything else has been cleaned."""

    def __init__(self, attachments: dict[str, dict[str, str]]) -> None:
        super().__init__(escape=False, exclude_anchor_links=True, attachments=attachments)
        self.formulas: list[str] = []

    def set_aside(self, formula: str) -> str:
        """Return the mark that stands for a formula."""
        self.formulas.append(formula)
        return f"\ue000{len(self.formulas) - 1}\ue001"

    def inline_math(self, body: str) -> str:
        """Set a formula in the line aside."""
        return self.set_aside(mathml(body))

    def block_math(self, body: str) -> str:
        """Set a displayed formula aside."""
        return self.set_aside(mathml(body, display=True))

    def multiline_math(self, text: str) -> str:
        """Set a displayed formula with its marks aside."""
        return self.set_aside(mathml(text.strip("$"), display=True))

    def latex_environment(self, name: str, body: str) -> str:
        """Set an environment aside."""
        return self.set_aside(mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True))

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Show an attached picture, or its text where there is none."""
        try:
            return cast(str, super().image(text, url, title))
        except Exception:  # a missing attachment must not stop the page
            return html.escape(text)


def markdown_to_html(source: str, attachments: dict[str, dict[str, str]] | None = None) -> str:
    """Return Markdown with formulas as clean HTML with MathML."""
    source = source.replace("\ue000", "").replace("\ue001", "")
    if len(source) > MAX_MARKDOWN_CHARACTERS:
        return f"<pre>{html.escape(source[:MAX_MARKDOWN_CHARACTERS])}…</pre>"
    renderer = _Renderer(attachments or {})
    try:
        rendered = MarkdownWithMath(renderer=renderer).render(source)
    except RecursionError:
        return f"<pre>{html.escape(source)}</pre>"
    cleaned = clean_html(rendered)
    return FORMULA.sub(lambda mark: _formula(renderer.formulas, int(mark.group(1))), cleaned)


def _formula(formulas: list[str], number: int) -> str:
    return formulas[number] if number < len(formulas) else ""


@pass_context
def markdown_filter(context: Context, source: str) -> str:
    """Stand in for nbconvert's `markdown2html`, which lets scripts through."""
    cell: Any = context.get("cell") or {}
    return markdown_to_html(source, cell.get("attachments"))


def text_to_html(text: str) -> str:
    """Return plain text as HTML, with `names in backticks` as code."""
    parts = html.escape(text, quote=True).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
