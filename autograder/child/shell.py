"""A plain IPython shell that records the outputs that Jupyter would show."""

from __future__ import annotations

import ast
import builtins
import inspect
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Instance

from .protocol import MAX_CELL_OUTPUTS

MAX_OUTPUT_BYTES = 2 * 2**20
# of an output that is kept although the cell has said too much already
MAX_DECISIVE_BYTES = 100_000

Output = dict[str, Any]


class Recorder:
    """Collects the outputs of the cell that is running."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.displays: dict[str, list[Output]] = {}
        self.size = 0
        self.cut: set[str] = set()
        self.decisive: dict[str, Output] = {}

    def start(self) -> None:
        """Begin a new cell."""
        self.outputs, self.size, self.cut, self.decisive = [], 0, set(), {}

    def add(self, output: Output) -> None:
        """Record one output, unless the cell has said too much already.

        The last error and the last result are kept in any case: a test cell's score is in them.
        """
        size = len(repr(output))
        if self._is_full(size):
            self._cut("stdout")
            if output["output_type"] in ("error", "execute_result"):
                kept = output if size <= MAX_DECISIVE_BYTES else _without_text(output)
                self.decisive[output["output_type"]] = kept
            return
        self.size += size
        self.outputs.append(output)

    def write(self, name: str, text: str) -> None:
        """Record text of a stream, or as much of it as there is room for."""
        if not self._is_full(len(text)):
            self._append(name, text)
            return
        if not self._is_full(0):
            self._append(name, text[: MAX_OUTPUT_BYTES - self.size])
        self._cut(name)

    def _append(self, name: str, text: str) -> None:
        """Join text to the output before it, if that is of the same stream."""
        self.size += len(text)
        last = self.outputs[-1] if self.outputs else {}
        if last.get("output_type") == "stream" and last.get("name") == name:
            last["text"].append(text)
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": [text]})

    def update(self, display_id: str, data: Output, metadata: Output) -> None:
        """Replace what was displayed under `display_id`."""
        for output in self.displays.get(display_id, []):
            output["data"], output["metadata"] = data, metadata

    def clear(self) -> None:
        """Forget what the cell has shown so far."""
        self.outputs, self.decisive = [], {}

    def finish(self) -> list[Output]:
        """Return the cell's outputs in nbformat's form."""
        for output in self.outputs:
            if output["output_type"] == "stream":
                output["text"] = "".join(output["text"])
        return [*self.outputs, *self.decisive.values()]

    def _is_full(self, size: int) -> bool:
        full = self.size + size > MAX_OUTPUT_BYTES or len(self.outputs) >= MAX_CELL_OUTPUTS
        return full or bool(self.cut)

    def _cut(self, name: str) -> None:
        """Say in a stream that more of it is not kept: nbgrader fails a test that wrote errors."""
        if name not in self.cut:
            self.cut.add(name)
            kept = f"{MAX_OUTPUT_BYTES // 2**20} MiB or {MAX_CELL_OUTPUTS} pieces"
            message = f"[output beyond {kept} is not kept]\n"
            self.outputs.append({"output_type": "stream", "name": name, "text": [message]})


def _without_text(output: Output) -> Output:
    """Return an error or a result that is too long to be kept without what it says."""
    note = "[too long to be kept]"
    if output["output_type"] == "error":
        return {**output, "ename": output["ename"][:100], "evalue": note, "traceback": [note]}
    return {**output, "data": {"text/plain": note}, "metadata": {}}


class RecordedStream(io.TextIOBase):
    """Stands for `sys.stdout` or `sys.stderr`."""

    encoding = "utf-8"
    errors = "replace"
    closed = False

    def __init__(self, recorder: Recorder, name: str) -> None:
        self.recorder = recorder
        self.name = f"<{name}>"
        self.stream = name

    def write(self, text: str) -> int:
        """Record `text`."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.recorder.write(self.stream, text)
        return len(text)

    def fileno(self) -> int:
        """Return the descriptor that is recorded too, for what a library or a program writes."""
        return 1 if self.stream == "stdout" else 2

    def writable(self) -> bool:
        """Return True."""
        return True


class RecordingDisplayPublisher(DisplayPublisher):  # type: ignore[misc]
    """Records what `display` is given."""

    recorder: Recorder

    def publish(self, data: dict[str, Any], metadata: Any = None, **options: Any) -> None:
        """Record one bundle of representations."""
        display_id = (options.get("transient") or {}).get("display_id", "")
        if options.get("update"):
            self.recorder.update(display_id, dict(data), metadata or {})
            return
        output = {"output_type": "display_data", "data": dict(data), "metadata": metadata or {}}
        self.recorder.add(output)
        if display_id:
            self.recorder.displays.setdefault(display_id, []).append(output)

    def clear_output(self, wait: bool = False) -> None:
        """Forget the cell's outputs so far."""
        self.recorder.clear()


class RecordingDisplayHook(DisplayHook):  # type: ignore[misc]
    """Records the value of a cell's last expression."""

    recorder: Recorder

    def __call__(self, result: Any = None) -> None:
        """Record `result` as Jupyter's `Out[n]`."""
        self.check_for_underscore()
        if result is None or self.quiet():
            return
        self.update_user_ns(result)
        data, metadata = self.compute_format_data(result)
        if not data:
            return
        self.fill_exec_result(result)
        self.recorder.add(
            {
                "output_type": "execute_result",
                "execution_count": self.prompt_count,
                "data": data,
                "metadata": metadata,
            }
        )


class CellCompiler(CachingCompiler):  # type: ignore[misc]
    """Compiles cells, and spares tracebacks the search for a module that holds a cell."""

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        """Keep a cell's source; return its name."""
        name: str = super().cache(transformed_code, number, raw_code)
        # what is known not to be a module's file is not looked for in two thousand modules
        for file in (name, os.path.abspath(name)):  # noqa: PTH100 - as inspect spells it
            inspect.modulesbyfile.setdefault(file, name)
        return name


class CellTransformer(TransformerManager):  # type: ignore[misc]
    """Turns IPython's own syntax into Python, and leaves cells alone that are Python already."""

    def __init__(self) -> None:
        super().__init__()
        self.usual_transformers = list(self.token_transformers)
        self.compiled = Compiled("")

    def do_token_transforms(self, lines: list[str]) -> list[str]:
        """Transform lines; what they cannot change they need not read token by token."""
        if self.token_transformers == self.usual_transformers:
            self.compiled = compiled_cell("".join(lines))
            if self.compiled.is_python:
                return lines
        transformed: list[str] = super().do_token_transforms(lines)
        return transformed


@dataclass(frozen=True)
class Compiled:
    """What compiling a cell showed: whether it is Python, whether it awaits, and the warnings."""

    source: str
    is_python: bool = False
    awaits: bool = False
    warned: Sequence[warnings.WarningMessage] = ()


def compiled_cell(source: str) -> Compiled:
    """Compile a cell as IPython does to find out whether it awaits something at its top level."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            code = compile(source, "<>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except Exception:  # whatever it is, the shell will meet and show it
            return Compiled(source)
    return Compiled(source, True, bool(code.co_flags & inspect.CO_COROUTINE), warned)


class NotebookShell(InteractiveShell):  # type: ignore[misc]
    """An IPython shell without terminal, kernel or sockets."""

    input_transformer_manager = Instance(CellTransformer, ())

    def __init__(self, **options: Any) -> None:
        self.recorder = Recorder()
        super().__init__(compiler_class=CellCompiler, **options)
        self.display_pub.recorder = self.recorder
        self.displayhook.recorder = self.recorder
        self.ask_exit = lambda: None
        self.set_hook("show_in_pager", lambda *_, **__: None)

    def init_display_pub(self) -> None:
        """Use the publisher that records."""
        self.display_pub = RecordingDisplayPublisher(parent=self, shell=self)
        self.configurables.append(self.display_pub)

    def init_displayhook(self) -> None:
        """Use the display hook that records."""
        self.displayhook_class = RecordingDisplayHook
        super().init_displayhook()

    def should_run_async(self, raw_cell: str, **parts: Any) -> bool:
        """Tell whether a cell awaits something, by what is known from transforming it."""
        known = self.input_transformer_manager.compiled
        if not known.is_python or parts.get("transformed_cell") != known.source:
            return bool(super().should_run_async(raw_cell, **parts))
        try:
            for warning in known.warned:
                place = warning.filename, warning.lineno
                warnings.warn_explicit(warning.message, warning.category, *place)
        except Warning:
            # a notebook may have warnings be errors; the cell then cannot be compiled
            return False
        return bool(known.awaits)

    def enable_gui(self, gui: Any = None) -> None:
        """Ignore requests for a window system."""

    def _format_exception_for_storage(
        self, exception: BaseException, *_: Any, **__: Any
    ) -> dict[str, Any]:
        """Make no second traceback, which is slow, for a history that is never saved."""
        return {"ename": type(exception).__name__, "evalue": str(exception), "traceback": []}

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        self.recorder.add(
            {
                "output_type": "error",
                "ename": str(getattr(etype, "__name__", etype)),
                "evalue": str(evalue),
                "traceback": list(stb),
            }
        )


def make_shell() -> NotebookShell:
    """Return a shell with matplotlib's inline pictures and no history file."""
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "linux"
    shell: NotebookShell = NotebookShell.instance(config=config)
    import matplotlib.pyplot  # noqa: F401
    from matplotlib_inline.backend_inline import configure_inline_support

    configure_inline_support(  # type: ignore[no-untyped-call]
        shell, "module://matplotlib_inline.backend_inline"
    )
    return shell


def refuse_input(*_: object) -> NoReturn:
    """Stand for `input`, which has nobody to answer it."""
    raise StdinNotImplementedError("input() has no one to answer it when a notebook is graded")


def run_cell(shell: NotebookShell, source: str) -> list[Output]:
    """Run one cell and return its outputs."""
    recorder = shell.recorder
    recorder.start()
    builtins.input = refuse_input
    with _recorded_descriptors(recorder), _recorded_streams(recorder):
        result = shell.run_cell(source, store_history=True)
    outputs = recorder.finish()
    if not any(output["output_type"] == "error" for output in outputs):
        errors = result.error_before_exec, result.error_in_exec
        outputs += [_hidden_error(error) for error in errors if error is not None]
    return outputs


def _hidden_error(error: BaseException) -> Output:
    """Return an error that the notebook kept from being shown, as nbgrader adds it."""
    message = "An error occurred, and the notebook kept it from being shown."
    name = type(error).__name__
    return {"output_type": "error", "ename": name, "evalue": "", "traceback": [message]}


@contextmanager
def _recorded_streams(recorder: Recorder) -> Iterator[None]:
    streams = sys.stdout, sys.stderr
    sys.stdout = RecordedStream(recorder, "stdout")
    sys.stderr = RecordedStream(recorder, "stderr")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


@contextmanager
def _recorded_descriptors(recorder: Recorder) -> Iterator[None]:
    """Record what libraries and subprocesses write to descriptors 1 and 2."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            yield
        finally:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            for name, file in (("stdout", out), ("stderr", err)):
                file.seek(0)
                text = file.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")
                if text:
                    recorder.write(name, text)
