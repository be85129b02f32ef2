"""How a hidden check is written: a pytest function that takes the fixture `student`.

A check file is `tests/hidden/<assignment>/test_<function>.py`; its stem is the `grade_id` of the
grade cell that it judges. Each test function is one check::

    @pytest.mark.points(2)
    @pytest.mark.hint("Subtract each row's largest logit first.")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_large_logits(student, dtype, device, generator):
        \"\"\"Logits as large as 1e4 give finite probabilities.\"\"\"
        logits = 1e4 * torch.randn(8, 5, generator=generator, dtype=dtype).to(device)
        student.check("softmax", lossref.softmax, logits, tolerance=TOLERANCE[dtype])

The docstring's first line is what the student reads. A check earns its points when all its
parametrised cases pass. `student` is an
`autograder.checking.student.Student`; `device` runs over the
devices of this machine; `generator` is seeded with the secret class seed and the test's name.
A check must depend on them and on the replies alone: it is not run again for the same replies.

By hand: `pytest tests/hidden/cross_entropy --submission NOTEBOOK`; without `--submission` the
instructor's solution is checked.
"""

from autograder.assignment import BrokenCheckError
from autograder.checking.compare import Tolerance
from autograder.checking.failure import CheckFailedError, StudentStoppedError
from autograder.checking.judge import judge
from autograder.checking.student import Reply, Student

__all__ = [
    "BrokenCheckError",
    "CheckFailedError",
    "Reply",
    "Student",
    "StudentStoppedError",
    "Tolerance",
    "judge",
]
