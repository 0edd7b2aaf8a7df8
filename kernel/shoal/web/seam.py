"""What the web layer asks of the rest of the kernel, as Protocols: it imports neither the engine nor the logs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from shoal.errors import NotFound
from shoal.models.pools import CapacitySpec, CreatePool, Pool
from shoal.models.requests import CreateSandbox, MetadataPatch
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.interfaces import Endpoint, LogQuery, PolicyTarget, Principal, SnapshotRecord
from shoal.proxy.asgi import Header, Receive, Scope, Send
from shoal.proxy.target import ProxyTarget
from shoal.proxy.websocket import ClientSocket
from shoal.view.entry import Entry
from shoal.view.listing import ListQuery, Page

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application; the libraries disagree on the types of what it takes."""
Readiness = Callable[[], Awaitable[dict[str, str | None]]]
"""Each component as ``plugin/family/name``, and why it cannot work now; None if it can."""


class PoolsApi(Protocol):
    """The pools of the lifecycle. Every method raises a ShoalError and nothing else on purpose."""

    async def create(self, request: CreatePool) -> Pool:
        """A new pool."""
        ...

    async def all(self) -> list[Pool]:
        """Every pool."""
        ...

    async def get(self, name: str) -> Pool:
        """One pool."""
        ...

    async def update(self, name: str, capacity: CapacitySpec) -> Pool:
        """Another capacity."""
        ...

    async def delete(self, name: str) -> None:
        """Delete it; what was taken from it stays."""
        ...

    def unknown(self, name: str) -> NotFound:
        """What is raised for a name that no pool has."""
        ...


class SandboxesApi(Protocol):
    """The sandboxes of the lifecycle. Every method raises a ShoalError and nothing else on purpose."""

    async def create(
        self, request: CreateSandbox, *, principal: Principal | None, idempotency_key: str | None
    ) -> Entry:
        """Accept a create whose schema was checked; durable when it returns."""
        ...

    def entry(self, sandbox_id: str) -> Entry:
        """The sandbox as it is now, from memory."""
        ...

    async def wait(self, sandbox_id: str, states: frozenset[State], timeout: float) -> Entry:  # noqa: ASYNC109 - bounded
        """The sandbox once it is in one of ``states``, has ended, or ``timeout`` seconds have passed."""
        ...

    async def begun(self, sandbox_id: str, timeout: float) -> Entry:  # noqa: ASYNC109 - bounded
        """The sandbox once more is known of it than that it was accepted, or ``timeout`` seconds have passed."""
        ...

    def find(self, sandbox_id: str) -> SandboxRecord | None:
        """Its record, if there is such a sandbox."""
        ...

    def unknown(self, sandbox_id: str) -> NotFound:
        """What is raised for an id that no sandbox has."""
        ...

    def page(self, query: ListQuery, sees: Callable[[SandboxRecord], bool] | None = None) -> Page:
        """One page of the list, from memory; of those that the caller ``sees``, if given."""
        ...

    async def patch_metadata(self, sandbox_id: str, patch: MetadataPatch) -> Entry:
        """Merge ``patch`` into the metadata, atomically."""
        ...

    async def delete(self, sandbox_id: str) -> None:
        """Delete it."""
        ...

    async def pause(self, sandbox_id: str) -> None:
        """Pause it."""
        ...

    async def resume(self, sandbox_id: str) -> None:
        """Resume it."""
        ...

    async def renew(self, sandbox_id: str, expires_at: datetime) -> datetime:
        """Move the expiry; the one in force."""
        ...


class SnapshotsApi(Protocol):
    """The snapshots of the lifecycle. Every method raises a ShoalError and nothing else on purpose."""

    async def create(self, sandbox_id: str, name: str | None) -> SnapshotRecord:
        """Accept a snapshot."""
        ...

    def all(self) -> list[SnapshotRecord]:
        """Every snapshot, newest first."""
        ...

    def get(self, snapshot_id: str) -> SnapshotRecord:
        """One snapshot."""
        ...

    async def delete(self, snapshot_id: str) -> None:
        """Delete it."""
        ...

    def unknown(self, snapshot_id: str) -> NotFound:
        """What is raised for an id that no snapshot has."""
        ...


class DiagnosticsApi(Protocol):
    """Text about one sandbox. Every method raises a ShoalError and nothing else on purpose."""

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        """The workload's output."""
        ...

    async def events(self, sandbox_id: str, limit: int) -> str:
        """What befell it."""
        ...

    async def inspect(self, sandbox_id: str) -> str:
        """How its engine describes it."""
        ...


class ReachApi(Protocol):
    """How sandboxes' ports are reached. Every method raises a ShoalError and nothing else on purpose."""

    async def endpoint(
        self, sandbox_id: str, port: int, *, use_server_proxy: bool, expires: int | None, base: str
    ) -> Endpoint:
        """The endpoint of a port, as a client gets it."""
        ...

    async def policy(self, sandbox_id: str) -> PolicyTarget:
        """Where its network policy is read and changed."""
        ...


class LifecycleApi(Protocol):
    """The lifecycle, by what is asked of it."""

    @property
    def sandboxes(self) -> SandboxesApi:
        """Creates, reads and changes."""
        ...

    @property
    def snapshots(self) -> SnapshotsApi:
        """Snapshots."""
        ...

    @property
    def pools(self) -> PoolsApi:
        """Warm pools."""
        ...

    @property
    def diagnostics(self) -> DiagnosticsApi:
        """Logs, events, descriptions."""
        ...

    @property
    def reach(self) -> ReachApi:
        """Endpoints, and where network policies are kept."""
        ...


class Proxy(Protocol):
    """The HTTP proxy: answers by ``send``, or raises a ShoalError before the answer began."""

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, target: ProxyTarget, own_headers: Sequence[Header] = ()
    ) -> None:
        """Carry one request to the sandbox's port and its answer back; ``own_headers`` win over the client's."""
        ...


class SocketProxy(Protocol):
    """The WebSocket proxy: accepts the client's socket, or raises a ShoalError before."""

    async def __call__(self, scope: Scope, target: ProxyTarget, socket: ClientSocket, extra: list[Header]) -> int:
        """Relay one WebSocket to its end; the close code that ended it. ``extra`` headers go with the answer."""
        ...


class AccessEntry(Struct, kw_only=True):
    """One request, for the access log.

    Attributes:
        principal: name of the caller; None when authentication is off or failed.
        route: the template that matched, ``/v1/sandboxes/{sandbox_id}``; None where none did.
        path: as received, decoded, without the query.
        status: 499 when the caller left before an answer began.
        duration: seconds, from the request's head to the end of the answer.
        complete: False when the answer was cut off.
        close_code: that ended a WebSocket; None for other requests.
    """

    request_id: str
    client: str | None
    principal: str | None
    method: str
    route: str | None
    path: str
    sandbox_id: str | None
    status: int
    duration: float
    complete: bool
    close_code: int | None = None


Access = Callable[[AccessEntry], None]
"""Where access entries go; must not block."""
