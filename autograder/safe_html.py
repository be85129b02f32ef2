"""Turns what students wrote into HTML that can neither run code nor fetch anything."""

from __future__ import annotations

import html
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast
from xml.etree import ElementTree

import bleach
from bs4 import BeautifulSoup, Tag
from jinja2 import pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert as latex_to_mathml
from nbconvert.filters.highlight import Highlight2HTML
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
# what notebooks put around a box of text; all other classes could be looks of the page it is on
BOX_CLASSES = _words("alert alert-block alert-info alert-success alert-warning alert-danger")
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
# a table of 60 rows and 40 columns has 5,100
MAX_HTML_MARKS = 6_000
MAX_OPEN_TAGS = 100
# HTML5 opens these again in each block that follows, so they multiply
FORMATTING = _words("a b big code em font i nobr s small strike strong tt u")
MAX_FORMATTED_TAGS = 10_000
MAX_TAG_ATTRIBUTES = 50
MAX_MARKDOWN_CHARACTERS = 50_000
MAX_MARKDOWN_MARKS = 5_000
# what begins a formula is looked for to the end of the text, again and again
MAX_FORMULA_BEGINNINGS = 300
FORMULA_BEGINNINGS = ("\\begin{", "\\\\[", "\\\\(")
# the work of looking for a formula's end, for each character that follows its beginning
FORMULA_END_WORK = 0.1
# the work of Markdown that becomes many parts, for each character
MARKDOWN_WORK = 5
# the work of a tag, an entity or an emphasis, in characters of plain text
MARK_WORK = 100
TEX_MARKS = 0.5  # for each character of a formula
MAX_OUTPUTS_WORK = 5_000_000
MAX_PAGE_WORK = 10_000_000
# the lexer looks from each token to the end of the line
MAX_COLOURED_LINE = 1_000
# the lexer's work for a character, at worst, in characters of plain text
COLOURING_WORK = 50
MAX_COLOURED_CHARACTERS = 20_000
# what Python is called in Markdown
PYTHON = _words("python python3 py py3 ipython ipython3")
MAX_PAGE_PICTURE_CHARACTERS = 32 * 2**20
MAX_SOURCE_SHOWN = 20_000
# what stands in the notebook of every student is made into HTML once
KEPT_TEXTS = 256
MAX_KEPT_CHARACTERS = 100_000
MAX_PAGE_TEXT = 10_000_000
# nbconvert reads a whole page again, each reference on its own, which takes 5 microseconds
REFERENCE_WORK = 10
# a text that is no longer is shown whatever room there is: it could be a score
SHORT_TEXT = 100
PICTURE_LEFT_OUT = "[picture left out: too many on one page]"
TOO_MUCH_HTML = "[HTML with too many tags; its source:]"
TOO_MUCH_CODE = "[Code that is too long to be coloured:]"
TOO_MUCH_MARKDOWN = "[Markdown that is too long or has too many marks; its source:]"
ROOM = "room for markup"
LINK = re.compile(r"(?:https?://|file:///|mailto:|#)", re.IGNORECASE)
PICTURE = re.compile(r"data:image/(?:png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*\Z")
# no "<" but the first, so that looking for the end stops at the next tag; no group is possessive,
# for before Python 3.11.5 such a group keeps what its last, failed round has read
TAG = re.compile(
    r"</?[a-zA-Z][a-zA-Z0-9:_-]*+"
    r"(?:[\s/]++[^\s<>/=\"'`]++(?:\s*+=\s*+(?:\"[^\"<]*+\"|'[^'<]*+'|[^\s<>\"'=`]++))?)"
    rf"{{0,{MAX_TAG_ATTRIBUTES}}}\s*+/?>"
)
COMMENT = r"<!--(?s:.)*?(?:-->|\Z)|<![a-zA-Z][^<>]*+>"
MARKUP = re.compile(rf"(?P<tag>{TAG.pattern})|{COMMENT}|<")


def _is_allowed(
    tag: str, name: str, value: str, *, are_allowed_classes: Callable[[str], bool]
) -> bool:
    if name == "class":
        return are_allowed_classes(value)
    if tag == "a" and name == "href":
        return bool(LINK.match(value))
    if tag == "img" and name == "src":
        return bool(PICTURE.match(value))
    return name in ATTRIBUTES.get(tag, ())


class CleanHtml(str):
    """HTML that was made from Markdown here, which need not and cannot be cleaned again."""


class TooMuchMarkupError(ValueError):
    """Markup that would take too long to clean."""


@dataclass
class Room:
    """How much of one notebook or page may be shown as more than text; what is shown lessens it."""

    left: int = MAX_OUTPUTS_WORK
    pictures: int = MAX_PAGE_PICTURE_CHARACTERS
    text: int = MAX_PAGE_TEXT
    refused: int = 0

    def beginning(self, text: str) -> str:
        """Return as much of a plain text as has a place, with a note on the rest."""
        work = _text_work(text)
        if work <= self.text or len(text) <= SHORT_TEXT:
            self.text = max(0, self.text - work)
            return text
        shown = text[: self.text // (1 + REFERENCE_WORK)]
        self.text -= _text_work(shown)
        return f"{shown}\n[{len(text) - len(shown)} characters left out]"

    def take(self, text: str, marks: float) -> None:
        """Lessen the room by the work of a text; raise `TooMuchMarkupError` if it has no place."""
        work = len(text) + round(MARK_WORK * marks)
        if work > self.left:
            self.refused += 1
            raise TooMuchMarkupError
        self.left -= work

    def spend(self, marks: float) -> None:
        """Lessen the room by work that is done; raise `TooMuchMarkupError` if that was too much."""
        work = round(MARK_WORK * marks)
        self.left, left = max(0, self.left - work), self.left
        if work > left:
            self.refused += 1
            raise TooMuchMarkupError


# HTML by kind and text, with the room that it takes; what was used last comes last
_kept: OrderedDict[tuple[str, str], tuple[str, int]] = OrderedDict()


def _once(kind: str, text: str, room: Room, render: Callable[[], str]) -> str:
    """Return what `render` makes of a text: from before, if the room has a place for it.

    Nothing is kept that lacks something for want of room.
    """
    key = kind, text
    shown, work = _kept.get(key, ("", room.left + 1))
    if work <= room.left:
        _kept.move_to_end(key)
        room.left -= work
        return shown
    before = replace(room)
    shown = render()
    took_only_work = replace(room, left=before.left) == before
    if took_only_work and sum(map(len, (*key, shown))) <= MAX_KEPT_CHARACTERS:
        _kept[key] = shown, before.left - room.left
        if len(_kept) > KEPT_TEXTS:
            _kept.popitem(last=False)
    return shown


def clean_html(text: str | bytes) -> str:
    """Return HTML with harmless tags and attributes only.

    It must be of modest size: the grader's own, or a student's that has been cleaned before.
    """
    text = text.decode() if isinstance(text, bytes) else str(text)
    return _cleaned(_without_dropped(text, BeautifulSoup), lambda classes: True)


def clean_student_html(text: str, room: Room | None = None) -> str:
    """Return a student's HTML without anything harmful and without the grader's own look.

    HTML that would take too long, or has no place in `room`, is shown as text.
    """
    room = room or Room()
    try:
        return clean_bounded_html(text, room)
    except TooMuchMarkupError:
        return _as_text(text, TOO_MUCH_HTML, room)


def clean_bounded_html(text: str, room: Room) -> str:
    """Return a student's HTML as `clean_student_html` does, or raise `TooMuchMarkupError`."""
    room.take(text, _html_marks(text))
    return _cleaned(_without_dropped(text, _BoundedSoup), lambda classes: False)


def _html_marks(text: str) -> int:
    """Return how many tags and entities HTML may have; raise `TooMuchMarkupError` for many."""
    marks = _marks(text)
    if marks > MAX_HTML_MARKS:
        raise TooMuchMarkupError
    return marks


def _marks(text: str) -> int:
    return text.count("<") + text.count("&")


def _text_work(text: str) -> int:
    return len(text) + REFERENCE_WORK * sum(text.count(mark) for mark in "&<>")


def _as_text(source: str, note: str, room: Room) -> str:
    more = len(source) - MAX_SOURCE_SHOWN
    cut = f"\n[{more} characters left out]" if more > 0 else ""
    return f"<p>{note}</p>{_preformatted(source[:MAX_SOURCE_SHOWN] + cut, room)}"


def _preformatted(text: str, room: Room) -> str:
    return f"<pre>{html.escape(room.beginning(text), quote=False)}</pre>"


def _cleaned(text: str, are_allowed_classes: Callable[[str], bool]) -> str:
    cleaned: str = bleach.clean(
        text,
        tags=TAGS,
        attributes=partial(_is_allowed, are_allowed_classes=are_allowed_classes),
        protocols={"http", "https", "file", "mailto", "data"},
        strip=True,
        strip_comments=True,
    )
    return cleaned


class _BoundedSoup(BeautifulSoup):  # type: ignore[misc]
    """A tree that is given up when it could make an HTML5 parser work long."""

    formatted = 0

    def pushTag(self, tag: Tag) -> None:  # noqa: N802
        """Open a tag, unless too many are open."""
        super().pushTag(tag)
        self.formatted += sum(parent.name in FORMATTING for parent in self.tagStack)
        if len(self.tagStack) > MAX_OPEN_TAGS or self.formatted > MAX_FORMATTED_TAGS:
            raise TooMuchMarkupError


def _without_dropped(text: str, soup_of: type[BeautifulSoup]) -> str:
    """Return HTML without what is dropped with its content, and without pictures to be fetched."""
    # text without a tag has nothing to drop, and a parser warns of what looks like an address
    if "<" not in text:
        return text
    soup = soup_of(MARKUP.sub(_only_tags, text), "html.parser")
    for element in soup.find_all(DROPPED_WITH_CONTENT):
        element.decompose()
    for picture in soup.find_all("img"):
        if not PICTURE.match(str(picture.get("src", ""))):
            # replacing it would look for its place among all that it stands with
            picture.string, picture.hidden = str(picture.get("alt", "")), True
    return str(soup)


def _only_tags(found: re.Match[str]) -> str:
    """Keep a whole tag, drop a comment, and make text of what an HTML parser would look for."""
    if found["tag"]:
        return found["tag"]
    return "&lt;" if found[0] == "<" else ""


def mathml(tex: str, *, display: bool = False) -> str:
    """Return a formula as MathML, or its TeX source as text where that cannot be done."""
    fallback = _tex_as_text(tex)
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


def _tex_as_text(tex: str) -> str:
    return f"<code>{html.escape(tex)}</code>"


class _Renderer(IPythonRenderer):  # type: ignore[misc]
    """Renders Markdown, with formulas and coloured code set aside until all else is cleaned."""

    def __init__(self, attachments: dict[str, dict[str, str]], room: Room) -> None:
        super().__init__(escape=False, exclude_anchor_links=True, attachments=attachments)
        self.room = room
        self.aside: dict[str, str] = {}
        # no student can write an element of this class
        self.secret = secrets.token_hex(16)

    def set_aside(self, shown: str, text: str, tag: str) -> str:
        """Return the element that stands for what is shown; a picture's text keeps its text."""
        name = f"{self.secret}-{len(self.aside)}"
        self.aside[name] = shown
        return f'<{tag} class="{name}">{html.escape(text)}</{tag}>'

    def put_back(self, cleaned: str) -> str:
        """Return clean HTML with what was set aside, once, in place of what stands for it."""
        # a "<" in a clean attribute is written "&lt;", so no attribute holds such an element
        element = re.compile(rf'<(var|div) class="({self.secret}-\d+)">[^<]*</\1>')
        return element.sub(lambda found: self.aside.pop(found[2], ""), cleaned)

    def are_allowed_classes(self, value: str) -> bool:
        """Tell whether a class is of what is set aside, or of a box that has no other look."""
        return value.startswith(self.secret) or BOX_CLASSES.issuperset(value.split())

    def formula(self, tex: str, *, display: bool = False) -> str:
        """Return the element that stands for a formula, or its text if the page has many."""
        try:
            self.room.take("", len(tex) * TEX_MARKS)
            formula = mathml(tex, display=display)
            self.room.take(formula, 0)
        except TooMuchMarkupError:
            return _tex_as_text(tex)
        return self.set_aside(formula, tex, "var")

    def inline_math(self, body: str) -> str:
        """Set a formula in the line aside."""
        return self.formula(body)

    def block_math(self, body: str) -> str:
        """Set a displayed formula aside."""
        return self.formula(body, display=True)

    def multiline_math(self, text: str) -> str:
        """Set a displayed formula with its marks aside."""
        return self.formula(text.strip("$"), display=True)

    def latex_environment(self, name: str, body: str) -> str:
        """Set an environment aside."""
        return self.formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    def block_code(self, code: str, info: str | None = None) -> str:
        """Colour Python as a cell's code; other lexers may take long for very little."""
        language = (info or "").partition(" ")[0].lower()
        try:
            if language not in PYTHON:
                raise TooMuchMarkupError
            coloured = _coloured(code, partial(super().block_code, info="python"), self.room)
        except TooMuchMarkupError:
            return cast(str, super().block_code(code))
        return self.set_aside(coloured, "", "div")

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Show an attached picture, or its text where there is none."""
        left_out = f"{text} {PICTURE_LEFT_OUT}"
        attached = self.attachments.get(url.removeprefix("attachment:"), {})
        # one attachment can be shown many times, and building it takes long, too
        if sum(map(len, attached.values())) > self.room.pictures:
            return left_out
        try:
            shown = cast(str, super().image(text, url, title))
        except Exception:  # a missing attachment must not stop the page
            return text
        self.room.pictures -= len(shown)
        return shown if self.room.pictures >= 0 else left_out


def markdown_to_html(
    source: str,
    attachments: dict[str, dict[str, str]] | None = None,
    room: Room | None = None,
) -> str:
    """Return Markdown with formulas as clean HTML with MathML.

    Markdown that would take too long, or has no place in `room`, is shown as text.
    """
    # as Markdown reads them: a carriage return alone is a line's end, too
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    room = room or Room()
    renderer = _Renderer(attachments or {}, room)
    try:
        room.take("", _markdown_work(source) / MARK_WORK)
        rendered = MarkdownWithMath(renderer=renderer).render(source)
        # it has been rendered by now, whether or not it is shown
        room.spend(min(_marks(rendered), MAX_HTML_MARKS))
        _html_marks(rendered)
        cleaned = _cleaned(_without_dropped(rendered, _BoundedSoup), renderer.are_allowed_classes)
    except (TooMuchMarkupError, RecursionError):
        return _as_text(source, TOO_MUCH_MARKDOWN, room)
    return renderer.put_back(cleaned)


def _markdown_work(source: str) -> float:
    """Return the work of rendering Markdown; raise `TooMuchMarkupError` where it has many marks."""
    marks = sum(source.count(mark) for mark in "<>&$[*_`|\n")
    formulas = sum(source.count(beginning) for beginning in FORMULA_BEGINNINGS)
    if (
        marks > MAX_MARKDOWN_MARKS
        or formulas > MAX_FORMULA_BEGINNINGS
        or len(source) > MAX_MARKDOWN_CHARACTERS
    ):
        raise TooMuchMarkupError
    return MARK_WORK * marks + len(source) * (MARKDOWN_WORK + FORMULA_END_WORK * formulas)


@pass_context
def markdown_filter(context: Context, source: str) -> CleanHtml:
    """Stand in for nbconvert's `markdown2html`, which lets scripts through."""
    cell: Any = context.get("cell") or {}
    attachments, room = cell.get("attachments"), _room_of_page(context)
    render = partial(markdown_to_html, source, attachments, room)
    shown = render() if attachments else _once("Markdown", source, room, render)
    return CleanHtml(shown)


def _room_of_page(context: Context) -> Room:
    resources: Any = context.get("resources")
    if not isinstance(resources, dict):
        return Room(MAX_PAGE_WORK)
    room: Room = resources.setdefault(ROOM, Room(MAX_PAGE_WORK))
    return room


@pass_context
def clean_filter(context: Context, text: str | bytes) -> str:
    """Stand in for nbconvert's `clean_html`; a raw cell is a student's, as nobody cleaned it."""
    if isinstance(text, CleanHtml):
        return text
    cell: Any = context.get("cell") or {}
    if cell.get("cell_type") == "raw":
        return clean_student_html(str(text), _room_of_page(context))
    return clean_html(text)


def files_filter(text: str) -> str:
    """Stand in for nbconvert's `strip_files_prefix`, for clean text refers to no file.

    That looks for a link from each bracket to the end of the line.
    """
    return text


@pass_context
def code_filter(context: Context, source: str, metadata: Any = None) -> str:
    """Stand in for nbconvert's `highlight_code`, which colours code of any length."""
    notebook: Any = context.get("nb") or {}
    language = notebook.get("metadata", {}).get("language_info", {})
    lexer, room = language.get("pygments_lexer", language.get("name")), _room_of_page(context)
    colour = partial(Highlight2HTML(lexer), metadata=metadata)
    kind = repr((lexer, (metadata or {}).get("magics_language")))
    return _once(kind, source, room, partial(code_to_html, source, colour, room))


def code_to_html(source: str, highlight: Callable[[str], str], room: Room) -> str:
    """Return coloured code, or plain code where colours would take too long."""
    try:
        return clean_html(_coloured(source, highlight, room))
    except TooMuchMarkupError:
        return f"<p>{TOO_MUCH_CODE}</p>{_preformatted(source, room)}"


def _coloured(source: str, highlight: Callable[[str], str], room: Room) -> str:
    """Return coloured code; raise `TooMuchMarkupError` where that would take too long."""
    if not _is_quickly_coloured(source):
        raise TooMuchMarkupError
    room.take(source, COLOURING_WORK * len(source) / MARK_WORK)
    coloured = highlight(source)
    room.spend(_marks(coloured))
    return coloured


def _is_quickly_coloured(source: str) -> bool:
    # a form feed ends a line for Python, and none for the lexer
    return len(source) <= MAX_COLOURED_CHARACTERS and all(
        len(line) <= MAX_COLOURED_LINE for line in source.split("\n")
    )


def text_to_html(text: str) -> str:
    """Return plain text as HTML, with `names in backticks` as code."""
    parts = html.escape(text, quote=True).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
