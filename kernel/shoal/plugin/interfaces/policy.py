"""Policies: whether a caller may do what it asks for. Authorization, ownership, quotas."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from shoal.models.pools import Pool
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.interfaces.auth import Principal
from shoal.plugin.interfaces.component import Component
from shoal.plugin.interfaces.store import SnapshotRecord

Governed: TypeAlias = SandboxRecord | SnapshotRecord | Pool
"""What a policy may hide; treat it as read-only."""

PROXY_OPERATION: Final = "proxyRequest"
WEBSOCKET_OPERATION: Final = "openWebSocket"
"""`PolicyRequest.operation` of what goes on to a sandbox's port."""


class PolicyRequest(Struct, kw_only=True, frozen=True, eq=False):
    """One request, after authentication and before anything is done.

    Attributes:
        operation: the id in the OpenAPI document, ``createSandbox``, or one of those above; of a route that is not in
            the document, method and path template: ``GET /templates``.
        principal: the caller; None where the server asks nobody, and for hosts that are open or signed.
        proof: what let the caller in: its ``credential`` (or nothing, on an open server), an ``open`` host, or a
            ``signed`` one (`HostTarget`).
        method, path: as received; ``path`` is decoded and without query.
        parameters: of the path, by name; ``sandbox_id`` and ``port`` of a proxied request.
        record: the sandbox, snapshot or pool that the path names, if there is one.
        body: of ``createSandbox``, ``createPool``, ``updatePool``, ``createSnapshot``, ``patchSandboxMetadata`` and
            ``renewSandboxExpiration``: as `shoal.models` has it.
    """

    operation: str
    principal: Principal | None
    method: str
    path: str
    proof: Literal["credential", "open", "signed"] = "credential"
    parameters: Mapping[str, str] = {}
    record: Governed | None = None
    body: Any = None


class Policy(Component, ABC):
    """One rule, or many. Every policy is asked, in order of names; the first that refuses ends the request.

    Asked for every route that is not public, built-in or a plugin's, for every proxied request and WebSocket, by path
    or by host. An exception other than a ShoalError refuses the request, with a 500 that is logged.
    """

    async def check(self, request: PolicyRequest) -> None:
        """Return if the caller may.

        Raises Forbidden with a code and message of the policy's own, RateLimited, or NotFound to deny that there is
        such a thing.
        """

    def visible(self, principal: Principal | None, record: Governed) -> bool:
        """Whether it exists for this caller; from memory.

        If not, requests that name it get the 404 of an unknown id, and lists leave it out. Not asked about hosts that
        are open or signed: they stand for what they show.
        """
        return True

    def finished(self, request: PolicyRequest) -> None:
        """A request that `check` let pass is over, however it ended; what it created is in `Lifecycle.records` by now.

        For quotas, which count what is under way besides. Returns at once.
        """
