"""Snapshots on a real engine: captured, restored, deleted; and nothing of the source lives on in what is restored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.support.bench import Bench
from tests.support.servers import ServerProcess

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(180)]

IMAGE = "shoal-test/busybox:latest"
RESERVED = "opensandbox.io/"


class Api:
    """Requests to one server."""

    def __init__(self, server: ServerProcess, bench: Bench) -> None:
        self.http = httpx.Client(base_url=server.base + "/v1", timeout=60)
        self._bench = bench

    def create(self, **fields: Any) -> str:
        body = {"entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600, **fields}
        answer = self.http.post("/sandboxes", json=body)
        assert answer.status_code == 202, answer.text
        sandbox_id: str = answer.json()["id"]
        self._bench.ids.add(sandbox_id)
        found = self.http.get(f"/sandboxes/{sandbox_id}?wait=Running&timeout=50").json()
        assert found["status"]["state"] == "Running", found
        return sandbox_id

    def snapshot(self, sandbox_id: str) -> str:
        """The id of a snapshot, once it is Ready."""
        answer = self.http.post(f"/sandboxes/{sandbox_id}/snapshots", json={"name": "kept"})
        assert answer.status_code == 202, answer.text
        snapshot_id: str = answer.json()["id"]
        deadline = time.monotonic() + 60
        while (state := self.http.get(f"/snapshots/{snapshot_id}").json()["status"]["state"]) == "Creating":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert state == "Ready"
        return snapshot_id

    def delete_snapshot(self, snapshot_id: str) -> httpx.Response:
        return self.http.delete(f"/snapshots/{snapshot_id}")


@pytest.fixture
def server(docker_server: Callable[..., ServerProcess]) -> ServerProcess:
    return docker_server()


@pytest.fixture
def api(server: ServerProcess, bench: Bench) -> Iterator[Api]:
    made = Api(server, bench)
    with made.http:
        yield made


def test_what_was_written_is_there_again_and_nothing_else_of_the_source(api: Api, bench: Bench) -> None:
    write = ["sh", "-c", "echo kept >/kept; exec sleep 600"]
    source = api.create(image={"uri": IMAGE}, entrypoint=write, metadata={"of": "source"}, env={"MINE": "1"})
    time.sleep(0.5)
    snapshot_id = api.snapshot(source)
    assert api.http.get(f"/sandboxes/{source}").json()["status"]["state"] == "Running"
    restored = api.create(snapshotId=snapshot_id, entrypoint=["sh", "-c", "cat /kept; exec sleep 600"])
    shown = api.http.get(f"/sandboxes/{restored}").json()
    assert shown["snapshotId"] == snapshot_id
    assert "metadata" not in shown
    deadline = time.monotonic() + 20
    while "kept" not in api.http.get(f"/sandboxes/{restored}/diagnostics/logs").text:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    found = {key: value for key, value in bench.container(restored).labels.items() if value}
    assert found["opensandbox.io/id"] == restored
    assert found["opensandbox.io/snapshot-id"] == snapshot_id
    assert "of" not in found
    env = bench.container(restored).attrs["Config"]["Env"]
    assert f"OPENSANDBOX_ID={restored}" in env
    assert "MINE=1" in env
    for sandbox_id in (source, restored):
        assert api.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    assert api.delete_snapshot(snapshot_id).status_code == 204
    assert api.http.get(f"/snapshots/{snapshot_id}").status_code == 404
    assert not bench.client.images.list(name=f"opensandbox-snapshots:{snapshot_id}")


def test_one_that_is_in_use_is_kept_and_stays_usable(api: Api) -> None:
    source = api.create(image={"uri": IMAGE})
    snapshot_id = api.snapshot(source)
    restored = api.create(snapshotId=snapshot_id)
    refused = api.delete_snapshot(snapshot_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "SNAPSHOT::DELETE_CONFLICT")
    assert api.http.get(f"/snapshots/{snapshot_id}").json()["status"]["state"] == "Ready"
    again = api.create(snapshotId=snapshot_id)
    for sandbox_id in (source, restored, again):
        assert api.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    assert api.delete_snapshot(snapshot_id).status_code == 204


def test_a_paused_source_is_refused(api: Api) -> None:
    source = api.create(image={"uri": IMAGE})
    assert api.http.post(f"/sandboxes/{source}/pause").status_code == 202
    refused = api.http.post(f"/sandboxes/{source}/snapshots", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "SNAPSHOT::INVALID_SOURCE_STATE")


def test_a_killed_server_ends_its_snapshots_definitely(api: Api, server: ServerProcess, bench: Bench) -> None:
    source = api.create(image={"uri": IMAGE})
    made = [api.http.post(f"/sandboxes/{source}/snapshots", json={}).json()["id"] for _ in range(3)]
    server.kill()
    server.start()
    deadline = time.monotonic() + 60
    for snapshot_id in made:
        while (state := api.http.get(f"/snapshots/{snapshot_id}").json()["status"]["state"]) == "Creating":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert state == "Ready"
        assert bench.client.images.list(name=f"opensandbox-snapshots:{snapshot_id}")
        assert api.delete_snapshot(snapshot_id).status_code == 204
