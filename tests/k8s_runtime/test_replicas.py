"""Several servers on one namespace: any of them answers, nothing is lost, and one of them ends what is over."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.k8s_runtime.servers import configuration, running
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

from shoal_k8s.api import KubeApiError, KubeClient
from shoal_k8s.lease import LEASES, LeaseObject
from shoal_k8s.pods.objects import PODS, Pod

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]

IMAGE = "shoal-test/busybox:latest"
NO_IMAGE = "shoal-test/Not-A-Name"
SERVE = ["sh", "-c", "mkdir -p /w && echo hello >/w/index.html && exec httpd -f -p 8000 -h /w"]


class Replica:
    """One server, with a store of its own."""

    def __init__(self, home: Path, namespace: str) -> None:
        home.mkdir()
        self.process = ServerProcess(home, configuration(namespace))
        self.process.start()
        self.http = httpx.Client(base_url=self.process.base + "/v1", timeout=60)

    def create(self, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        body = {"image": {"uri": IMAGE}, "entrypoint": SERVE, "resourceLimits": {}, "timeout": 600, **changes}
        return self.http.post("/sandboxes", json=body, headers=headers)

    def get(self, sandbox_id: str) -> dict[str, Any] | None:
        answer = self.http.get(f"/sandboxes/{sandbox_id}")
        return None if answer.status_code == 404 else answer.json()

    def state(self, sandbox_id: str) -> str | None:
        found = self.get(sandbox_id)
        return None if found is None else found["status"]["state"]

    def renew(self, sandbox_id: str, at: datetime) -> int:
        body = {"expiresAt": at.isoformat()}
        return self.http.post(f"/sandboxes/{sandbox_id}/renew-expiration", json=body).status_code


@pytest.fixture
def replicas(tmp_path: Path, namespace: str) -> Iterator[list[Replica]]:
    """The first one starts first, so it holds the Lease."""
    made: list[Replica] = []
    try:
        made.append(Replica(tmp_path / "one", namespace))
        made.append(Replica(tmp_path / "other", namespace))
        yield made
    finally:
        for replica in made:
            replica.http.close()
            replica.process.stop()


def test_any_of_them_answers(replicas: list[Replica]) -> None:
    one, other = replicas
    made = one.create(metadata={"a": "1"}).json()
    sandbox_id = made["id"]
    eventually(lambda: other.get(sandbox_id) is not None)
    eventually(lambda: other.state(sandbox_id) == "Running")
    eventually(lambda: one.state(sandbox_id) == "Running")
    mine, its = one.get(sandbox_id), other.get(sandbox_id)
    assert mine is not None
    assert its is not None
    for field in ("id", "metadata", "expiresAt", "createdAt", "entrypoint", "image"):
        assert mine[field] == its[field], field
    eventually(lambda: other.http.get(f"/sandboxes/{sandbox_id}/proxy/8000/").text == "hello\n")
    assert other.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    eventually(lambda: one.get(sandbox_id) is None)


def test_one_idempotency_key_makes_one_sandbox(replicas: list[Replica]) -> None:
    one, other = replicas
    key = {"Idempotency-Key": "the-same"}
    sandbox_id = one.create(headers=key).json()["id"]
    eventually(lambda: other.get(sandbox_id) is not None)
    assert other.create(headers=key).json()["id"] == sandbox_id
    refused = other.create(headers=key, entrypoint=["sleep", "1"])
    assert refused.status_code == 409


async def gone_for_good(replicas: list[Replica], client: KubeClient, namespace: str, sandbox_id: str) -> None:
    for replica in replicas:
        eventually(lambda replica=replica: replica.get(sandbox_id) is None)  # type: ignore[misc]  # bound now
        assert replica.http.delete(f"/sandboxes/{sandbox_id}").status_code == 404
    with pytest.raises(KubeApiError) as gone:
        await client.get(PODS, namespace, sandbox_id, Pod)
    assert gone.value.not_found


@pytest.mark.parametrize("how", ["by the other server", "behind their backs"])
async def test_what_is_deleted_while_it_is_made_is_gone_everywhere(
    replicas: list[Replica], client: KubeClient, namespace: str, how: str
) -> None:
    one, other = replicas
    sandbox_id = one.create(resourceLimits={"cpu": "500"}).json()["id"]
    eventually(lambda: other.state(sandbox_id) == "Pending")
    if how == "by the other server":
        assert other.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    else:
        await client.delete(PODS, namespace, sandbox_id)
    await gone_for_good(replicas, client, namespace, sandbox_id)


async def test_what_is_deleted_while_its_maker_is_down_is_not_made_again(
    replicas: list[Replica], client: KubeClient, namespace: str
) -> None:
    one, other = replicas
    sandbox_id = one.create(resourceLimits={"cpu": "500"}).json()["id"]
    eventually(lambda: other.state(sandbox_id) == "Pending")
    one.process.kill()
    assert other.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    one.process.start()
    await gone_for_good(replicas, client, namespace, sandbox_id)


async def test_changes_at_both_at_once_are_all_kept(
    replicas: list[Replica], client: KubeClient, namespace: str
) -> None:
    sandbox_id = replicas[0].create().json()["id"]
    for replica in replicas:
        eventually(lambda replica=replica: replica.state(sandbox_id) == "Running")  # type: ignore[misc]  # bound now

    def patch(turn: int) -> int:
        path = f"/sandboxes/{sandbox_id}/metadata"
        return replicas[turn % 2].http.patch(path, json={f"k{turn}": str(turn)}).status_code

    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(patch, range(24)))
        renewed = list(pool.map(lambda turn: replicas[turn % 2].renew(sandbox_id, later), range(6)))
    assert set(answers) == {200}
    assert set(renewed) == {200}
    pod = await client.get(PODS, namespace, sandbox_id, Pod)
    assert {key for key in pod.metadata.labels if key.startswith("k")} == {f"k{turn}" for turn in range(24)}
    for replica in replicas:
        eventually(lambda replica=replica: len((replica.get(sandbox_id) or {})["metadata"]) == 24)  # type: ignore[misc]  # bound now
        found = replica.get(sandbox_id)
        assert found is not None
        assert datetime.fromisoformat(found["expiresAt"]) == later


async def test_the_holder_of_the_lease_dies_and_another_ends_what_is_over(
    replicas: list[Replica], client: KubeClient, namespace: str
) -> None:
    one, other = replicas
    held = await client.get(LEASES, namespace, "shoal", LeaseObject)
    over, kept = (one.create().json()["id"] for _ in range(2))
    for sandbox_id in (over, kept):
        eventually(lambda sandbox_id=sandbox_id: other.state(sandbox_id) == "Running")  # type: ignore[misc]  # bound now
    end = datetime.now(UTC) + timedelta(seconds=3)
    assert other.renew(over, end) == 200
    one.process.kill()
    eventually(lambda: other.state(over) is None)
    assert datetime.now(UTC) >= end
    taken = await client.get(LEASES, namespace, "shoal", LeaseObject)
    assert taken.spec.holder_identity not in ("", None, held.spec.holder_identity)
    with pytest.raises(KubeApiError) as gone:
        await client.get(PODS, namespace, over, Pod)
    assert gone.value.not_found
    assert other.state(kept) == "Running"


def test_a_server_that_comes_back_believes_the_cluster_not_its_store(replicas: list[Replica]) -> None:
    one, other = replicas
    kept, gone = (one.create(metadata={"a": "1"}).json()["id"] for _ in range(2))
    for sandbox_id in (kept, gone):
        eventually(lambda sandbox_id=sandbox_id: one.state(sandbox_id) == "Running")  # type: ignore[misc]  # bound now
        eventually(lambda sandbox_id=sandbox_id: other.state(sandbox_id) == "Running")  # type: ignore[misc]  # bound now
    one.process.kill()
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    assert other.renew(kept, later) == 200
    assert other.http.patch(f"/sandboxes/{kept}/metadata", json={"a": "2"}).status_code == 200
    assert other.http.delete(f"/sandboxes/{gone}").status_code == 204
    one.process.start()
    found = one.get(kept)
    assert found is not None
    assert (found["metadata"], datetime.fromisoformat(found["expiresAt"])) == ({"a": "2"}, later)
    assert one.get(gone) is None


def test_why_a_create_failed_is_told_by_all_of_them_and_by_those_that_come_later(
    replicas: list[Replica], tmp_path: Path
) -> None:
    one, other = replicas
    made = one.create(image={"uri": NO_IMAGE}, metadata={"a": "1"}).json()
    sandbox_id = made["id"]
    eventually(lambda: one.state(sandbox_id) == "Failed")
    eventually(lambda: other.state(sandbox_id) == "Failed")
    mine, its = one.get(sandbox_id), other.get(sandbox_id)
    assert mine is not None
    assert its is not None
    assert NO_IMAGE in mine["status"]["message"]
    for field in ("createdAt", "expiresAt", "metadata", "image", "entrypoint"):
        assert its[field] == mine[field]
    for field in ("state", "reason", "message"):
        assert its["status"][field] == mine["status"][field]
    other.process.kill()
    for file in (tmp_path / "other").glob("shoal.db*"):
        file.unlink()
    other.process.start()
    again = other.get(sandbox_id)
    assert again is not None
    assert again["status"]["message"] == mine["status"]["message"]
    assert other.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    eventually(lambda: one.get(sandbox_id) is None)
    assert one.http.get("/sandboxes").json()["items"] == []


def test_what_failed_is_forgotten_in_its_time(tmp_path: Path, namespace: str) -> None:
    brief = "[lifecycle]\npending_failure_ttl_seconds = 5\n"
    command = ["kubectl", "-n", namespace, "get", "configmap", "-l", "opensandbox.io/failed-create", "-o", "name"]

    def kept() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    config = configuration(namespace, extra=brief)
    with running(tmp_path, config) as server, httpx.Client(base_url=server.base + "/v1", timeout=60) as api:
        body = {"image": {"uri": NO_IMAGE}, "entrypoint": SERVE, "resourceLimits": {}, "timeout": 600}
        path = f"/sandboxes/{api.post('/sandboxes', json=body).json()['id']}"
        eventually(lambda: "shoal-failed-" in kept())
        eventually(lambda: api.get(path).status_code == 404)
        eventually(lambda: kept() == "")
