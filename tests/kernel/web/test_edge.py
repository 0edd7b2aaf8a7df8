"""What every request passes: request ids, CORS, authentication, the error net, the access line, the proxy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from tests.kernel.web.fakes import WordAuthenticator
from tests.kernel.web.wired import Web, no_socket

from shoal.errors import BadGateway, HeadTooLarge
from shoal.models.sandbox import State
from shoal.proxy.failures import ResponseCut
from shoal.web.app import build
from shoal.web.entrance import Entrance
from shoal.web.http1 import REFUSED

Connect = Callable[[], httpx.AsyncClient]


@pytest.fixture
def guarded(web: Web, connect: Connect) -> httpx.AsyncClient:
    web.authenticators.append(WordAuthenticator())
    return connect()


@pytest.mark.parametrize(
    ("sent", "echoed"), [(b"abc", "abc"), (b"  a b ", "a b"), (b"a\x01\xffb\x7f", "ab"), (b"x" * 500, "x" * 128)]
)
async def test_request_id_is_echoed_trimmed_and_made_safe(
    client: httpx.AsyncClient, web: Web, sent: bytes, echoed: str
) -> None:
    for path in ("/health", "/v1/nowhere", "/sandboxes/x/proxy/80/"):
        response = await client.get(path, headers=[(b"x-request-id", sent)])
        assert response.headers.get_list("x-request-id") == [echoed]
    assert web.access.entries[-1].request_id == echoed


async def test_request_id_is_a_uuid4_when_blank(client: httpx.AsyncClient) -> None:
    made = {(await client.get("/health", headers={"x-request-id": " "})).headers["x-request-id"] for _ in range(20)}
    assert len(made) == 20
    assert all(len(one) == 32 and one[12] == "4" and one[16] in "89ab" and int(one, 16) for one in made)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_authentication_precedes_routing_and_validation(guarded: httpx.AsyncClient, method: str) -> None:
    for path in ("/v1/nowhere", "/v1/sandboxes", "/v1/sandboxes/x/proxy/none", "/health/", "/healthy", "/docs/"):
        assert (await guarded.request(method, path)).status_code == 401
        wrong = await guarded.request(method, path, headers={"x-word": "wrong"})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "INVALID_WORD")


@pytest.mark.parametrize("path", ["/health", "/version", "/ready", "/openapi.json"])
async def test_public_paths_are_open(guarded: httpx.AsyncClient, path: str) -> None:
    assert (await guarded.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("word", "method", "path", "status"),
    [
        ("read", "GET", "/v1/sandboxes", 200),
        ("read", "POST", "/v1/sandboxes", 403),
        ("read", "DELETE", "/v1/sandboxes/x", 403),
        ("read", "GET", "/v1/sandboxes/x/proxy/80/", 403),
        ("write", "GET", "/v1/sandboxes", 403),
        ("write", "POST", "/v1/sandboxes", 422),
        ("proxy", "POST", "/v1/sandboxes/x/proxy/80/", 200),
        ("proxy", "GET", "/v1/sandboxes", 403),
        ("read+write", "GET", "/v1/sandboxes/x/proxy/none", 403),
    ],
)
async def test_scopes(guarded: httpx.AsyncClient, web: Web, word: str, method: str, path: str, status: int) -> None:
    response = await guarded.request(method, path, headers={"x-word": word})
    assert response.status_code == status
    if status == 403:
        assert response.json()["code"] == "INSUFFICIENT_SCOPE"
    assert web.access.entries[-1].principal == word


async def test_principal_reaches_create(guarded: httpx.AsyncClient, web: Web) -> None:
    body = {"image": {"uri": "host"}, "entrypoint": ["sleep"], "resourceLimits": {}}
    await guarded.post("/v1/sandboxes", json=body, headers={"x-word": "write"})
    assert web.sandboxes.calls["create"][1].name == "write"  # type: ignore[index]  # as the stand-in notes it


async def test_cors_reflects_the_origin_on_failures_too(guarded: httpx.AsyncClient) -> None:
    response = await guarded.get("/v1/sandboxes", headers={"Origin": "https://a.example"})
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-expose-headers"] == "OPEN-SANDBOX-ORIGIN"
    assert response.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in (await guarded.get("/health")).headers


PREFLIGHT = {
    "Origin": "https://a.example",
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "open-sandbox-api-key, x-y",
}


@pytest.mark.parametrize("path", ["/v1/sandboxes", "/v1/nowhere", "/v1/sandboxes/x/proxy/80/a"])
async def test_preflight_needs_no_credential(guarded: httpx.AsyncClient, web: Web, path: str) -> None:
    response = await guarded.options(path, headers=PREFLIGHT)
    assert (response.status_code, response.text) == (200, "OK")
    assert "PATCH" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-headers"] == "open-sandbox-api-key, x-y"
    assert response.headers["access-control-max-age"] == "600"
    assert web.proxy.asked == 0


async def test_a_service_that_speaks_cors_has_the_last_word(client: httpx.AsyncClient, web: Web) -> None:
    path = "/v1/sandboxes/x/proxy/80/a"
    unanswered = await client.options(path, headers=PREFLIGHT)
    assert (unanswered.text, web.proxy.asked) == ("OK", 1)
    web.proxy.headers = [(b"access-control-allow-origin", b"https://only.example")]
    for response in (await client.options(path, headers=PREFLIGHT), await client.get(path, headers=PREFLIGHT)):
        assert response.headers.get_list("access-control-allow-origin") == ["https://only.example"]
        assert "access-control-allow-credentials" not in response.headers
        assert response.headers["x-request-id"]
    web.proxy.failure = BadGateway("BACKEND_CONNECTION_FAILED", "No.")
    assert (await client.options(path, headers=PREFLIGHT)).text == "OK"


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        ("/sandboxes/x/proxy/80", "GET 80 /"),
        ("/v1/sandboxes/x/proxy/80/", "GET 80 /"),
        ("/v1/sandboxes/x/proxy/80//a%2Fb/", "GET 80 //a%2Fb/"),
    ],
)
async def test_proxied_paths_reach_the_proxy_as_they_came(
    client: httpx.AsyncClient, web: Web, raw: str, answer: str
) -> None:
    response = await client.get(raw)
    assert response.text == answer
    entry = web.access.entries[-1]
    assert entry.sandbox_id == "x"
    assert entry.route is not None
    assert entry.route.endswith("/sandboxes/{sandbox_id}/proxy/{port}")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT"])
async def test_every_method_is_proxied(client: httpx.AsyncClient, web: Web, method: str) -> None:
    assert (await client.request(method, "/v1/sandboxes/x/proxy/80/")).status_code == 200
    assert web.proxy.asked == 1


async def test_encoded_slashes_open_no_way_around(guarded: httpx.AsyncClient) -> None:
    for path in ("/v1/sandboxes/x%2Fproxy/80/", "/v1/sandboxes/x/%70roxy/80/"):
        assert (await guarded.get(path, headers={"x-word": "proxy"})).status_code == 403
        assert (await guarded.get(path, headers={"x-word": "read"})).status_code == 404


async def test_a_bug_is_a_500_that_tells_nothing_but_its_request_id(client: httpx.AsyncClient, web: Web) -> None:
    web.sandboxes.failure = ZeroDivisionError("the secret is hunter2")
    response = await client.get("/v1/sandboxes", headers={"Origin": "https://a.example", "x-request-id": "mine"})
    assert response.status_code == 500
    assert response.json()["code"] == "GENERAL::INTERNAL_ERROR"
    assert "hunter2" not in response.text
    assert response.headers["x-request-id"] == "mine"
    assert response.headers["access-control-allow-origin"] == "https://a.example"


@pytest.mark.parametrize("failure", [ResponseCut(), ZeroDivisionError(), BadGateway("A::B", "c")])
async def test_a_failure_after_the_head_leaves_the_answer_incomplete(web: Web, failure: Exception) -> None:
    web.proxy.failure_after_head = failure
    sent = await _call(web, "/sandboxes/x/proxy/80/")
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert (web.access.entries[-1].status, web.access.entries[-1].complete) == (200, False)


async def test_access_entry(client: httpx.AsyncClient, web: Web) -> None:
    sandbox = web.sandboxes.add()
    await client.get(f"/v1/sandboxes/{sandbox}?wait=Running", headers={"x-request-id": "r"})
    entry = web.access.entries[-1]
    assert (entry.request_id, entry.method, entry.status, entry.complete) == ("r", "GET", 200, True)
    assert (entry.route, entry.sandbox_id) == ("/v1/sandboxes/{sandbox_id}", sandbox)
    assert entry.path == f"/v1/sandboxes/{sandbox}"
    assert 0 < entry.duration < 60
    await client.request("BREW", "/v1/sandboxes")
    assert (web.access.entries[-1].method, web.access.entries[-1].status) == ("BREW", 405)
    await client.get("/v1/nowhere")
    assert web.access.entries[-1].route is None


async def test_a_caller_that_leaves_is_logged_as_such(web: Web) -> None:
    begun = asyncio.Event()

    async def receive() -> None:
        begun.set()
        await asyncio.Event().wait()

    asking = asyncio.create_task(_call(web, "/sandboxes/x/proxy/80/", receive=receive))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (web.access.entries[-1].status, web.access.entries[-1].complete) == (499, False)


async def test_a_long_poll_ends_when_its_caller_leaves(web: Web) -> None:
    sandbox = web.sandboxes.add(State.PENDING)
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    path = f"/v1/sandboxes/{sandbox}"
    await asyncio.wait_for(_call(web, path, b"wait=Running&timeout=3600", receive), 60)
    assert web.sandboxes.calls["wait"]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.cancelling()] == []


async def test_websocket_handshakes_are_refused(web: Web) -> None:
    sent: list[Any] = []
    scope = {"type": "websocket", "path": "/sandboxes/x/proxy/80/", "headers": [], "query_string": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await web.app()(scope, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]
    assert web.access.entries[-1].status == 403


@pytest.mark.parametrize("broken", [False, True])
async def test_lifespan(web: Web, broken: bool) -> None:
    steps: list[str] = []
    incoming = iter(["lifespan.startup", "lifespan.shutdown"])

    @asynccontextmanager
    async def life() -> AsyncIterator[None]:
        if broken:
            raise RuntimeError("no store")
        steps.append("up")
        yield
        steps.append("down")

    async def receive() -> dict[str, Any]:
        return {"type": next(incoming)}

    async def send(message: Any) -> None:
        steps.append(message["type"])

    app = build(web.table(), Entrance([]), proxy=web.proxy, sockets=no_socket, access=web.access, lifespan=life)
    await app({"type": "lifespan"}, receive, send)
    whole = ["up", "lifespan.startup.complete", "down", "lifespan.shutdown.complete"]
    assert steps == (["lifespan.startup.failed"] if broken else whole)


async def _request() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _call(web: Web, path: str, query: bytes = b"", receive: Callable[[], Any] = _request) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [],
    }
    await web.app()(scope, receive, send)
    return sent


async def test_an_answer_has_exactly_one_date(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    (date,) = answer.headers.get_list("date")
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 60


async def test_what_is_no_request_is_answered_like_any_failure(web: Web) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    error = HeadTooLarge("GENERAL::HEAD_TOO_LARGE", "Too large.")
    scope = {"type": REFUSED, "error": error, "method": "", "path": "", "client": ("1.2.3.4", 5), "headers": []}
    await web.app()(scope, _request, send)
    assert sent[0]["status"] == 431
    assert b"x-request-id" in dict(sent[0]["headers"])
    assert b"GENERAL::HEAD_TOO_LARGE" in sent[1]["body"]
    assert (web.access.entries[-1].status, web.access.entries[-1].client) == (431, "1.2.3.4")
