"""Terminals as clients use them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.agent.program import AgentProcess, StartAgent
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect


class Terminal:
    """One socket, and what came through it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.texts: list[dict[str, Any]] = []
        self.output = {1: bytearray(), 2: bytearray()}
        self.replayed = bytearray()
        self.offset: int | None = None
        self.order: list[str] = []
        self.closed: tuple[int, str] | None = None

    def until(self, true: Callable[[], object]) -> Terminal:
        """Reads until `true`."""
        while not true():
            self._one(self.socket.recv(timeout=20))
        return self

    def end(self) -> Terminal:
        """Reads to the end."""
        try:
            while True:
                self._one(self.socket.recv(timeout=20))
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            self.closed = (closed.rcvd.code, closed.rcvd.reason)
        return self

    def _one(self, data: str | bytes) -> None:
        if isinstance(data, str):
            assert data.endswith("\n")
            self.texts.append(json.loads(data))
            self.order.append(self.texts[-1]["type"])
        elif data[0] == 3:
            self.offset = int.from_bytes(data[1:9]) if self.offset is None else self.offset
            self.replayed += data[9:]
            self.order.append("replay")
        else:
            assert len(data) <= 32 * 1024 + 1
            self.output[data[0]] += data[1:]
            self.order.append("out")

    def type(self, text: str) -> None:
        self.socket.send(b"\0" + text.encode())

    def send(self, **frame: Any) -> None:
        self.socket.send(json.dumps(frame))

    def sees_hello(self) -> Terminal:
        return self.until(lambda: self.texts)

    def sees(self, text: str) -> Terminal:
        return self.until(lambda: text.encode() in self.output[1] + self.replayed)


class Session:
    def __init__(self, agent: AgentProcess, client: httpx.Client, **fields: Any) -> None:
        self.id = client.post("/pty", json=fields).json()["session_id"]
        self.agent, self.client = agent, client

    @contextmanager
    def socket(self, query: str = "") -> Iterator[Terminal]:
        with connect(f"ws://127.0.0.1:{self.agent.port}/pty/{self.id}/ws{query}", max_size=None) as socket:
            yield Terminal(socket)

    def show(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.client.get(f"/pty/{self.id}").json()
        return shown


NewSession = Callable[..., Session]


@pytest.fixture
def new(agent: AgentProcess, client: httpx.Client) -> Iterator[NewSession]:
    made: list[Session] = []

    def make(**fields: Any) -> Session:
        made.append(Session(agent, client, **fields))
        return made[-1]

    yield make
    for session in made:
        client.delete(f"/pty/{session.id}")


def test_a_new_session_does_not_run(new: NewSession) -> None:
    session = new()
    assert session.show() == {"session_id": session.id, "running": False, "output_offset": 0}


def test_a_shell_on_a_terminal(new: NewSession) -> None:
    with new().socket() as terminal:
        terminal.type("stty size; echo h''i; tty\n")
        terminal.sees("24 80\r\n").sees("\r\nhi\r\n").sees("/dev/pts/")
        terminal.send(type="resize", cols=0, rows=5)
        terminal.send(type="resize", cols=100, rows=30)
        terminal.send(type="stdin", data="stty size\n")
        terminal.sees("30 100\r\n")
    assert terminal.order[0] == "connected"
    assert (terminal.texts[0]["mode"], terminal.texts[0]["role"]) == ("pty", "controller")


def test_half_a_surrogate_pair_is_typed_as_one_character(new: NewSession) -> None:
    with new(command="head -c 3 | od -An -tx1").socket("?pty=0") as terminal:
        terminal.sees_hello().send(type="stdin", data="\ud800")
        assert bytes(terminal.end().output[1]) == b" ef bf bd\n"


def test_ctrl_c_works_whatever_the_agent_inherited(start_agent: StartAgent) -> None:
    agent = start_agent(prefix=["/bin/sh", "-c", 'trap "" INT QUIT; "$@" & wait', "sh"])
    with agent.client() as client, Session(agent, client).socket() as terminal:
        terminal.type("sh -c 'echo beg\\un; exec sleep 300'\n")  # it says so itself, when it is in the foreground
        terminal.sees("begun")
        terminal.type("\x03")
        terminal.type("echo alive$((3+5))\n")
        terminal.sees("alive8")


def test_pipes_keep_stdout_and_stderr_apart(new: NewSession) -> None:
    with new(command="read l; echo got $l; echo err >&2; exit 3").socket("?pty=0") as terminal:
        terminal.type("line\n")
        terminal.end()
    assert terminal.output == {1: b"got line\n", 2: b"err\n"}
    assert terminal.texts[0]["mode"] == "pipe"
    assert terminal.texts[-1] == {"type": "exit", "exit_code": 3}
    assert terminal.closed == (1000, "process exited")


@pytest.mark.parametrize("query", ["", "?pty=0"])
def test_no_output_is_lost_or_late_at_the_end(new: NewSession, query: str) -> None:
    command = "head -c 300000 /dev/zero | tr '\\0' z; echo; echo last words; exit 7"
    with new(command=command).socket(query) as terminal:
        terminal.end()
    assert terminal.output[1].count(b"z") == 300_000
    assert b"last words" in terminal.output[1]
    assert [kind for kind in dict.fromkeys(terminal.order)] == ["connected", "out", "exit"]  # noqa: C416


def test_the_end_does_not_wait_for_who_holds_the_terminal(new: NewSession) -> None:
    with new(command="sleep 300 & echo $!; exit 0").socket("?pty=0") as terminal:
        terminal.end()
        assert terminal.texts[-1] == {"type": "exit", "exit_code": 0}
        terminal_client = new().client
        terminal_client.post("/command", json={"command": f"kill {terminal.output[1].decode()}"})


def test_a_session_outlives_its_socket(new: NewSession) -> None:
    session = new()
    with session.socket("?pty=0") as first:
        first.type("V=kept; printf 0123456789\n")
        first.sees("0123456789")
    for since, offset, data in (
        ("6", 6, b"6789"),
        ("-5", 0, b"0123456789"),
        ("x", 0, b"0123456789"),
        ("99", None, b""),
    ):
        _released(session)
        with session.socket(f"?since={since}") as again:
            again.sees_hello()
            assert (again.offset, bytes(again.replayed)) == (offset, data)
    _released(session)
    with session.socket("?since=10") as last:
        last.type("echo $V\n")
        last.sees("kept\n")
    assert session.show() == {"session_id": session.id, "running": True, "output_offset": 15}


def _released(session: Session) -> None:
    """Waits until no socket holds the session any more."""
    while True:
        try:
            with session.socket("?since=999999"):
                return
        except InvalidStatus:
            time.sleep(0.01)


def test_a_second_socket_is_refused_and_may_take_over(new: NewSession) -> None:
    session = new()
    with session.socket("?pty=0") as first:
        first.type("V=mine; echo begun\n")
        first.sees("begun")
        with pytest.raises(InvalidStatus) as refused, session.socket():
            pass
        assert refused.value.response.status_code == 409
        assert json.loads(refused.value.response.body or b"")["code"] == "ALREADY_CONNECTED"
        with session.socket("?takeover=1") as second:
            second.sees("begun")
            second.type("echo $V\n")
            second.sees("mine\n")
            assert first.end().closed == (4001, "TAKEN_OVER")


def test_viewers_see_everything_and_change_nothing(new: NewSession) -> None:
    session = new()
    with pytest.raises(InvalidStatus) as early, session.socket("?mode=viewer"):
        pass
    assert early.value.response.status_code == 409
    with session.socket("?pty=0") as holder:
        holder.type("echo before\n")
        holder.sees("before")
        with session.socket("?mode=viewer") as one, session.socket("?mode=viewer&since=3") as other:
            assert one.sees("before").texts == [] or one.texts[0]["role"] == "viewer"
            one.type("echo from a viewer\n")
            one.send(type="signal", signal="SIGKILL")
            one.send(type="ping")
            one.until(lambda: {"type": "pong"} in one.texts)
            holder.type("echo after; exit 5\n")
            assert one.end().replayed == b"before\nafter\n"
            assert other.end().replayed == b"ore\nafter\n"
            assert one.texts[-1] == {"type": "exit", "exit_code": 5}


def test_the_replay_holds_a_mebibyte(new: NewSession) -> None:
    session = new(command="head -c 2000000 /dev/zero | tr '\\0' z; echo >&2; exec sleep 300")
    with session.socket("?pty=0") as first:
        first.until(lambda: first.output[2])
    _released(session)
    with session.socket() as again:
        again.until(lambda: again.texts)
        assert (again.offset, len(again.replayed)) == (2_000_001 - 1024 * 1024, 1024 * 1024)


def test_after_its_end_a_session_starts_again(new: NewSession) -> None:
    session = new(command="echo run")
    with session.socket("?pty=0") as first:
        first.end()
    _released_ended(session)
    with session.socket("?pty=0") as again:
        again.end()
    assert again.order == ["replay", "connected", "out", "exit"]
    assert again.replayed == again.output[1] == b"run\n"


def _released_ended(session: Session) -> None:
    while session.show()["running"]:
        time.sleep(0.01)


def test_signals_and_what_is_no_frame(new: NewSession) -> None:
    with new(
        command="trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    ).socket() as terminal:
        terminal.sees("ready")
        terminal.send(type="zzz")
        terminal.send()
        terminal.socket.send("junk")
        terminal.socket.send('{"type":5}')
        terminal.socket.send(b"")
        terminal.socket.send(b"\7abc")
        terminal.send(type="signal", signal="SIGUSR1")
        terminal.send(type="signal", signal="SIGINT")
        terminal.end()
    kinds = [(text["type"], text.get("code")) for text in terminal.texts[1:]]
    assert kinds == [("error", "INVALID_FRAME"), ("error", "INVALID_FRAME"), ("exit", None)]
    assert terminal.texts[-1]["exit_code"] == 4


def test_a_signal_reaches_the_job_in_the_foreground(new: NewSession) -> None:
    with new().socket() as terminal:
        terminal.type("(trap 'echo caug''ht; exit' TERM; echo beg''un; while :; do sleep 0.05; done)\n")
        terminal.sees("begun")
        terminal.send(type="signal", signal="SIGTERM")
        terminal.sees("caught")


def test_deleting_tells_the_sockets(new: NewSession) -> None:
    session = new()
    with session.socket() as terminal:
        terminal.type("echo beg''un\n")
        terminal.sees("begun")
        assert session.client.delete(f"/pty/{session.id}").status_code == 200
        assert terminal.end().texts[-1] == {"type": "exit", "exit_code": -1}
    assert session.client.get(f"/pty/{session.id}").status_code == 404


def test_a_client_that_does_not_read_holds_the_process_up(start_agent: StartAgent) -> None:
    agent = start_agent()
    with (
        agent.client() as client,
        Session(agent, client, command="yes | head -c 40000000").socket("?pty=0") as terminal,
    ):
        before, seen = agent.memory(), 0
        for _ in range(20):
            time.sleep(0.05)
            seen = max(seen, agent.memory() - before)
        terminal.end()
    assert len(terminal.output[1]) == 40_000_000
    assert seen < 12 * 1024 * 1024


@pytest.mark.parametrize("body", [b'{"command":5}', b"[]", b'{"cwd":"/etc/passwd"}', b'{"envs":{"A=":"1"}}'])
def test_bad_creates(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/pty", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST_BODY")


def test_unknown_sessions(client: httpx.Client) -> None:
    for method, path in (("GET", "/pty/nope"), ("DELETE", "/pty/nope"), ("GET", "/pty/nope/ws")):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "CONTEXT_NOT_FOUND")


def test_variables(start_agent: StartAgent) -> None:
    agent = start_agent(env={"EXECD_ACCESS_TOKEN": "hidden", "JUPYTER_TOKEN": "hidden"})
    agent.env_file.write_text("FROM_FILE=1\n")
    with agent.client(X_EXECD_ACCESS_TOKEN="hidden") as client:
        identifier = client.post("/pty", json={"command": "env", "envs": {"TERM": "vt100"}}).json()["session_id"]
        url = f"ws://127.0.0.1:{agent.port}/pty/{identifier}/ws?pty=0"
        with connect(url, additional_headers={"X-EXECD-ACCESS-TOKEN": "hidden"}) as socket:
            seen = Terminal(socket).end().output[1].decode().splitlines()
    assert {"FROM_FILE=1", "TERM=vt100"} <= set(seen)
    assert not any("hidden" in line or line.startswith("EXECD_ENVS") for line in seen)
