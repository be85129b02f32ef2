"""What every chapter is made with: numbers, figures, comparisons and checked snippets.

`book/AUTHORING.md` says how to use them.
"""

from __future__ import annotations

import os

# keras reads its back end once, on import
os.environ.setdefault("KERAS_BACKEND", "torch")

from book.means.figures import PALETTE, drawing, figure, stepped_figure
from book.means.library_table import Case, library_table
from book.means.numbers import number, percent, state
from book.means.snippets import source_of, wrong_and_right

__all__ = [
    "PALETTE",
    "Case",
    "drawing",
    "figure",
    "library_table",
    "number",
    "percent",
    "source_of",
    "state",
    "stepped_figure",
    "wrong_and_right",
]
