"""Pools that a controller keeps: the ``/pools`` API, and sandboxes that are taken from them, through a real server."""

# ruff: noqa: ASYNC212 - the server is another process, and the controller has a loop of its own

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from opensandbox import SandboxSync
from opensandbox.config import ConnectionConfigSync
from tests.k8s_runtime.controllers import BATCH, POOL, install
from tests.k8s_runtime.pool_controller import PoolController, install_pools
from tests.k8s_runtime.servers import configuration, running
from tests.k8s_runtime.threads import in_thread
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

from shoal.errors import EngineFailure
from shoal.models.pools import CapacitySpec, CreatePool
from shoal_k8s.api import KubeClient, Resource
from shoal_k8s.config import PoolTemplateSettings
from shoal_k8s.pools import native
from shoal_k8s.pools.native import ClusterPools
from shoal_k8s.pools.template import TemplatePolicy

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.needs("docker"), pytest.mark.timeout(300)]

IMAGE = "shoal-test/busybox:latest"
SERVE = ["sh", "-c", 'mkdir -p /w && echo "$GREETING" >/w/index.html && exec httpd -f -p 8000 -h /w']
BRING = "cp /execd /bootstrap.sh /opt/opensandbox/"
MOUNT = {"name": "bin", "mountPath": "/opt/opensandbox"}
TEMPLATE: dict[str, Any] = {
    "spec": {
        "volumes": [{"name": "bin", "emptyDir": {}}],
        "initContainers": [
            {
                "name": "bring",
                "image": "shoal-test/execd:latest",
                "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", BRING],
                "volumeMounts": [MOUNT],
            }
        ],
        "containers": [
            {
                "name": "main",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "command": ["sleep", "3600"],
                "volumeMounts": [MOUNT],
            }
        ],
    }
}


def pool(**capacity: int) -> dict[str, Any]:
    spec = {"bufferMax": 1, "bufferMin": 1, "poolMax": 2, "poolMin": 1, **capacity}
    return {"name": "warm", "template": TEMPLATE, "capacitySpec": spec}


@contextmanager
def serving(home: Path, namespace: str, provider: str = "batchsandbox") -> Iterator[ServerProcess]:
    config = configuration(namespace, provider, more="pool_acquisition_timeout_seconds = 2")
    with running(home, config) as server:
        yield server


@pytest.fixture
def newer() -> bool:
    """Which controller: one that tells what a pool lacks."""
    return True


@pytest.fixture
def controller(namespace: str, newer: bool) -> Iterator[None]:
    with in_thread(lambda client: [PoolController(client, namespace, newer=newer)], install_pools):
        yield


@pytest.fixture
def server(controller: None, tmp_path: Path, namespace: str) -> Iterator[ServerProcess]:
    with serving(tmp_path, namespace) as server:
        yield server


@pytest.fixture
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base + "/v1", timeout=60) as client:
        yield client
        for sandbox in client.get("/sandboxes").json()["items"]:
            client.delete(f"/sandboxes/{sandbox['id']}")


def make(api: httpx.Client, most: int = 2) -> None:
    """A pool with an idle pod."""
    assert api.post("/pools", json=pool(poolMax=most)).status_code == 201
    eventually(lambda: (api.get("/pools/warm").json().get("status") or {}).get("available") == 1)


def take(api: httpx.Client, reference: str = "warm", **changes: Any) -> httpx.Response:
    return api.post("/sandboxes", json={"extensions": {"poolRef": reference}, "timeout": 600, **changes})


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_pools_are_pool_objects(api: httpx.Client, client: KubeClient, namespace: str) -> None:
    made = api.post("/pools", json=pool(bufferMax=0, bufferMin=0, poolMin=0))
    assert made.status_code == 201
    assert (made.json()["name"], made.json()["capacitySpec"]["poolMax"]) == ("warm", 2)
    assert "createdAt" in made.json()
    assert code(api.post("/pools", json=pool())) == (409, "KUBERNETES::POOL_ALREADY_EXISTS")
    held = await client.get(POOL, namespace, "warm", dict[str, Any])
    whole = {"spec": {**TEMPLATE["spec"], "automountServiceAccountToken": False}}
    assert held["spec"]["template"] == whole
    kept = {"spec": {"scaleStrategy": {"maxUnavailable": "50%"}}}
    await client.patch(POOL, namespace, "warm", kept, msgspec.Raw)
    fewer = {"bufferMax": 0, "bufferMin": 0, "poolMax": 1, "poolMin": 0}
    assert api.put("/pools/warm", json={"capacitySpec": fewer}).json()["capacitySpec"] == fewer
    changed = (await client.get(POOL, namespace, "warm", dict[str, Any]))["spec"]
    assert changed == {"capacitySpec": fewer, "template": whole, **kept["spec"]}
    assert [each["name"] for each in api.get("/pools").json()["items"]] == ["warm"]
    assert api.delete("/pools/warm").status_code == 204
    for answer in (api.get("/pools/warm"), api.put("/pools/warm", json={"capacitySpec": fewer})):
        assert code(answer) == (404, "KUBERNETES::POOL_NOT_FOUND")
    assert code(api.delete("/pools/warm")) == (404, "KUBERNETES::POOL_NOT_FOUND")


def test_a_template_may_not_reach_beyond_its_pod(api: httpx.Client) -> None:
    """Every field's rule has its own test in `test_pool_templates`; this is the way they are told."""
    main = {"name": "a", "image": IMAGE}
    refused: dict[str, dict[str, Any]] = {
        "spec.containers[0].securityContext.capabilities.add[0]": {
            "containers": [{**main, "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]
        },
        "spec.volumes[0].secret.secretName": {
            "containers": [main],
            "volumes": [{"name": "v", "secret": {"secretName": "shoal-api-key"}}],
        },
        "spec.serviceAccountName": {"containers": [main], "serviceAccountName": "shoal"},
        "spec.nodeName": {"containers": [main], "nodeName": "control-plane"},
        "spec.hostNetwork": {"containers": [main], "hostNetwork": True},
        "spec.containers": {"containers": []},
    }
    for path, spec in refused.items():
        answer = api.post("/pools", json={**pool(), "template": {"spec": spec}})
        assert code(answer) == (400, "SANDBOX::INVALID_PARAMETER"), answer.text
        assert f"template.{path} " in answer.json()["message"]
    assert api.get("/pools").json()["items"] == []


async def test_the_sdk_takes_a_sandbox_from_a_pool(
    server: ServerProcess, api: httpx.Client, client: KubeClient, namespace: str
) -> None:
    make(api)
    config = ConnectionConfigSync(domain=f"127.0.0.1:{server.port}", use_server_proxy=True)
    sandbox = SandboxSync.create(
        "python:3.13",
        entrypoint=SERVE,
        env={"GREETING": "it's warm"},
        timeout=timedelta(minutes=5),
        metadata={"team": "k8s"},
        extensions={"poolRef": "warm"},
        connection_config=config,
    )
    path = f"/sandboxes/{sandbox.id}"
    eventually(lambda: api.get(f"{path}/proxy/8000/").text == "it's warm\n")
    shown = api.get(path).json()
    assert shown["allocation"] == {"mode": "pool", "poolRef": "warm", "state": "allocated"}
    assert (shown["image"]["uri"], shown["entrypoint"], shown["metadata"]) == ("unknown", SERVE, {"team": "k8s"})
    assert "pool 'warm'" in shown["status"]["message"]
    held = await client.get(BATCH, namespace, sandbox.id, dict[str, Any])
    assert "template" not in held["spec"]
    assert held["spec"]["taskTemplate"]["spec"]["process"]["env"][-1] == {"name": "OPENSANDBOX_ID", "value": sandbox.id}
    pod = json.loads(held["metadata"]["annotations"]["sandbox.opensandbox.io/alloc-status"])["pods"][0]
    assert f"Pod Name:       {pod}" in api.get(f"{path}/diagnostics/inspect").text
    released = {"sandbox.opensandbox.io/alloc-released": json.dumps({"pods": [pod]})}
    await client.patch(BATCH, namespace, sandbox.id, {"metadata": {"annotations": released}}, msgspec.Raw)
    eventually(lambda: "allocation" not in api.get(path).json())
    assert code(api.get(f"{path}/endpoints/8000")) == (404, "KUBERNETES::POD_IP_NOT_AVAILABLE")
    sandbox.kill()
    sandbox.close()
    eventually(lambda: api.get("/pools/warm").json()["status"]["allocated"] == 0)


def test_any_pool_and_what_a_restarted_server_knows(server: ServerProcess, api: httpx.Client, tmp_path: Path) -> None:
    make(api)
    made = take(api, "*", entrypoint=["sleep", "600"])
    assert made.status_code == 202, made.text
    path = f"/sandboxes/{made.json()['id']}"
    eventually(lambda: "allocation" in api.get(path).json())
    before = api.get(path).json()
    assert before["allocation"]["poolRef"] == "warm"
    assert code(api.post(f"{path}/resume")) == (409, "KUBERNETES::INVALID_STATE")
    server.kill()
    for file in tmp_path.glob("shoal.db*"):
        file.unlink()
    server.start()
    after = api.get(path).json()
    for field in ("allocation", "entrypoint", "image", "expiresAt"):
        assert after[field] == before[field]


@pytest.mark.parametrize("newer", [True, False])
def test_a_pool_without_a_free_pod(api: httpx.Client, newer: bool) -> None:
    make(api, most=1)
    assert take(api).status_code == 202
    answer = take(api)
    assert code(answer) == (429, "KUBERNETES::POOL_CAPACITY_EXHAUSTED")
    assert answer.headers["Retry-After"] == "2"
    eventually(lambda: len(api.get("/sandboxes").json()["items"]) == 1)


@pytest.mark.parametrize(("command", "state"), [("sleep 2", "Terminated"), ("sleep 2; exit 3", "Failed")])
@pytest.mark.parametrize("newer", [False])
def test_a_task_that_ended_is_the_end(api: httpx.Client, command: str, state: str, newer: bool) -> None:
    make(api)
    made = take(api, entrypoint=["sh", "-c", command])
    assert made.status_code == 202, made.text
    path = f"/sandboxes/{made.json()['id']}"
    eventually(lambda: api.get(path).json()["status"]["state"] == state)
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_what_a_pool_cannot_give(api: httpx.Client) -> None:
    assert code(take(api, "absent")) == (404, "KUBERNETES::POOL_NOT_FOUND")
    volume = {"name": "v", "mountPath": "/v", "pvc": {"claimName": "c"}}
    fields: list[dict[str, Any]] = [
        {"volumes": [volume]},
        {"platform": {"os": "linux", "arch": "amd64"}},
        {"networkPolicy": {"egress": []}},
        {"sidecars": [{"name": "beside", "image": {"uri": IMAGE}}]},
    ]
    for refused in fields:
        assert code(take(api, **refused)) == (400, "SANDBOX::INVALID_PARAMETER")
    assert take(api, snapshotId="x").status_code == take(api, lifecycle={}).status_code == 422
    eventually(lambda: api.get("/sandboxes").json()["items"] == [])


@pytest.mark.parametrize("provider", ["agent-sandbox", "pod"])
async def test_providers_without_pools_say_so(
    provider: str, client: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await install(client, Resource("agents.x-k8s.io", "v1beta1", "sandboxes"))
    with (
        serving(tmp_path, namespace, provider) as server,
        httpx.Client(base_url=server.base + "/v1", timeout=60) as api,
    ):
        assert code(api.post("/pools", json=pool())) == (501, "KUBERNETES::POOL_NOT_SUPPORTED")
        refused = take(api, image={"uri": IMAGE}, entrypoint=["sleep", "600"], resourceLimits={})
        assert code(refused) == (400, "SANDBOX::UNSUPPORTED_POOL_REF")


async def test_a_cluster_without_the_kind(client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "POOLS", Resource("absent.opensandbox.io", "v1alpha1", "pools"))
    pools = ClusterPools(client, namespace, TemplatePolicy(PoolTemplateSettings()))
    assert await pools.list() == []
    capacity = CapacitySpec(buffer_max=1, buffer_min=1, pool_max=1, pool_min=1)
    with pytest.raises(EngineFailure, match="not installed"):
        await pools.create(CreatePool(name="p", template=TEMPLATE, capacity_spec=capacity))
