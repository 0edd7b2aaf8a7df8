"""A WebSocket to a Jupyter server: the client's side of RFC 6455, messages only."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import struct

from shoal_agent.code.jupyter.http import Address, JupyterError, read_head

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Bytes of a message."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class JupyterWebSocket:
    """An open one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, address: Address, path: str) -> JupyterWebSocket:
        """Raises `JupyterError`."""
        key = base64.b64encode(os.urandom(16))
        reader, writer = await address.connect()
        fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        try:
            writer.write(address.head("GET", path, [*fields, ("Sec-WebSocket-Key", key.decode())]))
            await writer.drain()
            async with asyncio.timeout(60):
                status, headers = await read_head(reader)
        except (OSError, TimeoutError):
            writer.close()
            raise JupyterError(f"the Jupyter server at {address} opens no WebSocket") from None
        except BaseException:
            writer.close()
            raise
        expected = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
        if status != 101 or headers.get("sec-websocket-accept") != expected:
            writer.close()
            raise JupyterError(f"the Jupyter server refuses the WebSocket with {status}", status)
        return cls(reader, writer)

    async def send(self, text: str) -> None:
        """Sends a message. Raises `JupyterError` when the connection is gone."""
        try:
            self._write(TEXT, text.encode())
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise JupyterError(f"the connection to the kernel is gone: {error}") from None

    async def receive(self) -> str | bytes | None:
        """The next message; None when the connection is over."""
        parts: list[bytes] = []
        kind = TEXT
        while True:
            try:
                final, code, data = await self._frame()
            except (asyncio.IncompleteReadError, OSError, ValueError):
                return None
            if code == CLOSE:
                return None
            if code == PING:
                self._write(PONG, data)
            elif code != PONG:
                kind = code or kind
                parts.append(data)
                if final:
                    whole = b"".join(parts)
                    return whole.decode("utf-8", "replace") if kind == TEXT else whole

    async def _frame(self) -> tuple[bool, int, bytes]:
        first, second = await self._reader.readexactly(2)
        size = second & 127
        if size == 126:
            size = struct.unpack(">H", await self._reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", await self._reader.readexactly(8))[0]
        if size > MAX_MESSAGE_BYTES or second & 128:
            raise ValueError("a frame that no server may send")
        return bool(first & 128), first & 15, await self._reader.readexactly(size)

    def _write(self, code: int, data: bytes) -> None:
        size, mask = len(data), os.urandom(4)
        if size < 126:
            head = bytes([128 | code, 128 | size])
        elif size < 65536:
            head = struct.pack(">BBH", 128 | code, 128 | 126, size)
        else:
            head = struct.pack(">BBQ", 128 | code, 128 | 127, size)
        self._writer.write(head + mask + _masked(data, mask))

    def close(self) -> None:
        """Closes it without waiting."""
        if not self._writer.is_closing():
            self._write(CLOSE, struct.pack(">H", 1000))
            self._writer.close()


def _masked(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")
