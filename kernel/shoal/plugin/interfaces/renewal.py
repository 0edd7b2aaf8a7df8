"""Renewal: hears that a sandbox was accessed, and decides what that means for its life."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Literal

from msgspec import Struct

from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.interfaces.component import Component
from shoal.plugin.interfaces.runtime import Capabilities

Transport = Literal["http", "websocket", "gateway"]
"""How somebody came: through this server's proxy, or past it, by the word of a gateway."""

WEBSOCKET_NEWS_SECONDS = 60.0
"""A WebSocket is reported when it connects, and while messages flow at least this often after a message."""


class Access(Struct, frozen=True):
    """One access.

    Attributes:
        sandbox_id: of a sandbox that is known, or was a moment ago.
        port: of the sandbox; None if whoever reports it does not know.
        transport: how it came.
        at: when (UTC).
    """

    sandbox_id: str
    port: int | None
    transport: Transport
    at: datetime


class Renewal(Component, ABC):
    """Decides on a longer life, or an earlier end, and asks for it through ``context.lifecycle``.

    One that is an `Observer` too gets transitions without being registered a second time.

    Attributes:
        extensions: keys of a create's ``extensions`` that it answers for, all below ``access.``. The kernel refuses a
            create with such a key that no enabled plugin answers for, so that none is ignored in silence.
    """

    extensions: frozenset[str] = frozenset()

    def check(self, plan: WorkloadPlan, capabilities: Capabilities) -> None:
        """Refuse a create whose extensions make no sense, before anything is durable.

        Args:
            capabilities: of the runtime that the plan is for.

        Raises InvalidRequest.
        """

    @abstractmethod
    def accessed(self, access: Access) -> None:
        """Called on the proxy's path for every access: note it and return at once; never raises."""

    def finished(self, sandbox_id: str) -> None:
        """An HTTP exchange that `accessed` was called for is over; called once for each, likewise."""

    async def wake(self, record: SandboxRecord) -> bool:
        """A proxied request found the sandbox Pausing or Paused, and waits: resume it, if it wants to be.

        Called once for each such request, and cancelled when its time is up; an operation that was begun goes on.
        Returns False to leave it as it is. Raises what ``context.lifecycle.resume`` raises.
        """
        return False
