"""Pools over HTTP, on the local runtime: the wire's codes and shapes, and takes as the SDK makes them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from opensandbox.config.connection_sync import ConnectionConfigSync
from opensandbox.sync.sandbox import SandboxSync
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

SHAPE: dict[str, Any] = {"image": {"uri": "host"}, "entrypoint": ["sleep", "600"], "env": {"POOLED": "yes"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    home: Path = tmp_path_factory.mktemp("pools")
    server = ServerProcess(home, "[lifecycle]\npool_settle_seconds = 0\n")
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    """Leaves no pool, no sandbox and no member behind."""
    with httpx.Client(base_url=server.base, timeout=60) as client:
        yield client
        for pool in client.get("/v1/pools").json()["items"]:
            client.delete(f"/v1/pools/{pool['name']}")
        for item in client.get("/v1/sandboxes?pageSize=200").json()["items"]:
            client.delete(f"/v1/sandboxes/{item['id']}")
    eventually(lambda: not any((server.state_dir / "sandboxes").glob("*-*-*-*-*")))


def capacity(low: int = 2, high: int = 2, most: int = 20, least: int = 0) -> dict[str, int]:
    return {"bufferMin": low, "bufferMax": high, "poolMin": least, "poolMax": most}


def make(http: httpx.Client, available: int = 2, **changes: Any) -> str:
    name = f"pool-{uuid.uuid4().hex[:8]}"
    body = {"name": name, "template": SHAPE, "capacitySpec": capacity(available, available), **changes}
    answer = http.post("/v1/pools", json=body)
    assert answer.status_code == 201, answer.text
    eventually(lambda: http.get(f"/v1/pools/{name}").json()["status"]["available"] == available)
    return name


def test_the_shape_of_a_pool(http: httpx.Client) -> None:
    name = make(http)
    shown = http.get(f"/v1/pools/{name}").json()
    assert set(shown) == {"name", "capacitySpec", "status", "createdAt"}
    assert shown["capacitySpec"] == capacity()
    assert set(shown["status"]) == {"total", "allocated", "available", "revision"}
    assert http.get("/pools").json() == {"items": [shown]}
    changed = http.put(f"/v1/pools/{name}", json={"capacitySpec": capacity(3, 3)})
    assert (changed.status_code, changed.json()["capacitySpec"]) == (200, capacity(3, 3))
    assert http.get("/v1/sandboxes").json()["items"] == []
    assert http.delete(f"/v1/pools/{name}").status_code == 204
    assert http.get("/v1/pools").json() == {"items": []}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "Not-A-Label"}, 422, "GENERAL::VALIDATION_ERROR"),
        ({"name": "ends\n"}, 422, "GENERAL::VALIDATION_ERROR"),
        ({"name": "a" * 254}, 422, "GENERAL::VALIDATION_ERROR"),
        ({"capacitySpec": {"bufferMin": 1}}, 422, "GENERAL::VALIDATION_ERROR"),
        ({"capacitySpec": capacity(-1)}, 422, "GENERAL::VALIDATION_ERROR"),
        ({"template": "text"}, 422, "GENERAL::VALIDATION_ERROR"),
        ({"template": {}}, 422, "GENERAL::VALIDATION_ERROR"),
        ({"template": {**SHAPE, "timeout": 60}}, 400, "SANDBOX::INVALID_PARAMETER"),
        ({"template": {**SHAPE, "entrypoint": [1]}}, 400, "SANDBOX::INVALID_PARAMETER"),
        ({"template": {**SHAPE, "networkPolicy": {}}}, 400, "SANDBOX::INVALID_PARAMETER"),
        ({"template": {**SHAPE, "extensions": {"poolRef": "x"}}}, 400, "SANDBOX::INVALID_PARAMETER"),
        ({"template": {**SHAPE, "extensions": {"runtime": "nowhere"}}}, 400, "SANDBOX::INVALID_PARAMETER"),
        ({"template": {"spec": {"containers": []}}}, 400, "SANDBOX::INVALID_PARAMETER"),
        ({"template": {"spec": {"containers": [{"securityContext": {}}]}}}, 400, "SANDBOX::INVALID_PARAMETER"),
    ],
)
def test_refused(http: httpx.Client, body: dict[str, Any], status: int, code: str) -> None:
    answer = http.post("/v1/pools", json={"name": "p", "template": SHAPE, "capacitySpec": capacity(), **body})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert http.get("/v1/pools").json() == {"items": []}


def test_unknown_and_taken_names(http: httpx.Client) -> None:
    name = make(http)
    again = http.post("/v1/pools", json={"name": name, "template": SHAPE, "capacitySpec": capacity()})
    assert (again.status_code, again.json()["code"]) == (409, "KUBERNETES::POOL_ALREADY_EXISTS")
    for answer in (
        http.get("/v1/pools/other"),
        http.put("/v1/pools/other", json={"capacitySpec": capacity()}),
        http.delete("/v1/pools/other"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "KUBERNETES::POOL_NOT_FOUND")
    taking = http.post("/v1/sandboxes", json={"extensions": {"poolRef": "other"}})
    assert (taking.status_code, taking.json()["code"]) == (400, "SANDBOX::UNSUPPORTED_POOL_REF")


def test_a_pod_template_with_one_container(http: httpx.Client) -> None:
    container = {
        "name": "sandbox",
        "image": "host",
        "command": ["sleep"],
        "args": ["600"],
        "env": [{"name": "POOLED", "value": "yes"}],
        "resources": {"limits": {"cpu": 1}},
    }
    name = make(http, template={"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}})
    made = http.post("/v1/sandboxes", json={"extensions": {"poolRef": name}}).json()
    shown = http.get(f"/v1/sandboxes/{made['id']}").json()
    assert (shown["entrypoint"], shown["image"]) == (["sleep", "600"], {"uri": "host"})


def test_a_take(http: httpx.Client) -> None:
    name = make(http)
    body = {"extensions": {"poolRef": name}, "timeout": 600, "metadata": {"job": "7"}}
    answer = http.post("/v1/sandboxes", json=body)
    made = answer.json()
    assert (answer.status_code, made["status"]["state"]) == (202, "Running")
    assert not {"image", "snapshotId", "allocation"} & set(made)
    shown = http.get(f"/v1/sandboxes/{made['id']}").json()
    assert shown["allocation"] == {"mode": "pool", "poolRef": name, "state": "allocated"}
    assert shown["metadata"] == {"job": "7"}
    assert http.post(f"/v1/sandboxes/{made['id']}/pause").status_code == 202
    assert http.post(f"/v1/sandboxes/{made['id']}/resume").status_code == 202


def test_used_up(http: httpx.Client) -> None:
    name = make(http, available=1, capacitySpec=capacity(1, 1, most=1))
    body = {"extensions": {"poolRef": name}}
    assert http.post("/v1/sandboxes", json=body).json()["status"]["state"] == "Running"
    refused = http.post("/v1/sandboxes", json=body)
    assert (refused.status_code, refused.json()["code"]) == (429, "KUBERNETES::POOL_CAPACITY_EXHAUSTED")
    assert int(refused.headers["Retry-After"]) >= 1


def test_sixteen_clients_at_once(http: httpx.Client) -> None:
    name = make(http, available=16, capacitySpec=capacity(16, 16, most=32))
    with ThreadPoolExecutor(16) as clients:
        body = {"extensions": {"poolRef": name}}
        answers = list(clients.map(lambda _: http.post("/v1/sandboxes", json=body), range(16)))
    assert {answer.json()["status"]["state"] for answer in answers} == {"Running"}
    assert len({answer.json()["id"] for answer in answers}) == 16


def test_the_sdk_takes_one(http: httpx.Client, server: ServerProcess) -> None:
    """It sends limits of its own where its caller names none."""
    name = make(http, template={**SHAPE, "resourceLimits": {"cpu": "1", "memory": "2Gi"}})
    connection = ConnectionConfigSync(domain=f"127.0.0.1:{server.port}", request_timeout=timedelta(seconds=30))
    sandbox = SandboxSync.create(
        "host",
        entrypoint=["sleep", "600"],
        extensions={"poolRef": name},
        timeout=timedelta(seconds=600),
        skip_health_check=True,
        connection_config=connection,
    )
    info = sandbox.get_info()
    assert info.status.state == "Running"
    assert info.allocation is not None
    assert info.allocation.pool_ref == name
    sandbox.kill()
    sandbox.close()
