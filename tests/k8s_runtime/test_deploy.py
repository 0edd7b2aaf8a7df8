"""``deploy/``: the API server takes it, and its rights are enough for everything and not one too many."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types
from msgspec.structs import replace
from tests.k8s_runtime.agent_controller import AgentController
from tests.k8s_runtime.batch_controller import BatchController
from tests.k8s_runtime.deployment import DEPLOY, apply, in_force, kubeconfig, manifests, rights, without
from tests.support.servers import SHOAL
from tests.support.waiting import until

from shoal.config.settings import Settings
from shoal.errors import ConfigError, ShoalError
from shoal.models.plan import WorkloadPlan
from shoal.models.requests import ClaimVolume, ImageAuth, Volume
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.secret import Secret
from shoal.models.workload import Phase
from shoal.plugin.interfaces import LogQuery
from shoal_k8s.api import KubeApiError, KubeClient
from shoal_k8s.config import KubernetesRuntimeClassSettings, KubernetesSettings
from shoal_k8s.runtime import KubernetesRuntime

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]

FORMS = {"pod": None, "batchsandbox": BatchController, "agent-sandbox": AgentController}
RULES = {
    form: [
        (resource, verb)
        for folder in ("base", form)
        for document in yaml.safe_load_all((DEPLOY / folder / "rights.yaml").read_text())
        for rule in document.get("rules", [])
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    for form in FORMS
}


@asynccontextmanager
async def runtime_as_deployed(place: Path, namespace: str, form: str) -> AsyncIterator[KubernetesRuntime]:
    """A runtime with the rights of the account ``shoal``."""
    settings = KubernetesSettings(
        kubeconfig_path=str(kubeconfig(place, namespace)),
        namespace=namespace,
        workload_provider=form,
        sandbox_create_timeout_seconds=30,
    )
    runtime = KubernetesRuntime(Settings(), settings, KubernetesRuntimeClassSettings())
    try:
        await runtime.start()
        yield runtime
    finally:
        await runtime.stop()


def new_plan(**changes: Any) -> WorkloadPlan:
    plan = WorkloadPlan(
        id=str(uuid.uuid4()),
        runtime="kubernetes",
        created_at=datetime.now(UTC),
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        command=["sleep", "600"],
        image="shoal-test/busybox:latest",
        image_auth=ImageAuth(username="u", password=Secret("p")),
    )
    return replace(plan, **changes)


def quiet(reason: str, message: str) -> None:
    """Nobody wants to hear of progress."""


async def whole_life(runtime: KubernetesRuntime) -> None:
    """Everything that a server asks of the cluster for one sandbox."""
    truth = runtime.truth
    assert truth is not None
    plan = new_plan()
    await runtime.check(plan)
    await truth.accept(plan)
    await runtime.create(plan, quiet)
    later = datetime.now(UTC) + timedelta(hours=2)
    await truth.edit(plan.id, lambda held: replace(held, expires_at=later, metadata={"a": "b"}))
    await runtime.logs(plan.id, LogQuery())
    await runtime.events(plan.id, 10)
    await runtime.inspect(plan.id)
    if runtime.capabilities.pause:
        await runtime.pause(plan.id)
        await reached(runtime, plan.id, Phase.PAUSED)
        await runtime.resume(plan.id)
        await reached(runtime, plan.id, Phase.RUNNING)
    await runtime.delete(plan.id)
    assert plan.id not in {workload.id for workload in await runtime.list()}


async def reached(runtime: KubernetesRuntime, sandbox_id: str, phase: Phase) -> None:
    """Returns once it is there."""
    await until(lambda: phase in {each.phase for each in runtime._provider.all() if each.id == sandbox_id}, 240)


async def with_a_claim(runtime: KubernetesRuntime) -> None:
    """A claim that is made for a sandbox and goes with it; no cluster need be able to fill it."""
    claim = ClaimVolume(claim_name=f"c-{uuid.uuid4().hex[:8]}", delete_on_sandbox_termination=True)
    plan = new_plan(volumes=[Volume(name="v", mount_path="/v", pvc=claim)])
    assert runtime.truth is not None
    await runtime.truth.accept(plan)
    await runtime.delete(plan.id)


async def a_failure(runtime: KubernetesRuntime) -> None:
    """What is kept of a create that failed."""
    now = datetime.now(UTC)
    record = SandboxRecord(
        id=str(uuid.uuid4()),
        runtime="kubernetes",
        state=State.FAILED,
        since=now,
        created_at=now,
        entrypoint=["x"],
        purge_at=now + timedelta(hours=1),
    )
    assert runtime.truth is not None
    await runtime.truth.remember(record)
    assert record.id in {workload.id for workload in await runtime.list()}
    await runtime.truth.forget(record.id)


@pytest.mark.parametrize("form", FORMS)
def test_the_api_server_takes_it(namespace: str, form: str) -> None:
    said = apply(manifests(form, namespace), "--dry-run=server")
    for part in ("deployment.apps/shoal", "service/shoal", "configmap/shoal-", "serviceaccount/shoal", "role.rbac"):
        assert part in said
    wanted = {each["metadata"]["name"] for each in manifests(form, namespace) if each["kind"] == "NetworkPolicy"}
    taken = re.findall(r"networkpolicy\.networking\.k8s\.io/(\S+) serverside-applied \(server dry run\)", said)
    assert set(taken) == wanted
    assert wanted


@pytest.mark.parametrize("form", FORMS)
def test_its_configuration_is_one(form: str) -> None:
    command = [str(SHOAL), "check-config", "--config", str(DEPLOY / form / "shoal.toml")]
    env = {**os.environ, "OPENSANDBOX_SERVER_API_KEY": "a-key-of-the-secret-0123456789"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
async def controlled(client: KubeClient, namespace: str) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """``await controlled(form)``: the form's controller runs, if it has one."""
    running: list[Any] = []

    async def start(form: str) -> None:
        kind = FORMS[form]
        if kind is not None:
            context = kind(client, namespace).running()
            await context.__aenter__()
            running.append(context)

    yield start
    for context in running:
        await context.__aexit__(None, None, None)


@pytest.mark.parametrize("form", FORMS)
async def test_its_rights_are_enough(
    controlled: Callable[[str], Awaitable[None]], namespace: str, tmp_path: Path, form: str
) -> None:
    await controlled(form)
    given = rights(manifests(form, namespace))
    apply(given)
    await asyncio.to_thread(in_force, given, namespace)
    async with runtime_as_deployed(tmp_path, namespace, form) as runtime:
        await whole_life(runtime)
        await with_a_claim(runtime)
        await a_failure(runtime)


@pytest.mark.parametrize(("resource", "verb"), RULES["pod"])
async def test_each_right_is_needed_and_told_when_it_is_lacking(
    namespace: str, tmp_path: Path, resource: str, verb: str
) -> None:
    given = without(rights(manifests("pod", namespace)), resource, verb)
    apply(given)
    await asyncio.to_thread(in_force, given, namespace)
    name = "leases.coordination.k8s.io" if resource == "leases" else resource
    said: list[str] = []
    try:
        async with runtime_as_deployed(tmp_path, namespace, "pod") as runtime:
            if verb == "watch":
                await until(lambda: _unheard(runtime))
            for part in (whole_life, with_a_claim, a_failure, _twice, _lease_renewed):
                said.append(await _failure(part, runtime))
                if f"{verb} {name} is forbidden" in said[-1]:
                    return
    except ConfigError as error:
        said.append(str(error))
    assert any(f"{verb} {name} is forbidden" in text for text in said), said


async def _failure(part: Callable[[KubernetesRuntime], Awaitable[None]], runtime: KubernetesRuntime) -> str:
    """What a caller is told; empty if all went well."""
    try:
        async with asyncio.timeout(60):  # of what would wait for ever
            await part(runtime)
    except ShoalError as error:
        return error.message
    except KubeApiError as error:
        return error.as_shoal_error().message
    except TimeoutError:
        return "it took too long"
    return ""


async def _twice(runtime: KubernetesRuntime) -> None:
    """A create that is repeated by a server that has not seen the first one: it reads what is there."""
    plan = new_plan()
    assert runtime.truth is not None
    await runtime.truth.accept(plan)
    provider = runtime._provider
    held = provider.cluster.pods.get(provider.cluster.namespace, plan.id)
    assert held is not None
    provider.cluster.pods._objects.clear()
    with suppress(AssertionError):
        await provider.make(plan)
    await runtime.delete(plan.id)


def _unheard(runtime: KubernetesRuntime) -> bool:
    assert runtime._failures is not None
    return runtime._pods.error is not None or runtime._failures.error is not None


async def _lease_renewed(runtime: KubernetesRuntime) -> None:
    assert runtime._leadership is not None
    await runtime._leadership._claim()
