"""Images that cannot be pulled at once: tried again for as long as a create may take, and then told."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from tests.k8s_runtime.servers import configuration, running
from tests.support.waiting import eventually

from shoal.errors import EngineFailure
from shoal.models.workload import Phase, Workload
from shoal_k8s.waits import _Pulls

pytestmark = pytest.mark.timeout(300)
FAILING = ("ErrImagePull", "ImagePullBackOff")


@pytest.fixture
def api(tmp_path: Path, namespace: str) -> Iterator[httpx.Client]:
    config = configuration(namespace, more="sandbox_create_timeout_seconds = 120")
    with running(tmp_path, config) as server, httpx.Client(base_url=server.base + "/v1", timeout=60) as api:
        yield api


def create(api: httpx.Client, image: str) -> str:
    body = {"image": {"uri": image}, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600}
    made = api.post("/sandboxes", json=body)
    assert made.status_code == 202, made.text
    return f"/sandboxes/{made.json()['id']}"


def status(api: httpx.Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(path).json()["status"]
    return found


@pytest.mark.needs("k8s")
@pytest.mark.needs("docker")
def test_an_image_that_comes_a_moment_later_is_pulled_then(api: httpx.Client) -> None:
    """The node's engine is this machine's: an image under the name is as good as a registry that is back."""
    engine = docker.from_env()
    repository = f"127.0.0.1:1/late/{uuid.uuid4().hex}"
    path = create(api, f"{repository}:1")
    try:
        eventually(lambda: status(api, path).get("reason") in FAILING)
        seen = status(api, path)
        assert (seen["state"], "'sandbox' cannot be pulled" in seen["message"]) == ("Pending", True)
        engine.images.get("shoal-test/busybox:latest").tag(repository, "1")
        eventually(lambda: status(api, path)["state"] == "Running", 110)
    finally:
        api.delete(path)
        engine.images.remove(f"{repository}:1", force=True)
        engine.close()


@pytest.mark.needs("k8s")
@pytest.mark.needs("registry")
def test_what_the_registry_refuses_twice_is_told_before_the_time_is_over(api: httpx.Client) -> None:
    path = create(api, f"{os.environ['SHOAL_TEST_REGISTRY']}/private/{uuid.uuid4().hex}:1")
    eventually(lambda: status(api, path)["state"] == "Failed", 110)
    seen = status(api, path)
    assert seen["reason"] == "ErrImagePull"
    assert "Not ready within" not in seen["message"]


def seen(message: str, reason: str = "ErrImagePull") -> Workload:
    return Workload(id="x", phase=Phase.PENDING, reason=reason, message=message)


def test_only_a_second_refusal_by_the_registry_ends_it() -> None:
    pulls = _Pulls()
    refused, waits = seen("manifest unknown"), seen("Back-off", "ImagePullBackOff")
    for sighting in (refused, refused, waits, seen("connection refused"), waits, waits):
        pulls.see(sighting)
    with pytest.raises(EngineFailure, match="manifest unknown") as told:
        pulls.see(refused)
    assert told.value.code == "KUBERNETES::ErrImagePull"
