"""Themed figures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from book.means.figures import PALETTE, SteppedFigure, drawing, stepped_figure, themed_svg
from tests.book.built import ROOT

ALT = "The loss falls from 2.30 to 0.19 in 300 steps."
CSS = (ROOT / "book" / "_static" / "course.css").read_text("utf-8")
BACKGROUNDS = {"light": (255, 255, 255), "dark": (0x12, 0x12, 0x12)}


@pytest.fixture
def picture() -> Iterator[Figure]:
    mpl.use("agg")
    with drawing():
        figure, axis = plt.subplots()
        axis.plot([0, 1], [2.3, 0.19], label="loss")
        axis.imshow([[0, 1], [1, 0]], extent=(0, 1, 0, 1))
        axis.legend()
    yield figure
    plt.close(figure)


def colours(theme: str) -> dict[str, str]:
    block = re.search(
        r"^html \{(.*?)\}" if theme == "light" else r'^html\[data-theme="dark"\] \{(.*?)\}',
        CSS,
        re.MULTILINE | re.DOTALL,
    )
    assert block is not None
    return dict(re.findall(r"--figure-(\w+): (#[0-9a-f]{6});", block[1]))


def luminance(colour: tuple[int, int, int]) -> float:
    parts = [v / 255 for v in colour]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_light_colours_of_the_page_are_those_of_the_palette() -> None:
    assert colours("light") == PALETTE


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_that_carries_meaning_has_contrast(theme: str) -> None:
    found = colours(theme)
    assert found.keys() == PALETTE.keys()
    for name, value in found.items():
        rgb = (int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16))
        least = {"faint": 1.2, "muted": 3.0}.get(name, 4.5)
        assert contrast(rgb, BACKGROUNDS[theme]) >= least, (name, value)


def test_svg_says_its_alt_text_and_is_an_image(picture: Figure) -> None:
    alt = 'Loss < 0.19 & "falling" after 300 steps of descent.'
    root = ElementTree.fromstring(themed_svg(picture, name="loss", alt=alt).markup)
    assert root.get("role") == "img"
    assert root.get("aria-label") == alt
    assert root.get("width") is None


def test_svg_has_theme_colours_only(picture: Figure) -> None:
    markup = themed_svg(picture, name="loss", alt=ALT).markup
    assert f"var(--figure-ink, {PALETTE['ink']})" in markup
    plain = re.sub(r"var\(--figure-\w+, #[0-9a-f]{6}\)", "", markup)
    assert re.findall(r"#[0-9a-f]{6}\b", plain) == []


def test_svg_refers_only_to_its_own_ids(picture: Figure) -> None:
    root = ElementTree.fromstring(themed_svg(picture, name="loss", alt=ALT).markup)
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    markup = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', markup))
    assert ids
    assert used
    assert all(identifier.startswith("loss-") for identifier in ids)
    assert {first or second for first, second in used} <= ids


def test_svg_holds_its_raster_parts_itself(picture: Figure) -> None:
    root = ElementTree.fromstring(themed_svg(picture, name="loss", alt=ALT).markup)
    images = root.findall(".//{http://www.w3.org/2000/svg}image")
    assert [image.get("href", "")[:22] for image in images] == ["data:image/png;base64,"]


def test_svg_is_the_same_each_time(picture: Figure) -> None:
    first, second = (themed_svg(picture, name="loss", alt=ALT).markup for _ in range(2))
    assert first == second


@pytest.mark.parametrize("alt", ["", "A figure.", "The loss falls quickly and then levels off."])
def test_figure_without_a_stated_result_is_refused(picture: Figure, alt: str) -> None:
    with pytest.raises(ValueError, match="alt of figure 'loss' must be a sentence"):
        themed_svg(picture, name="loss", alt=alt)


def test_stepped_figure_shows_only_its_start(picture: Figure) -> None:
    frames = tuple(themed_svg(picture, name=f"loss-{i}", alt=ALT) for i in range(3))
    shown = SteppedFigure("loss", "Step", ("−1", "0", "1"), frames, start=1)._repr_html_()
    assert re.findall(r'data-value="([^"]+)"( hidden)?>', shown) == [
        ("−1", " hidden"),
        ("0", ""),
        ("1", " hidden"),
    ]
    assert '<div class="stepped-control" hidden>' in shown
    assert 'max="2"' in shown
    assert 'value="1"' in shown


def test_stepped_figure_refuses_a_start_outside(picture: Figure) -> None:
    with pytest.raises(ValueError, match="start must be the index of one of 1 pictures, got 1"):
        stepped_figure("loss", [("0", picture, ALT)], label="Step", start=1)
