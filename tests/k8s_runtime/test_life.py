"""Real pods through a real server: the unmodified SDK with its readiness check, the proxy, failures, a kill -9."""

# ruff: noqa: ASYNC212, ASYNC240 - nothing else runs on the loop of these tests

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from opensandbox import SandboxSync
from opensandbox.config import ConnectionConfigSync
from tests.k8s_runtime.servers import configuration, running
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

from shoal_k8s.api import KubeApiError, KubeClient
from shoal_k8s.pods.objects import PODS, SECRETS, Pod

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]

IMAGE = "shoal-test/busybox:latest"


@pytest.fixture
def server(tmp_path: Path, namespace: str) -> Iterator[ServerProcess]:
    config = configuration(namespace, execd=True, more="sandbox_create_timeout_seconds = 20")
    with running(tmp_path, config) as server:
        yield server


@pytest.fixture
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base + "/v1", timeout=60) as client:
        yield client


def create(api: httpx.Client, **changes: Any) -> dict[str, Any]:
    body = {"image": {"uri": IMAGE}, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600, **changes}
    answer = api.post("/sandboxes", json=body)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


def waited(api: httpx.Client, sandbox_id: str, state: str = "Running") -> dict[str, Any]:
    """The sandbox once it is in ``state`` or has ended."""
    for _ in range(4):
        found: dict[str, Any] = api.get(f"/sandboxes/{sandbox_id}", params={"wait": state, "timeout": 30}).json()
        if found["status"]["state"] != "Pending":
            break
    return found


async def test_the_sdk_with_its_readiness_check(server: ServerProcess, client: KubeClient, namespace: str) -> None:
    config = ConnectionConfigSync(domain=f"127.0.0.1:{server.port}", use_server_proxy=True)
    sandbox = SandboxSync.create(
        IMAGE,
        entrypoint=["sleep", "600"],
        timeout=timedelta(minutes=5),
        metadata={"team": "k8s"},
        connection_config=config,
    )
    try:
        info = sandbox.get_info()
        assert (info.status.state, info.metadata, info.entrypoint) == ("Running", {"team": "k8s"}, ["sleep", "600"])
        later = datetime.now(UTC) + timedelta(hours=1)
        sandbox.renew(timedelta(hours=1))
        assert sandbox.get_info().expires_at is not None
        pod = await client.get(PODS, namespace, sandbox.id, Pod)
        assert pod.metadata.labels["team"] == "k8s"
        noted = datetime.fromisoformat(pod.metadata.annotations["opensandbox.io/expires-at"])
        assert abs((noted - later).total_seconds()) < 30
    finally:
        sandbox.kill()
        sandbox.close()
    with pytest.raises(KubeApiError) as gone:
        await client.get(PODS, namespace, sandbox.id, Pod)
    assert gone.value.not_found


def test_reach_patch_diagnose_delete(api: httpx.Client) -> None:
    serve = ["sh", "-c", "echo started; mkdir -p /w && echo hello >/w/index.html && httpd -f -p 8000 -h /w"]
    sandbox = create(api, entrypoint=serve, metadata={"a": "1"}, env={"TOKEN_X": "hush"})
    path = f"/sandboxes/{sandbox['id']}"
    assert waited(api, sandbox["id"])["status"]["state"] == "Running"
    eventually(lambda: api.get(f"{path}/proxy/8000/").text == "hello\n")
    endpoint = api.get(f"{path}/endpoints/8000").json()["endpoint"]
    assert httpx.get(f"http://{endpoint}/").text == "hello\n"
    assert api.patch(f"{path}/metadata", json={"a": None, "b": "2"}).json()["metadata"] == {"b": "2"}
    assert "started" in api.get(f"{path}/diagnostics/logs").text
    assert "Scheduled" in api.get(f"{path}/diagnostics/events").text
    assert "Pod Name:       " + sandbox["id"] in api.get(f"{path}/diagnostics/inspect").text
    refused = api.post(f"{path}/pause")
    assert (refused.status_code, refused.json()["code"]) == (501, "KUBERNETES::PAUSE_NOT_SUPPORTED")
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_an_image_that_cannot_be_pulled_fails_with_the_reason(api: httpx.Client) -> None:
    sandbox = create(api, image={"uri": "127.0.0.1:1/no/such:image"})
    status = waited(api, sandbox["id"])["status"]
    assert status["state"] == "Failed"
    assert "sandbox" in status["message"]
    assert status["reason"] in ("ErrImagePull", "ImagePullBackOff")


def test_a_pod_that_cannot_be_scheduled_says_why(api: httpx.Client) -> None:
    sandbox = create(api, resourceLimits={"cpu": "9000"})
    path = f"/sandboxes/{sandbox['id']}"
    eventually(lambda: "Insufficient cpu" in api.get(path).json()["status"].get("message", ""))
    assert api.delete(path).status_code == 204


async def test_the_pull_secret_belongs_to_the_pod(api: httpx.Client, client: KubeClient, namespace: str) -> None:
    image = {"uri": IMAGE, "auth": {"username": "u", "password": "hush-hush"}}
    sandbox = create(api, image=image)
    assert waited(api, sandbox["id"])["status"]["state"] == "Running"
    secret = await client.get(SECRETS, namespace, f"opensandbox-image-auth-{sandbox['id']}", Pod)
    assert [owner.name for owner in secret.metadata.owner_references] == [sandbox["id"]]
    assert "hush-hush" not in api.get(f"/sandboxes/{sandbox['id']}/diagnostics/inspect").text
    api.delete(f"/sandboxes/{sandbox['id']}")
    with pytest.raises(KubeApiError):
        await client.get(SECRETS, namespace, f"opensandbox-image-auth-{sandbox['id']}", Pod)


async def test_a_killed_server_finds_everything_and_a_lost_store_is_rebuilt(
    server: ServerProcess, api: httpx.Client, client: KubeClient, namespace: str, tmp_path: Path
) -> None:
    kept = create(api, metadata={"team": "x"}, extensions={"opensandbox.extensions.note": "n"})
    before = waited(api, kept["id"])
    gone = create(api)
    waited(api, gone["id"])
    cut = create(api)
    server.kill()
    await client.delete(PODS, namespace, gone["id"])
    server.start()
    assert api.get(f"/sandboxes/{kept['id']}").json() == before
    assert api.get(f"/sandboxes/{gone['id']}").status_code == 404
    assert waited(api, cut["id"])["status"]["state"] == "Running"
    server.kill()
    for file in tmp_path.glob("shoal.db*"):
        file.unlink()
    server.start()
    after = api.get(f"/sandboxes/{kept['id']}").json()
    for field in ("id", "metadata", "entrypoint", "expiresAt", "createdAt", "extensions", "image"):
        assert after[field] == before[field]


async def test_what_happens_behind_its_back_shows(api: httpx.Client, client: KubeClient, namespace: str) -> None:
    removed, ended = create(api), create(api, entrypoint=["sh", "-c", "sleep 3; exit 4"])
    assert waited(api, removed["id"])["status"]["state"] == "Running"
    await client.delete(PODS, namespace, removed["id"])
    eventually(lambda: api.get(f"/sandboxes/{removed['id']}").status_code == 404)
    eventually(lambda: api.get(f"/sandboxes/{ended['id']}").json()["status"]["state"] == "Failed")
    assert "exit code 4" in api.get(f"/sandboxes/{ended['id']}").json()["status"]["message"]
