"""The concerns of the network, asked together: what they make of a plan, and that they let go of a sandbox."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from shoal.errors import ConfigError, InvalidRequest
from shoal.kit.backoff import Backoff
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.models.sidecars import check_neighbours
from shoal.plugin.calls import ComponentFailure, bounded, contained, wrong
from shoal.plugin.components import Components, Part
from shoal.plugin.interfaces import Networking

log = structlog.get_logger("shoal.lifecycle")

RELEASE_SECONDS: Final = 10.0
"""How long a concern may take to let go of a sandbox."""
BACKOFF_FIRST, BACKOFF_MAX = 1.0, 60.0
"""Seconds between two tries of a concern that could not let go."""
TRIES: Final = 10


class Networks:
    """Every `Networking` of the enabled plugins, in order of their names."""

    def __init__(self, components: Components) -> None:
        self._concerns = [(each, components.part("networking", each)) for each in components.networking]
        self._retries: set[asyncio.Task[None]] = set()

    async def amend(self, plan: WorkloadPlan) -> WorkloadPlan:
        """The plan after every concern had its say.

        Raises InvalidRequest for a policy that nobody keeps, for sidecars that get in each other's way, whatever else
        a concern refuses, and InternalError for an answer that is no plan of this sandbox.
        """
        if plan.network.policy is not None and not any(each.keeps_policies for each, _ in self._concerns):
            raise InvalidRequest(codes.INVALID_PARAMETER, "networkPolicy: no enabled plugin keeps network policies.")
        if plan.secure_access and not any(each.secures_access for each, _ in self._concerns):
            raise InvalidRequest(codes.INVALID_PARAMETER, "secureAccess: no enabled plugin demands access tokens.")
        for concern, part in self._concerns:
            with contained(part):
                amended = await concern.amend(plan)
            fault = _fault(plan, amended)
            if fault is not None:
                raise wrong(part, f"returned from amend {fault}")
            plan = amended
        check_neighbours(plan.sidecars)
        return plan

    async def released(self, sandbox_id: str) -> None:
        """Have every concern let go of a sandbox that is gone. Never raises: one that fails is tried again later."""
        for concern, part in self._concerns:
            if type(concern).released is Networking.released:
                continue
            error = await _release(concern, part, sandbox_id)
            if error is not None:
                log.error(
                    "a plugin did not let go of a sandbox", plugin=part.plugin, error=error, sandbox_id=sandbox_id
                )
                retry = asyncio.get_running_loop().create_task(_insist(concern, part, sandbox_id))
                self._retries.add(retry)
                retry.add_done_callback(self._retries.discard)

    async def stop(self) -> None:
        """Try nothing again."""
        tasks = list(self._retries)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _fault(before: WorkloadPlan, amended: object) -> str | None:
    """Why what a concern returned cannot be used; None if it can."""
    if not isinstance(amended, WorkloadPlan):
        return f"a {type(amended).__name__}, and not a WorkloadPlan"
    if (amended.id, amended.runtime) != (before.id, before.runtime):
        return "a plan of another sandbox or runtime"
    if not amended.command or not all(isinstance(word, str) for word in amended.command):
        return "a plan without a command"
    return None


async def _release(concern: Networking, part: Part, sandbox_id: str) -> str | None:
    """One line if it failed."""
    try:
        await bounded(part, "released", lambda: concern.released(sandbox_id), RELEASE_SECONDS)
    except (ComponentFailure, ConfigError) as error:
        return str(error)
    return None


async def _insist(concern: Networking, part: Part, sandbox_id: str) -> None:
    backoff = Backoff(BACKOFF_FIRST, BACKOFF_MAX)
    for _ in range(TRIES):
        await asyncio.sleep(backoff.next())
        if await _release(concern, part, sandbox_id) is None:
            return
    log.error("a plugin never let go of a sandbox", plugin=part.plugin, sandbox_id=sandbox_id)
