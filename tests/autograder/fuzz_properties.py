"""What must hold for any bytes that reach the trusted side, and how such bytes are made.

Each property takes made-up data and raises nothing but what callers are told to expect.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nbformat
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autograder.checking.compare import Tolerance, compare_inputs, compare_values
from autograder.checking.failure import CheckFailedError
from autograder.child import protocol
from autograder.intake import parse_submission
from autograder.not_allowed import uses
from autograder.outputs import as_display, tidied
from autograder.rebuild import rebuild
from autograder.safe_html import clean_student_html
from autograder.safe_markdown import markdown_to_html
from autograder.settled_functions import settled_functions
from autograder.student_process import readable_outputs, understand_reply
from tests.autograder.attack_course import active_content, graded_notebook, tampered

if TYPE_CHECKING:
    from collections.abc import Callable

RELEASED = graded_notebook("import torch", "def square(x):\n    return 2 * x")
WRITTEN = nbformat.writes(RELEASED)
NAMES = ("torch.nn.functional.cross_entropy", "torch.Tensor.softmax")

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()
tensors = st.sampled_from(protocol.TENSOR_DTYPES).flatmap(
    lambda dtype: st.lists(st.integers(0, 1), max_size=4).map(
        lambda data: torch.tensor(data).to(dtype)
    )
)
values = st.recursive(
    scalars | tensors | st.sampled_from(["returned", "raised", "not callable", "undefined"]),
    lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple),
    max_leaves=20,
)
replies = values | st.lists(values, min_size=3, max_size=5).map(lambda rest: ["returned", *rest])
damages = st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8)
# bytes that begin as values do, which random bytes seldom do
tags = st.sampled_from([bytes([tag]) for tag in b"nbifsytalux"])
sizes = st.integers(0, 40).map(lambda size: size.to_bytes(4, "big"))
like_values = st.lists(tags | sizes | st.binary(max_size=12), max_size=12).map(b"".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)
texts = st.text() | st.lists(st.text(), max_size=4)
output_like = st.fixed_dictionaries(
    {"output_type": st.sampled_from(["stream", "error", "display_data", "execute_result"])},
    optional={
        "name": st.text() | json_values,
        "text": texts | json_values,
        "data": st.dictionaries(
            st.sampled_from(["text/plain", "text/html", "image/png", "image/svg+xml"]) | st.text(),
            texts | json_values,
        )
        | json_values,
        "metadata": json_values,
        "execution_count": json_values,
        "ename": texts | json_values,
        "evalue": texts | json_values,
        "traceback": json_values,
    },
)
grade_ids = st.sampled_from(["test_square", "square", ""]) | json_values
cell_like = st.fixed_dictionaries(
    {},
    optional={
        "cell_type": st.sampled_from(["code", "markdown", "raw", "heading"]) | json_values,
        "source": texts | st.just("import torch as t\nt.nn.functional.cross_entropy") | json_values,
        "input": texts,
        "level": json_values,
        "id": json_values,
        "outputs": json_values,
        "attachments": st.dictionaries(
            st.text(), st.dictionaries(st.sampled_from(["image/png", "x"]), json_values)
        )
        | json_values,
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "nbgrader": st.fixed_dictionaries(
                    {}, optional={"grade_id": grade_ids, "points": json_values}
                )
                | json_values
            },
        )
        | json_values,
    },
)
cells = st.lists(cell_like | json_values, max_size=6)
notebook_like = st.fixed_dictionaries(
    {},
    optional={
        "nbformat": st.sampled_from([3, 4, 99]) | json_values,
        "nbformat_minor": json_values,
        "metadata": json_values,
        "cells": cells | json_values,
        "worksheets": st.lists(st.fixed_dictionaries({"cells": cells}) | json_values, max_size=2),
    },
)
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
# what scripts, styles, frames and formulas are made of, between bars
PIECES = (
    "<script>|</script>|injected()|<img src=x onerror=injected()>|<svg onload=injected()>|<math>|"
    "<mtext>|<style>|</style>|<!--|-->|<a href='javascript:injected()'>|</a>|<b onclick=|>|'|\"|"
    "<iframe srcdoc='|<table>|<template>|<noscript>|<title>|<textarea>|</title>|]]>|<![CDATA[|&lt;|"
    "&#60;|$|$$|`|```|\\begin{x}|\\href{|![x](|[x](|javascript:injected()|https://injected.example|)"
)
markup = st.lists(
    st.sampled_from(PIECES.split("|")) | st.text(max_size=5),
    max_size=14,
).map(" ".join)


# what cells are made of, between bars
CODE = (
    "def square(x):|\n|\n    |return|x|x * x|lambda x:|import torch|from math import|as|math.pi|=|"
    ":=|for|in|if|else:|with|while|try:|except E as e:|match x:|case|global|nonlocal|yield|await|"
    "async|del|class A:|@|(|)|[|]|{|}|,|.|:|*|**|-|not|f'{|}'|'|\"\"\"|\\|;|#|%|!|?|0|1e999|torch|"
    "square|_"
)
codes = st.lists(st.sampled_from(CODE.split("|")) | st.text(max_size=5), max_size=20).map(" ".join)


@dataclass(frozen=True)
class Property:
    """What holds for data of some kinds."""

    holds: Callable[..., None]
    data: tuple[st.SearchStrategy[Any], ...]

    def try_out(self, examples: int, *, repeatable: bool) -> None:
        """Make up examples; raise at the first for which the property does not hold."""
        tried = settings(
            max_examples=examples,
            derandomize=repeatable,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        tried(given(*self.data)(self.holds))()


def decoded(data: bytes | bytearray) -> Any:
    try:
        return protocol.decode(data)
    except protocol.ProtocolError:
        return None


def damaged(data: bytes, places: list[tuple[int, int]]) -> bytearray:
    changed = bytearray(data)
    for place, byte in places:
        changed[place % len(changed)] = byte
    return changed


def is_decoded_or_refused(data: bytes | bytearray) -> None:
    value = decoded(data)
    # what was understood can be said again, and understood again
    assert decoded(protocol.encode(value)) is not None or value is None


def damaged_message(value: Any, places: list[tuple[int, int]]) -> None:
    is_decoded_or_refused(damaged(protocol.encode(value), places))


def is_received_or_refused(data: bytes, limit: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        with contextlib.suppress(protocol.ProtocolError, EOFError):
            protocol.receive(ours, deadline=time.monotonic() + 5, limit=limit)


def reply_is_judged_or_refused(value: Any) -> None:
    expected = torch.ones(3, dtype=torch.float64)
    try:
        reply = understand_reply("f", protocol.decode(protocol.encode(value)), frozenset())
        compare_inputs("f", reply.inputs, [expected])
        compare_values("f", reply.value, expected, Tolerance(1e-9))
    except CheckFailedError as error:
        assert str(error)  # noqa: PT017
    else:
        assert torch.equal(reply.value, expected)


def outputs_are_written_or_refused(text: str) -> None:
    try:
        outputs = readable_outputs(text)
    except protocol.ProtocolError:
        return
    for written in (outputs, tidied(outputs), as_display(outputs)):
        assert json.loads(json.dumps(written, ensure_ascii=False).encode()) is not None


def notebook_is_taken_in(data: bytes | bytearray) -> None:
    submission = parse_submission(bytes(data))
    rebuilt = rebuild(RELEASED, submission)
    graded = [cell for cell in rebuilt.notebook.cells if cell.metadata.get("nbgrader")]
    assert [cell.metadata.nbgrader.points for cell in graded] == [3]
    assert [cell.source for cell in graded] == ["square"]
    nbformat.writes(rebuilt.notebook).encode()
    " ".join([*rebuilt.repairs, *uses(rebuilt.notebook, NAMES), submission.problem]).encode()


def damaged_notebook(places: list[tuple[int, int]], encoding: str, end: int) -> None:
    data = damaged(WRITTEN.encode(encoding), places)
    notebook_is_taken_in(data[: len(data) - end])


def tampered_grade_cell(changes: dict[str, Any]) -> None:
    notebook_is_taken_in(json.dumps(tampered(RELEASED, changes)).encode())


def code_is_read_or_not_settled(first: str, second: str) -> None:
    found = settled_functions({0: first, 1: second, 2: "square(1)"}, {2: "test_square"})
    assert found in (None, {"test_square": frozenset()})
    notebook = graded_notebook(first, second)
    " ".join(uses(notebook, NAMES)).encode()


def markup_is_inert(text: str) -> None:
    assert active_content(clean_student_html(text)) == []
    assert active_content(markdown_to_html(text)) == []


def with_header(body: bytes) -> bytes:
    return protocol.HEADER.pack(protocol.MAGIC, len(body)) + body


PROPERTIES = {
    "any bytes are decoded or refused": Property(
        is_decoded_or_refused, (st.binary(max_size=2_000) | like_values,)
    ),
    "any damaged message is decoded or refused": Property(damaged_message, (values, damages)),
    "any stream of bytes is received or refused": Property(
        is_received_or_refused,
        (st.binary(max_size=200) | like_values.map(with_header), st.integers(0, 200)),
    ),
    "any reply is judged or refused": Property(reply_is_judged_or_refused, (replies,)),
    "any outputs can be written or are refused": Property(
        outputs_are_written_or_refused,
        (st.text() | json_values.map(json.dumps) | st.lists(output_like).map(json.dumps),),
    ),
    "any bytes are taken in": Property(
        notebook_is_taken_in,
        (
            st.binary(max_size=2_000)
            | json_values.map(lambda value: json.dumps(value).encode())
            | notebook_like.map(lambda value: json.dumps(value).encode()),
        ),
    ),
    "any damaged notebook is taken in": Property(
        damaged_notebook, (damages, encodings, st.integers(0, 400))
    ),
    "any tampered grade cell is put back": Property(
        tampered_grade_cell,
        (st.dictionaries(st.sampled_from(["metadata", "source", "cell_type", "id"]), json_values),),
    ),
    "any code is read or not settled": Property(code_is_read_or_not_settled, (codes, codes)),
    "any markup is inert": Property(markup_is_inert, (markup,)),
}
