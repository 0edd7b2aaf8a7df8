"""`Captures`: has snapshots made by the controller, waits for them, removes them.

A snapshot is found by its name, which follows from its id: a capture that a restart cut off is waited for again, and
never made twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

from shoal.errors import EngineFailure
from shoal.plugin.interfaces import SnapshotRecord
from shoal_k8s import deletion, names
from shoal_k8s.api import KubeApiError, KubeClient, KubeList
from shoal_k8s.api.failures import map_api_errors
from shoal_k8s.informer import Changed, DeletedObject, Informer
from shoal_k8s.pods.ending import Ending
from shoal_k8s.snapshots.objects import (
    KIND,
    NAME,
    PUBLIC,
    SCOPE,
    SNAPSHOTS,
    SOURCE,
    SnapshotObject,
    image_of,
    object_name,
)

log = structlog.get_logger("shoal.k8s")

CREATE_FAILED: Final = "SNAPSHOT::RUNTIME_CREATE_FAILED"
FAILED: Final = "SNAPSHOT::RUNTIME_FAILED"
CAPTURE_SECONDS: Final = 900.0
"""How long a controller may take: it commits an image and pushes it."""
LATE: Final = f"The controller did not make the snapshot within {CAPTURE_SECONDS:.0f} s."


class Captures:
    """The public snapshots of one namespace, followed by an informer of their own."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        ending: Ending,
        *,
        resync: float,
        watch_timeout: float,
        first_list: float,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._ending = ending
        self._waiting: set[asyncio.Event] = set()
        self._objects = Informer(
            client.connection,
            SNAPSHOTS,
            namespace,
            SnapshotObject,
            query={"labelSelector": names.SNAPSHOT},
            index=lambda thing: [thing.metadata.labels[names.SNAPSHOT]],
            resync=resync,
            watch_timeout=watch_timeout,
            first_list=first_list,
        )
        self._started = False

    async def start(self) -> bool:
        """Begin to follow them; False if the kind is not installed, or not this server's to list.

        Raises KubeApiError, ApiUnreachable.
        """
        try:
            await self._client.list(SNAPSHOTS, self._namespace, KubeList[SnapshotObject], {"limit": "1"})
        except KubeApiError as error:
            if error.forbidden:
                log.warning("snapshots are off: a right on the cluster is missing", request=error.request)
            elif not error.not_found:
                raise
            return False
        self._objects.subscribe(self._heard)
        self._started = True
        await self._objects.start()
        return True

    async def stop(self) -> None:
        """End what `start` began."""
        if self._started:
            await self._objects.stop()

    @property
    def error(self) -> Exception | None:
        """Why nothing is heard just now."""
        return self._objects.error if self._started else None

    def all(self) -> list[SnapshotObject]:
        """Every object that nobody deleted, as last seen."""
        return [thing for thing in self._objects if not self._ending.removed(thing.metadata)]

    def find(self, snapshot_id: str) -> SnapshotObject | None:
        """One of them."""
        found = (each for each in self._objects.by(snapshot_id) if not self._ending.removed(each.metadata))
        return next(found, None)

    async def make(self, row: SnapshotRecord, source: str) -> None:
        """The object of a snapshot of the object ``source``; the controller does the rest. Raises EngineFailure."""
        await self._make(_manifest(row.id, row.sandbox_id, source, _noted(row)), source)

    async def complete(self, thing: SnapshotObject, row: SnapshotRecord) -> None:
        """Note on an object what it lacks of the row. Raises KubeApiError, ApiUnreachable."""
        lacking = {key: value for key, value in _noted(row).items() if key not in thing.metadata.annotations}
        if lacking:
            body = {"metadata": {"annotations": lacking}}
            name = thing.metadata.name
            self._objects.put(await self._client.patch(SNAPSHOTS, self._namespace, name, body, SnapshotObject))

    async def take(self, sandbox_id: str, snapshot_id: str, source: str) -> str:
        """The image of a snapshot of the object ``source``, once it is made. Raises EngineFailure if it cannot be."""
        await self._make(_manifest(snapshot_id, sandbox_id, source, {}), source)
        try:
            async with asyncio.timeout(CAPTURE_SECONDS):
                return await self._made(object_name(snapshot_id))
        except TimeoutError:
            raise EngineFailure(FAILED, LATE) from None

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns once that is true of what is known."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            while not holds():
                changed.clear()
                await changed.wait()
        finally:
            self._waiting.discard(changed)

    async def remove(self, snapshot_id: str) -> None:
        """Absent is success; the image in the registry is the controller's business."""
        held = self.find(snapshot_id)
        with map_api_errors():
            await deletion.delete(self._client, SNAPSHOTS, self._namespace, object_name(snapshot_id))
        if held is not None:
            self._ending.remove(held.metadata)

    async def _make(self, body: dict[str, Any], source: str) -> None:
        name = body["metadata"]["name"]
        try:
            try:
                held = await self._client.create(SNAPSHOTS, self._namespace, body, SnapshotObject)
            except KubeApiError as error:
                if not error.exists:
                    raise
                held = await self._client.get(SNAPSHOTS, self._namespace, name, SnapshotObject)
        except KubeApiError as error:
            raise EngineFailure(CREATE_FAILED, error.as_shoal_error().message) from error
        if held.spec.sandbox_name != source:
            raise EngineFailure(CREATE_FAILED, f"There is a {KIND} of that name of another sandbox.")
        self._objects.put(held)

    async def _made(self, name: str) -> str:
        if self._objects.get(self._namespace, name) is None:
            await self._asked(name)
        found: list[str] = []

        def settled() -> bool:
            held = self._objects.get(self._namespace, name)
            if held is None or held.metadata.deletion_timestamp:
                raise EngineFailure(FAILED, f"The {KIND} was removed before it was made.")
            image = image_of(held)
            found[:] = [image] if image is not None else []
            return bool(found)

        await self.until(settled)
        return found[0]

    async def _asked(self, name: str) -> SnapshotObject | None:
        """A list that was under way when the object was made does not have it."""
        with map_api_errors():
            try:
                held = await self._client.get(SNAPSHOTS, self._namespace, name, SnapshotObject)
            except KubeApiError as error:
                if error.not_found:
                    return None
                raise
        self._objects.put(held)
        return held

    def _heard(self, _change: Changed[SnapshotObject] | DeletedObject[SnapshotObject]) -> None:
        for changed in self._waiting:
            changed.set()


def _noted(row: SnapshotRecord) -> dict[str, str]:
    noted = {names.CREATED: names.write_time(row.created_at)}
    return {**noted, NAME: row.name} if row.name is not None else noted


def _manifest(snapshot_id: str, sandbox_id: str, source: str, annotations: dict[str, str]) -> dict[str, Any]:
    """Without an owner: that is how the controller distinguishes it from a pause, and it outlives its sandbox."""
    labels = {names.SNAPSHOT: snapshot_id, SCOPE: PUBLIC, SOURCE: sandbox_id}
    return {
        "apiVersion": f"{SNAPSHOTS.group}/{SNAPSHOTS.version}",
        "kind": KIND,
        "metadata": {"name": object_name(snapshot_id), "labels": labels, "annotations": annotations},
        "spec": {"sandboxName": source},
    }
