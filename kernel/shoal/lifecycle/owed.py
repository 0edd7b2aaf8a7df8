"""Removals that the store could not take, because its disk is full or it is away: written as soon as it takes them.

Nothing is lost if the process dies before that. What such a record stands for is gone from its engine, so the next
start finds the record without a workload and lets go of it.
"""

from __future__ import annotations

import asyncio

import structlog

from shoal.plugin.interfaces import Store

log = structlog.get_logger("shoal.lifecycle")

RETRY_SECONDS = 1.0
"""Between two tries of what is owed."""


class Owed:
    """Ids of sandboxes that are gone, and whose records are still in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids: set[str] = set()
        self._writing: asyncio.Task[None] | None = None

    def __contains__(self, sandbox_id: str) -> bool:
        return sandbox_id in self._ids

    def add(self, sandbox_id: str, error: Exception) -> None:
        """The store failed with ``error`` to remove the record; try until it does not."""
        log.warning("a removal could not be written, will be tried again", sandbox_id=sandbox_id, error=str(error))
        self._ids.add(sandbox_id)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="owed removals")

    def discard(self, sandbox_id: str) -> None:
        """The record is in use again: its workload was found."""
        self._ids.discard(sandbox_id)

    async def stop(self) -> None:
        """One last try."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None
        await self._try()

    async def _write(self) -> None:
        while self._ids:
            await asyncio.sleep(RETRY_SECONDS)
            await self._try()

    async def _try(self) -> None:
        for sandbox_id in list(self._ids):
            try:
                await self._store.remove(sandbox_id)
            except Exception:
                return  # logged once; the others would fare no better
            self._ids.discard(sandbox_id)
            log.info("a removal that was owed is written", sandbox_id=sandbox_id)
