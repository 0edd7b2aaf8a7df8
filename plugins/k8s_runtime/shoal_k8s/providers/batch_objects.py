"""Fields of a BatchSandbox (docs/wire/kubernetes.md sections 5 and 6)."""

from __future__ import annotations

from msgspec import field

from shoal_k8s.api.objects import KubeStruct
from shoal_k8s.pods.objects import Condition, PodSpec
from shoal_k8s.providers.custom import Custom


class BatchPodTemplate(KubeStruct):
    spec: PodSpec = field(default_factory=PodSpec)


class TaskProcess(KubeStruct):
    command: list[str] = []


class TaskSpec(KubeStruct):
    process: TaskProcess = field(default_factory=TaskProcess)


class Task(KubeStruct):
    spec: TaskSpec = field(default_factory=TaskSpec)


class BatchSpec(KubeStruct):
    """``pool_ref`` and ``task_template``, or ``template``."""

    expire_time: str | None = None
    pause: bool | None = None
    pool_ref: str | None = None
    task_template: Task = field(default_factory=Task)
    template: BatchPodTemplate = field(default_factory=BatchPodTemplate)


class BatchStatus(KubeStruct):
    phase: str | None = None
    ready: int = 0
    allocated: int = 0
    task_failed: int = 0
    task_succeed: int = 0
    task_running: int = 0
    task_pending: int = 0
    pause_observed_generation: int | None = None
    conditions: list[Condition] = []


class BatchSandbox(Custom):
    spec: BatchSpec = field(default_factory=BatchSpec)
    status: BatchStatus = field(default_factory=BatchStatus)
