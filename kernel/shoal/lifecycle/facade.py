"""The lifecycle: wired by hand, started, stopped, and what plugins may use of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import Final, NoReturn, cast

import structlog
from msgspec.structs import replace

from shoal.config.settings import Settings
from shoal.lifecycle import states
from shoal.lifecycle.arrivals import Arrivals, Open
from shoal.lifecycle.core import Core
from shoal.lifecycle.creation import Creation
from shoal.lifecycle.diagnostics import Diagnostics
from shoal.lifecycle.hosts import Host
from shoal.lifecycle.judge import Judge
from shoal.lifecycle.ledger import utcnow
from shoal.lifecycle.operations import Operations
from shoal.lifecycle.pools.keeper import PoolKeeper
from shoal.lifecycle.pools.pools import Pools
from shoal.lifecycle.pools.taking import Taking
from shoal.lifecycle.provision import Provisioner
from shoal.lifecycle.reach import Reach
from shoal.lifecycle.reconcile import Reconciler
from shoal.lifecycle.removal import Remover
from shoal.lifecycle.sandboxes import Sandboxes
from shoal.lifecycle.snapshots import Snapshots
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.components import Components
from shoal.plugin.context import Lifecycle, Unless
from shoal.plugin.interfaces import Access, Observer, Runtime
from shoal.view.index import View

log = structlog.get_logger("shoal.lifecycle")

HOUSEKEEPING_SECONDS = 600.0


class _Early:
    """What plugins find behind the lifecycle while they register: nothing yet."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError("the lifecycle may be used from a component's `start` on, and not in a hook")


_EARLY: Final = _Early()


class SandboxLifecycle:
    """Creates, runs, pauses, renews, reaches and disposes of sandboxes. Plugins get it as their `Lifecycle`.

    Args:
        register: gives what the enabled plugins register, a store among it; they are handed this lifecycle, which they
            may use from their components' `start` on.

    Attributes:
        sandboxes, snapshots, pools, diagnostics: as the API has them.
        reach: addresses and endpoints of sandboxes' ports.
    """

    def __init__(self, settings: Settings, register: Callable[[Lifecycle], Components]) -> None:
        self.view, self.sandboxes, self.reach = cast("View", _EARLY), cast("Sandboxes", _EARLY), cast("Reach", _EARLY)
        self.components = register(self)
        self.view = View()
        core = self._core = Core(settings, self.components, self.view, self._due)
        self._remover = Remover(core)
        self._provisioner = Provisioner(core, self._remover)
        self._operations = Operations(core)
        self.diagnostics = Diagnostics(core)
        self.reach = Reach(core)
        self.snapshots = Snapshots(core)
        self._keeper = PoolKeeper(core, self._operations, self._provisioner, self._remover, self.snapshots, self.reach)
        self.pools = Pools(core, self._keeper, Taking(core, self._keeper))
        creation = Creation(core, self.pools, self.snapshots, self._provisioner, self._remover)
        self.sandboxes = Sandboxes(core, creation, self._operations, self._remover, self.snapshots)
        self._reconcilers = [self._reconciler(host) for host in core.hosts]
        self._arrivals = Arrivals(self._reconcilers, self.view, self._take_up)
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
        await self._core.store.set_aside()
        await self.pools.restore()
        for record in await self._core.store.sandboxes():
            named = record if record.runtime else replace(record, runtime=self._core.hosts.default.runtime.name)
            self._core.ledger.restore(named, self._core.hosts.doubt(named))
        self._warn_of_orphans()
        self._core.keys.restore(await self._core.store.idempotency_keys())
        await self._arrivals.first(open_)
        await self.snapshots.start()
        for entry in sorted(self.view, key=lambda entry: entry.record.created_at):
            self._keeper.note(entry.record)
            self._take_up(entry.record)
        self._core.expiry.start()
        self._keeper.start()
        self._arrivals.follow(open_)
        self._housekeeping = asyncio.get_running_loop().create_task(self._keep_house(), name="housekeeping")

    async def stop(self, grace: float = 5.0) -> None:
        """Stop firing and following; give operations under way ``grace`` seconds. Sandboxes run on."""
        self._core.expiry.stop()
        self.snapshots.stop()
        await self._keeper.stop()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        await self._arrivals.stop()
        for reconciler in self._reconcilers:
            await reconciler.stop()
        await asyncio.gather(self._core.creates.stop(grace), self._core.lanes.close(grace))
        await self._core.networks.stop()
        await self._core.ledger.stop()

    def away(self, runtime: str) -> str | None:
        """Why a runtime has not answered since the start; None if it has."""
        return next((host.away for host in self._core.hosts if host.runtime.name == runtime), None)

    def observe(self, observer: Observer) -> None:
        """Tell one more observer of transitions."""
        self._core.ledger.observe(observer)

    # --- for plugins (`shoal.plugin.Lifecycle`) ---------------------------------------------------------------------

    def find(self, sandbox_id: str) -> SandboxRecord | None:
        """`Lifecycle.find`."""
        return self.sandboxes.find(sandbox_id)

    def known(self, sandbox_id: str) -> bool:
        """`Lifecycle.known`."""
        return self.view.get(sandbox_id) is not None

    def records(self) -> Iterator[SandboxRecord]:
        """`Lifecycle.records`."""
        return self.sandboxes.records()

    def accessed(self, access: Access) -> None:
        """`Lifecycle.accessed`."""
        self.reach.notify(access)

    async def renew(self, sandbox_id: str, expires_at: datetime, *, only_later: bool = False) -> datetime:
        """`Lifecycle.renew`."""
        return await self.sandboxes.renew(sandbox_id, expires_at, only_later=only_later)

    async def delete(self, sandbox_id: str, *, reason: str = "DELETED", unless: Unless | None = None) -> None:
        """`Lifecycle.delete`."""
        await self.sandboxes.delete(sandbox_id, reason=reason, unless=unless)

    async def pause(self, sandbox_id: str, *, unless: Unless | None = None) -> None:
        """`Lifecycle.pause`."""
        await self.sandboxes.pause(sandbox_id, unless=unless)

    async def resume(self, sandbox_id: str) -> None:
        """`Lifecycle.resume`."""
        await self.sandboxes.resume(sandbox_id)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _reconciler(self, host: Host) -> Reconciler:
        core = self._core
        judge = Judge(host, core.view, core.ledger, self._remover, changed=core.arm, making=core.creates.making)
        timeout = core.settings.plugins.start_timeout_seconds
        return Reconciler(host, core.view, core.lanes, self._remover, judge, timeout)

    def _warn_of_orphans(self) -> None:
        """Say once how many sandboxes are of runtimes that are not enabled."""
        lost = Counter(entry.record.runtime for entry in self.view if not self._core.hosts.enabled(entry.record))
        for runtime, count in sorted(lost.items()):
            log.warning(
                "sandboxes of a runtime that is not enabled are neither watched nor removed",
                runtime=runtime,
                sandboxes=count,
            )

    def _due(self, sandbox_id: str) -> None:
        self._core.lanes.post(sandbox_id, lambda: self._remover.expire(sandbox_id))

    def _take_up(self, record: SandboxRecord) -> None:
        """Continue what the last process was doing with this sandbox, and arm its expiry."""
        resumption: dict[State, Callable[[SandboxRecord], Awaitable[None]]] = {
            State.PAUSING: lambda record: self._operations.pause(record, again=True),
            State.RESUMING: lambda record: self._operations.resume(record, again=True),
        }
        self._core.arm(record)
        if self._core.hosts.doubt(record) is not None:
            return  # once its runtime answers
        if record.hidden and record.state is not State.STOPPING:
            self._keeper.take_up(record)
        elif record.state is State.PENDING:
            self._provisioner.begin(record.id)
        elif states.removed_elsewhere(self.view.get(record.id)):
            return
        elif record.state is State.STOPPING:
            self._core.lanes.post(record.id, lambda: self._remover.expire(record.id))
        elif record.state in resumption and not self._core.hosts.shares_truth(record):
            self._core.lanes.post(record.id, lambda: self._again(record.id, resumption[record.state]))

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
            self._core.keys.forget(now)
            try:
                await self._core.store.forget_keys(now)
            except Exception as error:
                log.warning("housekeeping failed", error=str(error))


async def _open_already(_runtime: Runtime) -> None:
    return None
