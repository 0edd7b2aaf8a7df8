"""Judging what was seen of one sandbox on its engine, against its record.

What was seen before the last engine call on a sandbox ended is stale: it decides nothing, and asks for a fresh
comparison. An event never makes or ends a record, only a full list does: the last words of a workload that was deleted
or replaced arrive late.

Where the engine holds the truth for several servers (`SharedTruth`), what it holds is asked at the moment of judging:
events may make records, also of what another server has only begun to make; expiry and metadata are taken from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import structlog

from shoal.lifecycle import states
from shoal.lifecycle.hosts import Host
from shoal.lifecycle.ledger import Ledger
from shoal.lifecycle.removal import Remover
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase, Workload
from shoal.plugin.interfaces import POOL_LABEL, Held, SharedTruth
from shoal.view.index import View

log = structlog.get_logger("shoal.reconcile")


class Sighting(NamedTuple):
    """One sandbox, as the engine showed it at a moment (monotonic); ``workload`` None is "not there"."""

    workload: Workload | None
    seen_at: float
    listed: bool


class Judge:
    """Of one runtime's sandboxes.

    Args:
        changed: called with every sandbox that was found without a record, or whose expiry another server moved.
        making: whether this server is making a sandbox itself.

    Attributes:
        following: the runtime is watched; before that, at start, what was cut off is left to be taken up.
    """

    def __init__(
        self,
        host: Host,
        view: View,
        ledger: Ledger,
        remover: Remover,
        *,
        changed: Callable[[SandboxRecord], None],
        making: Callable[[str], bool],
    ) -> None:
        self._host = host
        self._view = view
        self._ledger = ledger
        self._remover = remover
        self._changed = changed
        self._making = making
        self.following = False

    def differs(self, workload: Workload) -> bool:
        """Whether the workload is news."""
        entry = self._view.get(workload.id)
        if entry is None:
            return True
        record = entry.record
        state = self._state(record, workload.phase)
        return (
            entry.workload != workload
            or state not in (None, record.state)
            or (_is_remains(record) and not _is_memory(workload))
            or self._held(record) is not None
        )

    def misses(self, record: SandboxRecord) -> bool:
        """Whether a list without it is news."""
        return self.ours(record) and self._should_exist(record)

    async def decide(self, sandbox_id: str, sighting: Sighting, *, outdated: bool) -> bool:
        """Act on a sighting; whether a fresh comparison is wanted. Runs on the sandbox's lane.

        ``outdated``: something newer was heard of the sandbox since. Raises what the store or the runtime raises.
        """
        entry = self._view.get(sandbox_id)
        workload = sighting.workload
        outdated = outdated or self._host.changed_since(sandbox_id, sighting.seen_at)
        if entry is None:
            return await self._unrecorded(sandbox_id, sighting, outdated=outdated)
        if not self.ours(entry.record) or (workload is not None and not self.differs(workload)):
            return False
        if outdated:
            return True
        if workload is not None:
            await self._observe(entry.record, workload)
            return False
        if not self._should_exist(entry.record):
            return False
        if entry.record.state is State.PENDING and not self._surely_gone(sandbox_id):
            return False  # seen before it was made
        if not sighting.listed and not self._surely_gone(sandbox_id):
            return True
        log.warning("workload vanished from the engine", sandbox_id=sandbox_id, runtime=self._host.runtime.name)
        await self._remover.forget(entry.record)
        return False

    def _surely_gone(self, sandbox_id: str) -> bool:
        """Whether an event's word that it is gone is true now: what holds the truth knows without a comparison."""
        return self._truth is not None and self._truth.held(sandbox_id) is None

    async def _unrecorded(self, sandbox_id: str, sighting: Sighting, *, outdated: bool) -> bool:
        workload = sighting.workload
        if workload is None or (not sighting.listed and self._host.changed_since(sandbox_id, 0.0)):
            return False  # the echo of a removal of ours
        there = self._truth is not None and self._truth.held(sandbox_id) is not None
        if there or (sighting.listed and not outdated):
            await self._adopt(workload)
            return False
        return True

    async def _observe(self, record: SandboxRecord, workload: Workload) -> None:
        self._ledger.see(workload)
        if _is_memory(workload):
            await self._remember(record, workload)
            return
        if record.state in states.UNDER_WAY and not self.following and self._truth is None:
            return  # found so at start: it will be finished, not settled
        held = self._held(record)
        if held is not None:
            entry = await self._ledger.write(record, expires_at=held.expires_at, metadata=held.metadata)
            record = entry.record
            self._changed(record)
        state = self._state(record, workload.phase)
        if state is not None and state is not record.state:
            await self._ledger.write(record, state=state, reason=workload.reason, message=workload.message)
        elif state is record.state and self._truth is not None and workload.message != record.message:
            await self._ledger.write(record, reason=workload.reason, message=workload.message)
        elif _is_remains(record):
            await self._remover.clear(record)
        elif self._made_elsewhere(record) and workload.reason is not None:
            self._ledger.progress(record.id, workload.reason, workload.message or "")

    async def _remember(self, record: SandboxRecord, workload: Workload) -> None:
        """Its create failed on another server; what that server shows is shown here."""
        if self._made_elsewhere(record) and workload.adoption is not None:
            purge_at = workload.adoption.purge_at
            entry = await self._ledger.write(
                record, state=State.FAILED, reason=workload.reason, message=workload.message, purge_at=purge_at
            )
            self._changed(entry.record)

    def _state(self, record: SandboxRecord, phase: Phase) -> State | None:
        """The state that the record should have; None if the engine's report says nothing."""
        if self._made_elsewhere(record):
            return None if phase is Phase.PENDING else states.settled(phase)
        return states.observed(record, phase)

    def _held(self, record: SandboxRecord) -> Held | None:
        """What the engine holds of it for all servers, where that differs from the record; None else."""
        if self._truth is None or record.state is State.STOPPING or record.purge_at is not None:
            return None
        held = self._truth.held(record.id)
        if held is not None and not held.readable:
            held = Held(expires_at=record.expires_at, metadata=held.metadata)
        return None if held == Held(expires_at=record.expires_at, metadata=record.metadata) else held

    def _made_elsewhere(self, record: SandboxRecord) -> bool:
        """Whether it is another server's to make, or was before a restart of this one."""
        return self._truth is not None and record.state is State.PENDING and not self._making(record.id)

    @property
    def _truth(self) -> SharedTruth | None:
        return self._host.runtime.truth

    def ours(self, record: SandboxRecord) -> bool:
        """Whether this runtime realises it."""
        return record.runtime == self._host.runtime.name

    def _should_exist(self, record: SandboxRecord) -> bool:
        """Whether the engine must hold a workload for this record.

        One being made, unmade or failed need not; but what an engine that holds the truth has accepted is gone for good
        once it is gone, whoever was making it.
        """
        entry = self._view.get(record.id)
        if states.removed_elsewhere(entry):
            return True
        if record.purge_at is not None:
            return entry is not None and _is_memory(entry.workload)
        if record.state is State.PENDING:
            return self.following and self._truth is not None
        settled = states.SETTLED | states.UNDER_WAY if self.following else states.SETTLED
        return record.state in settled

    async def _adopt(self, workload: Workload) -> None:
        """Take over a workload that nobody recorded: another server's, or one that a lost store knew."""
        adoption = workload.adoption
        pending = workload.phase is Phase.PENDING
        if adoption is None or (pending and self._truth is None):
            return
        if POOL_LABEL in workload.labels and workload.phase is Phase.PAUSED:
            return  # it waits in a pool of another server's: nobody has it
        record = SandboxRecord(
            id=workload.id,
            runtime=self._host.runtime.name,
            state=State.PENDING if pending else states.settled(workload.phase),
            since=workload.since or adoption.created_at,
            created_at=adoption.created_at,
            entrypoint=adoption.entrypoint,
            reason=workload.reason,
            message=workload.message,
            expires_at=adoption.expires_at,
            purge_at=adoption.purge_at,
            image=adoption.image,
            snapshot_id=adoption.snapshot_id,
            platform=adoption.platform,
            metadata=adoption.metadata,
            extensions=adoption.extensions,
        )
        await self._ledger.adopt(record, workload)
        self._changed(record)


def _is_memory(workload: Workload | None) -> bool:
    """Whether it is what the engine keeps of a create that failed, and nothing else is left."""
    return workload is not None and workload.adoption is not None and workload.adoption.purge_at is not None


def _is_remains(record: SandboxRecord) -> bool:
    """Whether the engine must not hold a workload for this record: its create failed, and so did the clean-up."""
    return record.purge_at is not None and record.state is not State.STOPPING
