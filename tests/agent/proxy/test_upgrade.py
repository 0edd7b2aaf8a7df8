"""WebSockets and other upgrades through the port proxy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from tests.agent.program import AgentProcess
from tests.agent.proxy.apps import raw
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve


@pytest.fixture
def port() -> Iterator[int]:
    """Answers every message with the same, after the path."""

    def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.send(connection.request.path)
        for message in connection:
            connection.send(message)
            if message == "bye":
                return

    with serve(echo, "127.0.0.1", 0, subprotocols=["chat"], max_size=None) as server:  # type: ignore[list-item]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.socket.getsockname()[1]
        server.shutdown()


def test_messages_both_ways(agent: AgentProcess, port: int) -> None:
    url = f"ws://127.0.0.1:{agent.port}/proxy/{port}/a%2Fb?q=1"
    with connect(url, subprotocols=["chat"], max_size=None) as socket_:  # type: ignore[list-item]
        assert socket_.subprotocol == "chat"
        assert socket_.recv() == "/a%2Fb?q=1"
        for message in ("é", b"\0\xff", "x" * 2_000_000, ""):
            socket_.send(message)
            assert socket_.recv() == message
        socket_.send("bye")
        assert socket_.recv() == "bye"
        with pytest.raises(ConnectionClosedOK):
            socket_.recv()


def test_an_application_that_refuses(agent: AgentProcess) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")

    with raw(refuse) as port, pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{agent.port}/proxy/{port}/")


def test_any_other_protocol(agent: AgentProcess) -> None:
    heads: list[bytes] = []
    gone = threading.Event()

    def talk(connection: socket.socket) -> None:
        heads.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: mine\r\nConnection: Upgrade\r\n\r\nhello")
        while data := connection.recv(65536):
            connection.sendall(data.upper())
        gone.set()

    with raw(talk) as port:
        with agent.connect() as connection:
            upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: mine\r\n"
            connection.sendall(f"GET /proxy/{port}/ HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n".encode())
            received = b""
            while not received.endswith(b"hello"):
                received += connection.recv(65536)
            assert received.startswith(b"HTTP/1.1 101 ")
            assert b"Upgrade: mine\r\n" in received
            connection.sendall(b"abc")
            assert connection.recv(65536) == b"ABC"
        assert gone.wait(20)
    assert b"Connection: Upgrade\r\nUpgrade: mine\r\n" in heads[0]
