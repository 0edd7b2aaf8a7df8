"""The port proxy of the real program, before applications that behave and some that do not."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.agent.program import AgentProcess, StartAgent
from tests.agent.proxy.apps import App, raw, running


@pytest.fixture
def app() -> Iterator[App]:
    with running(App()) as found:
        yield found


def ask(agent: AgentProcess, port: int, target: str, method: str = "GET", **more: Any) -> httpx.Response:
    with agent.client() as client:
        return client.request(method, f"/proxy/{port}{target}", **more)


def bytes_of(agent: AgentProcess, request: bytes) -> bytes:
    """All that is answered to one request on a connection of its own."""
    with agent.connect() as connection:
        connection.sendall(request)
        received = b""
        while data := connection.recv(65536):
            received += data
    return received


def test_paths_and_queries_arrive_as_they_were_sent(agent: AgentProcess, app: App) -> None:
    for target in ("/a%2Fb%20c", "/x//y/../z/.", "/?q=%2F&a=1&a=2", "/%F0%9F", "/a;b@c:d", "/q?"):
        request = f"GET /proxy/{app.port}{target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"
        body = bytes_of(agent, request.encode()).partition(b"\r\n\r\n")[2]
        assert json.loads(body)["path"] == target
    assert ask(agent, app.port, "").json()["path"] == "/"
    assert ask(agent, app.port, "?a=1").json()["path"] == "/?a=1"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_any_method(agent: AgentProcess, app: App, method: str) -> None:
    assert ask(agent, app.port, "/x", method).json()["method"] == method


def test_head_has_the_length_and_no_body(agent: AgentProcess, app: App) -> None:
    answer = ask(agent, app.port, "/bytes", "HEAD")
    assert (answer.headers["content-length"], answer.content) == ("5000000", b"")


def test_fields_arrive_but_for_those_of_the_connection(agent: AgentProcess, app: App) -> None:
    request = (
        f"GET /proxy/{app.port}/ HTTP/1.1\r\nHost: app.test\r\nX-A: 1\r\nx-a: 2\r\nCookie: k=v\r\nX-Mine: 3\r\n"
        "Accept-Encoding: br\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nConnection: close, X-Mine\r\n\r\n"
    )
    body = json.loads(bytes_of(agent, request.encode()).partition(b"\r\n\r\n")[2])
    assert body["fields"] == [
        ["host", "app.test"],
        ["x-a", "1"],
        ["x-a", "2"],
        ["cookie", "k=v"],
        ["accept-encoding", "br"],
        ["x-forwarded-for", "127.0.0.1"],
        ["x-forwarded-proto", "http"],
    ]


def test_where_it_comes_from_is_added_to(agent: AgentProcess, app: App) -> None:
    headers = {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https"}
    fields = dict(ask(agent, app.port, "/", headers=headers).json()["fields"])
    assert fields["x-forwarded-for"] == "9.9.9.9, 127.0.0.1"
    assert fields["x-forwarded-proto"] == "https"


def test_the_token_stays_here(start_agent: StartAgent, app: App) -> None:
    agent = start_agent(["--access-token", "sesame"])
    assert ask(agent, app.port, "/").status_code == 401
    answer = ask(agent, app.port, "/", headers={"X-EXECD-ACCESS-TOKEN": "sesame"})
    assert "sesame" not in answer.text
    assert "x-execd-access-token" not in answer.text


def test_answers_are_handed_back_as_they_are(agent: AgentProcess, app: App) -> None:
    answer = ask(agent, app.port, "/date")
    assert answer.headers.get_list("date") == ["then"]
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["server"] == "mine"
    answer = ask(agent, app.port, "/redirect")
    assert (answer.status_code, answer.headers["location"]) == (302, "/there")
    for status in (204, 304, 418, 500):
        assert ask(agent, app.port, f"/status/{status}").status_code == status


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_both_ways(agent: AgentProcess, app: App, chunked: bool) -> None:
    body = b"0123456789" * 300_000

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    told = ask(agent, app.port, "/", "POST", content=pieces() if chunked else body).json()
    assert told["body"].encode() == body
    lengths = [value for name, value in told["fields"] if name == "content-length"]
    assert lengths == ([] if chunked else [str(len(body))])
    assert len(ask(agent, app.port, "/bytes").content) == 5_000_000


def test_pieces_come_when_they_are_sent(agent: AgentProcess, app: App) -> None:
    with agent.client() as client, client.stream("GET", f"/proxy/{app.port}/chunks") as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first"
        app.go_on.set()
        assert b"".join(pieces) == b"second"


def test_connections_are_used_again(agent: AgentProcess, app: App) -> None:
    with agent.client() as client:
        for _ in range(20):
            assert client.get(f"/proxy/{app.port}/").status_code == 200
    assert app.connections == 1


def test_head_and_body_written_apart_do_not_wait_for_each_other(agent: AgentProcess) -> None:
    """The kernel's delayed acknowledgement would make each answer on a used connection 40 ms late."""

    def talk(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            connection.sendall(b"ok")

    seconds = []
    with raw(talk) as port, agent.client() as client:
        for _ in range(100):
            began = time.monotonic()
            assert client.get(f"/proxy/{port}/").text == "ok"
            seconds.append(time.monotonic() - began)
    assert min(seconds[50:]) < 0.015


def test_an_application_that_closed_an_idle_connection(agent: AgentProcess) -> None:
    seen: list[bytes] = []

    def once(connection: socket.socket) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with raw(once) as port:
        assert [ask(agent, port, "/").text for _ in range(5)] == ["ok"] * 5
    assert len(seen) == 5


def test_a_request_is_repeated_only_if_that_is_safe(agent: AgentProcess) -> None:
    """The application takes a second request on a connection and closes without an answer."""
    seen: list[bytes] = []

    def second_fails(connection: socket.socket) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        seen.append(connection.recv(65536))

    with raw(second_fails) as port:
        assert [ask(agent, port, "/").text for _ in range(3)] == ["ok"] * 3
        seen.clear()
        assert ask(agent, port, "/", "POST").text == "ok"
        assert sum(data.startswith(b"POST") for data in seen) == 1


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\n\nbare line feeds", b"bare line feeds"),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nno colon here\r\nContent-Length: 2\r\n\r\nok and more", b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
def test_applications_that_speak_a_little_http(agent: AgentProcess, answer: bytes, body: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with raw(talk) as port:
        found = ask(agent, port, "/")
        assert (found.status_code, found.content) == (200, body)


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "],
)
def test_what_is_no_answer(agent: AgentProcess, answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with raw(talk) as port:
        found = ask(agent, port, "/")
    assert found.status_code == 502
    assert found.headers["content-type"].startswith("text/plain")


def test_an_answer_that_breaks_off_is_seen_to(agent: AgentProcess) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    with raw(talk) as port, pytest.raises(httpx.RemoteProtocolError):
        ask(agent, port, "/")


def test_an_answer_before_the_body_has_been_read(agent: AgentProcess) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    with raw(talk) as port:
        for size in (200_000, 3_000_000):
            request = f"POST /proxy/{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
            with agent.connect() as connection:
                connection.sendall(request + b"x" * 100_000)
                assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        assert ask(agent, port, "/").status_code == 413


def test_a_client_that_goes_away_ends_its_request(agent: AgentProcess) -> None:
    gone = threading.Event()

    def wait(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nbegun")
        while connection.recv(65536):
            pass
        gone.set()

    with raw(wait) as port:
        with agent.connect() as connection:
            connection.sendall(f"GET /proxy/{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(65536)
        assert gone.wait(20)


def test_a_client_that_goes_away_before_the_answer(agent: AgentProcess) -> None:
    asked, gone = threading.Event(), threading.Event()

    def wait(connection: socket.socket) -> None:
        connection.recv(65536)
        asked.set()
        while connection.recv(65536):
            pass
        gone.set()

    with raw(wait) as port:
        with agent.connect() as connection:
            connection.sendall(f"GET /proxy/{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert asked.wait(20)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert gone.wait(20)


@pytest.mark.parametrize("port", ["abc", "0", "-1", "99999", "%20", "1%2F2"])
def test_what_is_no_port(agent: AgentProcess, port: str) -> None:
    with agent.client() as client:
        assert client.get(f"/proxy/{port}/x").status_code == 400


def test_without_a_port_and_without_a_listener(agent: AgentProcess) -> None:
    with agent.client() as client:
        assert client.get("/proxy/").status_code == 400
        assert client.get("/proxy").status_code == 400
        assert client.get("/proxyx/80/").text == "404 page not found"
        answer = client.get("/proxy/1/x")
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/plain; charset=utf-8")


def test_memory_stays_flat_before_a_slow_client(agent: AgentProcess) -> None:
    """An application that sends without end, and a client that does not read."""

    def flood(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(2000):
            connection.sendall(b"x" * 1_000_000)

    with raw(flood) as port, agent.connect() as connection:
        before = agent.memory()
        connection.sendall(f"GET /proxy/{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = 0
        while received < 50_000_000:
            received += len(connection.recv(1_000_000))
        assert agent.memory() - before < 10_000_000
