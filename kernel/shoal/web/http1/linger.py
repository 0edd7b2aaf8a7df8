"""`Linger`: a connection that was answered before its client had sent everything (RFC 9112 section 9.6).

Closed at once, the system would reset it, and the answer might never be read. So the sending side is closed, and what
still comes is thrown away, unparsed: for a while, and up to a number of bytes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shoal.web.http1.gate import ConnectionGate

SECONDS: Final = 10.0
BYTES: Final = 32 * 1024 * 1024


class Linger(asyncio.Protocol):
    """The protocol of such a connection, from the end of the answer to its own.

    Attributes:
        deadline: as `shoal.web.http1.gate.Member` has it.
    """

    __slots__ = ("_gate", "_left", "_transport", "_unsent", "deadline")

    def __init__(self, transport: asyncio.Transport, gate: ConnectionGate) -> None:
        self._transport = transport
        self._gate = gate
        self._left = BYTES
        self._unsent = transport.get_write_buffer_size()
        self.deadline = asyncio.get_running_loop().time() + SECONDS

    def begin(self) -> None:
        """Take the connection over."""
        transport = self._transport
        transport.set_protocol(self)
        if transport.can_write_eof():
            transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Throw away."""
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has hung up, or it was made to."""
        self._gate.leave(self)

    def expire(self, now: float) -> None:
        """It had time enough to read the answer, unless it is still taking it."""
        unsent = self._transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._unsent, self.deadline = unsent, now + SECONDS
        else:
            self._transport.abort()

    def evict(self) -> None:
        """Never called: the connection is not idle."""
        self._transport.abort()
