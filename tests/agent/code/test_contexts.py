"""Contexts: made, listed, run in, deleted; what a client can get wrong."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import httpx
import pytest
from tests.agent.code.runs import Background, create, execute, name, value
from tests.agent.commands.streams import parse, post
from tests.agent.program import AgentProcess, StartAgent
from tests.support.servers import free_port


def test_a_context_is_made_shown_listed_and_deleted(client: httpx.Client) -> None:
    made = client.post("/code/context", json={"language": "Python"}).json()
    assert made == {"id": made["id"], "language": "python"}
    assert len(made["id"]) == 36
    assert client.get(f"/code/contexts/{made['id']}").json() == made
    assert made in client.get("/code/contexts").json()
    assert made in client.get("/code/contexts", params={"language": "python"}).json()
    assert made not in client.get("/code/contexts", params={"language": "bash"}).json()
    answer = client.delete(f"/code/contexts/{made['id']}")
    assert (answer.status_code, answer.content) == (200, b"")
    for gone in (client.get(f"/code/contexts/{made['id']}"), client.delete(f"/code/contexts/{made['id']}")):
        assert (gone.status_code, gone.json()["code"]) == (404, "CONTEXT_NOT_FOUND")


def test_all_contexts_of_a_language_are_deleted(client: httpx.Client) -> None:
    kept, *gone = create(client, "python"), create(client, "bash"), create(client, "bash")
    assert client.delete("/code/contexts", params={"language": "bash"}).status_code == 200
    assert client.get("/code/contexts", params={"language": "bash"}).json() == []
    assert {client.get(f"/code/contexts/{context}").status_code for context in gone} == {404}
    assert client.get(f"/code/contexts/{kept}").status_code == 200
    assert client.delete("/code/contexts", params={"language": "klingon"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/code/context", {"language": "klingon"}, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code/context", {}, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code/context", None, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code/context", {"language": 5}, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code/context", {"language": "sql"}, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code/context", {"language": "python", "cwd": "$NOT_SET/x"}, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code/context", {"language": "python", "cwd": "/dev/null/x"}, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code", {"code": "1", "context": {"language": "klingon"}}, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code", {"code": "1", "context": {"id": "nope", "language": "python"}}, 404, "CONTEXT_NOT_FOUND"),
        ("POST", "/code", {"code": "", "context": {"language": "python"}}, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code", {"code": "a\0b", "context": {"language": "python"}}, 400, "INVALID_REQUEST_BODY"),
        ("POST", "/code", {"context": {"language": "python"}}, 400, "INVALID_REQUEST_BODY"),
        ("GET", "/code/contexts?language=sql", None, 400, "INVALID_REQUEST_BODY"),
        ("GET", "/code/contexts/nope", None, 404, "CONTEXT_NOT_FOUND"),
        ("DELETE", "/code/contexts", None, 400, "MISSING_QUERY"),
        ("DELETE", "/code", None, 400, "MISSING_QUERY"),
        ("DELETE", "/code?id=nope", None, 404, "CONTEXT_NOT_FOUND"),
    ],
)
def test_what_is_wrong_is_told(
    client: httpx.Client, method: str, path: str, body: object, status: int, code: str
) -> None:
    answer = client.request(method, path, json=body) if body is not None else client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["message"]


def test_an_unknown_language_is_told_what_there_is(client: httpx.Client) -> None:
    message = client.post("/code/context", json={"language": "java"}).json()["message"]
    assert "'java'" in message
    assert "python" in message


def test_a_language_whose_program_is_missing_is_501(start_agent: StartAgent, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    with start_agent(env={"PATH": str(tmp_path)}).client() as client:
        for path, body in (
            ("/code/context", {"language": "python"}),
            ("/code", {"code": "1", "context": {"language": "python"}}),
        ):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (501, "NOT_SUPPORTED")
            assert "python3" in answer.json()["message"]
            assert "there is bash" in answer.json()["message"]


def test_a_python_that_is_too_old_says_so(start_agent: StartAgent, tmp_path: Path) -> None:
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\necho 'python 3.6 is too old' >&2\nexit 1\n")
    program.chmod(0o755)
    with start_agent(env={"PATH": f"{tmp_path}:/usr/bin:/bin"}).client() as client:
        answer = client.post("/code/context", json={"language": "python"})
        assert answer.status_code == 500
        assert "too old" in answer.json()["message"]


def test_a_context_starts_in_its_directory_which_is_made(client: httpx.Client, tmp_path: Path) -> None:
    for language, code in (("python", "import os; print(os.getcwd())"), ("bash", "pwd")):
        directory = tmp_path / language / "new"
        made = client.post("/code/context", json={"language": language, "cwd": str(directory)}).json()
        assert made == {"id": made["id"], "language": language, "cwd": str(directory)}
        assert execute(client, made["id"], code).texts() == [f"{directory}\n"]


def test_code_without_a_context_runs_in_the_languages_own(client: httpx.Client) -> None:
    body = {"code": "print('made'); shared = 41", "context": {"language": "python"}}
    first = post(client, "/code", body)
    second = post(client, "/code", {"code": "shared + 1", "context": {"language": "python"}})
    assert value(second) == "42"
    assert first.id == second.id
    assert client.delete(f"/code/contexts/{first.id}").status_code == 200
    third = post(client, "/code", {"code": "shared", "context": {"language": "python"}})
    assert third.id != first.id
    assert name(third) == "NameError"


def test_an_id_decides_on_the_language(client: httpx.Client) -> None:
    context = create(client, "bash")
    run = post(client, "/code", {"code": "echo $((40 + 2))", "context": {"id": context, "language": "python"}})
    assert run.texts() == ["42\n"]


def test_a_busy_context_is_409_and_another_one_is_free(client: httpx.Client) -> None:
    busy, free = create(client, "python"), create(client, "python")
    run = Background(client, busy, "print('ready'); import time; time.sleep(60)")
    run.wait_for("ready")
    answer = client.post("/code", json={"code": "1", "context": {"id": busy}})
    assert (answer.status_code, answer.json()["code"]) == (409, "CONTEXT_BUSY")
    assert value(execute(client, free, "1")) == "1"
    assert client.delete("/code", params={"id": busy}).status_code == 200
    assert name(run.end()) == "KeyboardInterrupt"
    assert value(execute(client, busy, "2")) == "2"


def test_the_end_of_a_run_frees_its_context_at_once(client: httpx.Client) -> None:
    context = create(client, "bash")
    for number in range(50):
        assert execute(client, context, f"echo {number}").texts() == [f"{number}\n"]


def test_deleting_a_context_ends_its_run_and_its_processes(client: httpx.Client) -> None:
    context = create(client, "python")
    code = "import subprocess, time; print('pid', subprocess.Popen(['sleep', '60']).pid); time.sleep(60)"
    run = Background(client, context, code)
    run.wait_for("pid ")
    assert client.delete(f"/code/contexts/{context}").status_code == 200
    ended = run.end()
    assert name(ended) == "ContextDeleted"
    pid = int(ended.texts()[0].split()[1])
    _await_end(pid)


def test_the_agents_end_is_that_of_its_interpreters(start_agent: StartAgent) -> None:
    agent = start_agent()
    with agent.client() as client:
        pid = int(execute(client, create(client, "bash"), "sleep 60 & echo $$").texts()[0])
    assert agent.stop() == 0
    _await_end(pid)


def _await_end(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} lives on")


def test_code_goes_on_without_its_client_and_can_be_taken_up_again(client: httpx.Client, tmp_path: Path) -> None:
    context = create(client, "python")
    go = tmp_path / "go"
    code = f"import os, time\nprint('ready')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('seen')\n5"
    with client.stream("POST", "/code", json={"code": code, "context": {"id": context}}) as answer:
        received = b""
        for chunk in answer.iter_raw():
            received += chunk
            if b"ready" in received:
                break
    go.touch()
    whole = client.get(f"/code/contexts/{context}/resume").content
    texts = "".join(event["text"] for event in parse(whole) if event["type"] == "stdout")
    assert texts == "ready\nseen\n"
    assert parse(whole)[-1]["type"] == "execution_complete"
    path = f"/code/contexts/{context}/resume"
    assert client.get(path, params={"offset": len(received)}).content == whole[len(received) :]
    assert client.get(path, params={"offset": len(whole) + 1}).status_code == 416


def test_a_slow_client_holds_the_code_up_in_bounded_memory(agent: AgentProcess, client: httpx.Client) -> None:
    context = create(client, "python")
    before = agent.memory()
    code = "for k in range(100): print('x' * 1_000_000)\nprint('done')"
    with client.stream("POST", "/code", json={"code": code, "context": {"id": context}}) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        time.sleep(0.5)  # nothing depends on it: the longer, the more a leak would show
        assert agent.memory() - before < 20_000_000
        assert sum(map(len, chunks)) > 100_000_000
    assert agent.memory() - before < 20_000_000


@pytest.mark.parametrize("context", [None, {}, {"language": "command"}, {"language": ""}])
def test_no_language_is_a_command(client: httpx.Client, context: object) -> None:
    run = post(client, "/code", {"code": "echo x; exit 2", "context": context})
    assert run.texts() == ["x"]
    assert run.error == {"ename": "CommandExecError", "evalue": "2", "traceback": ["exit status 2"]}
    assert len(run.id) == 32


def test_a_command_in_the_background(client: httpx.Client) -> None:
    run = post(client, "/code", {"code": "exit 3", "context": {"language": "background-command"}})
    assert run.error is None
    deadline = time.monotonic() + 20
    while (status := client.get(f"/command/status/{run.id}").json())["running"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert status["exit_code"] == 3


def test_clients_that_probe_for_a_server_find_the_agent(start_agent: StartAgent) -> None:
    port = free_port()
    agent = start_agent(env={"JUPYTER_PORT": str(port)})
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"no Jupyter server" in connection.makefile("rb").read()
    second = start_agent(env={"JUPYTER_PORT": str(port)})  # a port that is taken is no obstacle
    assert {os.path.exists(f"/proc/{started.pid}") for started in (agent, second)} == {True}  # noqa: PTH110


def test_sql_without_a_server_is_one_error_event(client: httpx.Client) -> None:
    run = post(client, "/code", {"code": "select 1", "context": {"language": "sql"}})
    assert name(run) == "DBInitError"
    assert run.error is not None
    assert isinstance(run.error["traceback"], list)
