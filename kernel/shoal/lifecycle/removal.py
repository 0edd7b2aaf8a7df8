"""Removal: delete and expiry, from the durable intent to the last trace.

Once a record is Stopping, removal is bound to happen: a failure is retried until the runtime says that the workload is
gone, across restarts, and only then is the record forgotten. A store that can take nothing, its disk being full, does
not hold it up: what could not be written is written later (`Ledger.intend`, `Ledger.erase`).
"""

from __future__ import annotations

import structlog

from shoal.lifecycle.core import Core
from shoal.lifecycle.expiry import due_time
from shoal.lifecycle.hosts import priority_of
from shoal.lifecycle.ledger import utcnow
from shoal.models.sandbox import Doubt, SandboxRecord, State
from shoal.view.entry import Entry

log = structlog.get_logger("shoal.lifecycle")

RETRY_SECONDS = 30.0
"""Wait before a removal that failed is tried again (docs/wire/docker.md section 10)."""
ASIDE_SECONDS = 0.5
"""Wait before a server that is not in charge looks again whether something that is over is still its to end."""


class Remover:
    """Runs on a sandbox's lane."""

    def __init__(self, core: Core) -> None:
        self._view = core.view
        self._ledger = core.ledger
        self._hosts = core.hosts
        self._networks = core.networks
        self._expiry = core.expiry
        self._creates = core.creates

    async def remove(self, record: SandboxRecord, reason: str) -> None:
        """Remove the sandbox for ``reason`` (``DELETED``, ``EXPIRED``, …).

        Raises what the runtime raised; the record then stays Stopping and the expiry scheduler will try again.
        """
        self._hosts.of(record)  # refused before anything is durable if its runtime is not enabled
        if record.state is not State.STOPPING:
            record = await self._ledger.intend(record, reason)
        try:
            await self._creates.abandon(record.id)
            await self.clear(record)
            await self._forget_failure(record)
            await self._ledger.erase(record)
        except Exception:
            self._expiry.arm(record.id, utcnow().timestamp() + RETRY_SECONDS)
            raise
        self._expiry.disarm(record.id)

    async def forget(self, record: SandboxRecord) -> None:
        """The workload vanished from the engine by itself, or by another server: let go of the rest, also of a create
        under way.
        """
        await self._creates.abandon(record.id)
        await self._networks.released(record.id)
        await self._ledger.erase(record)
        self._expiry.disarm(record.id)

    async def clear(self, record: SandboxRecord) -> None:
        """Remove what is on the engine, and let networking go of its part; the record stays."""
        async with self._hosts.of(record).call(record.id, priority_of(record)) as runtime:
            await runtime.delete(record.id)
        await self._networks.released(record.id)

    async def _forget_failure(self, record: SandboxRecord) -> None:
        truth = self._hosts.of(record).runtime.truth
        if truth is not None and record.purge_at is not None:
            await truth.forget(record.id)

    def hurry(self, record: SandboxRecord) -> None:
        """Try the removal of a Stopping record again now."""
        self._expiry.arm(record.id, utcnow().timestamp())

    async def expire(self, sandbox_id: str) -> None:
        """The scheduler's word that it may be over: judge again, and remove if it is. Never raises."""
        entry = self._view.get(sandbox_id)
        if entry is None:
            return
        record = entry.record
        if record.state is not State.STOPPING:
            due = due_time(record)
            if due is None or due > utcnow().timestamp():
                self._expiry.arm(sandbox_id, due)
                return
        doubt = self._hosts.doubt(record)
        if doubt is not None:
            self._note_overdue(entry, doubt)
            return
        try:
            if await self._may_end(record):
                await self.remove(record, "EXPIRED")
            else:
                self._expiry.arm(sandbox_id, utcnow().timestamp() + ASIDE_SECONDS)
        except Exception as error:
            self._expiry.arm(sandbox_id, utcnow().timestamp() + RETRY_SECONDS)
            log.warning("removal failed, will be retried", sandbox_id=sandbox_id, error=str(error), after=RETRY_SECONDS)

    def _note_overdue(self, entry: Entry, doubt: Doubt) -> None:
        """Its end is due, and its runtime cannot be asked: say so once; it is taken up when the runtime answers."""
        message = f"{doubt.message} It is over, and will be removed once the runtime answers."
        self._view.put(Entry(entry.record, entry.workload, Doubt(doubt.reason, message)))
        log.warning(
            "a sandbox is over and cannot be removed: its runtime does not answer, or is not enabled",
            sandbox_id=entry.record.id,
            runtime=entry.record.runtime,
        )

    async def _may_end(self, record: SandboxRecord) -> bool:
        """Where several servers share an engine: whether it is for this one to end it, and nobody renewed it."""
        truth = self._hosts.of(record).runtime.truth
        if truth is None or record.state is State.STOPPING or record.purge_at is not None:
            return True
        return truth.in_charge() and await truth.end(record.id, utcnow())
