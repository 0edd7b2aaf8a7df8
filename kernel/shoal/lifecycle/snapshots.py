"""Snapshots: captured by the runtime, outliving their sandbox (docs/wire/api.md section 9).

They are in this server's store, or listed by an engine that several servers share (`SnapshotCatalogue`). Of a delete
and a create from the same snapshot at one moment, the one that comes second is refused.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

from shoal.errors import Conflict, NotFound, ShoalError
from shoal.lifecycle.core import Core
from shoal.lifecycle.ledger import utcnow
from shoal.lifecycle.snapshot_rows import CREATING, READY, SnapshotRows, capable
from shoal.models import codes
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.interfaces import SnapshotCatalogue, SnapshotRecord

log = structlog.get_logger("shoal.snapshots")


class Snapshots:
    """All that there are, wherever they are kept."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._view = core.view
        self._hosts = core.hosts
        self._lanes = core.lanes
        self._rows = SnapshotRows(core.store, core.hosts, core.lanes)
        self._restoring: Counter[str] = Counter()
        self._deleting: set[str] = set()

    async def start(self) -> None:
        """Read back what is in the store, and take up what was cut off."""
        await self._rows.load()
        for row in self._rows.all():
            catalogue = self._catalogue(row.runtime)
            if catalogue is not None and row.state in (CREATING, READY):
                await self._hand_over(row, catalogue)
        self._rows.take_up()

    def stop(self) -> None:
        """Try nothing again; what is cut off is taken up at the next start."""
        self._rows.stop()

    async def create(self, sandbox_id: str, name: str | None) -> SnapshotRecord:
        """Accept a snapshot of a running sandbox; one that is still being made is waited for, bounded.

        Raises NotFound, Conflict, NotSupported.
        """
        runtime = self._hosts.of(self._core.entry(sandbox_id).record).runtime
        if runtime.capabilities.snapshots:
            await self._core.made(sandbox_id)
        record = self._core.entry(sandbox_id).record
        if runtime.capabilities.snapshots and record.state is State.RUNNING:
            await runtime.check_snapshot(sandbox_id)
        return await self._accept(record, name)

    async def _accept(self, record: SandboxRecord, name: str | None) -> SnapshotRecord:
        """Raises NotSupported before anything else, then Conflict."""
        catalogue = capable(self._hosts, record.runtime).runtime.catalogue
        if record.state is not State.RUNNING:
            message = f"The sandbox is {record.state.value}; only a running one is captured."
            raise Conflict(codes.SNAPSHOT_INVALID_SOURCE_STATE, message)
        now = utcnow()
        row = SnapshotRecord(
            id=str(uuid.uuid4()),
            sandbox_id=record.id,
            runtime=record.runtime,
            state=CREATING,
            created_at=now,
            updated_at=now,
            name=name,
            reason="snapshot_accepted",
            message="Snapshot creation accepted.",
            last_transition_at=now,
        )
        if catalogue is None:
            return await self._rows.add(row)
        await catalogue.accept(row)
        log.info("snapshot transition", snapshot_id=row.id, after=row.state, sandbox_id=row.sandbox_id)
        return row

    async def captured(self, sandbox_id: str, seconds: float) -> None:
        """Wait, bounded, for the snapshots that an engine makes of a sandbox: what ends it would end them too."""
        for host in self._hosts:
            if host.runtime.catalogue is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await host.runtime.catalogue.captured(sandbox_id)

    def all(self) -> list[SnapshotRecord]:
        """Every snapshot, newest first, then by id descending."""
        found = {row.id: row for row in self._rows.all()}
        for host in self._hosts:
            if host.runtime.catalogue is not None:
                found.update((row.id, row) for row in host.runtime.catalogue.all())
        return sorted(found.values(), key=lambda row: (row.created_at, row.id), reverse=True)

    def get(self, snapshot_id: str) -> SnapshotRecord:
        """One snapshot. Raises NotFound."""
        row = self._listed(snapshot_id) or self._rows.get(snapshot_id)
        if row is None:
            raise self.unknown(snapshot_id)
        return row

    def unknown(self, snapshot_id: str) -> NotFound:
        """What is raised for an id that no snapshot has."""
        return NotFound(codes.SNAPSHOT_NOT_FOUND, f"There is no snapshot {snapshot_id[:64]!r}.")

    def restorable(self, snapshot_id: str | None) -> SnapshotRecord | None:
        """The snapshot that a create restores from; None if it asks for none. Raises NotFound, Conflict."""
        if snapshot_id is None or not snapshot_id.strip():
            return None
        row = self.get(snapshot_id.strip())
        if row.id in self._deleting:
            raise Conflict(codes.SNAPSHOT_NOT_READY, "The snapshot is being deleted.")
        if row.state != READY:
            raise Conflict(codes.SNAPSHOT_NOT_READY, f"The snapshot is {row.state}, not Ready.")
        return row

    @contextmanager
    def restoring(self, snapshot_id: str | None) -> Iterator[SnapshotRecord | None]:
        """The same; no delete of it is accepted before the block ends, by when the sandbox must be in the view."""
        row = self.restorable(snapshot_id)
        if row is None:
            yield None
            return
        self._restoring[row.id] += 1
        try:
            yield row
        finally:
            self._restoring[row.id] -= 1
            if not self._restoring[row.id]:
                del self._restoring[row.id]

    async def delete(self, snapshot_id: str) -> None:
        """Delete content and row. Raises NotFound, NotSupported, and Conflict while it is being made or is in use."""
        self.get(snapshot_id)
        await self._lanes.run(snapshot_id, lambda: self._delete(snapshot_id))

    async def _delete(self, snapshot_id: str) -> None:
        row = self.get(snapshot_id)
        if row.state == CREATING:
            raise Conflict(codes.SNAPSHOT_INVALID_STATE, "The snapshot is still being made.")
        if snapshot_id in self._restoring or self._awaited(snapshot_id):
            raise Conflict(codes.SNAPSHOT_DELETE_CONFLICT, "A sandbox is just being restored from the snapshot.")
        self._deleting.add(snapshot_id)
        try:
            if self._listed(snapshot_id) is not None:
                await self._unlist(row)
            else:
                await self._rows.let_go(row)
        finally:
            self._deleting.discard(snapshot_id)

    def _awaited(self, snapshot_id: str) -> bool:
        """Whether a sandbox that is still being made needs it."""
        return any(e.record.snapshot_id == snapshot_id and e.record.state is State.PENDING for e in self._view)

    # --- listed by an engine ----------------------------------------------------------------------------------------

    def _catalogue(self, runtime: str) -> SnapshotCatalogue | None:
        return next((host.runtime.catalogue for host in self._hosts if host.runtime.name == runtime), None)

    def _listed(self, snapshot_id: str) -> SnapshotRecord | None:
        lists = (host.runtime.catalogue for host in self._hosts if host.runtime.catalogue is not None)
        return next((row for catalogue in lists if (row := catalogue.get(snapshot_id)) is not None), None)

    async def _unlist(self, row: SnapshotRecord) -> None:
        async with capable(self._hosts, row.runtime).call(row.id) as runtime:
            await runtime.delete_snapshot(row.id, row.image or "")
        log.info("snapshot transition", snapshot_id=row.id, after="gone", sandbox_id=row.sandbox_id)

    async def _hand_over(self, row: SnapshotRecord, catalogue: SnapshotCatalogue) -> None:
        """A row of before the engine listed them; one that is Ready and not on the engine was deleted there."""
        try:
            if row.state == CREATING or catalogue.get(row.id) is not None:
                await catalogue.accept(row)
            await self._rows.forget(row)
        except ShoalError as error:
            log.warning("snapshot stays in this server's store", snapshot_id=row.id, error=str(error))
