"""Ending pods: those of a sandbox that was removed, and those in which something that must not end has ended.

Nobody waits for a node. A removed sandbox's pod is deleted without grace; one with a sidecar that filters has two
seconds, which is what a kubelet gives in any case, so that its hook (`shoal_k8s.pods.gate`) keeps the filter up until
the sandbox's own container is dead. A pod that is still there a minute later is on a node that does not answer, and is
let go of; sooner would open the network of one on a node that is merely slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
import structlog

from shoal.errors import ShoalError
from shoal_k8s import deletion
from shoal_k8s.api import KubeApiError, KubeClient, Meta
from shoal_k8s.informer import Changed, DeletedObject, Informer
from shoal_k8s.pods.gate import FILTER_GRACE
from shoal_k8s.pods.objects import PODS, Pod
from shoal_k8s.pods.status import is_over, services

log = structlog.get_logger("shoal.k8s")

END_TIMEOUT: Final = 60.0
"""Seconds after which a pod that should have ended is deleted whether or not its node says that it has."""
REMEMBERED: Final = 10_000
"""Removed objects whose late pods are still recognised."""


class Ending:
    """Used on the event loop only.

    Args:
        pods: every pod that carries a sandbox id, found by that id.
    """

    def __init__(self, client: KubeClient, pods: Informer[Pod]) -> None:
        self._client = client
        self._pods = pods
        self._removed: dict[str, None] = {}
        self._stopping: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lacking: set[str] = set()
        pods.subscribe(self._heard)

    def removed(self, meta: Meta) -> bool:
        """Whether an object is gone as far as callers know, also where the watch has not said so yet."""
        return deletion.is_gone(meta) or meta.uid in self._removed

    def remove(self, meta: Meta) -> None:
        """The API server took the removal of an object: from now on nobody sees it."""
        self._removed[meta.uid] = None
        while len(self._removed) > REMEMBERED:
            del self._removed[next(iter(self._removed))]

    async def kill(self, sandbox_id: str) -> None:
        """Have every pod of a removed sandbox end; returns once the API server was asked. Raises ApiUnreachable."""
        await asyncio.gather(*(self._kill(pod) for pod in self._pods.by(sandbox_id)))

    def hasten(self, sandbox_id: str) -> None:
        """What its controller has taken down, and kept all that is kept of it, need not linger."""
        for pod in self._pods.by(sandbox_id):
            if pod.metadata.deletion_timestamp is not None and pod.metadata.uid not in self._stopping:
                self._stopping.add(pod.metadata.uid)
                self._spawn(self._kill(pod))

    async def end(self, namespace: str, name: str) -> None:
        """The same for a pod that is the sandbox itself; absent is success. Raises KubeApiError, ApiUnreachable."""
        held = self._pods.get(namespace, name)
        grace = FILTER_GRACE if held is not None and services(held) else 0
        await deletion.delete(self._client, PODS, namespace, name, grace_seconds=grace)
        if held is not None:
            self.remove(held.metadata)
            if grace:
                self._spawn(self._kill_later(held))

    async def close(self) -> None:
        """Leave the rest to the cluster."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _heard(self, change: Changed[Pod] | DeletedObject[Pod]) -> None:
        pod = change.object
        if isinstance(change, DeletedObject):
            self._stopping.discard(pod.metadata.uid)
        elif any(owner.uid in self._removed for owner in pod.metadata.owner_references):
            if pod.metadata.deletion_timestamp is None:
                self._spawn(self._kill(pod))  # its controller was slower than the removal
        elif is_over(pod) and pod.metadata.uid not in self._stopping:
            self._stopping.add(pod.metadata.uid)
            self._spawn(self._stop(pod))

    async def _kill(self, pod: Pod) -> None:
        grace = FILTER_GRACE if services(pod) else 0
        await self._delete(pod, grace)
        if grace:
            self._spawn(self._kill_later(pod))

    async def _kill_later(self, pod: Pod) -> None:
        await asyncio.sleep(END_TIMEOUT)
        held = self._pods.get(pod.metadata.namespace, pod.metadata.name)
        if held is not None and held.metadata.uid == pod.metadata.uid:
            await self._delete(pod, 0)

    async def _delete(self, pod: Pod, grace: int) -> None:
        meta = pod.metadata
        try:
            await self._client.delete(PODS, meta.namespace, meta.name, grace_seconds=grace, uid=meta.uid)
        except KubeApiError as error:
            if not (error.not_found or error.conflict):
                self._log(error, "a removed sandbox's pod is left to the cluster")

    async def _stop(self, pod: Pod) -> None:
        """A deadline that has passed: the kubelet ends every container, and starts none again. The object stays."""
        meta = pod.metadata
        body = {"metadata": {"uid": meta.uid}, "spec": {"activeDeadlineSeconds": 1}}
        try:
            await self._client.patch(PODS, meta.namespace, meta.name, body, msgspec.Raw)
        except KubeApiError as error:
            if not (error.not_found or error.conflict):
                self._stopping.discard(meta.uid)
                self._log(error, "a sandbox that is over could not be stopped")

    def _log(self, error: KubeApiError, what: str) -> None:
        if error.request not in self._lacking:
            log.warning(what, request=error.request, error=str(error.as_shoal_error()))
        if error.forbidden:
            self._lacking.add(error.request)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def quietly() -> None:
            try:
                await work
            except ShoalError as error:
                log.warning("the API server could not be asked to end a pod", error=str(error))

        task = asyncio.get_running_loop().create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
