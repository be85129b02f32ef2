import json
import os

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder import intake
from autograder.intake import (
    MAX_PICTURE_CHARACTERS,
    MAX_PICTURE_NAME,
    MAX_PICTURES,
    parse_submission,
    read_submission,
    values_in,
)


def notebook_bytes(*cells, **top):
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "cells": list(cells), **top}).encode()


def code(source, **more):
    return {"cell_type": "code", "source": source, "metadata": {}, **more}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"cells": [', "not JSON (line 1, column 12"),
        (b"PK\x03\x04", "not JSON"),
        (b"[1, 2]", "holds a list"),
        (b'"text"', "holds a text"),
        (b"null", "holds null"),
        (b"3", "holds a number"),
        (b"true", "holds a true/false value"),
        (b'{"nbformat": 4}', "no list of cells"),
        (b'{"nbformat": 4, "cells": {}}', "no list of cells"),
        (b"[" * 200_000, "gave RecursionError"),
        (b"9" * 5_000, "gave ValueError"),
    ],
)
def test_what_cannot_be_read_is_a_problem_in_words(data, words):
    submission = parse_submission(data)
    assert words in submission.problem
    assert submission.cells == []


def test_a_missing_file_is_named_and_a_link_is_not_followed(tmp_path):
    assert "'lab.ipynb'" in read_submission(tmp_path / "lab.ipynb").problem
    (tmp_path / "real.ipynb").write_bytes(notebook_bytes(code("1")))
    (tmp_path / "lab.ipynb").symlink_to(tmp_path / "real.ipynb")
    assert "symbolic link" in read_submission(tmp_path / "lab.ipynb").problem


def test_what_is_not_a_file_is_a_problem_and_is_not_waited_for(tmp_path):
    (tmp_path / "folder.ipynb").mkdir()
    os.mkfifo(tmp_path / "pipe.ipynb")
    assert "could not be read" in read_submission(tmp_path / "folder.ipynb").problem
    assert "not a regular file" in read_submission(tmp_path / "pipe.ipynb").problem


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "huge.ipynb").open("wb") as file:
        file.truncate(65 * 2**20)
    assert "more than the 67108864 allowed" in read_submission(tmp_path / "huge.ipynb").problem


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp1252"])
def test_another_encoding_is_read_and_reported(encoding):
    content = {"nbformat": 4, "cells": [code("x = 'schön'")]}
    submission = parse_submission(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert submission.cells[0].source == "x = 'schön'"
    assert "not UTF-8" in submission.repairs[0]


def test_a_byte_order_mark_is_no_damage():
    submission = parse_submission(b"\xef\xbb\xbf" + notebook_bytes(code("1")))
    assert (submission.problem, submission.repairs) == ("", [])


def test_notebooks_of_format_3_are_read():
    old = nbformat.v3.new_notebook(
        worksheets=[
            nbformat.v3.new_worksheet(
                cells=[
                    nbformat.v3.new_heading_cell("Title", level=2),
                    nbformat.v3.new_code_cell("x = 1"),
                ]
            )
        ]
    )
    submission = parse_submission(json.dumps(old).encode())
    assert [(c.cell_type, c.source) for c in submission.cells] == [
        ("markdown", "## Title"),
        ("code", "x = 1"),
    ]
    assert "format '3'" in submission.repairs[0]


def test_cells_that_make_no_sense_are_left_out_and_named():
    cells = ["text", code("kept"), {"cell_type": "movie", "source": ""}, code(7), code("x" * 10**6)]
    submission = parse_submission(notebook_bytes(*cells, code("y" * (10**6 + 1))))
    assert [cell.source[:4] for cell in submission.cells] == ["kept", "xxxx"]
    assert [repair[:6] for repair in submission.repairs] == ["Cell 1", "Cell 3", "Cell 4", "Cell 6"]


def test_only_so_many_cells_are_read():
    submission = parse_submission(notebook_bytes(*[code("1")] * 2_001))
    assert len(submission.cells) == 2_000
    assert submission.repairs == ["Only the first 2000 of 2001 cells were read."]


def test_lone_surrogates_do_not_survive():
    submission = parse_submission(notebook_bytes(code("x = '\ud800'")))
    assert submission.cells[0].source == "x = '?'"


@pytest.mark.parametrize("metadata", [None, 3, [], {"nbgrader": 3}, {"nbgrader": {"grade_id": 3}}])
def test_nonsense_in_metadata_is_ignored(metadata):
    submission = parse_submission(notebook_bytes(code("1") | {"metadata": metadata}))
    assert submission.cells[0].grade_id == ""


def test_only_pictures_are_taken_over_as_attachments():
    attachments = {"a.png": {"image/png": "QQ=="}, "b": {"text/html": "<script>"}, "c": 3}
    cell = {"cell_type": "markdown", "source": "", "attachments": attachments}
    submission = parse_submission(notebook_bytes(cell))
    assert submission.cells[0].attachments == {"a.png": {"image/png": "QQ=="}}


def pictures(content):
    return {"cell_type": "markdown", "source": "", "attachments": content}


def test_only_so_many_pictures_of_a_cell_are_taken_over():
    many = {f"{number}.png": {"image/png": "QQ=="} for number in range(MAX_PICTURES + 2)}
    submission = parse_submission(notebook_bytes(code("1"), pictures(many)))
    assert list(submission.cells[1].attachments) == list(many)[:MAX_PICTURES]
    assert submission.repairs == [
        "Pictures left out of cell 2: 2 (a cell can have 20, each as base64 of at most 20 MiB "
        "under a name of at most 1000 characters)."
    ]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a", "QQ==\U0001f600"),
        ("a", "\u2003QQ=="),
        ("a", "<script>"),
        ("a", ""),
        ("a", "A" * (MAX_PICTURE_CHARACTERS + 1)),
        ("a" * (MAX_PICTURE_NAME + 1), "QQ=="),
    ],
)
def test_a_picture_that_is_not_base64_or_too_large_is_left_out(name, data):
    good = {"image/png": ["QQ\n", "=="]}
    submission = parse_submission(notebook_bytes(pictures({name: {"image/png": data}, "b": good})))
    assert submission.cells[0].attachments == {"b": {"image/png": "QQ\n=="}}
    assert submission.repairs[0].startswith("Pictures left out of cell 1: 1 (")


JSON_KEYS = [
    "cells",
    "cell_type",
    "source",
    "metadata",
    "nbgrader",
    "grade_id",
    "nbformat",
    "points",
    "worksheets",
    "input",
    "attachments",
    "kernelspec",
    "name",
    "id",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(JSON_KEYS),
            inner | st.sampled_from(["code", "markdown", "heading"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.binary(max_size=200))
def test_no_bytes_raise(data):
    submission = parse_submission(data)
    assert submission.problem or submission.cells == []


@given(json_values)
def test_no_json_raises(value):
    submission = parse_submission(json.dumps(value).encode())
    assert all(isinstance(cell.source, str) for cell in submission.cells)


def test_a_notebook_of_too_many_values_is_not_read(monkeypatch):
    monkeypatch.setattr(intake, "MAX_VALUES", 100)
    many = b'{"nbformat": 4, "cells": [], "metadata": {"x": [' + b"[]," * 50 + b"[]]}}"
    assert parse_submission(many).problem == "The notebook holds more than 100 JSON values."
    printed = b'{"nbformat": 4, "cells": [], "metadata": {"x": "' + b"[]," * 500 + b'"}}'
    assert parse_submission(printed).problem == ""


def test_a_string_that_does_not_end_is_one_value():
    assert values_in('["' + '\\"' * 500, 100) == 2
