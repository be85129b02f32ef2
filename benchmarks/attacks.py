"""Run the attacks of the tests against stock `nbgrader autograde` and against the autograder.

Stock nbgrader runs in a container (see `container.py`), a fresh one for each attack, with a fresh
copy of a course: a gradebook, another student's submission and a bystander process. The autograder
meets them twice: with hidden checks, and as a class of that same course, whose tests are asserts
in the notebook. What comes out is kept in `book/reference/attacks.json`, and the book shows it.

    python benchmarks/attacks.py                        every attack, from the beginning
    python benchmarks/attacks.py --resume --seconds 500 those whose result is missing or old
    python benchmarks/attacks.py --only escape          those whose name holds a word
    python benchmarks/attacks.py --show                 the table, without running anything
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice, takewhile
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import container  # noqa: E402
import stock_nbgrader  # noqa: E402

from tests.autograder.attack_course import (  # noqa: E402
    PREAMBLE,
    Attack,
    all_attacks,
    command_lines,
    course,
)

SIDES = ("stock", "asserts", "ours")
RESULTS = ROOT / "book" / "reference" / "attacks.json"
ATTACK_SECONDS = 180
TRIES = 3
TIME_LIMITS = (*stock_nbgrader.TIMES, "total_seconds")
FIRST_IMPORTS = PREAMBLE.strip().splitlines()[0]
PACKAGES = ("nbgrader", "nbclient", "ipykernel", "torch")
HONEST = Attack("plain/honest", "An honest answer", ("square = lambda x: x * x",), may_earn=3)
WRONG = Attack("plain/wrong", "A plain wrong answer", ("square = lambda x: 2 * x",))
# what any run is compared with: without them a broken set-up would look like a safe grader
PLAIN = {attack.name: attack for attack in (HONEST, WRONG)}


def run_stock(attack: Attack, template: Path, number: int) -> dict[str, Any]:
    """Run one attack in the container of a number; return what could be seen afterwards."""
    for _ in range(TRIES):
        ended = container.run(
            [sys.executable, stock_nbgrader.__file__, json.dumps(asdict(attack))],
            shown={stock_nbgrader.TEMPLATE_INSIDE: template},
            seconds=ATTACK_SECONDS,
            user=container.FIRST_USER + number,
        )
        # on a busy machine the imports alone may take too long, which is no merit of the attack
        if not ("timed out" in ended.complained and FIRST_IMPORTS in ended.complained):
            break
    else:
        raise RuntimeError(f"{attack.name}: the machine is too busy to import torch")
    if stock_nbgrader.READY not in ended.said:
        raise RuntimeError(f"{attack.name} could not be set up: {ended.complained[-2000:]}")
    seen: dict[str, Any] = {"stopped": ended.stopped, "timed out": "timed out" in ended.complained}
    # an attack may have ended the process that would have said what it saw
    with contextlib.suppress(ValueError):
        seen |= json.loads(ended.said.strip().splitlines()[-1])
    return seen


def achieved(attack: Attack, seen: dict[str, Any]) -> list[str]:
    """Say what an attack achieved against stock nbgrader."""
    if seen["stopped"]:
        return [
            {"time": "the grader hangs", "memory": "takes all memory"}[seen["stopped"]],
            "no result is recorded",
        ]
    if "status" not in seen:
        return ["kills the grader", "no result is recorded"]
    outcomes = {
        "the grader hangs": seen["status"] is None,
        "no result is recorded": not seen["recorded"],
        f"earns {seen['earned'] or 0:g} of 3 points": (seen["earned"] or 0) > attack.may_earn,
        "gets what it is after": bool(seen["loot"]),
        "is active in the feedback": bool(seen["active"]),
        "shows hidden tests in the feedback": seen["shows a secret"]
        and attack.name.startswith(("theft", "plain")),
        "leaves processes behind": bool(seen["left"]),
    }
    return [sentence for sentence, holds in outcomes.items() if holds]


def read_results() -> dict[str, Any]:
    """Return the results that are there."""
    if not RESULTS.exists():
        return {"rows": {}}
    return dict(json.loads(RESULTS.read_text()))


@contextlib.contextmanager
def changed_rows(known: Mapping[str, Attack]) -> Iterator[dict[str, Any]]:
    """Read the rows and write them back, with one for each known attack and for no other.

    A crash in between leaves the old ones; several commands may run at once.
    """
    with Path(tempfile.gettempdir(), "attacks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = read_results()["rows"]
        yield rows
        versions = {name: version(name) for name in PACKAGES}
        made = {"python": platform.python_version(), **versions}
        written = {"versions": made, "cell-seconds": stock_nbgrader.CELL_SECONDS}
        written["rows"] = {name: row_of(known[name], rows) for name in sorted(known)}
        beside = RESULTS.with_suffix(".new")
        beside.write_text(json.dumps(written, indent=1) + "\n")
        beside.replace(RESULTS)


def row_of(attack: Attack, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of an attack as it is now."""
    told = {"title": attack.title, "digest": attack.digest}
    row = rows.get(attack.name, told)
    return dict(row) if row["digest"] == attack.digest else told


def keep(attack: Attack, side: str, seen: dict[str, Any], known: Mapping[str, Attack]) -> None:
    """Add what was seen on one side to what is known of an attack."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    with changed_rows(known) as rows:
        rows[attack.name] = {**row_of(attack, rows), f"{side} attacked": today, **seen}


def against_stock(
    attacks: list[Attack], seconds: float, together: int
) -> Iterator[tuple[Attack, dict[str, Any]]]:
    """Yield what each attack does to stock nbgrader, until the time is up."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, ThreadPool(together) as pool:
        template = Path(folder, "stock")
        Path(folder).chmod(0o755)
        stock_nbgrader.make_template(template)
        in_time = takewhile(lambda _: time.monotonic() < end, attacks)
        for some in batched(in_time, together):
            seen = pool.starmap(run_stock, [(one, template, i) for i, one in enumerate(some)])
            for attack, what in zip(some, seen, strict=True):
                yield attack, {"stock": achieved(attack, what), "seen": what}


def batched(attacks: Iterable[Attack], size: int) -> Iterator[list[Attack]]:
    """Yield lists of attacks, as long as there are any."""
    attacks = iter(attacks)
    while some := list(islice(attacks, size)):
        yield some


def against_ours(attacks: list[Attack], seconds: float) -> Iterator[tuple[Attack, dict[str, Any]]]:
    """Yield what each attack does to the autograder, until the time is up."""
    # these load torch, which what is attacked in the container has to do for itself
    from tests.autograder.attack_feedback import FeedbackLab
    from tests.autograder.attack_lab import Lab
    from tests.autograder.conftest import release_toy

    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, course() as made:
        lab = Lab(made)
        lab.honest()
        release_toy(Path(folder, "own"))
        pages = FeedbackLab(Path(folder, "own"))
        for attack in takewhile(lambda _: time.monotonic() < end, attacks):
            ours = [] if attack.name in PLAIN else lab.trouble(attack)
            ours += pages.trouble(attack) if attack.name.startswith("injected") else []
            yield attack, {"ours": ours}


def against_asserts(attacks: list[Attack]) -> Iterator[tuple[Attack, dict[str, Any]]]:
    """Yield what each attack does where the autograder runs asserts that are in the notebook.

    They are graded as one class, by one worker, each with an honest submission after it.
    """
    with course() as made, contextlib.chdir(made.root):
        stock_nbgrader.make_template(made.root / "template")
        shutil.copytree(made.root / "template", made.root, dirs_exist_ok=True)
        seconds = f"c.ExecutePreprocessor.timeout = {stock_nbgrader.CELL_SECONDS}"
        Path("nbgrader_config.py").write_text(f"c = get_config()\n{seconds}\n")
        handed_in = []
        for number, attack in enumerate(attacks):
            first, second, after = (f"{number:03}-{which}" for which in ("1st", "2nd", "after"))
            for student in (first, second) if attack.accomplice else (second,):
                stock_nbgrader.hand_in(made, attack, student)
            stock_nbgrader.hand_in(made, HONEST, after)
            handed_in.append((attack, second, after))
        command = [sys.executable, "-m", "autograder"]
        subprocess.run([*command, "grade", "toy", "--workers", "1"], check=False)
        subprocess.run([*command, "report", "toy"], check=False, stdout=subprocess.DEVNULL)
        left = [made.outlives] if made.outlives in command_lines() else []
        for attack, student, after in handed_in:
            seen = stock_nbgrader.seen_afterwards(made.root, student)
            if set(attack.limits) - set(TIME_LIMITS):
                # it gets as far as a course's own limits, which are larger than those it attacks
                seen["loot"] = ""
            done = achieved(attack, {**seen, "status": 0, "stopped": "", "left": left})
            if stock_nbgrader.seen_afterwards(made.root, after)["earned"] != HONEST.may_earn:
                done.append("harms the next submission")
            yield attack, {"asserts": done}


def said(row: dict[str, Any], side: str) -> str:
    """Say what an attack did to one side: a dash for nothing, a question mark if not yet known."""
    return "; ".join(row[side]) or "-" if side in row else "?"


def show(results: dict[str, Any]) -> None:
    """Print the table and the counts."""
    rows = results["rows"]
    for name, row in rows.items():
        print(f"{name:42}", *(f"{said(row, side):50}" for side in SIDES))
    attacks = {name: row for name, row in rows.items() if name not in PLAIN}
    stock, asserts, ours = (sum(bool(row.get(side)) for row in attacks.values()) for side in SIDES)
    print(
        f"{len(attacks)} attacks, {stock} work against stock nbgrader, {asserts} against asserts "
        f"that the autograder runs, {ours} against its hidden checks"
    )
    for side in SIDES:
        print(f"not yet run, {side}: {sum(side not in row for row in attacks.values())}")


def is_known(rows: dict[str, Any], attack: Attack, side: str) -> bool:
    """Tell whether there is a result of an attack, as it is now, on one side."""
    row = rows.get(attack.name, {})
    return row.get("digest") == attack.digest and side in row


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Attack stock nbgrader and the autograder.")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="attacks whose name holds a word")
    parser.add_argument("--resume", action="store_true", help="leave out those with a result")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no attack after this")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--together", type=int, default=1, help="how many containers at once")
    parser.add_argument("--show", action="store_true", help="print the results, run nothing")
    return parser.parse_args()


def main() -> None:
    """Run what is asked for, keep each result, print the table."""
    arguments = parse_arguments()
    known = PLAIN | all_attacks()
    with changed_rows(known):
        pass
    rows = read_results()["rows"]
    chosen = [
        attack
        for name, attack in known.items()
        if not arguments.show
        and (not arguments.only or any(word in name for word in arguments.only))
    ]
    for side in arguments.sides:
        due = [
            attack for attack in chosen if not (arguments.resume and is_known(rows, attack, side))
        ]
        if not due:
            continue
        runs = {
            "stock": lambda due=due: against_stock(due, arguments.seconds, arguments.together),
            "asserts": lambda due=due: against_asserts(due),
            "ours": lambda due=due: against_ours(due, arguments.seconds),
        }[side]()
        for attack, seen in runs:
            keep(attack, side, seen, known)
            print(f"{side}: {attack.name:42} {said(seen, side)}", flush=True)
    show(read_results())


if __name__ == "__main__":
    main()
