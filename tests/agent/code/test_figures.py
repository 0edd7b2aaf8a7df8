"""Python code where the image has IPython and matplotlib, and where it has matplotlib alone."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import pytest
from tests.agent.code.container import agent_in_container
from tests.agent.code.runs import contexts, create, execute, interrupted, kinds, name, results, value

pytestmark = pytest.mark.needs("jupyter")
PLOT = "import matplotlib.pyplot as plt\nfigure = plt.figure()\n_ = plt.plot([1, 2])"


@pytest.fixture(scope="module", params=["IPython", "plain"])
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    start = "sleep infinity"
    env = {"JUPYTER_HOST": ""}
    if request.param == "plain":
        start = "sh -c 'mkdir /none && echo raise ImportError >/none/IPython.py; sleep infinity'"
        env["PYTHONPATH"] = "/agent:/none"
    with agent_in_container(env, start) as client:
        client.headers["X-Kind"] = request.param
        yield client


@pytest.fixture
def context(client: httpx.Client) -> Iterator[str]:
    yield from contexts(client, "python")


def test_it_is_the_interpreter_that_is_meant(client: httpx.Client, context: str) -> None:
    found = value(execute(client, context, "'get_ipython' in globals() or 'get_ipython' in dir(__builtins__)"))
    assert found == str(client.headers["X-Kind"] == "IPython")


def test_an_open_figure_is_displayed_at_the_end(client: httpx.Client, context: str) -> None:
    run = execute(client, context, PLOT)
    (shown,) = results(run)
    assert base64.b64decode(shown["image/png"]).startswith(b"\x89PNG")
    assert shown["text"].startswith("<Figure size")
    assert kinds(execute(client, context, "1;")) == ["init", "execution_complete"]


def test_show_displays_at_once_and_closes(client: httpx.Client, context: str) -> None:
    run = execute(client, context, f"{PLOT}\nprint('before'); plt.show(); print('after')\n{PLOT}")
    seen = [event.get("text") or "figure" for event in run.events[1:-1]]
    assert seen == ["before\n", "figure", "after\n", "figure"]


def test_a_backend_of_its_own_choice_is_left_alone(client: httpx.Client, context: str) -> None:
    code = "import matplotlib; matplotlib.use('Agg')\n" + PLOT + "\nplt.savefig('/tmp/plot.png'); plt.show()"
    assert results(execute(client, context, code)) == []
    run = execute(client, context, "import os, subprocess\nos.environ.get('MPLBACKEND')")
    assert kinds(run) == ["init", "execution_complete"]


def test_values_errors_and_interrupts(client: httpx.Client, context: str) -> None:
    printed = "print('o'); print('e', file=sys.stderr); print('p'); display('d'); print('q')"
    run = execute(client, context, f"import sys\n{printed}\n6 * 7")
    shown = [event for event in run.events[1:-1] if event["type"] != "execution_count"]
    order = [event.get("text") or event["results"]["text"] for event in shown]
    assert order == ["o\n", "e\n", "p\n", "'d'", "q\n", "42"]
    assert name(execute(client, context, "1/0")) == "ZeroDivisionError"
    assert name(execute(client, context, "raise SystemExit(3)")) == "SystemExit"
    assert name(execute(client, context, "def f(:")) == "SyntaxError"
    assert name(interrupted(client, context, "import time; print('ready'); time.sleep(60)")) == "KeyboardInterrupt"
    assert execute(client, context, "exit()").texts("stderr") == []
    assert value(execute(client, context, "import asyncio; await asyncio.sleep(0, 8)")) == "8"
    assert name(execute(client, context, "import os; os._exit(1)")) == "InterpreterDied"
    assert value(execute(client, context, "1")) == "1"


def test_what_ipython_brings_works(client: httpx.Client) -> None:
    context = create(client, "python", cwd="/usr")
    if client.headers["X-Kind"] != "IPython":
        assert name(execute(client, context, "import IPython")) == "ImportError"
        return
    html = "from IPython.display import HTML, display\ndisplay(HTML('<b>x</b>'))"
    run = execute(client, context, f"{html}\n!echo shell\n%pwd")
    first, last = results(run)
    assert first["text/html"] == "<b>x</b>"
    assert last["text"] == "'/usr'"
    assert run.texts() == ["shell\n"]
