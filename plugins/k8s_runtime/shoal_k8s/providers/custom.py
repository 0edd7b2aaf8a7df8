"""What the providers on custom resources share: an informer of their kind, and requests to change an object."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, TypeVar

from shoal.errors import ConfigError, Conflict, NotFound
from shoal.models.plan import WorkloadPlan
from shoal.models.requests import PlatformSpec
from shoal.models.workload import Adoption, Phase, Workload
from shoal.plugin.interfaces import Held
from shoal_k8s import deletion, names
from shoal_k8s.api import KubeApiError, Meta, Resource
from shoal_k8s.api.objects import KubeStruct, OwnerReference
from shoal_k8s.informer import Changed, DeletedObject, Informer
from shoal_k8s.pods import gate
from shoal_k8s.pods.objects import Condition, Pod, PodSpec
from shoal_k8s.pods.status import MAIN, PodVerdict, judge, stopping
from shoal_k8s.providers.edits import Edits
from shoal_k8s.providers.interface import Cluster, WorkloadProvider

SECURE_ACCESS: Final = f"{names.PREFIX}secure-access-token"
RETRIES: Final = 5
"""Tries of a change that met a change by somebody else."""


class Custom(KubeStruct):
    """Base of the decoded resources."""

    metadata: Meta


T = TypeVar("T", bound=Custom)


class CustomProvider(WorkloadProvider, Generic[T]):
    """One custom resource a sandbox; a controller on the cluster makes a pod of it and removes it at its time."""

    resource: ClassVar[Resource]
    object_kind: ClassVar[str]
    struct: type[T]

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.objects: Informer[T] = Informer(
            cluster.client.connection,
            self.resource,
            cluster.namespace,
            self.struct,
            query={"labelSelector": names.ID},
            index=lambda thing: [thing.metadata.labels[names.ID]],
            resync=cluster.resync,
            watch_timeout=cluster.watch_timeout,
            first_list=cluster.first_list,
        )
        self._edits = Edits(cluster.client, self.objects, self.struct, self.expiry, self._renewal)

    @abstractmethod
    def manifest(self, plan: WorkloadPlan) -> dict[str, Any]:
        """The object of a plan, without ``apiVersion``, ``kind`` and ``metadata.name``."""

    @abstractmethod
    def object_name(self, sandbox_id: str) -> str:
        """The name of a new object."""

    @abstractmethod
    def verdict(self, thing: T, pod: Pod | None) -> PodVerdict:
        """Phase, reason and message of an object."""

    @abstractmethod
    def host(self, thing: T, pod: Pod | None) -> str | None:
        """The address at which this server reaches the sandbox."""

    @abstractmethod
    def pod_spec_of(self, thing: T) -> PodSpec:
        """The pod spec inside the object."""

    @abstractmethod
    def expiry(self, thing: T) -> str | None:
        """When the controller will remove it, as the object says it."""

    @abstractmethod
    def expiry_patch(self, expires_at: datetime | None) -> dict[str, Any]:
        """The merge patch of ``spec`` that moves it."""

    def settled_wishes(self, thing: T) -> dict[str, Any]:
        """What a change of ``spec`` has to take back with it, for its controller would act on it once more."""
        return {}

    def _renewal(self, thing: T, expires_at: datetime | None) -> dict[str, Any]:
        return {"spec": {**self.expiry_patch(expires_at), **self.settled_wishes(thing)}}

    async def start(self, changed: Callable[[str], None]) -> None:
        """Follow the objects and their pods. Raises ConfigError if the kind is not installed."""

        def heard(change: Changed[Any] | DeletedObject[Any]) -> None:
            changed(change.object.metadata.labels.get(names.ID, ""))

        self.objects.subscribe(heard)
        self.cluster.pods.subscribe(heard)
        await self.objects.start()
        try:
            await self.cluster.client.list(self.resource, self.cluster.namespace, Anything, {"limit": "1"})
        except KubeApiError as error:
            if not error.not_found:
                raise
            raise ConfigError(f"kubernetes: the resource {self.resource} is not installed on the cluster") from error

    async def stop(self) -> None:
        await self.objects.stop()

    @property
    def error(self) -> Exception | None:
        return self.objects.error

    async def make(self, plan: WorkloadPlan) -> OwnerReference:
        thing = self._held(plan.id) or await self._create(plan)
        self.objects.put(thing)
        api_version = f"{self.resource.group}/{self.resource.version}"
        return OwnerReference(
            api_version=api_version, kind=self.object_kind, name=thing.metadata.name, uid=thing.metadata.uid
        )

    async def _create(self, plan: WorkloadPlan) -> T:
        body = self.manifest(plan)
        body["apiVersion"], body["kind"] = f"{self.resource.group}/{self.resource.version}", self.object_kind
        body.setdefault("metadata", {})["name"] = self.object_name(plan.id)
        client, namespace = self.cluster.client, self.cluster.namespace
        try:
            return await client.create(self.resource, namespace, body, self.struct)
        except KubeApiError as error:
            if not error.exists:
                raise
        return await client.get(self.resource, namespace, self.object_name(plan.id), self.struct)

    async def remove(self, sandbox_id: str) -> None:
        held = self._any(sandbox_id)
        name = held.metadata.name if held is not None else self.object_name(sandbox_id)
        await deletion.delete(self.cluster.client, self.resource, self.cluster.namespace, name)
        if held is not None:
            self.cluster.ending.remove(held.metadata)
        await self.cluster.ending.kill(sandbox_id)

    def held(self, sandbox_id: str) -> Held | None:
        thing = self._held(sandbox_id)
        return None if thing is None else self._edits.held(thing)

    async def edit(self, sandbox_id: str, change: Callable[[Held], Held]) -> Held:
        return await self._edits.edit(self.required(sandbox_id), change)

    async def end(self, sandbox_id: str, now: datetime) -> bool:
        thing = self._held(sandbox_id)
        return thing is None or await self._edits.end(thing, now)

    def pod_spec(self, sandbox_id: str) -> PodSpec | None:
        thing = self._any(sandbox_id)
        return None if thing is None else self.pod_spec_of(thing)

    def subject(self, sandbox_id: str) -> Meta | None:
        held = self._any(sandbox_id)
        return None if held is None else held.metadata

    async def change(self, thing: T, patch: dict[str, Any]) -> T:
        """A merge patch of the object as it now is. Raises KubeApiError, ApiUnreachable."""
        client, namespace = self.cluster.client, self.cluster.namespace
        changed = await client.patch(self.resource, namespace, thing.metadata.name, patch, self.struct)
        self.objects.put(changed)
        return changed

    async def change_checked(self, thing: T, patch: dict[str, Any], allowed: Callable[[T], bool], refusal: str) -> T:
        """The same, only while ``allowed`` says so of the very version that is changed.

        Raises Conflict with the text ``refusal`` once it does not, or if others keep changing it.
        """
        for _ in range(RETRIES):
            if not allowed(thing):
                break
            versioned = {**patch, "metadata": {"resourceVersion": thing.metadata.resource_version}}
            try:
                return await self.change(thing, versioned)
            except KubeApiError as error:
                if not error.conflict:
                    raise
            name = thing.metadata.name
            thing = await self.cluster.client.get(self.resource, self.cluster.namespace, name, self.struct)
            self.objects.put(thing)
        raise Conflict("KUBERNETES::INVALID_STATE", refusal)

    def required(self, sandbox_id: str) -> T:
        """The object. Raises NotFound."""
        thing = self._held(sandbox_id)
        if thing is None:
            raise NotFound("KUBERNETES::SANDBOX_NOT_FOUND", f"The sandbox's {self.object_kind} is gone.")
        return thing

    def find(self, sandbox_id: str) -> Workload | None:
        thing = self._held(sandbox_id)
        return None if thing is None else self._workload(sandbox_id, thing)

    def all(self) -> list[Workload]:
        return [
            self._workload(thing.metadata.labels[names.ID], thing)
            for thing in self.objects
            if not self.cluster.ending.removed(thing.metadata)
        ]

    def _held(self, sandbox_id: str) -> T | None:
        thing = self._any(sandbox_id)
        return None if thing is None or self.cluster.ending.removed(thing.metadata) else thing

    def _any(self, sandbox_id: str) -> T | None:
        """By label, so that objects under the names of older servers are found too."""
        return next(iter(self.objects.by(sandbox_id)), None)

    def _workload(self, sandbox_id: str, thing: T) -> Workload:
        pod = self.pod(sandbox_id)
        verdict = stopping(thing.metadata) or self.verdict(thing, pod)
        annotations = thing.metadata.annotations
        token = annotations.get(SECURE_ACCESS, "").strip()
        return Workload(
            id=sandbox_id,
            phase=verdict.phase,
            reason=verdict.reason,
            message=names.expiry_told(verdict.message, self.expiry(thing)),
            host=self.host(thing, pod) if verdict.phase in (Phase.RUNNING, Phase.PAUSING) else None,
            headers={"OpenSandbox-Secure-Access": token} if token else {},
            labels={key: value for key, value in annotations.items() if key.startswith(names.PREFIX)},
            pool=self.allocated_from(thing),
            adoption=self.adoption(thing),
        )

    def allocated_from(self, thing: T) -> str | None:
        """The pool whose pod it has; None for one that has a pod of its own."""
        return None

    def adoption(self, thing: T) -> Adoption:
        """What the object holds of a sandbox that no store knows."""
        spec, meta = self.pod_spec_of(thing), thing.metadata
        main = next((each for each in spec.containers if each.name == MAIN), None)
        command = main.command if main is not None else []
        selector = spec.node_selector
        system, arch = selector.get("kubernetes.io/os"), selector.get("kubernetes.io/arch")
        snapshot = meta.labels.get(names.SNAPSHOT)
        return Adoption(
            created_at=names.read_time(meta.creation_timestamp) or datetime.now(UTC),
            entrypoint=gate.bare(command),
            expires_at=names.read_time(self.expiry(thing)),
            image=main.image if main is not None and snapshot is None else None,
            snapshot_id=snapshot,
            platform=PlatformSpec(os=system, arch=arch) if system and arch else None,
            metadata=names.metadata_of(meta.labels),
            extensions=names.extensions_of(meta.annotations),
        )


class Anything(KubeStruct):
    """An answer of which nothing is read."""


def true(conditions: list[Condition], kind: str) -> Condition | None:
    """The condition of that type, if it is true."""
    return next((each for each in conditions if each.type == kind and each.status == "True"), None)


def ended(pod: Pod | None) -> PodVerdict | None:
    """What the pod says of an end that its controller may not have seen yet, or not have reported the cause of."""
    said = None if pod is None else judge(pod)
    return said if said is not None and said.phase in (Phase.EXITED, Phase.FAILED, Phase.RESTARTING) else None


def starting(pod: Pod | None, reason: str, message: str, *, again: bool) -> PodVerdict:
    """Pending, in the pod's own words where there is a pod, or Failed where it cannot start.

    Args:
        again: there was a pod before, which the controller is to replace.
    """
    if pod is None:
        return PodVerdict(Phase.RESTARTING if again else Phase.PENDING, reason, message)
    said = judge(pod)
    if said.phase is Phase.RUNNING:
        return PodVerdict(Phase.PENDING, reason, message)  # the controller has not seen it yet
    return said
