"""Expiries on the cluster that nobody can read: told, never taken for "none", and put right by a renewal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.k8s_runtime.servers import configuration, running
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

from shoal_k8s import names
from shoal_k8s.api import KubeClient
from shoal_k8s.pods.objects import PODS, Pod

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]


@pytest.fixture
def server(tmp_path: Path, namespace: str) -> Iterator[ServerProcess]:
    with running(tmp_path, configuration(namespace)) as server:
        yield server


@pytest.fixture
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base + "/v1", timeout=60) as api:
        yield api


async def test_an_expiry_that_cannot_be_read(
    server: ServerProcess, api: httpx.Client, client: KubeClient, namespace: str, tmp_path: Path
) -> None:
    image = {"uri": "shoal-test/busybox:latest"}
    body = {"image": image, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600}
    made = api.post("/sandboxes", json=body).json()  # noqa: ASYNC212 - the server is another process
    path = f"/sandboxes/{made['id']}"
    eventually(lambda: _shown(api, path)["status"]["state"] == "Running")
    await _write(client, namespace, made["id"], "next tuesday")
    eventually(lambda: "'next tuesday' cannot be read" in _shown(api, path)["status"]["message"])
    assert _shown(api, path)["expiresAt"] == made["expiresAt"]
    assert api.patch(f"{path}/metadata", json={"a": "b"}).status_code == 200  # noqa: ASYNC212 - likewise
    assert (_shown(api, path)["expiresAt"], _shown(api, path)["metadata"]) == (made["expiresAt"], {"a": "b"})
    server.stop()
    _forget(tmp_path)
    server.start()
    assert "cannot be read" in _shown(api, path)["status"]["message"]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    renewed = api.post(f"{path}/renew-expiration", json={"expiresAt": later})  # noqa: ASYNC212 - likewise
    assert renewed.status_code == 200, renewed.text
    held = (await client.get(PODS, namespace, made["id"], Pod)).metadata.annotations[names.EXPIRES]
    assert datetime.fromisoformat(held) == datetime.fromisoformat(later)
    eventually(lambda: "cannot be read" not in _shown(api, path)["status"]["message"])
    api.delete(path)  # noqa: ASYNC212 - likewise


def _forget(home: Path) -> None:
    """The server's own memory is lost."""
    for file in home.glob("shoal.db*"):
        file.unlink()


def _shown(api: httpx.Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(path).json()
    return found


async def _write(client: KubeClient, namespace: str, name: str, expiry: str) -> None:
    await client.patch(PODS, namespace, name, {"metadata": {"annotations": {names.EXPIRES: expiry}}}, msgspec.Raw)
