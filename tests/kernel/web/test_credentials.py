"""Which credentials of a request go on to a sandbox, and which do not: by path, by host, by a route, by WebSocket."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx
import pytest
from tests.kernel.web.fakes import AccessLog
from tests.kernel.web.test_hosts import Named
from tests.kernel.web.wired import Web

from shoal.errors import Unauthenticated
from shoal.plugin.interfaces import Authenticator, AuthRequest, Principal
from shoal.proxy.asgi import Header, Message, Scope
from shoal.proxy.target import ProxyTarget
from shoal.proxy.websocket import SOCKET, ClientSocket
from shoal.web.entrance import Entrance
from shoal.web.websocket import WebSockets

Connect = Callable[[], httpx.AsyncClient]
KEY = "the-key"


class TwoPlaces(Authenticator):
    """The header ``x-key`` is its own, and ``x-token`` a service's, in which the key may be as well."""

    name = "two-places"

    async def authenticate(self, request: AuthRequest) -> Principal | None:
        found = [request.header("x-key"), request.shared_header("x-token")]
        for value in found:
            if value == KEY:
                request.withhold(value)
        return Principal(name="caller") if KEY in found else None

    def missing_for_proxy(self) -> Unauthenticated:
        return Unauthenticated("MISSING_CREDENTIALS", "There are other ways in.")


SENT = [
    ({"x-key": KEY}, {}),
    ({"x-token": KEY}, {}),
    ({"x-key": KEY, "x-token": KEY, "x-more": KEY}, {}),
    ({"x-key": KEY, "x-token": "of the sandbox"}, {"x-token": "of the sandbox"}),
    ({"x-key": "wrong", "x-token": KEY}, {}),
]


@pytest.fixture
def client(web: Web, connect: Connect) -> httpx.AsyncClient:
    web.ingresses.append(Named())
    web.authenticators.append(TwoPlaces())
    return connect()


def onward(headers: Sequence[Header]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers if name in (b"x-key", b"x-token", b"x-more")}


@pytest.mark.parametrize(("sent", "seen"), SENT)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("host", ["kept.apps.test", "shoal.test"])
async def test_what_was_accepted_stays_here(
    client: httpx.AsyncClient, web: Web, host: str, method: str, sent: dict[str, str], seen: dict[str, str]
) -> None:
    preflight = {"origin": "https://a.test", "access-control-request-method": "PUT"} if method == "OPTIONS" else {}
    answer = await client.request(method, "/sandboxes/x/proxy/80/a", headers={"host": host, **sent, **preflight})
    assert answer.status_code == 200
    assert onward(web.proxy.seen["headers"]) == seen


@pytest.mark.parametrize(("sent", "seen"), SENT)
async def test_the_same_for_what_a_route_hands_on(
    client: httpx.AsyncClient, web: Web, sent: dict[str, str], seen: dict[str, str]
) -> None:
    answer = await client.get(f"/v1/sandboxes/{web.sandboxes.add()}/networkpolicy", headers=sent)
    assert (answer.status_code, web.proxy.asked) == (200, 1)
    assert onward(web.proxy.seen["headers"]) == seen


@pytest.mark.parametrize(("sent", "seen"), SENT)
async def test_the_same_for_websockets(sent: dict[str, str], seen: dict[str, str]) -> None:
    opened: list[Scope] = []

    async def sockets(scope: Scope, target: ProxyTarget, socket: ClientSocket, extra: list[Header]) -> int:
        opened.append(scope)
        return 1000

    async def never() -> Message:
        raise AssertionError("nothing is received here")

    async def nothing(message: Message) -> None:
        raise AssertionError(message)

    edge = WebSockets(Entrance([TwoPlaces()], [Named()]), sockets, AccessLog())
    for host, path in (("kept.apps.test", "/"), ("shoal.test", "/sandboxes/x/proxy/80/")):
        headers = [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in sent.items())]
        scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "headers": headers}
        await edge({**scope, "client": None, "extensions": {SOCKET: object()}}, never, nothing)
    assert [onward(scope["headers"]) for scope in opened] == [seen, seen]


async def test_who_may_go_no_further_is_told_of_other_ways(client: httpx.AsyncClient) -> None:
    for host in ("kept.apps.test", "shoal.test"):
        answer = await client.get("/sandboxes/x/proxy/80/", headers={"host": host})
        assert (answer.status_code, answer.json()["message"]) == (401, "There are other ways in.")
    assert "no" in (await client.get("/v1/sandboxes")).json()["message"].lower()
