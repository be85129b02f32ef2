"""Turns Markdown with formulas into HTML that can neither run code nor fetch anything."""

from __future__ import annotations

import html
import re
import secrets
from functools import partial
from typing import cast
from xml.etree import ElementTree

from latex2mathml.converter import convert as latex_to_mathml
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from autograder.markup_room import MARK_WORK, Room, TooMuchMarkupError
from autograder.safe_html import (
    MAX_HTML_MARKS,
    BoundedSoup,
    as_text,
    cleaned,
    coloured,
    html_marks,
    marks_in,
    without_dropped,
    words,
)

# what notebooks put around a box of text; all other classes could be looks of the page it is on
BOX_CLASSES = words("alert alert-block alert-info alert-success alert-warning alert-danger")
MATHML_TAGS = words(
    "math mrow mi mo mn ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover "
    "munderover mmultiscripts mprescripts mtable mtr mtd mpadded mphantom mstyle menclose"
)
MATHML_ATTRIBUTES = words(
    "display stretchy fence separator form minsize maxsize movablelimits largeop lspace rspace "
    "columnalign rowspacing columnspacing mathvariant accent accentunder linethickness width "
    "height depth scriptlevel displaystyle notation symmetric"
)
MATHML_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
MAX_TEX_CHARACTERS = 4_000
MAX_MARKDOWN_CHARACTERS = 50_000
MAX_MARKDOWN_MARKS = 5_000
# what begins a formula is looked for to the end of the text, again and again
MAX_FORMULA_BEGINNINGS = 300
FORMULA_BEGINNINGS = ("\\begin{", "\\\\[", "\\\\(")
# the work of looking for a formula's end, for each character that follows its beginning
FORMULA_END_WORK = 0.1
# the work of Markdown that becomes many parts, for each character
MARKDOWN_WORK = 5
TEX_MARKS = 0.5  # for each character of a formula
# what Python is called in Markdown
PYTHON = words("python python3 py py3 ipython ipython3")
PICTURE_LEFT_OUT = "[picture left out: too many on one page]"
TOO_MUCH_MARKDOWN = "[Markdown that is too long or has too many marks; its source:]"


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
            shown = coloured(code, partial(super().block_code, info="python"), self.room)
        except TooMuchMarkupError:
            return cast(str, super().block_code(code))
        return self.set_aside(shown, "", "div")

    def task_list_item(self, text: str, checked: bool = False) -> str:
        """Show the box of a task as a character: no element of a form is kept."""
        box = "☑" if checked else "☐"
        start = "<p>" if text.startswith("<p>") else ""
        return f"<li>{start}{box} {text.removeprefix(start)}</li>\n"

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
        room.spend(min(marks_in(rendered), MAX_HTML_MARKS))
        html_marks(rendered)
        safe = cleaned(without_dropped(rendered, BoundedSoup), renderer.are_allowed_classes)
    except (TooMuchMarkupError, RecursionError):
        return as_text(source, TOO_MUCH_MARKDOWN, room)
    return renderer.put_back(safe)


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
