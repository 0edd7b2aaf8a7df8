"""The catalogue of snapshots: every SandboxSnapshot of the namespace, whichever server asked for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec.structs import replace

from shoal.errors import EngineFailure
from shoal.plugin.interfaces import SnapshotCatalogue, SnapshotRecord
from shoal_k8s import deletion, names
from shoal_k8s.api.failures import map_api_errors
from shoal_k8s.snapshots.captures import CAPTURE_SECONDS, LATE, Captures
from shoal_k8s.snapshots.objects import NAME, SOURCE, SnapshotObject, image_of

CREATING: Final = "Creating"


class ClusterSnapshots(SnapshotCatalogue):
    """What `Captures` sees, as the API reports it.

    Args:
        runtime: the name under which snapshots are listed.
        source: the name of a sandbox's object.
    """

    def __init__(self, captures: Captures, runtime: str, source: Callable[[str], str]) -> None:
        self._captures = captures
        self._runtime = runtime
        self._source = source

    def all(self) -> list[SnapshotRecord]:
        return [self._record(thing) for thing in self._captures.all()]

    def get(self, snapshot_id: str) -> SnapshotRecord | None:
        thing = self._captures.find(snapshot_id)
        return None if thing is None else self._record(thing)

    async def accept(self, row: SnapshotRecord) -> None:
        held = self._captures.find(row.id)
        with map_api_errors():
            if held is None:
                await self._captures.make(row, self._source(row.sandbox_id))
            else:
                await self._captures.complete(held, row)

    async def captured(self, sandbox_id: str) -> None:
        await self._captures.until(lambda: not self._under_way(sandbox_id))

    def _under_way(self, sandbox_id: str) -> bool:
        mine = (thing for thing in self._captures.all() if thing.metadata.labels.get(SOURCE) == sandbox_id)
        return any(self._record(thing).state == CREATING for thing in mine)

    def _record(self, thing: SnapshotObject) -> SnapshotRecord:
        meta = thing.metadata
        created = names.read_time(meta.annotations.get(names.CREATED)) or names.read_time(meta.creation_timestamp)
        created = created or datetime.now(UTC)
        times = (names.read_time(each.last_transition_time) for each in thing.status.conditions)
        changed = max([created, *(each for each in times if each is not None)])
        row = SnapshotRecord(
            id=meta.labels[names.SNAPSHOT],
            sandbox_id=meta.labels.get(SOURCE, thing.spec.sandbox_name),
            runtime=self._runtime,
            state=CREATING,
            created_at=created,
            updated_at=changed,
            name=meta.annotations.get(NAME),
            reason="snapshot_accepted",
            message="Snapshot creation accepted.",
            last_transition_at=changed,
        )
        return replace(row, **_outcome(thing, created))


def _outcome(thing: SnapshotObject, created: datetime) -> dict[str, Any]:
    """State, reason and message, and the image of one that is ready."""
    held = deletion.holders(thing.metadata)
    if held:
        said = f"It was deleted on the cluster, and is held by the finalizer {', '.join(held)}."
        return {"state": "Deleting", "reason": "snapshot_delete_requested", "message": said}
    try:
        image = image_of(thing)
        if image is None and datetime.now(UTC) - created > timedelta(seconds=CAPTURE_SECONDS):
            raise EngineFailure("", LATE)
    except EngineFailure as error:
        return {"state": "Failed", "reason": "snapshot_runtime_failed", "message": error.message}
    if image is None:
        return {}
    return {
        "state": "Ready",
        "reason": "snapshot_runtime_ready",
        "message": "The snapshot is ready.",
        "image": image,
    }
