"""What the benchmarks share: optional peers, timing, a table and a JSON file."""

import importlib
import json
import platform
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def optional(name):
    """Import a peer, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def best_time(function, device="cpu", budget=2.0, fewest=3):
    """The shortest of several runs in seconds, after one that warms up."""
    function()
    best, start, runs = float("inf"), time.perf_counter(), 0
    while runs < fewest or time.perf_counter() - start < budget:
        synchronize(device)
        began = time.perf_counter()
        function()
        synchronize(device)
        best = min(best, time.perf_counter() - began)
        runs += 1
    return best


def best_times(functions, device="cpu", budget=2.0, runs=5, clock=time.perf_counter):
    """The shortest time of each function, in turns, so that a slow moment hits them all.

    A turn is several runs, or as many as its share of the budget holds: the first of them still
    meets the caches and threads that another function has left.
    """
    best, start = dict.fromkeys(functions, float("inf")), time.perf_counter()
    for function in functions.values():
        function()
    while True:
        for name, function in functions.items():
            turn = time.perf_counter()
            for _ in range(runs):
                synchronize(device)
                began = clock()
                function()
                synchronize(device)
                best[name] = min(best[name], clock() - began)
                if time.perf_counter() - turn > budget / 2:
                    break
        if time.perf_counter() - start > budget * len(functions):
            return best


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def machine():
    """What the figures depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def publish(name, rows, missing=()):
    """Print the rows as a table and write them as JSON."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in [columns, ["-" * width for width in widths], *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
    for peer in missing:
        print(f"missing: {peer} (pip install '.[bench]')")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(
        json.dumps({"machine": machine(), "rows": rows, "missing": list(missing)}, indent=1) + "\n"
    )
    print(f"written: benchmarks/results/{path.name}")


def _text(value):
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
