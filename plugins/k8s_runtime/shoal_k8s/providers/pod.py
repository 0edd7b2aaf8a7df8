"""Plain pods: nothing to install on the cluster. One pod a sandbox, named by its id; it is never restarted.

What a custom resource would hold stands in annotations, so that another server can take the sandbox over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from shoal.errors import Forbidden, NotFound
from shoal.models.plan import WorkloadPlan
from shoal.models.requests import PlatformSpec
from shoal.models.workload import Adoption, Phase, Workload
from shoal.plugin.interfaces import Held
from shoal_k8s import names
from shoal_k8s.api import KubeApiError
from shoal_k8s.api.failures import QUOTA_EXCEEDED
from shoal_k8s.api.objects import OwnerReference
from shoal_k8s.informer import Changed, DeletedObject
from shoal_k8s.pods import gate, quota
from shoal_k8s.pods.objects import PODS, Pod, PodSpec
from shoal_k8s.pods.spec import pod_spec, spec_defaults
from shoal_k8s.pods.status import MAIN, judge, stopping
from shoal_k8s.providers import template
from shoal_k8s.providers.edits import Edits
from shoal_k8s.providers.interface import Cluster, WorkloadProvider

SECURE_ACCESS: Final = f"{names.PREFIX}secure-access-token"


class PodProvider(WorkloadProvider):
    """``workload_provider = "pod"``."""

    name = "pod"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._template = template.read(cluster.plain_template, "kubernetes.pod_template_file")
        self._edits = Edits(cluster.client, cluster.pods, Pod, _expiry, _expiry_patch)

    def pod_template(self) -> Mapping[str, Any]:
        return template.pod_spec(self._template, "spec")

    async def start(self, changed: Callable[[str], None]) -> None:
        def heard(change: Changed[Pod] | DeletedObject[Pod]) -> None:
            changed(change.object.metadata.labels.get(names.ID, ""))

        self.cluster.pods.subscribe(heard)

    async def make(self, plan: WorkloadPlan) -> OwnerReference:
        pod = self._held(plan.id)
        if pod is None:
            pod = await self._create(plan)
            self.cluster.pods.put(pod)
        return OwnerReference(api_version="v1", kind="Pod", name=pod.metadata.name, uid=pod.metadata.uid)

    async def _create(self, plan: WorkloadPlan) -> Pod:
        client, namespace = self.cluster.client, self.cluster.namespace
        own = _manifest(plan, template.secured(self.pod_template(), pod_spec(plan, self.cluster.defaults)))
        body = template.merge(self._template, own)
        try:
            return await client.create(PODS, namespace, body, Pod)
        except KubeApiError as error:
            if error.over_quota:
                said = quota.explained(error.said, msgspec.convert(body["spec"], PodSpec))
                raise Forbidden(QUOTA_EXCEEDED, f"The namespace's quota does not allow it: {said}.") from error
            if not error.exists:
                raise
        return await client.get(PODS, namespace, plan.id, Pod)  # an earlier try, cut off, made it

    async def remove(self, sandbox_id: str) -> None:
        await self.cluster.ending.end(self.cluster.namespace, sandbox_id)

    def held(self, sandbox_id: str) -> Held | None:
        pod = self._held(sandbox_id)
        return None if pod is None else self._edits.held(pod)

    async def edit(self, sandbox_id: str, change: Callable[[Held], Held]) -> Held:
        pod = self._held(sandbox_id)
        if pod is None:
            raise NotFound("KUBERNETES::SANDBOX_NOT_FOUND", "The sandbox's pod is gone.")
        return await self._edits.edit(pod, change)

    async def end(self, sandbox_id: str, now: datetime) -> bool:
        pod = self._held(sandbox_id)
        return pod is None or await self._edits.end(pod, now)

    def find(self, sandbox_id: str) -> Workload | None:
        pod = self._held(sandbox_id)
        return None if pod is None else _workload(sandbox_id, pod)

    def all(self) -> list[Workload]:
        return [
            _workload(pod.metadata.labels[names.ID], pod)
            for pod in self.cluster.pods
            if self._is_held(pod) and pod.metadata.name == pod.metadata.labels.get(names.ID)
        ]

    def pod_spec(self, sandbox_id: str) -> PodSpec | None:
        pod = self.cluster.pods.get(self.cluster.namespace, sandbox_id)
        return None if pod is None else pod.spec

    def _held(self, sandbox_id: str) -> Pod | None:
        pod = self.cluster.pods.get(self.cluster.namespace, sandbox_id)
        return pod if pod is not None and self._is_held(pod) else None

    def _is_held(self, pod: Pod) -> bool:
        return not self.cluster.ending.removed(pod.metadata)


def _expiry(pod: Pod) -> str | None:
    return pod.metadata.annotations.get(names.EXPIRES)


def _expiry_patch(_pod: Pod, expires_at: datetime | None) -> dict[str, Any]:
    return {"metadata": {"annotations": {names.EXPIRES: None if expires_at is None else names.write_time(expires_at)}}}


def _manifest(plan: WorkloadPlan, spec: dict[str, Any]) -> dict[str, Any]:
    annotations = {
        names.CREATED: names.write_time(plan.created_at),
        names.ENTRYPOINT: json.dumps(plan.command),
        **names.extension_annotations(plan.extensions),
        **plan.labels,
    }
    if plan.expires_at is not None:
        annotations[names.EXPIRES] = names.write_time(plan.expires_at)
    manual = plan.expires_at is None
    labels = names.labels(plan.id, plan.metadata, manual=manual, snapshot_id=plan.snapshot_id)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": plan.id, "labels": labels, "annotations": annotations},
        "spec": {"terminationGracePeriodSeconds": 0, **spec_defaults(spec, plan)},
    }


def _workload(sandbox_id: str, pod: Pod) -> Workload:
    verdict = stopping(pod.metadata) or judge(pod)
    annotations = pod.metadata.annotations
    since = pod.status.condition("Ready")
    token = annotations.get(SECURE_ACCESS, "").strip()
    return Workload(
        id=sandbox_id,
        phase=verdict.phase,
        reason=verdict.reason,
        message=names.expiry_told(verdict.message, _expiry(pod)),
        since=names.read_time(since.last_transition_time) if since and verdict.phase is Phase.RUNNING else None,
        host=(pod.status.pod_ip or None) if verdict.phase is not Phase.STOPPING else None,
        headers={"OpenSandbox-Secure-Access": token} if token else {},
        labels={key: value for key, value in annotations.items() if key.startswith(names.PREFIX)},
        adoption=_adoption(pod),
    )


def _adoption(pod: Pod) -> Adoption:
    meta = pod.metadata
    main = next((container for container in pod.spec.containers if container.name == MAIN), None)
    selector = pod.spec.node_selector
    system, arch = selector.get("kubernetes.io/os"), selector.get("kubernetes.io/arch")
    created = names.read_time(meta.annotations.get(names.CREATED)) or names.read_time(meta.creation_timestamp)
    snapshot = meta.labels.get(names.SNAPSHOT)
    return Adoption(
        created_at=created or datetime.now(UTC),
        entrypoint=_entrypoint(meta.annotations.get(names.ENTRYPOINT), main.command if main else []),
        expires_at=names.read_time(meta.annotations.get(names.EXPIRES)),
        image=main.image if main and snapshot is None else None,
        snapshot_id=snapshot,
        platform=PlatformSpec(os=system, arch=arch) if system and arch else None,
        metadata=names.metadata_of(meta.labels),
        extensions=names.extensions_of(meta.annotations),
    )


def _entrypoint(noted: str | None, command: list[str]) -> list[str]:
    """The command as it was asked for; from the pod itself where nobody noted it."""
    try:
        words = json.loads(noted) if noted else None
    except ValueError:
        words = None
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return words
    return gate.bare(command)
