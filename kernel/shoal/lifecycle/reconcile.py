"""Reconciliation: keeps the view true to what really runs (level-triggered).

For each runtime: a watch reports changes as they happen, and a full comparison at start, at intervals and after each
gap of the watch repairs whatever a stream lost. Each sighting is judged on the sandbox's own lane (`Judge`), one at a
time, by the latest that was seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from shoal.errors import StoreFull
from shoal.kit.backoff import Backoff
from shoal.lifecycle import states
from shoal.lifecycle.hosts import Host, own_cancellation
from shoal.lifecycle.judge import Judge, Sighting
from shoal.lifecycle.lanes import Lanes
from shoal.lifecycle.removal import Remover
from shoal.models.sandbox import State
from shoal.models.workload import Workload, WorkloadGone
from shoal.plugin.calls import bounded
from shoal.view.index import View

log = structlog.get_logger("shoal.reconcile")

COALESCE_SECONDS = 0.25
"""Seconds to wait before a comparison that an event asked for, so that a burst costs one."""
MAX_EVENT_LAG = 0.5
"""Seconds that an event may have been on its way; within them after an engine call it is taken as stale."""
MAX_SIGHTING_AGE = 60.0
"""Seconds; no event or list of the engine is older than this when it is judged."""
RETRY_SECONDS = 5.0
"""Seconds before a judgement that failed is tried again."""
WATCH_BACKOFF_FIRST, WATCH_BACKOFF_MAX = 0.2, 2.0
"""Seconds between two tries to watch, or to compare, again."""


class Reconciler:
    """Follows one runtime.

    Args:
        list_timeout: seconds that `Runtime.list` may take.
    """

    @property
    def host(self) -> Host:
        """Whose runtime it follows."""
        return self._host

    def __init__(
        self, host: Host, view: View, lanes: Lanes, remover: Remover, judge: Judge, list_timeout: float
    ) -> None:
        self._host = host
        self._list_timeout = list_timeout
        self._view = view
        self._lanes = lanes
        self._remover = remover
        self._judge = judge
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted = asyncio.Event()
        self._latest: dict[str, tuple[Sighting, asyncio.Future[None]]] = {}
        self._events: dict[str, float] = {}
        self._away = False

    def start(self) -> None:
        """Begin to follow; `compare` was called once before."""
        loop = asyncio.get_running_loop()
        name = self._host.runtime.name
        self._judge.following = True
        self._tasks = [
            loop.create_task(self._watch(), name=f"watch {name}"),
            loop.create_task(self._resync(), name=f"resync {name}"),
        ]

    async def stop(self) -> None:
        """Stop following."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def compare(self, listed: Callable[[], None] = lambda: None) -> None:
        """One full comparison; returns when every difference has been dealt with.

        ``listed`` is called once the runtime was listed, before anything is judged.

        Raises ComponentFailure if the runtime cannot be listed, or the first failure to write down a difference. A
        store that is full is no such failure: the difference is judged again soon.
        """
        judged = await asyncio.gather(*await self._look(listed), return_exceptions=True)
        failures = [
            outcome for outcome in judged if isinstance(outcome, BaseException) and not isinstance(outcome, StoreFull)
        ]
        if failures:
            raise failures[0]

    async def _look(self, listed: Callable[[], None] = lambda: None) -> list[asyncio.Future[None]]:
        """List what runs, and have every difference judged; returns the judgements under way."""
        seen_at = time.monotonic()
        self._host.prune(seen_at - MAX_SIGHTING_AGE)
        self._events = {key: moment for key, moment in self._events.items() if moment >= seen_at - MAX_SIGHTING_AGE}
        found = await bounded(self._host.part, "list", self._listed, self._list_timeout)
        listed()
        judgements = [
            self._judge_soon(workload.id, Sighting(workload, seen_at, listed=True))
            for workload in found.values()
            if self._judge.differs(workload)
        ]
        for entry in self._view:
            record = entry.record
            if record.id not in found and self._judge.misses(record):
                judgements.append(self._judge_soon(record.id, Sighting(None, seen_at, listed=True)))
        return judgements

    async def _listed(self) -> dict[str, Workload]:
        found = await self._host.runtime.list()
        if not isinstance(found, list) or not all(isinstance(each, Workload) for each in found):
            raise TypeError("list must return a list of Workload")
        return {workload.id: workload for workload in found}

    def _judge_soon(self, sandbox_id: str, sighting: Sighting) -> asyncio.Future[None]:
        """Have the sighting judged on the lane; one judgement waits there at most, and the latest sighting counts."""
        pending = self._latest.get(sandbox_id)
        if pending is None:
            judgement = self._lanes.post(sandbox_id, lambda: self._judged(sandbox_id))
        elif pending[0].seen_at > sighting.seen_at:
            return pending[1]
        else:
            judgement = pending[1]
        self._latest[sandbox_id] = (sighting, judgement)
        return judgement

    async def _judged(self, sandbox_id: str) -> None:
        sighting, _ = self._latest.pop(sandbox_id)
        newer = self._events.get(sandbox_id, -1.0) if sighting.listed else -1.0
        try:
            if await self._judge.decide(sandbox_id, sighting, outdated=newer >= sighting.seen_at):
                self._wanted.set()
        except Exception:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._wanted.set)
            raise

    async def _watch(self) -> None:
        backoff = Backoff(WATCH_BACKOFF_FIRST, WATCH_BACKOFF_MAX)
        while True:
            self._wanted.set()  # for what happened before the watch began
            try:
                with own_cancellation():
                    async for change in self._host.runtime.watch():
                        backoff.reset()
                        self._note(change)
                why = "it ended"
            except Exception as error:
                why = str(error)
            if not backoff.failures:
                log.warning("watch lost", runtime=self._host.runtime.name, error=why)
            await asyncio.sleep(backoff.next())

    def _note(self, change: Workload | WorkloadGone) -> None:
        now = time.monotonic()
        workload = None if isinstance(change, WorkloadGone) else change
        self._events[change.id] = now
        if workload is None or self._judge.differs(workload):
            self._judge_soon(change.id, Sighting(workload, now - MAX_EVENT_LAG, listed=False))

    async def _resync(self) -> None:
        interval = self._host.runtime.resync_interval
        pause = interval
        while True:
            try:
                async with asyncio.timeout(pause):  # not wait_for: that of 3.11 can swallow the cancellation of `stop`
                    await self._wanted.wait()
                await asyncio.sleep(COALESCE_SECONDS)
            except TimeoutError:
                pass
            self._wanted.clear()
            pause = interval if await self._seen() else WATCH_BACKOFF_MAX

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
            stopping = entry.record.state is State.STOPPING and not states.removed_elsewhere(entry)
            if stopping and self._judge.ours(entry.record):
                self._remover.hurry(entry.record)
