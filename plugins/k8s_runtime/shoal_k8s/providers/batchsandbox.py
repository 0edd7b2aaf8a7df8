"""BatchSandbox: one resource of ``sandbox.opensandbox.io`` each (docs/wire/kubernetes.md sections 5, 11, 14, 16)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Adoption, Phase
from shoal_k8s import names
from shoal_k8s.api import KubeApiError, Resource
from shoal_k8s.api.objects import OwnerReference
from shoal_k8s.pods.objects import PODS, Pod, PodSpec
from shoal_k8s.pods.spec import pod_spec, spec_defaults
from shoal_k8s.pods.status import PULLING, PodVerdict, judge
from shoal_k8s.pools import pooled
from shoal_k8s.pools.native import ClusterPools
from shoal_k8s.pools.objects import allocated, kept
from shoal_k8s.providers import template
from shoal_k8s.providers.batch_objects import BatchSandbox, BatchStatus
from shoal_k8s.providers.custom import CustomProvider, ended, starting, true
from shoal_k8s.providers.interface import UNEXPLAINED, Cluster
from shoal_k8s.providers.wishes import transition
from shoal_k8s.snapshots import preflight
from shoal_k8s.snapshots.captures import Captures
from shoal_k8s.snapshots.catalogue import ClusterSnapshots

ENDPOINTS = "sandbox.opensandbox.io/endpoints"


class BatchSandboxProvider(CustomProvider[BatchSandbox]):
    """``workload_provider = "batchsandbox"``."""

    name = "batchsandbox"
    can_pause = True
    can_pool = True
    platforms = CustomProvider.platforms | {"windows/amd64", "windows/arm64"}
    resource = Resource("sandbox.opensandbox.io", "v1alpha1", "batchsandboxes")
    object_kind = "BatchSandbox"
    struct = BatchSandbox

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._template = template.read(cluster.batchsandbox_template, "kubernetes.batchsandbox_template_file")
        self.pools = self._pools = ClusterPools(cluster.client, cluster.namespace, cluster.pool_policy)
        self._captures = Captures(
            cluster.client,
            cluster.namespace,
            cluster.ending,
            resync=cluster.resync,
            watch_timeout=cluster.watch_timeout,
            first_list=cluster.first_list,
        )

    async def start(self, changed: Callable[[str], None]) -> None:
        await super().start(changed)
        self.can_snapshot = await self._captures.start()
        if self.can_snapshot:
            self.catalogue = ClusterSnapshots(self._captures, "kubernetes", self._source)

    async def stop(self) -> None:
        await self._captures.stop()
        await super().stop()

    @property
    def error(self) -> Exception | None:
        return super().error or self._captures.error

    def check(self, plan: WorkloadPlan) -> None:
        if pooled.pool_of(plan) is not None:
            pooled.check(plan)
        else:
            super().check(plan)

    def pod_template(self) -> Mapping[str, Any]:
        return template.pod_spec(self._template, "spec", "template", "spec")

    def object_name(self, sandbox_id: str) -> str:
        return sandbox_id

    async def make(self, plan: WorkloadPlan) -> OwnerReference:
        """Raises NotFound also for a pool that is not there."""
        pool = pooled.pool_of(plan)
        if pool not in (None, pooled.ANY) and self.held(plan.id) is None:
            await self._pools.get(str(pool))
        return await super().make(plan)

    def manifest(self, plan: WorkloadPlan) -> dict[str, Any]:
        labels = names.labels(plan.id, plan.metadata, manual=plan.expires_at is None, snapshot_id=plan.snapshot_id)
        extensions = names.extension_annotations(plan.extensions)
        described = {"labels": labels, "annotations": {**extensions, **plan.labels}}
        pool = pooled.pool_of(plan)
        if pool is not None:
            merged = {"metadata": described, "spec": pooled.spec(plan, pool, self.cluster.defaults)}
        else:
            pod = {"labels": labels, "annotations": extensions}  # tokens stand on the object alone
            inner = template.secured(self.pod_template(), pod_spec(plan, self.cluster.defaults))
            spec = {"replicas": 1, "template": {"metadata": pod, "spec": inner}}
            merged = template.merge(self._template, {"metadata": described, "spec": spec})
            spec_defaults(merged["spec"]["template"]["spec"], plan)
        merged["spec"].pop("expireTime", None)
        merged["spec"].update(self.expiry_patch(plan.expires_at) if plan.expires_at is not None else {})
        return merged

    def verdict(self, thing: BatchSandbox, pod: Pod | None) -> PodVerdict:
        """The table of section 11, first match; a pod's own words while it is on its way, and of its end."""
        status = thing.status
        moving = transition(thing.spec.pause, status.phase, status.conditions, acknowledged=_acknowledged(thing))
        if moving is not None:
            return moving
        said = _task_ended(status) or ended(pod)
        if said is not None:
            return said
        if status.phase == "Failed":
            return self._failed(status, pod)
        if status.phase in ("Succeed", "Running"):
            return PodVerdict(Phase.RUNNING, "RUNNING", _running(thing.spec.pool_ref))
        exhausted = true(status.conditions, "PoolAllocationPending")
        if exhausted is not None:
            return PodVerdict(Phase.PENDING, pooled.EXHAUSTED, exhausted.message or "The pool has no free pod.")
        if status.phase is None and status.ready >= 1 and _endpoint(thing) is not None:
            return PodVerdict(Phase.RUNNING, "POD_READY_WITH_IP", "The pod is ready.")
        again = ENDPOINTS in thing.metadata.annotations and _endpoint(thing) is None  # absent before the first pod
        return starting(pod, "BATCHSANDBOX_PENDING", "The controller has not made a ready pod yet.", again=again)

    def _failed(self, status: BatchStatus, pod: Pod | None) -> PodVerdict:
        """What is failed stays so, also if the kubelet gets the image later; it knows why it did not."""
        seen = None if pod is None else judge(pod)
        if seen is not None and seen.reason in PULLING:
            return PodVerdict(Phase.FAILED, seen.reason, seen.message, hopeless=True)
        causes = (true(status.conditions, kind) for kind in ("PodFailed", "ResumeFailed", "PauseFailed"))
        cause = next((condition for condition in causes if condition is not None), None)
        said = (cause.message or cause.reason) if cause is not None else None
        return PodVerdict(Phase.FAILED, UNEXPLAINED, said or "The controller reports a failure.", hopeless=True)

    def host(self, thing: BatchSandbox, pod: Pod | None) -> str | None:
        """None once the controller took its pod back: that pod may serve somebody else."""
        annotations = thing.metadata.annotations
        if thing.spec.pool_ref is not None and kept(annotations) != allocated(annotations).pods:
            return None
        return _endpoint(thing) or (pod.status.pod_ip if pod is not None else None) or None

    def allocated_from(self, thing: BatchSandbox) -> str | None:
        return pooled.allocation(thing.metadata, thing.spec.pool_ref, thing.status.allocated)

    def adoption(self, thing: BatchSandbox) -> Adoption:
        found = super().adoption(thing)
        if thing.spec.pool_ref is None:
            return found
        command = pooled.command_of(thing.spec.task_template.spec.process.command)
        return replace(found, entrypoint=command, image=pooled.UNKNOWN_IMAGE)

    async def find_pod(self, sandbox_id: str) -> Pod | None:
        """A pool's pods do not carry the sandbox's id; the object names the one that it has."""
        pod, thing = self.pod(sandbox_id), self._held(sandbox_id)
        if pod is not None or thing is None:
            return pod
        for name in kept(thing.metadata.annotations):
            try:
                return await self.cluster.client.get(PODS, self.cluster.namespace, name, Pod)
            except KubeApiError as error:
                if not error.not_found:
                    raise
        return None

    async def starved(self, sandbox_id: str) -> str | None:
        thing = self._held(sandbox_id)
        if thing is None or allocated(thing.metadata.annotations).pods:
            return None
        pool = thing.spec.pool_ref
        if pool in (None, pooled.ANY):
            return "No pool has a free pod."
        status = (await self._pools.get(str(pool))).status
        if status is None or status.available > 0:
            return None
        return f"The pool {pool!r} has no free pod: {status.allocated} of {status.total} are taken."

    def pod_spec_of(self, thing: BatchSandbox) -> PodSpec:
        return thing.spec.template.spec

    def expiry(self, thing: BatchSandbox) -> str | None:
        return thing.spec.expire_time

    def expiry_patch(self, expires_at: datetime | None) -> dict[str, Any]:
        return {"expireTime": None if expires_at is None else names.write_time(expires_at)}

    def settled_wishes(self, thing: BatchSandbox) -> dict[str, Any]:
        """A pause that is done would be made again by any change of ``spec``, and its images be lost with that."""
        done = "Paused" if thing.spec.pause else "Succeed"
        settled = thing.spec.pause is not None and thing.status.phase == done and _acknowledged(thing) is not False
        return {"pause": None} if settled else {}

    async def pause(self, sandbox_id: str) -> None:
        """Ask the controller; `find` shows when it is done. Raises Conflict, NotFound, KubeApiError."""
        thing = self.required(sandbox_id)
        thing = await self._bridge(thing, "PauseFailed", wish=True)
        refusal = "Only a running sandbox can be paused."
        await self.change_checked(
            thing, {"spec": {"pause": True}}, lambda now: now.status.phase in ("Succeed", "Pausing"), refusal
        )

    async def resume(self, sandbox_id: str) -> None:
        """Likewise."""
        thing = self.required(sandbox_id)
        thing = await self._bridge(thing, "ResumeFailed", wish=False)
        refusal = "Only a paused sandbox can be resumed."
        await self.change_checked(
            thing, {"spec": {"pause": False}}, lambda now: now.status.phase in ("Paused", "Resuming"), refusal
        )

    async def _bridge(self, thing: BatchSandbox, failure: str, *, wish: bool) -> BatchSandbox:
        """The controller acts on a change only: what failed or was lost is taken back before it is said again."""
        before = "Succeed" if wish else "Paused"
        lost = thing.spec.pause is wish and thing.status.phase == before and _acknowledged(thing) is True
        failed = true(thing.status.conditions, failure) is not None and thing.spec.pause is not None
        return await self.change(thing, {"spec": {"pause": None}}) if lost or failed else thing

    async def check_snapshot(self, sandbox_id: str) -> None:
        await preflight.check(self.cluster.client, await self.find_pod(sandbox_id))

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> str:
        return await self._captures.take(sandbox_id, snapshot_id, self._source(sandbox_id))

    def _source(self, sandbox_id: str) -> str:
        held = self.subject(sandbox_id)
        return held.name if held is not None else self.object_name(sandbox_id)

    async def delete_snapshot(self, snapshot_id: str) -> None:
        await self._captures.remove(snapshot_id)


def _acknowledged(thing: BatchSandbox) -> bool | None:
    """Whether its controller has seen the object as it is; None for one that does not say."""
    seen = thing.status.pause_observed_generation
    return None if seen is None else seen >= thing.metadata.generation


def _running(pool: str | None) -> str:
    if pool is None:
        return "The sandbox runs."
    return f"The sandbox runs in a pod of the pool {pool!r}, with the pool's image and resources."


def _task_ended(status: BatchStatus) -> PodVerdict | None:
    """How the command of a pooled sandbox ended; its pod runs on."""
    if status.task_failed > 0 and status.phase != "Failed":
        return PodVerdict(Phase.FAILED, "TASK_FAILED", f"{status.task_failed} task(s) failed.", hopeless=True)
    if status.task_succeed > 0 and status.task_running == status.task_pending == 0:
        return PodVerdict(Phase.EXITED, "TASK_SUCCEEDED", "The sandbox's command ended with exit code 0.")
    return None


def _endpoint(thing: BatchSandbox) -> str | None:
    """The first pod address that the controller noted."""
    try:
        noted = msgspec.json.decode(thing.metadata.annotations.get(ENDPOINTS, "[]"), type=list[str])
    except msgspec.DecodeError:
        return None
    return next((address for address in noted if address), None)
