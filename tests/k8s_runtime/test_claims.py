"""Claims of sandboxes on a real cluster: made, shared, kept from other sandboxes, and removed where that is wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.k8s_runtime.relay import Relay, of_kubeconfig
from tests.k8s_runtime.test_providers import new_plan, runtime_for
from tests.support.waiting import until

from shoal.errors import Conflict, InvalidRequest
from shoal.models.requests import ClaimVolume, ImageAuth, Volume
from shoal.models.secret import Secret
from shoal.models.workload import Phase
from shoal.plugin.interfaces import LogQuery
from shoal_k8s.api import KubeClient, Resource
from shoal_k8s.pods.objects import CLAIMS
from shoal_k8s.runtime import KubernetesRuntime

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]

VOLUMES = Resource("", "v1", "persistentvolumes")


@pytest.fixture
async def runtime(namespace: str) -> AsyncIterator[KubernetesRuntime]:
    runtime = runtime_for(namespace, "pod")
    await runtime.start()
    try:
        yield runtime
    finally:
        for workload in await runtime.list():
            await runtime.delete(workload.id)
        await runtime.stop()


@pytest.fixture
async def disk(client: KubeClient, namespace: str, tmp_path: Path) -> AsyncIterator[str]:
    """The storage class of one directory of the node."""
    name = f"disk-{namespace}"
    spec = {
        "storageClassName": name,
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": f"/tmp/{name}", "type": "DirectoryOrCreate"},
    }
    await client.create(VOLUMES, None, {"metadata": {"name": name}, "spec": spec}, msgspec.Raw)
    try:
        yield name
    finally:
        await client.delete(VOLUMES, None, name)


def mounted(claim: str, path: str = "/data", name: str = "data", **changes: Any) -> Volume:
    return Volume(name=name, mount_path=path, pvc=ClaimVolume(claim_name=claim, **changes))


async def claims(client: KubeClient, namespace: str) -> dict[str, dict[str, Any]]:
    found = await client.list(CLAIMS, namespace, dict[str, Any])
    return {each["metadata"]["name"]: each for each in found["items"] if "deletionTimestamp" not in each["metadata"]}


async def test_what_one_sandbox_writes_another_reads(
    runtime: KubernetesRuntime, client: KubeClient, namespace: str, disk: str
) -> None:
    volume = mounted("shared", storage_class=disk)
    writer = new_plan(command=["sh", "-c", "echo kept >/data/left; sleep 600"], volumes=[volume])
    assert (await runtime.create(writer, lambda reason, message: None)).phase is Phase.RUNNING
    made = (await claims(client, namespace))["shared"]
    assert made["spec"]["resources"]["requests"] == {"storage": "1Gi"}
    assert made["metadata"]["annotations"]["opensandbox.io/created-for"] == writer.id
    assert "labels" not in made["metadata"]
    reader = new_plan(command=["sh", "-c", "cat /data/left; sleep 600"], volumes=[volume])
    await runtime.create(reader, lambda reason, message: None)
    assert "kept" in await runtime.logs(reader.id, LogQuery())
    for plan in (writer, reader):
        await runtime.delete(plan.id)
    assert "shared" in await claims(client, namespace)


async def test_claims_that_go_with_their_sandbox(
    runtime: KubernetesRuntime, client: KubeClient, namespace: str
) -> None:
    wanted = [
        mounted(f"own-{number}", f"/d{number}", f"d{number}", delete_on_sandbox_termination=True) for number in range(3)
    ]
    plan = new_plan(volumes=[*wanted, mounted("absent", "/x", "x", create_if_not_exists=False)])
    assert runtime.truth is not None
    await runtime.truth.accept(plan)
    made = await claims(client, namespace)
    assert set(made) == {"own-0", "own-1", "own-2"}
    for claim in made.values():
        assert claim["metadata"]["ownerReferences"][0]["name"] == plan.id
    other = new_plan(volumes=[mounted("own-1")])
    with pytest.raises(Conflict, match="another sandbox"):
        await runtime.truth.accept(other)
    await until(lambda: _said(runtime, plan.id, "absent"))
    await runtime.delete(plan.id)
    assert await claims(client, namespace) == {}


def _said(runtime: KubernetesRuntime, sandbox_id: str, word: str) -> bool:
    found = runtime._provider.find(sandbox_id)
    return found is not None and word in (found.message or "")


async def test_a_claim_that_the_cluster_refuses_is_the_callers(runtime: KubernetesRuntime) -> None:
    assert runtime.truth is not None
    with pytest.raises(InvalidRequest, match="'odd' is refused"):
        await runtime.truth.accept(new_plan(volumes=[mounted("odd", access_modes=["Sometimes"])]))


async def test_a_removal_asks_for_nothing_that_was_never_made(
    client: KubeClient, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Relay(of_kubeconfig()) as relay:
        monkeypatch.setenv("KUBECONFIG", str(relay.kubeconfig(tmp_path)))
        runtime = runtime_for(namespace, "pod")
        await runtime.start()
        try:
            for auth in (None, ImageAuth(username="u", password=Secret("p"))):
                plan = new_plan(image_auth=auth, command=["sleep", "600"])
                await runtime.create(plan, lambda reason, message: None)
                before = len(relay.requests)
                await runtime.delete(plan.id)
                asked = [line.split("?")[0] for line in relay.requests[before:]]
                assert not any("persistentvolumeclaims" in line for line in asked), asked
                assert any("secrets" in line for line in asked) is (auth is not None), asked
        finally:
            await runtime.stop()
