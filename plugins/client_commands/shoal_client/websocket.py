"""A client's side of RFC 6455, as far as a terminal needs it: whole messages, no extensions, blocking."""

from __future__ import annotations

import base64
import os
import threading
from http.client import HTTPConnection
from types import TracebackType
from typing import BinaryIO, Final

from shoal_client.connection import ClientError, ServerClient, failure, reaching

TEXT: Final = 0x1
BINARY: Final = 0x2
_CLOSE, _PING, _PONG = 0x8, 0x9, 0xA
_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024


class ClientWebSocket:
    """One open connection. `receive` is called by one thread, `send` by any. Raises ClientError if it is refused."""

    def __init__(self, server: ServerClient, path: str) -> None:
        self._server = server
        self._sending = threading.Lock()
        self._connection: HTTPConnection = server.connect(timeout=60.0)
        with reaching(server):
            self._connection.request(
                "GET",
                server.prefix + path,
                headers={
                    **server.headers(),
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
                },
            )
            answer = self._connection.getresponse()
        if answer.status != 101:
            raise failure(answer.status, answer.read(), server)
        self._connection.sock.settimeout(None)
        self._file: BinaryIO = answer.fp

    def __enter__(self) -> ClientWebSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def send(self, kind: int, payload: bytes) -> None:
        """One message of kind `TEXT` or `BINARY`. Raises ClientError if the connection is lost."""
        self._send(kind, payload)

    def receive(self) -> tuple[int, bytes] | None:
        """The next message; None once the other side has closed. Raises ClientError if the connection is lost."""
        kind, message = 0, bytearray()
        while True:
            final, opcode, payload = self._frame()
            if opcode == _PING:
                self._send(_PONG, payload)
            elif opcode == _CLOSE:
                self._send(_CLOSE, payload[:2])
                return None
            elif opcode != _PONG:
                kind = opcode or kind
                message += payload
                if len(message) > _MAX_MESSAGE_BYTES:
                    raise ClientError("the server sent a message that is too long")
                if final:
                    return kind, bytes(message)

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(self._read(2 if length == 126 else 8))
        if length > _MAX_MESSAGE_BYTES or second & 0x80:
            raise ClientError("the server sent a malformed WebSocket frame")
        return bool(first & 0x80), first & 0x0F, self._read(length)

    def _read(self, length: int) -> bytes:
        with reaching(self._server):
            data = self._file.read(length)
        if len(data) < length:
            raise ClientError("the connection was lost; the session goes on without it")
        return data

    def _send(self, opcode: int, payload: bytes) -> None:
        key = os.urandom(4)
        size = len(payload)
        if size < 126:
            head = bytes([0x80 | opcode, 0x80 | size])
        elif size < 1 << 16:
            head = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2)
        else:
            head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8)
        pad = int.from_bytes((key * (size // 4 + 1))[:size])
        masked = (int.from_bytes(payload) ^ pad).to_bytes(size)
        with self._sending, reaching(self._server):
            self._connection.sock.sendall(head + key + masked)
