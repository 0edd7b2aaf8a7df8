"""Python code, run by the python3 of the image."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.agent.code.runs import contexts, execute, interrupted, kinds, name, results, value


@pytest.fixture
def context(client: httpx.Client) -> Iterator[str]:
    yield from contexts(client, "python")


def test_the_value_of_the_last_expression_is_the_result(client: httpx.Client, context: str) -> None:
    run = execute(client, context, "2+2")
    assert kinds(run) == ["init", "execution_count", "result", "execution_complete"]
    assert run.id == context
    assert run.events[1]["execution_count"] == 1
    assert value(run) == "4"
    assert run.events[-1]["execution_time"] >= 1


@pytest.mark.parametrize("code", ["x = 5", "None", "2 + 2;", "def f(): pass", "# nothing", "for _ in (): pass"])
def test_code_without_a_value_has_no_result(client: httpx.Client, context: str, code: str) -> None:
    assert kinds(execute(client, context, code)) == ["init", "execution_complete"]


def test_state_lasts(client: httpx.Client, context: str) -> None:
    execute(client, context, "import math\nx = 7\ndef double(n): return 2 * n")
    assert value(execute(client, context, "double(x) + math.floor(0.5)")) == "14"
    assert value(execute(client, context, "_ + 1")) == "15"
    execute(client, context, "from __future__ import annotations")
    assert value(execute(client, context, "def g(a: nowhere): pass\ng.__annotations__")) == "{'a': 'nowhere'}"


def test_code_is_the_main_module(client: httpx.Client, context: str) -> None:
    code = "import pickle, sys\nclass P: pass\n(type(pickle.loads(pickle.dumps(P()))) is P, __name__, sys.argv)"
    assert value(execute(client, context, code)) == "(True, '__main__', [''])"


def test_output_keeps_its_line_ends_and_its_order(client: httpx.Client, context: str) -> None:
    code = "print('a'); print('b\\n\\nc'); print('d', end='')"
    run = execute(client, context, code)
    assert "".join(run.texts()) == "a\nb\n\nc\nd"
    code = """
import os, subprocess, sys
print("one"); os.write(1, b"two\\n"); subprocess.run(["echo", "three"])
if os.fork() == 0: print("four"); os._exit(0)
os.wait(); print("five", file=sys.stderr); print("six"); display("seven"); print("eight"); sys.stderr.write("nine\\n")
"ten"
"""
    run = execute(client, context, code)
    assert "".join(run.texts()) == "one\ntwo\nthree\nfour\nsix\neight\n"
    order = "".join(event.get("text") or event.get("results", {}).get("text", "") for event in run.events[1:])
    assert order == "one\ntwo\nthree\nfour\nfive\nsix\n'seven'eight\nnine\n'ten'"


def test_streams_that_alternate_stay_in_order(client: httpx.Client, context: str) -> None:
    code = "import sys\nfor k in range(200): print(k, file=(sys.stdout, sys.stderr)[k % 2])"
    run = execute(client, context, code)
    texts = [event["text"] for event in run.events if event["type"] in ("stdout", "stderr")]
    assert "".join(texts) == "".join(f"{k}\n" for k in range(200))


def test_output_arrives_while_the_code_runs(client: httpx.Client, context: str) -> None:
    code = "import time\nprint('no line end', end='')\nwhile True: time.sleep(0.01)"
    assert name(interrupted(client, context, code, ready="no line end")) == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("code", "ename", "evalue"),
    [
        ("1/0", "ZeroDivisionError", "division by zero"),
        ("nope", "NameError", "name 'nope' is not defined"),
        ("def f(:", "SyntaxError", "invalid syntax"),
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("input()", "EOFError", "EOF when reading a line"),
        ("class E(Exception):\n  def __str__(self): return 1/0\nraise E", "E", "<unprintable E>"),
        ("class R:\n  def __repr__(self): raise OSError('r')\nR()", "OSError", "r"),
    ],
)
def test_an_exception_is_the_last_event(client: httpx.Client, context: str, code: str, ename: str, evalue: str) -> None:
    run = execute(client, context, f"x = 1\n{code}")
    assert run.error is not None
    assert run.error["ename"] == ename
    assert run.error["evalue"].startswith(evalue)
    assert run.error["traceback"]
    assert not any("_shoal" in line for line in run.error["traceback"])
    execute(client, context, "y = 2")
    assert value(execute(client, context, "y")) == "2"


def test_a_traceback_shows_the_lines_of_the_code(client: httpx.Client, context: str) -> None:
    execute(client, context, "def fail():\n    return {}['key']")
    run = execute(client, context, "fail()")
    assert run.error is not None
    assert [line.strip() for line in run.error["traceback"] if "^" not in line and "~" not in line] == [
        "Traceback (most recent call last):",
        'File "<cell 2>", line 1, in <module>',
        "fail()",
        'File "<cell 1>", line 2, in fail',
        "return {}['key']",
        "KeyError: 'key'",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "time.sleep(60)",
        "while True: pass",
        "subprocess.run(['sleep', '60'])",
        "import asyncio; await asyncio.sleep(60)",
        "print('x' * 10); time.sleep(60)",
    ],
)
def test_an_interrupt_is_a_keyboard_interrupt(client: httpx.Client, context: str, code: str) -> None:
    execute(client, context, "import subprocess, time; kept = 5")
    run = interrupted(client, context, f"print('ready')\n{code}\nprint('not reached')")
    assert name(run) == "KeyboardInterrupt"
    assert "not reached" not in "".join(run.texts())
    assert value(execute(client, context, "kept")) == "5"


def test_an_interrupt_of_an_idle_context_is_nothing(client: httpx.Client, context: str) -> None:
    execute(client, context, "kept = 6")
    for _ in range(3):
        assert client.delete("/code", params={"id": context}).status_code == 200
    assert value(execute(client, context, "kept")) == "6"


def test_children_get_the_default_signals(client: httpx.Client, context: str) -> None:
    code = "import signal, subprocess\nsubprocess.run(['sh', '-c', 'kill -INT $$; echo survived']).returncode"
    run = execute(client, context, code)
    assert run.texts() == []
    assert value(run) == "-2"


def test_await_at_top_level(client: httpx.Client, context: str) -> None:
    execute(client, context, "import asyncio\nqueue = asyncio.Queue()\nawait queue.put(3)")
    assert value(execute(client, context, "await queue.get()")) == "3"
    assert value(execute(client, context, "async def f(): return 4\nasyncio.run(f())")) == "4"


def test_rich_values_carry_all_their_forms(client: httpx.Client, context: str) -> None:
    code = """
class Rich:
    def __repr__(self): return "rich"
    def _repr_html_(self): return "<b>rich</b>"
    def _repr_png_(self): return b"\\x89PNG"
    def _repr_json_(self): return {"rich": [1]}
    def _repr_latex_(self): raise ValueError
    def _repr_mimebundle_(self, include=None, exclude=None): return {"text/x-own": "own"}, {}
display(Rich(), {"text/plain": "raw"}, raw=False)
display({"text/html": "<i>"}, raw=True)
Rich()
"""
    first, second, third, last = results(execute(client, context, code))
    assert (
        first
        == last
        == {
            "text": "rich",
            "text/plain": "rich",
            "text/html": "<b>rich</b>",
            "image/png": "iVBORw==",
            "application/json": {"rich": [1]},
            "text/x-own": "own",
        }
    )
    assert second["text"] == "{'text/plain': 'raw'}"
    assert third == {"text/html": "<i>"}


def test_non_ascii_passes(client: httpx.Client, context: str) -> None:
    run = execute(client, context, "print('\u2028é☃')\n'é☃\x85'")
    assert run.texts() == ["\u2028é☃\n"]
    assert value(run) == "'é☃\\x85'"
    run = execute(client, context, "import sys; sys.stdout.buffer.write(b'\\xffa\\n'); sys.stdout.flush()")
    assert run.texts() == ["\ufffda\n"]


@pytest.mark.parametrize(
    ("code", "how"),
    [("import os; os._exit(3)", "exited with code 3"), ("import os; os.kill(os.getpid(), 9)", "ended by signal 9")],
)
def test_an_interpreter_that_dies_ends_the_run_and_the_next_gets_another(
    client: httpx.Client, context: str, code: str, how: str
) -> None:
    run = execute(client, context, f"gone = 1; print('last words'); {code}")
    assert run.texts() == ["last words\n"]
    assert name(run) == "InterpreterDied"
    assert run.error is not None
    assert how in run.error["evalue"]
    assert name(execute(client, context, "gone")) == "NameError"
    assert value(execute(client, context, "1")) == "1"


def test_a_forked_child_that_comes_back_is_no_second_interpreter(client: httpx.Client, context: str) -> None:
    code = "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('parent' if pid else 'child')"
    assert "".join(execute(client, context, code).texts()) == "child\nparent\n"
    assert value(execute(client, context, "pid > 0")) == "True"


def test_output_between_runs_is_of_no_run(client: httpx.Client, context: str) -> None:
    execute(client, context, "import subprocess\nchild = subprocess.Popen('read x; echo late', shell=True, stdin=-1)")
    run = execute(client, context, "child.stdin.close(); child.wait(); print('mine')")
    assert "".join(run.texts()) == "late\nmine\n"


def test_no_secret_reaches_the_code(client: httpx.Client, context: str) -> None:
    code = "import os\n[n for n in os.environ if n.startswith(('EXECD_', 'JUPYTER_'))], os.environ['SEEN']"
    assert value(execute(client, context, code)) == "([], 'yes')"
    assert value(execute(client, context, "'s3cret' in open('/proc/self/environ').read()")) == "False"


def test_files_of_the_working_directory_do_not_stand_in_for_the_library(client: httpx.Client, tmp_path: object) -> None:
    for module in ("json", "signal", "struct", "traceback", "ast"):
        with open(f"{tmp_path}/{module}.py", "w") as file:  # noqa: PTH123
            file.write("raise RuntimeError")
    with open(f"{tmp_path}/own.py", "w") as file:  # noqa: PTH123
        file.write("here = 1")
    for context in contexts(client, "python", cwd=str(tmp_path)):
        assert value(execute(client, context, "import own; own.here")) == "1"


def test_much_output_is_read_to_its_end(client: httpx.Client, context: str) -> None:
    run = execute(client, context, "for _ in range(2000): print('y' * 999)\nprint('z' * 300_000, end='')\n'end'")
    text = "".join(run.texts())
    assert len(text) == 2_300_000
    assert max(map(len, run.texts())) <= 65536
    assert value(run) == "'end'"
