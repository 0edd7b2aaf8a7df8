"""WebSockets (RFC 6455): the server's side, without extensions."""

from __future__ import annotations

import asyncio
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Awaitable, Callable

from shoal_agent.http.digests import sha1
from shoal_agent.http.errors import INVALID_REQUEST_BODY, ApiError, Disconnected
from shoal_agent.http.request import Request
from shoal_agent.http.response import Upgrade
from shoal_agent.http.tunnel import ClientTunnel

TEXT, BINARY = 1, 2
_CONTINUATION, _CLOSE, _PING, _PONG = 0, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one message of a client."""
CLOSE_SECONDS = 2.0
"""How long the client's own close frame is waited for."""


class WebSocket:
    """Messages both ways. `receive`, which answers pings by itself, is for one task at a time; writers may be many."""

    def __init__(self, tunnel: ClientTunnel) -> None:
        self._tunnel = tunnel
        self._writing = asyncio.Lock()
        self._closed = False

    async def receive(self) -> tuple[int, bytes]:
        """The next message: `TEXT` or `BINARY`, and its bytes. Raises `Disconnected` at the end of the connection."""
        kind, parts, size = 0, [], 0
        while True:
            final, opcode, data = await self._frame()
            if opcode >= _CLOSE:
                await self._control(opcode, data)
                continue
            if (opcode == _CONTINUATION) != (kind != 0):
                await self._fail(1002, "a fragment is out of order")
            kind = kind or opcode
            parts.append(data)
            size += len(data)
            if size > MAX_MESSAGE:
                await self._fail(1009, "the message is too large")
            if final:
                return kind, b"".join(parts)

    async def _frame(self) -> tuple[bool, int, bytes]:
        first, second = await self._tunnel.inbox.exactly(2)
        opcode, size = first & 0x0F, second & 0x7F
        if first & 0x70 or not second & 0x80 or opcode not in (0, TEXT, BINARY, _CLOSE, _PING, _PONG):
            await self._fail(1002, "the frame is malformed")
        if opcode >= _CLOSE and (size > 125 or not first & 0x80):
            await self._fail(1002, "the control frame is malformed")
        if size >= 126:
            size = int.from_bytes(await self._tunnel.inbox.exactly(2 if size == 126 else 8))
        if size > MAX_MESSAGE:
            await self._fail(1009, "the message is too large")
        mask = await self._tunnel.inbox.exactly(4)
        return bool(first & 0x80), opcode, _unmask(await self._tunnel.inbox.exactly(size), mask)

    async def _control(self, opcode: int, data: bytes) -> None:
        if opcode == _PING:
            await self._send(_PONG, data)
        elif opcode == _CLOSE:
            if not self._closed:
                self._closed = True
                await self._write(_frame(_CLOSE, data[:2]))
            raise Disconnected

    async def _fail(self, code: int, reason: str) -> None:
        await self._close_frame(code, reason)
        raise Disconnected(reason)

    async def send_text(self, text: str) -> None:
        """Waits while the client is slow. Raises `Disconnected`."""
        await self._send(TEXT, text.encode())

    async def send_binary(self, data: bytes) -> None:
        """Waits while the client is slow. Raises `Disconnected`."""
        await self._send(BINARY, data)

    async def ping(self) -> None:
        """Asks for a sign of life."""
        await self._send(_PING, b"")

    async def _send(self, opcode: int, data: bytes) -> None:
        if self._closed:
            raise Disconnected
        await self._write(_frame(opcode, data))

    async def _write(self, frame: bytes) -> None:
        async with self._writing:
            await self._tunnel.write(frame)

    async def _close_frame(self, code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            await self._write(_frame(_CLOSE, code.to_bytes(2) + reason.encode()[:123]))

    async def close(self, code: int, reason: str) -> None:
        """Sends a close frame. Nothing can be sent after it; the connection ends when its handler returns."""
        await self._close_frame(code, reason)

    async def drain(self) -> None:
        """After `close`: waits a moment for the client's own close frame, so that nothing sent is lost."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while True:
                    await self.receive()
        except (TimeoutError, Disconnected):
            return


def accept(request: Request, talk: Callable[[WebSocket], Awaitable[None]]) -> Upgrade:
    """The answer that makes a WebSocket of a request, for a handler to return. Raises `ApiError` 400 if it is none."""
    headers = request.headers
    key = headers.get("sec-websocket-key") or ""
    if not headers.has_token("upgrade", "websocket") or not headers.has_token("connection", "upgrade"):
        raise ApiError(400, INVALID_REQUEST_BODY, "this path is for WebSockets")
    if headers.get("sec-websocket-version") != "13" or not _is_key(key):
        raise ApiError(400, INVALID_REQUEST_BODY, "a WebSocket needs version 13 and a key of 16 bytes")

    async def run(tunnel: ClientTunnel) -> None:
        await talk(WebSocket(tunnel))

    return Upgrade(run, [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", _accept(key))])


def _is_key(key: str) -> bool:
    try:
        return len(a2b_base64(key)) == 16
    except (Error, ValueError):
        return False


def _accept(key: str) -> str:
    return b2a_base64(sha1(key.encode() + _GUID).digest(), newline=False).decode()


def _frame(opcode: int, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        return bytes((0x80 | opcode, size)) + data
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2) + data
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8) + data


def _unmask(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    keys = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(keys)).to_bytes(size)
