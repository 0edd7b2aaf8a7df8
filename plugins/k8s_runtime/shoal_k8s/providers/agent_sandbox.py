"""agent-sandbox: one ``Sandbox`` of ``agents.x-k8s.io`` each (docs/wire/kubernetes.md sections 3, 7, 11, 14, 16)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import field

from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase
from shoal_k8s import names
from shoal_k8s.api import Resource
from shoal_k8s.api.failures import over_quota
from shoal_k8s.api.objects import KubeStruct
from shoal_k8s.pods import quota
from shoal_k8s.pods.objects import Condition, Pod, PodSpec
from shoal_k8s.pods.spec import pod_spec, spec_defaults
from shoal_k8s.pods.status import PodVerdict, judge
from shoal_k8s.pools.native import NoPools
from shoal_k8s.providers import template
from shoal_k8s.providers.custom import Custom, CustomProvider, ended, starting, true
from shoal_k8s.providers.interface import Cluster


class AgentPodTemplate(KubeStruct):
    spec: PodSpec = field(default_factory=PodSpec)


class AgentSpec(KubeStruct):
    operating_mode: str = "Running"
    shutdown_time: str | None = None
    pod_template: AgentPodTemplate = field(default_factory=AgentPodTemplate)


class AgentStatus(KubeStruct):
    conditions: list[Condition] = []
    selector: str | None = None
    pod_ips: list[str] = field(default_factory=list, name="podIPs")
    service_fqdn: str | None = field(default=None, name="serviceFQDN")


class AgentSandbox(Custom):
    spec: AgentSpec = field(default_factory=AgentSpec)
    status: AgentStatus = field(default_factory=AgentStatus)


class AgentSandboxProvider(CustomProvider[AgentSandbox]):
    """``workload_provider = "agent-sandbox"``. A pause loses the pod and its file system: so says its controller."""

    name = "agent-sandbox"
    can_pause = True
    resource = Resource("agents.x-k8s.io", "v1beta1", "sandboxes")
    object_kind = "Sandbox"
    struct = AgentSandbox

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._template = template.read(cluster.agent_sandbox_template, "agent_sandbox.template_file")
        self.pools = NoPools(self.name)

    def pod_template(self) -> Mapping[str, Any]:
        return template.pod_spec(self._template, "spec", "podTemplate", "spec")

    def object_name(self, sandbox_id: str) -> str:
        return dns_1035(sandbox_id)

    def manifest(self, plan: WorkloadPlan) -> dict[str, Any]:
        labels = names.labels(plan.id, plan.metadata, manual=plan.expires_at is None, snapshot_id=plan.snapshot_id)
        annotations = {**names.extension_annotations(plan.extensions), **plan.labels}
        inner = template.secured(self.pod_template(), pod_spec(plan, self.cluster.defaults))
        spec = {
            "operatingMode": "Running",
            "service": True,
            "shutdownPolicy": self.cluster.shutdown_policy,
            "podTemplate": {"metadata": {"labels": labels}, "spec": inner},
        }
        own = {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}
        merged = template.merge(self._template, own)
        spec_defaults(merged["spec"]["podTemplate"]["spec"], plan)
        merged["spec"].pop("shutdownTime", None)
        merged["spec"].update(self.expiry_patch(plan.expires_at) if plan.expires_at is not None else {})
        return merged

    def verdict(self, thing: AgentSandbox, pod: Pod | None) -> PodVerdict:
        """The table of section 11, first match; ``Ready`` wins over a ``Suspended`` that was never cleared."""
        conditions = thing.status.conditions
        ready = next((each for each in conditions if each.type == "Ready"), None)
        if ready is not None and ready.reason == "SandboxExpired":
            return PodVerdict(Phase.EXITED, "SandboxExpired", ready.message or "The sandbox has expired.")
        if thing.spec.operating_mode == "Suspended":
            suspended = true(conditions, "Suspended")
            if suspended is not None and pod is None:  # older controllers never clear it
                return PodVerdict(
                    Phase.PAUSED, suspended.reason or "SUSPENDED", suspended.message or "It is suspended."
                )
            return PodVerdict(Phase.PAUSING, "PAUSING", "The sandbox is being suspended.")
        if _resuming(thing, ready):
            return PodVerdict(Phase.RESUMING, "RESUMING", "The sandbox is being resumed.")
        said = ended(pod)
        if said is not None:
            return said
        again = thing.status.selector is not None
        if ready is None:
            if pod is not None and judge(pod).phase is Phase.RUNNING:
                return judge(pod)
            message = "The controller has not made a ready pod yet."
            return starting(pod, "SANDBOX_PENDING", message, again=again)
        if ready.status == "True":
            return PodVerdict(Phase.RUNNING, ready.reason or "READY", ready.message or "The sandbox is ready.")
        return self._not_ready(thing, ready, pod, again=again)

    def _not_ready(self, thing: AgentSandbox, ready: Condition, pod: Pod | None, *, again: bool) -> PodVerdict:
        said = ready.message or "The sandbox is not ready."
        if ready.reason == "PodSucceeded":
            return PodVerdict(Phase.EXITED, ready.reason, said)
        if ready.reason == "PodFailed":
            return PodVerdict(Phase.FAILED, ready.reason, said, hopeless=True)
        if ready.reason == "ReconcilerError" and over_quota(said):
            return PodVerdict(
                Phase.FAILED, "QUOTA_EXCEEDED", quota.explained(said, self.pod_spec_of(thing)), hopeless=True
            )
        return starting(pod, ready.reason or "NOT_READY", said, again=again)

    def host(self, thing: AgentSandbox, pod: Pod | None) -> str | None:
        addresses = [*thing.status.pod_ips, (pod.status.pod_ip if pod is not None else None)]
        return next((address for address in addresses if address), None)

    def pod_spec_of(self, thing: AgentSandbox) -> PodSpec:
        return thing.spec.pod_template.spec

    def expiry(self, thing: AgentSandbox) -> str | None:
        return thing.spec.shutdown_time

    def expiry_patch(self, expires_at: datetime | None) -> dict[str, Any]:
        return {"shutdownTime": None if expires_at is None else names.write_time(expires_at)}

    async def pause(self, sandbox_id: str) -> None:
        """Ask the controller; `find` shows when it is done. Raises Conflict, NotFound, KubeApiError."""
        await self._operate(sandbox_id, "Suspended", "Only a running sandbox can be paused.")

    async def resume(self, sandbox_id: str) -> None:
        """Likewise."""
        await self._operate(sandbox_id, "Running", "Only a paused sandbox can be resumed.")

    async def _operate(self, sandbox_id: str, mode: str, refusal: str) -> None:
        patch = {"spec": {"operatingMode": mode}}
        await self.change_checked(self.required(sandbox_id), patch, lambda now: _ended(now) is None, refusal)


def _resuming(thing: AgentSandbox, ready: Condition | None) -> bool:
    """Whether its controller has not seen yet that it is to run again. Older ones never clear ``Suspended``."""
    suspended = true(thing.status.conditions, "Suspended")
    if suspended is None or (ready is not None and ready.status == "True"):
        return False
    return suspended.observed_generation < thing.metadata.generation


def _ended(thing: AgentSandbox) -> Condition | None:
    over = ("SandboxExpired", "PodSucceeded", "PodFailed")
    return next((each for each in thing.status.conditions if each.type == "Ready" and each.reason in over), None)


def dns_1035(text: str) -> str:
    """The object's name for an id (docs/wire/kubernetes.md section 3); the gateway computes the same."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]+", "-", text.strip().lower())).strip("-")
    if not name:
        return f"sandbox-{digest}"
    if not name[0].isalpha():
        name = f"sandbox-{name}"
    if len(name) <= 63:
        return name
    base = name[:54].strip("-")
    return f"{base if base[:1].isalpha() else 'sandbox'}-{digest}"
