"""The providers on custom resources, against real resources, real pods and a small controller for each."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.k8s_runtime.agent_controller import AgentController
from tests.k8s_runtime.batch_controller import BatchController
from tests.k8s_runtime.cluster import fresh_namespace, real_controllers
from tests.k8s_runtime.controllers import AGENT, BATCH, Controller
from tests.support import real

from shoal.config.settings import RuntimeSettings, Settings
from shoal.errors import Conflict, EngineFailure, NotFound, Unavailable
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase, Workload
from shoal.plugin.interfaces import Held
from shoal_k8s.api import ApiUnreachable, KubeClient, Resource
from shoal_k8s.api.connection import ApiConnection
from shoal_k8s.config import KubernetesRuntimeClassSettings, KubernetesSettings
from shoal_k8s.pods.objects import PODS
from shoal_k8s.providers.agent_sandbox import dns_1035
from shoal_k8s.providers.custom import CustomProvider
from shoal_k8s.runtime import KubernetesRuntime

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]


class Site:
    """A runtime, and the controller that makes its wishes true."""

    def __init__(self, runtime: KubernetesRuntime, controller: Controller, resource: Resource) -> None:
        self.runtime = runtime
        self.controller = controller
        self.resource = resource

    async def create(self, **changes: Any) -> WorkloadPlan:
        plan = new_plan(**changes)
        made = await self.runtime.create(plan, lambda reason, message: None)
        assert (made.phase, made.host is not None) == (Phase.RUNNING, True)
        return plan

    async def until(self, plan: WorkloadPlan, phase: Phase, message: str = "") -> Workload:
        """The workload once it says so; the bound only turns a hang into a failure."""
        async with asyncio.timeout(200):
            while True:
                (seen,) = [each for each in await self.runtime.list() if each.id == plan.id]
                if seen.phase is phase and message in (seen.message or ""):
                    return seen
                await asyncio.sleep(0.05)

    async def object(self, plan: WorkloadPlan) -> dict[str, Any]:
        name = plan.id if self.resource is BATCH else dns_1035(plan.id)
        client, namespace = self.controller.client, self.controller.namespace
        return await client.get(self.resource, namespace, name, dict[str, Any])


def new_plan(**changes: Any) -> WorkloadPlan:
    made: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "runtime": "kubernetes",
        "created_at": datetime.now(UTC),
        "command": ["sleep", "600"],
        "image": "shoal-test/busybox:latest",
        **changes,
    }
    return WorkloadPlan(**made)


def runtime_for(namespace: str, provider: str, **settings: Any) -> KubernetesRuntime:
    kubernetes = KubernetesSettings(
        kubeconfig_path=os.environ["KUBECONFIG"],
        namespace=namespace,
        workload_provider=provider,
        sandbox_create_timeout_seconds=30,
        **settings,
    )
    shared = Settings(runtime=RuntimeSettings(execd_image="shoal-test/execd:latest"))
    return KubernetesRuntime(shared, kubernetes, KubernetesRuntimeClassSettings())


KINDS = [
    *(pytest.param((provider, "stand-in"), id=provider) for provider in ("batchsandbox", "agent-sandbox")),
    *(
        pytest.param((provider, "real"), id=f"{provider}-real", marks=pytest.mark.needs("real", parts=["controllers"]))
        for provider in ("batchsandbox", "agent-sandbox")
    ),
]


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    provider, which = request.param
    kind = BatchController if provider == "batchsandbox" else AgentController
    async with AsyncExitStack() as stack:
        if which == "real":
            monkeypatch.setenv("KUBECONFIG", real.part("controllers"))
            controller = kind(*await stack.enter_async_context(real_controllers()))
        else:
            client = KubeClient(ApiConnection(os.environ["KUBECONFIG"]))
            stack.callback(client.close)
            controller = kind(client, await stack.enter_async_context(fresh_namespace(client)))
            await stack.enter_async_context(controller.running())
        runtime = runtime_for(controller.namespace, provider)
        await runtime.start()
        try:
            yield Site(runtime, controller, controller.resource)
        finally:
            for workload in await runtime.list():
                await runtime.delete(workload.id)
            await runtime.stop()


async def test_create_pause_resume_delete(site: Site) -> None:
    plan = await site.create(metadata={"team": "x"}, extensions={"opensandbox.extensions.note": "n"})
    (listed,) = await site.runtime.list()
    assert listed.adoption is not None
    assert listed.adoption.entrypoint == plan.command
    assert listed.adoption.metadata == {"team": "x"}
    assert listed.adoption.extensions == {"opensandbox.extensions.note": "n"}
    assert listed.adoption.expires_at is None
    assert (await site.runtime.pause(plan.id)).phase is Phase.PAUSING
    await site.until(plan, Phase.PAUSED)
    assert (await site.runtime.list())[0].host is None
    assert (await site.runtime.resume(plan.id)).phase is Phase.RESUMING
    await site.until(plan, Phase.RUNNING)
    assert "Pod Name:" in await site.runtime.inspect(plan.id)
    await site.runtime.delete(plan.id)
    assert await site.runtime.list() == []


async def test_expiry_is_on_the_object_and_its_controller_acts_on_it(site: Site) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3600)
    plan = await site.create(expires_at=soon, metadata={"a": "1", "b": "2"})
    over = datetime.now(UTC) + timedelta(seconds=4)
    assert site.runtime.truth is not None
    await site.runtime.truth.edit(plan.id, lambda held: Held(expires_at=over, metadata={"b": "3"}))
    labels = (await site.object(plan))["metadata"]["labels"]
    assert "a" not in labels
    assert labels["b"] == "3"
    (listed,) = await site.runtime.list()
    assert listed.adoption is not None
    assert listed.adoption.metadata == {"b": "3"}
    found = listed.adoption.expires_at
    assert found is not None
    assert abs((found - over).total_seconds()) <= 1
    gone = asyncio.Event()

    async def watch() -> None:
        async for _ in site.runtime.watch():
            if not await site.runtime.list():
                gone.set()

    watching = asyncio.create_task(watch())
    await asyncio.wait_for(gone.wait(), 60)
    watching.cancel()


async def test_what_is_paused_and_renewed_is_resumed(site: Site) -> None:
    """A controller that acts on any new version of a wish would pause it once more, without a pod to be kept."""
    plan = await site.create(expires_at=datetime.now(UTC) + timedelta(minutes=10))
    await site.runtime.pause(plan.id)
    await site.until(plan, Phase.PAUSED)
    later = datetime.now(UTC) + timedelta(minutes=20)
    assert site.runtime.truth is not None
    await site.runtime.truth.edit(plan.id, lambda held: Held(expires_at=later, metadata=held.metadata))
    if site.resource is BATCH:
        assert "pause" not in (await site.object(plan))["spec"]
    await site.runtime.resume(plan.id)
    await site.until(plan, Phase.RUNNING)


async def test_creating_twice_is_one(site: Site) -> None:
    plan = await site.create()
    first = await site.object(plan)
    again = await site.runtime.create(plan, lambda reason, message: None)
    assert again.phase is Phase.RUNNING
    assert (await site.object(plan))["metadata"]["uid"] == first["metadata"]["uid"]


async def test_a_pod_that_cannot_start_fails_the_create_with_its_own_words(site: Site) -> None:
    plan = new_plan(image="127.0.0.1:1/no/such:image")
    with pytest.raises(EngineFailure, match="cannot be pulled"):
        await site.runtime.create(plan, lambda reason, message: None)
    await site.runtime.delete(plan.id)


async def test_a_pause_that_the_controller_gives_up_is_an_error_and_may_be_repeated(
    client: KubeClient, namespace: str
) -> None:
    async with BatchController(client, namespace).running() as controller:
        runtime = runtime_for(namespace, "batchsandbox")
        await runtime.start()
        site = Site(runtime, controller, BATCH)
        plan = await site.create()
        controller.failing = "no registry"
        assert (await runtime.pause(plan.id)).phase is Phase.PAUSING
        await site.until(plan, Phase.RUNNING, "no registry")
        controller.failing = None
        assert (await runtime.pause(plan.id)).phase is Phase.PAUSING
        await site.until(plan, Phase.PAUSED)
        with pytest.raises(Conflict):
            await runtime.pause(plan.id)
        await runtime.delete(plan.id)
        await runtime.stop()


async def test_a_template_file_is_merged_and_nothing_of_it_lost(
    client: KubeClient, namespace: str, tmp_path: Path
) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(
        """
metadata: {annotations: {example.com/owner: me}}
spec:
  template:
    spec:
      priority: 0
      tolerations: [{key: gpu, operator: Exists}]
      containers:
      - {name: beside, image: "shoal-test/busybox:latest", imagePullPolicy: IfNotPresent, command: [sleep, "600"]}
      - {name: sandbox, securityContext: {runAsUser: 1000}, volumeMounts: [{name: scratch, mountPath: /scratch}]}
      volumes: [{name: scratch, emptyDir: {}}]
"""
    )
    async with BatchController(client, namespace).running() as controller:
        runtime = runtime_for(namespace, "batchsandbox", batchsandbox_template_file=str(file))
        await runtime.start()
        site = Site(runtime, controller, BATCH)
        plan = await site.create()
        made = await site.object(plan)
        spec = made["spec"]["template"]["spec"]
        assert made["metadata"]["annotations"]["example.com/owner"] == "me"
        assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
        assert [container["name"] for container in spec["containers"]] == ["sandbox", "beside"]
        sandbox = spec["containers"][0]
        assert sandbox["securityContext"] == {"runAsUser": 1000}
        assert [mount["mountPath"] for mount in sandbox["volumeMounts"]] == ["/opt/opensandbox", "/scratch"]
        assert {volume["name"] for volume in spec["volumes"]} == {"opensandbox-bin", "scratch"}
        await runtime.delete(plan.id)
        await runtime.stop()


async def test_two_replicas_that_pause_at_once_are_told_apart(site: Site) -> None:
    plan = await site.create()
    if site.resource is AGENT:
        pytest.skip("its controller takes a repeated wish for the same wish")
    second = runtime_for(site.controller.namespace, "batchsandbox")
    await second.start()
    both = await asyncio.gather(site.runtime.pause(plan.id), second.pause(plan.id), return_exceptions=True)
    assert any(not isinstance(outcome, BaseException) for outcome in both)
    assert all(isinstance(outcome, Conflict) or not isinstance(outcome, BaseException) for outcome in both)
    await second.stop()


async def test_a_stream_that_is_lost_is_told_whatever_it_is_of(site: Site) -> None:
    provider = site.runtime._provider
    assert isinstance(provider, CustomProvider)
    await site.runtime.ping()
    provider.objects._lost(ApiUnreachable("watch", "cut"))
    with pytest.raises(Unavailable):
        await site.runtime.ping()
    provider.objects._opened()
    await site.runtime.ping()


async def test_a_removal_waits_for_no_pod_and_leaves_none(site: Site) -> None:
    plan = await site.create(command=["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    client, namespace = site.controller.client, site.controller.namespace
    await site.runtime.delete(plan.id)
    assert await site.runtime.list() == []
    query = {"labelSelector": f"opensandbox.io/id={plan.id}"}
    left = (await client.list(PODS, namespace, dict[str, Any], query))["items"]
    assert [pod["metadata"]["name"] for pod in left if not pod["metadata"].get("deletionTimestamp")] == []
    while left:  # without grace: the API server forgets it whatever its node does
        assert {pod["metadata"]["deletionGracePeriodSeconds"] for pod in left} == {0}
        left = (await client.list(PODS, namespace, dict[str, Any], query))["items"]


async def test_what_somebody_deletes_while_it_is_made_is_not_made_again(site: Site) -> None:
    plan = new_plan(command=["sleep", "600"], resource_limits={"cpu": "500"})
    assert site.runtime.truth is not None
    await site.runtime.truth.accept(plan)
    making = asyncio.create_task(site.runtime.create(plan, lambda reason, message: None))
    thing = await site.object(plan)
    await site.controller.client.delete(site.resource, site.controller.namespace, thing["metadata"]["name"])
    with pytest.raises(NotFound):
        await asyncio.wait_for(making, 20)
    with pytest.raises(NotFound):
        await site.runtime.create(plan, lambda reason, message: None)
    assert await site.runtime.list() == []


async def test_what_ended_stays_ended(site: Site) -> None:
    plan = await site.create(command=["sh", "-c", "sleep 4"])
    await site.until(plan, Phase.EXITED)
    name = plan.id + "-0" if site.resource is BATCH else dns_1035(plan.id)
    pod = await site.controller.client.get(PODS, site.controller.namespace, name, dict[str, Any])
    assert (pod["spec"]["restartPolicy"], pod["status"]["phase"]) == ("Never", "Succeeded")


async def test_a_template_may_have_a_command_started_again(client: KubeClient, namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    file.write_text("spec: {template: {spec: {restartPolicy: Always}}}")
    async with BatchController(client, namespace).running() as controller:
        runtime = runtime_for(namespace, "batchsandbox", batchsandbox_template_file=str(file))
        await runtime.start()
        site = Site(runtime, controller, BATCH)
        plan = await site.create(command=["sh", "-c", "sleep 4"])
        await site.until(plan, Phase.RESTARTING, "exit code 0 and is started again")
        await runtime.delete(plan.id)
        await runtime.stop()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my-sandbox", "my-sandbox"),
        ("  My__Sandbox  ", "my-sandbox"),
        ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "sandbox-3f2504e0-4f89-41d3-9a0c-0305e82c3301"),
    ],
)
def test_dns_1035_names(text: str, name: str) -> None:
    assert dns_1035(text) == name
    assert len(dns_1035("x" * 200)) <= 63
    assert dns_1035("!!!").startswith("sandbox-")
