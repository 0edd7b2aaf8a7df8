"""uvicorn's HTTP protocol with an answer's head and the start of its body in one packet, and in one system call.

uvicorn writes the head as soon as it is known, and the body after it. For the small answers of a control plane the
second write is a fifth of the whole cost, so the head is held back until the body follows or the event loop turns.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD = b"HTTP/1."
_JOINED_BYTES = 65536
"""Bodies beyond this are written by themselves: copying them would cost more than a system call."""


class CorkedHttpProtocol(HttpToolsProtocol):
    """What ``uvicorn.Config(http=…)`` takes instead of ``httptools``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base has it
        """Begin, on a transport that holds heads back."""
        super().connection_made(cast("asyncio.Transport", Cork(transport, self.loop)))


class Cork:
    """A transport that behaves as the one it wraps, except that a head waits for what is written next."""

    __slots__ = ("_head", "_loop", "_transport", "_write")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._write: Callable[[bytes], None] = transport.write
        self._loop = loop
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """As `asyncio.WriteTransport.write`."""
        head = self._head
        if head is not None:
            self._head = None
            if len(data) <= _JOINED_BYTES:
                self._write(head + data)
                return
            self._write(head)
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._write(data)

    def close(self) -> None:
        """Send what is held, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._write(head)

    @property
    def wrapped(self) -> asyncio.Transport:
        """The transport itself, for what speaks another protocol from now on."""
        self._flush()
        return self._transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
