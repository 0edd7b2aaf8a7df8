"""Contexts on a Jupyter server."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.agent.code.container import agent_in_container
from tests.agent.code.runs import Background, contexts, create, execute, interrupted, kinds, name, results, value
from tests.agent.commands.streams import post

pytestmark = pytest.mark.needs("jupyter")
SERVER = "jupyter server --allow-root --ip=127.0.0.1 --port=44771 --IdentityProvider.token=shoal-test"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """The server starts beside the agent, so the first context waits for it."""
    with agent_in_container({}, SERVER) as client:
        yield client


@pytest.fixture
def context(client: httpx.Client) -> Iterator[str]:
    yield from contexts(client, "python")


@pytest.fixture
def bash(client: httpx.Client) -> Iterator[str]:
    yield from contexts(client, "bash")


def test_a_value(client: httpx.Client, context: str) -> None:
    run = execute(client, context, "2+2")
    assert kinds(run) == ["init", "execution_count", "result", "execution_complete"]
    assert value(run) == "4"
    assert run.id == context


def test_every_run_ends_with_its_own_end(client: httpx.Client, context: str) -> None:
    for number in range(20):
        run = execute(client, context, f"print({number})\n{number}")
        assert "".join(run.texts()) == f"{number}\n"
        assert kinds(run)[-3:] == ["execution_count", "result", "execution_complete"]
        assert value(run) == str(number)


def test_displays_and_figures_arrive(client: httpx.Client, context: str) -> None:
    html = "from IPython.display import HTML, display\ndisplay(HTML('<b>'))"
    code = f"import matplotlib.pyplot as plt; plt.plot([1]); plt.show()\n{html}"
    first, second = results(execute(client, context, code))
    assert "image/png" in first
    assert second["text/html"] == "<b>"


def test_errors(client: httpx.Client, context: str, bash: str) -> None:
    assert name(execute(client, context, "nope")) == "NameError"
    run = execute(client, bash, "echo out; (exit 7)")
    assert (name(run), run.value, run.texts()) == ("CommandExecError", "7", ["out\n"])


def test_interrupts(client: httpx.Client, context: str, bash: str) -> None:
    run = interrupted(client, context, "import time; print('ready'); time.sleep(60)")
    assert name(run) == "KeyboardInterrupt"
    assert value(execute(client, context, "3")) == "3"
    assert name(interrupted(client, bash, "echo ready; sleep 60; echo not reached")) == "KeyboardInterrupt"
    assert execute(client, bash, "echo 4").texts() == ["4\n"]


def test_a_kernel_that_dies_ends_the_run_and_the_next_gets_another(client: httpx.Client) -> None:
    context = create(client, "python", cwd="/usr/share")
    assert name(execute(client, context, "import os; os._exit(1)")) == "InterpreterDied"
    assert name(execute(client, context, "os")) == "NameError"
    assert value(execute(client, context, "import os; os.getcwd()")) == "'/usr/share'"


def test_the_directory_is_where_the_code_runs(client: httpx.Client) -> None:
    for language, code in (("python", "import os; print(os.getcwd())"), ("bash", "pwd")):
        directory = f"/tmp/made for/{language}"
        assert execute(client, create(client, language, cwd=directory), code).texts() == [f"{directory}\n"]


def test_deleting_a_context_ends_its_run_and_its_kernel(client: httpx.Client) -> None:
    context = create(client, "python")
    run = Background(client, context, "import os, time; print('pid', os.getpid(), flush=True); time.sleep(60)")
    run.wait_for("pid ")
    assert client.delete(f"/code/contexts/{context}").status_code == 200
    ended = run.end()
    assert name(ended) == "ContextDeleted"
    pid = ended.texts()[0].split()[1]
    assert post(client, "/command", {"command": f"kill -0 {pid}"}).value == "1"


def test_a_language_without_a_kernel_is_the_images_own_or_400(client: httpx.Client) -> None:
    assert value(execute(client, create(client, "javascript"), "1 + 1")) == "2"
    answer = client.post("/code/context", json={"language": "java"})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST_BODY")
    assert "there is bash, javascript, python" in answer.json()["message"]


def test_much_output_is_read_to_its_end(client: httpx.Client, context: str) -> None:
    run = execute(client, context, "print('y' * 600_000)\n'end'")
    assert "".join(run.texts()) == "y" * 600_000 + "\n"
    assert max(map(len, run.texts())) <= 65536
    assert value(run) == "'end'"


def test_a_server_that_is_none_is_an_error_and_no_hang() -> None:
    with agent_in_container({"JUPYTER_HOST": "ftp://nowhere"}) as client:
        answer = client.post("/code/context", json={"language": "python"})
        assert (answer.status_code, answer.json()["code"]) == (500, "RUNTIME_ERROR")
        assert "JUPYTER_HOST" in answer.json()["message"]
