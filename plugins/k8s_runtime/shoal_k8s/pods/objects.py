"""The fields of a pod, and of an event, that are read."""

from __future__ import annotations

from typing import Any, Final

from msgspec import field

from shoal_k8s.api import Meta, Resource
from shoal_k8s.api.objects import KubeStruct

PODS: Final = Resource("", "v1", "pods")
EVENTS: Final = Resource("", "v1", "events")
SECRETS: Final = Resource("", "v1", "secrets")
CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims")
RUNTIME_CLASSES: Final = Resource("node.k8s.io", "v1", "runtimeclasses")


class Waiting(KubeStruct):
    reason: str | None = None
    message: str | None = None


class Terminated(KubeStruct):
    exit_code: int = 0
    reason: str | None = None
    message: str | None = None
    finished_at: str | None = None


class RunningSince(KubeStruct):
    started_at: str | None = None


class ContainerState(KubeStruct):
    waiting: Waiting | None = None
    running: RunningSince | None = None
    terminated: Terminated | None = None


class ContainerStatus(KubeStruct):
    name: str
    image: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = field(default_factory=ContainerState)
    last_state: ContainerState = field(default_factory=ContainerState)


class Condition(KubeStruct):
    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None
    observed_generation: int = 0


class PodStatus(KubeStruct):
    phase: str = "Pending"
    reason: str | None = None
    message: str | None = None
    pod_ip: str | None = field(default=None, name="podIP")
    host_ip: str | None = field(default=None, name="hostIP")
    start_time: str | None = None
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


class EnvVar(KubeStruct):
    name: str
    value: str | None = None


class ContainerResources(KubeStruct):
    limits: dict[str, str | int] = {}
    requests: dict[str, str | int] = {}


class Container(KubeStruct):
    """``readiness_probe``: one that has any serves somebody, and must not end."""

    name: str
    readiness_probe: Any = None
    image: str = ""
    command: list[str] = []
    resources: ContainerResources = field(default_factory=ContainerResources)


class PullSecret(KubeStruct):
    name: str = ""


class PodVolume(KubeStruct):
    """``persistent_volume_claim``: given for a volume that is a claim."""

    persistent_volume_claim: Any = None


class PodSpec(KubeStruct):
    image_pull_secrets: list[PullSecret] = []
    volumes: list[PodVolume] = []
    containers: list[Container] = []
    init_containers: list[Container] = []
    node_name: str | None = None
    node_selector: dict[str, str] = {}
    affinity: Any = None
    runtime_class_name: str | None = None
    restart_policy: str = "Always"
    active_deadline_seconds: int | None = None


class Pod(KubeStruct):
    metadata: Meta
    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = field(default_factory=PodStatus)


class KubeEvent(KubeStruct):
    metadata: Meta
    type: str | None = None
    reason: str | None = None
    message: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
