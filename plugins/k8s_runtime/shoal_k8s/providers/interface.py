"""What a workload provider implements; the runtime does the rest (waiting, diagnostics, claims, secrets)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from msgspec import Struct

from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Workload
from shoal.plugin.interfaces import Held
from shoal_k8s.api import KubeClient
from shoal_k8s.api.objects import OwnerReference
from shoal_k8s.informer import Informer
from shoal_k8s.pods.objects import Pod
from shoal_k8s.pods.spec import PodDefaults


class Cluster(Struct, frozen=True):
    """What every provider works with.

    Attributes:
        pods: every pod that carries a sandbox id, found by that id.
    """

    client: KubeClient
    namespace: str
    defaults: PodDefaults
    pods: Informer[Pod]
    resync: float
    watch_timeout: float
    batchsandbox_template: str | None = None
    agent_sandbox_template: str | None = None
    shutdown_policy: str = "Delete"


class WorkloadProvider(ABC):
    """One kind of workload. Reads answer from informers; changes are requests to the API server.

    Methods that change something raise ApiError or ApiUnreachable; the runtime turns them into what callers are told.

    Attributes:
        name: what ``kubernetes.workload_provider`` says.
        can_pause: whether `pause` and `resume` work.
    """

    name: ClassVar[str]
    can_pause: ClassVar[bool] = False

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @abstractmethod
    async def start(self, changed: Callable[[str], None]) -> None:
        """Begin to follow; ``changed(sandbox_id)`` is to be called on the loop whenever `find` may answer anew."""

    async def stop(self) -> None:
        """End what `start` began; the default has nothing to end."""
        return

    @abstractmethod
    async def make(self, plan: WorkloadPlan) -> OwnerReference:
        """Create the sandbox's object, or find the one of an earlier try; its belongings are to refer to it."""

    @abstractmethod
    async def remove(self, sandbox_id: str) -> None:
        """Delete the object; absent is success."""

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
        """Ask for it; the runtime waits until `find` shows it. Called only if ``can_pause``."""
        raise NotImplementedError

    async def resume(self, sandbox_id: str) -> None:
        """Likewise."""
        raise NotImplementedError

    def check_transition(self, sandbox_id: str) -> None:
        """Raise EngineFailure if a pause or a resume that was asked for was given up."""
        return

    def pod(self, sandbox_id: str) -> Pod | None:
        """The sandbox's pod, for diagnostics."""
        return next(iter(self.cluster.pods.by(sandbox_id)), None)
