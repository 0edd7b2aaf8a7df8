"""Changes of workloads, handed to every watcher: the usual body of `Runtime.watch`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from shoal.models.workload import Workload, WorkloadGone

Change = Workload | WorkloadGone

BACKLOG: Final = 50_000
"""Changes that may wait for one watcher."""


class Feed:
    """One queue for each watcher. Used on the event loop only.

    Args:
        backlog: changes that may wait for one watcher. A slower one is dropped: its stream ends, and the kernel
            subscribes anew and compares everything.
    """

    def __init__(self, backlog: int = BACKLOG) -> None:
        self._backlog = backlog
        self._queues: set[asyncio.Queue[Change | None]] = set()

    def publish(self, change: Change) -> None:
        """Hand a change to all who watch now."""
        for queue in list(self._queues):
            if queue.qsize() < self._backlog:
                queue.put_nowait(change)
            else:
                self._drop(queue)

    def close(self) -> None:
        """End every stream once what waits has been read."""
        for queue in self._queues:
            queue.put_nowait(None)
        self._queues.clear()

    def subscribe(self) -> AsyncIterator[Change]:
        """Changes from this call on, until `close` or too long a backlog."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
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
