"""What a workload provider implements; the runtime does the rest (waiting, diagnostics, claims, secrets)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Final

from msgspec import Struct, field

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Workload
from shoal.plugin.interfaces import Held, SnapshotCatalogue
from shoal.plugin.interfaces.pools import NativePools
from shoal_k8s import names
from shoal_k8s.api import KubeClient, KubeList, Meta
from shoal_k8s.api.objects import OwnerReference
from shoal_k8s.config import PoolTemplateSettings
from shoal_k8s.informer import Informer
from shoal_k8s.pods import placement
from shoal_k8s.pods.defaults import PodDefaults
from shoal_k8s.pods.ending import Ending
from shoal_k8s.pods.objects import PODS, Pod, PodSpec
from shoal_k8s.pools.pooled import pool_of
from shoal_k8s.pools.template import TemplatePolicy

UNEXPLAINED: Final = "FAILED"
"""Reason of a failure that a controller reports; of the cause it names no more than a word."""


class Cluster(Struct, frozen=True):
    """What every provider works with.

    Attributes:
        pods: every pod that carries a sandbox id, found by that id.
        pool_policy: what pools' templates that come through the API may ask for.
    """

    client: KubeClient
    namespace: str
    defaults: PodDefaults
    pods: Informer[Pod]
    ending: Ending
    resync: float
    watch_timeout: float
    first_list: float
    batchsandbox_template: str | None = None
    plain_template: str | None = None
    agent_sandbox_template: str | None = None
    shutdown_policy: str = "Delete"
    pool_policy: TemplatePolicy = field(default_factory=lambda: TemplatePolicy(PoolTemplateSettings()))


class WorkloadProvider(ABC):
    """One kind of workload. Reads answer from informers; changes are requests to the API server.

    Methods that change something raise KubeApiError or ApiUnreachable; the runtime turns them into errors for callers.

    Attributes:
        name: what ``kubernetes.workload_provider`` says.
        can_pause: whether `pause` and `resume` work.
        can_pool: whether it takes sandboxes from the pools of a controller.
        platforms: ``os/arch`` pairs that a sandbox may ask for.
        pools: the ``/pools`` API; None leaves it to the kernel.
        can_snapshot: whether `snapshot` works; known once `start` has returned.
        catalogue: the snapshots of the namespace; known likewise.
    """

    name: ClassVar[str]
    can_pause: ClassVar[bool] = False
    can_pool: ClassVar[bool] = False
    platforms: ClassVar[frozenset[str]] = frozenset({"linux/amd64", "linux/arm64"})

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.pools: NativePools | None = None
        self.can_snapshot = False
        self.catalogue: SnapshotCatalogue | None = None

    def check(self, plan: WorkloadPlan) -> None:
        """Raise InvalidRequest for what this provider cannot make; looks at the plan and at memory only."""
        placement.check(plan, self.pod_template(), self.cluster.defaults)
        if pool_of(plan) is not None and not self.can_pool:
            raise InvalidRequest(
                codes.UNSUPPORTED_POOL_REF, f"extensions.poolRef: the workload provider {self.name!r} has no pools."
            )

    def pod_template(self) -> Mapping[str, Any]:
        """The pod spec of the configured template file; empty without one."""
        return {}

    @abstractmethod
    async def start(self, changed: Callable[[str], None]) -> None:
        """Begin to follow; ``changed(sandbox_id)`` is to be called on the loop whenever `find` may answer anew."""

    async def stop(self) -> None:
        """End what `start` began; the default has nothing to end."""
        return

    @property
    def error(self) -> Exception | None:
        """Why nothing is heard of its objects just now; None while all is well, or where they are pods."""
        return None

    @abstractmethod
    async def make(self, plan: WorkloadPlan) -> OwnerReference:
        """Create the sandbox's object, or find the one of an earlier try; its belongings are to refer to it."""

    @abstractmethod
    async def remove(self, sandbox_id: str) -> None:
        """Delete the object, and have its pods ended behind that; absent is success. `find` shows it no more."""

    @abstractmethod
    def held(self, sandbox_id: str) -> Held | None:
        """Expiry and metadata as the object says them, as last seen; None if there is none."""

    @abstractmethod
    async def edit(self, sandbox_id: str, change: Callable[[Held], Held]) -> Held:
        """Replace them in one step (`SharedTruth.edit`). Raises NotFound, Conflict, and what ``change`` raises."""

    @abstractmethod
    async def end(self, sandbox_id: str, now: datetime) -> bool:
        """Delete the object if its expiry is not after ``now`` (`SharedTruth.end`)."""

    @abstractmethod
    def find(self, sandbox_id: str) -> Workload | None:
        """The workload as last seen."""

    @abstractmethod
    def all(self) -> list[Workload]:
        """Every workload as last seen."""

    async def pause(self, sandbox_id: str) -> None:
        """Ask for it; `find` shows when it is done, or that it was given up. Called only if ``can_pause``."""
        raise NotImplementedError

    async def resume(self, sandbox_id: str) -> None:
        """Likewise."""
        raise NotImplementedError

    def pod(self, sandbox_id: str) -> Pod | None:
        """The sandbox's pod, as last seen; one that is going away only if there is no other."""
        found = self.cluster.pods.by(sandbox_id)
        return min(found, key=lambda pod: pod.metadata.deletion_timestamp is not None, default=None)

    async def look(self, sandbox_id: str) -> None:
        """Ask the API server how the pod is, where the object knows more than the pods' watch has reported."""
        query = {"labelSelector": f"{names.ID}={sandbox_id}"}
        found = await self.cluster.client.list(PODS, self.cluster.namespace, KubeList[Pod], query)
        for pod in found.items or []:
            self.cluster.pods.put(pod)

    @abstractmethod
    def pod_spec(self, sandbox_id: str) -> PodSpec | None:
        """The pod spec in its object, as last seen; None if there is no object."""

    async def find_pod(self, sandbox_id: str) -> Pod | None:
        """The sandbox's pod, also where it is not among those that are followed."""
        return self.pod(sandbox_id)

    async def starved(self, sandbox_id: str) -> str | None:
        """Why the pool that a sandbox waits for has no pod for it; None if it has, or the reason is unknown."""
        return None

    def subject(self, sandbox_id: str) -> Meta | None:
        """The object of which the cluster's events also speak, besides the pod."""
        return None

    async def check_snapshot(self, sandbox_id: str) -> None:
        """Raise Conflict if the sandbox cannot be captured as it is. Called only if ``can_snapshot``."""
        raise NotImplementedError

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> str:
        """Capture it; returns the image. Called only if ``can_snapshot``; repeated with the same id after a crash."""
        raise NotImplementedError

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Absent is success. Called only if ``can_snapshot``."""
        raise NotImplementedError
