"""Networking: changes a plan before it runs, and says how the server reaches a port."""

from __future__ import annotations

from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Workload
from shoal.plugin.interfaces.component import Component


class Networking(Component):
    """One concern of the network: egress policy, published ports, a mesh. All of them are asked, in order of names."""

    async def amend(self, plan: WorkloadPlan) -> WorkloadPlan:
        """The plan, changed or not, before it is durable. Must give the same answer for the same plan.

        Raises InvalidRequest for a policy that cannot be kept.
        """
        return plan

    def route(self, workload: Workload, port: int) -> str | None:
        """``host:port`` by which the server itself reaches ``port``.

        None leaves it to the next, then to the workload.
        """
        return None

    async def released(self, sandbox_id: str) -> None:
        """The sandbox is gone from the engine; let go of what was held for it. Repeated after a crash."""
