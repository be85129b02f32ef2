"""Reads a submitted notebook, whatever its state.

Nothing in the file is trusted: only the text of its cells and the names they go by are taken over,
and `autograder.rebuild` puts them on the released notebook. Nothing here raises for what a file
holds; a file that cannot be read gives a `Submission` whose `problem` says why.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 64 * 2**20
MAX_CELLS = 2_000
# each takes the memory of a Python object, 64 bytes or more
MAX_VALUES = 5_000_000
MAX_SOURCE_CHARACTERS = 1_000_000
# how the sentence on a notebook that was not handed in begins
NO_FILE = "There is no file"
MAX_QUOTED_CHARACTERS = 60
NOTEBOOK_FORMAT = 4
PICTURE_TYPES = ("image/png", "image/jpeg", "image/gif")
MAX_PICTURES = 20
MAX_PICTURE_CHARACTERS = 20 * 2**20
MAX_PICTURE_NAME = 1_000
# one wide character would make a text of four bytes for each
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+", re.ASCII)
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
JSON_KINDS = {list: "a list", str: "a text", bool: "a true/false value", type(None): "null"}
# a string counts as one; one that does not end matches, too, so nothing is read twice
JSON_VALUE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)

Attachments = dict[str, dict[str, str]]


@dataclass(frozen=True)
class SubmittedCell:
    """What is taken over from one cell of a submitted notebook."""

    cell_type: str
    source: str
    grade_id: str = ""
    cell_id: str = ""
    points: float | None = None
    attachments: Attachments = field(default_factory=dict)
    pictures_left_out: int = 0


@dataclass
class Submission:
    """A submitted notebook as far as it could be read.

    `repairs` says in words what was damaged and mended; `problem` is not empty if the file could
    not be read at all, and says why.
    """

    cells: list[SubmittedCell] = field(default_factory=list)
    kernel: str = ""
    repairs: list[str] = field(default_factory=list)
    problem: str = ""


def quoted(text: str) -> str:
    """Return a student's text in quotes, cut short, with control characters made visible."""
    text = printable(text)
    cut = text if len(text) <= MAX_QUOTED_CHARACTERS else text[:MAX_QUOTED_CHARACTERS] + "…"
    return repr(cut)


def printable(text: str) -> str:
    """Return `text` without the lone surrogates that JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def values_in(text: str, limit: int) -> int:
    """Return how many values a JSON text holds, at most; beyond the limit it is not read on."""
    marks = sum(text.count(mark) for mark in '"[{,')
    if marks <= limit:
        return marks
    return sum(1 for _ in islice(JSON_VALUE.finditer(text), limit + 1))


def read_submission(path: Path) -> Submission:
    """Read the notebook file at `path`."""
    try:
        data = read_file(path)
    except OSError as error:
        return Submission(problem=why_unreadable(path, error))
    return parse_submission(data)


def read_file(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of a regular file, without following a link or waiting for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        require_size(status.st_size, limit)
        return file.read(limit)


def require_size(size: int, limit: int) -> None:
    """Raise `OSError` for a file that is larger than it may be."""
    if size > limit:
        raise OSError(f"it has {size} bytes, more than the {limit} allowed")


def why_unreadable(path: Path, error: OSError) -> str:
    """Return a sentence that tells a student why their notebook could not be read."""
    if path.is_symlink():
        return "The notebook is a symbolic link, which is not followed. Hand in the file itself."
    if not path.exists():
        return f"{NO_FILE} {quoted(path.name)} in the submission."
    return f"The notebook could not be read: {error.strerror or error}."


def why_linked(folder: Path) -> str:
    """Return a sentence if a submission's folder is a link, which could lead to any other's."""
    if not folder.is_symlink():
        return ""
    return (
        "The submission's folder is a symbolic link, which is not followed. "
        "Hand in the folder itself."
    )


def parse_submission(data: bytes) -> Submission:
    """Read a notebook from its bytes."""
    if not data.strip():
        return Submission(problem="The notebook file is empty.")
    text, repairs = _decode(data)
    if values_in(text, MAX_VALUES) > MAX_VALUES:
        return Submission(problem=f"The notebook holds more than {MAX_VALUES} JSON values.")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        return Submission(
            problem="The file is not a Jupyter notebook: it is not JSON "
            f"(line {error.lineno}, column {error.colno}: {error.msg})."
        )
    except (ValueError, RecursionError, MemoryError) as error:
        name = type(error).__name__
        return Submission(problem=f"The file is not a Jupyter notebook: reading it gave {name}.")
    if not isinstance(content, dict):
        kind = JSON_KINDS.get(type(content), "a number")
        return Submission(problem=f"The file is not a Jupyter notebook: it holds {kind}.")
    return _parse_content(content, repairs)


def _decode(data: bytes) -> tuple[str, list[str]]:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            text = data.decode(encoding, "replace")
            if encoding == "utf-8-sig":
                return text, []
            return text, [f"The file was not UTF-8; it was read as {encoding.upper()}."]
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        repair = "The file was not UTF-8; it was read as Windows-1252, so letters may be wrong."
        return data.decode("cp1252", "replace"), [repair]


def _parse_content(content: dict[str, Any], repairs: list[str]) -> Submission:
    raw_cells = _raw_cells(content)
    if raw_cells is None:
        return Submission(problem="The file is not a Jupyter notebook: it has no list of cells.")
    version = content.get("nbformat")
    if version != NOTEBOOK_FORMAT:
        repairs.append(
            f"The file is in notebook format {quoted(str(version))}; it was read as format 4."
        )
    if len(raw_cells) > MAX_CELLS:
        repairs.append(f"Only the first {MAX_CELLS} of {len(raw_cells)} cells were read.")
    submission = Submission(kernel=_kernel(content), repairs=repairs)
    for number, raw in enumerate(raw_cells[:MAX_CELLS], start=1):
        cell = _parse_cell(raw)
        if cell is None:
            repairs.append(f"Cell {number} of the file could not be read and was left out.")
        elif len(cell.source) > MAX_SOURCE_CHARACTERS:
            repairs.append(
                f"Cell {number} of the file was left out: it has more than "
                f"{MAX_SOURCE_CHARACTERS} characters."
            )
        else:
            submission.cells.append(cell)
            if cell.pictures_left_out:
                repairs.append(_sentence_on_pictures(number, cell.pictures_left_out))
    return submission


def _sentence_on_pictures(cell_number: int, left_out: int) -> str:
    return (
        f"Pictures left out of cell {cell_number}: {left_out} (a cell can have {MAX_PICTURES}, "
        f"each as base64 of at most {MAX_PICTURE_CHARACTERS // 2**20} MiB under a name of at most "
        f"{MAX_PICTURE_NAME} characters)."
    )


def _raw_cells(content: dict[str, Any]) -> list[Any] | None:
    """Return the list of cells; notebook formats before 4 keep it in worksheets."""
    cells = content.get("cells")
    if isinstance(cells, list):
        return cells
    worksheets = content.get("worksheets")
    if not isinstance(worksheets, list):
        return None
    sheets = [sheet.get("cells") for sheet in worksheets if isinstance(sheet, dict)]
    return [cell for sheet in sheets if isinstance(sheet, list) for cell in sheet]


def _parse_cell(raw: Any) -> SubmittedCell | None:
    if not isinstance(raw, dict):
        return None
    source = _text(raw.get("source", raw.get("input", "")))
    cell_type = raw.get("cell_type")
    if cell_type == "heading":
        level = raw.get("level")
        marks = "#" * (level if isinstance(level, int) and 1 <= level <= 6 else 1)
        cell_type, source = "markdown", f"{marks} {source}"
    if source is None or cell_type not in ("code", "markdown", "raw"):
        return None
    metadata = _mapping(_mapping(raw.get("metadata")).get("nbgrader"))
    attachments, left_out = _attachments(raw.get("attachments"))
    return SubmittedCell(
        cell_type=cell_type,
        source=source,
        grade_id=_text(metadata.get("grade_id")) or "",
        cell_id=_text(raw.get("id")) or "",
        points=_number(metadata.get("points")),
        attachments=attachments,
        pictures_left_out=left_out,
    )


def _text(value: Any) -> str | None:
    """Return the text of a JSON value: a string, or a list of strings, its lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    return printable(value) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    """Return a number of points that is not absurd."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e9 else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _attachments(value: Any) -> tuple[Attachments, int]:
    """Return the pictures that a written answer shows, and how many more are left out."""
    kept: Attachments = {}
    left_out = 0
    for name, bundle in _mapping(value).items():
        given = {kind: raw for kind, raw in _mapping(bundle).items() if kind in PICTURE_TYPES}
        if len(kept) == MAX_PICTURES or len(name) > MAX_PICTURE_NAME:
            left_out += len(given)
            continue
        pictures = {kind: data for kind, raw in given.items() if (data := _base64(raw))}
        left_out += len(given) - len(pictures)
        if pictures:
            kept[printable(name)] = pictures
    return kept, left_out


def _base64(value: Any) -> str:
    """Return a picture's data, or an empty string if it is too large or nothing of the kind."""
    text = _text(value) or ""
    return text if len(text) <= MAX_PICTURE_CHARACTERS and BASE64.fullmatch(text) else ""


def _kernel(content: dict[str, Any]) -> str:
    metadata = _mapping(content.get("metadata"))
    return _text(_mapping(metadata.get("kernelspec")).get("name")) or ""
