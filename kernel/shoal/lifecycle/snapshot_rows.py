"""Snapshots of engines that list none themselves: captured by the runtime, catalogued in this server's store.

The row is durable before the runtime is called. A restart takes up what was cut off: capturing is repeated under the
same id, deleting is tried again. While engine or store are away, both wait. A delete that is refused because the
snapshot is in use changes nothing: it stays Ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog
from msgspec.structs import replace

from shoal.errors import Conflict, NotFound, NotSupported, ShoalError, Unavailable
from shoal.lifecycle.hosts import Host, Hosts
from shoal.lifecycle.lanes import Lanes
from shoal.lifecycle.ledger import utcnow
from shoal.models import codes
from shoal.plugin.calls import wrong
from shoal.plugin.interfaces import SnapshotRecord, Store

log = structlog.get_logger("shoal.snapshots")

CREATING, READY, FAILED, DELETING = "Creating", "Ready", "Failed", "Deleting"
RETRY_SECONDS: Final = 5.0
"""Wait before what engine or store could not do just now is tried again."""


def capable(hosts: Hosts, runtime: str) -> Host:
    """The runtime of that name. Raises NotSupported if it is not enabled, or has no snapshots; Unavailable."""
    for host in hosts:
        if host.runtime.name == runtime and host.present().runtime.capabilities.snapshots:
            return host
    raise NotSupported(codes.SNAPSHOT_NOT_IMPLEMENTED, f"The {runtime} runtime has no snapshots.")


class SnapshotRows:
    """The catalogue in memory and in the store. Capturing runs on the source sandbox's lane."""

    def __init__(self, store: Store, hosts: Hosts, lanes: Lanes) -> None:
        self._store = store
        self._hosts = hosts
        self._lanes = lanes
        self._rows: dict[str, SnapshotRecord] = {}
        self._later: dict[str, asyncio.TimerHandle] = {}

    async def load(self) -> None:
        """Read the catalogue back."""
        default = self._hosts.default.runtime.name
        for row in await self._store.snapshots():
            self._rows[row.id] = row if row.runtime else replace(row, runtime=default)

    def take_up(self) -> None:
        """Go on with what was cut off."""
        for row in self._rows.values():
            if row.state == CREATING:
                self._lanes.post(row.sandbox_id, lambda row=row: self._capture(row, "recovery"))  # type: ignore[misc]  # bound now
            elif row.state == DELETING:
                self._lanes.post(row.id, lambda row=row: self._remove_quietly(row))  # type: ignore[misc]  # bound now

    def stop(self) -> None:
        """Try nothing again; what is cut off is taken up at the next start."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()

    def all(self) -> list[SnapshotRecord]:
        """Every one, in no particular order."""
        return list(self._rows.values())

    def get(self, snapshot_id: str) -> SnapshotRecord | None:
        """One of them."""
        return self._rows.get(snapshot_id)

    async def add(self, row: SnapshotRecord) -> SnapshotRecord:
        """Make it durable, and capture it behind that."""
        row = await self._write(row)
        self._lanes.post(row.sandbox_id, lambda: self._capture(row, "runtime"))
        return row

    async def forget(self, row: SnapshotRecord) -> None:
        """The engine lists it: the row is not needed any more."""
        await self._store.remove_snapshot(row.id)
        self._rows.pop(row.id, None)

    async def let_go(self, before: SnapshotRecord) -> None:
        """Mark and remove it; a refusal of the engine leaves it as it was."""
        message = "The snapshot is being deleted."
        row = await self._write(before, state=DELETING, reason="snapshot_delete_requested", message=message)
        try:
            await self._remove(row)
        except Conflict:
            kept = _ready() if before.state == DELETING else _status_of(before)
            await self._write(row, **kept)
            raise
        except Exception:
            self._again(row, row.id, lambda: self._remove_quietly(row))
            raise

    async def _remove(self, row: SnapshotRecord) -> None:
        if row.image is not None:
            async with capable(self._hosts, row.runtime).call(row.id) as runtime:
                await runtime.delete_snapshot(row.id, row.image)
        await self._store.remove_snapshot(row.id)
        self._rows.pop(row.id, None)
        log.info("snapshot transition", snapshot_id=row.id, after="gone", sandbox_id=row.sandbox_id)

    async def _remove_quietly(self, row: SnapshotRecord) -> None:
        if row.id not in self._rows:
            return
        try:
            await self._remove(row)
        except Conflict as error:  # nobody got the answer that it is gone: whoever asked may ask again
            log.warning("snapshot is not removed after all", snapshot_id=row.id, error=str(error))
            await self._conclude(row, _ready())
        except NotSupported as error:
            log.warning("snapshot cannot be removed", snapshot_id=row.id, error=str(error))
        except Exception as error:
            log.warning("snapshot could not be removed", snapshot_id=row.id, error=str(error), after=RETRY_SECONDS)
            self._again(row, row.id, lambda: self._remove_quietly(row))

    async def _capture(self, row: SnapshotRecord, kind: str) -> None:
        """Runs on the source's lane. ``kind``, ``runtime`` or ``recovery`` after a restart, is a part of the reason."""
        try:
            host = capable(self._hosts, row.runtime)
            async with host.call(row.sandbox_id) as runtime:
                image = await runtime.snapshot(row.sandbox_id, row.id)
            if not isinstance(image, str) or not image:
                raise wrong(host.part, f"returned from snapshot {type(image).__name__}, and not a reference")
        except Unavailable as error:
            log.warning("snapshot will be tried again", snapshot_id=row.id, error=str(error), after=RETRY_SECONDS)
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
            outcome = {**_ready(kind), "image": image}
        await self._conclude(row, outcome)

    async def _conclude(self, row: SnapshotRecord, outcome: dict[str, Any]) -> None:
        """Write down what came of it, once the store takes it."""
        try:
            await self._write(row, **outcome)
        except Exception as error:
            log.warning("store is away, will be tried again", snapshot_id=row.id, error=str(error), after=RETRY_SECONDS)
            self._again(row, row.id, lambda: self._conclude(row, outcome))

    def _again(self, row: SnapshotRecord, lane: str, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``job`` on that lane in a while, in place of one that waits already: a client may repeat a delete."""
        earlier = self._later.pop(row.id, None)
        if earlier is not None:
            earlier.cancel()

        def now() -> None:
            self._later.pop(row.id, None)
            self._lanes.post(lane, job)

        self._later[row.id] = asyncio.get_running_loop().call_later(RETRY_SECONDS, now)

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


def _ready(kind: str = "runtime") -> dict[str, Any]:
    return {"state": READY, "reason": f"snapshot_{kind}_ready", "message": "The snapshot is ready."}


def _status_of(row: SnapshotRecord) -> dict[str, Any]:
    return {"state": row.state, "reason": row.reason, "message": row.message}
