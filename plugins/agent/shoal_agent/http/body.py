"""The body of a request, read piece by piece as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from shoal_agent.http.errors import ApiError, Disconnected, ProtocolError
from shoal_agent.http.inbox import ConnectionInbox

PIECE = 256 * 1024
"""The most that one read returns, in bytes."""
MAX_LINE = 4096
MAX_TRAILERS = 16 * 1024


class Body:
    """Reading it slowly slows the client down: no more than `inbox.HIGH` bytes wait here."""

    def __init__(self, inbox: ConnectionInbox, length: int, expected: Callable[[], None] | None) -> None:
        self._inbox = inbox
        self._chunked = length < 0
        self._left = max(length, 0)
        self._started = False
        self._expected = expected
        self.finished = length == 0
        """Whether all of it has been read."""
        self.length = None if length < 0 else length
        """Its length in bytes, None if the client did not state it (chunked)."""

    def when_client_ends(self, act: Callable[[], None] | None) -> None:
        """Calls `act` when the client closes its side from now on, or is gone; None takes that back."""
        self._inbox.on_end = act

    async def read(self) -> bytes:
        """The next bytes, at most `PIECE`; empty at the end. Raises `Disconnected` if the client breaks off."""
        if self.finished:
            return b""
        if self._expected is not None:
            self._expected()
            self._expected = None
        if self._chunked and self._left == 0 and not await self._next_chunk():
            return b""
        if not await self._inbox.wait():
            raise Disconnected
        data = self._inbox.take(min(self._left, PIECE))
        self._left -= len(data)
        if self._left == 0 and not self._chunked:
            self.finished = True
        return data

    async def _next_chunk(self) -> bool:
        if self._started and await self._inbox.exactly(2) != b"\r\n":
            raise ProtocolError(400, "malformed chunk")
        self._started = True
        line = await self._inbox.until(b"\r\n", MAX_LINE)
        size = line[:-2].partition(b";")[0].rstrip(b" \t")
        if not size or len(size) > 15 or size.strip(b"0123456789abcdefABCDEF"):
            raise ProtocolError(400, "malformed chunk size")
        self._left = int(size, 16)
        if self._left == 0:
            await self._trailers()
            self.finished = True
        return self._left > 0

    async def _trailers(self) -> None:
        budget = MAX_TRAILERS
        while (line := await self._inbox.until(b"\r\n", budget)) != b"\r\n":
            budget -= len(line)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    async def whole(self, limit: int) -> bytes:
        """All of it. Raises `ApiError` 413 past `limit` bytes."""
        if self.length is not None and self.length > limit:
            raise too_large(limit)
        parts, size = [], 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                raise too_large(limit)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def unasked(self) -> bool:
        """Whether the client still waits for leave to send it (``Expect: 100-continue``)."""
        return self._expected is not None and not self.finished


def too_large(limit: int) -> ApiError:
    return ApiError(413, "INVALID_REQUEST_BODY", f"the body is larger than {limit} bytes")
