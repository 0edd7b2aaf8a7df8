"""A small controller of pools. What it keeps to, as the real one was seen to act:

- It keeps ``bufferMax`` idle pods of the pool's template, with the template's grace period, and hands a ready one out.
- The annotation ``alloc-status`` names the pods, and no pool; ``poolRef: "*"`` becomes the name of the pool. The
  finalizer of the allocation stays until the pod was taken back.
- A pool without a free pod is told by nothing: the object just has no pod and no phase. A newer controller (``newer``)
  writes the condition ``PoolAllocationPending``, and the pool's name into ``alloc-status``.
- The task's end is counted in ``status.taskSucceed`` or ``taskFailed``; the pod runs on, and the phase stays
  ``Succeed``.

A task runs in the pod that its sandbox got, as the real task executor runs it; here Docker, which the test bed's
cluster runs on, starts it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import suppress
from typing import Any

import docker
import msgspec
from tests.k8s_runtime.batch_controller import ENDPOINTS, BatchController
from tests.k8s_runtime.controllers import BATCH, CRDS, PERIOD, POOL, Object, condition, install, ready

from shoal_k8s.api import KubeApiError, KubeClient
from shoal_k8s.pods.objects import PODS
from shoal_k8s.pools.objects import ALLOCATED, FINALIZER

OWNER = "pool.test/name"
PENDING = "PoolAllocationPending"


async def install_pools(client: KubeClient) -> None:
    """Pools, and the condition of newer BatchSandboxes that tells of a pool without a free pod."""
    await install(client, BATCH)
    await install(client, POOL)
    for _ in range(5):
        found: Object = await client.get(CRDS, None, str(BATCH), Object)
        changed = False
        for version in found["spec"]["versions"]:
            status = version["schema"]["openAPIV3Schema"].get("properties", {}).get("status", {})
            known = status.get("properties", {}).get("conditions", {}).get("items", {}).get("properties", {})
            words = known.get("type", {}).get("enum")
            if words is not None and PENDING not in words:
                words.append(PENDING)
                changed = True
        if not changed:
            return
        with suppress(KubeApiError):  # another test was faster
            await client.replace(CRDS, None, str(BATCH), found, msgspec.Raw)


class PoolController(BatchController):
    """Also looks after BatchSandboxes that name a pool.

    Attributes:
        taken: pod name → the BatchSandbox that has it.
    """

    def __init__(self, client: KubeClient, namespace: str, *, newer: bool = True) -> None:
        super().__init__(client, namespace)
        self.newer = newer
        self.taken: dict[str, str] = {}
        self._tasks: dict[str, str] = {}
        self._engine = docker.from_env()

    async def _run(self) -> None:
        await asyncio.gather(super()._run(), self._keep())

    async def _keep(self) -> None:
        while True:
            found = await self.client.list(POOL, self.namespace, Object)
            for pool in found["items"]:
                with suppress(KubeApiError):
                    await self._fill(pool)
            await asyncio.sleep(PERIOD)

    async def _fill(self, pool: Object) -> None:
        name, wanted = pool["metadata"]["name"], pool["spec"]["capacitySpec"]
        pods = await self._pods(name)
        idle = [pod for pod in pods if pod["metadata"]["name"] not in self.taken]
        for _ in range(min(wanted["bufferMax"] - len(idle), wanted["poolMax"] - len(pods))):
            template = json.loads(json.dumps(pool["spec"]["template"]))
            labels = {**template.get("metadata", {}).get("labels", {}), OWNER: name}
            meta = {"name": f"{name}-{uuid.uuid4().hex[:6]}", "labels": labels}
            body = {"metadata": meta, "spec": template["spec"]}
            await self.client.create(PODS, self.namespace, body, msgspec.Raw)
        available = sum(ready(pod) for pod in idle)
        numbers = {"total": len(pods), "allocated": len(pods) - len(idle), "available": available, "revision": "1"}
        if pool.get("status") != numbers:
            await self._patch_status(POOL, name, numbers)

    async def _pods(self, pool: str) -> list[Object]:
        found = await self.client.list(PODS, self.namespace, Object, {"labelSelector": f"{OWNER}={pool}"})
        items: list[Object] = found["items"]
        return [pod for pod in items if not pod["metadata"].get("deletionTimestamp")]

    async def _patch_status(self, resource: Any, name: str, status: Object) -> None:
        path = resource.path(self.namespace, name, "status")
        content = "application/merge-patch+json"
        await self.client._ask("PATCH", resource, path, msgspec.Raw, body={"status": status}, content_type=content)

    async def _look_after(self, thing: Object) -> None:
        if thing["metadata"].get("deletionTimestamp"):
            await self._release(thing)
        elif "poolRef" in thing["spec"] and ALLOCATED not in thing["metadata"].get("annotations", {}):
            await self._allocate(thing)
        elif "poolRef" in thing["spec"]:
            await self._announce(thing)
        else:
            await super()._look_after(thing)

    async def _allocate(self, thing: Object) -> None:
        """Hand out a ready pod; ``*`` becomes the name of the pool that had it."""
        wanted = thing["spec"]["poolRef"]
        pools = (await self.client.list(POOL, self.namespace, Object))["items"]
        for pool in [each["metadata"]["name"] for each in pools if wanted in ("*", each["metadata"]["name"])]:
            for pod in await self._pods(pool):
                if ready(pod) and pod["metadata"]["name"] not in self.taken:
                    await self._hand_out(thing, pool, pod)
                    return
        if self.newer:
            said = condition(PENDING, f"the pool {wanted} has no free pod")
            await self.tell(thing, {"phase": "Pending", "conditions": [said]})

    async def _hand_out(self, thing: Object, pool: str, pod: Object) -> None:
        name, got = thing["metadata"]["name"], pod["metadata"]["name"]
        self.taken[got] = name
        more = {"poolRef": pool, "generation": 1} if self.newer else {}
        noted = {ALLOCATED: json.dumps({"pods": [got], **more})}
        body = {"metadata": {"annotations": noted, "finalizers": [FINALIZER]}, "spec": {"poolRef": pool}}
        await self.client.patch(BATCH, self.namespace, name, body, msgspec.Raw)
        process = thing["spec"]["taskTemplate"]["spec"]["process"]
        self._tasks[name] = await asyncio.to_thread(self._start, got, process)

    def _start(self, pod: str, process: Object) -> str:
        names = {"io.kubernetes.pod.name": pod, "io.kubernetes.container.name": "main"}
        (found,) = self._engine.containers.list(filters={"label": [f"{key}={value}" for key, value in names.items()]})
        given = {each["name"]: each["value"] for each in process["env"]}
        task: str = self._engine.api.exec_create(found.id, process["command"], environment=given)["Id"]
        self._engine.api.exec_start(task, detach=True)
        return task

    async def _announce(self, thing: Object) -> None:
        held = json.loads(thing["metadata"]["annotations"][ALLOCATED])
        pod: Object = await self.client.get(PODS, self.namespace, held["pods"][0], Object)
        status = {"phase": "Succeed", "ready": 1, "allocated": 1, "conditions": []}
        status |= await asyncio.to_thread(self._counts, thing["metadata"]["name"])
        await self.tell(thing, status, {ENDPOINTS: json.dumps([pod["status"]["podIP"]])})

    def _counts(self, name: str) -> Object:
        seen = self._engine.api.exec_inspect(self._tasks[name]) if name in self._tasks else {"Running": True}
        ended, code = not seen["Running"], seen.get("ExitCode")
        return {
            "taskRunning": int(not ended),
            "taskSucceed": int(ended and code == 0),
            "taskFailed": int(ended and code != 0),
        }

    async def _release(self, thing: Object) -> None:
        """What was used is not used again."""
        name = thing["metadata"]["name"]
        for pod in [pod for pod, owner in self.taken.items() if owner == name]:
            with suppress(KubeApiError):
                await self.client.delete(PODS, self.namespace, pod)
        body = {"metadata": {"finalizers": None}}
        await self.client.patch(BATCH, self.namespace, name, body, msgspec.Raw)
