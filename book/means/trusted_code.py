"""How much code stands between a submission and its grade, what attacks it, and what came of it."""

from __future__ import annotations

import ast
import html
import io
import json
import tokenize
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import autograder

PACKAGE = Path(autograder.__file__).parent
ATTACKS = PACKAGE.parent / "tests" / "autograder" / "attacks"
RESULTS = PACKAGE.parent / "book" / "reference" / "attacks.json"
KINDS = {
    "forged": "Forging results",
    "theft": "Stealing",
    "escape": "Getting out",
    "denial": "Using up time, memory and patience",
    "protocol": "Sending wrong messages",
    "tampered": "Tampering with the notebook",
    "injected": "Injecting into pages that people open",
}
NO_EFFECT = "no effect here either"
# what goes beyond the attacker's own points and what the notebook itself holds
HARM = (
    "the grader hangs",
    "no result is recorded",
    "leaves processes behind",
    "is active in the feedback",
    "harms the next submission",
)
# everything on the trusted side that is handed bytes, or values made of them, by a student
READERS = {
    "notebook": (
        "submission_folder.py",
        "other_notebooks.py",
        "intake.py",
        "rebuild.py",
        "not_allowed.py",
        "settled_functions.py",
    ),
    "messages": ("child/protocol.py", "student_process.py"),
    "verdict": (
        "checking/cell_judge.py",
        "checking/compare.py",
        "checking/failure.py",
        "checking/known_cases.py",
        "checking/student.py",
    ),
    "outputs": (
        "outputs.py",
        "safe_html.py",
        "safe_markdown.py",
        "markup_room.py",
        "page_filters.py",
    ),
}
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def lines_of_code(source: str) -> int:
    """Count the lines that hold code: neither blank, nor a comment, nor a docstring.

    >>> lines_of_code("def f(x):\\n    'Return x.'\\n\\n    # why\\n    return x\\n")
    2
    """
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in SILENT
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            text = node.body[0]
            lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return len(lines)


def trusted_lines() -> dict[str, int]:
    """Count the lines of each part of the trusted side that reads what a student sends."""
    return {
        part: sum(lines_of_code((PACKAGE / name).read_text("utf-8")) for name in names)
        for part, names in READERS.items()
    }


def attack_counts() -> Counter[str]:
    """Count the attacks of each kind."""
    return Counter(path.parent.name for path in ATTACKS.glob("*/*.md"))


def attack_results() -> dict[str, Any]:
    """Read what each attack achieved when `benchmarks/attacks.py` last ran."""
    return dict(json.loads(RESULTS.read_text("utf-8")))


def results_of_attacks() -> dict[str, dict[str, Any]]:
    """Return the results of the attacks, without the plain answers that they are compared with."""
    rows = attack_results()["rows"]
    return {name: row for name, row in rows.items() if name.partition("/")[0] in KINDS}


@dataclass(frozen=True)
class AttackTable:
    """What each attack achieved: stock nbgrader, asserts confined here, hidden checks here."""

    caption: str
    rows: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def _repr_html_(self) -> str:
        groups = "".join(self._group(kind, title) for kind, title in KINDS.items())
        return (
            '<div class="scrolling-table" role="region" tabindex="0" '
            f'aria-label="{html.escape(self.caption)}"><table class="library-table">'
            f"<caption>{html.escape(self.caption)}</caption><thead><tr>"
            '<th scope="col">What it tries</th><th scope="col">Stock nbgrader</th>'
            '<th scope="col">The same asserts, graded here</th>'
            f'<th scope="col">Hidden checks</th></tr></thead>{groups}</table></div>'
        )

    def _group(self, kind: str, title: str) -> str:
        rows = "".join(
            f'<tr><th scope="row">{html.escape(row["title"])}</th>'
            f'<td style="white-space: normal">{_outcome(row, "stock", NO_EFFECT)}</td>'
            f'<td style="white-space: normal">{_outcome(row, "asserts", NO_EFFECT)}</td>'
            f"<td>{_outcome(row, 'ours', 'nothing')}</td></tr>"
            for name, row in self.rows.items()
            if name.startswith(f"{kind}/")
        )
        heading = (
            f'<tr class="case"><th colspan="4" scope="rowgroup">{html.escape(title)}</th></tr>'
        )
        return f"<tbody>{heading}{rows}</tbody>"


def _outcome(row: Mapping[str, Any], side: str, otherwise: str) -> str:
    """Return in words what an attack did on one side."""
    if side not in row:
        return "not run yet"
    return html.escape("; ".join(row[side]) or otherwise)
