"""The outputs of an autograded notebook: the grader's verdict, and what the student's code showed.

nbgrader reads the score from a grade cell's outputs, so those of a judged cell are all written
here, and what the student's process printed goes in as plain text that cannot be taken for a score.
"""

from __future__ import annotations

from typing import Any

from nbconvert.filters.ansi import strip_ansi
from nbformat import NotebookNode, from_dict

from autograder.intake import printable
from autograder.markup_room import Room, TooMuchMarkupError
from autograder.record import number, points_text
from autograder.safe_html import TOO_MUCH_HTML, clean_bounded_html, text_to_html
from autograder.verdict import CellVerdict, CheckResult, Finding

MAX_TEXT_CHARACTERS = 20_000
MAX_HTML_CHARACTERS = 100_000
MAX_PICTURE_CHARACTERS = 3 * 2**20
# what an output takes of a page's room for text, whatever it holds
OUTPUT_WORK = 2_000
TEXT_TYPES = ("text/plain", "text/latex", "text/markdown")
PICTURE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/svg+xml")
# the names of errors that stand for a sentence of the autograder's own
NOT_RUN, STOPPED = "NotRun", "Stopped"
AFTER_THE_LAST_ANSWER = "Not run: nothing after the last answer is run when a notebook is graded.\n"
OUTCOME_WORDS = {"passed": "Passed", "failed": "Not passed", "stopped": "Stopped"}


def _output(kind: str, **content: Any) -> NotebookNode:
    """Return an output as nbformat makes it, which is validated with the notebook that it is in."""
    output: dict[str, Any] = {"output_type": kind, **content}
    if kind in ("display_data", "execute_result"):
        output["metadata"] = {}
    if kind == "execute_result":
        output["execution_count"] = None
    node: NotebookNode = from_dict(output)
    return node


def score_of(verdict: CellVerdict, max_score: float) -> float:
    """Return the share of a cell's points that its checks earned."""
    if verdict.points <= 0:
        return 0.0
    return round(max_score * verdict.earned / verdict.points, 6)


def judged_outputs(
    verdict: CellVerdict, max_score: float, printed: list[Any], *, book_url: str = ""
) -> list[NotebookNode]:
    """Return the outputs of a grade cell: score and checks, then what the student's code showed."""
    score = score_of(verdict, max_score)
    result = _output(
        "execute_result",
        data={"text/plain": repr(score), "text/html": verdict_html(verdict, max_score, book_url)},
    )
    return [result, *as_display(printed)]


def verdict_html(verdict: CellVerdict, max_score: float, book_url: str = "") -> str:
    """Return a cell's score, misconceptions and checks as HTML that also reads without a style."""
    score = score_of(verdict, max_score)
    parts = [f"<p><strong>{points_text(score, max_score)}</strong></p>"]
    parts += [_finding_html(finding, book_url) for finding in verdict.findings]
    if verdict.checks:
        scale = max_score / verdict.points if verdict.points else 0.0
        rows = "".join(_check_html(check, scale) for check in verdict.checks)
        parts.append(f'<ul class="checks">{rows}</ul>')
    elif verdict.note:
        parts.append(f"<p>{text_to_html(verdict.note)}</p>")
    return f'<div class="verdict">{"".join(parts)}</div>'


def _finding_html(finding: Finding, book_url: str) -> str:
    link = book_link(finding.see, book_url)
    text = text_to_html(finding.sentence)
    return f'<p class="finding">Your results agree with {text}. {link}</p>'


def book_link(see: str, book_url: str) -> str:
    """Return a link to a place `page#anchor` of the book, or its name where there is no book."""
    page, _, anchor = see.partition("#")
    where = page.replace("-", " ").replace("_", " ").strip().capitalize()
    if anchor:
        where += f", {anchor.replace('-', ' ')}"
    if not where:
        return ""
    text = f"See <em>{text_to_html(where)}</em>"
    if not book_url:
        return f"{text} in the book."
    url = text_to_html(book_url.replace("{page}", page).replace("{anchor}", anchor))
    return f'<a href="{url}">{text} in the book</a>.'


def _check_html(check: CheckResult, scale: float) -> str:
    word = OUTCOME_WORDS[check.outcome]
    points = points_text(scale * check.earned, scale * check.points)
    lines = [
        f'<strong class="outcome">{word}:</strong> {text_to_html(check.description)} '
        f'<span class="points">({points})</span>'
    ]
    if check.message:
        lines.append(f'<span class="message">{text_to_html(check.message)}</span>')
    if check.hint:
        lines.append(f'<span class="hint">Hint: {text_to_html(check.hint)}</span>')
    return f'<li class="check {check.outcome}">{"<br>".join(lines)}</li>'


def verdict_text(verdict: CellVerdict) -> str:
    """Return a sentence or two on a cell's verdict, for a gradebook comment or a table."""
    if not verdict.checks:
        return verdict.note
    missed = [check for check in verdict.checks if check.outcome != "passed"]
    passed = len(verdict.checks) - len(missed)
    sentences = [f"{passed} of {len(verdict.checks)} checks passed."]
    if verdict.findings:
        sentences += [f"Your results agree with {f.sentence}." for f in verdict.findings]
    elif missed:
        check = missed[0]
        first = f"{OUTCOME_WORDS[check.outcome]}: {check.description} {check.message}"
        sentences.append(first.strip())
    return " ".join(sentences)


def not_run_output(reason: str) -> NotebookNode:
    """Return an error output, which nbgrader takes for a failed test."""
    return _output("error", ename=NOT_RUN, evalue=reason, traceback=[f"Not run: {reason}"])


def stopped_output(reason: str) -> NotebookNode:
    """Return an error output of a test that was begun and not ended."""
    text = f"Stopped: {reason.removeprefix('it was stopped ')}"
    return _output("error", ename=STOPPED, evalue=reason, traceback=[text])


def own_sentence(output: NotebookNode) -> str:
    """Return the sentence that an output is, or an empty string if it is a program's.

    Examples
    --------
    >>> own_sentence(not_run_output("the process ended"))
    'Not run: the process ended'
    >>> own_sentence(_output("stream", name="stdout", text="Not run: 1"))
    ''
    """
    if output.output_type == "error" and output.ename in (NOT_RUN, STOPPED):
        # a traceback of a student's error of that name has more lines
        return output.traceback[0] if len(output.traceback) == 1 else ""
    is_sentence = output.output_type == "stream" and output.text == AFTER_THE_LAST_ANSWER
    return AFTER_THE_LAST_ANSWER if is_sentence else ""


def clamped_outputs(outputs: list[NotebookNode], max_score: float) -> list[NotebookNode]:
    """Bring a test cell's own partial score into the range that nbgrader accepts."""
    for output in outputs:
        if output.output_type != "execute_result":
            continue
        try:
            score = float(output.data.get("text/plain", ""))
        except ValueError:
            score = max_score
        if score > max_score:
            output.data["text/plain"] = number(max_score)
        # without text nbgrader would drop the whole submission
        if not output.data.get("text/plain"):
            output.data["text/plain"] = " "
    return outputs


def as_display(outputs: list[Any]) -> list[NotebookNode]:
    """Return what a cell showed as display data only: its text as plain text, and its pictures."""
    texts, pictures = [], []
    # no HTML is shown here, so none need be cleaned
    for output in tidied(outputs, Room(0)):
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type == "error":
            lines = "\n".join(output.traceback).strip("\n")
            texts.append(lines or f"{output.ename}: {output.evalue}")
        else:
            shown = {kind: output.data[kind] for kind in PICTURE_TYPES if kind in output.data}
            if shown:
                pictures.append(_output("display_data", data=shown))
            elif output.data.get("text/plain"):
                texts.append(output.data["text/plain"])
    printed = [text.rstrip("\n") for text in texts if text.strip()]
    if not printed:
        return pictures
    text = strip_ansi("\n".join(["What the notebook showed here:", *printed]))
    return [_output("display_data", data={"text/plain": _shortened(text)}), *pictures]


def tidied(outputs: list[Any], room: Room | None = None) -> list[NotebookNode]:
    """Return a student's outputs, cut to size, without anything that could run in a browser.

    HTML that has no place in `room` is shown as the text beside it, or as its source.
    """
    room = room or Room()
    kept = []
    kinds: set[tuple[str, bool]] = set()
    left_out = 0
    for raw in outputs:
        kind = raw["output_type"]
        # the first of each kind is kept whatever room there is: it could tell of a failed test
        key = (kind, raw.get("name") == "stderr")
        if room.text < OUTPUT_WORK and key in kinds:
            left_out += 1
            continue
        kinds.add(key)
        room.text = max(0, room.text - OUTPUT_WORK)
        if kind == "stream":
            name = "stderr" if raw["name"] == "stderr" else "stdout"
            kept.append(_output("stream", name=name, text=room.beginning(_shortened(raw["text"]))))
        elif kind == "error":
            text = room.beginning(_shortened("\n".join(raw["traceback"])))
            # never one part, as the autograder's own sentences have; each takes a page long
            first, _, rest = text.partition("\n")
            kept.append(
                _output(
                    "error",
                    ename=_shortened(raw["ename"], 200),
                    evalue=_shortened(raw["evalue"], 2_000),
                    traceback=[first, rest],
                )
            )
        elif kind in ("display_data", "execute_result"):
            data = _tidied_data(raw.get("data", {}), room)
            if data:
                kept.append(_output(kind, data=data))
    if left_out:
        kept.append(_output("stream", name="stdout", text=f"[outputs left out: {left_out}]\n"))
    return kept


def _tidied_data(data: dict[str, Any], room: Room) -> dict[str, str]:
    kept: dict[str, str] = {}
    too_long = ""
    for kind, value in data.items():
        text = "".join(value) if isinstance(value, list) else value
        if not isinstance(text, str):
            continue
        if kind in TEXT_TYPES:
            kept[kind] = room.beginning(_shortened(text))
        elif kind == "text/html" and len(text) <= MAX_HTML_CHARACTERS:
            try:
                kept[kind] = clean_bounded_html(printable(text), room)
            except TooMuchMarkupError:
                too_long = f"{TOO_MUCH_HTML}\n{room.beginning(_shortened(text))}"
        elif kind == "text/html":
            too_long = f"[HTML of {len(text)} characters is too long to be shown]"
        elif kind in PICTURE_TYPES and len(text) <= MAX_PICTURE_CHARACTERS:
            kept[kind] = printable(text)
    return kept if kept or not too_long else {"text/plain": too_long}


def _shortened(text: Any, limit: int = MAX_TEXT_CHARACTERS) -> str:
    whole: str = printable("".join(text) if isinstance(text, list) else str(text))
    if len(whole) <= limit:
        return whole
    half = limit // 2
    return f"{whole[:half]}\n[{len(whole) - limit} characters left out]\n{whole[-half:]}"
