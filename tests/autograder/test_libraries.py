"""What the warm process does beforehand shows in no notebook, and spares the forks work."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from autograder.engine import NotebookRun
from autograder.limits import Limits

ROOT = Path(__file__).parents[2]
IN_A_PROCESS = """
import ctypes, json, os, sys
sys.path.insert(0, {root!r})
from autograder.child import libraries

shown = os.dup(1)
shell = libraries.load_libraries()
{body}
os.write(shown, json.dumps(answer).encode())
"""


def answer_of(body):
    """Run code after the libraries are loaded, in a process as the warm one is; return `answer`."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS.format(root=str(ROOT), body=body)],
        env={"PATH": "/usr/bin:/bin", "PYTHONMALLOC": "malloc", "HOME": "/tmp"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shown_by(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    run = NotebookRun(nbformat.v4.new_notebook(cells=cells), None, limits=Limits(cell_seconds=10))
    try:
        verdict = run.run_cells()
    finally:
        run.close()
    return [
        "".join(output.get("text", "") for output in verdict.outputs[index])
        for index in range(len(sources))
    ]


def test_a_notebook_begins_with_nothing_defined_and_nothing_drawn():
    (shown,) = shown_by(
        "print(sorted(n for n in dir() if n[0] != '_'), get_ipython().execution_count)\n"
        "import matplotlib.pyplot as plt\n"
        "print(plt.get_fignums())"
    )
    assert shown == "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit'] 2\n[]\n"


def test_cells_with_and_without_magics_are_understood():
    shown = shown_by(
        "text = '''\n%not a magic\n!echo no command\n'''\nprint(len(text))",
        "%time x = 1\nwhere = %pwd\nprint(x, isinstance(where, str))",
    )
    assert shown[0] == "31\n"
    assert shown[1].endswith("1 True\n")


def test_warnings_of_the_compiler_are_shown_as_a_kernel_shows_them():
    shown = shown_by(
        "x = 1\nx is 2",
        "import warnings\nwarnings.simplefilter('error')",
        "print('run')\nx is 2",
    )
    places = re.findall(r"^<(ipython-input-1)?.*>:2: SyntaxWarning", shown[0], re.MULTILINE)
    # first when IPython looks for an `await`, then when the cell is run
    assert places == ["", "ipython-input-1"]
    # as an error it concerns the line that it is about alone
    assert shown[2] == "run\n"


def test_a_transformer_of_the_notebooks_own_is_used():
    shown = shown_by(
        "class Swap:\n"
        "    priority = 1\n"
        "    def __init__(self, place): self.start_line, self.start_col = place\n"
        "    @classmethod\n"
        "    def find(cls, tokens_by_line):\n"
        "        for line in tokens_by_line:\n"
        "            for token in line:\n"
        "                if token.string == 'ONE': return cls((token.start[0] - 1, 0))\n"
        "    def transform(self, lines):\n"
        "        lines[self.start_line] = lines[self.start_line].replace('ONE', '1')\n"
        "        return lines\n"
        "get_ipython().input_transformer_manager.token_transformers.append(Swap)",
        "print(ONE + 1)",
    )
    assert shown[1] == "2\n"


def test_a_traceback_shows_the_lines_of_the_cell():
    run = NotebookRun(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell("def f(x):\n    return 1 / x\n\nf(0)")]
        ),
        None,
        limits=Limits(cell_seconds=10),
    )
    try:
        (output,) = run.run_cells().outputs[0]
    finally:
        run.close()
    assert output["ename"] == "ZeroDivisionError"
    assert "return" in "\n".join(output["traceback"])


LOOKED_AT = """
import types
from autograder.child.shell import run_cell

seen = []

class Noted(types.ModuleType):
    __file__ = property(lambda self: seen.append(1) or "noted.py")

sys.modules["noted"] = Noted("noted")
output = run_cell(shell, "def f(x):\\n    return 1 / x\\n\\nf(0)")[0]
answer = [output["ename"], len(seen)]
"""


def test_a_traceback_is_made_without_a_look_at_every_module():
    assert answer_of(LOOKED_AT) == ["ZeroDivisionError", 0]


PARSED = """
from executing.executing import Source
from autograder.child.shell import run_cell

parsed = []
parse = Source.__init__

def noted(source, filename, lines):
    parsed.append(filename)
    parse(source, filename, lines)

Source.__init__ = noted
run_cell(shell, "import torch")
cells = ("torch.ones(3, requires_grad=True).log().backward()", "torch.zeros(()).backward()")
names = [run_cell(shell, cell)[0]["ename"] for cell in cells]
answer = [names, [name for name in parsed if "torch" in name], len(parsed)]
"""


def test_a_traceback_through_backward_parses_no_file_of_torch_again():
    assert answer_of(PARSED) == [["RuntimeError", "RuntimeError"], [], 2]


COLOURS = """
from pygments.formatters.terminal256 import Terminal256Formatter
from pygments.styles import get_style_by_name
from autograder.child.shell import run_cell

looked_up = []
look_up = Terminal256Formatter._color_index

def noted(formatter, colour):
    looked_up.append(colour)
    return look_up(formatter, colour)

Terminal256Formatter._color_index = noted
run_cell(shell, "1 / 0")
shared = len(looked_up)
styles = [get_style_by_name(name) for name in ("monokai", "default")]
options = [{}, {"nobold": True}]
tables = [Terminal256Formatter(style=style, **o).style_string for style in styles for o in options]
answer = [shared, len(looked_up) > 0, len({str(table) for table in tables})]
"""


def test_tracebacks_look_up_no_colour_again_and_other_styles_keep_theirs():
    assert answer_of(COLOURS) == [0, True, 4]


LEXERS = """
from pygments.lexer import RegexLexer, RegexLexerMeta
from pygments.token import Text

class Parent(RegexLexer):
    tokens = {"root": [("a", Text)]}

class Same(Parent):
    def get_tokens(self, text):
        return list(super().get_tokens(text))

class Own(Parent):
    tokens = {"root": [("b", Text.Own)]}

class OtherFlags(Parent):
    flags = 2

Parent()
answer = [
    Same()._tokens is Parent._tokens,
    [str(kind) for kind, _ in Own().get_tokens("b")],
    [str(kind) for kind, _ in OtherFlags().get_tokens("A")],
]
"""


def test_only_lexers_without_rules_of_their_own_share_those_of_another():
    same, own, other_flags = answer_of(LEXERS)
    assert same
    assert own[0] == "Token.Text.Own"
    assert other_flags[0] == "Token.Text"


FREE = """
class Information(libraries._MallocInformation):
    pass

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Information

def free():
    found = libc.mallinfo2()
    return found.fordblks - found.keepcost

before = free()
libraries.fill_holes()
answer = [before, free()]
"""


def test_the_holes_between_objects_are_filled():
    before, after = answer_of(FREE)
    assert before > 2**18
    assert after < before / 10


CACHED = """
class Own:
    pass

name = "".join(["looked", "_up"])
getattr(Own(), name, None)
before = sys.getrefcount(name)
libraries.forget_methods(shell)
answer = [before, sys.getrefcount(name)]
"""


def test_the_cache_of_methods_holds_no_name_that_a_fork_would_write_to():
    before, after = answer_of(CACHED)
    assert after == before - 1


def test_gradients_need_no_symbolic_mathematics():
    assert answer_of("answer = 'sympy' in sys.modules") is False


@pytest.mark.parametrize("modules", [["torch.testing"], ["no_such_module"]])
def test_what_locked_cells_use_is_loaded_as_far_as_it_is_there(modules):
    body = f"libraries.load_modules({modules!r})\nanswer = 'sympy' in sys.modules"
    assert answer_of(body) is (modules == ["torch.testing"])
