"""The ledger: makes a change durable, then visible, then notifies observers, always in that order.

Everything that changes a record goes through here, so nothing is visible that a crash could take back, and every
transition is logged and observed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from msgspec.structs import replace

from shoal.errors import StoreFull
from shoal.lifecycle import states
from shoal.lifecycle.notifier import Notifier
from shoal.lifecycle.owed import Owed
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import Doubt, SandboxRecord, State
from shoal.models.workload import Workload
from shoal.plugin.interfaces import IdempotencyKey, Observer, Store, Transition
from shoal.view.entry import Entry
from shoal.view.index import View

log = structlog.get_logger("shoal.lifecycle")


def utcnow() -> datetime:
    """The present time, with its zone; every time in the kernel has one."""
    return datetime.now(UTC)


class Ledger:
    """Store, view and observers, changed together."""

    def __init__(
        self, store: Store, view: View, observers: Sequence[Observer], notifier: Notifier | None = None
    ) -> None:
        self._store = store
        self._notifier = notifier or Notifier()
        self._view = view
        self._observers = list(observers)
        self._owed = Owed(store)
        self.pooled: Callable[[SandboxRecord | None, SandboxRecord | None], None] = lambda before, after: None
        """Called with a sandbox of a pool before and after each change; None for one that is new, or gone."""

    def observe(self, observer: Observer) -> None:
        """Tell one more of transitions, from now on."""
        self._observers.append(observer)

    async def add(
        self,
        record: SandboxRecord,
        plan: WorkloadPlan,
        key: IdempotencyKey | None = None,
    ) -> Entry:
        """A new sandbox. Raises what the store raises; then nothing has happened."""
        await self._store.add(record, plan, key)
        return self._show(record, None, None)

    async def adopt(self, record: SandboxRecord, workload: Workload) -> Entry:
        """A sandbox that runs already and has no plan any more."""
        self._owed.discard(record.id)
        await self._store.save(record)
        return self._show(record, workload, None)

    async def write(
        self, record: SandboxRecord, *, forget_plan: bool = False, key: IdempotencyKey | None = None, **changes: Any
    ) -> Entry:
        """The record with ``changes``; a new ``state`` also sets ``since`` and clears what is not given of reason and
        message. ``key`` becomes durable with it.

        Raises AssertionError for a transition that the state machine does not know: that is a bug of the engine.
        """
        after: State = changes.get("state", record.state)
        assert states.allowed(record.state, after), f"{record.id}: {record.state} cannot become {after}"  # noqa: S101 - see docstring
        if after is not record.state:
            changes = {"reason": None, "message": None, "failure": None, "since": utcnow(), **changes}
        changed = replace(record, **changes)
        await self._store.save(changed, forget_plan=forget_plan, key=key)
        current = self._view.get(record.id)
        return self._show(changed, current.workload if current else None, record)

    async def release(self, record: SandboxRecord, keys: Sequence[IdempotencyKey]) -> None:
        """Write that these keys made nothing after all. Never raises: what cannot be written holds until a restart."""
        for key in keys:
            try:
                await self._store.save(record, key=key)
            except Exception as error:
                log.warning("a key could not be released", sandbox_id=record.id, error=str(error))

    async def intend(self, record: SandboxRecord, reason: str) -> SandboxRecord:
        """The record as Stopping: durable, or at least shown if the store is full.

        A full disk must not keep a sandbox from ending. Dying before it has ended costs nothing then: the next start
        finds it as it was, and nobody was notified that it is gone. Raises StoreFull for one that is Pending, which the
        next start would make again, and what the store raises else.
        """
        try:
            return (await self.write(record, state=State.STOPPING, reason=reason)).record
        except StoreFull as error:
            if record.state is State.PENDING:
                raise
            log.warning("an end is begun that could not be written", sandbox_id=record.id, error=str(error))
        changed = replace(record, state=State.STOPPING, reason=reason, message=None, since=utcnow())
        current = self._view.get(record.id)
        return self._show(changed, current.workload if current else None, record).record

    async def erase(self, record: SandboxRecord) -> None:
        """The sandbox is gone from its engine; a full store is updated later. Raises whatever else it raises."""
        try:
            await self._store.remove(record.id)
        except StoreFull as error:
            self._owed.add(record.id, error)
        self._view.remove(record.id)
        if not record.hidden:
            self._notify(Transition(record=record, before=record.state, after=None, at=utcnow()))
        if record.pool is not None:
            self.pooled(record, None)

    async def stop(self) -> None:
        """Try once more to write what is owed."""
        await self._owed.stop()

    def see(self, workload: Workload) -> None:
        """Note where a workload is; its state is the caller's to judge."""
        entry = self._view.get(workload.id)
        if entry is not None and entry.workload != workload:
            self._view.put(Entry(entry.record, workload))

    def progress(self, sandbox_id: str, reason: str, message: str) -> None:
        """Show how far a create has come. Not durable: a restart begins the create again."""
        entry = self._view.get(sandbox_id)
        if entry is not None and entry.record.state is State.PENDING:
            self._view.put(Entry(replace(entry.record, reason=reason, message=message), entry.workload))

    def restore(self, record: SandboxRecord, doubt: Doubt | None = None) -> None:
        """A record read back at start: visible, neither written nor notified again."""
        self._view.put(Entry(record, doubt=doubt))

    def _show(self, record: SandboxRecord, workload: Workload | None, before: SandboxRecord | None) -> Entry:
        entry = Entry(record, workload)
        self._view.put(entry)
        known = None if before is None or before.hidden else before.state
        shown = None if record.hidden else record.state
        if known is not shown:
            self._notify(Transition(record=record, before=known, after=shown, at=record.since))
        if record.pool is not None:
            self.pooled(before, record)
        return entry

    def _notify(self, event: Transition) -> None:
        log.info(
            "sandbox transition",
            sandbox_id=event.record.id,
            before=event.before,
            after=event.after or "gone",
            runtime=event.record.runtime,
            reason=event.record.reason,
        )
        for observer in self._observers:
            self._notifier(observer, "transition", lambda each=observer: each.transition(event))  # type: ignore[misc]  # bound now
