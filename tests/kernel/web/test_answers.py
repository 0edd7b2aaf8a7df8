"""What each route answers: statuses, codes, bodies and headers (docs/wire/api.md sections 2, 3, 6 to 9 and 13)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.kernel.web.wired import Web

from shoal.errors import RateLimited
from shoal.models.sandbox import State
from shoal.plugin.interfaces import LogQuery
from shoal.view.listing import ListQuery

CREATE: dict[str, Any] = {"image": {"uri": "host"}, "entrypoint": ["sleep", "1"], "resourceLimits": {}}
UNKNOWN = "00000000-0000-4000-8000-000000000000"

FAILURES: list[tuple[str, str, Any, int, str | None]] = [
    # method, path, body, status, code
    ("GET", "/v1/nowhere", None, 404, "GENERAL::NOT_FOUND"),
    ("GET", "/", None, 404, "GENERAL::NOT_FOUND"),
    ("GET", "/v1/health", None, 404, "GENERAL::NOT_FOUND"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("DELETE", f"/v1/sandboxes/{UNKNOWN}", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("POST", f"/v1/sandboxes/{UNKNOWN}/pause", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("POST", f"/v1/sandboxes/{UNKNOWN}/resume", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("PATCH", f"/v1/sandboxes/{UNKNOWN}/metadata", {}, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/endpoints/80", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/diagnostics/logs", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/diagnostics/events", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/diagnostics/inspect", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/diagnostics/summary", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("POST", f"/v1/sandboxes/{UNKNOWN}/snapshots", None, 404, "MEMORY::SANDBOX_NOT_FOUND"),
    ("GET", f"/v1/snapshots/{UNKNOWN}", None, 404, "SNAPSHOT::NOT_FOUND"),
    ("DELETE", f"/v1/snapshots/{UNKNOWN}", None, 404, "SNAPSHOT::NOT_FOUND"),
    ("PUT", "/v1/sandboxes", None, 405, "GENERAL::METHOD_NOT_ALLOWED"),
    ("HEAD", "/v1/sandboxes", None, 405, None),
    ("OPTIONS", "/v1/sandboxes", None, 405, "GENERAL::METHOD_NOT_ALLOWED"),
    ("BREW", "/v1/sandboxes", None, 405, "GENERAL::METHOD_NOT_ALLOWED"),
    ("POST", "/v1/sandboxes", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("POST", "/v1/sandboxes", [], 422, "GENERAL::VALIDATION_ERROR"),
    ("POST", "/v1/sandboxes", {}, 422, "GENERAL::VALIDATION_ERROR"),
    ("POST", "/v1/sandboxes", {**CREATE, "timeout": 59}, 422, "GENERAL::VALIDATION_ERROR"),
    ("POST", f"/v1/sandboxes/{UNKNOWN}/renew-expiration", {}, 422, "GENERAL::VALIDATION_ERROR"),
    ("PATCH", f"/v1/sandboxes/{UNKNOWN}/metadata", {"a": 1}, 422, "GENERAL::VALIDATION_ERROR"),
    ("POST", f"/v1/sandboxes/{UNKNOWN}/snapshots", {"name": ""}, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", "/v1/sandboxes?page=0", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", "/v1/sandboxes?pageSize=201", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", "/v1/sandboxes?page=", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", "/v1/sandboxes?metadata=novalue", None, 400, "INVALID_METADATA_FORMAT"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}?wait=Gone", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}?wait=Running&timeout=nan", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/endpoints/http", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/endpoints/80?expires=", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/endpoints/80?use_server_proxy=maybe", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/diagnostics/logs?scope=all&tail=0", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/diagnostics/logs?scope=", None, 400, "DIAGNOSTICS_SCOPE_UNSUPPORTED"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/diagnostics/events?scope=container", None, 400, "DIAGNOSTICS_SCOPE_UNSUPPORTED"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/proxy/http/", None, 422, "GENERAL::VALIDATION_ERROR"),
    ("GET", f"/v1/sandboxes/{UNKNOWN}/proxy/0/", None, 400, "DOCKER::INVALID_PORT"),
]


@pytest.mark.parametrize("mount", ["/v1", ""])
@pytest.mark.parametrize(("method", "path", "body", "status", "code"), FAILURES)
async def test_failure(
    client: httpx.AsyncClient, mount: str, method: str, path: str, body: object, status: int, code: str | None
) -> None:
    path = path.removeprefix("/v1") or "/"
    if mount == "" and path == "/health":
        return
    response = await client.request(method, mount + path, json=body)
    assert response.status_code == status
    assert response.headers["x-request-id"]
    if method != "HEAD":
        assert response.headers["content-type"] == "application/json"
        answer = response.json()
        assert answer["code"] == code
        assert answer["message"]


async def test_detail_stays_beside_code_and_message(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/nowhere")).json()["detail"] == "Not Found"
    wrong = await client.put("/v1/sandboxes")
    assert wrong.json()["detail"] == "Method Not Allowed"
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "POST"}
    unfit = (await client.post("/v1/sandboxes", json={**CREATE, "timeout": 5, "secureAccess": "perhaps"})).json()
    assert [problem["loc"] for problem in unfit["detail"]] == [["body", "timeout"], ["body", "secureAccess"]]
    assert unfit["detail"][0]["type"] == "greater_than_equal"
    assert unfit["detail"][0]["ctx"] == {"ge": 60}


async def test_validation_never_echoes_a_secret(client: httpx.AsyncClient) -> None:
    body = {**CREATE, "image": {"uri": 1, "auth": {"username": ["hunter1"], "password": {"p": "hunter2"}}}}
    response = await client.post("/v1/sandboxes", json=body)
    assert response.status_code == 422
    assert "hunter" not in response.text


@pytest.mark.parametrize("mount", ["/v1", ""])
async def test_create(client: httpx.AsyncClient, web: Web, mount: str) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {**CREATE, "metadata": {"a": "b"}, "snapshotId": "  ", "timeout": "120"}
    response = await client.post(f"{mount}/sandboxes", json=body, headers=headers)
    answer = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/sandboxes/{answer['id']}"
    assert answer["status"]["state"] == "Pending"
    assert answer["metadata"] == {"a": "b"}
    assert "image" not in answer
    request, principal, key = web.sandboxes.calls["create"]  # type: ignore[misc]  # as the stand-in notes it
    assert (request.timeout, request.snapshot_id, principal, key) == (120, None, None, "once")  # type: ignore[has-type]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "é"])
async def test_idempotency_key_must_be_short_and_printable(client: httpx.AsyncClient, key: str) -> None:
    response = await client.post("/v1/sandboxes", json=CREATE, headers=[(b"idempotency-key", key.encode("latin-1"))])
    assert response.status_code == 400
    assert response.json()["code"] == "SANDBOX::INVALID_IDEMPOTENCY_KEY"


async def test_list_filters_and_pages(client: httpx.AsyncClient, web: Web) -> None:
    ids = [web.sandboxes.add(metadata={"n": str(n % 2)}) for n in range(5)]
    web.sandboxes.add(State.PAUSED)
    page = (await client.get("/v1/sandboxes", params={"state": "RUNNING", "pageSize": 2, "page": 2})).json()
    assert [item["id"] for item in page["items"]] == [ids[2], ids[1]]
    assert page["pagination"] == {"page": 2, "pageSize": 2, "totalItems": 5, "totalPages": 3, "hasNextPage": True}
    assert (await client.get("/v1/sandboxes?state=running&state=paused")).json()["pagination"]["totalItems"] == 6
    assert (await client.get("/v1/sandboxes?state=")).json()["pagination"]["totalPages"] == 0
    assert (await client.get("/v1/sandboxes?metadata=n%3D1")).json()["pagination"]["totalItems"] == 2
    beyond = await client.get(f"/v1/sandboxes?page={10**30}")
    assert beyond.status_code == 200
    assert beyond.json()["items"] == []


@pytest.mark.parametrize(
    ("sent", "understood"),
    [
        ("", {}),
        ("a%3D1%26b%3D2", {"a": "1", "b": "2"}),
        ("a%3Dx%2By", {"a": "x y"}),
        ("a%3Dx%2520y", {"a": "x y"}),
        ("a%3D", {"a": ""}),
        ("a%3D1%26a%3D2", {"a": "2"}),
        ("a=1", {"a": "1"}),
    ],
)
async def test_metadata_filter_is_encoded_twice(
    client: httpx.AsyncClient, web: Web, sent: str, understood: dict[str, str]
) -> None:
    assert (await client.get(f"/v1/sandboxes?metadata={sent}")).status_code == 200
    query = web.sandboxes.calls["page"]
    assert isinstance(query, ListQuery)
    assert query.metadata == understood


async def test_query_bytes_outside_ascii_are_no_server_error(web: Web) -> None:
    status: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        status.append(message.get("status", 0))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/sandboxes",
        "raw_path": b"/v1/sandboxes",
        "query_string": b"state=\xff\xc3",
        "headers": [],
    }
    await web.app()(scope, receive, send)
    assert status[0] == 200


async def test_life_of_a_sandbox(client: httpx.AsyncClient, web: Web) -> None:
    sandbox = f"/v1/sandboxes/{web.sandboxes.add()}"
    paused = await client.post(f"{sandbox}/pause")
    assert (paused.status_code, paused.content) == (202, b"")
    assert "content-type" not in paused.headers
    assert (await client.post(f"{sandbox}/pause")).status_code == 409
    assert (await client.post(f"{sandbox}/resume", content=b"{ignored")).status_code == 202
    patched = await client.patch(f"{sandbox}/metadata", json={"a": "1", "b": None})
    assert (patched.status_code, patched.json()["metadata"]) == (200, {"a": "1"})
    deleted = await client.delete(sandbox)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get(sandbox)).status_code == 404


@pytest.mark.parametrize(
    "sent", ["2030-01-02T03:04:05Z", "2030-01-02 05:04:05+02:00", "2030-01-02T03:04:05", 1893553445, "1893553445000"]
)
async def test_renew_reads_every_form_of_time_and_answers_utc(
    client: httpx.AsyncClient, web: Web, sent: str | int
) -> None:
    response = await client.post(f"/v1/sandboxes/{web.sandboxes.add()}/renew-expiration", json={"expires_at": sent})
    assert response.status_code == 200
    assert response.json() == {"expiresAt": "2030-01-02T03:04:05Z"}
    assert web.sandboxes.calls["renew"] == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_wait_is_passed_on_bounded(connect: Callable[[], httpx.AsyncClient], web: Web) -> None:
    web.settings.lifecycle.wait_limit_seconds = 7
    sandbox = web.sandboxes.add(State.RUNNING)
    response = await connect().get(f"/v1/sandboxes/{sandbox}?wait=running&wait=FAILED&timeout=1e9")
    assert response.json()["id"] == sandbox
    assert web.sandboxes.calls["wait"] == (frozenset({State.RUNNING, State.FAILED}), 7.0)


async def test_endpoint_names_how_the_client_came(connect: Callable[[], httpx.AsyncClient], web: Web) -> None:
    sandbox = web.sandboxes.add()
    client = connect()
    await client.get(f"/v1/sandboxes/{sandbox}/endpoints/44772?use_server_proxy=yes")
    assert web.sandboxes.calls["endpoint"] == (44772, True, None, "shoal.test:8080/v1")
    await client.get(f"/sandboxes/{sandbox}/endpoints/80?expires=9")
    bare: object = web.sandboxes.calls["endpoint"]
    assert bare == (80, False, 9, "shoal.test:8080")
    web.settings.server.eip = " https://edge.example/base "
    response = await connect().get(f"/v1/sandboxes/{sandbox}/endpoints/80")
    assert response.json() == {"endpoint": f"edge.example/base/sandboxes/{sandbox}/proxy/80"}


async def test_diagnostics_text_and_descriptor(client: httpx.AsyncClient, web: Web) -> None:
    sandbox = web.sandboxes.add()
    base = f"/v1/sandboxes/{sandbox}/diagnostics"
    before = datetime.now(UTC)
    plain = await client.get(f"{base}/logs?tail=3&since=10m&container=main")
    assert plain.headers["deprecation"] == "true"
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert plain.text == "line\n"
    query = web.sandboxes.calls["logs"]
    assert isinstance(query, LogQuery)
    assert (query.tail, query.container) == (3, "main")
    assert query.since is not None
    assert abs(query.since - before + timedelta(minutes=10)) < timedelta(minutes=1)
    web.sandboxes.text = "".join(f"{n} é\n" for n in range(101))
    stable = await client.get(f"{base}/logs?scope=%20ALL")
    assert "deprecation" not in stable.headers
    descriptor = stable.json()
    assert descriptor["scope"] == "all"
    assert descriptor["truncated"] is True
    assert descriptor["warnings"]
    assert descriptor["content"].startswith("1 é\n")
    assert descriptor["contentLength"] == len(descriptor["content"].encode())
    events = (await client.get(f"{base}/events?scope=runtime")).json()
    assert events["kind"] == "events"
    assert events["content"].endswith("49 é")
    assert "warnings" not in events


async def test_summary_survives_a_part_that_fails(client: httpx.AsyncClient, web: Web) -> None:
    sandbox = web.sandboxes.add()
    response = await client.get(f"/v1/sandboxes/{sandbox}/diagnostics/summary?tail=7")
    thick, thin = "=" * 72, "-" * 40
    assert response.text == (
        f"{thick}\nSANDBOX DIAGNOSTICS SUMMARY\nSandbox ID: {sandbox}\n{thick}\n"
        f"\n{thin}\nINSPECT\n{thin}\n[error] The runtime of this sandbox has no inspect.\n"
        f"\n{thin}\nEVENTS\n{thin}\nline\n"
        f"\n{thin}\nLOGS (last 7 lines)\n{thin}\nline\n"
    )
    inspect = await client.get(f"/v1/sandboxes/{sandbox}/diagnostics/inspect")
    assert inspect.status_code == 501


async def test_snapshots(client: httpx.AsyncClient, web: Web) -> None:
    sandbox = web.sandboxes.add()
    first = await client.post(f"/sandboxes/{sandbox}/snapshots")
    assert first.status_code == 202
    assert first.headers["location"] == f"/v1/snapshots/{first.json()['id']}"
    assert first.json()["status"] == {"state": "Creating", "reason": "snapshot_accepted"}
    assert "name" not in first.json()
    named = await client.post(f"/v1/sandboxes/{sandbox}/snapshots", json={"name": "n", "other": 1})
    assert named.json()["name"] == "n"
    null = await client.post(
        f"/v1/sandboxes/{sandbox}/snapshots", content=b"null", headers={"Content-Type": "application/json"}
    )
    assert null.status_code == 202
    found = (await client.get("/v1/snapshots", params={"name": "n", "sandboxId": sandbox})).json()
    assert [item["id"] for item in found["items"]] == [named.json()["id"]]
    assert (await client.get("/v1/snapshots?state=creating")).json()["pagination"]["totalItems"] == 0
    assert (await client.get("/v1/snapshots?state=Creating&pageSize=2")).json()["pagination"]["hasNextPage"] is True
    assert (await client.delete(f"/v1/snapshots/{named.json()['id']}")).status_code == 204


async def test_health_version_ready(client: httpx.AsyncClient, web: Web) -> None:
    assert (await client.get("/health")).json() == {"status": "healthy"}
    assert (await client.get("/version")).json() == {"version": "1.2.3"}
    assert (await client.get("/ready")).json() == {"status": "ready", "components": {"store": "ok"}}
    web.reasons["runtime"] = "engine away"
    down = await client.get("/ready")
    assert down.headers["Retry-After"] == "1"
    assert down.status_code == 503
    assert down.json()["code"] == "GENERAL::NOT_READY"
    assert down.json()["components"] == {"store": "ok", "runtime": "engine away"}


async def test_error_headers_travel(client: httpx.AsyncClient, web: Web) -> None:
    web.sandboxes.failure = RateLimited("POOL::EXHAUSTED", "Later.", retry_after=1.2)
    response = await client.get("/v1/sandboxes")
    assert response.status_code == 429
    assert response.headers["retry-after"] == "2"


async def test_trailing_slash_is_redirected(client: httpx.AsyncClient, web: Web) -> None:
    response = await client.get("/v1/sandboxes/?page=1")
    assert response.status_code == 307
    assert response.headers["location"] == "http://shoal.test:8080/v1/sandboxes?page=1"
    sandbox = web.sandboxes.add()
    assert (await client.post(f"/v1/sandboxes/{sandbox}/pause/")).headers["location"].endswith(f"/{sandbox}/pause")
    assert (await client.get("/v1/nowhere/")).status_code == 404


async def test_content_type_must_be_json(client: httpx.AsyncClient) -> None:
    content = b'{"image":{"uri":"host"},"entrypoint":["sleep"],"resourceLimits":{}}'
    for kind, status in [
        ("application/json", 202),
        ("application/json; charset=utf-8", 202),
        ("application/merge-patch+json", 202),
        ("text/plain", 422),
        ("application/jsonp", 422),
    ]:
        response = await client.post("/v1/sandboxes", content=content, headers={"Content-Type": kind})
        assert response.status_code == status, kind
    assert (await client.post("/v1/sandboxes", content=content)).status_code == 422


@pytest.mark.parametrize("announced", [True, False])
async def test_body_limit(connect: Callable[[], httpx.AsyncClient], web: Web, announced: bool) -> None:
    web.settings.server.max_body_bytes = 1000

    async def pieces() -> Any:
        for _ in range(101):
            yield b" " * 10

    response = await connect().post(
        "/v1/sandboxes",
        content=b" " * 1001 if announced else pieces(),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 413
    assert response.json()["code"] == "GENERAL::BODY_TOO_LARGE"
    assert response.headers["connection"] == "close"
