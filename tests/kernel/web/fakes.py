"""Small working stand-ins for the lifecycle, the proxy and an authenticator: what the web layer is tested on."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from shoal.errors import Conflict, NotFound, Unauthenticated
from shoal.models.pools import CapacitySpec, CreatePool, Pool, PoolStatus
from shoal.models.requests import CreateSandbox, MetadataPatch
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.interfaces import (
    Authenticator,
    AuthRequest,
    Endpoint,
    LogQuery,
    PolicyTarget,
    Principal,
    SnapshotRecord,
)
from shoal.proxy.asgi import Header, Receive, Scope, Send
from shoal.proxy.target import ProxyTarget
from shoal.view.entry import Entry
from shoal.view.index import View
from shoal.view.listing import ListQuery, Page
from shoal.web.seam import AccessEntry

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


class MemoryPools:
    """Pools that exist in memory alone, with nothing in them."""

    def __init__(self) -> None:
        self.known: dict[str, Pool] = {}

    async def create(self, request: CreatePool) -> Pool:
        if request.name in self.known:
            raise Conflict("KUBERNETES::POOL_ALREADY_EXISTS", "There is one.")
        status = PoolStatus(total=0, allocated=0, available=0, revision="r1")
        self.known[request.name] = Pool(
            name=request.name, capacity_spec=request.capacity_spec, status=status, created_at=EPOCH
        )
        return self.known[request.name]

    async def all(self) -> list[Pool]:
        return list(self.known.values())

    async def get(self, name: str) -> Pool:
        if name not in self.known:
            raise NotFound("KUBERNETES::POOL_NOT_FOUND", "No such pool.")
        return self.known[name]

    async def update(self, name: str, capacity: CapacitySpec) -> Pool:
        self.known[name] = replace(await self.get(name), capacity_spec=capacity)
        return self.known[name]

    async def delete(self, name: str) -> None:
        await self.get(name)
        del self.known[name]

    def unknown(self, name: str) -> NotFound:
        return NotFound("KUBERNETES::POOL_NOT_FOUND", "No such pool.")


class MemorySnapshots:
    """Snapshots that exist in memory alone, of sandboxes that do."""

    def __init__(self, sandboxes: MemorySandboxes) -> None:
        self._sandboxes = sandboxes
        self.captured: dict[str, SnapshotRecord] = {}

    async def create(self, sandbox_id: str, name: str | None) -> SnapshotRecord:
        self._sandboxes.entry(sandbox_id)
        record = SnapshotRecord(
            id=str(uuid.uuid4()),
            sandbox_id=sandbox_id,
            runtime="memory",
            state="Creating",
            created_at=EPOCH,
            updated_at=EPOCH,
            name=name,
            reason="snapshot_accepted",
        )
        self.captured[record.id] = record
        return record

    def all(self) -> list[SnapshotRecord]:
        self._sandboxes._noted("list_snapshots", None)
        return list(self.captured.values())

    def get(self, snapshot_id: str) -> SnapshotRecord:
        if snapshot_id not in self.captured:
            raise NotFound("SNAPSHOT::NOT_FOUND", "No such snapshot.")
        return self.captured[snapshot_id]

    async def delete(self, snapshot_id: str) -> None:
        self.get(snapshot_id)
        del self.captured[snapshot_id]

    def unknown(self, snapshot_id: str) -> NotFound:
        return NotFound("SNAPSHOT::NOT_FOUND", "No such snapshot.")


class MemorySandboxes:
    """A lifecycle whose sandboxes are in memory alone. ``calls`` holds what the last call of each method was given."""

    def __init__(self) -> None:
        self.view = View()
        self.pools = MemoryPools()
        self.calls: dict[str, object] = {}
        self.failure: Exception | None = None
        self.snapshots = MemorySnapshots(self)
        self.sandboxes = self.diagnostics = self.reach = self
        self.text = "line\n"

    def add(self, state: State = State.RUNNING, metadata: dict[str, str] | None = None) -> str:
        """One more sandbox, younger than those before."""
        record = SandboxRecord(
            id=str(uuid.uuid4()),
            runtime="memory",
            state=state,
            since=EPOCH,
            created_at=EPOCH + timedelta(seconds=len(self.view)),
            entrypoint=["sleep", "1"],
            image="host",
            metadata=metadata or {},
        )
        self.view.put(Entry(record))
        return record.id

    async def create(
        self, request: CreateSandbox, *, principal: Principal | None, idempotency_key: str | None
    ) -> Entry:
        self._noted("create", (request, principal, idempotency_key))
        return self.entry(self.add(State.PENDING, request.metadata))

    def entry(self, sandbox_id: str) -> Entry:
        self._noted("entry", sandbox_id)
        entry = self.view.get(sandbox_id)
        if entry is None:
            raise NotFound("MEMORY::SANDBOX_NOT_FOUND", "No such sandbox.")
        return entry

    async def wait(self, sandbox_id: str, states: frozenset[State], timeout: float) -> Entry:  # noqa: ASYNC109
        self._noted("wait", (states, timeout))
        entry = await self.view.until(sandbox_id, lambda e: e.record.state in states, timeout)
        return entry or self.entry(sandbox_id)

    async def begun(self, sandbox_id: str, timeout: float) -> Entry:  # noqa: ASYNC109
        self._noted("begun", timeout)
        entry = await self.view.until(sandbox_id, lambda e: not e.record.fresh, timeout)
        return entry or self.entry(sandbox_id)

    def find(self, sandbox_id: str) -> SandboxRecord | None:
        entry = self.view.get(sandbox_id)
        return entry.record if entry else None

    def unknown(self, sandbox_id: str) -> NotFound:
        return NotFound("MEMORY::SANDBOX_NOT_FOUND", "No such sandbox.")

    def page(self, query: ListQuery, sees: Callable[[SandboxRecord], bool] | None = None) -> Page:
        self._noted("page", query)
        return self.view.page(query, sees)

    async def patch_metadata(self, sandbox_id: str, patch: MetadataPatch) -> Entry:
        record = self.entry(sandbox_id).record
        merged = {key: value for key, value in {**record.metadata, **patch}.items() if value is not None}
        self.view.put(Entry(replace(record, metadata=merged)))
        return self.entry(sandbox_id)

    async def delete(self, sandbox_id: str) -> None:
        self.entry(sandbox_id)
        self.view.remove(sandbox_id)

    async def pause(self, sandbox_id: str) -> None:
        self._move(sandbox_id, State.RUNNING, State.PAUSED)

    async def resume(self, sandbox_id: str) -> None:
        self._move(sandbox_id, State.PAUSED, State.RUNNING)

    async def renew(self, sandbox_id: str, expires_at: datetime) -> datetime:
        self.entry(sandbox_id)
        self._noted("renew", expires_at)
        return expires_at

    async def endpoint(
        self, sandbox_id: str, port: int, *, use_server_proxy: bool, expires: int | None, base: str
    ) -> Endpoint:
        self.entry(sandbox_id)
        self._noted("endpoint", (port, use_server_proxy, expires, base))
        return Endpoint(endpoint=f"{base}/sandboxes/{sandbox_id}/proxy/{port}")

    async def policy(self, sandbox_id: str) -> PolicyTarget:
        self.entry(sandbox_id)
        self._noted("policy", sandbox_id)
        return PolicyTarget(18080, "/policy", {"OPENSANDBOX-EGRESS-AUTH": "t0ken"})

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        self.entry(sandbox_id)
        self._noted("logs", query)
        return self.text

    async def events(self, sandbox_id: str, limit: int) -> str:
        self.entry(sandbox_id)
        self._noted("events", limit)
        return self.text

    async def inspect(self, sandbox_id: str) -> str:
        self.entry(sandbox_id)
        self._noted("inspect", sandbox_id)
        raise NotImplementedError

    def _move(self, sandbox_id: str, before: State, after: State) -> None:
        record = self.entry(sandbox_id).record
        if record.state is not before:
            raise Conflict("MEMORY::WRONG_STATE", f"The sandbox is {record.state}.")
        self.view.put(Entry(replace(record, state=after)))

    def _noted(self, name: str, given: object) -> None:
        self.calls[name] = given
        if self.failure is not None:
            raise self.failure


class EchoProxy:
    """Answers a proxied request with what it was asked for; ``headers`` are the service's own."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.failure: Exception | None = None
        self.failure_after_head: Exception | None = None
        self.asked = 0
        self.content = b""

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, target: ProxyTarget, own_headers: Sequence[Header] = ()
    ) -> None:
        self.asked += 1
        self.own_headers = own_headers
        self.target = target
        self.seen = scope
        self.body = await _body(receive)
        if self.failure is not None:
            raise self.failure
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        if self.failure_after_head is not None:
            raise self.failure_after_head
        content = self.content or b"%b %d %b" % (scope["method"].encode(), target.port, target.path)
        await send({"type": "http.response.body", "body": content})


async def _body(receive: Receive) -> bytes:
    pieces = []
    while (message := await receive())["type"] == "http.request":
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(pieces)


class WordAuthenticator(Authenticator):
    """The header ``x-word`` names the scopes: ``read+write``."""

    name = "word"

    async def authenticate(self, request: AuthRequest) -> Principal | None:
        await asyncio.sleep(0)
        word = request.header("x-word")
        if word is None:
            return None
        if word == "wrong":
            raise Unauthenticated("INVALID_WORD", "The word is not known.")
        return Principal(name=word, scopes=frozenset(word.split("+")))


class AccessLog:
    """Keeps the entries."""

    def __init__(self) -> None:
        self.entries: list[AccessEntry] = []

    def __call__(self, entry: AccessEntry) -> None:
        self.entries.append(entry)
