"""Time and memory of the chunked linear cross-entropy, each case in a fresh process.

The limit of time is 6 N d V floating-point operations at the rate that this machine multiplies
matrices of the same shape.

Run: python benchmarks/linear_cross_entropy.py [--device cuda] [--vocabulary 32768 65536 131072]
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from report import publish, synchronize

import lossref

ROWS, WIDTH = 2048, 512


def fused(hidden, weight, target):
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, target, options=options)


SIDES = {
    "lossref": lossref.linear_cross_entropy,
    "torch, chunked": fused,
    "naive": lambda h, w, y: F.cross_entropy(F.linear(h, w), y),
}


def peak(device):
    """The most memory that this process has held, in MiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(side, device, vocabulary, rows):
    """One side in this process: best time of three, and memory beyond the inputs."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, WIDTH, generator=generator).to(device).requires_grad_()
    weight = (torch.randn(vocabulary, WIDTH, generator=generator) / 20).to(device)
    weight.requires_grad_()
    target = torch.randint(vocabulary, (rows,), generator=generator).to(device)
    if side == "matrix rate":
        return {"seconds": 6 * rows * WIDTH * vocabulary / matrix_rate(hidden, weight, device)}
    # The libraries' own buffers are there before the memory is counted.
    SIDES[side](hidden[:2] * 1, weight[:64] * 1, target[:2] % 64).backward()
    before = peak(device)
    best = float("inf")
    for _ in range(3):
        hidden.grad = weight.grad = None
        synchronize(device)
        began = time.perf_counter()
        SIDES[side](hidden, weight, target).backward()
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return {"seconds": best, "extra MiB": peak(device) - before}


def matrix_rate(hidden, weight, device):
    """Operations per second of the product that makes the logits."""
    best = float("inf")
    with torch.no_grad():
        out = torch.empty(len(hidden), len(weight), device=device)
        for _ in range(4):
            synchronize(device)
            began = time.perf_counter()
            torch.mm(hidden, weight.T, out=out)
            synchronize(device)
            best = min(best, time.perf_counter() - began)
    return 2 * len(hidden) * WIDTH * len(weight) / best


def in_fresh_process(side, device, vocabulary, rows):
    command = [sys.executable, __file__, "--side", side, "--device", device]
    command += ["--vocabulary", str(vocabulary), "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    sizes = [32768, 65536, 131072]
    parser.add_argument("--vocabulary", type=int, nargs="+", default=sizes)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--side", choices=[*SIDES, "matrix rate"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        found = measure(options.side, options.device, options.vocabulary[0], options.rows)
        print(json.dumps(found))
        return
    rows, missing = [], set()
    for vocabulary in options.vocabulary:
        limit = in_fresh_process("matrix rate", options.device, vocabulary, options.rows)
        gradients = (vocabulary + options.rows) * WIDTH * 4 / 2**20
        for side in SIDES:
            if side.startswith("torch") and not hasattr(torch.nn, "LinearCrossEntropyOptions"):
                missing.add("torch with F.linear_cross_entropy")
                continue
            found = in_fresh_process(side, options.device, vocabulary, options.rows)
            rows.append(
                {
                    "vocabulary": vocabulary,
                    "side": side,
                    "seconds": found["seconds"],
                    "seconds / matrix products": found["seconds"] / limit["seconds"],
                    "extra MiB": found["extra MiB"],
                    "extra MiB beyond the gradients": found["extra MiB"] - gradients,
                }
            )
    publish(f"linear_cross_entropy-{options.device}", rows, sorted(missing))


if __name__ == "__main__":
    main()
