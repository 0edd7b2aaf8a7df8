"""HTTP as clients send it: heads, bodies, connections, and what breaks the protocol."""

from __future__ import annotations

import re
import socket

import httpx
import pytest
from tests.agent.program import AgentProcess, StartAgent


def exchange(agent: AgentProcess, request: bytes) -> bytes:
    """All that comes back for `request`, up to the end of the connection."""
    with agent.connect() as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_ping_is_empty(client: httpx.Client) -> None:
    answer = client.get("/ping?x=1")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


def test_a_path_is_decoded_before_it_is_routed(client: httpx.Client) -> None:
    assert client.get("/%70ing").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nope"), ("GET", "/"), ("OPTIONS", "/ping"), ("POST", "/ping"), ("GET", "/PING"), ("GET", "//ping")],
)
def test_what_is_no_route_is_a_plain_404(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, str(client.base_url).rstrip("/") + path)
    assert (answer.status_code, answer.text) == (404, "404 page not found")
    assert answer.headers["content-type"].startswith("text/plain")


def test_head_is_no_route_and_has_no_body(agent: AgentProcess) -> None:
    raw = exchange(agent, b"HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 404 ")
    assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/ping/?a=b", 301), ("GET", "/nope/", 404)])
def test_a_slash_at_the_end_is_redirected(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers.get("location") == ("/ping?a=b" if status == 301 else None)


def test_a_redirect_never_names_another_host(agent: AgentProcess) -> None:
    raw = exchange(agent, b"GET //evil.example/ping/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"Location: //" not in raw


def test_requests_follow_one_another_on_a_connection(agent: AgentProcess) -> None:
    raw = exchange(agent, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 3


@pytest.mark.parametrize(
    "request_head",
    [b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"GET /ping HTTP/1.0\r\n\r\n"],
)
def test_a_connection_ends_when_the_client_asks_for_it(agent: AgentProcess, request_head: bytes) -> None:
    with agent.connect() as connection:
        connection.sendall(request_head)
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in raw


def test_an_unread_body_does_not_disturb_the_next_request(agent: AgentProcess) -> None:
    body = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
    first = b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    chunked = b"POST /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n"
    raw = exchange(agent, first + chunked + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", raw) == [b"404", b"404", b"200"]


def test_a_large_unread_body_ends_the_connection_after_its_answer(agent: AgentProcess) -> None:
    head = b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
    raw = exchange(agent, head + b"x" * 3_000_000)
    assert raw.startswith(b"HTTP/1.1 404 ")
    assert raw.endswith(b"404 page not found")


def test_a_body_that_is_not_wanted_is_not_asked_for(agent: AgentProcess) -> None:
    raw = exchange(agent, b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 404 ")
    assert b"Connection: close\r\n" in raw


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /ping HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\n folded: 1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
        b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(agent: AgentProcess, request_bytes: bytes) -> None:
    raw = exchange(agent, request_bytes + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    head = raw.split(b"\r\n")[0]
    assert head == b"HTTP/1.1 400 Bad Request"
    assert raw.count(b"HTTP/1.1") == 1  # and the connection is over


def test_a_head_without_end_is_refused(agent: AgentProcess) -> None:
    raw = exchange(agent, b"GET /ping HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 70_000)
    assert raw.startswith(b"HTTP/1.1 431 ")


def test_a_head_may_come_byte_by_byte(agent: AgentProcess) -> None:
    with agent.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_it_stops_on_sigterm_with_idle_connections(start_agent: StartAgent) -> None:
    agent = start_agent()
    with agent.connect() as idle, agent.client() as client:
        assert client.get("/ping").status_code == 200
        assert agent.stop() == 0
        assert idle.recv(1) == b""


def test_a_port_in_use_is_said_plainly(agent: AgentProcess, start_agent: StartAgent) -> None:
    with pytest.raises(AssertionError, match=r"cannot listen on 127\.0\.0\.1"):
        start_agent(["--host=127.0.0.1", f"--port={agent.port}"], {"PYTHONUNBUFFERED": "1"})
