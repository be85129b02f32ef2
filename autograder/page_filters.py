"""Filters of feedback and formgrader's pages that stand in for nbconvert's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.filters.highlight import Highlight2HTML

from autograder.markup_room import MAX_PAGE_WORK, Room
from autograder.safe_html import NO_DESCRIPTION, clean_html, clean_student_html, code_to_html
from autograder.safe_markdown import markdown_to_html

ROOM = "room for markup"
# what stands in the notebook of every student is made into HTML once
KEPT_TEXTS = 256
MAX_KEPT_CHARACTERS = 100_000
# HTML by kind and text, with the room that it takes; what was used last comes last
_kept: OrderedDict[tuple[str, str], tuple[str, int]] = OrderedDict()


class CleanHtml(str):
    """HTML that was made from Markdown here, which need not and cannot be cleaned again."""


@pass_context
def markdown_filter(context: Context, source: str) -> CleanHtml:
    """Stand in for nbconvert's `markdown2html`, which lets scripts through."""
    cell: Any = context.get("cell") or {}
    attachments, room = cell.get("attachments"), _room_of_page(context)
    render = partial(markdown_to_html, source, attachments, room)
    shown = render() if attachments else _once("Markdown", source, room, render)
    return CleanHtml(shown)


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


def described_filter(picture: str) -> str:
    """Say of a picture without a description that it has none."""
    has_one = ' alt="' in picture
    return picture if has_one else picture.replace("<img ", f'<img alt="{NO_DESCRIPTION}" ', 1)


@pass_context
def code_filter(context: Context, source: str, metadata: Any = None) -> str:
    """Stand in for nbconvert's `highlight_code`, which colours code of any length."""
    notebook: Any = context.get("nb") or {}
    language = notebook.get("metadata", {}).get("language_info", {})
    lexer, room = language.get("pygments_lexer", language.get("name")), _room_of_page(context)
    colour = partial(Highlight2HTML(lexer), metadata=metadata)
    kind = repr((lexer, (metadata or {}).get("magics_language")))
    return _once(kind, source, room, partial(code_to_html, source, colour, room))


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


def _room_of_page(context: Context) -> Room:
    resources: Any = context.get("resources")
    if not isinstance(resources, dict):
        return Room(MAX_PAGE_WORK)
    room: Room = resources.setdefault(ROOM, Room(MAX_PAGE_WORK))
    return room
