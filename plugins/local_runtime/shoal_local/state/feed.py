"""Handing changes to everyone who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from shoal.models.workload import Workload, WorkloadGone

Change = Workload | WorkloadGone
BACKLOG = 10_000
"""Changes that may wait for one watcher; it is dropped beyond that and compares everything instead."""


class Feed:
    """One queue for each watcher. Used on the event loop only."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Change | None]] = set()

    def publish(self, change: Change) -> None:
        """Hand a change to all who watch now."""
        for queue in list(self._queues):
            try:
                queue.put_nowait(change)
            except asyncio.QueueFull:
                self._drop(queue)

    def close(self) -> None:
        """End every stream."""
        for queue in list(self._queues):
            self._drop(queue)

    def subscribe(self) -> AsyncIterator[Change]:
        """Changes from this call on, until `close` or too long a backlog."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue(BACKLOG)
        self._queues.add(queue)
        return self._stream(queue)

    async def _stream(self, queue: asyncio.Queue[Change | None]) -> AsyncIterator[Change]:
        try:
            while (change := await queue.get()) is not None:
                yield change
        finally:
            self._queues.discard(queue)

    def _drop(self, queue: asyncio.Queue[Change | None]) -> None:
        self._queues.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)
