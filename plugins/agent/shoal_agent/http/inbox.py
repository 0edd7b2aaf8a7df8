"""Bytes that arrived and nobody has read yet, bounded by pausing the transport."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from shoal_agent.http.errors import Disconnected, ProtocolError

MAX_UNREAD_BYTES = 512 * 1024
"""Unread bytes from which on the transport is not read."""


class ConnectionInbox:
    """Filled by the protocol, emptied by the one task that serves the connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._chunks: deque[bytes] = deque()
        self._first = b""
        self._position = 0
        self._later = 0
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self.ended = False
        """Whether the client sends no more."""
        self.on_end: Callable[[], None] | None = None
        """Called when the client has closed its side, or is gone."""

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._later += len(data)
        if self._later > MAX_UNREAD_BYTES and not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()
        if self.on_end is not None:
            self.on_end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def empty(self) -> bool:
        return self._position == len(self._first) and not self._chunks

    async def wait(self) -> bool:
        """Waits until bytes are there. Returns False when the client sends no more."""
        while self.empty():
            if self.ended:
                return False
            await self._arrival()
        return True

    async def _arrival(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self, limit: int) -> bytes:
        """Up to `limit` of the bytes that are there; empty if there are none."""
        if self._position == len(self._first):
            if not self._chunks:
                return b""
            self._first, self._position = self._next(), 0
        if self._position == 0 and len(self._first) <= limit:
            data, self._first = self._first, b""
            return data
        data = self._first[self._position : self._position + limit]
        self._position += len(data)
        return data

    async def exactly(self, count: int) -> bytes:
        """`count` bytes. Raises `Disconnected`."""
        parts = []
        while count:
            if not await self.wait():
                raise Disconnected
            parts.append(self.take(count))
            count -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def until(self, separator: bytes, limit: int) -> bytes:
        """The bytes up to and with `separator`. Raises `ProtocolError` 431 past `limit` bytes, `Disconnected`."""
        seen = 0
        while True:
            start = max(self._position, self._position + seen - len(separator) + 1)
            found = self._first.find(separator, start)
            if found >= 0 and found + len(separator) - self._position <= limit:
                return self.take(found + len(separator) - self._position)
            seen = len(self._first) - self._position
            if seen >= limit or found >= 0:
                raise ProtocolError(431, "the head is too large")
            while not self._chunks:
                if self.ended:
                    raise Disconnected
                await self._arrival()
            self._first, self._position = self._first[self._position :] + self._next(), 0

    def _next(self) -> bytes:
        data = self._chunks.popleft()
        self._later -= len(data)
        if self._paused and self._later < MAX_UNREAD_BYTES // 4 and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return data
