"""The directives of the book: quiz questions, goals, take-away, exercise download, API lists."""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = "book/chapters/"
SOURCES = ("lossref", "book/means")
# what a page counts or shows besides
PAGE_SOURCES = {
    "book/reference/what-the-grader-promises": (
        "autograder",
        "tests/autograder/attacks",
        "book/reference",
    )
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class details(nodes.General, nodes.Element):  # noqa: N801 - docutils names nodes like tags
    """A part that opens on demand, by mouse or keyboard, without a script."""


class summary(nodes.TextElement):  # noqa: N801
    """The always visible line of `details`."""


class Question(SphinxDirective):
    """A quiz question; its content is the question and then its `answer` directives."""

    required_arguments = 1
    final_argument_whitespace = False
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Read the question, letter its answers and check that it can be answered."""
        identifier = nodes.make_id(f"question-{self.arguments[0]}")
        box = nodes.container(classes=["question"], ids=[identifier])
        self.state.nested_parse(self.content, self.content_offset, box)
        answers = [node for node in box.children if isinstance(node, details)]
        right = [answer for answer in answers if "right" in answer["classes"]]
        if len(answers) < 3 or len(right) != 1:
            raise self.error(
                f"question {self.arguments[0]!r} must have at least 3 answers, one of them right, "
                f"got {len(answers)} with {len(right)} right"
            )
        for letter, answer in zip(LETTERS, answers, strict=False):
            answer["name"] = identifier
            line = answer.children[0]
            assert isinstance(line, summary)
            line.insert(0, nodes.inline("", f"{letter}. ", classes=["letter"]))
        return [box]


class Answer(SphinxDirective):
    """One answer of a question: right or wrong in its first word, its feedback as content."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Put the answer into the visible line and the feedback behind it."""
        kind, _, text = self.arguments[0].partition(" ")
        if kind not in ("right", "wrong") or not text.strip():
            raise self.error(f"an answer begins with 'right' or 'wrong', got {self.arguments[0]!r}")
        self.assert_has_content()
        words, messages = self.state.inline_text(text.strip(), self.lineno)
        feedback = nodes.container(classes=["feedback"])
        verdict = "Right." if kind == "right" else "Not so."
        feedback += nodes.paragraph("", "", nodes.strong("", verdict), classes=["verdict"])
        self.state.nested_parse(self.content, self.content_offset, feedback)
        node = details(classes=["answer", kind])
        node += summary("", "", *words)
        node += feedback
        return [node, *messages]


class Box(SphinxDirective):
    """A box with a fixed title."""

    has_content = True
    title: ClassVar[str]

    def run(self) -> list[nodes.Node]:
        """Make an admonition of this kind."""
        self.assert_has_content()
        box = nodes.admonition(classes=[nodes.make_id(self.title)])
        box += nodes.title("", self.title)
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]


class Goals(Box):
    """What a reader can do after the chapter."""

    title = "Goals"


class TakeAway(Box):
    """What to keep from the chapter."""

    title = "Take-away"


class ExerciseDownload(SphinxDirective):
    """A link that downloads an assignment's notebook, if it was generated before the book."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Offer the notebook, or say where it comes from."""
        name = self.arguments[0]
        notebook = Path("exercises") / name / f"{name}.ipynb"
        self.env.note_dependency(str(ROOT / notebook))
        paragraph = nodes.paragraph(classes=["exercise-download"])
        if (ROOT / notebook).is_file():
            link = addnodes.download_reference(
                "", "", reftarget=f"/{notebook.as_posix()}", refdoc=self.env.docname
            )
            link += nodes.inline("", f"Download {notebook.name}", classes=["xref", "download"])
            paragraph += link
        else:
            paragraph += nodes.Text("The notebook comes with the course: after ")
            paragraph += nodes.literal("", "make exercises")
            paragraph += nodes.Text(" it is ")
            paragraph += nodes.literal("", notebook.as_posix())
            paragraph += nodes.Text(".")
        return [paragraph]


class LibraryReference(SphinxDirective):
    """A group of a package's public names: a table, and the full docstring of each.

    A line of the content is a name, or a name, a colon and the label of the section of a chapter
    that explains it. A label that the book does not have stops the build, as any other would.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Write the table and the entries."""
        package = import_module(self.arguments[0])
        if not hasattr(package, "__all__"):
            raise self.error(
                f"package {package.__name__!r} names nothing public: it has no __all__"
            )
        entries = dict(map(self._entry, self.content or package.__all__))
        unknown = [name for name in entries if name not in package.__all__]
        if unknown:
            raise self.error(f"{', '.join(unknown)} not public in package {package.__name__!r}")
        lines = ["```{eval-rst}", f".. currentmodule:: {package.__name__}", ""]
        lines += [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in entries)]
        for name, label in entries.items():
            kind = "class" if inspect.isclass(getattr(package, name)) else "function"
            lines += ["", f".. auto{kind}:: {package.__name__}.{name}"]
            lines += ["", f"   In the book: :ref:`{label}`."] if label else []
        lines += ["```"]
        part = nodes.Element()
        source = self.get_source_info()[0]
        self.state.nested_parse(StringList(lines, source=source), self.content_offset, part)
        return part.children

    @staticmethod
    def _entry(line: str) -> tuple[str, str]:
        name, _, label = line.partition(":")
        return name.strip(), label.strip()


def open_details(translator: Any, node: details) -> None:
    """Begin a part that opens on demand; parts with one name close each other."""
    translator.body.append(
        translator.starttag(node, "details", CLASS=" ".join(node["classes"]), name=node["name"])
    )


def close_details(translator: Any, node: details) -> None:
    """End a part that opens on demand."""
    translator.body.append("</details>\n")


def open_summary(translator: Any, node: summary) -> None:
    """Begin the visible line."""
    translator.body.append("<summary>")


def close_summary(translator: Any, node: summary) -> None:
    """End the visible line."""
    translator.body.append("</summary>\n")


def note_sources(app: Sphinx, doctree: nodes.document) -> None:
    """Read a chapter again when a source that its results or text come from has changed."""
    environment = app.env
    if not environment.docname.startswith((CHAPTERS, "book/reference/")):
        return
    for folder in (*SOURCES, *PAGE_SOURCES.get(environment.docname, ())):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".json"):
                environment.note_dependency(str(path))


def lend_path_to_kernels() -> None:
    """Let the kernels that run the chapters import `book.means`."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in folders:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, folders)])


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the book's directives to Sphinx."""
    lend_path_to_kernels()
    app.add_node(details, html=(open_details, close_details))
    app.add_node(summary, html=(open_summary, close_summary))
    app.add_directive("question", Question)
    app.add_directive("answer", Answer)
    app.add_directive("goals", Goals)
    app.add_directive("take-away", TakeAway)
    app.add_directive("exercise-download", ExerciseDownload)
    app.add_directive("library-reference", LibraryReference)
    app.connect("doctree-read", note_sources)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
