"""Taking: a create that a pool serves gets one of its members, which becomes the caller's in one commit.

The commit comes first and makes the member Resuming and the caller's; then the engine is called. A process that dies in
between finishes the resumption at its next start, as it does any other. A member that cannot be thawed is given back or
removed, and the next one is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from shoal.errors import Conflict, Unavailable
from shoal.lifecycle import states
from shoal.lifecycle.core import Core
from shoal.lifecycle.expiry import due_time
from shoal.lifecycle.gate import Priority
from shoal.lifecycle.ledger import utcnow
from shoal.lifecycle.pools.keeper import PoolKeeper
from shoal.lifecycle.pools.pool import PoolState
from shoal.models import codes
from shoal.models.create import SandboxSpec
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Workload
from shoal.plugin.interfaces import IdempotencyKey, Principal
from shoal.view.entry import Entry

log = structlog.get_logger("shoal.pools")

TAKEABLE = frozenset({State.PAUSED, State.RUNNING, State.PENDING})
"""Of a member whose turn has come; one that was being frozen is Paused by then."""


class Claim(Struct, frozen=True):
    """One create: what the pool's shape makes of it, who asks, and under which Idempotency-Key."""

    spec: SandboxSpec
    principal: Principal | None
    key: tuple[str, str] | None


class Taking:
    """Hands members to creates."""

    def __init__(self, core: Core, keeper: PoolKeeper) -> None:
        self._view = core.view
        self._ledger = core.ledger
        self._hosts = core.hosts
        self._lanes = core.lanes
        self._expiry = core.expiry
        self._keys = core.keys
        self._keeper = keeper

    async def ready(self, pool: PoolState, claim: Claim) -> Entry | None:
        """A member that runs; None if the pool has none at hand, or the engine is away. Raises Unavailable (store)."""
        return await self._first(pool, claim, (State.PAUSED, State.RUNNING, State.PAUSING))

    async def coming(self, pool: PoolState, claim: Claim) -> Entry | None:
        """A member that is still Pending; None if there is none either."""
        return await self._first(pool, claim, (State.PENDING,))

    async def _first(self, pool: PoolState, claim: Claim, choices: Sequence[State]) -> Entry | None:
        for state in choices:
            while (member := pool.waiting(state)) is not None:
                pool.promised.add(member)
                self._keeper.taking()
                try:
                    entry = await self._lanes.run(member, lambda member=member: self._take(pool, member, claim))  # type: ignore[misc]  # bound now
                except Unavailable as error:
                    if error.code.startswith("STORE::") or error.code == codes.SERVER_STOPPING:
                        raise
                    return None  # the engine is away, and so it is for the others
                finally:
                    pool.promised.discard(member)
                if entry is not None:
                    return entry
        return None

    async def _take(self, pool: PoolState, member: str, claim: Claim) -> Entry | None:
        """Runs on the member's lane; None if it turned out not to be of use. Raises Unavailable."""
        entry = self._view.get(member)
        if entry is None or not entry.record.hidden or entry.record.state not in TAKEABLE:
            return None
        idle = entry.record
        key = None if claim.key is None else self._keys.draw_up(*claim.key, member)
        state = State.RESUMING if idle.state is State.PAUSED else idle.state
        entry = await self._ledger.write(idle, key=key, state=state, **self._new_life(pool, idle, claim))
        if idle.state is State.PAUSED:
            try:
                workload = await self._thawed(entry.record)
            except Exception as error:
                await self._give_back(idle, entry.record, key, error)
                if isinstance(error, Unavailable):
                    raise
                return None
            self._ledger.see(workload)
            entry = await self._ledger.write(entry.record, state=State.RUNNING)
        if key is not None:
            self._keys.remember(key)
        self._expiry.arm(member, due_time(entry.record))
        if idle.state is not State.PENDING:
            self._lanes.post(member, lambda: self._apply(member))
        return entry

    def _new_life(self, pool: PoolState, idle: SandboxRecord, claim: Claim) -> dict[str, Any]:
        """What of the record is the caller's from now on."""
        now, spec = utcnow(), claim.spec
        return {
            "pool": pool.place(idle=False),
            "created_at": now,
            "since": now,
            "expires_at": None if spec.timeout is None else now + timedelta(seconds=spec.timeout),
            "metadata": spec.metadata,
            "extensions": spec.extensions,
            "owner": claim.principal.name if claim.principal else None,
            "reason": idle.reason if idle.state is State.PENDING else None,
            "message": idle.message if idle.state is State.PENDING else None,
        }

    async def _thawed(self, record: SandboxRecord) -> Workload:
        host = self._hosts.of(record)
        async with host.call(record.id, Priority.TAKE) as runtime:
            workload = host.checked("resume", record.id, await runtime.resume(record.id))
        if states.settled(workload.phase) is not State.RUNNING:
            raise Conflict(codes.scoped(self._hosts.scope(record), "SANDBOX_NOT_RUNNING"), "It ended in the pool.")
        return workload

    async def _give_back(
        self, idle: SandboxRecord, taken: SandboxRecord, key: IdempotencyKey | None, error: Exception
    ) -> None:
        """Nobody got it: it is the pool's again, and its key free."""
        log.warning("pool member could not be taken", sandbox_id=idle.id, error=str(error))
        changes = {name: getattr(idle, name) for name in idle.__struct_fields__ if name not in ("id", "state")}
        freed = None if key is None else replace(key, expires_at=utcnow())
        await self._ledger.write(taken, key=freed, state=State.PAUSED, **changes)
        if not isinstance(error, Unavailable):
            self._keeper.discard(idle.id)

    async def _apply(self, sandbox_id: str) -> None:
        """Engines that hold metadata and expiry themselves hear of them; nobody waits for that."""
        entry = self._view.get(sandbox_id)
        if entry is None or entry.record.state is State.STOPPING:
            return
        try:
            await self._hosts.of(entry.record).runtime.apply(entry.record)
        except Exception as error:
            log.warning("the engine did not take a pool member's new data", sandbox_id=sandbox_id, error=str(error))
