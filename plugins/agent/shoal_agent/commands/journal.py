"""What a run's stream carries, as bytes that several clients may follow, each from its own offset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from shoal_agent.commands import events

MAX_REPLAY_BYTES = 1024 * 1024
"""Bytes behind the end that stay for whoever comes back."""
MAX_AHEAD_BYTES = 256 * 1024
"""How far a run may be ahead of the slowest client that follows before it is held up."""
FIRST_PING_INTERVAL = 0.1
PING_INTERVAL = 3.0
"""Seconds of silence before a ping."""


class OffsetGone(Exception):
    """The bytes from that offset on are not kept any more, or not there yet."""


class Journal:
    """Grows at its end, forgets at its start, ends once.

    `hold` is called when a client falls behind, `release` when it has caught up or is gone. Without followers nothing
    is held up: a run whose client is gone goes on, and the last `MAX_REPLAY_BYTES` bytes wait for its return.
    """

    __slots__ = (
        "_chunks", "_followers", "_held", "_hold", "_kept", "_release", "_waiters", "end", "ended", "start",
    )  # fmt: skip

    def __init__(self, hold: Callable[[], None], release: Callable[[], None]) -> None:
        self._hold, self._release = hold, release
        self._chunks: list[bytes] = []
        self._followers: dict[object, int] = {}
        self._waiters: list[asyncio.Future[bool]] = []
        self._held = False
        self._kept = MAX_REPLAY_BYTES
        self.start = 0
        """Offset of the first byte that is kept."""
        self.end = 0
        """Offset behind the last byte."""
        self.ended = False

    def append(self, data: bytes) -> None:
        self._chunks.append(data)
        self.end += len(data)
        self._trim()
        self._wake()
        self._regulate()

    def finish(self) -> None:
        """Nothing follows."""
        self.ended = True
        self._chunks = [b"".join(self._chunks)]
        self._wake()

    def forget(self) -> None:
        """Gives the memory back as soon as nobody follows any more; nobody can begin to."""
        self._kept = 0
        self._trim()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(True)

    def _trim(self) -> None:
        keep = min(self._followers.values(), default=self.end)
        keep = min(keep, self.end - self._kept)
        count = 0
        while count < len(self._chunks) and self.start + len(self._chunks[count]) <= keep:
            self.start += len(self._chunks[count])
            count += 1
        if count:
            del self._chunks[:count]

    def _regulate(self) -> None:
        behind = self.end - min(self._followers.values(), default=self.end)
        if behind > MAX_AHEAD_BYTES and not self._held:
            self._held = True
            self._hold()
        elif behind <= MAX_AHEAD_BYTES // 2 and self._held:
            self._held = False
            self._release()

    def read(self, offset: int) -> bytes:
        """All from `offset` to the end. Raises `OffsetGone`."""
        if not self.start <= offset <= self.end:
            raise OffsetGone
        skipped, parts = self.start, []
        for chunk in self._chunks:
            if skipped + len(chunk) > offset:
                parts.append(chunk[offset - skipped :] if skipped < offset else chunk)
            skipped += len(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def follow(self, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes from `offset` on as they come, with pings in silence, up to the end. Raises `OffsetGone`."""
        key = object()
        self._followers[key] = offset
        patience = FIRST_PING_INTERVAL
        try:
            while True:
                data = self.read(offset)
                if data:
                    yield data
                    offset += len(data)
                    self._followers[key] = offset
                    self._regulate()
                elif self.ended:
                    return
                elif not await self._more(patience) and not self.ended:
                    self.append(events.ping())
                    patience = PING_INTERVAL
        finally:
            del self._followers[key]
            self._trim()
            self._regulate()

    async def _more(self, seconds: float) -> bool:
        """Waits for bytes or the end. Returns False after `seconds` of silence."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _expire, waiter)
        self._waiters.append(waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiters.remove(waiter)


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
