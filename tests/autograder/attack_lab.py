"""Runs the attacks on the autograder, with all layers of confinement or without one."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autograder.child.process_tree import descendants
from autograder.engine import NotebookRun, grade_notebook, warm_process
from autograder.intake import parse_submission
from autograder.limits import Limits
from autograder.rebuild import rebuild
from autograder.student_process import WarmProcess
from autograder.verdict import SubmissionVerdict
from tests.autograder.attack_course import (
    HIDDEN_MARK,
    LATER_INPUT,
    LOOT,
    OTHER_MARK,
    TOKEN,
    Attack,
    Course,
    all_attacks,
    command_lines,
    course,
    loot_in,
    tampered,
)

LIMITS = Limits(
    cell_seconds=5,
    call_seconds=1,
    total_seconds=60,
    memory=2 * 2**30,
    folder_size=64 * 2**20,
)
OUTER_LAYERS = ("files", "processes", "network", "messages")


class Lab:
    """Runs attacks on a course, with all layers of confinement or without one."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.earlier = course.root / "earlier"
        self.earlier.mkdir()
        (self.earlier / "notes.txt").write_text(OTHER_MARK)
        # many small ones: freed memory of that size is seldom overwritten
        for number in range(200):
            (self.earlier / f"note{number}.txt").write_text(OTHER_MARK * 10)
        self.warm_without: dict[str, WarmProcess] = {}

    def close(self) -> None:
        """End the warm processes that lack a layer."""
        for warm in self.warm_without.values():
            warm.close()

    def _warm_without(self, layer: str) -> WarmProcess:
        if layer not in OUTER_LAYERS:
            return warm_process()
        if layer not in self.warm_without:
            self.warm_without[layer] = WarmProcess(confined=True, without=[layer])
        return self.warm_without[layer]

    def grade(self, attack: Attack) -> SubmissionVerdict:
        """Grade an attack as any submission is graded."""
        if attack.accomplice:
            self._grade(attack)
        return self._grade(attack)

    def _grade(self, attack: Attack) -> SubmissionVerdict:
        notebook = self.course.notebook(*attack.sources)
        if attack.tamper:
            # what is released is the same notebook without the student's own cells
            released = self.course.notebook()
            handed_in = json.dumps(tampered(notebook, attack.tamper)).encode()
            notebook = rebuild(released, parse_submission(handed_in)).notebook
        return grade_notebook(
            notebook,
            self.course.assignment,
            limits=replace(LIMITS, **attack.limits),
        )

    def honest(self) -> SubmissionVerdict:
        """Grade an honest submission, which has a file that others might want."""
        notebook = self.course.notebook(
            "open('notes.txt').read()\ndef square(x):\n    return x * x"
        )
        return grade_notebook(notebook, self.course.assignment, files=self.earlier)

    def trouble(self, attack: Attack) -> list[str]:
        """Return what an attack achieved of what it must not."""
        descriptors, processes = count_descriptors(), count_processes()
        verdict = self.grade(attack)
        said = json.dumps(asdict(verdict), ensure_ascii=False).encode().decode()
        earned = sum(cell.earned for cell in verdict.cells.values())
        words = [*verdict.incidents, *(check.message for check in self._checks(verdict))]
        troubles = {
            f"it earned {earned:g} points": earned > attack.may_earn,
            f"it found something: {loot_in(said)}": LOOT in said,
            "it shows a secret": any(secret in said for secret in self._secrets()),
            f"it is not on record: {words}": not re.search(attack.record, " ".join(words)),
            f"its checks have no result: {verdict.cells}": len(self._checks(verdict)) != 2,
            "a process outlived it": self.course.outlives in command_lines(),
            "descriptors were left open": count_descriptors() > descriptors,
            "processes were left": count_processes() > processes,
        }
        after = self.honest()
        troubles[f"the next submission suffered: {after.cells} {after.incidents}"] = (
            after.cells["test_square"].earned != 3 or after.incidents != []
        )
        return [sentence for sentence, holds in troubles.items() if holds]

    @staticmethod
    def _checks(verdict: SubmissionVerdict) -> list[Any]:
        return [check for cell in verdict.cells.values() for check in cell.checks]

    def _secrets(self) -> list[str]:
        value = str(LATER_INPUT)
        inputs = (value, value.replace(".", "_"), value.replace(".", ""), "12345")
        return [TOKEN, HIDDEN_MARK, OTHER_MARK, "152415765.27", *inputs]

    def loot_without(self, attack: Attack, layer: str) -> str:
        """Return what an attack finds when one layer of confinement is off."""
        said = ""
        for _ in range(2 if attack.accomplice else 1):
            run = NotebookRun(
                self.course.notebook(*attack.sources),
                self.course.assignment,
                limits=replace(LIMITS, **attack.limits),
                warm=self._warm_without(layer),
                without=[layer],
            )
            try:
                said = json.dumps(asdict(run.run_cells()))
            finally:
                run.close()
        return loot_in(said)


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def count_processes() -> int:
    """Return how many processes there are below this one."""
    return len(descendants(os.getpid()))


def main(names: Collection[str]) -> None:
    """Run attacks and those of a layer without it; print the troubles as JSON."""
    attacks = all_attacks()
    with course() as made:
        lab = Lab(made)
        lab.honest()
        troubles = {name: lab.trouble(attacks[name]) for name in names or attacks}
        loot = {
            name: lab.loot_without(attacks[name], attacks[name].layer)
            for name in names or attacks
            if attacks[name].layer
        }
        lab.close()
    json.dump({"troubles": troubles, "loot": loot}, sys.stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
