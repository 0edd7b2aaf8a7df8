"""`ClusterTruth`: the cluster holds what a sandbox is, for however many servers.

A sandbox is known to all of them as soon as its object exists, and expiry and metadata are changed on that object. Of
the servers, the one that holds the Lease ends what is over.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.interfaces import Held, SharedTruth
from shoal_k8s.api.failures import map_api_errors
from shoal_k8s.belongings import Belongings
from shoal_k8s.failures import FailedCreates
from shoal_k8s.lease import Leadership
from shoal_k8s.pools.pooled import pool_of
from shoal_k8s.providers.interface import WorkloadProvider
from shoal_k8s.waits import Waits


class ClusterTruth(SharedTruth):
    """Set up once the cluster is reached.

    Args:
        waits: where a create waits for its pool.
        leadership: None for the only server of a namespace, which is always in charge.
        failures: None for a server that is alone.
    """

    def __init__(
        self,
        provider: WorkloadProvider,
        belongings: Belongings,
        waits: Waits,
        leadership: Leadership | None,
        failures: FailedCreates | None,
    ) -> None:
        self._failures = failures
        self._provider = provider
        self._belongings = belongings
        self._waits = waits
        self._leadership = leadership
        self._accepted: set[str] = set()

    def held(self, sandbox_id: str) -> Held | None:
        return self._provider.held(sandbox_id)

    async def accept(self, plan: WorkloadPlan) -> None:
        """Also waits, bounded, for a pod of the pool that the plan names: a caller gets an error if there is none."""
        await self.ensure(plan)
        if pool_of(plan) is not None:
            await self._waits.allocated(plan.id)
        self._accepted.add(plan.id)

    def recover(self, plan: WorkloadPlan) -> bool:
        there = self.held(plan.id) is not None
        if there:
            self._accepted.add(plan.id)
        return there

    async def remember(self, record: SandboxRecord) -> None:
        if self._failures is not None:
            with map_api_errors():
                await self._failures.remember(record)

    async def forget(self, sandbox_id: str) -> None:
        if self._failures is not None:
            with map_api_errors():
                await self._failures.forget(sandbox_id)

    def settled(self, sandbox_id: str) -> None:
        """It runs, or was removed: another object of that id would be a new one."""
        self._accepted.discard(sandbox_id)

    async def ensure(self, plan: WorkloadPlan) -> None:
        """Make the object and what belongs to it, as far as they are not there.

        Of what was accepted before, the object is not made again: if it is gone, somebody deleted it.
        """
        if plan.id in self._accepted and self.held(plan.id) is None:
            return
        with map_api_errors():
            await self._belongings.prepare(plan)
            owner = await self._provider.make(plan)
            await self._belongings.hand_over(plan, owner)

    async def edit(self, sandbox_id: str, change: Callable[[Held], Held]) -> Held:
        with map_api_errors():
            return await self._provider.edit(sandbox_id, change)

    async def end(self, sandbox_id: str, now: datetime) -> bool:
        self._belongings.note(sandbox_id, self._provider.pod_spec(sandbox_id))
        with map_api_errors():
            return await self._provider.end(sandbox_id, now)

    def in_charge(self) -> bool:
        return self._leadership is None or self._leadership.held
