"""`ServerConnection`: one connection as the transport has it: whether its client keeps pace, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from math import inf
from typing import TYPE_CHECKING, Any, Final

from shoal.errors import RequestTimeout
from shoal.models.codes import REQUEST_TIMEOUT
from shoal.web.http1.linger import Linger
from shoal.web.http1.reader import RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.server import ServerState

    from shoal.errors import ShoalError
    from shoal.proxy.asgi import Header
    from shoal.web.http1.cycle import Cycle
    from shoal.web.http1.gate import ConnectionGate

READ_AHEAD: Final = 65536
"""Bytes that wait to be parsed, beyond which the client is not read."""
_RESET: Final = struct.pack("ii", 1, 0)
"""As SO_LINGER: closing sends a reset."""


class ServerConnection(asyncio.Protocol):
    """What `HttpProtocol` is made on: pauses, deadlines, the end.

    Attributes:
        transport: the connection itself.
        reader: of what the client sends.
        writable: set once the client has taken enough of what was written; None while it keeps up.
        deadline: of the step that the client is to take next; ``inf`` while it is the server's turn.
        limits: of the server.
        default_headers: of every answer.
    """

    __slots__ = (
        "_blocked",
        "_cycle",
        "_discarding",
        "_gate",
        "_loop",
        "_paused",
        "_state",
        "deadline",
        "limits",
        "reader",
        "transport",
        "writable",
    )

    def __init__(self, gate: ConnectionGate, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self._gate = gate
        self._state: Any = state  # uvicorn's type lists its own protocols only
        self._loop = loop
        self.transport: asyncio.Transport
        self.limits = gate.limits
        self.reader = RequestReader(gate.limits)
        self.writable: asyncio.Event | None = None
        self.deadline = inf
        self._cycle: Cycle | None = None
        self._paused = self._discarding = False
        self._blocked = 0

    @property
    def default_headers(self) -> list[Header]:
        headers: list[Header] = self._state.default_headers
        return headers

    # From the transport.

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._state.connections.discard(self)
        self._gate.leave(self)
        cycle = self._cycle
        if cycle is not None:
            cycle.gone = True
            cycle.wake()
        if self.writable is not None:
            self.writable.set()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.writable = asyncio.Event()
        self._blocked = self.transport.get_write_buffer_size()
        self.deadline = self._loop.time() + self.limits.send_seconds

    def resume_writing(self) -> None:
        """It has caught up."""
        if self.writable is not None:
            self.writable.set()
            self.writable = None
        cycle = self._cycle
        self.deadline = inf
        if cycle is None or self._discarding:
            self.deadline = self._loop.time() + self.limits.idle_seconds
        elif cycle.awaited:
            self.deadline = self._loop.time() + self.limits.body_seconds

    # From the gate.

    def evict(self) -> None:
        """Close, without a word."""
        self.transport.abort()

    def expire(self, now: float) -> None:
        """The client has not taken its step in time."""
        cycle = self._cycle
        if self.writable is not None or self.transport.is_closing():
            self._check_pace(now)
        elif cycle is None:
            if self.reader.rest:
                self._refuse(_too_slow("The head did not arrive in time."))
            else:
                self._close()
        elif cycle.awaited:
            self.deadline = inf
            cycle.failure = _too_slow("The body did not arrive in time.")
            cycle.wake()
        elif self._discarding:
            self._close()
        else:
            self.deadline = inf

    def _check_pace(self, now: float) -> None:
        """A client that reads, if slowly, may go on."""
        size = self.transport.get_write_buffer_size()
        if size >= self._blocked:
            self.transport.abort()
            return
        self._blocked = size
        self.deadline = now + self.limits.send_seconds

    def _refuse(self, error: ShoalError) -> None:
        """Answer what is no request, and close."""
        raise NotImplementedError

    # From the cycle.

    def write(self, data: bytes) -> None:
        """To the client."""
        self.transport.write(data)

    def soon(self, callback: Callable[[], None]) -> None:
        """With the next turn of the event loop."""
        self._loop.call_soon(callback)

    def digested(self) -> None:
        """The application has taken of the body: read on."""
        if self.writable is None:
            self.deadline = inf
        if self._paused and len(self.reader.rest) <= READ_AHEAD:
            self._resume()

    def await_body(self, longest: float) -> None:
        """The application waits for more of the body: the client has to send some within ``longest`` seconds."""
        if self.writable is None:
            self.deadline = self._loop.time() + min(longest, self.limits.body_seconds)

    # The end.

    def end(self, last: bytes) -> None:
        """Write the last bytes and close; if the client may still be sending, let it read them first."""
        if last:
            self.transport.write(last)
        if self.reader.done:
            self._close()
            return
        if self._cycle is not None:
            self._cycle.gone = True
            self._cycle.wake()
        self._state.connections.discard(self)
        self._resume()
        linger = Linger(self.transport, self._gate)
        self._gate.replace(self, linger)
        linger.begin()

    def cut(self, *, silent: bool) -> None:
        """Close within an answer; with a reset where nothing else shows the client that the answer is incomplete."""
        if silent:
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        else:
            self._close()

    def _close(self) -> None:
        """Close once everything is written; a client that does not take it is dropped after a while."""
        self._blocked = self.transport.get_write_buffer_size()
        self.deadline = self._loop.time() + self.limits.send_seconds
        self.transport.close()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()


def _too_slow(why: str) -> RequestTimeout:
    return RequestTimeout(REQUEST_TIMEOUT, why)
