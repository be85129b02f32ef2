"""Time and memory of the linear cross-entropy, each side and vocabulary in a fresh process.

The limit of time is that of the three matrix products which forward and backward cannot do
without, 6 N d V operations, each over all rows at once with the result written in place: logits
(V, d) x (d, N), gradient of the inputs (N, V) x (V, d), gradient of the weight (V, N) x (N, d).
They are timed one after the other between the runs of `lossref`, in its process. All times are
the best of several.

Memory is the peak of the resident set over one forward and backward pass, less what was resident
before. A small pass runs first, so that the libraries' own buffers are there, and freed memory is
handed back before the count begins. The bound is the two gradients, one chunk of logits and 20 MiB.

With --chunk-size it compares numbers of rows of a chunk instead, in turn in one process.

Run: python benchmarks/linear_cross_entropy.py --vocabulary 32768 [--device cuda]
     python benchmarks/linear_cross_entropy.py --vocabulary 32768 --chunk-size 128 256 512
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from report import publish, synchronize

import lossref
from lossref._linear_cross_entropy import chunk_rows

ROWS, WIDTH = 2048, 512
MIB = 2**20


def chunked_by_torch(hidden, weight, target):
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, target, options=options)


SIDES = {
    "lossref": lossref.linear_cross_entropy,
    "torch": chunked_by_torch,
    "naive": lambda h, w, y: F.cross_entropy(F.linear(h, w), y),
}


def problem(device, vocabulary, rows):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, WIDTH, generator=generator).to(device)
    weight = torch.randn(vocabulary, WIDTH, generator=generator).div_(20).to(device)
    target = torch.randint(vocabulary, (rows,), generator=generator).to(device)
    return hidden.requires_grad_(), weight.requires_grad_(), target


def run(side, hidden, weight, target):
    hidden.grad = weight.grad = None
    SIDES[side](hidden, weight, target).backward()


def seconds(function, device):
    synchronize(device)
    began = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - began


def resident(field):
    """A field of the kernel's account of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 2**10


def extra_memory(function, device):
    """The most memory held while the function runs, beyond what was held before, in MiB."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    # glibc keeps freed blocks, which would be reused unseen.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    function()
    return resident("VmHWM") - before


def products(hidden, weight):
    """The matrix products of a pass, by name."""
    logits = torch.empty(len(weight), len(hidden), device=weight.device)
    to_hidden, to_weight = torch.empty_like(hidden), torch.empty_like(weight)
    return {
        "logits": lambda: torch.mm(weight, hidden.T, out=logits),
        "hidden": lambda: torch.mm(logits.T, weight, out=to_hidden),
        "weight": lambda: torch.mm(logits, hidden, out=to_weight),
    }


def measure(side, device, vocabulary, rows, repeats):
    """One side in this process: memory of the first pass, then times."""
    run(side, *problem(device, 4096, 256))
    hidden, weight, target = problem(device, vocabulary, rows)
    memory = extra_memory(lambda: run(side, hidden, weight, target), device)
    times, passes = [], []
    parts = products(hidden.detach(), weight.detach()) if side == "lossref" else {}
    for _ in range(repeats):
        passes.append({name: seconds(product, device) for name, product in parts.items()})
        times.append(seconds(lambda: run(side, hidden, weight, target), device))
    best = min(passes, key=lambda one: sum(one.values()))
    return {"seconds": min(times), "MiB": memory, "products": best}


def compare_chunks(vocabulary, options):
    """One row for each number of rows of a chunk, and the matrix products."""
    hidden, weight, target = problem(options.device, vocabulary, options.rows)
    parts = products(hidden.detach(), weight.detach())

    def step(chunk):
        hidden.grad = weight.grad = None
        lossref.linear_cross_entropy(hidden, weight, target, chunk_size=chunk).backward()

    best = dict.fromkeys(["products", *options.chunk_size], float("inf"))
    for _ in range(options.repeats):
        taken = sum(seconds(product, options.device) for product in parts.values())
        best["products"] = min(best["products"], taken)
        for chunk in options.chunk_size:
            taken = seconds(lambda chunk=chunk: step(chunk), options.device)
            best[chunk] = min(best[chunk], taken)
    limit = best.pop("products")
    return [
        {
            "vocabulary": vocabulary,
            "rows of a chunk": chunk,
            "chunk MiB": chunk * vocabulary * 4 / MIB,
            "seconds": taken,
            "seconds / products": taken / limit,
        }
        for chunk, taken in best.items()
    ]


def in_fresh_process(side, vocabulary, options):
    command = [sys.executable, __file__, "--in-this-process", side, "--vocabulary", str(vocabulary)]
    for name in ("device", "rows", "repeats"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(vocabulary, options):
    """One row for each side, and what is missing."""
    # The matrix products are timed beside lossref, so it is always there.
    sides = [side for side in SIDES if side == "lossref" or side in options.sides]
    missing = []
    if "torch" in sides and not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        sides.remove("torch")
        missing.append("torch with F.linear_cross_entropy")
    gradients = (vocabulary + options.rows) * WIDTH * 4 / MIB
    chunk = min(options.rows, chunk_rows(None, vocabulary)) * vocabulary * 4 / MIB
    found = {side: in_fresh_process(side, vocabulary, options) for side in sides}
    parts = found["lossref"]["products"]
    limit = sum(parts.values())
    operations = 2 * options.rows * WIDTH * vocabulary / 1e9
    rates = ", ".join(f"{name} {operations / part:.0f}" for name, part in parts.items())
    print(f"V = {vocabulary}: matrix products {limit:.3g} s (GFLOP/s: {rates})")
    rows = [
        {
            "vocabulary": vocabulary,
            "side": side,
            "seconds": one["seconds"],
            "seconds / products": one["seconds"] / limit,
            "seconds / lossref": one["seconds"] / found["lossref"]["seconds"],
            "extra MiB": round(one["MiB"], 1),
            "bound MiB": round(gradients + chunk + 20, 1) if side == "lossref" else None,
            "beyond gradients MiB": round(one["MiB"] - gradients, 1),
        }
        for side, one in found.items()
    ]
    rows[0]["product seconds"] = limit
    return rows, missing


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    sizes = [32768, 65536, 131072]
    parser.add_argument("--vocabulary", type=int, nargs="+", default=sizes)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk-size", type=int, nargs="+")
    parser.add_argument("--in-this-process", dest="side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        size = options.vocabulary[0]
        print(
            json.dumps(measure(options.side, options.device, size, options.rows, options.repeats))
        )
        return
    for vocabulary in options.vocabulary:
        if options.chunk_size:
            rows = compare_chunks(vocabulary, options)
            publish(f"linear_cross_entropy-chunks-{options.device}-{vocabulary}", rows)
            continue
        rows, missing = compare(vocabulary, options)
        part = "" if set(options.sides) == set(SIDES) else f"-{rows[-1]['side']}"
        publish(f"linear_cross_entropy-{options.device}-{vocabulary}{part}", rows, missing)


if __name__ == "__main__":
    main()
