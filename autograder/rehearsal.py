"""Judges the bank's functions while the libraries of students' processes load.

The check files are collected then, and what their cases make of the commonest right and wrong
replies is known to every worker that is forked afterwards. No verdict depends on it: what leaves
traces in this process is not done in one that workers are forked from.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autograder.assignment import Assignment
from autograder.bank import Bank, Equivalent, Misconception, load_bank, read_bank
from autograder.checking.collected import collected_checks
from autograder.checking.judge import judge_cell
from autograder.checking.student import ProcessCaller, Reply
from autograder.child import protocol
from autograder.child.calls import answer
from autograder.student_process import understand_reply

Entry = Equivalent | Misconception
OWN = ("/proc/self/fd", "/proc/self/task")
SET_BY_PYTEST = "PYTEST_CURRENT_TEST"
# processes forked after the checks ran share these folders, and one may remove them
SHARED_FOLDERS = {"tmp_path", "tmp_path_factory"}


def traces() -> tuple[Any, ...]:
    """Return what checks and functions of a bank could leave that forked processes would share."""
    return (
        # open files, whose place in them is shared; threads; temporary folders
        *(sorted(Path(place).iterdir()) for place in (*OWN, tempfile.gettempdir())),
        {name: value for name, value in os.environ.items() if name != SET_BY_PYTEST},
        Path.cwd(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        np.geterr(),
        random.getstate(),
        repr(np.random.get_state()),  # noqa: NPY002 - the generator that others use
        torch.get_rng_state().numpy().tobytes(),
    )


@dataclass
class TrustedCaller(ProcessCaller):
    """Answers as a student's process would, in this one: for trusted functions alone."""

    functions: dict[str, Callable[..., Any]]

    def exchange(self, function: str, request: bytes) -> bytes:
        """Answer a request."""
        return protocol.encode(answer(protocol.decode(request), self.functions))

    def understand(self, function: str, reply: bytes) -> Reply:
        """Read a reply; raise `CheckFailedError` with words for the student if the call failed."""
        return understand_reply(function, protocol.decode(reply), frozenset())


def judge_bank(assignment: Assignment, class_seed: str, go_on: Callable[[], bool]) -> None:
    """Judge functions of the bank for as long as `go_on` says so.

    Raises
    ------
    BrokenCheckError
        If a hidden check cannot be collected or is skipped.
    """
    # a GPU's gradients are computed by threads, and a process that has had them cannot be forked
    if not go_on() or torch.cuda.is_available():
        return
    bank = load_bank(assignment)
    # copies: what one of them keeps from call to call must not show when results are compared
    versions = read_bank(assignment)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for entry in _in_turn(versions):
            if not go_on():
                return
            grade_id = f"test_{entry.function}"
            if _can_be_rehearsed(assignment, grade_id):
                caller = partial(TrustedCaller, {entry.function: entry.implementation})
                judge_cell(
                    assignment, grade_id, caller, class_seed=class_seed, bank=bank, settled=True
                )


def _in_turn(bank: Bank) -> Iterator[Entry]:
    """Yield a right and a wrong version of each function, then the next two of each."""
    entries: list[Entry] = [*bank.equivalents, *bank.misconceptions]
    versions: dict[tuple[bool, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        versions[isinstance(entry, Misconception), entry.function].append(entry)
    for turn in zip_longest(*versions.values()):
        yield from (entry for entry in turn if entry is not None)


def _can_be_rehearsed(assignment: Assignment, grade_id: str) -> bool:
    """Tell whether a grade cell has checks that leave nothing for forked processes to share."""
    path = assignment.check_file(grade_id)
    if path is None:
        return False
    checks = collected_checks(assignment, path).checks
    cases = [case for check in checks for case in check.cases]
    return not any(SHARED_FOLDERS & set(getattr(case, "fixturenames", ())) for case in cases)
