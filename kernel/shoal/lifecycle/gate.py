"""The gate before an engine: so many calls at once, and the urgent ones first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count


class Priority(IntEnum):
    """Who passes first. Within one priority: first come, first served."""

    TAKE = 0
    """A caller waits for a sandbox that only has to be thawed."""
    NORMAL = 1
    REFILL = 2
    """Nobody waits: members of pools on their way in or out."""


class Gate:
    """At most ``places`` calls at once, of which refills may hold a quarter: others need not wait for them."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._refills = max(1, places // 4)
        self._order = count()
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def place(self, priority: Priority) -> AsyncIterator[None]:
        """Wait for a place and hold it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(priority)  # let in at the very moment of being cancelled
            raise
        try:
            yield
        finally:
            self._leave(priority)

    def _leave(self, priority: Priority) -> None:
        self._free += 1
        self._refills += priority is Priority.REFILL
        self._let_in()

    def _let_in(self) -> None:
        """Wake whoever may pass now. Refills come last in the heap, so one that may not pass holds up nobody."""
        while self._waiting:
            priority, _, turn = self._waiting[0]
            refill = priority is Priority.REFILL
            if turn.done():  # cancelled while it waited
                heapq.heappop(self._waiting)
            elif self._free and (self._refills or not refill):
                heapq.heappop(self._waiting)
                self._free -= 1
                self._refills -= refill
                turn.set_result(None)
            else:
                return
