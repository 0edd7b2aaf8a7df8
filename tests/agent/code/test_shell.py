"""Shell code, run by one bash per context."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.agent.code.runs import contexts, execute, interrupted, kinds, name
from tests.agent.program import TEST_PATH, AgentProcess, StartAgent


@pytest.fixture(scope="module", params=["bash", "dash", "busybox"])
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent whose PATH holds that shell alone, beside the usual programs."""
    shell = shutil.which(request.param)
    if shell is None:
        pytest.skip(f"{request.param} is not installed")
    home = tmp_path_factory.mktemp("agent")
    programs = home / "bin"
    programs.mkdir()
    (programs / ("bash" if request.param == "bash" else "sh")).symlink_to(shell)
    for program in ("sleep", "cat", "env", "grep", "sh"):
        if not (programs / program).exists():
            (programs / program).symlink_to(shutil.which(program) or "")
    env = {"PATH": str(programs), "EXECD_ACCESS_TOKEN": "s3cret", "ENV": "production", "PROMPT_COMMAND": "echo prompt"}
    started = AgentProcess(home, env=env)
    yield started
    started.stop()


@pytest.fixture
def context(client: httpx.Client) -> Iterator[str]:
    yield from contexts(client, "bash")


def test_output_and_success(client: httpx.Client, context: str) -> None:
    run = execute(client, context, "echo hi; printf 'no end'")
    assert "".join(run.texts()) == "hi\nno end"
    assert kinds(run)[-1] == "execution_complete"
    assert run.id == context


def test_state_lasts(client: httpx.Client, context: str) -> None:
    execute(client, context, 'export A=3; b="it\'s\n$A"; f() { echo "f $1"; }; cd /usr')
    run = execute(client, context, 'echo "$A $b"; f x; pwd')
    assert "".join(run.texts()) == "3 it's\n3\nf x\n/usr\n"


def test_a_failing_code_is_an_error_with_its_exit_code(client: httpx.Client, context: str) -> None:
    for code, status in (("false", 1), ("(exit 5)", 5), ("nonesuch", 127), ("true; echo x >&2; false", 1)):
        error = {"ename": "CommandExecError", "evalue": str(status), "traceback": [f"exit status {status}"]}
        assert execute(client, context, code).error == error
    assert execute(client, context, "false; true").error is None


@pytest.mark.parametrize("code", ["if; then", "echo ${unset?no}", "echo 'open", "break"])
def test_code_that_is_abandoned_leaves_the_shell_usable(client: httpx.Client, context: str, code: str) -> None:
    execute(client, context, "kept=1")
    execute(client, context, code)
    assert execute(client, context, "echo $kept").texts() == ["1\n"]


@pytest.mark.parametrize(
    "code",
    [
        "env sh -c 'echo ready; exec sleep 60'",
        "echo ready; while :; do :; done",
        "f() { env sh -c 'echo ready; exec sleep 60'; }; f | cat",
        "(env sh -c 'echo ready; exec sleep 60'; echo not reached)",
    ],
)
def test_an_interrupt_ends_the_code_and_keeps_the_state(client: httpx.Client, context: str, code: str) -> None:
    execute(client, context, "kept=2")
    run = interrupted(client, context, f"{code}; echo not reached")
    assert name(run) == "KeyboardInterrupt"
    assert run.texts() == ["ready\n"]
    assert run.texts("stderr") == []
    assert execute(client, context, "echo $kept").texts() == ["2\n"]


def test_an_interrupt_of_an_idle_shell_is_nothing(client: httpx.Client, context: str) -> None:
    execute(client, context, "kept=3")
    assert client.delete("/code", params={"id": context}).status_code == 200
    run = execute(client, context, "echo $kept")
    assert (run.texts(), run.texts("stderr")) == (["3\n"], [])


def test_nothing_of_the_interactive_shell_shows(client: httpx.Client, context: str) -> None:
    run = execute(client, context, 'sleep 0.01 &\nsleep 0.05; echo "a!b"; kill -9 $!; wait\necho $ENV')
    assert "".join(run.texts()) == "a!b\nproduction\n"
    run = execute(client, context, "true\ntrue")
    assert kinds(run) == ["init", "execution_complete"]


def test_standard_input_is_empty(client: httpx.Client, context: str) -> None:
    assert execute(client, context, "cat; read x; echo $?").texts() in (["1\n"], ["1", "\n"])


def test_exit_ends_the_shell_with_the_code_of_the_run(client: httpx.Client, context: str) -> None:
    execute(client, context, "gone=1")
    assert execute(client, context, "exit 4").value == "4"
    assert execute(client, context, "echo [$gone]").texts() == ["[]\n"]
    assert execute(client, context, "exit 0").error is None
    assert execute(client, context, "echo there").texts() == ["there\n"]


def test_a_shell_that_is_killed_ends_the_run(client: httpx.Client, context: str) -> None:
    assert name(execute(client, context, "kill -9 $$")) == "InterpreterDied"
    assert execute(client, context, "echo there").texts() == ["there\n"]


def test_a_child_that_holds_the_pipe_holds_nobody(client: httpx.Client, context: str) -> None:
    assert execute(client, context, "sleep 60 & echo done").texts() == ["done\n"]


@pytest.mark.parametrize("size", [100, 40_000, 200_000])
def test_long_code_and_quotes(client: httpx.Client, context: str, size: int) -> None:
    run = execute(client, context, f"x='{'y' * size}'\necho \"${{#x}} it's \\\\ \\$\"\ncat <<'END'\n$x 'é'\nEND")
    assert "".join(run.texts()) == f"{size} it's \\ $\n$x 'é'\n"


def test_no_secret_reaches_the_code(client: httpx.Client, context: str) -> None:
    assert execute(client, context, "env | grep -e ^EXECD_ -e s3cret").value == "1"


def test_without_any_shell_the_answer_says_so(start_agent: StartAgent, tmp_path: Path) -> None:
    agent = start_agent(env={"PATH": f"{tmp_path}"})
    with agent.client() as client:
        answer = client.post("/code/context", json={"language": "bash"})
        assert (answer.status_code, answer.json()["code"]) == (501, "NOT_SUPPORTED")
        assert "there is none" in answer.json()["message"]
        assert TEST_PATH not in answer.json()["message"]
