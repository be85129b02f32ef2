"""Figures: inline SVG whose colours follow the page, with alt text that states the result."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure
from myst_nb import glue

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

# Names and light-mode values; book/_static/course.css has the dark ones as --figure-<name>.
PALETTE = {
    "ink": "#1f2a35",
    "muted": "#78838f",
    "faint": "#d5dbe1",
    "blue": "#1f6fb9",
    "orange": "#b9560b",
    "green": "#1c7f4c",
    "purple": "#7c44b4",
    "red": "#c22f35",
}

# Narrow, so that labels can still be read when the figure is scaled to a 390-pixel screen
WIDTH = 5.2

STYLE: dict[str, Any] = {
    "figure.figsize": (WIDTH, 3.1),
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelcolor": PALETTE["ink"],
    "axes.titlecolor": PALETTE["ink"],
    "axes.edgecolor": PALETTE["muted"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(
        color=[PALETTE[name] for name in ("blue", "orange", "green", "purple", "red")],
        linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))],
    ),
    "grid.color": PALETTE["faint"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": PALETTE["ink"],
    "lines.linewidth": 2.0,
    "text.color": PALETTE["ink"],
    "xtick.color": PALETTE["muted"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.color": PALETTE["muted"],
    "ytick.labelcolor": PALETTE["ink"],
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "getting-the-loss-right",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with the book's style and palette inside this block."""
    with mpl.rc_context(STYLE):
        yield


@dataclass(frozen=True)
class ThemedSvg:
    """An inline SVG picture together with its alt text."""

    markup: str
    alt: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.alt


@dataclass(frozen=True)
class SteppedFigure:
    """Pictures of which a slider shows one; without a script the starting one stays."""

    name: str
    label: str
    values: tuple[str, ...]
    frames: tuple[ThemedSvg, ...]
    start: int

    def _repr_html_(self) -> str:
        identifier = f"stepped-{self.name}"
        frames = "".join(
            f'<div class="frame" data-value="{html.escape(value)}"'
            f"{'' if index == self.start else ' hidden'}>{frame.markup}</div>"
            for index, (value, frame) in enumerate(zip(self.values, self.frames, strict=True))
        )
        return (
            f'<div class="stepped-figure">'
            f'<div class="stepped-control" hidden>'
            f'<label for="{identifier}">{html.escape(self.label)}</label>'
            f'<input type="range" id="{identifier}" min="0" max="{len(self.frames) - 1}" step="1" '
            f'value="{self.start}" aria-valuetext="{html.escape(self.values[self.start])}">'
            f'<output for="{identifier}">{html.escape(self.values[self.start])}</output></div>'
            f"{frames}</div>"
        )

    def __repr__(self) -> str:
        return self.frames[self.start].alt


def figure(name: str, picture: Figure, *, alt: str) -> None:
    """Give a picture a name that `{glue:figure}` pastes; `alt` states the computed result."""
    glue(name, themed_svg(picture, name=name, alt=alt), display=False)


def stepped_figure(
    name: str,
    pictures: Sequence[tuple[str, Figure, str]],
    *,
    label: str,
    start: int,
) -> None:
    """Give a row of (value, picture, alt) one name; a slider called `label` walks along it."""
    if not 0 <= start < len(pictures):
        raise ValueError(f"start must be the index of one of {len(pictures)} pictures, got {start}")
    frames = tuple(
        themed_svg(picture, name=f"{name}-{index}", alt=alt)
        for index, (_, picture, alt) in enumerate(pictures)
    )
    values = tuple(value for value, _, _ in pictures)
    glue(name, SteppedFigure(name, label, values, frames, start), display=False)


def themed_svg(picture: Figure, *, name: str, alt: str) -> ThemedSvg:
    """Turn a matplotlib figure into inline SVG; `name` keeps its ids apart from other figures'."""
    _check_alt(name, alt)
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        picture.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    _keep_ids_apart(root, name)
    _scale_with_page(root)
    root.set("role", "img")
    root.set("aria-label", alt)
    ElementTree.register_namespace("", SVG)
    markup = ElementTree.tostring(root, encoding="unicode")
    return ThemedSvg(_follow_theme(markup), alt)


def _check_alt(name: str, alt: str) -> None:
    if not re.search(r"\d", alt) or len(alt.split()) < 6:
        raise ValueError(
            f"alt of figure {name!r} must be a sentence that states the computed result "
            f"with its numbers, got {alt!r}"
        )


def _keep_ids_apart(root: ElementTree.Element, name: str) -> None:
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set("id", f"{name}-{value}")
            elif key == f"{{{XLINK}}}href":
                # inside HTML only the plain attribute is known
                del element.attrib[key]
                element.set("href", f"#{name}-{value[1:]}" if value.startswith("#") else value)
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))


def _scale_with_page(root: ElementTree.Element) -> None:
    width = root.attrib.pop("width")
    root.attrib.pop("height")
    points = float(width.removesuffix("pt"))
    root.set("class", "themed-figure")
    # 1.5 CSS pixels a point gives 15-pixel labels on a wide screen
    root.set("style", f"max-width: {points * 1.5:.0f}px")


def _follow_theme(markup: str) -> str:
    for colour_name, value in PALETTE.items():
        markup = markup.replace(value, f"var(--figure-{colour_name}, {value})")
    return markup.replace("'DejaVu Sans'", "var(--figure-font, 'DejaVu Sans')")
