"""Sandboxes as the API has them: created, read, waited for and changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any, Final, TypeVar

from shoal.errors import NotFound
from shoal.lifecycle.core import Core
from shoal.lifecycle.creation import Creation
from shoal.lifecycle.operations import Operations
from shoal.lifecycle.removal import Remover
from shoal.lifecycle.snapshots import Snapshots
from shoal.models.requests import CreateSandbox, MetadataPatch
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.context import Unless
from shoal.plugin.interfaces import Principal
from shoal.view.entry import Entry
from shoal.view.listing import ListQuery, Page

T = TypeVar("T")

CAPTURE_SECONDS: Final = 10.0
"""How long a delete or a pause waits for a snapshot of the sandbox that an engine makes."""
ENDED: Final = frozenset({State.FAILED, State.TERMINATED, State.STOPPING})
"""States that end a wait for another one: what is waited for will not come by itself."""


class Sandboxes:
    """Every method raises a ShoalError and nothing else on purpose."""

    def __init__(
        self, core: Core, creation: Creation, operations: Operations, remover: Remover, snapshots: Snapshots
    ) -> None:
        self._core = core
        self._view = core.view
        self._creation = creation
        self._operations = operations
        self._remover = remover
        self._snapshots = snapshots

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
        return self._core.entry(sandbox_id)

    def find(self, sandbox_id: str) -> SandboxRecord | None:
        """Its record, if there is such a sandbox."""
        entry = self._view.get(sandbox_id)
        return entry.record if entry and not entry.record.hidden else None

    def records(self) -> Iterator[SandboxRecord]:
        """Every record at this moment, in no particular order."""
        return (entry.record for entry in self._view if not entry.record.hidden)

    def unknown(self, sandbox_id: str) -> NotFound:
        """What is raised for an id that no sandbox has."""
        return self._core.unknown(sandbox_id)

    def page(self, query: ListQuery, sees: Callable[[SandboxRecord], bool] | None = None) -> Page:
        """One page of the list, from memory; of those that the caller ``sees``, if given."""
        return self._view.page(query, sees)

    async def wait(self, sandbox_id: str, states: frozenset[State], timeout: float) -> Entry:  # noqa: ASYNC109
        """The sandbox once it is in one of ``states``, has ended, or ``timeout`` seconds have passed.

        Raises NotFound.
        """
        timeout = min(timeout, self._core.settings.lifecycle.wait_limit_seconds)
        return await self._until(sandbox_id, lambda entry: entry.state in states | ENDED, timeout)

    async def begun(self, sandbox_id: str, timeout: float) -> Entry:  # noqa: ASYNC109
        """The sandbox once more is known of it than that it was accepted, or ``timeout`` seconds have passed.

        Raises NotFound.
        """
        return await self._until(sandbox_id, lambda entry: not entry.record.fresh, timeout)

    async def _until(self, sandbox_id: str, done: Callable[[Entry], bool], timeout: float) -> Entry:  # noqa: ASYNC109
        self.entry(sandbox_id)
        entry = await self._view.until(sandbox_id, done, timeout)
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
        await self._core.made(sandbox_id)
        await self._snapshots.captured(sandbox_id, CAPTURE_SECONDS)
        await self._on_lane(sandbox_id, lambda record: _unless(unless, record, lambda: self._operations.pause(record)))

    async def resume(self, sandbox_id: str) -> None:
        """Resume it; returns when it runs, or is Resuming. Raises as `pause`."""
        await self._on_lane(sandbox_id, self._operations.resume)

    async def renew(self, sandbox_id: str, expires_at: datetime, *, only_later: bool = False) -> datetime:
        """Move the expiry; returns the one in force. With ``only_later`` an earlier time changes nothing."""
        return await self._on_lane(
            sandbox_id, lambda record: self._operations.renew(record, expires_at, only_later=only_later)
        )

    async def patch_metadata(self, sandbox_id: str, patch: MetadataPatch) -> Entry:
        """Merge ``patch`` into the metadata, atomically. Raises NotFound, InvalidRequest."""
        changed = await self._on_lane(sandbox_id, lambda record: self._operations.patch_metadata(record, patch))
        return changed or self.entry(sandbox_id)

    async def _on_lane(self, sandbox_id: str, job: Callable[[SandboxRecord], Coroutine[Any, Any, T]]) -> T:
        """Run ``job`` with the record as it is once its turn has come."""

        async def turn() -> T:
            return await job(self.entry(sandbox_id).record)

        self.entry(sandbox_id)
        return await self._core.lanes.run(sandbox_id, turn)


async def _unless(unless: Unless | None, record: SandboxRecord, job: Callable[[], Awaitable[None]]) -> None:
    """Run ``job`` unless it is not wanted any more."""
    if unless is None or not unless(record):
        await job()
