"""Snapshots that a controller makes: taken, restored and removed, by the runtime and by a server, on a real cluster."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.k8s_runtime.batch_controller import BatchController
from tests.k8s_runtime.controllers import BATCH, SNAPSHOT, install
from tests.k8s_runtime.snapshot_controller import SnapshotController
from tests.k8s_runtime.test_providers import new_plan, runtime_for
from tests.k8s_runtime.threads import Runs, in_thread
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually, until

from shoal.errors import Conflict, EngineFailure
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal.models.workload import Phase
from shoal.plugin.interfaces import LogQuery, SnapshotRecord
from shoal_k8s.api import KubeClient, Meta, Resource
from shoal_k8s.pods.defaults import PodDefaults
from shoal_k8s.pods.objects import RUNTIME_CLASSES, Condition, Pod, PodSpec, PodStatus
from shoal_k8s.pods.spec import pod_spec
from shoal_k8s.runtime import KubernetesRuntime
from shoal_k8s.snapshots import preflight
from shoal_k8s.snapshots.objects import (
    CapturedContainer,
    SnapshotObject,
    SnapshotObjectStatus,
    image_of,
    object_name,
    restorable,
)

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.needs("docker"), pytest.mark.timeout(300)]

WRITE = ["sh", "-c", "echo kept >/left; touch /ready; sleep 600"]
READ = ["sh", "-c", "cat /left; sleep 600"]


@pytest.fixture
async def snapshots(client: KubeClient, namespace: str) -> AsyncIterator[SnapshotController]:
    async with (
        BatchController(client, namespace).running(),
        SnapshotController(client, namespace).running() as controller,
    ):
        yield controller


@pytest.fixture
async def runtime(snapshots: SnapshotController, namespace: str) -> AsyncIterator[KubernetesRuntime]:
    runtime = runtime_for(namespace, "batchsandbox")
    await runtime.start()
    try:
        assert runtime.capabilities.snapshots
        yield runtime
    finally:
        for workload in await runtime.list():
            await runtime.delete(workload.id)
        await runtime.stop()


async def made(runtime: KubernetesRuntime, **changes: Any) -> WorkloadPlan:
    plan = new_plan(**changes)
    await runtime.create(plan, lambda reason, message: None)
    return plan


async def objects(client: KubeClient, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.list(SNAPSHOT, namespace, dict[str, Any]))["items"]
    return found


async def test_what_was_captured_is_restored(runtime: KubernetesRuntime, client: KubeClient, namespace: str) -> None:
    beside = Sidecar(name="beside", image="shoal-test/busybox:latest", command=["sleep", "600"])
    source = await made(runtime, command=WRITE, sidecars=[beside])
    await runtime.check_snapshot(source.id)
    snapshot_id = str(uuid.uuid4())
    image = await runtime.snapshot(source.id, snapshot_id)
    assert image == f"shoal-test/{source.id}-sandbox:snap"
    (held,) = await objects(client, namespace)
    assert held["metadata"]["name"] == f"osb-snap-{uuid.UUID(snapshot_id).hex}"
    assert held["metadata"]["labels"] == {
        "opensandbox.io/snapshot-id": snapshot_id,
        "opensandbox.io/snapshot-scope": "public",
        "opensandbox.io/source-sandbox-id": source.id,
    }
    assert "ownerReferences" not in held["metadata"]
    assert held["spec"] == {"sandboxName": source.id}
    assert await runtime.snapshot(source.id, snapshot_id) == image  # as after a crash
    await runtime.delete(source.id)
    restored = await made(runtime, image=None, snapshot_id=snapshot_id, snapshot_image=image, command=READ)
    assert "kept" in await runtime.logs(restored.id, LogQuery())
    await runtime.delete_snapshot(snapshot_id, image)
    await runtime.delete_snapshot(snapshot_id, image)
    assert await objects(client, namespace) == []


async def test_a_capture_that_fails_is_told_until_it_is_deleted(
    runtime: KubernetesRuntime, snapshots: SnapshotController, client: KubeClient, namespace: str
) -> None:
    source = await made(runtime)
    snapshots.failing = "the registry is full"
    snapshot_id = str(uuid.uuid4())
    with pytest.raises(EngineFailure, match="CommitFailed: the registry is full"):
        await runtime.snapshot(source.id, snapshot_id)
    assert runtime.catalogue is not None
    (row,) = runtime.catalogue.all()
    assert (row.id, row.sandbox_id, row.state, row.reason, row.image) == (
        snapshot_id,
        source.id,
        "Failed",
        "snapshot_runtime_failed",
        None,
    )
    assert row.message == "CommitFailed: the registry is full"
    await runtime.delete_snapshot(snapshot_id, "")
    assert runtime.catalogue.all() == []
    assert await objects(client, namespace) == []


async def test_one_that_nobody_makes_fails_in_the_end(
    runtime: KubernetesRuntime, snapshots: SnapshotController, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await made(runtime)
    snapshots.holding = True
    row = new_row(source.id)
    assert runtime.catalogue is not None
    await runtime.catalogue.accept(row)
    found = runtime.catalogue.get(row.id)
    assert found is not None
    assert (found.state, found.name, found.created_at) == ("Creating", "a name", row.created_at)
    monkeypatch.setattr("shoal_k8s.snapshots.catalogue.CAPTURE_SECONDS", 0.0)
    found = runtime.catalogue.get(row.id)
    assert found is not None
    assert (found.state, found.message) == ("Failed", "The controller did not make the snapshot within 900 s.")


def new_row(sandbox_id: str) -> SnapshotRecord:
    now = datetime.now(UTC)
    return SnapshotRecord(
        id=str(uuid.uuid4()),
        sandbox_id=sandbox_id,
        runtime="kubernetes",
        state="Creating",
        created_at=now,
        updated_at=now,
        name="a name",
    )


async def test_a_capture_whose_object_is_removed_ends(
    runtime: KubernetesRuntime, snapshots: SnapshotController, client: KubeClient, namespace: str
) -> None:
    source = await made(runtime)
    snapshots.holding = True
    snapshot_id = str(uuid.uuid4())
    capture = asyncio.create_task(runtime.snapshot(source.id, snapshot_id))
    name = object_name(snapshot_id)
    await until(lambda: name in snapshots.seen)
    await client.delete(SNAPSHOT, namespace, name)
    with pytest.raises(EngineFailure, match="removed"):
        await capture


async def test_another_sandboxs_snapshot_of_that_name_is_left_alone(
    runtime: KubernetesRuntime, client: KubeClient, namespace: str
) -> None:
    source = await made(runtime)
    snapshot_id = str(uuid.uuid4())
    foreign = {
        "apiVersion": "sandbox.opensandbox.io/v1alpha1",
        "kind": "SandboxSnapshot",
        "metadata": {"name": object_name(snapshot_id)},
        "spec": {"sandboxName": "somebody-else"},
    }
    await client.create(SNAPSHOT, namespace, foreign, msgspec.Raw)
    with pytest.raises(EngineFailure) as refused:
        await runtime.snapshot(source.id, snapshot_id)
    assert refused.value.code == "SNAPSHOT::RUNTIME_CREATE_FAILED"
    assert [each["spec"]["sandboxName"] for each in await objects(client, namespace)] == ["somebody-else"]


async def test_preflight(runtime: KubernetesRuntime, client: KubeClient) -> None:
    source = await made(runtime)
    await runtime.pause(source.id)
    await until(lambda: [each.phase for each in runtime._provider.all()] == [Phase.PAUSED])
    with pytest.raises(Conflict) as refused:
        await runtime.check_snapshot(source.id)
    assert refused.value.code == "SNAPSHOT::RUNTIME_PREFLIGHT_FAILED"
    name = f"shoal-test-{uuid.uuid4().hex[:8]}"
    await client.create(RUNTIME_CLASSES, None, {"metadata": {"name": name}, "handler": "runsc-debug"}, msgspec.Raw)
    pod = Pod(metadata=Meta(), spec=PodSpec(runtime_class_name=name), status=PodStatus(phase="Running"))
    try:
        with pytest.raises(Conflict) as unsupported:
            await preflight.check(client, pod)
        assert unsupported.value.code == "SNAPSHOT::UNSUPPORTED_RUNTIME"
    finally:
        await client.delete(RUNTIME_CLASSES, None, name)
    with pytest.raises(Conflict) as unreadable:
        await preflight.check(client, pod)
    assert unreadable.value.code == "SNAPSHOT::RUNTIME_PREFLIGHT_FAILED"


@pytest.mark.parametrize("provider", ["agent-sandbox", "pod"])
async def test_providers_without_snapshots_declare_none(provider: str, client: KubeClient, namespace: str) -> None:
    await install(client, Resource("agents.x-k8s.io", "v1beta1", "sandboxes"))
    runtime = runtime_for(namespace, provider)
    await runtime.start()
    assert not runtime.capabilities.snapshots
    await runtime.stop()


async def test_an_object_under_the_name_of_an_older_server_is_captured_too(
    runtime: KubernetesRuntime, client: KubeClient, namespace: str
) -> None:
    plan = new_plan()
    name = f"sandbox-{plan.id}"
    pod = {"metadata": {"labels": {"opensandbox.io/id": plan.id}}, "spec": pod_spec(plan, PodDefaults())}
    legacy = {
        "apiVersion": "sandbox.opensandbox.io/v1alpha1",
        "kind": "BatchSandbox",
        "metadata": {"name": name, "labels": {"opensandbox.io/id": plan.id}},
        "spec": {"replicas": 1, "template": pod},
    }
    seen = runtime.watch()
    await client.create(BATCH, namespace, legacy, msgspec.Raw)
    await asyncio.wait_for(anext(seen), 60)
    assert (await runtime.create(plan, lambda reason, message: None)).phase is Phase.RUNNING
    await runtime.check_snapshot(plan.id)
    snapshot_id = str(uuid.uuid4())
    assert await runtime.snapshot(plan.id, snapshot_id) == f"shoal-test/{name}-sandbox:snap"
    assert (await objects(client, namespace))[0]["spec"] == {"sandboxName": name}


def test_through_a_whole_server(tmp_path: Path, namespace: str) -> None:
    """Taken, restored, and refused once the source has no pod."""

    def controllers(client: KubeClient) -> list[Runs]:
        return [BatchController(client, namespace), SnapshotController(client, namespace)]

    kubernetes = f'[kubernetes]\nkubeconfig_path = "{os.environ["KUBECONFIG"]}"\nnamespace = "{namespace}"\n'
    server = ServerProcess(tmp_path, f'[runtime]\ntype = "kubernetes"\n{kubernetes}')
    with in_thread(controllers):
        server.start()
        try:
            with httpx.Client(base_url=server.base + "/v1", timeout=60) as api:
                _through(api)
        finally:
            server.stop()


def test_through_two_servers(tmp_path: Path, namespace: str) -> None:
    """Any of them lists, tells, restores from and deletes what another one took; a restart changes nothing."""
    kubernetes = f'[kubernetes]\nkubeconfig_path = "{os.environ["KUBECONFIG"]}"\nnamespace = "{namespace}"\n'

    def controllers(client: KubeClient) -> list[Runs]:
        return [BatchController(client, namespace), SnapshotController(client, namespace)]

    servers = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        servers.append(ServerProcess(tmp_path / name, f'[runtime]\ntype = "kubernetes"\n{kubernetes}'))
    with in_thread(controllers):
        for server in servers:
            server.start()
        try:
            _shared(servers)
        finally:
            for server in servers:
                server.stop()


def _shared(servers: list[ServerProcess]) -> None:
    one, other = (httpx.Client(base_url=server.base + "/v1", timeout=60) for server in servers)
    with one, other:
        body = {"image": {"uri": "shoal-test/busybox:latest"}, "entrypoint": WRITE, "resourceLimits": {}}
        source = _running(one, body)
        taken = one.post(f"/sandboxes/{source}/snapshots", json={"name": "first"}).json()
        path = f"/snapshots/{taken['id']}"
        eventually(lambda: other.get(path).json().get("status", {}).get("state") == "Ready")
        eventually(lambda: one.get(path).json()["status"]["state"] == "Ready")
        shown = other.get(path).json()
        assert shown == one.get(path).json()
        assert (shown["name"], shown["createdAt"], shown["sandboxId"]) == ("first", taken["createdAt"], source)
        assert other.get("/snapshots", params={"name": "first"}).json()["items"] == [shown]
        restored = _running(other, {"snapshotId": taken["id"], "entrypoint": READ, "resourceLimits": {}})
        assert "kept" in other.get(f"/sandboxes/{restored}/diagnostics/logs").text
        servers[0].kill()
        servers[0].start()
        assert one.get(path).json() == shown
        for sandbox in (source, restored):
            assert other.delete(f"/sandboxes/{sandbox}").status_code == 204
        assert other.delete(path).status_code == 204
        assert other.get(path).status_code == 404
        eventually(lambda: one.get(path).status_code == 404)
        assert one.get("/snapshots").json()["items"] == []


def test_a_sandbox_that_is_deleted_while_it_is_captured_waits_for_that(tmp_path: Path, namespace: str) -> None:
    def controllers(client: KubeClient) -> list[Runs]:
        return [BatchController(client, namespace), SnapshotController(client, namespace)]

    kubernetes = f'[kubernetes]\nkubeconfig_path = "{os.environ["KUBECONFIG"]}"\nnamespace = "{namespace}"\n'
    server = ServerProcess(tmp_path, f'[runtime]\ntype = "kubernetes"\n{kubernetes}')
    with in_thread(controllers):
        server.start()
        try:
            with httpx.Client(base_url=server.base + "/v1", timeout=60) as api:
                body = {"image": {"uri": "shoal-test/busybox:latest"}, "entrypoint": WRITE, "resourceLimits": {}}
                source = _running(api, body)
                taken = api.post(f"/sandboxes/{source}/snapshots").json()
                assert api.patch(f"/sandboxes/{source}/metadata", json={"a": "b"}).status_code == 200
                assert api.delete(f"/sandboxes/{source}").status_code == 204
                state = api.get(f"/snapshots/{taken['id']}").json()["status"]
                assert state["state"] == "Ready", state
                assert api.delete(f"/snapshots/{taken['id']}").status_code == 204
        finally:
            server.stop()


def _through(api: httpx.Client) -> None:
    body = {"image": {"uri": "shoal-test/busybox:latest"}, "entrypoint": WRITE, "resourceLimits": {}}
    source = _running(api, body)
    taken = api.post(f"/sandboxes/{source}/snapshots", json={"name": "first"})
    assert (taken.status_code, taken.json()["status"]["reason"]) == (202, "snapshot_accepted")
    path = f"/snapshots/{taken.json()['id']}"
    deadline = time.monotonic() + 60
    while (state := api.get(path).json()["status"]["state"]) == "Creating":
        assert time.monotonic() < deadline, "the snapshot is not made"
        time.sleep(0.1)
    assert state == "Ready"
    restored = _running(api, {"snapshotId": taken.json()["id"], "entrypoint": READ, "resourceLimits": {}})
    assert "kept" in api.get(f"/sandboxes/{restored}/diagnostics/logs").text
    shown = api.get(f"/sandboxes/{restored}").json()
    assert (shown["snapshotId"], "image" in shown) == (taken.json()["id"], False)
    for sandbox in (source, restored):
        assert api.delete(f"/sandboxes/{sandbox}").status_code == 204
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def _running(api: httpx.Client, body: dict[str, Any]) -> str:
    made = api.post("/sandboxes", json=body)
    assert made.status_code == 202, made.text
    sandbox_id: str = made.json()["id"]
    found = api.get(f"/sandboxes/{sandbox_id}", params={"wait": "Running", "timeout": 50}).json()
    assert found["status"]["state"] == "Running", found["status"]
    return sandbox_id


def status(phase: str = "Succeed", **changes: Any) -> SnapshotObject:
    return SnapshotObject(metadata=Meta(), status=SnapshotObjectStatus(phase=phase, **changes))


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("r:5000/s/x-sandbox:snap-1@sha256:" + "a" * 64, "r:5000/s/x-sandbox:snap-1"),
        ("r:5000/s/x-sandbox:snap-1", "r:5000/s/x-sandbox:snap-1"),
        ("r:5000/s/x@sha256:" + "a" * 64, "r:5000/s/x@sha256:" + "a" * 64),
    ],
)
def test_a_reference_by_a_digest_that_no_registry_serves_is_read_right(stored: str, read: str) -> None:
    assert restorable(stored) == read
    plan = new_plan(image=None, snapshot_image=stored, snapshot_id="s")
    assert pod_spec(plan, PodDefaults())["containers"][0]["image"] == read


def test_the_image_of_a_snapshot() -> None:
    one = CapturedContainer(container_name="a", image_uri="r/a:1")
    main = CapturedContainer(container_name="sandbox", image_uri="r/s:1")
    assert image_of(status("Committing")) is None
    assert image_of(status(containers=[one])) == "r/a:1"
    assert image_of(status(containers=[one, main], format="rootfs-v1")) == "r/s:1"
    failed = Condition(type="Failed", status="True", reason="RegistryNotConfigured")
    for broken, why in (
        (status(), "no image"),
        (status(containers=[one, CapturedContainer(container_name="b", image_uri="r/b:1")]), "several"),
        (status(containers=[main], format="qemu-v1"), "qemu-v1"),
        (status("Failed", conditions=[failed]), "RegistryNotConfigured"),
    ):
        with pytest.raises(EngineFailure, match=why):
            image_of(broken)


def test_an_id_that_is_no_uuid_has_a_name_too() -> None:
    assert object_name("not-a-uuid") == "osb-snap-" + hashlib.sha256(b"not-a-uuid").hexdigest()[:32]
