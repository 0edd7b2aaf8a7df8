"""What a real cluster refuses or cannot do, as callers are told: quotas, limit ranges, namespaces, nodes, images."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.k8s_runtime.agent_controller import AgentController
from tests.k8s_runtime.batch_controller import BatchController
from tests.k8s_runtime.controllers import AGENT, condition
from tests.k8s_runtime.servers import configuration, running
from tests.k8s_runtime.test_providers import new_plan, runtime_for
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

from shoal.errors import EngineFailure
from shoal_k8s.api import KubeClient, Resource
from shoal_k8s.pods.objects import EVENTS, PODS

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]

IMAGE = "shoal-test/busybox:latest"
QUOTAS, RANGES = Resource("", "v1", "resourcequotas"), Resource("", "v1", "limitranges")


@contextmanager
def serving(home: Path, namespace: str) -> Iterator[httpx.Client]:
    """Requests to a server that makes plain pods."""
    server = ServerProcess(home, configuration(namespace, more="sandbox_create_timeout_seconds = 20"))
    server.start()
    try:
        with httpx.Client(base_url=server.base + "/v1", timeout=60) as api:
            yield api
    finally:
        server.stop()


@pytest.fixture
def api(tmp_path: Path, namespace: str) -> Iterator[httpx.Client]:
    with serving(tmp_path, namespace) as api:
        yield api


def create(api: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"image": {"uri": IMAGE}, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600, **changes}
    return api.post("/sandboxes", json=body)


def failed(api: httpx.Client, **changes: Any) -> dict[str, Any]:
    """The status of a sandbox that does not come up."""
    made = create(api, **changes)
    assert made.status_code == 202, made.text
    path = f"/sandboxes/{made.json()['id']}"
    found: dict[str, Any] = api.get(path, params={"wait": "Running", "timeout": 50}).json()["status"]
    assert found["state"] == "Failed", found
    return found


async def test_a_quota_is_told_at_once_and_leaves_nothing(
    api: httpx.Client, client: KubeClient, namespace: str
) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    await client.create(QUOTAS, namespace, quota, msgspec.Raw)
    first = create(api)
    assert first.status_code == 202
    eventually(lambda: create(api).status_code == 403)  # the quota's controller counts in its own time
    refused = create(api)
    assert (refused.status_code, refused.json()["code"]) == (403, "KUBERNETES::QUOTA_EXCEEDED")
    assert "pods=1" in refused.json()["message"]
    eventually(lambda: [each["id"] for each in api.get("/sandboxes").json()["items"]] == [first.json()["id"]])


EGRESS = f'[egress]\nimage = "{IMAGE}"\n'


@pytest.fixture
def counting(namespace: str) -> dict[str, str]:
    """The limits of one sandbox, which is all that a quota of the namespace allows."""
    limits = {"cpu": "1", "memory": "256Mi"}
    hard = ",".join(f"{kind}.{key}={amount}" for key, amount in limits.items() for kind in ("limits", "requests"))
    _kubectl(namespace, "create", "quota", "q", f"--hard={hard}")
    eventually(lambda: bool(_kubectl(namespace, "get", "quota", "q", "--output=jsonpath={.status.used}")))
    return limits


def _kubectl(namespace: str, *words: str) -> str:
    done = subprocess.run(["kubectl", "--namespace", namespace, *words], capture_output=True, text=True, check=True)
    return done.stdout


async def test_what_a_pod_needs_besides_its_main_container_costs_no_quota(
    counting: dict[str, str], tmp_path: Path, client: KubeClient, namespace: str
) -> None:
    config = configuration(namespace, execd=True, extra=EGRESS)
    with running(tmp_path, config) as server, httpx.Client(base_url=server.base + "/v1", timeout=60) as api:
        made = create(api, resourceLimits=counting, networkPolicy={"defaultAction": "deny"})
        assert made.status_code == 202, made.text
        pod = await client.get(PODS, namespace, made.json()["id"], dict[str, Any])
        resources = {each["name"]: each["resources"] for each in pod["spec"]["containers"]}
        assert resources["sandbox"]["limits"] == counting
        assert resources["egress"]["limits"] == {"cpu": "0", "memory": "0"}
        assert pod["spec"]["initContainers"][0]["resources"] == resources["sandbox"]
        refused = create(api, resourceLimits=counting)
        assert (refused.status_code, refused.json()["code"]) == (403, "KUBERNETES::QUOTA_EXCEEDED")
        assert "exceeded quota: q" in refused.json()["message"]


def test_the_container_that_a_quota_lacks_something_of_is_named(counting: dict[str, str], api: httpx.Client) -> None:
    refused = create(api, resourceLimits={"cpu": "1"})
    assert (refused.status_code, refused.json()["code"]) == (403, "KUBERNETES::QUOTA_EXCEEDED")
    assert "failed quota: q: must specify limits.memory" in refused.json()["message"]
    assert "'sandbox' has no limits.memory" in refused.json()["message"]
    beside = {"name": "beside", "image": {"uri": IMAGE}}
    refused = create(api, resourceLimits={"cpu": "500m", "memory": "64Mi"}, sidecars=[beside])
    assert "'beside' has no limits.cpu, 'beside' has no limits.memory" in refused.json()["message"]


async def test_a_limit_range_and_an_invalid_amount_are_the_callers(
    api: httpx.Client, client: KubeClient, namespace: str
) -> None:
    limits = {"limits": [{"type": "Container", "max": {"cpu": "500m"}}]}
    await client.create(RANGES, namespace, {"metadata": {"name": "small"}, "spec": limits}, msgspec.Raw)
    refused = create(api, resourceLimits={"cpu": "1"})
    assert (refused.status_code, refused.json()["code"]) == (403, "KUBERNETES::API_ERROR")
    assert "maximum cpu usage per Container is 500m" in refused.json()["message"]
    unknown = create(api, resourceLimits={"cpu": "100m", "fpga": "1"})
    assert (unknown.status_code, unknown.json()["code"]) == (400, "SANDBOX::INVALID_PARAMETER")
    assert "fpga" in unknown.json()["message"]
    eventually(lambda: api.get("/sandboxes").json()["items"] == [])


def test_a_namespace_that_is_not_there(tmp_path: Path) -> None:
    with serving(tmp_path, "shoal-test-absent") as api:
        refused = create(api)
        assert (refused.status_code, refused.json()["code"]) == (400, "SANDBOX::INVALID_PARAMETER")
        assert "namespace" in refused.json()["message"]


async def test_a_platform_that_no_node_has_ends_the_create(api: httpx.Client, client: KubeClient) -> None:
    nodes = await client.list(Resource("", "v1", "nodes"), None, dict[str, Any])
    there = {node["metadata"]["labels"]["kubernetes.io/arch"] for node in nodes["items"]}
    other = next(arch for arch in ("arm64", "amd64") if arch not in there)
    status = failed(api, platform={"os": "linux", "arch": other})
    assert status["reason"] == "POD_PLATFORM_UNSCHEDULABLE"
    assert "didn't match" in status["message"]


def test_a_node_that_is_full_is_waited_for_and_then_told(api: httpx.Client) -> None:
    status = failed(api, resourceLimits={"cpu": "900"})
    assert status["reason"] == "POD_READY_TIMEOUT"
    assert "Insufficient cpu" in status["message"]


def test_which_image_of_which_container_cannot_be_pulled(api: httpx.Client) -> None:
    sidecar = {"name": "beside", "image": {"uri": "127.0.0.1:1/no/such:sidecar"}}
    status = failed(api, sidecars=[sidecar])
    assert status["reason"] in ("ErrImagePull", "ImagePullBackOff")
    assert "'beside'" in status["message"]


async def test_the_objects_own_events_are_shown_where_no_pod_ever_came(client: KubeClient, namespace: str) -> None:
    """As when the controller may not make pods: all that is known stands in the events of the object."""

    class Idle(BatchController):
        async def reconcile(self, thing: dict[str, Any], pod: dict[str, Any] | None) -> None:
            meta = thing["metadata"]
            about = {"kind": "BatchSandbox", "namespace": namespace, "name": meta["name"], "uid": meta["uid"]}
            words = f"pods are not for everybody, pod: {json.dumps(thing['spec'])}"  # as the real one puts it
            said = {"reason": "FailedCreate", "message": words[:1024], "type": "Warning"}
            event = {"metadata": {"name": f"{meta['name']}.1"}, "involvedObject": about, **said}
            await self.client.create(EVENTS, namespace, event, msgspec.Raw)

    async with Idle(client, namespace).running():
        runtime = runtime_for(namespace, "batchsandbox")
        await runtime.start()
        plan, shown = new_plan(env={"TOKEN": "hush-hush"}), []
        try:
            with pytest.raises(EngineFailure, match="not for everybody") as late:
                await runtime.create(plan, lambda reason, message: shown.append(reason))
            assert late.value.code == "KUBERNETES::POD_READY_TIMEOUT"
            assert "FailedCreate" in await runtime.events(plan.id, 10)
            assert "hush-hush" not in late.value.message + await runtime.events(plan.id, 10)
        finally:
            await runtime.delete(plan.id)
            await runtime.stop()
    assert shown == ["BATCHSANDBOX_PENDING"]


async def test_a_quota_that_only_the_controller_meets(client: KubeClient, namespace: str) -> None:
    class Refused(AgentController):
        async def reconcile(self, thing: dict[str, Any], pod: dict[str, Any] | None) -> None:
            said = condition("Ready", 'pods "x" is forbidden: failed quota: few: must specify limits.cpu', "False")
            await self.tell(thing, {"conditions": [{**said, "reason": "ReconcilerError"}]})

    async with Refused(client, namespace).running() as controller:
        assert controller.resource is AGENT
        runtime = runtime_for(namespace, "agent-sandbox")
        await runtime.start()
        plan = new_plan()
        try:
            with pytest.raises(EngineFailure, match="'sandbox' has no limits") as refused:
                await runtime.create(plan, lambda reason, message: None)
            assert refused.value.code == "KUBERNETES::QUOTA_EXCEEDED"
        finally:
            await runtime.delete(plan.id)
            await runtime.stop()


async def test_a_secret_is_in_no_message(api: httpx.Client, client: KubeClient, namespace: str) -> None:
    """Nor in what the pod shows of itself."""
    image = {"uri": IMAGE, "auth": {"username": "u", "password": "hush-hush"}}
    refused = create(api, image=image, resourceLimits={"fpga": "1"}, env={"TOKEN": "hush-hush"})
    assert refused.status_code == 400
    assert "hush-hush" not in refused.text
    eventually(lambda: api.get("/sandboxes").json()["items"] == [])
    found = await client.list(PODS, namespace, dict[str, Any])
    assert found["items"] == []
