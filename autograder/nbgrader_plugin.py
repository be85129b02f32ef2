"""The autograder inside nbgrader's own commands, set by configuration alone.

`use_autograder` is called in `nbgrader_config.py`. After that `nbgrader autograde`, formgrader's
button and `autograder grade` take the same way:

1. `SubmissionExporter` reads a submission in whatever state and rebuilds it on the released
   notebook; nbgrader's own preprocessors then check the result against the gradebook.
2. `JudgeSubmission` stands in for nbgrader's `Execute`: it runs the notebook in the student's
   process, has the hidden checks judge it, and writes every output itself.
3. `RecordScores`, nbgrader's `SaveAutoGrades`, records scores, and explanations as comments.
4. `FeedbackExporter` renders the page that the student reads.
"""

from __future__ import annotations

import copy
import html
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import BytecodeCache, Environment
from jinja2.bccache import Bucket
from nbconvert.exporters import HTMLExporter, NotebookExporter, TemplateExporter
from nbconvert.exporters.exporter import ResourcesDict
from nbconvert.filters.ansi import strip_ansi
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.api import Gradebook
from nbgrader.converters import BaseConverter
from nbgrader.preprocessors import ClearMarkScheme, NbGraderPreprocessor, SaveAutoGrades
from pygments.formatters import HtmlFormatter
from traitlets import Bool, Float, Instance, Unicode
from traitlets.config import Config

from autograder.assignment import hidden_assignment
from autograder.class_seed import read_class_seed
from autograder.confinement import require_out_of_sight
from autograder.fork_server import start_ahead
from autograder.grades import PartGrade, extra_credit_words, part_grades
from autograder.intake import Submission, read_submission, why_linked
from autograder.judged_notebook import explanations, write_verdict
from autograder.limits import Limits
from autograder.loading import load
from autograder.outputs import own_sentence
from autograder.page_filters import code_filter, described_filter
from autograder.rebuild import rebuild
from autograder.record import Record, number, points_text
from autograder.safe_html import text_to_html
from autograder.skeleton import load_skeleton
from autograder.verdict import SubmissionVerdict

TEMPLATES = Path(__file__).parent / "templates"
LIGHT_CODE_STYLE = "default"
DARK_CODE_STYLE = "github-dark"
# what a notebook may take in all where a course allows more for each of its cells
TIMEOUTS = 10.0


class SubmissionExporter(NotebookExporter):  # type: ignore[misc]
    """Reads submissions robustly; writes notebooks as nbconvert does."""

    parent: BaseConverter

    def from_filename(
        self, filename: str, resources: dict[str, Any] | None = None, **options: Any
    ) -> tuple[str, dict[str, Any]]:
        """Convert a submitted notebook, or one that was autograded before."""
        resources = resources or {}
        path = Path(filename)
        names = resources.get("nbgrader", {})
        if not self._is_submitted(path, names):
            return super().from_filename(  # type: ignore[no-any-return]
                filename, resources=resources, **options
            )
        self._replace_copied_links(path.parent, names)
        skeleton = load_skeleton(self.parent.coursedir, names["assignment"], names["notebook"])
        problem = getattr(self.parent, "problem", "") or why_linked(path.parent)
        submission = Submission(problem=problem) if problem else read_submission(path)
        rebuilt = rebuild(skeleton, submission)
        record = Record(
            repairs=[*getattr(self.parent, "repairs", []), *rebuilt.repairs],
            problem=rebuilt.problem,
            digest=getattr(self.parent, "digest", ""),
        )
        record.write_to(rebuilt.notebook)
        metadata = ResourcesDict(name=path.stem, path=str(path.parent))
        return self.from_notebook_node(  # type: ignore[no-any-return]
            rebuilt.notebook, {**resources, "metadata": metadata}
        )

    def _is_submitted(self, path: Path, names: dict[str, str]) -> bool:
        if not names:
            return False
        coursedir = self.parent.coursedir
        folder = coursedir.format_path(
            coursedir.submitted_directory, names["student"], names["assignment"]
        )
        return path.parent == Path(os.path.normpath(folder))

    def _replace_copied_links(self, submitted: Path, names: dict[str, str]) -> None:
        """Remove the copies that nbgrader made of files that a submission only links to."""
        coursedir = self.parent.coursedir
        folder = coursedir.format_path(
            coursedir.autograded_directory, names["student"], names["assignment"]
        )
        for path in submitted.rglob("*"):
            copied = Path(folder) / path.relative_to(submitted)
            if (path.is_symlink() or submitted.is_symlink()) and copied.is_file():
                copied.unlink()


class JudgeSubmission(NbGraderPreprocessor):  # type: ignore[misc]
    """Runs a submission outside this process and writes the outputs, scores included."""

    book_url = Unicode(
        "",
        help="Where the book is, with {page} and {anchor}; without it feedback names places only.",
    ).tag(config=True)
    class_seed_file = Unicode(
        "", help="The file that holds the class's secret seed; made when it is missing."
    ).tag(config=True)
    cell_seconds = Float(Limits.cell_seconds, help="The longest that one cell may run.").tag(
        config=True
    )
    call_seconds = Float(
        Limits.call_seconds, help="The longest that one call of a student's function may take."
    ).tag(config=True)
    total_seconds = Float(
        Limits.total_seconds, help="The longest that a whole submission may run."
    ).tag(config=True)
    confined = Bool(
        True,
        help="Whether submissions run confined; False only on a machine that has nothing to lose.",
    ).tag(config=True)
    verdict = Instance(SubmissionVerdict, allow_none=True, help="A verdict that is known already.")

    @property
    def limits(self) -> Limits:
        """What a submission may use."""
        return Limits(
            cell_seconds=self.cell_seconds,
            call_seconds=self.call_seconds,
            total_seconds=self.total_seconds,
        )

    @property
    def class_seed(self) -> str:
        """The secret that the checks' random inputs come from."""
        return read_class_seed(Path(self.class_seed_file)) if self.class_seed_file else ""

    def preprocess(
        self, notebook: NotebookNode, resources: ResourcesDict
    ) -> tuple[NotebookNode, ResourcesDict]:
        """Judge a notebook that `SubmissionExporter` rebuilt."""
        names = resources["nbgrader"]
        converter = self.parent.parent
        root = Path(converter.coursedir.root)
        assignment = hidden_assignment(root, names["assignment"])
        if self.confined and assignment is None:
            require_out_of_sight(root)
        start_ahead(self.confined, assignment.root if assignment else None)
        # not needed where the configuration alone is read
        engine = load("autograder.engine")
        record = Record.read_from(notebook)
        if record.problem:
            verdict = SubmissionVerdict()
        elif self.verdict is not None:
            verdict = self.verdict
        else:
            verdict = engine.grade_notebook(
                notebook,
                assignment,
                limits=self.limits,
                class_seed=self.class_seed,
                files=Path(resources["metadata"]["path"]),
                confined=self.confined,
            )
        write_verdict(notebook, assignment, verdict, record, book_url=self.book_url)
        return notebook, resources


class RecordScores(SaveAutoGrades):  # type: ignore[misc]
    """Records scores as nbgrader does, with explanations as the answers' comments."""

    def preprocess(
        self, notebook: NotebookNode, resources: ResourcesDict
    ) -> tuple[NotebookNode, ResourcesDict]:
        """Record the scores of a judged notebook."""
        names = resources["nbgrader"]
        self.record = Record.read_from(notebook)
        with Gradebook(names["db_url"]) as gradebook:
            submission = gradebook.find_submission(names["assignment"], names["student"])
            self.record.seconds_late = submission.total_seconds_late
        self.record.write_to(notebook)
        self.explanations = explanations(notebook, self.record)
        return super().preprocess(notebook, resources)  # type: ignore[no-any-return]

    def preprocess_cell(
        self, cell: NotebookNode, resources: ResourcesDict, cell_index: int
    ) -> tuple[NotebookNode, ResourcesDict]:
        """Record a cell; a submission that could not be read waits for no manual grading."""
        cell, resources = super().preprocess_cell(cell, resources, cell_index)
        if self.record.problem and (utils.is_grade(cell) or utils.is_task(cell)):
            grade = self.gradebook.find_grade(
                cell.metadata.nbgrader.grade_id,
                self.notebook_id,
                self.assignment_id,
                self.student_id,
            )
            grade.auto_score, grade.needs_manual_grade = 0, False
            self.gradebook.db.commit()
        return cell, resources

    def _add_comment(self, cell: NotebookNode, resources: ResourcesDict) -> None:
        super()._add_comment(cell, resources)
        comment = self.gradebook.find_comment(
            cell.metadata.nbgrader.grade_id, self.notebook_id, self.assignment_id, self.student_id
        )
        explanation = self.explanations.get(cell.metadata.nbgrader.grade_id, "")
        parts = [part for part in (comment.auto_comment, explanation) if part]
        comment.auto_comment = " ".join(parts) or None
        self.gradebook.db.commit()


class CompiledTemplates(BytecodeCache):
    """Keeps templates compiled: nbgrader makes a new exporter for each student."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Take what was compiled, unless the template has changed."""
        if bucket.key in self.known:
            bucket.bytecode_from_string(self.known[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled."""
        self.known[bucket.key] = bucket.bytecode_to_string()


COMPILED_TEMPLATES = CompiledTemplates()


class FeedbackExporter(HTMLExporter):  # type: ignore[misc]
    """Renders the feedback page: no script, nothing fetched, light and dark."""

    parent: BaseConverter

    def _create_environment(self) -> Environment:
        """Make the environment of templates, with what another exporter has compiled."""
        environment: Environment = super()._create_environment()
        environment.bytecode_cache = COMPILED_TEMPLATES
        return environment

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        """Add the filters for sentences and for code."""
        yield from super().default_filters()
        yield "as_text", text_to_html
        yield "code_html", code_filter
        yield "described", described_filter

    def from_notebook_node(
        self, notebook: NotebookNode, resources: dict[str, Any] | None = None, **options: Any
    ) -> tuple[str, dict[str, Any]]:
        """Convert an autograded notebook whose grades nbgrader has put in."""
        resources = resources or {}
        resources["record"] = record = Record.read_from(notebook)
        resources["no_answer"] = why_no_answer(record)
        resources["parts"] = self._part_grades(resources["nbgrader"])
        resources["own_sentence"] = own_sentence
        resources["number"] = number
        resources["points_text"] = points_text
        resources["extra_credit_words"] = extra_credit_words
        resources["code_style"] = code_style()
        notebook = self._without_mark_schemes(notebook)
        # HTMLExporter would parse the whole page once more, for pictures that have no text
        resources = self._init_resources(resources)
        page: tuple[str, dict[str, Any]] = TemplateExporter.from_notebook_node(
            self, notebook, resources, **options
        )
        return page

    def _part_grades(self, names: dict[str, str]) -> dict[str, PartGrade]:
        """Return what the gradebook says of each part; nbgrader puts in less than that."""
        with Gradebook(names["db_url"], self.parent.coursedir.course_id) as gradebook:
            return part_grades(gradebook, names["assignment"], names["notebook"], names["student"])

    def _without_mark_schemes(self, notebook: NotebookNode) -> NotebookNode:
        """Return a notebook without what its tasks say to the grader, which nbgrader shows."""
        notebook = copy.deepcopy(notebook)
        clear = ClearMarkScheme(parent=self, check_attachment_leakage=False)
        for index, cell in enumerate(notebook.cells):
            if utils.is_task(cell):
                clear.preprocess_cell(cell, {}, index)
        return notebook


def why_no_answer(record: Record) -> str:
    """Return what is to be said in place of an answer where none could be read."""
    if not record.problem:
        return ""
    return "not handed in" if record.not_handed_in else "no answer could be read"


def plain_text(text: str) -> str:
    """Return a program's output as escaped text, without colours made for a dark terminal."""
    return html.escape(strip_ansi(text))


def code_style() -> str:
    """Return the style of highlighted code, light and dark."""
    light = HtmlFormatter(style=LIGHT_CODE_STYLE).get_style_defs(".highlight")
    dark = HtmlFormatter(style=DARK_CODE_STYLE).get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


def use_autograder(config: Config) -> None:
    """Make nbgrader's commands use the autograder."""
    # names, not classes: formgrader shows its configuration as JSON
    plugin, stock = __name__, "nbgrader.preprocessors"
    config.Autograde.exporter_class = f"{plugin}.SubmissionExporter"
    # one validation after all steps, in place of one after each
    config.SubmissionExporter.optimistic_validation = True
    config.Autograde.sanitize_preprocessors = [
        f"{stock}.OverwriteKernelspec",
        f"{stock}.OverwriteCells",
        f"{stock}.CheckCellMetadata",
    ]
    config.Autograde.autograde_preprocessors = [
        f"{plugin}.JudgeSubmission",
        f"{stock}.IgnorePattern",
        "nbconvert.preprocessors.ClearMetadataPreprocessor",
        f"{stock}.LimitOutput",
        f"{plugin}.RecordScores",
        f"{stock}.AssignLatePenalties",
        f"{stock}.CheckCellMetadata",
    ]
    config.GenerateFeedback.exporter_class = f"{plugin}.FeedbackExporter"
    config.FeedbackExporter.template_name = "autograder_feedback"
    config.FeedbackExporter.extra_template_basedirs = [str(TEMPLATES)]
    config.FeedbackExporter.extra_template_paths = [str(TEMPLATES)]
    # formgrader renders with the plain HTMLExporter
    config.HTMLExporter.sanitize_html = True
    config.HTMLExporter.filters = {
        "markdown2html": "autograder.page_filters.markdown_filter",
        "highlight_code": "autograder.page_filters.code_filter",
        "clean_html": "autograder.page_filters.clean_filter",
        "strip_files_prefix": "autograder.page_filters.files_filter",
        "ansi2html": f"{plugin}.plain_text",
    }


def uses_autograder(config: Config) -> bool:
    """Tell whether these settings make nbgrader's commands use the autograder."""
    exporter = config.Autograde.get("exporter_class", "")
    return f"{__name__}.{SubmissionExporter.__name__}" in (exporter, _full_name(exporter))


def _full_name(item: Any) -> str:
    return f"{getattr(item, '__module__', '')}.{getattr(item, '__qualname__', '')}"


def with_autograder(config: Config) -> Config:
    """Return a course's settings with the autograder's where the course sets none of its own."""
    if uses_autograder(config):
        return config
    settings, own = Config(), copy.deepcopy(config)
    use_autograder(settings)
    for name in ("exporter_class", "sanitize_preprocessors"):
        own.Autograde.pop(name, None)
    timeout = own.Execute.get("timeout", own.ExecutePreprocessor.get("timeout"))
    if timeout is not None and timeout > 0:
        settings.JudgeSubmission.cell_seconds = float(timeout)
        settings.JudgeSubmission.total_seconds = max(Limits.total_seconds, TIMEOUTS * timeout)
    settings.merge(own)
    return settings


__all__ = [
    "FeedbackExporter",
    "JudgeSubmission",
    "RecordScores",
    "SubmissionExporter",
    "use_autograder",
    "uses_autograder",
    "with_autograder",
]
