"""The network policy sub-resource: what is checked before a request is handed on, and what is handed on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.kernel.web.fakes import WordAuthenticator
from tests.kernel.web.wired import Web

from shoal.errors import BadGateway

GOOD: dict[str, Any] = {
    "PUT": {"defaultAction": None, "egress": [{"action": "allow", "target": "a.example"}]},
    "PATCH": [{"action": "deny", "target": "b.example"}],
    "DELETE": ["a.example"],
}


def path(web: Web) -> str:
    return f"/v1/sandboxes/{web.sandboxes.add()}/networkpolicy"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_a_request_goes_to_where_the_policy_is_kept(method: str, web: Web, client: httpx.AsyncClient) -> None:
    sent = {"OPENSANDBOX-EGRESS-AUTH": "forged", "x-own": "1"}
    answer = await client.request(method, path(web) + "?left=out", json=GOOD.get(method), headers=sent)
    assert (answer.status_code, answer.text) == (200, f"{method} 18080 /policy")
    assert web.proxy.own_headers == [(b"opensandbox-egress-auth", b"t0ken")]
    assert (b"x-own", b"1") in web.proxy.seen["headers"]
    assert web.proxy.seen["query_string"] == b""
    assert json.loads(web.proxy.body or b"null") == GOOD.get(method)
    [entry] = web.access.entries
    assert entry.route == "/v1/sandboxes/{sandbox_id}/networkpolicy"
    assert web.proxy.target.mount + web.proxy.target.route == f"/v1/sandboxes/{entry.sandbox_id}/proxy/18080".encode()


async def test_the_body_travels_as_it_came(web: Web, client: httpx.AsyncClient) -> None:
    raw = b' {"egress" : [ ],\n "extra": 1.50}'

    async def pieces() -> Any:
        yield raw[:9]
        yield raw[9:]

    kind = {"Content-Type": "application/json", "Expect": "100-continue"}
    await client.put(path(web), content=pieces(), headers=kind)
    assert web.proxy.body == raw
    framing = {name: value for name, value in web.proxy.seen["headers"] if name in FRAMING}
    assert framing == {b"content-length": b"%d" % len(raw)}


FRAMING = {b"content-length", b"transfer-encoding", b"expect"}


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("PUT", []),
        ("PUT", {"egress": None}),
        ("PUT", {"egress": [{"action": "allow"}]}),
        ("PUT", {"egress": [{"action": "allow", "target": ""}]}),
        ("PUT", {"defaultAction": 1}),
        ("PATCH", {}),
        ("PATCH", [{"target": "a"}]),
        ("PATCH", [{"action": "allow", "target": ""}]),
        ("PATCH", None),
        ("DELETE", {}),
        ("DELETE", [1]),
        ("DELETE", [""]),
        ("DELETE", None),
    ],
)
async def test_a_wrong_body_is_refused(method: str, body: Any, web: Web, client: httpx.AsyncClient) -> None:
    answer = await client.request(method, path(web), json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "GENERAL::VALIDATION_ERROR")
    assert web.proxy.asked == 0


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_a_body_is_needed(method: str, web: Web, client: httpx.AsyncClient) -> None:
    assert (await client.request(method, path(web))).status_code == 422
    text = await client.request(method, path(web), content=b"[]", headers={"Content-Type": "text/plain"})
    assert text.status_code == 422
    assert web.proxy.asked == 0


@pytest.mark.parametrize(("method", "body"), [("PUT", {}), ("PUT", {"egress": []}), ("PATCH", []), ("DELETE", [])])
async def test_nothing_to_do_is_fine(method: str, body: Any, web: Web, client: httpx.AsyncClient) -> None:
    assert (await client.request(method, path(web), json=body)).status_code == 200


async def test_a_body_is_bounded(web: Web, connect: Callable[[], httpx.AsyncClient]) -> None:
    web.settings.server.max_body_bytes = 10
    answer = await connect().put(path(web), json=GOOD["PUT"])
    assert (answer.status_code, answer.json()["code"]) == (413, "GENERAL::BODY_TOO_LARGE")


async def test_an_unknown_sandbox(web: Web, client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/sandboxes/none/networkpolicy")).status_code == 404
    assert (await client.put("/v1/sandboxes/none/networkpolicy", json=[])).status_code == 422
    assert web.proxy.asked == 0


async def test_other_methods(web: Web, client: httpx.AsyncClient) -> None:
    answer = await client.post(path(web), json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, PATCH, PUT")


async def test_what_fails_on_the_way_is_answered(web: Web, client: httpx.AsyncClient) -> None:
    web.proxy.failure = BadGateway("BACKEND_CONNECTION_FAILED", "Nobody listens.")
    answer = await client.get(path(web))
    assert (answer.status_code, answer.json()["code"]) == (502, "BACKEND_CONNECTION_FAILED")


async def test_a_key_is_needed_as_for_any_route(web: Web, connect: Callable[[], httpx.AsyncClient]) -> None:
    web.authenticators.append(WordAuthenticator())
    client, where = connect(), path(web)
    assert (await client.get(where)).status_code == 401
    assert (await client.get(where, headers={"x-word": "proxy"})).status_code == 403
    assert (await client.get(where, headers={"x-word": "read"})).status_code == 200
    assert (await client.put(where, json={}, headers={"x-word": "read"})).status_code == 403
    assert (await client.put(where, json={}, headers={"x-word": "write"})).status_code == 200
