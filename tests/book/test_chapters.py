"""What every built chapter holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Locator
from pybtex.database import parse_file

import lossref
from autograder.assignment import assignment_names, find_assignment
from autograder.bank import load_bank
from tests.book.built import CHAPTERS, PAGES, ROOT, Reader, Visitor

# Feedback on submissions links to these places
ANCHORS = {
    "book/chapters/cross-entropy": [
        "softmax",
        "overflow",
        "shift-invariance",
        "mean-denominator",
        "wrong-axis",
        "log-softmax",
        "double-softmax",
        "probability-targets",
        "gradient",
        "gradient-denominator",
        "kl-divergence",
        "zero-log-zero",
        "kl-direction",
        "natural-logarithm",
        "dtype-and-device",
        "differentiable",
    ],
}
SECTIONS = [
    "From scratch, and how it fails",
    "The reference form",
    "Where libraries differ",
    "Common errors",
    "Quiz",
    "Exercises",
    "Take-away",
    "Sources",
]


def fragments(soup: BeautifulSoup) -> set[str]:
    return {element["id"] for element in soup.select("[id]")}


@pytest.mark.parametrize("page", ANCHORS)
def test_anchors_that_feedback_uses_are_there(soup: Reader, page: str) -> None:
    assert [name for name in ANCHORS[page] if name not in fragments(soup(page))] == []


@pytest.mark.parametrize("name", assignment_names(ROOT))
def test_feedback_and_assignments_link_to_places_that_exist(soup: Reader, name: str) -> None:
    assignment = find_assignment(name, ROOT)
    links = [entry.see for entry in load_bank(assignment).misconceptions]
    source = assignment.source.read_text("utf-8")
    for page, anchor in re.findall(r"book/chapters/([\w-]+)\.md#([\w-]+)", source):
        links.append(f"{page}#{anchor}")
    assert links
    places = [link.split("#") for link in sorted(set(links))]
    broken = [
        f"{page}#{anchor}"
        for page, anchor in places
        if anchor not in fragments(soup(f"book/chapters/{page}"))
    ]
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_ids_are_unique(soup: Reader, page: str) -> None:
    ids = [element["id"] for element in soup(page).select(".bd-article [id]")]
    assert sorted({name for name in ids if ids.count(name) > 1}) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_book_lead_somewhere(soup: Reader, book: Path, page: str) -> None:
    broken = []
    for link in soup(page).select(".bd-article a[href]"):
        target, _, fragment = link["href"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (book / page).parent / target if target else book / f"{page}.html"
        if not path.is_file():
            broken.append(link["href"])
        elif fragment and path.suffix == ".html":
            name = path.resolve().relative_to(book.resolve()).with_suffix("").as_posix()
            if fragment not in fragments(soup(name)):
                broken.append(link["href"])
    assert broken == []


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_has_every_part(soup: Reader, page: str) -> None:
    headings = [heading.get_text() for heading in soup(page).select("h2")]
    assert [part for part in SECTIONS if not any(part in text for text in headings)] == []
    article = soup(page).select_one(".bd-article")
    assert article is not None
    for kind in (".goals", ".take-away", ".library-table", ".wrong-and-right", ".question"):
        assert article.select(kind), kind


@pytest.mark.parametrize("page", PAGES)
def test_pictures_have_alt_text_that_states_a_result(soup: Reader, page: str) -> None:
    article = soup(page).select_one(".bd-article")
    assert article is not None
    pictures = article.select("figure svg, figure img, svg.themed-figure, .bd-article img")
    assert pictures or page not in CHAPTERS
    for picture in pictures:
        alt = picture.get("aria-label") or picture.get("alt") or ""
        assert len(alt.split()) >= 6, alt
        assert re.search(r"\d", alt), alt
        assert "{" not in alt
        assert "nan" not in alt.lower()


@pytest.mark.parametrize("page", CHAPTERS)
def test_figures_are_numbered_and_have_captions(soup: Reader, page: str) -> None:
    figures = soup(page).select("figure")
    assert figures
    for figure in figures:
        caption = figure.select_one("figcaption .caption-text")
        assert caption is not None
        assert caption.get_text().strip()
        assert figure.select_one("figcaption .caption-number") is not None
        assert figure.select_one("svg.themed-figure") is not None


@pytest.mark.parametrize("page", CHAPTERS)
def test_numbers_in_prose_were_pasted_from_cells(soup: Reader, page: str) -> None:
    source = (ROOT / f"{page}.md").read_text("utf-8")
    pasted = [element.get_text() for element in soup(page).select(".pasted-text")]
    assert len(pasted) >= len(re.findall(r"\{glue:text\}`", source))
    assert all(text.strip() for text in pasted)


def test_every_work_of_the_bibliography_is_cited(soup: Reader) -> None:
    works = set(parse_file(str(ROOT / "book" / "references.bib")).entries)
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "book").rglob("*.md"))
    cited = set(re.findall(r"\{cite:[tp]+\}`(\w+)`", sources))
    assert cited == works
    listed = soup("book/reference/bibliography").select(".bd-article .citation")
    assert len(listed) == len(works)


def test_every_public_name_of_lossref_is_described(soup: Reader) -> None:
    page = soup("book/reference/lossref")
    missing = [name for name in lossref.__all__ if f"lossref.{name}" not in fragments(page)]
    assert missing == []


def test_exercise_is_offered_when_it_was_generated(soup: Reader, book: Path) -> None:
    page = "book/chapters/cross-entropy"
    notebook = ROOT / "exercises" / "cross_entropy" / "cross_entropy.ipynb"
    link = soup(page).select_one(".exercise-download a[download]")
    if link is None:
        assert not notebook.exists(), "the book was built before the exercise; run `make book`"
        assert "make exercises" in soup(page).select_one(".exercise-download").get_text()
    else:
        offered = (book / page).parent / link["href"]
        assert offered.read_bytes() == notebook.read_bytes()


@pytest.mark.parametrize("page", CHAPTERS)
@pytest.mark.parametrize("script", [True, False])
def test_quiz_answers_every_option_by_keyboard(visit: Visitor, page: str, script: bool) -> None:
    with visit(page, script=script) as seen:
        questions = seen.page.locator(".question")
        assert questions.count() >= 3
        for question in questions.all():
            answers = question.locator("details.answer").all()
            assert len(answers) >= 3
            verdicts = [_open_by_keyboard(answer) for answer in answers]
            assert verdicts.count("Right.") == 1
            assert verdicts.count("Not so.") == len(answers) - 1


def _open_by_keyboard(answer: Locator) -> str:
    """Open one answer with the keyboard and return its verdict."""
    feedback = answer.locator(".feedback")
    assert not feedback.is_visible()
    answer.locator("summary").focus()
    answer.locator("summary").press("Enter")
    feedback.wait_for(state="visible")
    paragraphs = feedback.locator("p").all_inner_texts()
    assert len(" ".join(paragraphs[1:]).split()) >= 6, paragraphs
    return paragraphs[0]


@pytest.mark.parametrize("page", CHAPTERS)
def test_slider_walks_along_its_pictures_by_keyboard(visit: Visitor, page: str) -> None:
    with visit(page) as seen:
        for stepped in seen.page.locator(".stepped-figure").all():
            slider, shown = stepped.locator("input"), stepped.locator(".frame:visible svg")
            slider.focus()
            slider.press("Home")
            alts = [shown.get_attribute("aria-label")]
            for _ in range(int(slider.get_attribute("max"))):
                slider.press("ArrowRight")
                assert shown.count() == 1
                alts.append(shown.get_attribute("aria-label"))
                value = stepped.locator(".frame:visible").get_attribute("data-value")
                assert stepped.locator("output").inner_text() == value
                assert slider.get_attribute("aria-valuetext") == value
            assert len(set(alts)) == stepped.locator(".frame").count()


@pytest.mark.parametrize("page", CHAPTERS)
def test_slider_leaves_one_picture_without_scripts(visit: Visitor, page: str) -> None:
    with visit(page, script=False) as seen:
        for stepped in seen.page.locator(".stepped-figure").all():
            assert stepped.locator(".frame:visible svg").count() == 1
            assert not stepped.locator("input").is_visible()
