"""Turns what students wrote into HTML that can neither run code nor fetch anything."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from functools import partial

import bleach
from bs4 import BeautifulSoup, Tag

from autograder.markup_room import MARK_WORK, Room, TooMuchMarkupError


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


TAGS = words(
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
# a table of 60 rows and 40 columns has 5,100
MAX_HTML_MARKS = 6_000
MAX_OPEN_TAGS = 100
# HTML5 opens these again in each block that follows, so they multiply
FORMATTING = words("a b big code em font i nobr s small strike strong tt u")
MAX_FORMATTED_TAGS = 10_000
MAX_TAG_ATTRIBUTES = 50
# the lexer looks from each token to the end of the line
MAX_COLOURED_LINE = 1_000
# the lexer's work for a character, at worst, in characters of plain text
COLOURING_WORK = 50
MAX_COLOURED_CHARACTERS = 20_000
MAX_SOURCE_SHOWN = 20_000
NO_DESCRIPTION = "a picture without a description"
TOO_MUCH_HTML = "[HTML with too many tags; its source:]"
TOO_MUCH_CODE = "[Code that is too long to be coloured:]"
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


def clean_html(text: str | bytes) -> str:
    """Return HTML with harmless tags and attributes only.

    It must be of modest size: the grader's own, or a student's that has been cleaned before.
    """
    text = text.decode() if isinstance(text, bytes) else str(text)
    return cleaned(without_dropped(text, BeautifulSoup), lambda classes: True)


def clean_student_html(text: str, room: Room | None = None) -> str:
    """Return a student's HTML without anything harmful and without the grader's own look.

    HTML that would take too long, or has no place in `room`, is shown as text.
    """
    room = room or Room()
    try:
        return clean_bounded_html(text, room)
    except TooMuchMarkupError:
        return as_text(text, TOO_MUCH_HTML, room)


def clean_bounded_html(text: str, room: Room) -> str:
    """Return a student's HTML as `clean_student_html` does, or raise `TooMuchMarkupError`."""
    room.take(text, html_marks(text))
    return cleaned(without_dropped(text, BoundedSoup), lambda classes: False)


def code_to_html(source: str, highlight: Callable[[str], str], room: Room) -> str:
    """Return coloured code, or plain code where colours would take too long."""
    try:
        return clean_html(coloured(source, highlight, room))
    except TooMuchMarkupError:
        return f"<p>{TOO_MUCH_CODE}</p>{_preformatted(source, room)}"


def text_to_html(text: str) -> str:
    """Return plain text as HTML, with `names in backticks` as code."""
    parts = html.escape(text, quote=True).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def html_marks(text: str) -> int:
    """Return how many tags and entities HTML may have; raise `TooMuchMarkupError` for many."""
    marks = marks_in(text)
    if marks > MAX_HTML_MARKS:
        raise TooMuchMarkupError
    return marks


def marks_in(text: str) -> int:
    """Return how many tags and entities HTML has."""
    return text.count("<") + text.count("&")


def as_text(source: str, note: str, room: Room) -> str:
    """Return a note, and the beginning of a source as far as the page has room for it."""
    more = len(source) - MAX_SOURCE_SHOWN
    cut = f"\n[{more} characters left out]" if more > 0 else ""
    return f"<p>{note}</p>{_preformatted(source[:MAX_SOURCE_SHOWN] + cut, room)}"


def _preformatted(text: str, room: Room) -> str:
    return f"<pre>{html.escape(room.beginning(text), quote=False)}</pre>"


def cleaned(text: str, are_allowed_classes: Callable[[str], bool]) -> str:
    """Return HTML of modest size with harmless tags and attributes, and with allowed classes."""
    kept: str = bleach.clean(
        text,
        tags=TAGS,
        attributes=partial(_is_allowed, are_allowed_classes=are_allowed_classes),
        protocols={"http", "https", "file", "mailto", "data"},
        strip=True,
        strip_comments=True,
    )
    return kept


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


class BoundedSoup(BeautifulSoup):  # type: ignore[misc]
    """A tree that is given up when it could make an HTML5 parser work long."""

    formatted = 0

    def pushTag(self, tag: Tag) -> None:  # noqa: N802
        """Open a tag, unless too many are open."""
        super().pushTag(tag)
        self.formatted += sum(parent.name in FORMATTING for parent in self.tagStack)
        if len(self.tagStack) > MAX_OPEN_TAGS or self.formatted > MAX_FORMATTED_TAGS:
            raise TooMuchMarkupError


def without_dropped(text: str, soup_of: type[BeautifulSoup]) -> str:
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
        picture.attrs.setdefault("alt", NO_DESCRIPTION)
    return str(soup)


def _only_tags(found: re.Match[str]) -> str:
    """Keep a whole tag, drop a comment, and make text of what an HTML parser would look for."""
    if found["tag"]:
        return found["tag"]
    return "&lt;" if found[0] == "<" else ""


def coloured(source: str, highlight: Callable[[str], str], room: Room) -> str:
    """Return coloured code; raise `TooMuchMarkupError` where that would take too long."""
    if not _is_quickly_coloured(source):
        raise TooMuchMarkupError
    room.take(source, COLOURING_WORK * len(source) / MARK_WORK)
    shown = highlight(source)
    room.spend(marks_in(shown))
    return shown


def _is_quickly_coloured(source: str) -> bool:
    # a form feed ends a line for Python, and none for the lexer
    return len(source) <= MAX_COLOURED_CHARACTERS and all(
        len(line) <= MAX_COLOURED_LINE for line in source.split("\n")
    )
