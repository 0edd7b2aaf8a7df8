"""WebSockets, byte by byte: what a client may and may not send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from tests.agent.program import AgentProcess

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def frame(opcode: int, data: bytes, *, final: bool = True, mask: bytes = b"\1\2\3\4") -> bytes:
    size = len(data)
    head = struct.pack("!BB", opcode | (0x80 if final else 0), 0x80 | size) if size < 126 else b""
    if size >= 126:
        head = struct.pack("!BBH", opcode | 0x80, 0xFE, size)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


@pytest.fixture
def upgraded(agent: AgentProcess) -> Iterator[Any]:
    with agent.client() as client:
        identifier = client.post("/pty", json={"command": "sleep 300"}).json()["session_id"]
        with agent.connect() as connection:
            connection.sendall(_request(f"/pty/{identifier}/ws?pty=0"))
            stream = connection.makefile("rb")
            head = b"".join(iter(stream.readline, b"\r\n"))
            assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # the answer of RFC 6455, section 1.3
            yield connection, stream
        client.delete(f"/pty/{identifier}")


def _request(path: str, **replaced: str) -> bytes:
    fields = {
        "Host": "x",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Key": KEY.decode(),
        "Sec-WebSocket-Version": "13",
        **{name.replace("_", "-"): value for name, value in replaced.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()


def receive(stream: Any) -> tuple[int, bytes]:
    first, size = stream.read(2)
    if size == 126:
        (size,) = struct.unpack("!H", stream.read(2))
    return first & 15, stream.read(size)


def test_fragments_and_pings_between_them(upgraded: Any) -> None:
    connection, stream = upgraded
    assert receive(stream)[0] == 1  # connected
    connection.sendall(frame(1, b'{"type":', final=False) + frame(9, b"abc") + frame(0, b'"ping"}'))
    assert receive(stream) == (10, b"abc")
    assert receive(stream) == (1, b'{"type":"pong"}\n')


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (frame(3, b"x"), 1002),  # no such opcode
        (frame(0x41, b"x"), 1002),  # an extension that was not agreed on
        (frame(0, b"x"), 1002),  # goes on with nothing
        (frame(1, b"x", final=False) + frame(1, b"y"), 1002),
        (frame(9, b"x", final=False), 1002),
        (struct.pack("!BBQ", 0x82, 0xFF, 1 << 40) + b"\1\2\3\4", 1009),
    ],
)
def test_what_breaks_the_protocol_closes_the_socket(upgraded: Any, sent: bytes, code: int) -> None:
    connection, stream = upgraded
    receive(stream)
    connection.sendall(sent)
    opcode, data = receive(stream)
    assert (opcode, int.from_bytes(data[:2])) == (8, code)
    connection.shutdown(socket.SHUT_WR)
    assert stream.read() == b""


def test_a_close_is_answered(upgraded: Any) -> None:
    connection, stream = upgraded
    receive(stream)
    connection.sendall(frame(8, b"\x03\xe8bye"))
    assert receive(stream) == (8, b"\x03\xe8")
    assert stream.read() == b""


@pytest.mark.parametrize(
    "replaced",
    [{"Upgrade": ""}, {"Connection": "close"}, {"Sec_WebSocket_Key": "x"}, {"Sec_WebSocket_Version": "8"}],
)
def test_what_is_no_upgrade_is_400(agent: AgentProcess, replaced: dict[str, str]) -> None:
    with agent.client() as client:
        identifier = client.post("/pty").json()["session_id"]
        with agent.connect() as connection:
            connection.sendall(_request(f"/pty/{identifier}/ws", **replaced))
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
