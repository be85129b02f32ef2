"""Finds settings of a course that nothing takes, as nbgrader warns of them.

A setting counts as known when a class that nbgrader, nbconvert, the autograder or the course itself
brings has an option of that name, under its own name or that of a class above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from nbgrader.apps import NbGraderApp
from traitlets import List, Type
from traitlets.config import Config, Configurable
from traitlets.utils.importstring import import_item

Options = dict[str, Any]


def misspelt_settings(settings: Config) -> list[str]:
    """Return a sentence for each section and option of some settings that no class has."""
    kinds = _kinds()
    known = _options(kinds)
    if _import_named(settings, known):
        kinds = _kinds()
        known = _options(kinds)
    return [
        sentence
        for section, options in settings.items()
        if isinstance(options, Config)
        for sentence in _unknown(section, options, known, kinds)
    ]


def _unknown(
    section: str,
    options: Config,
    known: Mapping[str, Options],
    kinds: Iterable[type[Configurable]],
) -> Iterator[str]:
    # a section within a section is for what belongs to another class, and `c.X` alone makes an `X`
    names = [name for name, value in options.items() if not isinstance(value, Config)]
    if section not in known and names:
        told = ", ".join(f"c.{section}.{name}" for name in names)
        verb = "has" if len(names) == 1 else "have"
        yield f"{told} {verb} no effect: there is no {section}{_hint(section, known)}"
        return
    for name in names:
        if name not in known[section]:
            owners = [kind.__name__ for kind in kinds if name in kind.class_own_traits(config=True)]
            hint = _hint(section, owners, f".{name}", 0.0) or _hint(name, known[section])
            yield f"c.{section}.{name} has no effect: {section} has no such option{hint}"


def _hint(word: str, known: Iterable[str], after: str = "", least: float = 0.6) -> str:
    close = get_close_matches(word, sorted(known), n=1, cutoff=least)
    return f"; did you mean {close[0]}{after}?" if close else ""


def _kinds() -> set[type[Configurable]]:
    """Return the classes that take settings."""
    return {*NbGraderApp().all_configurable_classes(), *_below(Configurable)}


def _below(kind: type[Configurable]) -> Iterator[type[Configurable]]:
    for lower in kind.__subclasses__():
        yield lower
        yield from _below(lower)


def _options(kinds: Iterable[type[Configurable]]) -> dict[str, Options]:
    """Return the options of each section: those of the classes that read it."""
    known: dict[str, Options] = {}
    for kind in kinds:
        for section in kind.section_names():
            known.setdefault(section, {}).update(kind.class_traits(config=True))
    return known


def _import_named(settings: Config, known: Mapping[str, Options]) -> bool:
    """Import the classes that the settings name, such as a plugin; return whether there are any."""
    named = [
        item
        for section, options in settings.items()
        if isinstance(options, Config)
        for name, value in options.items()
        if isinstance(known.get(section, {}).get(name), Type | List)
        for item in (value if isinstance(value, list) else [value])
        if isinstance(item, str) and "." in item
    ]
    for name in named:
        try:
            import_item(name)
        except Exception:  # said where it is used
            continue
    return bool(named)
