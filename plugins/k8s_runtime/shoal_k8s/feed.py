"""Handing changes to everyone who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from shoal.models.workload import Workload, WorkloadGone

Change = Workload | WorkloadGone
BACKLOG: Final = 50_000
"""Changes that may wait for one watcher; it is dropped beyond that, and compares everything instead."""


class Feed:
    """One queue for each watcher. Used on the event loop only."""

    def __init__(self) -> None:
        self._watchers: list[asyncio.Queue[Change | None]] = []

    def publish(self, change: Change) -> None:
        """Hand a change to all who watch now."""
        for queue in list(self._watchers):
            if queue.qsize() < BACKLOG:
                queue.put_nowait(change)
            else:
                self._end(queue)

    def close(self) -> None:
        """End every stream."""
        for queue in list(self._watchers):
            self._end(queue)

    def subscribe(self) -> AsyncIterator[Change]:
        """Changes from this call on, until `close` or too long a backlog."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watchers.append(queue)
        return self._follow(queue)

    async def _follow(self, queue: asyncio.Queue[Change | None]) -> AsyncIterator[Change]:
        try:
            while (change := await queue.get()) is not None:
                yield change
        finally:
            if queue in self._watchers:
                self._watchers.remove(queue)

    def _end(self, queue: asyncio.Queue[Change | None]) -> None:
        self._watchers.remove(queue)
        queue.put_nowait(None)
