"""Pools as the API has them: those that the kernel keeps, and those that a runtime keeps by itself."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from shoal.errors import Conflict, InvalidRequest, NotFound, NotSupported, RateLimited, ShoalError
from shoal.lifecycle import admission
from shoal.lifecycle.core import Core
from shoal.lifecycle.hosts import RUNTIME_EXTENSION, Host
from shoal.lifecycle.ledger import utcnow
from shoal.lifecycle.pools.keeper import PoolKeeper
from shoal.lifecycle.pools.pool import PoolState
from shoal.lifecycle.pools.shape import MATCH_EXTENSION, apply_shape, carries, fingerprint, misfit, understand
from shoal.lifecycle.pools.taking import Claim, Taking
from shoal.models import codes
from shoal.models.create import SandboxSpec
from shoal.models.plan import WorkloadPlan
from shoal.models.pools import CapacitySpec, CreatePool, Pool, PoolRecord
from shoal.plugin.interfaces import Principal
from shoal.plugin.interfaces.pools import NativePools
from shoal.view.entry import Entry

log = structlog.get_logger("shoal.pools")

T = TypeVar("T")

ANY = "*"
"""``extensions.poolRef`` for whichever pool fits."""
RETRY_SECONDS = 5.0
"""``Retry-After`` when a pool is used up: somebody has to give a sandbox back first."""


class Reserved(Struct, frozen=True):
    """A create that becomes a member of a pool without having waited in it; its id counts until it is durable."""

    spec: SandboxSpec
    pool: PoolState
    sandbox_id: str

    def marked(self, draft: WorkloadPlan) -> WorkloadPlan:
        """The plan with the reserved id, marked as every member's is."""
        return self.pool.marked(draft, self.sandbox_id)


class Pools:
    """The façade. Changes of one pool come one after another."""

    def __init__(self, core: Core, keeper: PoolKeeper, taking: Taking) -> None:
        self._store = core.store
        self._hosts = core.hosts
        self._lanes = core.lanes
        self._keeper = keeper
        self._taking = taking

    async def restore(self) -> None:
        """Read the pools back; before any sandbox is. One that makes no sense any more is logged and left out."""
        for record in await self._store.pools():
            try:
                self._add(record)
            except ShoalError as error:
                log.error("a pool in the store cannot be used", pool=record.name, error=error.message)

    # --- The API -----------------------------------------------------------------------------------------------------

    async def create(self, request: CreatePool) -> Pool:
        """A new pool; it is filled from now on.

        Raises NotSupported, Conflict (the name is taken), and for the template InvalidRequest, ValidationFailed or
        what a create of it would raise.
        """
        self._capable()
        host = self._hosts.pick(_extensions(request))
        if host.runtime.pools is not None:
            plain = {key: value for key, value in request.template.items() if key != "extensions"}
            return await host.runtime.pools.create(replace(request, template=plain))
        if not host.runtime.capabilities.pause:
            raise NotSupported(codes.POOL_NOT_SUPPORTED, f"The {host.runtime.name} runtime cannot keep pools.")
        return await self._lanes.run(_lane(request.name), lambda: self._create(request, host))

    async def all(self) -> list[Pool]:
        """Every pool, by name. Raises NotSupported where no runtime has any."""
        self._capable()
        found = [pool.public() for pool in self._keeper.pools.values()]
        for native in self._native():
            found += await native.list()
        return sorted(found, key=lambda pool: pool.name)

    async def get(self, name: str) -> Pool:
        """One pool. Raises NotFound, NotSupported."""
        self._capable()
        pool = self._named(name)
        if pool is not None:
            return pool.public()
        return await self._elsewhere(name, lambda native: native.get(name))

    async def update(self, name: str, capacity: CapacitySpec) -> Pool:
        """Another capacity. Raises NotFound, NotSupported."""
        self._capable()
        if self._named(name) is None:
            return await self._elsewhere(name, lambda native: native.update(name, capacity))
        return await self._lanes.run(_lane(name), lambda: self._update(name, capacity))

    def unknown(self, name: str) -> NotFound:
        """What is raised for a name that no pool has."""
        return unknown_pool(name)

    async def delete(self, name: str) -> None:
        """Idle members go, taken ones stay. Raises NotFound, NotSupported."""
        self._capable()
        if self._named(name) is None:
            await self._elsewhere(name, lambda native: native.delete(name))
        else:
            await self._lanes.run(_lane(name), lambda: self._delete(name))

    async def _create(self, request: CreatePool, host: Host) -> Pool:
        if self._named(request.name) is not None:
            raise Conflict(codes.POOL_ALREADY_EXISTS, f"There is a pool {request.name[:64]!r} already.")
        record = PoolRecord(
            id=str(uuid.uuid4()),
            name=request.name,
            runtime=host.runtime.name,
            created_at=utcnow(),
            template=request.template,
            capacity=request.capacity_spec,
            match_creates=request.match_creates,
        )
        shape = understand(record.template)
        admission.refuse_unsupported(shape.spec, host)
        await self._keeper.plan(PoolState(record, shape), str(uuid.uuid4()))
        await self._store.save_pool(record)
        log.info("pool created", pool=record.name, runtime=record.runtime)
        pool = self._add(record)
        self._keeper.count(pool)
        return pool.public()

    async def _update(self, name: str, capacity: CapacitySpec) -> Pool:
        pool = self._named(name)
        if pool is None:
            raise unknown_pool(name)
        record = replace(pool.record, capacity=capacity)
        await self._store.save_pool(record)
        pool.record = record
        self._keeper.count(pool)
        return pool.public()

    async def _delete(self, name: str) -> None:
        pool = self._named(name)
        if pool is None:
            raise unknown_pool(name)
        await self._store.remove_pool(pool.record.id)
        del self._keeper.pools[pool.record.id]
        log.info("pool deleted", pool=name, idle=len(pool.hidden), taken=len(pool.taken))
        for member in list(pool.hidden):
            self._keeper.discard(member)

    # --- Creates -----------------------------------------------------------------------------------------------------

    def host_of(self, spec: SandboxSpec) -> Host | None:
        """Where the pool is that a create names; None if it names none of the kernel's."""
        pool = self._named(spec.pool)
        if pool is None or spec.extensions.get(RUNTIME_EXTENSION, "").strip() not in ("", pool.record.runtime):
            return None
        return self._hosts.named(pool.record.runtime)

    async def serve(
        self, spec: SandboxSpec, host: Host, principal: Principal | None, key: tuple[str, str] | None
    ) -> Entry | Reserved | None:
        """A member for the create, a place in a pool for an ordinary create, or None if no pool is concerned.

        Raises InvalidRequest (there is no such pool, or it holds something else), RateLimited (the pool is used up).
        """
        reference = spec.pool
        if not reference:
            return await self._matched(spec, host, principal, key)
        if host.runtime.pools is not None:
            return None
        pools = self._fitting(reference, spec, host)
        started = [pool for pool in pools if carries(pool.shape, spec)]
        for pool in started:
            claim = Claim(apply_shape(pool.shape, spec), principal, key)
            if (entry := await self._taking.ready(pool, claim)) is not None:
                return entry
        for pool in pools:
            if not pool.full or (pool not in started and self._keeper.make_room(pool)):
                sandbox_id = str(uuid.uuid4())
                pool.starting.add(sandbox_id)
                return Reserved(apply_shape(pool.shape, spec), pool, sandbox_id)
        for pool in started:
            claim = Claim(apply_shape(pool.shape, spec), principal, key)
            if (entry := await self._taking.coming(pool, claim)) is not None:
                return entry
        message = f"Every sandbox that the pool {reference[:64]!r} may hold is taken."
        raise RateLimited(codes.POOL_CAPACITY_EXHAUSTED, message, retry_after=RETRY_SECONDS)

    def release(self, reserved: Reserved) -> None:
        """The ordinary create did not come to be durable, or its record counts by itself now."""
        reserved.pool.starting.discard(reserved.sandbox_id)

    async def _matched(
        self, spec: SandboxSpec, host: Host, principal: Principal | None, key: tuple[str, str] | None
    ) -> Entry | None:
        """A ready member of a pool that holds just what the create asks for."""
        if not self._keeper.pools or spec.extensions.get(MATCH_EXTENSION, "").strip().lower() == "off":
            return None
        wanted = fingerprint(spec)
        for pool in list(self._keeper.pools.values()):
            record = pool.record
            if record.match_creates and record.runtime == host.runtime.name and pool.shape.fingerprint == wanted:
                entry = await self._taking.ready(pool, Claim(apply_shape(pool.shape, spec), principal, key))
                if entry is not None:
                    return entry
        return None

    def _fitting(self, reference: str, spec: SandboxSpec, host: Host) -> list[PoolState]:
        """The pools that a create names and fits. Raises InvalidRequest."""
        named = [
            pool
            for pool in sorted(self._keeper.pools.values(), key=lambda pool: pool.record.name)
            if reference in (ANY, pool.record.name) and pool.record.runtime == host.runtime.name
        ]
        if not named:
            raise InvalidRequest(codes.UNSUPPORTED_POOL_REF, f"There is no pool {reference[:64]!r}.")
        misfits = [misfit(spec, pool.shape) for pool in named]
        fitting = [pool for pool, field in zip(named, misfits, strict=True) if field is None]
        if not fitting:
            which = f"The pool {reference[:64]!r} holds" if reference != ANY else "Every pool holds"
            message = f"{which} sandboxes whose {misfits[0]} differs from the request's; leave it out to take one."
            raise InvalidRequest(codes.INVALID_PARAMETER, message)
        return fitting

    # --- Inside ------------------------------------------------------------------------------------------------------

    def _add(self, record: PoolRecord) -> PoolState:
        pool = PoolState(record, understand(record.template))
        self._keeper.pools[record.id] = pool
        return pool

    def _named(self, name: str) -> PoolState | None:
        return next((pool for pool in self._keeper.pools.values() if pool.record.name == name), None)

    def _native(self) -> Sequence[NativePools]:
        return [host.runtime.pools for host in self._hosts if host.runtime.pools is not None]

    async def _elsewhere(self, name: str, ask: Callable[[NativePools], Awaitable[T]]) -> T:
        """What the first runtime answers that knows the pool. Raises NotFound, or what that runtime raises."""
        for native in self._native():
            try:
                return await ask(native)
            except NotFound:
                continue
        raise unknown_pool(name)

    def _capable(self) -> None:
        if not any(host.runtime.pools is not None or host.runtime.capabilities.pause for host in self._hosts):
            raise NotSupported(codes.POOL_NOT_SUPPORTED, "No enabled runtime can keep pools.")


def _extensions(request: CreatePool) -> dict[str, str]:
    """The template's extensions, as far as they name a runtime; the rest is looked at when the runtime is known."""
    extensions = request.template.get("extensions")
    runtime = extensions.get(RUNTIME_EXTENSION) if isinstance(extensions, dict) else None
    return {RUNTIME_EXTENSION: runtime} if isinstance(runtime, str) else {}


def _lane(name: str) -> str:
    return f"pool/{name}"


def unknown_pool(name: str) -> NotFound:
    """What is raised for a name that no pool has."""
    return NotFound(codes.POOL_NOT_FOUND, f"There is no pool {name[:64]!r}.")
