"""Engines that hold a sandbox's truth themselves, so that several servers may use one engine at once.

Such an engine keeps expiry and metadata with the workload (annotations, custom resources). The kernel then writes them
there first, takes from there what other servers wrote, and ends nothing that the engine does not hold to be over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord

REQUEST_LABEL = "opensandbox.io/request"
"""In `WorkloadPlan.labels` of a create with an Idempotency-Key: what was asked for, to servers that did not see it."""


class Held(Struct, kw_only=True, frozen=True):
    """What the engine holds of a record.

    Attributes:
        expires_at: UTC; None means manual clean-up.
        metadata: of the sandbox, as patched last.
        readable: False where an expiry stands there that nobody can read: the record's own is shown, nothing ends the
            sandbox, and a renewal puts another in its place.
    """

    expires_at: datetime | None
    metadata: dict[str, str]
    readable: bool = True


class SharedTruth(ABC):
    """A runtime's `Runtime.truth`. Raises what a Runtime raises; of `apply`, `Runtime` itself hears nothing then."""

    @abstractmethod
    def held(self, sandbox_id: str) -> Held | None:
        """As last seen, from memory; never older than what `edit` returned. None if there is no such workload."""

    @abstractmethod
    async def accept(self, plan: WorkloadPlan) -> None:
        """Make the workload known to every server before the caller is answered; `Runtime.create` waits until it runs.

        On the request path: quick. Of a plan whose ``id`` is there already, nothing is made anew. What is raised is the
        caller's answer; `Runtime.delete` follows.
        """

    def recover(self, plan: WorkloadPlan) -> bool:
        """After a restart: whether what `accept` made of the plan is still there; `Runtime.create` follows if it is.

        From memory. What is not there was deleted by another server, or never made: it is let go of, never made again.
        """
        return self.held(plan.id) is not None

    @abstractmethod
    async def edit(self, sandbox_id: str, change: Callable[[Held], Held]) -> Held:
        """Replace what is held by what ``change`` makes of it, in one step; returns what is held then.

        ``change`` is called again if somebody else was faster, and what it raises is raised. Raises NotFound.
        """

    @abstractmethod
    async def end(self, sandbox_id: str, now: datetime) -> bool:
        """Begin to remove the workload if its expiry, as held, is not after ``now``, in one step.

        False if it was renewed; True also if there is no such workload. `Runtime.delete` follows.
        """

    async def remember(self, record: SandboxRecord) -> None:
        """A create failed for good: have every server show the record until its ``purge_at``.

        They hear of it as of a workload, FAILED, whose adoption has that ``purge_at``; `Runtime.delete` follows and
        leaves it. The default keeps nothing: only the server that tried knows the reason.
        """
        return

    async def forget(self, sandbox_id: str) -> None:
        """End what `remember` kept; absent is success."""
        return

    @abstractmethod
    def in_charge(self) -> bool:
        """Whether this server, and no other, ends what is over."""
