"""Foreground commands: output, codes, timeouts, users, what a client can get wrong."""

from __future__ import annotations

import os
import time
from typing import Any

import httpx
import pytest
from tests.agent.commands.streams import Run, parse, run
from tests.agent.program import USER, AgentProcess, StartAgent


def alive(pid: int) -> bool:
    """Whether the process runs and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def test_a_frame_is_a_line_of_json_and_an_empty_line(client: httpx.Client) -> None:
    done = run(client, "echo hello")
    assert [event["type"] for event in done.events] == ["init", "stdout", "execution_complete"]
    assert done.texts() == ["hello"]
    assert len(done.id) == 32
    assert done.body.startswith(b'{"type":"init",')


def test_each_stream_keeps_its_order(client: httpx.Client) -> None:
    done = run(client, "for i in 1 2 3; do echo o$i; echo e$i >&2; done; printf last")
    assert done.texts() == ["o1", "o2", "o3", "last"]
    assert done.texts("stderr") == ["e1", "e2", "e3"]


@pytest.mark.parametrize(
    ("command", "value", "text"),
    [
        ("exit 42", "42", "exit status 42"),
        ("ulimit -c 0; kill -KILL $$", "-1", "signal: killed"),
        ("ulimit -c 0; kill -INT $$", "-1", "signal: interrupt"),
        ("ulimit -c 0; kill -SEGV $$", "-1", "signal: segmentation fault"),
        ("no-such-command 2>/dev/null", "127", "exit status 127"),
    ],
)
def test_failures_are_errors(client: httpx.Client, command: str, value: str, text: str) -> None:
    assert run(client, command).error == {"ename": "CommandExecError", "evalue": value, "traceback": [text]}


def test_a_run_ends_at_once(client: httpx.Client) -> None:
    def seconds() -> float:
        begun = time.monotonic()
        assert run(client, "true").error is None
        return time.monotonic() - begun

    assert min(seconds() for _ in range(5)) < 0.1  # an execd that lingers takes 1 s, or 200 ms


def test_a_child_that_holds_the_pipe_holds_nobody(client: httpx.Client) -> None:
    done = run(client, "sleep 300 & echo $!; (sleep 0.02; echo straggler) & echo now; exit 4")
    pid, *texts = done.texts()
    assert texts[0] == "now"
    assert done.value == "4"
    assert alive(int(pid))
    assert client.delete("/command", params={"id": done.id}).status_code == 200
    assert not alive(int(pid))


def test_a_child_that_writes_on_is_not_ended_by_it(client: httpx.Client, agent: AgentProcess) -> None:
    mark = agent.home / "written"
    done = run(client, f"(for i in 1 2 3 4 5 6 7 8; do sleep 0.1; echo late; done; touch {mark}) & echo now")
    assert done.texts()[0] == "now"
    _until(mark.exists)


def test_a_line_without_end_is_shown_in_silence(client: httpx.Client, agent: AgentProcess) -> None:
    go = agent.home / "go"
    command = f"printf 'prompt> '; until [ -e {go} ]; do sleep 0.05; done; echo done"
    with client.stream("POST", "/command", json={"command": command}) as answer:
        body = b""
        for piece in answer.iter_bytes():
            body += piece
            if b"prompt> " in body:
                go.touch()
    assert [event["text"] for event in parse(body) if event["type"] == "stdout"] == ["prompt> ", "done"]


def test_silence_is_broken_by_pings(client: httpx.Client) -> None:
    with client.stream("POST", "/command", json={"command": "sleep 60"}) as answer:
        body = b""
        for piece in answer.iter_bytes():
            body += piece
            if body.count(b'"ping"') == 2:
                break
    assert client.delete("/command", params={"id": parse(body)[0]["text"]}).status_code == 200


def test_a_timeout_kills_the_whole_group(client: httpx.Client) -> None:
    begun = time.monotonic()
    done = run(client, "trap '' TERM; sleep 300 & echo $!; wait; echo never", timeout=300)
    assert time.monotonic() - begun < 30
    assert (done.value, len(done.texts())) == ("-1", 1)
    _until(lambda: not alive(int(done.texts()[0])))


def test_an_interrupt_ends_the_whole_group(client: httpx.Client) -> None:
    command = "trap 'echo caught; exit 5' TERM; sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & echo $!; wait"
    with client.stream("POST", "/command", json={"command": command}) as answer:
        pieces = answer.iter_bytes()
        body = next(pieces)
        while b'"stdout"' not in body:
            body += next(pieces)
        first = parse(body)
        assert client.delete("/command", params={"id": first[0]["text"]}).status_code == 200
        body += b"".join(pieces)
    events = [event for event in parse(body) if event["type"] != "ping"]
    assert not alive(int(events[1]["text"]))  # it is deaf to SIGTERM
    assert events[-2]["text"] == "caught"
    assert events[-1]["error"]["evalue"] == "5"


@pytest.mark.parametrize(("query", "status"), [("", 400), ("?id=", 400), ("?id=nope", 404)])
def test_interrupts_of_nothing(client: httpx.Client, query: str, status: int) -> None:
    assert client.delete("/command" + query).status_code == status


def test_an_ended_command_can_be_interrupted(client: httpx.Client) -> None:
    assert client.delete("/command", params={"id": run(client, "true").id}).status_code == 200


def test_signals_start_at_their_defaults(start_agent: StartAgent) -> None:
    agent = start_agent(prefix=["/bin/sh", "-c", 'trap "" INT QUIT HUP USR1; "$@" & wait', "sh"])
    with agent.client() as client:
        ignored = run(client, "grep -E 'Sig(Ign|Blk)' /proc/self/status").texts()
    assert [line.split()[1].strip("0") for line in ignored] == ["", ""]


def test_stdin_is_empty(client: httpx.Client) -> None:
    assert run(client, "cat; echo end").texts() == ["end"]


def test_argv_runs_without_a_shell(client: httpx.Client) -> None:
    assert run(client, argv=["printf", "%s|", "a b", "$HOME", "é"]).texts() == ["a b|$HOME|é|"]


def test_an_argv_that_is_not_found_is_an_error(client: httpx.Client) -> None:
    error = run(client, argv=["no-such-program"]).error
    assert error is not None
    assert "no-such-program" in error["evalue"]


def test_a_name_is_sought_in_the_path_of_the_child(client: httpx.Client, agent: AgentProcess) -> None:
    directory = agent.home / "bin"
    directory.mkdir()
    tool = directory / "tool"
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    assert run(client, argv=["tool"], envs={"PATH": f"{directory}:/usr/bin:/bin"}).texts() == ["mine"]
    assert run(client, argv=["bin/tool"], cwd=str(agent.home)).texts() == ["mine"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"command": ""},
        {"command": 5},
        {"command": "true", "argv": ["true"]},
        {"argv": []},
        {"argv": [""]},
        {"argv": ["echo", None]},
        {"argv": ["echo", "a\0"]},
        {"command": "a\0b"},
        {"command": "true", "timeout": -1},
        {"command": "true", "timeout": 1.5},
        {"command": "true", "timeout": True},
        {"command": "true", "gid": 1},
        {"command": "true", "uid": 2**32},
        {"command": "true", "background": "yes"},
        {"command": "true", "envs": []},
        {"command": "true", "envs": {"A": 1}},
        {"command": "true", "envs": {"A=B": "1"}},
        {"command": "true", "cwd": "$NOT_SET_AT_ALL/x"},
        {"command": "true", "cwd": "/no/such/directory"},
        {"command": "true", "cwd": "/etc/passwd"},
    ],
)
def test_bad_requests(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post("/command", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST_BODY"
    assert answer.json()["message"]


def test_fields_match_in_any_case_and_nulls_are_absent(client: httpx.Client) -> None:
    body = b'{"CoMMand": "pwd", "cwd": null, "envs": null, "timeout": null, "x": [1]} trailing'
    assert client.post("/command", content=body).status_code == 200


def test_a_command_that_is_too_long_is_an_error(client: httpx.Client) -> None:
    done = run(client, ": " + "x" * 200_000)
    assert done.value is not None
    assert "argument list too long" in done.value


@pytest.mark.skipif(os.getuid() != 0, reason="changing users takes root")
@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({"uid": 0}, ["0", "0"]),
        ({"uid": 65534}, ["65534", "65534"]),
        ({"uid": 65534, "gid": 4001}, ["65534", "4001"]),
        ({"uid": 4000}, ["4000", "4000"]),
    ],
)
def test_users(client: httpx.Client, fields: dict[str, int], seen: list[str]) -> None:
    assert run(client, "id -u; id -g", cwd="/", **fields).texts() == seen


@pytest.mark.skipif(os.getuid() != 0, reason="changing users takes root")
def test_a_user_that_cannot_be_is_an_error(client: httpx.Client) -> None:
    done = run(client, "id", uid=2**32 - 1, cwd="/")
    assert done.value is not None
    assert "invalid argument" in done.value


def test_an_ordinary_user_is_itself_and_nobody_else(user_agent: AgentProcess) -> None:
    with user_agent.client() as client:
        assert run(client, "id -u; id -G", uid=USER, gid=USER).texts() == [str(USER), str(USER)]
        assert run(client, "id -u", uid=USER).texts() == [str(USER)]
        value = run(client, "id -u", uid=0).value
        assert value is not None
        assert "not permitted" in value


def test_a_name_service_is_not_asked(client: httpx.Client) -> None:
    assert run(client, "echo ~", cwd="~").error is None


def _until(true: Any) -> None:
    while not true():
        time.sleep(0.02)


def test_half_a_surrogate_pair_is_no_failure(client: httpx.Client) -> None:
    body = b'{"argv": ["printf", "%s", "a\\ud800b\\ud83d\\ude00"], "envs": {"X": "\\udfff"}}'
    done = Run(client.post("/command", content=body).content)
    assert done.texts() == ["a\ufffdb\U0001f600"]
    assert client.get("/command/status/%FF").json()["message"] == "there is no command \ufffd"
    assert b"\\udc" not in client.get("/command/status/%F0%9F").content


def test_a_body_that_is_asked_for(agent: AgentProcess) -> None:
    body = b'{"command": "echo asked"}'
    head = b"POST /command HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    with agent.connect() as connection:
        connection.sendall(head)
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        answer = b""
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"text":"asked"' in answer


def test_a_client_of_http_1_0_gets_a_stream_without_chunks(agent: AgentProcess) -> None:
    with agent.connect() as connection:
        connection.sendall(b'POST /command HTTP/1.0\r\nContent-Length: 22\r\n\r\n{"command":"echo one"}')
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert Run(body).texts() == ["one"]
