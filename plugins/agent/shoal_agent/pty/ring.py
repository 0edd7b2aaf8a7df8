"""The last output of a terminal, with absolute offsets, and who follows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

MAX_REPLAY_BYTES = 1024 * 1024
"""Bytes that can be replayed."""
MAX_AHEAD_BYTES = 512 * 1024
"""How far the process may be ahead of the socket that holds the terminal; then it is held up."""
FRAME_BYTES = 32 * 1024
"""Bytes of one frame."""


class Ring:
    """`hold` is called when the follower falls behind, `release` when it has caught up or is gone."""

    def __init__(self, hold: Callable[[], None], release: Callable[[], None]) -> None:
        self._hold, self._release = hold, release
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._first = 0
        self._held = False
        self._waiters: set[asyncio.Future[None]] = set()
        self.end = 0
        """Offset behind the last byte."""
        self.follower: int | None = None
        """Where the socket that holds the terminal is; None without one."""

    @property
    def start(self) -> int:
        """Offset of the first byte that is kept."""
        return max(self._first, self.end - MAX_REPLAY_BYTES)

    def append(self, channel: int, data: bytes) -> None:
        self._chunks.append((channel, data))
        self.end += len(data)
        while self._chunks and self._first + len(self._chunks[0][1]) <= self.end - MAX_REPLAY_BYTES:
            self._first += len(self._chunks.popleft()[1])
        self.wake()
        self.regulate()

    def wake(self) -> None:
        """Everybody who waits looks again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def regulate(self) -> None:
        behind = 0 if self.follower is None else self.end - self.follower
        if behind > MAX_AHEAD_BYTES and not self._held:
            self._held = True
            self._hold()
        elif behind <= MAX_AHEAD_BYTES // 2 and self._held:
            self._held = False
            self._release()

    async def changed(self) -> None:
        """Waits for the next `wake`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def read(self, offset: int) -> tuple[int, bytes] | None:
        """Channel and bytes of one frame from `offset` on; None at the end."""
        position = self._first
        for channel, data in self._chunks:
            if position + len(data) > offset:
                skip = max(offset - position, 0)
                return channel, data[skip : skip + FRAME_BYTES]
            position += len(data)
        return None

    def between(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, whatever their channel."""
        position, parts = self._first, []
        for _, data in self._chunks:
            if position + len(data) > start and position < end:
                parts.append(data[max(start - position, 0) : end - position])
            position += len(data)
        return b"".join(parts)
