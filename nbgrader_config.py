"""nbgrader's settings for this course; nbgrader reads this file in the folder it is started in."""

from pathlib import Path

from autograder.nbgrader_plugin import use_autograder

ROOT = Path(__file__).resolve().parent

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "getting-the-loss-right"
c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.source_directory = "course/source"
c.CourseDirectory.release_directory = "exercises"
c.CourseDirectory.submitted_directory = "course/submitted"
c.CourseDirectory.autograded_directory = "course/autograded"
c.CourseDirectory.feedback_directory = "course/feedback"
c.CourseDirectory.db_url = f"sqlite:///{ROOT}/course/gradebook.db"

use_autograder(c)

# the secret that the checks' random inputs come from; made when it is missing
c.JudgeSubmission.class_seed_file = str(ROOT / "course" / "class_seed.txt")
# where feedback links to; set it to the published book's address before returning feedback
BOOK = (ROOT / "_build" / "html").as_uri()
c.JudgeSubmission.book_url = BOOK + "/book/chapters/{page}.html#{anchor}"

# late work is recorded and reported as late; "zero" would take all its points
c.LateSubmissionPlugin.penalty_method = "none"
