"""The keeper: starts members until each pool has what it should have, freezes them, removes surplus and dead ones.

Nothing here runs in circles: whatever happens to a member reaches the keeper through the ledger, and its pool is
counted again once a burst of changes is over. Work on members gives way to what callers wait for (`Priority.REFILL`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine
from typing import Any

import structlog
from msgspec.structs import replace

from shoal.errors import ShoalError
from shoal.kit.backoff import Backoff
from shoal.lifecycle import admission
from shoal.lifecycle.core import Core
from shoal.lifecycle.operations import Operations
from shoal.lifecycle.pools.pool import COUNTED_STATES, PoolState
from shoal.lifecycle.provision import Provisioner
from shoal.lifecycle.reach import Reach
from shoal.lifecycle.removal import Remover
from shoal.lifecycle.snapshots import Snapshots
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.calls import contained

log = structlog.get_logger("shoal.pools")

MAX_STARTING = 16
"""Members of one pool that are on their way at once; a pool of hundreds is filled in turns."""
REFILL_DELAY = 0.5
"""Seconds without a take before a pool that is still half full is refilled: starting members slows takes down."""
BACKOFF = Backoff(1.0, 60.0)
"""Seconds before a pool whose members cannot be started tries again."""


class PoolKeeper:
    """Keeps every pool as full as it should be. Used on the event loop only."""

    def __init__(
        self,
        core: Core,
        operations: Operations,
        provisioner: Provisioner,
        remover: Remover,
        snapshots: Snapshots,
        reach: Reach,
    ) -> None:
        self._view = core.view
        self._ledger = core.ledger
        self._hosts = core.hosts
        self._lanes = core.lanes
        self._networks = core.networks
        self._settle = core.settings.lifecycle.pool_settle_seconds
        self._operations = operations
        self._provisioner = provisioner
        self._remover = remover
        self._snapshots = snapshots
        self._reach = reach
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running = False
        self._last_take = -REFILL_DELAY
        self.pools: dict[str, PoolState] = {}
        """Every pool that the kernel keeps, by its id."""
        core.ledger.pooled = self._changed

    def start(self) -> None:
        """Begin to fill the pools; their members have been taken up."""
        self._running = True
        for pool in self.pools.values():
            self.count(pool)

    async def stop(self) -> None:
        """Start and remove nothing more; the members stay as they are."""
        self._running = False
        for timer in self._due.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def count(self, pool: PoolState, after: float = 0.0) -> None:
        """Compare the pool with what it should be, ``after`` seconds at the latest; a comparison in sight is enough."""
        if self._running and pool.record.id not in self._due:
            loop = asyncio.get_running_loop()
            self._due[pool.record.id] = loop.call_later(after, self._compare, pool)

    def note(self, record: SandboxRecord) -> None:
        """Count a sandbox that was read back, if it is of a pool."""
        pool = self._pool_of(record)
        if pool is not None:
            pool.note(record.id, record)

    def taking(self) -> None:
        """A create is about to take from one of the pools."""
        self._last_take = time.monotonic()

    def take_up(self, record: SandboxRecord) -> None:
        """Go on with a hidden member that the last process left."""
        pool = self._pool_of(record)
        if pool is None or record.state not in COUNTED_STATES:
            self.discard(record.id)
        elif record.state is State.PENDING:
            self._provisioner.begin(record.id)
        elif record.state is State.RUNNING:  # its agent may not have been started yet
            self._spawn(self._prepare(record.id), f"prepare {record.id}")
        elif record.state is State.PAUSING:
            self._freeze_soon(record.id)

    def discard(self, sandbox_id: str) -> None:
        """Remove a member that nobody has; one that was taken meanwhile stays."""
        self._lanes.post(sandbox_id, lambda: self._discard(sandbox_id))

    def failed(self, pool: PoolState, why: str) -> None:
        """A member could not be started, or did not last: try again later, and later each time."""
        pool.failures += 1
        pool.trouble = why
        log.warning("pool member failed", pool=pool.record.name, failures=pool.failures, why=why)

    # --- What happens to members -------------------------------------------------------------------------------------

    def _changed(self, before: SandboxRecord | None, after: SandboxRecord | None) -> None:
        record = after or before
        assert record is not None  # noqa: S101 - a change has at least one side
        pool = self._pool_of(record)
        if pool is None:
            if after is not None and after.hidden and after.state is not State.STOPPING:
                self.discard(after.id)  # its pool was deleted while it was on its way
            return
        pool.note(record.id, after)
        if after is not None and after.hidden:
            self._judge(pool, before, after)
        self.count(pool)

    def _judge(self, pool: PoolState, before: SandboxRecord | None, member: SandboxRecord) -> None:
        """What a hidden member's new state asks for."""
        came_from = before.state if before is not None else None
        if member.state is State.RUNNING and came_from is State.PENDING:
            self._spawn(self._prepare(member.id), f"prepare {member.id}")
        elif member.state is State.PAUSED and came_from is State.PAUSING:
            pool.failures, pool.trouble = 0, None
        elif member.state in (State.FAILED, State.TERMINATED):
            self.failed(pool, member.message or "The sandbox ended by itself.")
            self.discard(member.id)
        elif member.state is State.RUNNING and came_from is not State.RUNNING:
            # somebody else thawed it, or it could not be frozen
            self.failed(pool, member.message or "The sandbox did not stay paused.")
            self.discard(member.id)

    async def _prepare(self, sandbox_id: str) -> None:
        """Start its agent, for which whoever takes it would wait; freeze it once that and the command have settled."""
        _, agent = await asyncio.gather(
            asyncio.sleep(self._settle), self._reach.start_agent(sandbox_id), return_exceptions=True
        )
        if isinstance(agent, Exception):
            log.info("the agent of a pool member does not answer", sandbox_id=sandbox_id, error=str(agent))
        self._freeze_soon(sandbox_id)

    def _freeze_soon(self, sandbox_id: str) -> None:
        self._lanes.post(sandbox_id, lambda: self._freeze(sandbox_id))

    async def _freeze(self, sandbox_id: str) -> None:
        """Pause it, if nobody took it meanwhile."""
        entry = self._view.get(sandbox_id)
        if entry is not None and entry.record.hidden and entry.record.state in (State.RUNNING, State.PAUSING):
            await self._operations.pause(entry.record, again=True)

    async def _discard(self, sandbox_id: str) -> None:
        entry = self._view.get(sandbox_id)
        if entry is not None and entry.record.hidden:
            await self._remover.remove(entry.record, "POOL")

    # --- How many there are ------------------------------------------------------------------------------------------

    def _compare(self, pool: PoolState) -> None:
        self._due.pop(pool.record.id, None)
        if pool.record.id not in self.pools:
            return
        change = pool.change()
        if change < 0:
            self._shrink(pool, -change)
        elif change > 0:
            wait = self._patience(pool, change)
            if wait > 0:
                self._due[pool.record.id] = asyncio.get_running_loop().call_later(wait, self._grow, pool)
            else:
                self._grow(pool)

    def _patience(self, pool: PoolState, missing: int) -> float:
        """How long to wait before starting members, in seconds."""
        if pool.failures:
            return BACKOFF.after(pool.failures)
        if pool.ready * 2 < pool.buffer + missing:
            return 0.0  # soon there would be none left
        return self._last_take + REFILL_DELAY - time.monotonic()

    def _grow(self, pool: PoolState) -> None:
        """Start what is missing; only one while the last ones failed."""
        self._due.pop(pool.record.id, None)
        if pool.record.id not in self.pools:
            return
        if not pool.failures and (wait := self._patience(pool, pool.change())) > 0:
            self.count(pool, wait)
            return
        coming = len(pool.starting) + sum(member.state is not State.PAUSED for member in pool.hidden.values())
        room = (1 if pool.failures else MAX_STARTING) - coming
        for _ in range(min(pool.change(), room)):
            sandbox_id = str(uuid.uuid4())
            pool.starting.add(sandbox_id)
            self._spawn(self._start(pool, sandbox_id), f"warm {sandbox_id}")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _shrink(self, pool: PoolState, surplus: int) -> None:
        """Remove the youngest first: they are the least settled, down to those that are not even durable yet."""
        youngest = sorted(pool.hidden.values(), key=lambda member: member.created_at, reverse=True)
        for member in youngest[: max(0, surplus - len(pool.starting))]:
            if member.state in COUNTED_STATES and not pool.spoken_for(member.id):
                pool.leaving.add(member.id)
                self.discard(member.id)

    def make_room(self, pool: PoolState) -> bool:
        """Give up an idle member of a full pool for one that has to be started; whether there was one to give up."""
        for state in (State.PENDING, State.RUNNING, State.PAUSING, State.PAUSED):
            member = pool.waiting(state)
            if member is not None:
                pool.leaving.add(member)
                self.discard(member)
                return not pool.full
        return False

    async def _start(self, pool: PoolState, sandbox_id: str) -> None:
        try:
            with self._snapshots.restoring(pool.shape.spec.snapshot_id):
                plan = await self.plan(pool, sandbox_id)
                record = replace(admission.first_record(plan, None), pool=pool.place(idle=True))
                await self._lanes.run(sandbox_id, lambda: self._begin(record, plan))
        except Exception as error:
            if not isinstance(error, ShoalError):
                log.exception("pool member failed in an unforeseen way", pool=pool.record.name)
            pool.starting.discard(sandbox_id)
            self.failed(pool, error.message if isinstance(error, ShoalError) else "The server failed.")
            self.count(pool)

    async def _begin(self, record: SandboxRecord, plan: WorkloadPlan) -> None:
        await self._ledger.add(record, plan)
        self._provisioner.begin(record.id, plan)

    async def plan(self, pool: PoolState, sandbox_id: str) -> WorkloadPlan:
        """The plan of one more member. Raises what networking, the runtime or a missing snapshot raises."""
        host = self._hosts.named(pool.record.runtime)
        snapshot = self._snapshots.restorable(pool.shape.spec.snapshot_id)
        draft = pool.marked(admission.draw_up(pool.shape.spec, host, snapshot), sandbox_id)
        plan = await self._networks.amend(draft)
        with contained(host.part):
            await host.runtime.check(plan)
        return plan

    def _pool_of(self, record: SandboxRecord) -> PoolState | None:
        return None if record.pool is None else self.pools.get(record.pool.pool_id)
