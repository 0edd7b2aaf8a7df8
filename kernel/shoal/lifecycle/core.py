"""What every part of the lifecycle works with: the view and what changes it, the runtimes, the lanes, the clock."""

from __future__ import annotations

from collections.abc import Callable

from shoal.config.settings import Settings
from shoal.errors import NotFound
from shoal.lifecycle.expiry import ExpiryScheduler, due_time
from shoal.lifecycle.hosts import Hosts
from shoal.lifecycle.idempotency import IdempotencyKeys
from shoal.lifecycle.lanes import Lanes
from shoal.lifecycle.ledger import Ledger
from shoal.lifecycle.networks import Networks
from shoal.lifecycle.notifier import Notifier
from shoal.lifecycle.underway import CreatesUnderWay
from shoal.models import codes
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.components import Components
from shoal.plugin.interfaces import Observer, Store
from shoal.view.entry import Entry
from shoal.view.index import View


class Core:
    """One per lifecycle.

    Args:
        components: what the enabled plugins registered; a store among it.
        view: every sandbox, in memory.
        due: called with a sandbox whose time has come.
    """

    def __init__(self, settings: Settings, components: Components, view: View, due: Callable[[str], None]) -> None:
        options = settings.lifecycle
        self.settings = settings
        self.components = components
        self.store: Store = components.kept_store()
        self.view = view
        self.lanes = Lanes()
        parts = {name: components.part("runtime", runtime) for name, runtime in components.runtimes.items()}
        self.hosts = Hosts(components.runtimes, components.default_runtime, options.provision_concurrency, parts)
        watching = [renewal for renewal in components.renewals if isinstance(renewal, Observer)]
        self.ledger = Ledger(self.store, view, [*components.observers, *watching], Notifier(components))
        self.expiry = ExpiryScheduler(due)
        self.keys = IdempotencyKeys(options.idempotency_ttl_seconds)
        self.networks = Networks(components)
        self.creates = CreatesUnderWay()

    def entry(self, sandbox_id: str) -> Entry:
        """The sandbox as it is now, from memory. Raises NotFound."""
        entry = self.view.get(sandbox_id)
        if entry is None or entry.record.hidden:
            raise self.unknown(sandbox_id)
        return entry

    def unknown(self, sandbox_id: str) -> NotFound:
        """What is raised for an id that no sandbox has."""
        code = codes.scoped(self.hosts.scope(None), "SANDBOX_NOT_FOUND")
        return NotFound(code, f"There is no sandbox {sandbox_id[:64]!r}.")

    def arm(self, record: SandboxRecord) -> None:
        """Have the scheduler fire when the record is to be removed."""
        self.expiry.arm(record.id, due_time(record))

    async def made(self, sandbox_id: str) -> None:
        """Wait, bounded as a look-up of an endpoint is, for a sandbox that is Pending. Raises NotFound."""
        if self.entry(sandbox_id).record.state is State.PENDING:
            limit = self.settings.lifecycle.endpoint_wait_seconds
            await self.view.until(sandbox_id, lambda entry: entry.record.state is not State.PENDING, limit)
