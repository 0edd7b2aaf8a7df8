"""Creates that failed, kept on the cluster for as long as they are shown, so that every server reports the reason.

What was made of such a sandbox is removed; a ConfigMap of its own says what a record would. It goes with a delete, or
when its time is over.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from shoal.models.requests import PlatformSpec
from shoal.models.sandbox import SandboxRecord
from shoal.models.workload import Adoption, Phase, Workload
from shoal_k8s import names
from shoal_k8s.api import KubeApiError, KubeClient, Meta, Resource
from shoal_k8s.api.objects import KubeStruct
from shoal_k8s.informer import Changed, DeletedObject, Informer

log = structlog.get_logger("shoal.k8s")

CONFIG_MAPS: Final = Resource("", "v1", "configmaps")
LABEL: Final = f"{names.PREFIX}failed-create"
"""On each of them: the id of the sandbox."""
_KEY: Final = "sandbox"


class Note(KubeStruct):
    """The ConfigMap."""

    metadata: Meta
    data: dict[str, str] = {}


class FailedCreate(Struct, rename="camel", kw_only=True, omit_defaults=True):
    """What it holds, as JSON."""

    created_at: datetime
    since: datetime
    purge_at: datetime
    entrypoint: list[str]
    reason: str | None = None
    message: str | None = None
    expires_at: datetime | None = None
    image: str | None = None
    snapshot_id: str | None = None
    platform: PlatformSpec | None = None
    metadata: dict[str, str] = {}
    extensions: dict[str, str] = {}


class FailedCreates:
    """Those of one namespace, followed by an informer. Used on the event loop only."""

    def __init__(
        self, client: KubeClient, namespace: str, *, resync: float, watch_timeout: float, first_list: float
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._notes = Informer(
            client.connection,
            CONFIG_MAPS,
            namespace,
            Note,
            query={"labelSelector": LABEL},
            index=lambda note: [note.metadata.labels[LABEL]],
            resync=resync,
            watch_timeout=watch_timeout,
            first_list=first_list,
        )

    async def start(self, changed: Callable[[str], None]) -> None:
        """Begin; ``changed(sandbox_id)`` is called on the loop whenever `find` may answer anew. Raises KubeApiError."""

        def heard(change: Changed[Note] | DeletedObject[Note]) -> None:
            changed(change.object.metadata.labels.get(LABEL, ""))

        self._notes.subscribe(heard)
        await self._notes.start()

    async def stop(self) -> None:
        await self._notes.stop()

    @property
    def error(self) -> Exception | None:
        """Why nothing is heard just now."""
        return self._notes.error

    def find(self, sandbox_id: str) -> Workload | None:
        """The failure as a workload, as last seen."""
        return next((found for note in self._notes.by(sandbox_id) if (found := _workload(note)) is not None), None)

    def all(self) -> list[Workload]:
        """Every one of them, as last seen."""
        return [found for note in self._notes if (found := _workload(note)) is not None]

    async def remember(self, record: SandboxRecord) -> None:
        """Raises KubeApiError, ApiUnreachable."""
        content = msgspec.json.encode(_failure(record)).decode()
        meta = {"name": _name(record.id), "labels": {LABEL: record.id}}
        try:
            note = await self._client.create(
                CONFIG_MAPS, self._namespace, {"metadata": meta, "data": {_KEY: content}}, Note
            )
        except KubeApiError as error:
            if not error.exists:
                raise
        else:
            self._notes.put(note)

    async def forget(self, sandbox_id: str) -> None:
        """Absent is success. Raises KubeApiError, ApiUnreachable."""
        try:
            await self._client.delete(CONFIG_MAPS, self._namespace, _name(sandbox_id))
        except KubeApiError as error:
            if not error.not_found:
                raise


def _name(sandbox_id: str) -> str:
    return f"shoal-failed-{sandbox_id}"


def _failure(record: SandboxRecord) -> FailedCreate:
    assert record.purge_at is not None  # noqa: S101 - of a create that failed
    return FailedCreate(
        created_at=record.created_at,
        since=record.since,
        purge_at=record.purge_at,
        entrypoint=record.entrypoint,
        reason=record.reason,
        message=record.message,
        expires_at=record.expires_at,
        image=record.image,
        snapshot_id=record.snapshot_id,
        platform=record.platform,
        metadata=record.metadata,
        extensions=names.extensions_of(names.extension_annotations(record.extensions)),
    )


def _workload(note: Note) -> Workload | None:
    """None for a note that cannot be read: somebody else wrote it."""
    sandbox_id = note.metadata.labels.get(LABEL, "")
    try:
        held = msgspec.json.decode(note.data.get(_KEY, ""), type=FailedCreate)
    except msgspec.DecodeError:
        return None
    adoption = Adoption(
        created_at=held.created_at,
        purge_at=held.purge_at,
        entrypoint=held.entrypoint,
        expires_at=held.expires_at,
        image=held.image,
        snapshot_id=held.snapshot_id,
        platform=held.platform,
        metadata=held.metadata,
        extensions=held.extensions,
    )
    return Workload(
        id=sandbox_id,
        phase=Phase.FAILED,
        reason=held.reason,
        message=held.message,
        since=held.since,
        adoption=adoption,
    )
