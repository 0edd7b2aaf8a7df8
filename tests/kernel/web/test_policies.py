"""Policies are asked about every route, list, proxied request and host, and a bug of theirs refuses."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import pytest
from falcon.asgi import Request, Response
from tests.kernel.web.fakes import AccessLog, WordAuthenticator
from tests.kernel.web.wired import Web

from shoal.errors import Forbidden, NotFound
from shoal.models.pools import Pool
from shoal.models.requests import CreateSandbox, RenewExpiration
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.interfaces import (
    Endpoint,
    EndpointQuery,
    HostTarget,
    Ingress,
    Operation,
    Policy,
    PolicyRequest,
    Principal,
    Resources,
    Route,
)
from shoal.plugin.interfaces.policy import Governed
from shoal.proxy.asgi import Header, Message, Scope
from shoal.proxy.target import ProxyTarget
from shoal.proxy.websocket import SOCKET, ClientSocket
from shoal.web.entrance import Entrance
from shoal.web.policing import PolicyGuard
from shoal.web.websocket import WebSockets

CREATE = {"image": {"uri": "x"}, "entrypoint": ["x"], "resourceLimits": {}}
CAPACITY = {"bufferMin": 0, "bufferMax": 0, "poolMin": 0, "poolMax": 1}
POOL = {"name": "p", "template": {}, "capacitySpec": CAPACITY}
BODIES: dict[str, object] = {
    "createSandbox": CREATE,
    "createPool": POOL,
    "updatePool": {"capacitySpec": CAPACITY},
    "patchSandboxMetadata": {"a": "b"},
    "renewSandboxExpiration": {"expiresAt": "2030-01-01T00:00:00Z"},
    "reportMetricsEvent": {"eventType": "sandbox.create", "createDurationMs": 1, "success": True},
}


class Watch(Policy):
    """Notes what it is asked, refuses the operations in ``refused``, hides the ids in ``hidden``."""

    name = "watch"

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.hidden: set[str] = set()
        self.asked: list[PolicyRequest] = []
        self.over: list[str] = []

    async def check(self, request: PolicyRequest) -> None:
        self.asked.append(request)
        if request.operation in self.refused or "*" in self.refused:
            raise Forbidden("REEF::CLOSED", "Not today.")

    def visible(self, principal: Principal | None, record: Governed) -> bool:
        return (record.name if isinstance(record, Pool) else record.id) not in self.hidden

    def finished(self, request: PolicyRequest) -> None:
        self.over.append(request.operation)


@pytest.fixture
def watch(web: Web) -> Watch:
    policy = Watch()
    web.policies.append(policy)
    return policy


def rows() -> list[tuple[str, str, str]]:
    own = [(row.operation.name, row.method, row.path) for row in Web().table().rows if not row.public]
    undeclared = [("get", ""), ("post", ""), ("get", "/{template_id}"), ("delete", "/{template_id}")]
    return own + [(f"{method.upper()} /templates{rest}", method, f"/templates{rest}") for method, rest in undeclared]


@pytest.mark.parametrize(("operation", "method", "path"), rows())
async def test_every_route_is_asked_about_once_and_can_be_refused(
    web: Web, watch: Watch, client: httpx.AsyncClient, operation: str, method: str, path: str
) -> None:
    sandbox = web.sandboxes.add()
    snapshot = (await web.sandboxes.snapshots.create(sandbox, None)).id
    url = "/v1" + path.format(sandbox_id=sandbox, snapshot_id=snapshot, port=80, name="p", template_id="t")
    watch.refused = (operation,)
    answer = await client.request(method, url, json=BODIES.get(operation))
    assert (answer.status_code, answer.json()["code"]) == (403, "REEF::CLOSED")
    [request] = watch.asked
    assert (request.operation, request.path, request.principal) == (operation, url, None)
    assert watch.over == []
    if "sandbox_id" in path:
        assert isinstance(request.record, SandboxRecord)
        assert request.record.id == sandbox
    assert web.sandboxes.find(sandbox) is not None
    assert list(web.sandboxes.snapshots.captured) == [snapshot]
    watch.refused = ()
    await client.request(method, url, json=BODIES.get(operation))
    assert watch.over == [operation]


async def test_public_routes_ask_nobody(watch: Watch, client: httpx.AsyncClient) -> None:
    for path in ("/health", "/version", "/ready", "/openapi.json", "/docs"):
        assert (await client.get(path)).status_code == 200
    assert watch.asked == []


async def test_bodies_and_principals_are_told(web: Web, watch: Watch) -> None:
    web.authenticators.append(WordAuthenticator())
    made = web.sandboxes.add()
    transport = httpx.ASGITransport(web.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers={"x-word": "write"}) as client:
        await client.post("/sandboxes", json=CREATE)
        await client.post(f"/sandboxes/{made}/renew-expiration", json={"expiresAt": "2030-01-01T00:00:00Z"})
    create, renew = watch.asked
    assert isinstance(create.body, CreateSandbox)
    assert create.record is None
    assert isinstance(renew.body, RenewExpiration)
    assert {request.principal.name for request in watch.asked if request.principal} == {"write"}


async def test_what_is_hidden_is_as_what_does_not_exist(web: Web, watch: Watch, client: httpx.AsyncClient) -> None:
    hidden, shown = web.sandboxes.add(), web.sandboxes.add()
    first = await web.sandboxes.snapshots.create(shown, None)
    await web.sandboxes.snapshots.create(shown, None)
    await client.post("/pools", json=POOL)
    await client.post("/pools", json={**POOL, "name": "q"})
    watch.hidden = {hidden, first.id, "p"}
    for path in (f"/sandboxes/{hidden}", f"/snapshots/{first.id}", "/pools/p"):
        got, missing = await client.get(path), await client.get(path.rpartition("/")[0] + "/0")
        assert (got.status_code, got.content) == (404, missing.content)
        assert (await client.delete(path)).status_code == 404
    listed = (await client.get("/sandboxes")).json()
    assert [item["id"] for item in listed["items"]] == [shown]
    assert listed["pagination"]["totalItems"] == 1
    filtered = (await client.get("/sandboxes?state=Running&pageSize=1")).json()
    assert (filtered["items"][0]["id"], filtered["pagination"]["totalPages"]) == (shown, 1)
    assert len((await client.get("/snapshots")).json()["items"]) == 1
    assert [item["name"] for item in (await client.get("/pools")).json()["items"]] == ["q"]
    restore = {"snapshotId": first.id, "resourceLimits": {}}
    assert (await client.post("/sandboxes", json=restore)).json()["code"] == "SNAPSHOT::NOT_FOUND"
    assert "create" not in web.sandboxes.calls


async def test_proxied_requests(web: Web, watch: Watch, client: httpx.AsyncClient) -> None:
    made, hidden = web.sandboxes.add(), web.sandboxes.add()
    watch.hidden = {hidden}
    assert (await client.get(f"/v1/sandboxes/{made}/proxy/8000/x")).status_code == 200
    [request] = watch.asked
    assert (request.operation, request.parameters) == ("proxyRequest", {"sandbox_id": made, "port": "8000"})
    assert watch.over == ["proxyRequest"]
    assert (await client.get(f"/v1/sandboxes/{hidden}/proxy/8000/x")).json()["code"] == "MEMORY::SANDBOX_NOT_FOUND"
    watch.refused = ("proxyRequest",)
    assert (await client.get(f"/v1/sandboxes/{made}/proxy/8000/x")).json()["code"] == "REEF::CLOSED"
    preflight = {"Origin": "http://a", "Access-Control-Request-Method": "GET"}
    assert (await client.options(f"/v1/sandboxes/{made}/proxy/8000/x", headers=preflight)).status_code == 200
    assert web.proxy.asked == 1


class Hosts(Ingress):
    name = "hosts"
    claims = True

    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        return None

    def claim(self, host: str) -> HostTarget | None:
        kind, dot, sandbox_id = host.partition(".")
        return HostTarget(sandbox_id, 80, open=kind == "open", signed=kind == "signed") if dot else None


@pytest.mark.parametrize("proof", ["credential", "open", "signed"])
async def test_hosts_that_stand_for_a_port(web: Web, watch: Watch, proof: str) -> None:
    web.ingresses.append(Hosts())
    made = web.sandboxes.add()
    record = web.sandboxes.find(made)
    unseen = 404 if proof == "credential" else 200
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web.app()), base_url=f"http://{proof}.{made}") as own:
        assert (await own.get("/any")).status_code == 200
        [request] = watch.asked
        assert (request.operation, request.proof, request.record) == ("proxyRequest", proof, record)
        watch.hidden = {made}
        assert (await own.get("/any")).status_code == unseen
        watch.hidden, watch.refused = set(), ("*",)
        assert (await own.get("/any")).status_code == 403


class Door:
    """A client's WebSocket that remembers how it was refused."""

    accepted = False
    closed: tuple[int, str] | None = None

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)


@pytest.mark.parametrize("host", ["shoal", "open."])
async def test_websockets(web: Web, watch: Watch, host: str) -> None:
    made = web.sandboxes.add()
    opened: list[ProxyTarget] = []

    async def sockets(scope: Scope, target: ProxyTarget, socket: ClientSocket, extra: list[Header]) -> int:
        opened.append(target)
        return 1000

    edge = WebSockets(Entrance([], [Hosts()], guard=PolicyGuard([watch], web.sandboxes)), sockets, AccessLog())

    async def open_one() -> Door:
        door = Door()
        path = f"/sandboxes/{made}/proxy/80/"
        headers = [(b"host", f"{host}{made if host == 'open.' else ''}".encode())]
        scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "headers": headers}
        await edge({**scope, "client": None, "extensions": {SOCKET: door}}, _nothing, _never)
        return door

    assert (await open_one()).closed is None
    assert [(one.operation, one.record) for one in watch.asked] == [("openWebSocket", web.sandboxes.find(made))]
    assert watch.over == ["openWebSocket"]
    watch.refused = ("*",)
    assert (await open_one()).closed == (1008, "Not today.")
    assert len(opened) == 1


async def _nothing() -> Message:
    raise AssertionError("nothing comes by ASGI")


async def _never(_: Message) -> None:
    raise AssertionError("nothing is sent by ASGI")


class Wrong(Policy):
    """Answers what a method does not have."""

    name = "wrong"

    def __init__(self, answer: object, visible: object = True) -> None:
        self._answer = answer
        self._visible = visible

    async def check(self, request: PolicyRequest) -> None:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer  # type: ignore[return-value]  # that is what is wrong

    def visible(self, principal: Principal | None, record: Governed) -> bool:
        return self._visible  # type: ignore[return-value]  # the same


WRONG = [Wrong(False), Wrong(True), Wrong(KeyError("x")), Wrong(None, None), Wrong(None, "no")]


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_bug_refuses_and_ends_what_others_began(web: Web, wrong: Wrong) -> None:
    first = Watch()
    web.policies += [first, wrong]
    made = web.sandboxes.add()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web.app()), base_url="http://x") as own:
        answer = await own.delete(f"/sandboxes/{made}")
        assert (answer.status_code, answer.json()["code"]) == (500, "GENERAL::INTERNAL_ERROR")
    assert web.sandboxes.find(made) is not None
    assert len(first.over) == len(first.asked)


class Deny(Policy):
    name = "deny"

    async def check(self, request: PolicyRequest) -> None:
        raise NotFound("REEF::NOTHING", "There is no such thing.")


async def test_a_policy_may_deny_that_there_is_such_a_thing(web: Web) -> None:
    web.policies.append(Deny())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web.app()), base_url="http://x") as own:
        answer = await own.get("/pools")
    assert (answer.status_code, answer.json()["code"]) == (404, "REEF::NOTHING")


class Forgetful:
    @Operation(name="forget", summary="Forget to ask.", asks=True)
    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.status = 204


class Forgetfuls(Resources):
    name = "forgetfuls"

    def routes(self) -> Sequence[Route]:
        return [Route("/forget", Forgetful())]


async def test_a_responder_that_forgets_to_ask_answers_nothing(web: Web, watch: Watch) -> None:
    web.resources.append(Forgetfuls())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web.app()), base_url="http://x") as own:
        assert (await own.get("/forget")).status_code == 500
