"""Connections to an application, kept for the next request where that is safe."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast

from shoal_agent.http.errors import Disconnected
from shoal_agent.http.inbox import ConnectionInbox

MAX_UNSENT_BYTES = 256 * 1024
"""Unsent bytes from which on a writer waits."""
MAX_IDLE = 32
"""Idle connections per application."""
IDLE_SECONDS = 30.0


class AppConnection(asyncio.Protocol):
    """One connection: bounded in both directions."""

    transport: asyncio.Transport
    inbox: ConnectionInbox

    def __init__(self) -> None:
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self.idle: asyncio.TimerHandle | None = None
        self.on_news: Callable[[], None] | None = None
        """Called when anything happens to an idle connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        self.inbox = ConnectionInbox(self.transport)

    def data_received(self, data: bytes) -> None:
        self.inbox.feed(data)
        self._news()

    def eof_received(self) -> bool:
        self.inbox.end()
        self._news()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.inbox.end()
        self.resume_writing()
        self._news()

    def _news(self) -> None:
        if self.on_news is not None:
            self.on_news()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    async def write(self, data: bytes) -> None:
        """Sends `data`, then waits while too much is unsent. Raises `Disconnected`."""
        if self.transport.is_closing():
            raise Disconnected
        self.transport.write(data)
        while self._paused and not self.transport.is_closing():
            self._writable = asyncio.get_running_loop().create_future()
            try:
                await self._writable
            finally:
                self._writable = None

    def acknowledge_at_once(self) -> None:
        """Lets the kernel acknowledge the next bytes without delay; to be called behind each request.

        Many applications write head and body apart, and their kernel holds the body back until the head is
        acknowledged. On a connection that has been used before that takes 40 ms.
        """
        socket_ = self.transport.get_extra_info("socket")
        if socket_ is not None and socket_.family == socket.AF_INET:
            socket_.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def write_eof(self) -> None:
        """Closes this direction; the other one goes on."""
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def close(self) -> None:
        """Closes both."""
        self.transport.abort()


class UpstreamPool:
    """The idle connections of one application. `connect` makes a new one and raises OSError."""

    def __init__(self, connect: Callable[[], Awaitable[AppConnection]]) -> None:
        self._connect = connect
        self._idle: list[AppConnection] = []

    async def take(self, *, fresh: bool) -> tuple[AppConnection, bool]:
        """A connection, and whether it has been used before, which `fresh` rules out. Raises OSError."""
        while self._idle and not fresh:
            upstream = self._idle.pop()
            self._forget(upstream)
            if upstream.inbox.empty() and not upstream.inbox.ended and not upstream.transport.is_closing():
                return upstream, True
            upstream.close()
        return await self._connect(), False

    def give_back(self, upstream: AppConnection) -> None:
        """Keeps a connection whose last answer is complete."""
        unusable = upstream.inbox.ended or upstream.transport.is_closing() or not upstream.inbox.empty()
        if unusable or len(self._idle) >= MAX_IDLE:
            upstream.close()
            return
        upstream.idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._drop, upstream)
        upstream.on_news = lambda: self._drop(upstream)
        self._idle.append(upstream)

    def close(self) -> None:
        """Closes all that are idle."""
        while self._idle:
            self._drop(self._idle[-1])

    def __len__(self) -> int:
        return len(self._idle)

    def _drop(self, upstream: AppConnection) -> None:
        self._idle.remove(upstream)
        self._forget(upstream)
        upstream.close()

    @staticmethod
    def _forget(upstream: AppConnection) -> None:
        upstream.on_news = None
        if upstream.idle is not None:
            upstream.idle.cancel()
            upstream.idle = None
