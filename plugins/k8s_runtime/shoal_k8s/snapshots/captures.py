"""`Captures`: has snapshots made by the controller, waits for them, removes them.

A snapshot is found by its name, which follows from its id: a capture that a restart cut off is waited for again, and
never made twice.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from shoal.errors import EngineFailure
from shoal_k8s import names
from shoal_k8s.api import ApiError, KubeClient, KubeList
from shoal_k8s.api.failures import told
from shoal_k8s.informer import Changed, Gone, Informer
from shoal_k8s.snapshots.objects import KIND, PUBLIC, SCOPE, SNAPSHOTS, SOURCE, SnapshotObject, image_of, object_name

log = structlog.get_logger("shoal.k8s")

CREATE_FAILED: Final = "SNAPSHOT::RUNTIME_CREATE_FAILED"
FAILED: Final = "SNAPSHOT::RUNTIME_FAILED"
CAPTURE_SECONDS: Final = 900.0
"""How long a controller may take: it commits an image and pushes it."""


class Captures:
    """The public snapshots of one namespace, followed by an informer of their own."""

    def __init__(
        self, client: KubeClient, namespace: str, *, resync: float, watch_timeout: float, first_list: float
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._waiting: dict[str, asyncio.Event] = {}
        self._objects = Informer(
            client.connection,
            SNAPSHOTS,
            namespace,
            SnapshotObject,
            query={"labelSelector": names.SNAPSHOT},
            resync=resync,
            watch_timeout=watch_timeout,
            first_list=first_list,
        )
        self._started = False

    async def start(self) -> bool:
        """Begin to follow them; False if the kind is not installed, or not this server's to list.

        Raises ApiError, ApiUnreachable.
        """
        try:
            await self._client.list(SNAPSHOTS, self._namespace, KubeList[SnapshotObject], {"limit": "1"})
        except ApiError as error:
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

    async def take(self, sandbox_id: str, snapshot_id: str, source: str) -> str:
        """The image of a snapshot of the object ``source``, once it is made.

        Raises EngineFailure if it cannot be; nothing of it is left then, as far as the API server can be asked.
        """
        name = object_name(snapshot_id)
        await self._make(name, sandbox_id, snapshot_id, source)
        changed = self._waiting[name] = asyncio.Event()
        try:
            async with asyncio.timeout(CAPTURE_SECONDS):
                return await self._made(name, changed)
        except TimeoutError:
            await self.remove(snapshot_id)
            message = f"The controller did not make the snapshot within {CAPTURE_SECONDS:.0f} s."
            raise EngineFailure(FAILED, message) from None
        except EngineFailure:
            await self.remove(snapshot_id)
            raise
        finally:
            del self._waiting[name]

    async def remove(self, snapshot_id: str) -> None:
        """Absent is success; the image in the registry is the controller's business."""
        with told():
            try:
                await self._client.delete(SNAPSHOTS, self._namespace, object_name(snapshot_id))
            except ApiError as error:
                if not error.not_found:
                    raise

    async def _make(self, name: str, sandbox_id: str, snapshot_id: str, source: str) -> None:
        body = _manifest(name, sandbox_id, snapshot_id, source)
        try:
            try:
                held = await self._client.create(SNAPSHOTS, self._namespace, body, SnapshotObject)
            except ApiError as error:
                if not error.exists:
                    raise
                held = await self._client.get(SNAPSHOTS, self._namespace, name, SnapshotObject)
        except ApiError as error:
            raise EngineFailure(CREATE_FAILED, error.told().message) from error
        if held.spec.sandbox_name != source:
            raise EngineFailure(CREATE_FAILED, f"There is a {KIND} of that name of another sandbox.")
        self._objects.put(held)

    async def _made(self, name: str, changed: asyncio.Event) -> str:
        while True:
            changed.clear()
            held = self._objects.get(self._namespace, name) or await self._asked(name)
            if held is None or held.metadata.deletion_timestamp:
                raise EngineFailure(FAILED, f"The {KIND} was removed before it was made.")
            image = image_of(held)
            if image is not None:
                return image
            await changed.wait()

    async def _asked(self, name: str) -> SnapshotObject | None:
        """A list that was under way when the object was made does not have it."""
        with told():
            try:
                held = await self._client.get(SNAPSHOTS, self._namespace, name, SnapshotObject)
            except ApiError as error:
                if error.not_found:
                    return None
                raise
        self._objects.put(held)
        return held

    def _heard(self, change: Changed[SnapshotObject] | Gone[SnapshotObject]) -> None:
        waiting = self._waiting.get(change.object.metadata.name)
        if waiting is not None:
            waiting.set()


def _manifest(name: str, sandbox_id: str, snapshot_id: str, source: str) -> dict[str, Any]:
    """Without an owner: that is how the controller tells it from a pause, and it outlives its sandbox."""
    labels = {names.SNAPSHOT: snapshot_id, SCOPE: PUBLIC, SOURCE: sandbox_id}
    return {
        "apiVersion": f"{SNAPSHOTS.group}/{SNAPSHOTS.version}",
        "kind": KIND,
        "metadata": {"name": name, "labels": labels},
        "spec": {"sandboxName": source},
    }
