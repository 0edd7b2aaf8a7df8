"""Requests whose Host header stands for a port of a sandbox."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from tests.kernel.web.fakes import WordAuthenticator
from tests.kernel.web.wired import Web

from shoal.errors import Unauthenticated
from shoal.plugin.interfaces import Endpoint, EndpointQuery, HostTarget, Ingress

Connect = Callable[[], httpx.AsyncClient]
ORIGIN = {"origin": "https://elsewhere.test"}


class Named(Ingress):
    """``{word}.apps.test`` is port 80 of the sandbox ``word``; some words mean more."""

    name = "named"
    claims = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        return None

    def claim(self, host: str) -> HostTarget | None:
        self.asked.append(host)
        word, dot, _ = host.partition(".apps.test")
        if word == "forged":
            raise Unauthenticated("NAMED::FORGED", "Forged.")
        return HostTarget(word, 80, open=word == "open", signed=word == "signed") if dot else None


@pytest.fixture
def client(web: Web, connect: Connect) -> httpx.AsyncClient:
    web.ingresses.append(Named())
    web.authenticators.append(WordAuthenticator())
    return connect()


async def test_the_host_decides_whatever_the_path(client: httpx.AsyncClient, web: Web) -> None:
    for path in ("/", "/health", "/v1/sandboxes", "/sandboxes/x/proxy/99/deep//%2f"):
        answer = await client.get(path, headers={"host": "open.apps.test"})
        assert answer.text == f"GET 80 {path}"
    assert web.proxy.target.sandbox_id == "open"
    assert web.proxy.target.mount + web.proxy.target.route == b""
    entry = web.access.entries[-1]
    assert (entry.sandbox_id, entry.route) == ("open", "{host}")


async def test_other_hosts_are_the_servers_own(client: httpx.AsyncClient, web: Web) -> None:
    assert (await client.get("/version", headers={"host": "apps.test"})).json() == {"version": "1.2.3"}
    assert web.proxy.asked == 0


@pytest.mark.parametrize(
    ("word", "sent", "status"),
    [
        ("kept", {}, 401),
        ("kept", {"x-word": "wrong"}, 401),
        ("kept", {"x-word": "read"}, 403),
        ("kept", {"x-word": "proxy"}, 200),
        ("open", {}, 200),
        ("signed", {"x-word": "wrong"}, 200),
        ("forged", {"x-word": "proxy"}, 401),
    ],
)
async def test_who_may_come(client: httpx.AsyncClient, web: Web, word: str, sent: dict[str, str], status: int) -> None:
    answer = await client.get("/", headers={"host": f"{word}.apps.test", **sent})
    assert answer.status_code == status
    assert web.proxy.asked == (status == 200)


async def test_what_an_authenticator_looked_at_does_not_go_on(client: httpx.AsyncClient, web: Web) -> None:
    sent = {"x-word": "proxy", "authorization": "Bearer app", "cookie": "app=1"}
    await client.get("/", headers={"host": "kept.apps.test", **sent})
    seen = dict(web.proxy.seen["headers"])
    assert b"x-word" not in seen
    assert (seen[b"authorization"], seen[b"cookie"]) == (b"Bearer app", b"app=1")


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_cors_is_the_applications_business(client: httpx.AsyncClient, web: Web, method: str) -> None:
    headers = {"host": "open.apps.test", "access-control-request-method": "PUT", **ORIGIN}
    silent = await client.request(method, "/", headers=headers)
    assert silent.status_code == 200
    assert not [name for name in silent.headers if name.startswith("access-control-")]
    web.proxy.headers.append((b"access-control-allow-origin", b"https://friend.test"))
    spoken = await client.request(method, "/", headers=headers)
    assert spoken.headers.get_list("access-control-allow-origin") == ["https://friend.test"]
    assert spoken.headers["x-request-id"]


async def test_nobody_is_asked_where_no_ingress_has_hosts(web: Web, connect: Connect) -> None:
    ingress = Named()
    ingress.claims = False
    web.ingresses.append(ingress)
    await connect().get("/health", headers={"host": "open.apps.test"})
    assert ingress.asked == []
