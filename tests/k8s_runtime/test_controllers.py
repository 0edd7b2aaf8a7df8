"""What the stand-ins of the controllers keep to, asserted of them and, where they are at hand, of the real ones."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec
import pytest
from tests.k8s_runtime.agent_controller import AgentController
from tests.k8s_runtime.cluster import fresh_namespace, real_controllers
from tests.k8s_runtime.controllers import AGENT, BATCH, KINDS, POOL, SNAPSHOT, Object
from tests.k8s_runtime.pool_controller import PoolController, install_pools
from tests.k8s_runtime.snapshot_controller import SnapshotController

from shoal_k8s.api import KubeApiError, KubeClient, Resource
from shoal_k8s.api.connection import ApiConnection
from shoal_k8s.pods.objects import PODS

pytestmark = pytest.mark.timeout(400)

REAL = pytest.param("real", marks=pytest.mark.needs("real", parts=["controllers"]))
STAND_IN = pytest.param("stand-in", marks=[pytest.mark.needs("k8s"), pytest.mark.needs("docker")])
IMAGE = "shoal-test/busybox:latest"
ENDPOINTS = "sandbox.opensandbox.io/endpoints"
ALLOCATED = "sandbox.opensandbox.io/alloc-status"
SLEEP = ["sleep", "600"]


class Place:
    """A namespace in which controllers act; what is made here is removed in the end."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.made: list[tuple[Resource, str]] = []

    async def make(self, resource: Resource, spec: Object) -> str:
        name = f"t-{uuid.uuid4().hex[:12]}"
        body = {
            "apiVersion": f"{resource.group}/{resource.version}",
            "kind": KINDS[resource][0],
            "metadata": {"name": name},
            "spec": spec,
        }
        await self.client.create(resource, self.namespace, body, msgspec.Raw)
        self.made.append((resource, name))
        return name

    async def patch(self, resource: Resource, name: str, spec: Object) -> None:
        await self.client.patch(resource, self.namespace, name, {"spec": spec}, msgspec.Raw)

    async def find(self, resource: Resource, name: str) -> Object | None:
        try:
            return await self.client.get(resource, self.namespace, name, Object)
        except KubeApiError as error:
            if not error.not_found:
                raise
            return None

    async def until(self, resource: Resource, name: str, holds: Callable[[Object], bool]) -> Object:
        """The object once that is true of it; the bound only turns a hang into a failure."""
        async with asyncio.timeout(240):
            while True:
                thing = await self.find(resource, name)
                if thing is not None and holds(thing):
                    return thing
                await asyncio.sleep(0.05)

    async def clear(self) -> None:
        for resource, name in self.made:
            with suppress(KubeApiError):
                await self.client.delete(resource, self.namespace, name)
        for pod in (await self.client.list(PODS, self.namespace, Object))["items"]:
            with suppress(KubeApiError):
                await self.client.delete(PODS, self.namespace, pod["metadata"]["name"])


@pytest.fixture(params=[STAND_IN, REAL])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        if request.param == "real":
            client, namespace = await stack.enter_async_context(real_controllers())
        else:
            client = KubeClient(ApiConnection(os.environ["KUBECONFIG"]))
            stack.callback(client.close)
            namespace = await stack.enter_async_context(fresh_namespace(client))
            await install_pools(client)
            for stand_in in (
                PoolController(client, namespace, newer=False),
                AgentController(client, namespace),
                SnapshotController(client, namespace),
            ):
                await stack.enter_async_context(stand_in.running())
        place = Place(client, namespace)
        yield place
        await place.clear()


def template(command: list[str] = SLEEP, image: str = IMAGE, **spec: Any) -> Object:
    container = {"name": "sandbox", "image": image, "imagePullPolicy": "IfNotPresent", "command": command}
    return {"metadata": {"labels": {"t": "t"}}, "spec": {"containers": [container], **spec}}


def phase(thing: Object) -> str | None:
    found: str | None = thing.get("status", {}).get("phase")
    return found


def conditions(thing: Object) -> dict[str, Object]:
    return {each["type"]: each for each in thing.get("status", {}).get("conditions", [])}


def addresses(thing: Object) -> list[str]:
    found: list[str] = json.loads(thing["metadata"].get("annotations", {}).get(ENDPOINTS, "[]"))
    return [address for address in found if address]


async def test_a_pod_is_as_its_template_says(place: Place) -> None:
    name = await place.make(BATCH, {"replicas": 1, "template": template()})
    await place.until(BATCH, name, lambda thing: phase(thing) == "Succeed")
    agent = await place.make(AGENT, {"operatingMode": "Running", "podTemplate": {"spec": template()["spec"]}})
    await place.until(AGENT, agent, lambda thing: conditions(thing).get("Ready", {}).get("status") == "True")
    for pod_name in (f"{name}-0", agent):
        pod = await place.find(PODS, pod_name)
        assert pod is not None
        assert (pod["spec"]["restartPolicy"], pod["spec"]["terminationGracePeriodSeconds"]) == ("Always", 30)


async def test_the_pod_of_a_removed_object_takes_its_own_grace_period(place: Place) -> None:
    name = await place.make(BATCH, {"replicas": 1, "template": template()})
    await place.until(BATCH, name, lambda thing: phase(thing) == "Succeed")
    await place.client.delete(BATCH, place.namespace, name)
    pod = await place.until(PODS, f"{name}-0", lambda pod: "deletionTimestamp" in pod["metadata"])
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 30


async def test_a_paused_batchsandbox_keeps_its_address_and_a_resume_waits_for_the_old_pod(place: Place) -> None:
    name = await place.make(BATCH, {"replicas": 1, "template": template()})
    await place.until(BATCH, name, lambda thing: phase(thing) == "Succeed")
    before = await place.find(PODS, f"{name}-0")
    await place.patch(BATCH, name, {"pause": True})
    paused = await place.until(BATCH, name, lambda thing: phase(thing) == "Paused")
    assert paused["status"]["pauseObservedGeneration"] == paused["metadata"]["generation"]
    old = await place.find(PODS, f"{name}-0")
    assert before is not None
    assert old is not None
    assert "deletionTimestamp" in old["metadata"]
    assert addresses(paused) == [old["status"]["podIP"]]
    await place.patch(BATCH, name, {"pause": False})
    resuming = await place.until(BATCH, name, lambda thing: phase(thing) == "Resuming")
    assert resuming["status"]["phase"] == "Resuming"
    assert (await place.find(PODS, f"{name}-0") or old)["metadata"]["uid"] == before["metadata"]["uid"]
    await place.client.delete(PODS, place.namespace, f"{name}-0")
    await place.until(BATCH, name, lambda thing: phase(thing) == "Succeed")
    now = await place.find(PODS, f"{name}-0")
    assert now is not None
    assert now["metadata"]["uid"] != before["metadata"]["uid"]


async def test_an_agent_sandbox_is_suspended_once_its_pod_is_gone(place: Place) -> None:
    name = await place.make(AGENT, {"operatingMode": "Running", "podTemplate": {"spec": template()["spec"]}})
    await place.until(AGENT, name, lambda thing: conditions(thing).get("Ready", {}).get("status") == "True")
    await place.patch(AGENT, name, {"operatingMode": "Suspended"})
    going = await place.until(AGENT, name, lambda thing: conditions(thing)["Suspended"]["reason"] == "PodTerminating")
    assert conditions(going)["Suspended"]["status"] == "False"
    await place.client.delete(PODS, place.namespace, name)
    gone = await place.until(AGENT, name, lambda thing: conditions(thing)["Suspended"]["status"] == "True")
    assert conditions(gone)["Suspended"]["observedGeneration"] == gone["metadata"]["generation"]
    assert not gone["status"].get("podIPs")
    await place.patch(AGENT, name, {"operatingMode": "Running"})
    back = await place.until(AGENT, name, lambda thing: conditions(thing)["Ready"]["status"] == "True")
    assert conditions(back)["Suspended"]["reason"] == "NotSuspended"


async def test_what_ended_is_left_where_its_policy_says_so(place: Place) -> None:
    once = template(["true"], restartPolicy="Never")
    agent = await place.make(AGENT, {"operatingMode": "Running", "podTemplate": {"spec": once["spec"]}})
    ready = await place.until(AGENT, agent, lambda thing: conditions(thing).get("Ready", {}).get("reason") == DONE)
    assert conditions(ready)["Ready"]["status"] == "False"
    name = await place.make(BATCH, {"replicas": 1, "template": once})
    pod = await place.until(PODS, f"{name}-0", lambda pod: phase(pod) == "Succeeded")
    thing = await place.until(BATCH, name, lambda thing: phase(thing) == "Pending")
    assert (await place.find(PODS, f"{name}-0") or {})["metadata"]["uid"] == pod["metadata"]["uid"]
    assert conditions(thing).get("PodFailed") is None


DONE = "PodSucceeded"


async def test_a_bad_image_is_told_in_one_word(place: Place) -> None:
    name = await place.make(BATCH, {"replicas": 1, "template": template(image="127.0.0.1:1/no/such:image")})
    thing = await place.until(BATCH, name, lambda thing: phase(thing) == "Failed")
    assert "1/1 observed pods failed; primary reason=" in conditions(thing)["PodFailed"]["message"]


async def test_an_empty_pool_is_told_by_nothing_and_an_allocation_names_no_pool(place: Place) -> None:
    spec = {"capacitySpec": {"bufferMax": 1, "bufferMin": 1, "poolMax": 1, "poolMin": 1}, "template": template()}
    pool = await place.make(POOL, spec)
    await place.until(POOL, pool, lambda thing: thing.get("status", {}).get("available", 0) == 1)
    first = await place.make(BATCH, {"replicas": 1, "poolRef": pool})
    held = await place.until(BATCH, first, lambda thing: ALLOCATED in thing["metadata"].get("annotations", {}))
    assert list(json.loads(held["metadata"]["annotations"][ALLOCATED])) == ["pods"]
    second = await place.make(BATCH, {"replicas": 1, "poolRef": pool})
    await place.until(POOL, pool, lambda thing: thing["status"]["available"] == 0)
    waits = await place.find(BATCH, second)
    assert waits is not None
    assert ALLOCATED not in waits["metadata"].get("annotations", {})
    assert "PoolAllocationPending" not in conditions(waits)


async def test_the_digest_of_a_snapshot_is_no_name_of_its_image(place: Place) -> None:
    name = await place.make(BATCH, {"replicas": 1, "template": template()})
    await place.until(BATCH, name, lambda thing: phase(thing) == "Succeed")
    snapshot = await place.make(SNAPSHOT, {"sandboxName": name})
    made = await place.until(SNAPSHOT, snapshot, lambda thing: phase(thing) in ("Succeed", "Failed"))
    assert phase(made) == "Succeed", made
    (container,) = made["status"]["containers"]
    assert container["imageDigest"].startswith("sha256:")
    for reference, works in (
        (container["imageUri"], True),
        (f"{container['imageUri'].rpartition(':')[0]}@{container['imageDigest']}", False),
    ):
        from_it = template(image=reference)
        pod = await place.make(BATCH, {"replicas": 1, "template": from_it})
        thing = await place.until(BATCH, pod, lambda thing: phase(thing) in ("Succeed", "Failed"))
        assert (phase(thing) == "Succeed") is works
