"""A small controller of snapshots. What it keeps to, as the real one was seen to act:

- It commits every container of the running pod, sidecars included, and tells ``imageUri``, a tag of the registry.
- ``imageDigest`` is the digest of the image's configuration, which no registry and no node knows an image by.
- A failure is the phase ``Failed`` and the condition ``Failed`` with reason and message.

The real one pushes to a registry; this one leaves the images on the test bed's only node, where pods find them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import docker
import docker.errors
import msgspec
from tests.k8s_runtime.controllers import PERIOD, SNAPSHOT, Object, install

from shoal_k8s.api import KubeApiError, KubeClient

MERGE = "application/merge-patch+json"


class SnapshotController:
    """Looks at every SandboxSnapshot of its namespace a few times a second.

    Attributes:
        failing: message with which snapshots fail, while it is set.
        holding: while True, none is finished.
        seen: names of those that it worked on.
    """

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._engine = docker.from_env()
        self._made: list[str] = []
        self.failing: str | None = None
        self.holding = False
        self.seen: set[str] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SnapshotController]:
        """The images that it made go with it."""
        await install(self._client, SNAPSHOT)
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for image in self._made:
                with suppress(docker.errors.ImageNotFound):
                    self._engine.images.remove(image, force=True)
            self._engine.close()

    async def _run(self) -> None:
        while True:
            found = await self._client.list(SNAPSHOT, self._namespace, Object)
            for thing in found["items"]:
                with suppress(KubeApiError):
                    await self._look_after(thing)
            await asyncio.sleep(PERIOD)

    async def _look_after(self, thing: Object) -> None:
        self.seen.add(thing["metadata"]["name"])
        if thing.get("status", {}).get("phase") in ("Succeed", "Failed") or self.holding:
            return
        if self.failing:
            said = {"type": "Failed", "status": "True", "reason": "CommitFailed", "message": self.failing}
            await self._tell(thing, {"phase": "Failed", "conditions": [said]})
            return
        containers = await asyncio.to_thread(self._commit, thing)
        await self._tell(thing, {"phase": "Succeed", "containers": containers})

    def _commit(self, thing: Object) -> list[Object]:
        """An image of each container of the pod, sidecars included."""
        source, captured = thing["spec"]["sandboxName"], []
        ours = f"io.kubernetes.pod.name={source}-0"
        for container in self._engine.containers.list(filters={"label": ours}):
            name = container.labels["io.kubernetes.container.name"]
            if name != "POD":
                repository = f"shoal-test/{source}-{name}"
                image = container.commit(repository, tag="snap")
                self._made.append(f"{repository}:snap")
                made = {"containerName": name, "imageUri": f"{repository}:snap", "imageDigest": image.id}
                captured.append(made)
        return captured

    async def _tell(self, thing: Object, status: Object) -> None:
        path = SNAPSHOT.path(self._namespace, thing["metadata"]["name"], "status")
        await self._client._ask("PATCH", SNAPSHOT, path, msgspec.Raw, body={"status": status}, content_type=MERGE)
