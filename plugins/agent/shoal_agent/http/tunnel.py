"""A connection after its upgrade: bytes both ways."""

from __future__ import annotations

import asyncio
from typing import Protocol

from shoal_agent.http.inbox import ConnectionInbox


class TunnelWire(Protocol):
    """The part of the connection that a tunnel writes to."""

    transport: asyncio.Transport

    async def write(self, data: bytes) -> None: ...


class ClientTunnel:
    """Both directions are bounded: an unread side is not received, and a write waits for a slow client."""

    def __init__(self, inbox: ConnectionInbox, wire: TunnelWire) -> None:
        self.inbox = inbox
        self._wire = wire

    async def read(self, limit: int = 256 * 1024) -> bytes:
        """What is there, waiting for something; empty when the client sends no more."""
        return self.inbox.take(limit) if await self.inbox.wait() else b""

    async def write(self, data: bytes) -> None:
        """Raises `Disconnected` when the client is gone."""
        await self._wire.write(data)

    def write_eof(self) -> None:
        """Closes this direction; the other one goes on."""
        if not self._wire.transport.is_closing() and self._wire.transport.can_write_eof():
            self._wire.transport.write_eof()

    def close(self) -> None:
        """Closes both, after what was written is sent."""
        self._wire.transport.close()
