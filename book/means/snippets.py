"""Snippets that are run when the book is built, so that what is shown is what happens."""

from __future__ import annotations

import ast
import html
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from book.means.numbers import number


def chapter_names() -> dict[str, Any]:
    """Return the names that the running chapter has defined."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise RuntimeError("no chapter is running: pass the names as namespace=")
    return dict(shell.user_ns)


def value_of(source: str, namespace: Mapping[str, Any]) -> Any:
    """Run `source` on a copy of `namespace` and return the value of its last expression."""
    tree = ast.parse(source)
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        raise ValueError(f"a snippet must end in an expression, got {source!r}")
    last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    names = dict(namespace)
    exec(compile(tree, "<snippet>", "exec"), names)
    return eval(compile(last, "<snippet>", "eval"), names)


def highlighted(source: str) -> str:
    """Return `source` as HTML with the page's own code colours."""
    block = highlight(source.strip("\n"), PythonLexer(), HtmlFormatter())
    return f'<div class="highlight-python notranslate">{block}</div>'


def shown(value: Any) -> str:
    """Return the text for a snippet's result: a number where it is one."""
    if isinstance(value, str | bool):
        return str(value)
    try:
        plain = np.asarray(getattr(value, "detach", lambda: value)(), dtype=np.float64)
    except (TypeError, ValueError):
        return repr(value)
    if plain.ndim == 0:
        return str(value) if isinstance(value, int) else number(float(plain))
    return "[" + ", ".join(shown(entry) for entry in plain) + "]"


@dataclass(frozen=True)
class Source:
    """Source code, shown with the page's own code colours."""

    text: str

    def _repr_html_(self) -> str:
        return highlighted(self.text)

    def __repr__(self) -> str:
        return self.text


def source_of(function: Callable[..., Any]) -> Source:
    """Show a function's source as it is now, without its docstring.

    The docstring is on the reference page; its lines are cut from the text, so that comments and
    layout stay as written.
    """
    text = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(text).body[0]
    if not isinstance(definition, ast.FunctionDef | ast.ClassDef):
        raise TypeError(f"expected a function or class, got {function!r}")
    lines = text.splitlines()
    if ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return Source("\n".join(lines))


@dataclass(frozen=True)
class WrongAndRight:
    """Two snippets and what they gave."""

    wrong: str
    wrong_result: str
    right: str
    right_result: str

    def _repr_html_(self) -> str:
        return (
            '<div class="wrong-and-right">'
            + _side("wrong", "Wrong", self.wrong, self.wrong_result)
            + _side("right", "Right", self.right, self.right_result)
            + "</div>"
        )

    def __repr__(self) -> str:
        sides = (
            f"wrong: {self.wrong} gives {self.wrong_result}",
            f"right: {self.right} gives {self.right_result}",
        )
        return "; ".join(sides)


def wrong_and_right(
    *,
    wrong: str,
    right: str,
    raises: type[Exception] | None = None,
    namespace: Mapping[str, Any] | None = None,
) -> WrongAndRight:
    """Run both snippets in the chapter's names and show each with its result.

    `raises` says that the wrong one ends in this exception; then its message is the result. Both
    giving the same result is an error: then the wrong one shows nothing.
    """
    names = chapter_names() if namespace is None else namespace
    right_result = shown(value_of(right, names))
    if raises is None:
        wrong_result = shown(value_of(wrong, names))
    else:
        wrong_result = _message_of(wrong, names, raises)
    if wrong_result == right_result:
        raise ValueError(f"the wrong snippet gives the right result, {right_result}: {wrong!r}")
    return WrongAndRight(wrong, wrong_result, right, right_result)


def _message_of(source: str, names: Mapping[str, Any], raises: type[Exception]) -> str:
    try:
        value = value_of(source, names)
    except raises as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    raise ValueError(f"expected {raises.__name__} from {source!r}, got {value!r}")


def _side(kind: str, title: str, source: str, result: str) -> str:
    return (
        f'<section class="{kind}" aria-label="{title}"><p class="verdict">{title}</p>'
        f'{highlighted(source)}<p class="result">gives <samp>{html.escape(result)}</samp></p>'
        "</section>"
    )
