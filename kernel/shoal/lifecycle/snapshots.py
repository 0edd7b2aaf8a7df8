"""Snapshots: captured by the runtime, catalogued in the store, outliving their sandbox (docs/wire/api.md section 9).

The row is durable before the runtime is called. A restart takes up what was cut off: capturing is repeated under the
same id, deleting is tried again. While engine or store are away, both wait. A delete that is refused because the
snapshot is in use changes nothing: it stays Ready. Of a delete and a create from the same snapshot at one moment, the
one that comes second is refused.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from msgspec.structs import replace

from shoal.errors import Conflict, NotFound, NotSupported, ShoalError, Unavailable
from shoal.lifecycle.hosts import Host, Hosts
from shoal.lifecycle.lanes import Lanes
from shoal.lifecycle.ledger import utcnow
from shoal.models import codes
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.interfaces import SnapshotRecord, Store
from shoal.view.index import View

log = structlog.get_logger("shoal.snapshots")

CREATING, READY, FAILED, DELETING = "Creating", "Ready", "Failed", "Deleting"
AGAIN_SECONDS: Final = 5.0
"""Wait before what engine or store could not do just now is tried again."""


class Snapshots:
    """The catalogue, in memory and in the store. Capturing runs on the source sandbox's lane."""

    def __init__(self, store: Store, hosts: Hosts, lanes: Lanes, view: View) -> None:
        self._store = store
        self._view = view
        self._hosts = hosts
        self._lanes = lanes
        self._rows: dict[str, SnapshotRecord] = {}
        self._restoring: Counter[str] = Counter()
        self._deleting: set[str] = set()
        self._later: dict[str, asyncio.TimerHandle] = {}

    async def start(self) -> None:
        """Read the catalogue back and take up what was cut off."""
        for row in await self._store.snapshots():
            self._rows[row.id] = row
            if row.state == CREATING:
                self._lanes.post(row.sandbox_id, lambda row=row: self._capture(row, "recovery"))  # type: ignore[misc]  # bound now
            elif row.state == DELETING:
                self._lanes.post(row.id, lambda row=row: self._remove_quietly(row))  # type: ignore[misc]  # bound now

    def stop(self) -> None:
        """Try nothing again; what is cut off is taken up at the next start."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()

    async def create(self, record: SandboxRecord, name: str | None) -> SnapshotRecord:
        """Accept a snapshot of a running sandbox. Raises NotSupported before anything else, then Conflict."""
        self._capable(record.runtime)
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
        await self._write(row)
        self._lanes.post(record.id, lambda: self._capture(row, "runtime"))
        return row

    def all(self) -> list[SnapshotRecord]:
        """Every snapshot, newest first, then by id descending."""
        return sorted(self._rows.values(), key=lambda row: (row.created_at, row.id), reverse=True)

    def get(self, snapshot_id: str) -> SnapshotRecord:
        """One snapshot. Raises NotFound."""
        row = self._rows.get(snapshot_id)
        if row is None:
            raise NotFound(codes.SNAPSHOT_NOT_FOUND, f"There is no snapshot {snapshot_id[:64]!r}.")
        return row

    def restorable(self, snapshot_id: str | None) -> SnapshotRecord | None:
        """The snapshot that a create restores from; None if it asks for none. Raises NotFound, Conflict."""
        if snapshot_id is None or not snapshot_id.strip():
            return None
        row = self._rows.get(snapshot_id.strip())
        if row is None:
            raise NotFound(codes.SNAPSHOT_NOT_FOUND, f"There is no snapshot {snapshot_id[:64]!r}.")
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
            await self._let_go(row)
        finally:
            self._deleting.discard(snapshot_id)

    def _awaited(self, snapshot_id: str) -> bool:
        """Whether a sandbox that is still being made needs it."""
        return any(e.record.snapshot_id == snapshot_id and e.record.state is State.PENDING for e in self._view)

    async def _let_go(self, before: SnapshotRecord) -> None:
        """Mark and remove it; a refusal of the engine leaves it as it was."""
        message = "The snapshot is being deleted."
        row = await self._write(before, state=DELETING, reason="snapshot_delete_requested", message=message)
        try:
            await self._remove(row)
        except Conflict:
            if before.state != DELETING:
                await self._write(row, state=before.state, reason=before.reason, message=before.message)
            raise
        except Exception:
            self._again(row, row.id, lambda: self._remove_quietly(row))
            raise

    async def _remove(self, row: SnapshotRecord) -> None:
        if row.image is not None:
            async with self._capable(row.runtime).call(row.id) as runtime:
                await runtime.delete_snapshot(row.id, row.image)
        await self._store.remove_snapshot(row.id)
        self._rows.pop(row.id, None)
        log.info("snapshot transition", snapshot_id=row.id, after="gone", sandbox_id=row.sandbox_id)

    async def _remove_quietly(self, row: SnapshotRecord) -> None:
        if row.id not in self._rows:
            return
        try:
            await self._remove(row)
        except NotSupported as error:
            log.warning("snapshot cannot be removed", snapshot_id=row.id, error=str(error))
        except Exception as error:
            log.warning("snapshot could not be removed", snapshot_id=row.id, error=str(error), after=AGAIN_SECONDS)
            self._again(row, row.id, lambda: self._remove_quietly(row))

    async def _capture(self, row: SnapshotRecord, kind: str) -> None:
        """Runs on the source's lane. ``kind``, ``runtime`` or ``recovery`` after a restart, is a part of the reason."""
        try:
            async with self._capable(row.runtime).call(row.sandbox_id) as runtime:
                image = await runtime.snapshot(row.sandbox_id, row.id)
        except Unavailable as error:
            log.warning("snapshot will be tried again", snapshot_id=row.id, error=str(error), after=AGAIN_SECONDS)
            self._again(row, row.sandbox_id, lambda: self._capture(row, kind))
            return
        except NotFound as error:
            missing = "snapshot_recovery_missing_image" if kind == "recovery" else "snapshot_runtime_failed"
            outcome = {"state": FAILED, "reason": missing, "message": error.message}
        except ShoalError as error:
            outcome = {"state": FAILED, "reason": f"snapshot_{kind}_failed", "message": error.message}
        except Exception:
            log.exception("snapshot failed in an unforeseen way", snapshot_id=row.id, sandbox_id=row.sandbox_id)
            outcome = {"state": FAILED, "reason": f"snapshot_{kind}_failed", "message": "The runtime failed."}
        else:
            message = "The snapshot is ready."
            outcome = {"state": READY, "reason": f"snapshot_{kind}_ready", "message": message, "image": image}
        await self._conclude(row, outcome)

    async def _conclude(self, row: SnapshotRecord, outcome: dict[str, Any]) -> None:
        """Write down what came of it, once the store takes it."""
        try:
            await self._write(row, **outcome)
        except Exception as error:
            log.warning("store is away, will be tried again", snapshot_id=row.id, error=str(error), after=AGAIN_SECONDS)
            self._again(row, row.id, lambda: self._conclude(row, outcome))

    def _again(self, row: SnapshotRecord, lane: str, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``job`` on that lane in a while, in place of one that waits already: a client may repeat a delete."""
        earlier = self._later.pop(row.id, None)
        if earlier is not None:
            earlier.cancel()

        def now() -> None:
            self._later.pop(row.id, None)
            self._lanes.post(lane, job)

        self._later[row.id] = asyncio.get_running_loop().call_later(AGAIN_SECONDS, now)

    async def _write(self, row: SnapshotRecord, **changes: Any) -> SnapshotRecord:
        now = utcnow()
        moved = {"last_transition_at": now} if changes.get("state", row.state) != row.state else {}
        row = replace(row, updated_at=now, **moved, **changes)
        await self._store.save_snapshot(row)
        self._rows[row.id] = row
        log.info(
            "snapshot transition", snapshot_id=row.id, after=row.state, sandbox_id=row.sandbox_id, reason=row.reason
        )
        return row

    def _capable(self, runtime: str) -> Host:
        for host in self._hosts:
            if host.runtime.name == runtime and host.runtime.capabilities.snapshots:
                return host
        raise NotSupported(codes.SNAPSHOT_NOT_IMPLEMENTED, f"The {runtime} runtime has no snapshots.")
