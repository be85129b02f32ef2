"""The work on one submission.

It keeps nothing between calls that a later one could notice, and needs nothing but its argument and
the course's files, so any `concurrent.futures.Executor` can run it, in a process here or on another
machine. What was handed in goes in as it is; what goes into the gradebook and the autograded folder
comes out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache

import nbformat
from nbconvert.preprocessors import Preprocessor
from traitlets.config import Config
from traitlets.utils.importstring import import_item

from autograder.assignment import Assignment, hidden_assignment
from autograder.engine import grade_notebook, make_process_ready
from autograder.intake import Submission, parse_submission
from autograder.judged_notebook import comments_of, scores_of, write_verdict
from autograder.rebuild import rebuild
from autograder.record import Record
from autograder.rehearsal import judge_bank, traces
from autograder.skeleton import Skeleton
from autograder.verdict import SubmissionVerdict
from autograder.work import GradedNotebook, Setting, Work


def prepare(setting: Setting) -> None:
    """Have made ready what the notebooks of an assignment need first."""
    assignment = hidden_assignment(setting.root, setting.assignment)
    for texts in list(setting.skeletons.values())[:1]:
        make_process_ready(_skeleton(*texts).released, assignment)


def rehearse(setting: Setting, go_on: Callable[[], bool]) -> bool:
    """Judge the bank, if there are hidden checks; tell whether that left nothing behind."""
    assignment = hidden_assignment(setting.root, setting.assignment)
    if assignment is None:
        return True
    before = traces()
    judge_bank(assignment, setting.class_seed, go_on)
    return traces() == before


def grade_submission(work: Work, problem: str = "") -> dict[str, GradedNotebook]:
    """Rebuild, run, judge and write each notebook; with `problem`, write only that."""
    assignment = hidden_assignment(work.setting.root, work.setting.assignment)
    return {name: _graded(work, name, assignment, problem) for name in work.setting.skeletons}


def _graded(work: Work, name: str, assignment: Assignment | None, problem: str) -> GradedNotebook:
    setting = work.setting
    skeleton = _skeleton(*setting.skeletons[name])
    shared = [*work.notes, *([problem] if problem else [])]
    problem = problem or work.problems.get(name, "")
    submission = Submission(problem=problem) if problem else parse_submission(work.notebooks[name])
    rebuilt = rebuild(skeleton.released, submission)
    notebook = rebuilt.notebook
    skeleton.correct(notebook)
    record = Record(
        repairs=[*work.notes, *rebuilt.repairs],
        problem=rebuilt.problem,
        seconds_late=work.seconds_late,
        digest=work.digest,
        shared=shared,
    )
    verdict = SubmissionVerdict()
    if not record.problem:
        verdict = grade_notebook(
            notebook,
            assignment,
            limits=setting.limits,
            class_seed=setting.class_seed,
            files=work.files,
            confined=setting.confined,
        )
    write_verdict(notebook, assignment, verdict, record, book_url=setting.book_url)
    names = {"assignment": setting.assignment, "notebook": name, "student": work.student}
    config = json.dumps(setting.config)
    for step in _steps(tuple(setting.steps), config):
        notebook, _ = step(notebook, {"nbgrader": names})
    scores, comments = scores_of(notebook, record), comments_of(notebook, record)
    for step in _steps(tuple(setting.later_steps), config):
        notebook, _ = step(notebook, {"nbgrader": names})
    nbformat.validate(notebook)
    text = nbformat.v4.writes(notebook) + "\n"
    return GradedNotebook(text, scores, comments, record)


@lru_cache(maxsize=16)
def _skeleton(released: str, corrected: str) -> Skeleton:
    return Skeleton(*(nbformat.reads(text, as_version=4) for text in (released, corrected)))


@lru_cache(maxsize=2)
def _steps(names: tuple[str, ...], config: str) -> list[Preprocessor]:
    """Return nbgrader's and nbconvert's own steps, configured for the course."""
    return [import_item(name)(config=Config(json.loads(config))) for name in names]
