"""Reconciliation: keeps the view true to what really runs (level-triggered, as Kubernetes controllers are).

For each runtime: a watch tells of changes as they happen, and a full comparison at start, at intervals and after each
gap of the watch repairs whatever a stream lost. Everything is judged on the sandbox's own lane; what was seen before
the last engine call on a sandbox ended is stale, and asks for a fresh comparison instead of deciding anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from shoal.engine import states
from shoal.engine.hosts import Host
from shoal.engine.lanes import Lanes
from shoal.engine.ledger import Ledger
from shoal.models.sandbox import SandboxRecord
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.view.index import View

_Job = Callable[[], Coroutine[Any, Any, None]]
log = structlog.get_logger("shoal.reconcile")

SOON = 0.25
"""Seconds to wait before a comparison that an event asked for, so that a burst costs one."""
STALE = 60.0
"""Seconds; no event or list of the engine is older than this when it is judged."""
BACKOFF_FIRST, BACKOFF_MOST = 0.2, 30.0
"""Seconds between two tries to watch again."""


class Reconciler:
    """Follows one runtime."""

    def __init__(self, host: Host, view: View, ledger: Ledger, lanes: Lanes) -> None:
        self._host = host
        self._view = view
        self._ledger = ledger
        self._lanes = lanes
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted = asyncio.Event()
        self.adopted: Callable[[SandboxRecord], None] = lambda record: None
        """Called with every sandbox that was found running without a record."""

    def start(self) -> None:
        """Begin to follow; `compare` was called once before."""
        loop = asyncio.get_running_loop()
        name = self._host.runtime.name
        self._tasks = [
            loop.create_task(self._watch(), name=f"watch {name}"),
            loop.create_task(self._resync(), name=f"resync {name}"),
        ]

    async def stop(self) -> None:
        """Stop following."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def compare(self) -> None:
        """One full comparison; returns when every difference has been dealt with. Raises what `Runtime.list` raises."""
        seen_at = time.monotonic()
        found = {workload.id: workload for workload in await self._host.runtime.list()}
        jobs = {
            found_id: self._judge(workload, seen_at) for found_id, workload in found.items() if self._differs(workload)
        }
        for entry in self._view:
            record = entry.record
            if record.runtime == self._host.runtime.name and record.id not in found and _should_exist(record):
                jobs[record.id] = self._judge_gone(record.id, seen_at)
        await asyncio.gather(*(self._lanes.post(sandbox_id, job) for sandbox_id, job in jobs.items()))
        self._host.prune(seen_at - STALE)

    def _differs(self, workload: Workload) -> bool:
        entry = self._view.get(workload.id)
        if entry is None:
            return True
        state = states.observed(entry.record, workload.phase)
        return entry.workload != workload or state not in (None, entry.record.state)

    def _judge(self, workload: Workload, seen_at: float) -> _Job:
        async def job() -> None:
            entry = self._view.get(workload.id)
            if self._host.changed_since(workload.id, seen_at):
                self._wanted.set()
            elif entry is None:
                await self._adopt(workload)
            elif entry.record.runtime == self._host.runtime.name:
                await self._observe(entry.record, workload)

        return job

    async def _observe(self, record: SandboxRecord, workload: Workload) -> None:
        self._ledger.see(workload)
        state = states.observed(record, workload.phase)
        if state is not None and state is not record.state:
            await self._ledger.write(record, state=state, reason=workload.reason, message=workload.message)

    def _judge_gone(self, sandbox_id: str, seen_at: float) -> _Job:
        async def job() -> None:
            entry = self._view.get(sandbox_id)
            if entry is None or entry.record.runtime != self._host.runtime.name or not _should_exist(entry.record):
                return
            if self._host.changed_since(sandbox_id, seen_at):
                self._wanted.set()
                return
            log.warning("workload vanished from the engine", sandbox_id=sandbox_id, runtime=self._host.runtime.name)
            await self._ledger.erase(entry.record)

        return job

    async def _adopt(self, workload: Workload) -> None:
        """Take over a workload that nobody recorded: another server's, or one that a lost store knew."""
        adoption = workload.adoption
        if adoption is None or workload.phase is Phase.PENDING:
            return
        record = SandboxRecord(
            id=workload.id,
            runtime=self._host.runtime.name,
            state=states.settled(workload.phase),
            since=workload.since or adoption.created_at,
            created_at=adoption.created_at,
            entrypoint=adoption.entrypoint,
            reason=workload.reason,
            message=workload.message,
            expires_at=adoption.expires_at,
            image=adoption.image,
            snapshot_id=adoption.snapshot_id,
            platform=adoption.platform,
            metadata=adoption.metadata,
            extensions=adoption.extensions,
        )
        await self._ledger.adopt(record, workload)
        self.adopted(record)

    async def _watch(self) -> None:
        backoff = BACKOFF_FIRST
        while True:
            try:
                async for change in self._host.runtime.watch():
                    backoff = BACKOFF_FIRST
                    self._note(change)
                log.warning("watch ended", runtime=self._host.runtime.name)
            except Exception as error:
                log.warning("watch lost", runtime=self._host.runtime.name, error=str(error), again_in=backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, BACKOFF_MOST)
            self._wanted.set()

    def _note(self, change: Workload | WorkloadGone) -> None:
        seen_at = time.monotonic()
        if isinstance(change, WorkloadGone):
            self._lanes.post(change.id, self._judge_gone(change.id, seen_at))
        else:
            self._lanes.post(change.id, self._judge(change, seen_at))

    async def _resync(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._wanted.wait(), self._host.runtime.resync_interval)
                await asyncio.sleep(SOON)
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                await self.compare()
            except Exception as error:
                log.warning("comparison failed", runtime=self._host.runtime.name, error=str(error))


def _should_exist(record: SandboxRecord) -> bool:
    """Whether the engine must hold a workload for this record; one that is being made, unmade or failed need not."""
    return record.state in states.SETTLED and record.purge_at is None
