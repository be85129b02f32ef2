"""Where the built pages are, and which."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "_build" / "html"
CHAPTERS = [
    path.relative_to(ROOT).with_suffix("").as_posix()
    for path in sorted((ROOT / "book" / "chapters").glob("*.md"))
]
PAGES = [
    "book/index",
    "book/how-to-use",
    *CHAPTERS,
    "book/reference/notation",
    "book/reference/lossref",
    "book/reference/lossref-modules",
    "book/reference/lossref-differences",
    "book/reference/what-the-grader-promises",
    "book/reference/bibliography",
    "book/for-instructors",
]

Reader = Callable[[str], BeautifulSoup]
Visitor = Callable[..., AbstractContextManager[Any]]
