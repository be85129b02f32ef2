"""Writes a verdict into a notebook, and reads from it what nbgrader keeps: scores and comments."""

from __future__ import annotations

from nbformat import NotebookNode
from nbgrader import utils

from autograder.assignment import Assignment
from autograder.markup_room import Room
from autograder.outputs import (
    clamped_outputs,
    judged_outputs,
    not_run_output,
    stopped_output,
    tidied,
    verdict_text,
)
from autograder.rebuild import grade_id_of, is_judged
from autograder.record import Record
from autograder.verdict import CellVerdict, SubmissionVerdict

NOT_READ = "The submission could not be read, so nothing was checked."
NOT_HANDED_IN = "The notebook was not handed in, so nothing was checked."
NO_VERDICT = "The checks of this cell gave no result."
NO_RESPONSE = "No response."


def write_verdict(
    notebook: NotebookNode,
    assignment: Assignment | None,
    verdict: SubmissionVerdict,
    record: Record,
    *,
    book_url: str = "",
) -> None:
    """Write outputs and record of a verdict into a notebook."""
    record.incidents = list(verdict.incidents)
    not_read = NOT_HANDED_IN if record.not_handed_in else NOT_READ
    room = Room()
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        shown = verdict.outputs.get(index, [])
        if not is_judged(cell):
            cell.outputs = tidied(shown, room)
            continue
        grade_id, max_score = cell.metadata.nbgrader.grade_id, float(cell.metadata.nbgrader.points)
        if assignment is not None and assignment.check_file(grade_id):
            judged = verdict.cells.get(grade_id) or CellVerdict(
                grade_id, (), note=not_read if record.problem else NO_VERDICT
            )
            record.cells[grade_id] = judged
            cell.outputs = judged_outputs(judged, max_score, shown, book_url=book_url)
        elif index in verdict.stopped or index not in verdict.outputs:
            cell.outputs = [*tidied(shown, room), _failure(verdict, index, not_read)]
        else:
            cell.outputs = clamped_outputs(tidied(shown, room), max_score)
    record.write_to(notebook)


def _failure(verdict: SubmissionVerdict, index: int, not_read: str) -> NotebookNode:
    """Return the output of a test that did not run to its end."""
    if index not in verdict.stopped:
        return not_run_output(not_read)
    if index in verdict.not_run:
        return not_run_output(verdict.stopped[index])
    return stopped_output(verdict.stopped[index])


def explanations(notebook: NotebookNode, record: Record) -> dict[str, str]:
    """Return a comment for each answer: what became of its checks.

    What holds for the whole submission goes to the first answer.
    """
    texts: dict[str, list[str]] = {}
    answer = ""
    for cell in notebook.cells:
        if utils.is_solution(cell) or utils.is_task(cell):
            answer = cell.metadata.nbgrader.grade_id
            texts[answer] = [] if texts else list(record.sentences)
        elif is_judged(cell) and answer and cell.metadata.nbgrader.grade_id in record.cells:
            texts[answer].append(verdict_text(record.cells[cell.metadata.nbgrader.grade_id]))
    return {name: " ".join(sentences) for name, sentences in texts.items()}


def scores_of(notebook: NotebookNode, record: Record) -> dict[str, float | None]:
    """Return the score of each grade cell as nbgrader takes it from the outputs.

    None waits for manual grading, which a submission that could not be read never does.
    """
    scores: dict[str, float | None] = {}
    for cell in notebook.cells:
        if record.problem and (utils.is_grade(cell) or utils.is_task(cell)):
            scores[grade_id_of(cell)] = 0.0
        elif utils.is_grade(cell):
            scores[grade_id_of(cell)], _ = utils.determine_grade(cell)
    return scores


def comments_of(notebook: NotebookNode, record: Record) -> dict[str, str | None]:
    """Return the comment on each answer: nbgrader's own, and what became of its checks."""
    comments: dict[str, str | None] = {}
    explained = explanations(notebook, record)
    for cell in notebook.cells:
        if not (utils.is_solution(cell) or utils.is_task(cell)):
            continue
        name = grade_id_of(cell)
        unchanged = cell.metadata.nbgrader.get("checksum") == utils.compute_checksum(cell)
        own = NO_RESPONSE if unchanged and not utils.is_task(cell) else ""
        comments[name] = " ".join(part for part in (own, explained.get(name, "")) if part) or None
    return comments
