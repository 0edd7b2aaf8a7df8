"""The façade of the lifecycle: what the web layer, the proxy and plugins call."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import datetime
from socket import socket
from typing import Any, Literal, TypeVar

import structlog
from msgspec.structs import replace

from shoal.config.settings import Settings
from shoal.errors import NotFound
from shoal.lifecycle import states
from shoal.lifecycle.arrivals import Arrivals, Open
from shoal.lifecycle.creation import Creation
from shoal.lifecycle.diagnostics import Diagnostics
from shoal.lifecycle.expiry import ExpiryScheduler
from shoal.lifecycle.hosts import Host, Hosts
from shoal.lifecycle.idempotency import IdempotencyKeys
from shoal.lifecycle.judge import Judge
from shoal.lifecycle.lanes import Lanes
from shoal.lifecycle.ledger import Ledger, utcnow
from shoal.lifecycle.networks import Networks
from shoal.lifecycle.operations import Operations
from shoal.lifecycle.pools.keeper import Keeper
from shoal.lifecycle.pools.pools import Pools
from shoal.lifecycle.pools.taking import Taking
from shoal.lifecycle.provision import Provisioner
from shoal.lifecycle.reach import Reach
from shoal.lifecycle.reconcile import Reconciler
from shoal.lifecycle.removal import Remover, due_time
from shoal.lifecycle.snapshots import Snapshots, unknown_snapshot
from shoal.lifecycle.telling import Telling
from shoal.models import codes
from shoal.models.requests import CreateSandbox, MetadataPatch
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Tunnel
from shoal.plugin.components import Components
from shoal.plugin.context import Unless
from shoal.plugin.interfaces import (
    Endpoint,
    LogQuery,
    Observer,
    PolicyTarget,
    Principal,
    Runtime,
    SnapshotRecord,
    Store,
)
from shoal.view.entry import Entry
from shoal.view.index import View
from shoal.view.listing import ListQuery, Page

log = structlog.get_logger("shoal.lifecycle")
T = TypeVar("T")

CAPTURE_SECONDS = 10.0
"""How long a delete or a pause waits for a snapshot of the sandbox that an engine makes."""
ENDED = frozenset({State.FAILED, State.TERMINATED, State.STOPPING})
"""States that end a wait for another one: what is waited for will not come by itself."""
HOUSEKEEPING_SECONDS = 600.0


class SandboxLifecycle:
    """Creates, runs, pauses, renews, reaches and disposes of sandboxes.

    Args:
        components: what the enabled plugins registered.
        store: the durable store; started and stopped by the caller.
    """

    def __init__(self, settings: Settings, components: Components, store: Store) -> None:
        options = settings.lifecycle
        self._settings = settings
        self._store = store
        self._networks = Networks(components)
        self._renewals = components.renewals
        self.view = View()
        self._lanes = Lanes()
        parts = {name: components.part("runtime", runtime) for name, runtime in components.runtimes.items()}
        self._hosts = Hosts(components.runtimes, components.default_runtime, options.provision_concurrency, parts)
        watching = [renewal for renewal in components.renewals if isinstance(renewal, Observer)]
        self._ledger = Ledger(store, self.view, [*components.observers, *watching], Telling(components))
        self._expiry = ExpiryScheduler(self._due)
        self._remover = Remover(self.view, self._ledger, self._hosts, self._networks, self._expiry)
        self._provisioner = Provisioner(
            options, self.view, self._ledger, store, self._hosts, self._lanes, self._remover, self._expiry
        )
        self._remover.overtake = self._provisioner.abandon
        self._provisioner.lost = lambda record: self._ledger.release(record, self._keys.lose(record.id))
        self._operations = Operations(self._ledger, self._hosts, self._expiry)
        self._diagnostics = Diagnostics(self._hosts)
        self._keys = IdempotencyKeys(options.idempotency_ttl_seconds)
        self._reconcilers = [self._reconciler(host) for host in self._hosts]
        self._arrivals = Arrivals(self._reconcilers, self.view, self._take_up)
        self.reach = Reach(settings, self.view, self._hosts, components)
        self._snapshots = Snapshots(store, self._hosts, self._lanes, self.view)
        self._keeper = Keeper(
            self.view,
            self._ledger,
            self._hosts,
            self._lanes,
            self._operations,
            self._provisioner,
            self._remover,
            self._snapshots,
            self._networks,
            options.pool_settle_seconds,
        )
        taking = Taking(self.view, self._ledger, self._hosts, self._lanes, self._expiry, self._keys, self._keeper)
        longest = settings.server.max_sandbox_timeout_seconds
        self.pools = Pools(store, self._hosts, self._lanes, self._keeper, taking, longest)
        self._creation = Creation(
            settings,
            components,
            self.view,
            self._ledger,
            self._hosts,
            self._lanes,
            self.pools,
            self._snapshots,
            self._keys,
            self._provisioner,
            self._remover,
            self._arm,
            self._networks,
        )
        self._housekeeping: asyncio.Task[None] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, open_: Open | None = None) -> None:
        """Read back what is durable, open the runtimes, compare it with what runs, and take up what was cut off.

        Returns when reads are true and every expiry is armed. A runtime that does not answer is waited for behind that.
        Raises ConfigError if no runtime is up and one must not be used as configured, and what the store raises.

        Args:
            open_: starts a runtime; None where they are started already.
        """
        open_ = open_ or _open_already
        await self._store.set_aside()
        await self.pools.restore()
        for record in await self._store.sandboxes():
            named = record if record.runtime else replace(record, runtime=self._hosts.default.runtime.name)
            self._ledger.restore(named, self._hosts.doubt(named))
        self._warn_of_orphans()
        self._keys.restore(await self._store.idempotency_keys())
        await self._arrivals.first(open_)
        await self._snapshots.start()
        for entry in sorted(self.view, key=lambda entry: entry.record.created_at):
            self._keeper.note(entry.record)
            self._take_up(entry.record)
        self._expiry.start()
        self._keeper.start()
        self._arrivals.follow(open_)
        self._housekeeping = asyncio.get_running_loop().create_task(self._keep_house(), name="housekeeping")

    async def stop(self, grace: float = 5.0) -> None:
        """Stop firing and following; give operations under way ``grace`` seconds. Sandboxes run on."""
        self._expiry.stop()
        self._snapshots.stop()
        await self._keeper.stop()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        await self._arrivals.stop()
        for reconciler in self._reconcilers:
            await reconciler.stop()
        await asyncio.gather(self._provisioner.stop(grace), self._lanes.close(grace))
        await self._networks.stop()
        await self._ledger.stop()

    # --- create -----------------------------------------------------------------------------------------------------

    async def create(
        self, request: CreateSandbox, *, principal: Principal | None = None, idempotency_key: str | None = None
    ) -> Entry:
        """Accept a create: durable when this returns, provisioned behind it.

        Raises InvalidRequest, NotFound or Conflict (a snapshot, an Idempotency-Key), Unavailable (the store).
        """
        return await self._creation.create(request, principal, idempotency_key)

    # --- read -------------------------------------------------------------------------------------------------------

    def entry(self, sandbox_id: str) -> Entry:
        """The sandbox as it is now, from memory. Raises NotFound."""
        entry = self.view.get(sandbox_id)
        if entry is None or entry.record.hidden:
            raise self.unknown(sandbox_id)
        return entry

    def find(self, sandbox_id: str) -> SandboxRecord | None:
        """`Lifecycle.find`: the record, for plugins."""
        entry = self.view.get(sandbox_id)
        return entry.record if entry and not entry.record.hidden else None

    def known(self, sandbox_id: str) -> bool:
        """`Lifecycle.known`."""
        return self.view.get(sandbox_id) is not None

    def records(self) -> Iterator[SandboxRecord]:
        """`Lifecycle.records`."""
        return (entry.record for entry in self.view if not entry.record.hidden)

    def away(self, runtime: str) -> str | None:
        """Why a runtime has not answered since the start; None if it has."""
        return next((host.away for host in self._hosts if host.runtime.name == runtime), None)

    def page(self, query: ListQuery, sees: Callable[[SandboxRecord], bool] | None = None) -> Page:
        """One page of the list, from memory; of those that the caller ``sees``, if given."""
        return self.view.page(query, sees)

    async def wait(self, sandbox_id: str, states: frozenset[State], timeout: float) -> Entry:  # noqa: ASYNC109
        """The sandbox once it is in one of ``states``, has ended, or ``timeout`` seconds have passed.

        Raises NotFound.
        """
        timeout = min(timeout, self._settings.lifecycle.wait_limit_seconds)
        return await self._until(sandbox_id, lambda entry: entry.state in states | ENDED, timeout)

    async def begun(self, sandbox_id: str, timeout: float) -> Entry:  # noqa: ASYNC109
        """The sandbox once more is known of it than that it was accepted, or ``timeout`` seconds have passed.

        Raises NotFound.
        """
        return await self._until(sandbox_id, lambda entry: not entry.record.fresh, timeout)

    async def _until(self, sandbox_id: str, done: Callable[[Entry], bool], timeout: float) -> Entry:  # noqa: ASYNC109
        self.entry(sandbox_id)
        entry = await self.view.until(sandbox_id, done, timeout)
        if entry is None:
            raise self.unknown(sandbox_id)
        return entry

    # --- change -----------------------------------------------------------------------------------------------------

    async def delete(self, sandbox_id: str, *, reason: str = "DELETED", unless: Unless | None = None) -> None:
        """Delete it; returns when it is gone. Raises NotFound, or what the runtime raises.

        Where ``unless`` is true of the record once its turn has come, nothing is done. A snapshot of it that an engine
        just makes is waited for, bounded.
        """
        await self._snapshots.captured(sandbox_id, CAPTURE_SECONDS)
        await self._on_lane(
            sandbox_id, lambda record: _unless(unless, record, lambda: self._remover.remove(record, reason))
        )

    async def pause(self, sandbox_id: str, *, unless: Unless | None = None) -> None:
        """Pause it; returns when it is frozen, or Pausing where the engine does that in its own time.

        Raises NotFound, Conflict, NotSupported, or what the runtime raises.

        A sandbox that is still being made is waited for, bounded as a look-up of its endpoint is. ``unless`` as above.
        """
        await self._made(sandbox_id)
        await self._snapshots.captured(sandbox_id, CAPTURE_SECONDS)
        await self._on_lane(sandbox_id, lambda record: _unless(unless, record, lambda: self._operations.pause(record)))

    async def resume(self, sandbox_id: str) -> None:
        """Resume it; returns when it runs, or is Resuming. Raises as `pause`."""
        await self._on_lane(sandbox_id, self._operations.resume)

    async def renew(self, sandbox_id: str, expires_at: datetime, *, only_later: bool = False) -> datetime:
        """`Lifecycle.renew`."""
        return await self._on_lane(
            sandbox_id, lambda record: self._operations.renew(record, expires_at, only_later=only_later)
        )

    async def patch_metadata(self, sandbox_id: str, patch: MetadataPatch) -> Entry:
        """Merge ``patch`` into the metadata, atomically. Raises NotFound, InvalidRequest."""
        changed = await self._on_lane(sandbox_id, lambda record: self._operations.patch_metadata(record, patch))
        return changed or self.entry(sandbox_id)

    async def _made(self, sandbox_id: str) -> None:
        """Wait, bounded, for a sandbox that is Pending."""
        if self.entry(sandbox_id).record.state is State.PENDING:
            limit = self._settings.lifecycle.endpoint_wait_seconds
            await self.view.until(sandbox_id, lambda entry: entry.record.state is not State.PENDING, limit)

    async def _on_lane(self, sandbox_id: str, job: Callable[[SandboxRecord], Coroutine[Any, Any, T]]) -> T:
        """Run ``job`` with the record as it is once its turn has come."""

        async def turn() -> T:
            return await job(self.entry(sandbox_id).record)

        self.entry(sandbox_id)
        return await self._lanes.run(sandbox_id, turn)

    # --- reach ------------------------------------------------------------------------------------------------------

    async def endpoint(
        self, sandbox_id: str, port: int, *, use_server_proxy: bool, expires: int | None, base: str
    ) -> Endpoint:
        """What a client is told about a port; waits for a Pending sandbox, bounded."""
        self.reach.check_query(sandbox_id, port, use_server_proxy=use_server_proxy, expires=expires)
        entry = self.entry(sandbox_id)
        return await self.reach.endpoint(entry, port, use_server_proxy=use_server_proxy, expires=expires, base=base)

    async def policy(self, sandbox_id: str) -> PolicyTarget:
        """Where its network policy is read and changed. Raises NotFound, Conflict, BadGateway if nothing keeps one."""
        return await self.reach.policy(self.entry(sandbox_id))

    def address(self, sandbox_id: str, port: int) -> str | Tunnel | None:
        """``host:port`` or a tunnel for the proxy, if it is known and the sandbox runs; else None. From memory."""
        return self.reach.address(sandbox_id, port)

    async def await_address(self, sandbox_id: str, port: int, *, wake: bool = True) -> str | Tunnel:
        """The same, waiting for a Pending sandbox, and for a paused one that wants to be woken.

        Raises NotFound, Conflict, or what the runtime raises when it resumes.
        """
        return await self.reach.await_address(self.entry(sandbox_id), port, wake=wake)

    async def connect(self, tunnel: Tunnel) -> socket:
        """A connected socket to the port. Raises OSError, or what the runtime raises."""
        return await self.reach.connect(tunnel)

    def observe(self, observer: Observer) -> None:
        """Tell one more observer of transitions."""
        self._ledger.observe(observer)

    def upstream_headers(self, sandbox_id: str, port: int) -> list[tuple[bytes, bytes]]:
        """What the proxy adds to requests to this port, from memory."""
        return self.reach.upstream_headers(sandbox_id, port)

    def accessed(self, sandbox_id: str, port: int, transport: Literal["http", "websocket"]) -> None:
        """The proxy's word of an access."""
        self.reach.accessed(sandbox_id, port, transport)

    def finished(self, sandbox_id: str) -> None:
        """The proxy's word that an HTTP exchange it told of is over."""
        self.reach.finished(sandbox_id)

    # --- diagnostics ------------------------------------------------------------------------------------------------

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        """The workload's output. Raises NotFound, or what the runtime raises."""
        return await self._diagnostics.logs(self.entry(sandbox_id), query)

    async def events(self, sandbox_id: str, limit: int) -> str:
        """What befell it. Raises NotFound, or what the runtime raises."""
        return await self._diagnostics.events(self.entry(sandbox_id), limit)

    async def inspect(self, sandbox_id: str) -> str:
        """How the engine describes it. Raises NotFound, or what the runtime raises."""
        return await self._diagnostics.inspect(self.entry(sandbox_id))

    # --- snapshots --------------------------------------------------------------------------------------------------

    async def create_snapshot(self, sandbox_id: str, name: str | None) -> SnapshotRecord:
        """Accept a snapshot of a running sandbox; one that is still being made is waited for, as `pause` does.

        Raises NotFound, Conflict, NotSupported.
        """
        runtime = self._hosts.of(self.entry(sandbox_id).record).runtime
        if runtime.capabilities.snapshots:
            await self._made(sandbox_id)
        record = self.entry(sandbox_id).record
        if runtime.capabilities.snapshots and record.state is State.RUNNING:
            await runtime.check_snapshot(sandbox_id)
        return await self._snapshots.create(record, name)

    def list_snapshots(self) -> list[SnapshotRecord]:
        """Every snapshot, newest first."""
        return self._snapshots.all()

    def snapshot(self, snapshot_id: str) -> SnapshotRecord:
        """One snapshot. Raises NotFound."""
        return self._snapshots.get(snapshot_id)

    def unknown_snapshot(self, snapshot_id: str) -> NotFound:
        """What is raised for an id that no snapshot has."""
        return unknown_snapshot(snapshot_id)

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete it; returns when it is gone. Raises NotFound, Conflict, NotSupported."""
        await self._snapshots.delete(snapshot_id)

    # --- inside -----------------------------------------------------------------------------------------------------

    def unknown(self, sandbox_id: str) -> NotFound:
        """What is raised for an id that no sandbox has."""
        code = codes.scoped(self._hosts.scope(None), "SANDBOX_NOT_FOUND")
        return NotFound(code, f"There is no sandbox {sandbox_id[:64]!r}.")

    def _reconciler(self, host: Host) -> Reconciler:
        making = self._provisioner.making
        judge = Judge(host, self.view, self._ledger, self._remover, changed=self._arm, making=making)
        timeout = self._settings.plugins.start_timeout_seconds
        return Reconciler(host, self.view, self._lanes, self._remover, judge, timeout)

    def _warn_of_orphans(self) -> None:
        """Say once how many sandboxes are of runtimes that are not enabled."""
        lost = Counter(entry.record.runtime for entry in self.view if not self._hosts.enabled(entry.record))
        for runtime, count in sorted(lost.items()):
            log.warning(
                "sandboxes of a runtime that is not enabled are neither watched nor removed",
                runtime=runtime,
                sandboxes=count,
            )

    def _arm(self, record: SandboxRecord) -> None:
        self._expiry.arm(record.id, due_time(record))

    def _due(self, sandbox_id: str) -> None:
        self._lanes.post(sandbox_id, lambda: self._remover.expire(sandbox_id))

    def _take_up(self, record: SandboxRecord) -> None:
        """Continue what the last process was doing with this sandbox, and arm its expiry."""
        resumption: dict[State, Callable[[SandboxRecord], Awaitable[None]]] = {
            State.PAUSING: lambda record: self._operations.pause(record, again=True),
            State.RESUMING: lambda record: self._operations.resume(record, again=True),
        }
        self._arm(record)
        if self._hosts.doubt(record) is not None:
            return  # once its runtime answers
        if record.hidden and record.state is not State.STOPPING:
            self._keeper.take_up(record)
        elif record.state is State.PENDING:
            self._provisioner.begin(record.id)
        elif states.removed_elsewhere(self.view.get(record.id)):
            return
        elif record.state is State.STOPPING:
            self._lanes.post(record.id, lambda: self._remover.expire(record.id))
        elif record.state in resumption and not self._hosts.shares_truth(record):
            self._lanes.post(record.id, lambda: self._again(record.id, resumption[record.state]))

    async def _again(self, sandbox_id: str, operation: Callable[[SandboxRecord], Awaitable[None]]) -> None:
        entry = self.view.get(sandbox_id)
        if entry is None:
            return
        try:
            await operation(entry.record)
        except Exception as error:
            log.warning("operation cut off by a restart could not be finished", sandbox_id=sandbox_id, error=str(error))

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            now = utcnow()
            self._keys.forget(now)
            try:
                await self._store.forget_keys(now)
            except Exception as error:
                log.warning("housekeeping failed", error=str(error))


async def _unless(unless: Unless | None, record: SandboxRecord, job: Callable[[], Awaitable[None]]) -> None:
    """Run ``job`` unless it is not wanted any more."""
    if unless is None or not unless(record):
        await job()


async def _open_already(_runtime: Runtime) -> None:
    return None
