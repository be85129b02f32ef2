"""How much code stands between a submission and its grade, and what attacks it."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

import autograder

PACKAGE = Path(autograder.__file__).parent
ATTACKS = PACKAGE.parent / "tests" / "autograder" / "attacks"
# everything on the trusted side that is handed bytes, or values made of them, by a student
READERS = {
    "notebook": ("intake.py", "rebuild.py"),
    "messages": ("child/protocol.py", "student_process.py"),
    "verdict": ("checking/compare.py", "checking/failure.py", "checking/student.py"),
    "outputs": ("outputs.py", "safe_html.py"),
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
