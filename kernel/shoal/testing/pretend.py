"""A runtime whose sandboxes are in memory alone, for the tests of plugins that bring no runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec.structs import replace

from shoal.errors import NotFound
from shoal.kit import Feed
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Adoption, Phase, Workload, WorkloadGone
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Capabilities, Progress, Runtime


class PretendRuntime(Runtime):
    """Runs nothing, and says that it does; each sandbox is at 127.0.0.1."""

    name = "pretend"
    scope = "PRETEND"
    capabilities = Capabilities(pause=True)

    def __init__(self) -> None:
        self._workloads: dict[str, Workload] = {}
        self._feed = Feed()

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        adoption = Adoption(
            created_at=plan.created_at,
            entrypoint=plan.command,
            expires_at=plan.expires_at,
            image=plan.image,
            metadata=plan.metadata,
        )
        return self._put(Workload(id=plan.id, phase=Phase.RUNNING, host="127.0.0.1", adoption=adoption))

    async def delete(self, sandbox_id: str) -> None:
        if self._workloads.pop(sandbox_id, None) is not None:
            self._feed.publish(WorkloadGone(id=sandbox_id))

    async def pause(self, sandbox_id: str) -> Workload:
        return self._put(replace(self._known(sandbox_id), phase=Phase.PAUSED))

    async def resume(self, sandbox_id: str) -> Workload:
        return self._put(replace(self._known(sandbox_id), phase=Phase.RUNNING))

    async def list(self) -> list[Workload]:
        return [*self._workloads.values()]

    def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        return self._feed.subscribe()

    def _known(self, sandbox_id: str) -> Workload:
        if sandbox_id not in self._workloads:
            raise NotFound("PRETEND::SANDBOX_NOT_FOUND", "There is no such sandbox.")
        return self._workloads[sandbox_id]

    def _put(self, workload: Workload) -> Workload:
        self._workloads[workload.id] = workload
        self._feed.publish(workload)
        return workload


class PretendPlugin:
    """Registers one."""

    @hookimpl
    def shoal_register_runtimes(self) -> list[Runtime]:
        return [PretendRuntime()]
