"""The table "where libraries differ": each call is run when the book is built."""

from __future__ import annotations

import html
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from book.means.numbers import number
from book.means.snippets import chapter_names, value_of


@dataclass(frozen=True)
class Case:
    """One question put to several libraries.

    `exact` is the true answer (an mpmath number or a fraction), or None where the question has
    no answer that all would accept. `calls` maps a library's name to the source of its call.
    """

    name: str
    title: str
    exact: Any
    calls: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What one library gave."""

    library: str
    call: str
    value: float
    eps: float
    warning: str = ""


@dataclass(frozen=True)
class LibraryTable:
    """Cases and answers, shown as one table with a group of rows for each case."""

    caption: str
    cases: tuple[Case, ...]
    answers: Mapping[str, tuple[Answer, ...]] = field(repr=False)

    def value(self, case: str, library: str) -> float:
        """Return one answer, for prose."""
        if case not in self.answers:
            raise KeyError(f"unknown case {case!r}: expected one of {sorted(self.answers)}")
        found = {answer.library: answer.value for answer in self.answers[case]}
        if library not in found:
            raise KeyError(f"case {case!r} has no {library!r}: expected one of {sorted(found)}")
        return found[library]

    def _repr_html_(self) -> str:
        groups = "".join(self._group(case) for case in self.cases)
        return (
            '<div class="scrolling-table" role="region" tabindex="0" '
            f'aria-label="{html.escape(self.caption)}"><table class="library-table">'
            f"<caption>{html.escape(self.caption)}</caption><thead><tr>"
            '<th scope="col">Library and call</th>'
            '<th scope="col">Value</th><th scope="col">Relative error</th></tr></thead>'
            f"{groups}</table></div>"
        )

    def _group(self, case: Case) -> str:
        exact = "no agreed answer" if case.exact is None else f"exactly {number(case.exact, 6)}"
        note = f'<span class="note">{html.escape(case.note)}</span>' if case.note else ""
        rows = "".join(_row(answer, case.exact) for answer in self.answers[case.name])
        return (
            f'<tbody id="case-{case.name}"><tr class="case"><th colspan="3" scope="rowgroup">'
            f"<span>{html.escape(case.title)}: {exact}.</span> {note}</th></tr>"
            f"{rows}</tbody>"
        )


def library_table(
    caption: str, cases: Sequence[Case], *, namespace: Mapping[str, Any] | None = None
) -> LibraryTable:
    """Run every call in the chapter's names and set the answers against the exact values."""
    names = chapter_names() if namespace is None else namespace
    repeated = {case.name for case in cases if [other.name for other in cases].count(case.name) > 1}
    if repeated:
        raise ValueError(f"each case needs a name of its own, got {sorted(repeated)} twice")
    answers = {
        case.name: tuple(_answer(library, call, names) for library, call in case.calls.items())
        for case in cases
    }
    return LibraryTable(caption, tuple(cases), answers)


def relative_error(answer: Answer, exact: Any) -> str:
    """Say how far an answer is from the exact value, in words where a number misleads."""
    if exact is None:
        return "—"
    if np.isnan(answer.value):
        return "not a number"
    if answer.value == exact:
        return "none"
    if exact == 0 or np.isinf(answer.value) or np.isinf(float(exact)):
        return "infinite"
    # mpmath keeps the difference that two nearly equal floats would lose
    error = float(abs((answer.value - exact) / exact))
    return "rounding only" if error <= answer.eps else number(error, 2)


def _row(answer: Answer, exact: Any) -> str:
    warning = (
        f'<span class="warning">Warns: “{html.escape(answer.warning)}”</span>'
        if answer.warning
        else ""
    )
    return (
        f'<tr><th scope="row">{html.escape(answer.library)}'
        f"<code>{html.escape(answer.call)}</code>{warning}</th>"
        f"<td>{number(answer.value, 6)}</td>"
        f"<td>{relative_error(answer, exact)}</td></tr>"
    )


def _answer(library: str, call: str, names: Mapping[str, Any]) -> Answer:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = value_of(call, names)
    plain = np.asarray(getattr(value, "detach", lambda: value)())
    if plain.ndim != 0:
        raise ValueError(f"{library}: {call!r} must give one number, got shape {plain.shape}")
    eps = np.finfo(plain.dtype).eps if plain.dtype.kind == "f" else 0.0
    warning = " ".join(str(caught[0].message).split()) if caught else ""
    return Answer(library, call, float(plain), float(eps), warning)
