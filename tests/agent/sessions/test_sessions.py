"""Sessions as clients use them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.agent.commands.streams import Run, parse, post
from tests.agent.program import AgentProcess, StartAgent


class Session:
    def __init__(self, client: httpx.Client, **fields: str) -> None:
        self.client = client
        self.id = client.post("/session", json=fields).json()["session_id"]

    def run(self, command: str, **fields: object) -> Run:
        return post(self.client, f"/session/{self.id}/run", {"command": command, **fields})


@pytest.fixture
def session(client: httpx.Client) -> Iterator[Session]:
    session = Session(client)
    yield session
    client.delete(f"/session/{session.id}")


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'{"cwd": "/tmp"}'])
def test_create(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/session", content=body)
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", answer.json()["session_id"]
    )
    assert client.delete(f"/session/{answer.json()['session_id']}").content == b""


@pytest.mark.parametrize("body", [b"[]", b"{bad", b'{"cwd": 5}', b'{"cwd": "/etc/passwd"}', b'{"cwd": "$NOT_SET/x"}'])
def test_bad_creates(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/session", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST_BODY")


def test_a_missing_directory_is_made(client: httpx.Client, tmp_path: Path) -> None:
    made = tmp_path / "n" / "e" / "w"
    assert Session(client, cwd=str(made)).run("pwd").texts() == [str(made)]


def test_a_run_bears_the_id_of_its_session(session: Session) -> None:
    done = session.run("echo x")
    assert done.id == session.id
    assert [event["type"] for event in done.events] == ["init", "stdout", "execution_complete"]


def test_exports_and_the_directory_last(session: Session) -> None:
    session.run("cd /var; export A=1 B=2; C=3")
    session.run("unset B; cd /usr; exit 7")
    assert session.run('echo "$A [${B-gone}] [$C]"; pwd').texts() == ["1 [gone] []", "/usr"]
    session.run("true", cwd="/tmp")
    assert session.run("pwd").texts() == ["/tmp"]


def test_what_ends_a_run_early_loses_nothing(session: Session) -> None:
    assert session.run("export A=1; set -e; cd /var; false; echo never").value == "1"
    assert session.run("export B=2; exit 3").value == "3"
    assert session.run("kill -9 $$").error == {
        "ename": "CommandExecError",
        "evalue": "-1",
        "traceback": ["signal: killed"],
    }
    assert session.run("export X=1; if").value == "2"
    assert session.run("set -eux; set -o posix; export C=3").error is None
    assert session.run('echo "$A $B $C"; pwd').texts() == ["1 2 3", "/var"]


@pytest.mark.parametrize("value", ["$HOME `x` \\d", "a \"b\"  'c' d", "a\nb", "é☃\u2028", "y" * 9000, "\x1b[1m\t"])
def test_values_survive_whatever_their_characters(session: Session, value: str) -> None:
    quoted = "'" + value.replace("'", "'\\''") + "'"
    session.run(f"export VALUE={quoted}")
    seen = session.run("printf %s \"$VALUE\" | od -An -v -tx1 | tr -d ' \\n'").texts()
    assert bytes.fromhex(seen[0]).decode() == value


def test_output_is_as_of_commands(session: Session) -> None:
    done = session.run("echo __EXIT_CODE__:5; printf 'a\\n\\nb\\rc'; echo err >&2")
    assert done.texts() == ["__EXIT_CODE__:5", "a", "\n", "b", "c"]
    assert done.texts("stderr") == ["err"]
    assert session.run("read x; echo \"[$x]\"; trap 'echo bye' EXIT").texts() == ["[]", "bye"]


def test_an_error_names_the_line_of_the_command(session: Session) -> None:
    assert "line 2" in session.run("\nno-such-command").texts("stderr")[0]


def test_a_timeout_kills_the_group_and_is_an_error(session: Session) -> None:
    session.run("export A=1")
    assert session.run("sleep 300; echo never", timeout=200).value == "-1"
    assert session.run("echo $A").texts() == ["1"]


def test_a_child_that_holds_the_pipe_holds_nobody(session: Session) -> None:
    done = session.run("sleep 300 & echo $!; export A=1")
    assert done.error is None
    assert session.run("echo $A; kill " + done.texts()[0]).texts() == ["1"]


def test_runs_wait_for_one_another(agent: AgentProcess, session: Session, tmp_path: Path) -> None:
    go, begun = tmp_path / "go", tmp_path / "begun"
    results: list[Run] = []

    def slow() -> None:
        with agent.client() as client:
            command = f"touch {begun}; until [ -e {go} ]; do sleep 0.02; done; export A=1"
            results.append(post(client, f"/session/{session.id}/run", {"command": command}))

    def fast() -> None:
        with agent.client() as client:
            results.append(post(client, f"/session/{session.id}/run", {"command": "echo $A; export B=2"}))

    threads = [threading.Thread(target=slow)]
    threads[0].start()
    while not begun.exists():
        pass
    threads.append(threading.Thread(target=fast))
    threads[1].start()
    go.touch()
    for thread in threads:
        thread.join()
    assert results[1].texts() == ["1"]
    assert session.run("echo $A $B").texts() == ["1 2"]


def test_an_interrupt_ends_the_run_and_keeps_the_session(session: Session) -> None:
    session.run("export A=1")
    command = {"command": "echo begun; sleep 300 & wait"}
    with session.client.stream("POST", f"/session/{session.id}/run", json=command) as answer:
        pieces = answer.iter_raw()
        body = next(pieces)
        while b"begun" not in body:
            body += next(pieces)
        assert session.client.delete("/command", params={"id": session.id}).status_code == 200
        body += b"".join(pieces)
    assert Run(body).value == "-1"
    assert session.run("echo $A").texts() == ["1"]


def test_a_deleted_session_ends_its_run(client: httpx.Client) -> None:
    session = Session(client)
    with client.stream("POST", f"/session/{session.id}/run", json={"command": "sleep 300"}) as answer:
        pieces = answer.iter_raw()
        body = next(pieces)
        assert client.delete(f"/session/{session.id}").status_code == 200
        body += b"".join(pieces)
    assert parse(body)[-1]["error"]["traceback"] == ["signal: killed"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("DELETE", "/session/nope", 404), ("POST", "/session/nope/run", 404), ("GET", "/session/nope/resume", 404)],
)
def test_unknown_sessions(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, json={"command": "true"})
    assert (answer.status_code, answer.json()["code"]) == (status, "CONTEXT_NOT_FOUND")
    assert "nope" in answer.json()["message"]


@pytest.mark.parametrize(
    "fields", [{}, {"command": ""}, {"command": "x", "cwd": "/no/such"}, {"command": "x", "timeout": -1}]
)
def test_bad_runs(session: Session, fields: dict[str, object]) -> None:
    assert session.client.post(f"/session/{session.id}/run", json=fields).status_code == 400


def test_a_stream_can_be_taken_up_again(session: Session) -> None:
    done = session.run("echo one; echo two")
    rest = session.client.get(f"/session/{session.id}/resume", params={"offset": 40}).content
    assert done.body[:40] + rest == done.body


def test_the_env_file_reaches_sessions_and_the_agents_own_variables_do_not(start_agent: StartAgent) -> None:
    agent = start_agent(env={"JUPYTER_TOKEN": "hidden", "EXECD_ACCESS_TOKEN": "hidden", "SEEN": "1"})
    with agent.client(X_EXECD_ACCESS_TOKEN="hidden") as client:
        session = Session(client)
        session.run("export MINE=1")
        agent.env_file.write_text("FROM_FILE=1\n")
        seen = session.run("env").texts()
        assert {"FROM_FILE=1", "MINE=1", "SEEN=1"} <= set(seen)
        assert not any("hidden" in line or line.startswith("EXECD_ENVS=") for line in seen)
        agent.env_file.write_text("FROM_FILE=2\n")
        assert session.run("echo $FROM_FILE").texts() == ["2"]
