"""Compare the outputs that the autograder records with those that a Jupyter kernel gives.

Runs nbgrader's own test notebooks (they come with the package), the course's exercises and a
gallery of cells in both, and prints every cell whose outputs differ. Writes
`benchmarks/results/outputs.json`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import nbgrader
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from autograder.engine import Limits, NotebookRun
from autograder.fork_server import ENVIRONMENT

ROOT = Path(__file__).parents[1]
GALLERY = [
    "1 + 1",
    "print('a', end='')\nprint('b')\n'text'",
    "import sys\nprint('to stderr', file=sys.stderr)",
    "1 / 0",
    "def broken(:\n    pass",
    "raise SystemExit(3)",
    "import warnings\nwarnings.warn('careful')",
    "from IPython.display import HTML, Latex, Markdown, display\ndisplay(HTML('<b>x</b>'))",
    "display(Markdown('*x*')); display(Latex('$x$')); Markdown('y')",
    "class Rich:\n    def _repr_html_(self):\n        return '<i>rich</i>'\nRich()",
    "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.title('t');",
    "fig, ax = plt.subplots()\nfig",
    "import numpy as np\nnp.arange(4).reshape(2, 2)",
    "import pandas as pd\npd.DataFrame({'a': [1, 2]})",
    "import torch\ntorch.ones(2, requires_grad=True)",
    "import asyncio\nawait asyncio.sleep(0)\n'awaited'",
    "%who_ls int",
    "%%capture captured\nprint('inside')",
    "captured.stdout",
    "%timeit -n 1 -r 1 -q pass",
    "!echo shell",
    "files = !echo one\nfiles",
    "%%writefile note.txt\nhello",
    "%cat note.txt",
    "from IPython.display import clear_output\nprint('before')\nclear_output()\nprint('after')",
    "import os\nos.write(1, b'descriptor') and None",
    "_",
    "In[1], Out[1]",
    "?len",
    "x = 3; x",
    "x;",
    "display(1, 2)",
    "handle = display('first', display_id='here')\nhandle.update('second')",
    "raise ValueError('line\\nbreak')",
    "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('k') from error",
    "assert 1 == 2, 'one is not two'",
    "input('name? ')",
]


def notebooks() -> Iterator[tuple[str, NotebookNode]]:
    """Yield each distinct notebook with code cells, by name."""
    cells = [nbformat.v4.new_code_cell(source) for source in GALLERY]
    yield "gallery", nbformat.v4.new_notebook(cells=cells)
    seen: set[tuple[str, ...]] = set()
    package = Path(nbgrader.__file__).parent
    for path in sorted([*package.rglob("*.ipynb"), *ROOT.glob("exercises/*/*.ipynb")]):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                notebook = nbformat.read(path, as_version=4)
        except Exception:
            continue
        sources = tuple(cell.source for cell in notebook.cells if cell.cell_type == "code")
        if any(sources) and sources not in seen:
            seen.add(sources)
            yield path.name, notebook


def kernel_outputs(notebook: NotebookNode) -> list[list[dict[str, Any]]]:
    """Run a notebook in a kernel and return the outputs of its code cells."""
    notebook = nbformat.from_dict(json.loads(json.dumps(notebook)))
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, folder)
    return [list(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]


def execute(notebook: NotebookNode, folder: str) -> None:
    """Run a notebook in a kernel whose working folder is `folder`."""
    client = NotebookClient(
        notebook,
        timeout=10,
        interrupt_on_timeout=True,
        allow_errors=True,
        resources={"metadata": {"path": folder}},
    )
    try:
        client.execute(stderr=subprocess.DEVNULL)
    except (CellTimeoutError, DeadKernelError) as error:
        print(f"  the kernel gave up: {type(error).__name__}")


def our_outputs(notebook: NotebookNode) -> list[list[dict[str, Any]]]:
    """Run a notebook as the autograder does and return the outputs of its code cells."""
    run = NotebookRun(notebook, None, limits=Limits(cell_seconds=10))
    try:
        outputs = run.run_cells().outputs
    finally:
        run.close()
    return [outputs[index] for index in sorted(outputs)]


def comparable(outputs: list[dict[str, Any]]) -> list[Any]:
    """Leave out what differs from run to run: addresses, temporary file names, colours, times."""
    joined: list[Any] = []
    for output in map(_comparable, outputs):
        if joined and output[0] == "stream" and output[:2] == joined[-1][:2]:
            joined[-1] = (*output[:2], joined[-1][2] + output[2])
        else:
            joined.append(output)
    return joined


def _comparable(output: dict[str, Any]) -> Any:
    kind = output["output_type"]
    if kind == "stream":
        return kind, output["name"], _plain(output["text"])
    if kind == "error":
        return kind, output["ename"], _plain(output["evalue"])
    data = {
        mime: "(picture)" if mime.startswith("image/") else _plain(str(value))
        for mime, value in output["data"].items()
    }
    return kind, tuple(sorted(data.items()))


def _plain(text: str) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", "".join(text))
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r"(/tmp/ipykernel_\d+/\d+\.py|<ipython-input-[^>]*>)", "(cell)", text)
    text = re.sub(r"\(\d+\.py, line", "((cell), line", text)
    return text.replace("\r\n", "\n")


def main() -> None:
    """Compare, print and write."""
    # a kernel started from an activated environment would find commands that a submission does not
    os.environ["PATH"] = ENVIRONMENT["PATH"]
    counts: Counter[str] = Counter()
    differences = []
    seconds = {"kernel": 0.0, "autograder": 0.0}
    for name, notebook in notebooks():
        sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        start = time.perf_counter()
        theirs = kernel_outputs(notebook)
        middle = time.perf_counter()
        ours = our_outputs(notebook)
        seconds["kernel"] += middle - start
        seconds["autograder"] += time.perf_counter() - middle
        counts["notebooks"] += 1
        for source, a, b in zip(sources, theirs, ours, strict=True):
            same = comparable(a) == comparable(b)
            counts["same" if same else "different"] += 1
            if not same:
                differences.append(
                    {
                        "notebook": name,
                        "source": source,
                        "kernel": comparable(a),
                        "ours": comparable(b),
                    }
                )
                print(
                    f"{name}: {source[:60]!r}\n  kernel {comparable(a)}\n  ours   {comparable(b)}"
                )
    print(
        f"{counts['notebooks']} notebooks, {counts['same']} cells the same, "
        f"{counts['different']} different; kernel {seconds['kernel']:.1f} s, "
        f"autograder {seconds['autograder']:.1f} s, "
        f"ratio {seconds['kernel'] / seconds['autograder']:.1f}"
    )
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    report = {"counts": counts, "seconds": seconds, "differences": differences}
    (results / "outputs.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
