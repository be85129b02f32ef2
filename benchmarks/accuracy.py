"""Worst error in units in the last place, value and gradient, of this library and its peers.

The questions and the oracle are those of the tests: 1200-bit arithmetic, hard inputs (certain and
certainly wrong predictions, logits of ±1e4, subnormals, random of every size). Where a true value
crosses zero its ULP is that of the larger term. ULPs above 1 of `lossref` in float64 are within
the bound beside them, which the loss's documentation states. A dash is a value or gradient that
a peer does not compute.

Run: python benchmarks/accuracy.py [--loss NAME ...] [--dtype NAME ...] [--device cuda] [--list]
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch
from accuracy_peers import averaged, peers
from report import publish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "lossref"))

from loss_oracle import FLOATS
from questions import QUESTIONS, ask

DTYPES = {str(dtype)[6:]: dtype for dtype in FLOATS}
# Formats for which some peers have no kernel.
NARROW = (torch.float16, torch.bfloat16)


def measure(name, dtype, device, missing):
    """The rows of one question: this library first, then its peers."""
    question = ask(name, DTYPES[dtype])
    values, gradients = question.answer(device=device)
    ours = (question.value_error(values), question.gradient_error(gradients))
    bounds = (question.bound(0), question.bound(1))
    yield row(name, dtype, "lossref", ours, ours, bounds)
    for peer in peers().get(name, ()) if device == "cpu" else ():
        if peer.answer is None:
            missing.add(peer.library)
            continue
        try:
            found = peer.answer(question)
        except (RuntimeError, TypeError) as error:
            if DTYPES[dtype] not in NARROW:
                raise
            print(f"{peer.library} has no {name} in {dtype}: {str(error).splitlines()[0]}")
            yield row(name, dtype, peer.library, (None, None), ours)
            continue
        if found is None:
            continue
        asked = averaged(question) if peer.mean else question
        values, gradients = found
        error = asked.value_error(values), gradients and asked.gradient_error(gradients)
        yield row(name, dtype, peer.library, error, ours)


def row(name, dtype, library, error, ours, bounds=None):
    """One line of the table; the ratio is that of the worse of value and gradient."""
    worst = max((e for e in error if e is not None), default=None)
    held = bounds and all(e <= bound for e, bound in zip(error, bounds, strict=True))
    return {
        "loss": name,
        "dtype": dtype,
        "library": library,
        "value ULP": error[0],
        "gradient ULP": error[1],
        "times lossref": worst and worst / max(0.5, *ours),
        "bounds": bounds and " / ".join(f"{bound:.3g}" for bound in bounds),
        "held": held if held is None else "yes" if held else "NO",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loss", nargs="+", metavar="NAME", help="losses that begin with a NAME")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--list", action="store_true", help="list the losses")
    options = parser.parse_args()
    names = [name for name in QUESTIONS if name.startswith(tuple(options.loss or [""]))]
    if not names:
        parser.error(f"no loss begins with {', '.join(options.loss)}; see --list")
    if options.list:
        print("\n".join(names))
        return
    # a peer's remark on its own arguments is no result
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    missing = set()
    rows = [
        line
        for name in names
        for dtype in options.dtype
        for line in measure(name, dtype, options.device, missing)
    ]
    part = "" if options.loss is None else "-" + "-".join(options.loss).replace(" ", "_")
    publish(f"accuracy-{options.device}{part}", rows, sorted(missing))
    if any(line["held"] == "NO" for line in rows):
        sys.exit("lossref is outside a bound that it states")


if __name__ == "__main__":
    main()
