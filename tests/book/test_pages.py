"""What every built page keeps, seen in a browser."""

from __future__ import annotations

import pytest

from tests.book.built import PAGES, Visitor

WIDER_THAN_PAGE = """() => {
  const wide = [];
  for (const element of document.querySelectorAll(".bd-article *")) {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.right <= innerWidth + 1) continue;
    let parent = element.parentElement, scrolls = false;
    while (parent && !parent.matches(".bd-article")) {
      if (/auto|scroll|hidden/.test(getComputedStyle(parent).overflowX)) scrolls = true;
      parent = parent.parentElement;
    }
    if (!scrolls && !/auto|scroll/.test(getComputedStyle(element).overflowX))
      wide.push(element.tagName + "." + element.className);
  }
  return wide;
}"""

# WCAG 2.2: the contrast of every visible text in the article with what lies behind it
LOW_CONTRAST = """() => {
  const parse = (text) => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    return parts.length === 3 ? [...parts, 1] : parts;
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0.5) return colour;
    }
    return [255, 255, 255, 1];
  };
  const poor = [];
  for (const selector of SELECTORS) {
    for (const element of document.querySelectorAll(selector)) {
      if (!element.checkVisibility()) continue;
      const style = getComputedStyle(element);
      const ink = luminance(parse(element instanceof SVGElement ? style.fill : style.color));
      const paper = luminance(behind(element));
      const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      if (ratio < 4.5) poor.push(`${selector} ${ratio.toFixed(2)} ${element.textContent}`);
    }
  }
  return poor;
}"""

TEXTS = [
    ".library-table th",
    ".library-table td",
    ".library-table .warning",
    ".wrong-and-right .verdict",
    ".wrong-and-right .result",
    ".question > p",
    ".question summary",
    ".question .verdict",
    "figcaption .caption-text",
    ".themed-figure text",
    ".stepped-control label",
    ".stepped-control output",
    ".pasted-text",
    ".goals p",
    ".take-away p",
]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_page_is_quiet_and_fetches_nothing_from_elsewhere(
    visit: Visitor, page: str, width: int, theme: str
) -> None:
    with visit(page, width=width, theme=theme) as seen:
        assert seen.complaints == []
        assert seen.page.title().endswith("Getting the Loss Right")


@pytest.mark.parametrize("page", PAGES)
def test_page_does_not_scroll_sideways_on_a_phone(visit: Visitor, page: str) -> None:
    with visit(page, width=390) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 390
        assert seen.page.evaluate(WIDER_THAN_PAGE) == []


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_in_both_themes(visit: Visitor, page: str, theme: str) -> None:
    with visit(page, theme=theme) as seen:
        assert seen.page.get_attribute("html", "data-theme") == theme
        seen.page.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")
        assert seen.page.evaluate(LOW_CONTRAST.replace("SELECTORS", str(TEXTS))) == []


@pytest.mark.parametrize("page", PAGES)
def test_formulas_are_set_by_the_book_s_own_mathjax(visit: Visitor, page: str) -> None:
    with visit(page) as seen:
        formulas = seen.page.locator(".bd-article .math").count()
        assert seen.page.locator(".bd-article .math mjx-container").count() == formulas
        assert seen.page.locator("mjx-merror, [data-mjx-error]").count() == 0


def test_front_door_leads_to_the_front_page(visit: Visitor) -> None:
    with visit("index") as seen:
        seen.page.wait_for_url("**/book/index.html")
        assert seen.page.locator(".bd-article h1").inner_text().startswith("Getting the Loss Right")
        assert seen.complaints == []
