"""The class report and the feedback pages, read as text and opened in a browser."""

import csv
import json
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import jinja2
import nbformat
import pytest
from sqlalchemy import event

from autograder import feedback
from autograder.assignment import Assignment
from autograder.course import Course, CourseError
from autograder.feedback import feedback_pages, write_feedback
from autograder.grades import Cell, grade_digests
from autograder.grading import Batch, submitted_students
from autograder.nbgrader_plugin import COMPILED_TEMPLATES
from autograder.record import Record
from autograder.report import (
    check_rates,
    class_rows,
    distribution,
    misconception_counts,
    render_report,
    write_report,
)
from autograder.sample_class import make_sample_class
from autograder.summary import CellResults, Row
from autograder.verdict import CellVerdict, CheckResult, Finding

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def check(name, outcome, points=1.0):
    return CheckResult(name, f"It does {name}.", points, outcome)


def row(student, score, *, outcome="passed", finding=None, repairs=(), name=""):
    findings = (Finding("n", finding, "page#place"),) if finding else ()
    checks = (check("a", "passed"), check("b", outcome, 3.0))
    cell = CellVerdict("test_f", checks, findings)
    record = Record(repairs=list(repairs), cells={"test_f": cell})
    return Row(student, name, "graded", score, 4.0, records={"f": record})


ROWS = [
    row("s1", 4.0),
    row("s2", 1.0, outcome="failed", finding="halving"),
    row("s3", 1.0, outcome="failed", finding="halving"),
    row("s4", 1.0, outcome="stopped", finding="doubling"),
]


def test_pass_rates_count_each_check_over_the_class():
    rates = {rate.description: rate for rate in check_rates(ROWS)}
    assert rates["It does a."].rate == 1
    second = rates["It does b."]
    assert (second.passed, second.stopped, second.total, second.points) == (1, 1, 4, 3)


def test_misconceptions_are_ordered_by_frequency():
    counts = [(entry.sentence, entry.students) for entry in misconception_counts(ROWS)]
    assert counts == [("halving", ("s2", "s3")), ("doubling", ("s4",))]


def test_the_distribution_counts_everyone_once():
    counts = [bin.count for bin in distribution([*ROWS, row("s5", 0.0), row("s6", 3.99)])]
    assert counts == [1, 0, 3, 0, 0, 0, 0, 0, 0, 2]


def test_the_report_shows_scores_and_reasons():
    page = render_report("f", [*ROWS, row("s5", 0, repairs=["The cell `x` was missing."])])
    assert "1.4 of 4" in page
    assert "The cell <code>x</code> was missing." in page
    assert "1 of 5 (20 %)" not in page
    assert "2 of 5 (40 %)" in page


def test_a_misconception_links_to_the_book():
    page = render_report("f", ROWS, book_url="https://example.org/{page}.html#{anchor}")
    assert '<a href="https://example.org/' in page
    assert "<a href" not in render_report("f", ROWS)


def test_the_report_shows_how_each_part_went():
    essay = CellResults(Cell("words", "essay", 4, is_test=False), (1.0, 4.0, 5.0), waiting=2)
    page = " ".join(render_report("f", ROWS, parts=[essay]).split())
    assert '<td class="rate">3.33<br>' in page
    assert "2 of 3" in page
    assert '<td class="number">2</td></tr>' in page
    graded = render_report("f", ROWS, parts=[replace(essay, waiting=0)])
    assert "Not graded yet" in page
    assert "Not graded yet" not in graded


def test_nothing_from_a_student_becomes_markup():
    page = render_report(
        SCRIPT, [row(SCRIPT, 0, finding=SCRIPT, repairs=[SCRIPT], name=SCRIPT)], {SCRIPT: [SCRIPT]}
    )
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_a_table_cell_cannot_become_a_formula(toy_course, monkeypatch, tmp_path):
    assignment = Assignment("toy", toy_course.root)
    monkeypatch.setattr("autograder.report.class_rows", lambda *_: [row("=cmd()", 1, name="+1")])
    _, table = write_report(toy_course, assignment, tmp_path)
    with table.open(newline="") as file:
        entry = next(csv.DictReader(file))
    assert (entry["student"], entry["name"], entry["score"]) == ("'=cmd()", "'+1", "1")


@pytest.mark.parametrize(
    ("student", "written"),
    [
        ("-dash", "-dash"),
        ("@ada.l-1", "@ada.l-1"),
        ("=1+1", "'=1+1"),
        ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
    ],
)
def test_a_students_id_stays_as_it_is_unless_it_could_call_something(
    toy_course, monkeypatch, tmp_path, student, written
):
    """Bug: `-dash` was written as `'-dash`, which matches no student on import."""
    monkeypatch.setattr("autograder.report.class_rows", lambda *_: [row(student, 1, name="-A")])
    _, table = write_report(toy_course, Assignment("toy", toy_course.root), tmp_path)
    with table.open(newline="") as file:
        entry = next(csv.DictReader(file))
    assert (entry["student"], entry["name"]) == (written, "'-A")


def test_without_gradings_there_is_one_clear_error(toy_course):
    with pytest.raises(CourseError, match="nothing is graded yet"):
        class_rows(toy_course, Assignment("toy", toy_course.root))


@pytest.fixture(scope="module")
def graded(released_toy, tmp_path_factory):
    root = tmp_path_factory.mktemp("pages") / "course"
    shutil.copytree(released_toy, root)
    course, assignment = Course.load(root), Assignment("toy", root)
    make_sample_class(course, assignment, size=36)
    students = submitted_students(course, assignment)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        Batch(course, assignment, students, executor=executor).run()
    assert write_feedback(course, assignment, students) == {}
    write_report(course, assignment, root / "course" / "reports" / "toy")
    return course


def test_every_student_gets_a_page_that_the_report_links_to(graded):
    assignment = Assignment("toy", graded.root)
    report = (graded.root / "course/reports/toy/index.html").read_text()
    for student in submitted_students(graded, assignment):
        (page,) = feedback_pages(graded, assignment, student)
        assert f'href="../../feedback/{student}/toy/{page.name}"' in report


@pytest.fixture
def autograded(graded):
    """The folder of one autograded submission, to which files may be added."""
    folder = graded.folder("autograded", "student004", "toy")
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    made_again(graded, "student004")


def made_again(course, student):
    """Make a student's feedback again, whatever there was."""
    (course.folder("autograded", student, "toy") / "toy.ipynb").touch()
    return write_feedback(course, Assignment("toy", course.root), [student])


def write_files(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("<script>own()</script>")


@pytest.mark.parametrize("handed_in", ["toy.html", "toy.html/a.txt", "toy.html/toy.html"])
def test_what_is_handed_in_under_a_pages_name_does_not_stand_in_its_way(
    graded, autograded, handed_in
):
    """Bug: a folder `toy.html` kept its student's page from being written."""
    write_files(autograded, [handed_in])
    assert made_again(graded, "student004") == {}
    assert "own()" not in text_of(graded, "student004")


def test_a_students_own_pages_are_no_feedback(graded, autograded, tmp_path):
    """Bug: the class report linked a student's own HTML file as their feedback."""
    assignment = Assignment("toy", graded.root)
    pages = ["a.html", "b.HTM", "c.svg", "folder/d.xhtml", "folder.html/e.mhtml", "f.xht", "g.rss"]
    others = ["data.csv", "folder/plot.png", "folder.html/f.txt"]
    write_files(autograded, pages + others)
    assert made_again(graded, "student004") == {}
    folder = graded.folder("feedback", "student004", "toy")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"toy.html", "timestamp.txt", *others}
    assert feedback_pages(graded, assignment, "student004") == [folder / "toy.html"]
    # as nbgrader's own command leaves them there
    write_files(folder, pages)
    assert feedback_pages(graded, assignment, "student004") == [folder / "toy.html"]
    report, _ = write_report(graded, assignment, tmp_path / "report")
    assert set(re.findall(r'student004/toy/([^"]*)"', report.read_text())) == {"toy.html"}


@pytest.mark.parametrize("kind", ["a folder", "a link"])
def test_only_a_file_is_a_feedback_page(graded, autograded, tmp_path, kind):
    """Bug: what lay under the name of a page was taken for one, whatever it was."""
    assignment = Assignment("toy", graded.root)
    page = graded.folder("feedback", "student004", "toy") / "toy.html"
    page.unlink()
    (tmp_path / "other").write_text("")
    page.mkdir() if kind == "a folder" else page.symlink_to(tmp_path / "other")
    assert feedback_pages(graded, assignment, "student004") == []
    assert write_feedback(graded, assignment, ["student004"]) == {}
    assert feedback_pages(graded, assignment, "student004") == [page]


def test_pages_are_made_again_only_after_a_new_grading(graded):
    assignment = Assignment("toy", graded.root)
    (page,) = feedback_pages(graded, assignment, "student001")
    before = page.stat().st_mtime_ns
    write_feedback(graded, assignment, ["student001"])
    assert page.stat().st_mtime_ns == before
    (graded.folder("autograded", "student001", "toy") / "toy.ipynb").touch()
    write_feedback(graded, assignment, ["student001"])
    (page,) = feedback_pages(graded, assignment, "student001")
    assert page.stat().st_mtime_ns > before


def text_of(course, student):
    (page,) = feedback_pages(course, Assignment("toy", course.root), student)
    return page.read_text()


def change_essay(course, student, manual_score, manual_comment=None):
    """Grade by hand, as formgrader does."""
    with course.gradebook() as gradebook:
        grade = gradebook.find_grade("essay", "toy", "toy", student)
        grade.manual_score, grade.needs_manual_grade = manual_score, False
        comment = gradebook.find_comment("essay", "toy", "toy", student)
        comment.manual_comment = manual_comment
        gradebook.db.commit()


def test_a_page_follows_what_is_graded_by_hand(graded):
    """Bug: manual grading changes no file, so the page kept the score from before."""
    assignment = Assignment("toy", graded.root)
    page = graded.folder("feedback", "student003", "toy") / "toy.html"
    for score, comment in ((1.25, "Nicely put."), (1.5, "Nicely put."), (1.5, "Well put.")):
        before = text_of(graded, "student003")
        change_essay(graded, "student003", score, comment)
        assert write_feedback(graded, assignment, ["student003"]) == {}
        after = text_of(graded, "student003")
        assert after != before
        assert f"{score:g} of 2 points" in after
        assert comment in after
    written = page.stat().st_mtime_ns
    change_essay(graded, "student004", 1)
    assert write_feedback(graded, assignment, ["student003"]) == {}
    assert page.stat().st_mtime_ns == written


def test_asking_for_pages_takes_no_more_queries_for_a_large_class(graded):
    with graded.gradebook() as gradebook:
        gradebook.find_assignment("toy")
        asked = []
        event.listen(gradebook.engine, "before_cursor_execute", lambda *_: asked.append(1))
        digests = grade_digests(gradebook, "toy")
    assert len(digests) == 36
    assert len(asked) < 20


def test_why_a_page_could_not_be_made_is_returned(toy_course, hand_in):
    folder = toy_course.folder("autograded", "ada", "toy")
    folder.mkdir(parents=True)
    (folder / "toy.ipynb").write_text("not JSON")
    failed = write_feedback(toy_course, Assignment("toy", toy_course.root), ["ada"])
    assert "toy.ipynb: NotJSONError: Notebook does not appear to be JSON" in failed["ada"]


def test_templates_are_compiled_for_the_first_page_alone(graded, monkeypatch):
    compiled, generate = [], jinja2.Environment._generate

    def counted(*given, **named):
        compiled.append(given)
        return generate(*given, **named)

    monkeypatch.setattr(COMPILED_TEMPLATES, "known", {})
    monkeypatch.setattr(jinja2.Environment, "_generate", counted)
    made_again(graded, "student005")
    first = len(compiled)
    assert first >= 5
    made_again(graded, "student006")
    assert len(compiled) == first


@pytest.fixture
def many(monkeypatch):
    """Have the pages of any number of students made by other processes, and none here."""
    monkeypatch.setattr(feedback, "FEW", 0)
    monkeypatch.setattr(feedback, "_write_pages", None)


def test_the_pages_of_many_are_made_side_by_side(graded, many):
    students = [f"student{number:03}" for number in range(5, 10)]
    before = {student: text_of(graded, student) for student in students}
    for student in students:
        (graded.folder("autograded", student, "toy") / "toy.ipynb").touch()
        feedback_pages(graded, Assignment("toy", graded.root), student)[0].unlink()
    done = []
    assert write_feedback(graded, Assignment("toy", graded.root), students, done.append, 2) == {}
    assert sorted(done) == students
    assert {student: text_of(graded, student) for student in students} == before


HOOK = """
import os, signal

def end(student, **names):
    if student == "student002":
        os.kill(os.getpid(), signal.SIGKILL)

c.GenerateFeedback.pre_convert_hook = end
"""


def test_a_process_that_ends_costs_one_student_their_page(graded, many, tmp_path):
    shutil.copytree(graded.root, tmp_path / "course")
    with (tmp_path / "course/nbgrader_config.py").open("a") as file:
        file.write(HOOK)
    course, students = Course.load(tmp_path / "course"), ["student001", "student002", "student003"]
    assignment = Assignment("toy", course.root)
    for student in students:
        (course.folder("autograded", student, "toy") / "toy.ipynb").touch()
    (course.folder("autograded", "student003", "toy") / "toy.ipynb").write_text("not JSON")
    failed = write_feedback(course, assignment, students, workers=1)
    assert feedback_pages(course, assignment, "student001")
    assert sorted(failed) == ["student002", "student003"]
    ended = "WorkerEndedError: the process that worked on it was ended by SIGKILL"
    assert failed["student002"] == ended
    assert failed["student003"].startswith("toy.ipynb: NotJSONError: ")


def test_no_page_holds_hidden_source_or_runs_a_script(graded):
    pages = [*(graded.root / "course/feedback").rglob("*.html")]
    assert len(pages) == 36
    for page in [*pages, graded.root / "course/reports/toy/index.html"]:
        text = page.read_text()
        assert "<script" not in text, page
        assert "student.check" not in text, page
        assert "torch.randn" not in text, page
        assert "default-src 'none'" in text, page


def look_at(browser, path, width, scheme):
    """Open a page; return what went wrong, its width and its background."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    troubles = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            request.url.startswith("data:")
            or request.is_navigation_request()
            or troubles.append(request.url)
        ),
    )
    page.goto(path.as_uri())
    wide = page.evaluate("document.documentElement.scrollWidth")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    title = page.title()
    context.close()
    return troubles, wide, back, title


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("scheme", "back"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20,")])
def test_pages_fit_and_stay_quiet_in_a_browser(graded, browser, width, scheme, back):
    kinds = {"markup", "several misconceptions", "empty file", "late", "forged score"}
    manifest = json.loads((graded.root / "course/sample_class_toy.json").read_text())
    students = [student for student, kind in manifest.items() if kind in kinds]
    assert len(students) >= len(kinds)
    pages = [graded.root / f"course/feedback/{student}/toy/toy.html" for student in students]
    for path in [graded.root / "course/reports/toy/index.html", *pages]:
        troubles, wide, background, title = look_at(browser, path, width, scheme)
        assert troubles == [], path
        assert wide <= width, path
        assert background.startswith(back), path
        assert title in ("toy: class report", "toy: feedback")


def test_captions_stay_in_sight_on_a_small_screen(browser, tmp_path):
    """Bug: a caption was as wide as its table, of which a part is out of sight."""
    part = CellResults(Cell("words", "a_name_without_a_space_" * 4, 4, is_test=False), (1.0,), 1)
    path = tmp_path / "index.html"
    path.write_text(render_report("f", ROWS, parts=[part]))
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(path.as_uri())
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{wide}.length") >= 2
    for scrolled in (0, 10_000):
        page.evaluate(f"{wide}.forEach(e => e.scrollLeft = {scrolled})")
        edges = page.evaluate(
            "[...document.querySelectorAll('caption')].map(caption => {"
            " const range = document.createRange(); range.selectNodeContents(caption);"
            " const box = range.getBoundingClientRect(); return [box.left, box.right] })"
        )
        assert len(edges) == 5
        assert all(left >= 0 and right <= 390 for left, right in edges), edges
    page.close()


def test_feedback_survives_a_notebook_full_of_oddities(graded):
    assignment = Assignment("toy", graded.root)
    path = graded.folder("autograded", "student001", "toy") / "toy.ipynb"
    path.chmod(0o644)
    notebook = nbformat.read(path, as_version=4)
    oddities = [
        "![x](attachment:none.png)",
        "$\\frac{$ $$\\left($$ \\begin{x}",
        "```mermaid\n<script>\n```",
        "> " * 3_000,
        "*" * 3_000,
        "x" * 200_000,
    ]
    notebook.cells += [
        nbformat.v4.new_markdown_cell(text, id=f"odd-{i}") for i, text in enumerate(oddities)
    ]
    path.write_text(nbformat.writes(notebook))
    assert write_feedback(graded, assignment, ["student001"]) == {}
    (page,) = feedback_pages(graded, assignment, "student001")
    assert "<script" not in page.read_text()
