"""The reference of the library: every public name once, and nothing else."""

from __future__ import annotations

import re
from collections import Counter

import lossref
import lossref.nn
from tests.book.built import ROOT, Reader


def listed() -> list[str]:
    """Return the names in the page's directives."""
    text = (ROOT / "book" / "reference" / "lossref.md").read_text("utf-8")
    blocks = re.findall(r"^```\{library-reference\} lossref\n(.*?)```", text, re.M | re.S)
    return [line.partition(":")[0] for block in blocks for line in block.splitlines()]


def test_every_public_name_is_listed_once() -> None:
    assert Counter(listed()) == Counter(lossref.__all__)


def test_every_entry_of_the_page_has_formula_and_example(soup: Reader) -> None:
    page = soup("book/reference/lossref")
    entries = {term["id"]: term.find_next_sibling("dd") for term in page.select("dt.sig[id]")}
    assert entries.keys() == {f"lossref.{name}" for name in lossref.__all__}
    without = [name for name, entry in entries.items() if not entry.select(".highlight")]
    assert without == []
    plain = {"lossref.value_and_grad", "lossref.ohem_cross_entropy"}
    bare = [name for name, entry in entries.items() if not entry.select(".math")]
    assert set(bare) <= plain


def test_entries_link_to_the_sections_that_explain_them(soup: Reader) -> None:
    page = soup("book/reference/lossref")
    entry = page.find(id="lossref.cross_entropy").find_next_sibling("dd")
    links = [link["href"] for link in entry.select("a.reference.internal")]
    assert "../chapters/cross-entropy.html#reference-form" in links


def test_every_module_is_documented(soup: Reader) -> None:
    page = soup("book/reference/lossref-modules")
    found = {term["id"] for term in page.select("dt.sig[id]")}
    assert found >= {f"lossref.nn.{name}" for name in lossref.nn.__all__}
