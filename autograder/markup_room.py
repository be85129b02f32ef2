"""How much of a page or notebook may be shown as more than text, and how much text."""

from __future__ import annotations

from dataclasses import dataclass

# the work of a tag, an entity or an emphasis, in characters of plain text
MARK_WORK = 100
MAX_OUTPUTS_WORK = 5_000_000
MAX_PAGE_WORK = 10_000_000
MAX_PAGE_PICTURE_CHARACTERS = 32 * 2**20
MAX_PAGE_TEXT = 10_000_000
# nbconvert reads a whole page again, each reference on its own, which takes 5 microseconds
REFERENCE_WORK = 10
# a text that is no longer is shown whatever room there is: it could be a score
SHORT_TEXT = 100


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


def _text_work(text: str) -> int:
    return len(text) + REFERENCE_WORK * sum(text.count(mark) for mark in "&<>")
