"""Reconciliation: keeps the view true to what really runs (level-triggered, as Kubernetes controllers are).

For each runtime: a watch tells of changes as they happen, and a full comparison at start, at intervals and after each
gap of the watch repairs whatever a stream lost. Everything is judged on the sandbox's own lane, one judgement at a
time, by the latest that was seen. What was seen before the last engine call on a sandbox ended is stale: it decides
nothing, and asks for a fresh comparison. An event never makes or ends a record, only a full list does: the last words
of a workload that was deleted or replaced arrive late.

Where the engine holds the truth for several servers (`SharedTruth`), what it holds is asked at the moment of judging:
events may make records, also of what another server has only begun to make; expiry and metadata are taken from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from shoal.engine import states
from shoal.engine.hosts import Host, own_cancellation
from shoal.engine.lanes import Lanes
from shoal.engine.ledger import Ledger
from shoal.engine.removal import Remover
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.plugin.interfaces import POOL_LABEL, Held, SharedTruth
from shoal.view.index import View

log = structlog.get_logger("shoal.reconcile")

SOON = 0.25
"""Seconds to wait before a comparison that an event asked for, so that a burst costs one."""
EVENT_LAG = 0.5
"""Seconds that an event may have been on its way; within them after an engine call it is taken as stale."""
STALE = 60.0
"""Seconds; no event or list of the engine is older than this when it is judged."""
AGAIN = 5.0
"""Seconds before a judgement that failed is tried again."""
BACKOFF_FIRST, BACKOFF_MOST = 0.2, 2.0
"""Seconds between two tries to watch, or to compare, again."""


class Sighting(NamedTuple):
    """One sandbox, as the engine showed it at a moment (monotonic); ``workload`` None is "not there"."""

    workload: Workload | None
    seen_at: float
    listed: bool


class Reconciler:
    """Follows one runtime."""

    def __init__(self, host: Host, view: View, ledger: Ledger, lanes: Lanes, remover: Remover) -> None:
        self._host = host
        self._view = view
        self._ledger = ledger
        self._lanes = lanes
        self._remover = remover
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted = asyncio.Event()
        self._latest: dict[str, tuple[Sighting, asyncio.Future[None]]] = {}
        self._events: dict[str, float] = {}
        self._away = False
        self.changed: Callable[[SandboxRecord], None] = lambda record: None
        """Called with every sandbox that was found without a record, or whose expiry another server moved."""
        self.making: Callable[[str], bool] = lambda sandbox_id: False
        """Whether this server is making the sandbox itself."""

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
        """One full comparison; returns when every difference has been dealt with.

        Raises what `Runtime.list` raises, or the first failure to write down a difference.
        """
        judged = await asyncio.gather(*await self._look(), return_exceptions=True)
        failures = [outcome for outcome in judged if isinstance(outcome, BaseException)]
        if failures:
            raise failures[0]

    async def _look(self) -> list[asyncio.Future[None]]:
        """List what runs, and have every difference judged; returns the judgements under way."""
        seen_at = time.monotonic()
        self._host.prune(seen_at - STALE)
        self._events = {key: moment for key, moment in self._events.items() if moment >= seen_at - STALE}
        with own_cancellation():
            found = {workload.id: workload for workload in await self._host.runtime.list()}
        judgements = [
            self._judge_soon(workload.id, Sighting(workload, seen_at, listed=True))
            for workload in found.values()
            if self._differs(workload)
        ]
        for entry in self._view:
            record = entry.record
            if self._ours(record) and record.id not in found and self._should_exist(record):
                judgements.append(self._judge_soon(record.id, Sighting(None, seen_at, listed=True)))
        return judgements

    def _differs(self, workload: Workload) -> bool:
        entry = self._view.get(workload.id)
        if entry is None:
            return True
        record = entry.record
        state = self._state(record, workload.phase)
        return (
            entry.workload != workload
            or state not in (None, record.state)
            or _is_remains(record)
            or self._held(record) is not None
        )

    def _judge_soon(self, sandbox_id: str, sighting: Sighting) -> asyncio.Future[None]:
        """Have the sighting judged on the lane; one judgement waits there at most, and the latest sighting counts."""
        pending = self._latest.get(sandbox_id)
        if pending is None:
            judgement = self._lanes.post(sandbox_id, lambda: self._judge(sandbox_id))
        elif pending[0].seen_at > sighting.seen_at:
            return pending[1]
        else:
            judgement = pending[1]
        self._latest[sandbox_id] = (sighting, judgement)
        return judgement

    async def _judge(self, sandbox_id: str) -> None:
        sighting, _ = self._latest.pop(sandbox_id)
        try:
            await self._decide(sandbox_id, sighting)
        except Exception:
            asyncio.get_running_loop().call_later(AGAIN, self._wanted.set)
            raise

    async def _decide(self, sandbox_id: str, sighting: Sighting) -> None:
        entry = self._view.get(sandbox_id)
        workload = sighting.workload
        if entry is None:
            if workload is None or (not sighting.listed and self._host.changed_since(sandbox_id, 0.0)):
                return  # the echo of a removal of ours
            if self._truth is not None and self._truth.held(sandbox_id) is not None:
                await self._adopt(workload)
            elif self._stale(sandbox_id, sighting) or not sighting.listed:
                self._wanted.set()
            else:
                await self._adopt(workload)
        elif not self._ours(entry.record) or (workload is not None and not self._differs(workload)):
            return
        elif self._stale(sandbox_id, sighting):
            self._wanted.set()
        elif workload is not None:
            await self._observe(entry.record, workload)
        elif not self._should_exist(entry.record):
            return
        elif not sighting.listed:
            self._wanted.set()
        else:
            log.warning("workload vanished from the engine", sandbox_id=sandbox_id, runtime=self._host.runtime.name)
            await self._remover.forget(entry.record)

    def _stale(self, sandbox_id: str, sighting: Sighting) -> bool:
        """Whether something happened to it that the sighting cannot know of."""
        newer = self._events.get(sandbox_id, -1.0) if sighting.listed else -1.0
        return newer >= sighting.seen_at or self._host.changed_since(sandbox_id, sighting.seen_at)

    async def _observe(self, record: SandboxRecord, workload: Workload) -> None:
        self._ledger.see(workload)
        if record.state in states.UNDER_WAY and not self._tasks:
            return  # found so at start: it will be finished, not settled
        held = self._held(record)
        if held is not None:
            entry = await self._ledger.write(record, expires_at=held.expires_at, metadata=held.metadata)
            record = entry.record
            self.changed(record)
        state = self._state(record, workload.phase)
        if state is not None and state is not record.state:
            await self._ledger.write(record, state=state, reason=workload.reason, message=workload.message)
        elif _is_remains(record):
            await self._remover.clear(record)
        elif self._made_elsewhere(record) and workload.reason is not None:
            self._ledger.progress(record.id, workload.reason, workload.message or "")

    def _state(self, record: SandboxRecord, phase: Phase) -> State | None:
        """The state that the record should have; None if the engine's word tells nothing."""
        if self._made_elsewhere(record):
            return None if phase is Phase.PENDING else states.settled(phase)
        return states.observed(record, phase)

    def _held(self, record: SandboxRecord) -> Held | None:
        """What the engine holds of it for all servers, where that differs from the record; None else."""
        if self._truth is None or record.state is State.STOPPING or record.purge_at is not None:
            return None
        held = self._truth.held(record.id)
        return None if held == Held(expires_at=record.expires_at, metadata=record.metadata) else held

    def _made_elsewhere(self, record: SandboxRecord) -> bool:
        """Whether it is another server's to make, or was before a restart of this one."""
        return self._truth is not None and record.state is State.PENDING and not self.making(record.id)

    @property
    def _truth(self) -> SharedTruth | None:
        return self._host.runtime.truth

    def _ours(self, record: SandboxRecord) -> bool:
        return record.runtime == self._host.runtime.name

    def _should_exist(self, record: SandboxRecord) -> bool:
        """Whether the engine must hold a workload for this record; one being made, unmade or failed need not."""
        settled = states.SETTLED | states.UNDER_WAY if self._tasks else states.SETTLED
        return (record.state in settled and record.purge_at is None) or (
            bool(self._tasks) and self._made_elsewhere(record)
        )

    async def _adopt(self, workload: Workload) -> None:
        """Take over a workload that nobody recorded: another server's, or one that a lost store knew."""
        adoption = workload.adoption
        pending = workload.phase is Phase.PENDING
        if adoption is None or (pending and self._truth is None):
            return
        if POOL_LABEL in workload.labels and workload.phase is Phase.PAUSED:
            return  # it waits in a pool of another server's: nobody has it
        record = SandboxRecord(
            id=workload.id,
            runtime=self._host.runtime.name,
            state=State.PENDING if pending else states.settled(workload.phase),
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
        self.changed(record)

    async def _watch(self) -> None:
        backoff = BACKOFF_FIRST
        while True:
            self._wanted.set()  # for what happened before the watch began
            try:
                with own_cancellation():
                    async for change in self._host.runtime.watch():
                        backoff = BACKOFF_FIRST
                        self._note(change)
                why = "it ended"
            except Exception as error:
                why = str(error)
            if backoff == BACKOFF_FIRST:
                log.warning("watch lost", runtime=self._host.runtime.name, error=why)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, BACKOFF_MOST)

    def _note(self, change: Workload | WorkloadGone) -> None:
        now = time.monotonic()
        workload = None if isinstance(change, WorkloadGone) else change
        self._events[change.id] = now
        if workload is None or self._differs(workload):
            self._judge_soon(change.id, Sighting(workload, now - EVENT_LAG, listed=False))

    async def _resync(self) -> None:
        interval = self._host.runtime.resync_interval
        pause = interval
        while True:
            try:
                async with asyncio.timeout(pause):  # not wait_for: that of 3.11 can swallow the cancellation of `stop`
                    await self._wanted.wait()
                await asyncio.sleep(SOON)
            except TimeoutError:
                pass
            self._wanted.clear()
            pause = interval if await self._seen() else BACKOFF_MOST

    async def _seen(self) -> bool:
        """Compare; whether that worked. Told once when it stops working, and once when it works again."""
        name = self._host.runtime.name
        try:
            await self._look()
        except Exception as error:
            if not self._away:
                log.warning("comparison failed, tried again until it works", runtime=name, error=str(error))
            self._away = True
            return False
        if self._away:
            log.info("comparison works again", runtime=name)
            self._away = False
            self._finish_removals()
        return True

    def _finish_removals(self) -> None:
        """Those that the engine's absence held up need not wait for their next try."""
        for entry in self._view:
            if entry.record.state is State.STOPPING and self._ours(entry.record):
                self._remover.hurry(entry.record)


def _is_remains(record: SandboxRecord) -> bool:
    """Whether the engine must not hold a workload for this record: its create failed, and so did the clean-up."""
    return record.purge_at is not None and record.state is not State.STOPPING
