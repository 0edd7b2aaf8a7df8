"""Registers the memory runtime; used by the benchmarks alone, through the same hooks as any plugin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Adoption, Phase, Workload, WorkloadGone
from shoal.plugin import PluginContext, hookimpl
from shoal.plugin.interfaces import Progress, Runtime


class MemoryRuntime(Runtime):
    """Workloads that are always running; gone with the process."""

    name = "memory"
    scope = "MEMORY"
    concurrency = 64

    def __init__(self) -> None:
        self._workloads: dict[str, Workload] = {}

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        adoption = Adoption(created_at=plan.created_at, entrypoint=plan.command, expires_at=plan.expires_at)
        workload = Workload(id=plan.id, phase=Phase.RUNNING, host="127.0.0.1", adoption=adoption)
        self._workloads[plan.id] = workload
        return workload

    async def delete(self, sandbox_id: str) -> None:
        self._workloads.pop(sandbox_id, None)

    async def list(self) -> list[Workload]:
        return list(self._workloads.values())

    async def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        await asyncio.Event().wait()
        yield WorkloadGone(id="")  # never reached: nothing changes behind shoal's back


@hookimpl
def shoal_register_runtimes(context: PluginContext) -> list[Runtime]:
    return [MemoryRuntime()]
