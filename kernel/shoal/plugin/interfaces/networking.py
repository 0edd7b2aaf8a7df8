"""Networking: changes a plan before it runs, and says how the server reaches a port."""

from __future__ import annotations

from msgspec import Struct

from shoal.models.opensandbox import SECURE_ACCESS_HEADER as SECURE_ACCESS_HEADER
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Workload
from shoal.plugin.interfaces.component import Component


class PolicyTarget(Struct, frozen=True):
    """Where a sandbox's network policy is read and changed.

    Attributes:
        port, path: of the sandbox; requests to its ``networkpolicy`` sub-resource are proxied there.
        headers: added to each, in place of any that the caller sent; may hold secrets.
    """

    port: int
    path: str
    headers: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"PolicyTarget(port={self.port}, path={self.path!r})"


class Networking(Component):
    """One concern of the network: network policies, published ports, a mesh. All of them are asked, in order of names.

    Attributes:
        keeps_policies: `amend` sees to ``plan.network.policy``, or refuses it. A policy that nobody keeps is refused by
            the kernel.
        secures_access: `amend` gives a plan with ``secure_access`` a token, and `access_token` returns it. A create
            that asks for one where nobody does is refused by the kernel.
    """

    keeps_policies: bool = False
    secures_access: bool = False

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

    def headers(self, workload: Workload, port: int) -> dict[str, str]:
        """What clients must send with requests to ``port``, added to the endpoint that they get; from memory.

        The server's own proxy does not add them: they are the caller's to know.
        """
        return {}

    def access_token(self, workload: Workload) -> str | None:
        """What callers must present in `SECURE_ACCESS_HEADER` to reach any port; None if it is open. From memory.

        Endpoints hold it, save signed ones, and the server's own proxy demands it and keeps it from the sandbox.
        """
        return None

    def policy(self, workload: Workload) -> PolicyTarget | None:
        """Where this workload's network policy is managed; None if this concern manages none of it. From memory."""
        return None

    async def released(self, sandbox_id: str) -> None:
        """The sandbox is gone from the engine; let go of what was held for it, within 10 s.

        Repeated after a crash. The sandbox is gone whatever this raises; it is then tried again, ten times at most.
        """
