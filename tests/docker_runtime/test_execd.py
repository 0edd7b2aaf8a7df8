"""execd in sandboxes on a real engine: given without a copy, versioned, healed, and found by the unmodified SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import docker
import docker.errors
import pytest
from opensandbox import SandboxSync
from opensandbox.config import ConnectionConfigSync
from tests.docker_runtime.engines import EXECD, IMAGE
from tests.docker_runtime.own_engine import own_engine
from tests.support.bench import Bench, Make, create
from tests.support.servers import ServerProcess

from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.requests import ClaimVolume, Volume
from shoal.models.workload import Phase
from shoal_docker.engine import Engine
from shoal_docker.execd import VOLUME, ExecdVolumes
from shoal_docker.images import EngineImage
from shoal_docker.runtime import DockerRuntime

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(180)]

LOOK = ["sh", "-c", "ls -l /opt/opensandbox; touch /opt/opensandbox/.env && echo writable; exec sleep 600"]


@pytest.fixture
async def runtime(make: Make) -> AsyncIterator[DockerRuntime]:
    async with make(execd_image=EXECD) as runtime:
        yield runtime


def volumes_of(bench: Bench) -> set[str]:
    """The volumes that hold some execd's files."""
    return {volume.name for volume in bench.client.volumes.list(filters={"label": VOLUME})}


def image_without(bench: Bench, dockerfile: str) -> str:
    """An execd image that says something else, and so has a volume of its own; both go with the test."""
    tag = bench.image(dockerfile)
    short = bench.client.images.get(tag).id.rpartition(":")[2][:16]
    bench.volumes.append(f"opensandbox-execd-{short}")
    return tag


def output(bench: Bench, sandbox_id: str, wanted: str) -> str:
    """What the sandbox printed, once ``wanted`` is in it."""
    deadline = time.monotonic() + 20
    while wanted not in (text := bench.container(sandbox_id).logs().decode()):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return str(text)


@pytest.mark.parametrize("proxied", [True, False])
def test_the_sdk_with_its_readiness_check(
    docker_server: Callable[..., ServerProcess], bench: Bench, *, proxied: bool
) -> None:
    server = docker_server()
    config = ConnectionConfigSync(domain=f"127.0.0.1:{server.port}", use_server_proxy=proxied)
    sandbox = SandboxSync.create(
        IMAGE,
        entrypoint=["sleep", "600"],
        timeout=timedelta(minutes=5),
        metadata={"team": "docker"},
        connection_config=config,
    )
    bench.ids.add(sandbox.id)
    try:
        info = sandbox.get_info()
        assert (info.status.state, info.metadata, info.entrypoint) == ("Running", {"team": "docker"}, ["sleep", "600"])
        assert sandbox.is_healthy()
        sandbox.renew(timedelta(hours=1))
        sandbox.pause()
        assert sandbox.get_info().status.state == "Paused"
        resumed = SandboxSync.resume(sandbox.id, connection_config=config)
        assert resumed.is_healthy()
        resumed.close()
    finally:
        sandbox.kill()
        sandbox.close()
    assert bench.left(sandbox.id) == []


async def test_files_are_bound_and_the_directory_is_the_sandboxs_own(runtime: DockerRuntime, bench: Bench) -> None:
    plan = bench.plan(command=LOOK)
    assert (await create(runtime, plan)).phase is Phase.RUNNING
    text = output(bench, plan.id, "writable")
    assert "execd" in text
    assert "bootstrap.sh" in text
    attrs = bench.container(plan.id).attrs
    assert (attrs["Config"]["Entrypoint"], attrs["Config"]["Cmd"]) == (["/opt/opensandbox/bootstrap.sh"], LOOK)
    bound = {mount["Destination"]: mount["RW"] for mount in attrs["Mounts"]}
    assert bound == {"/opt/opensandbox/execd": False, "/opt/opensandbox/bootstrap.sh": False}
    assert attrs["Config"]["Labels"][VOLUME] in volumes_of(bench)


async def test_many_creates_at_once_distribute_it_once(make: Make, bench: Bench) -> None:
    tag = image_without(bench, "COPY --from=shoal-test/execd:latest /execd /bootstrap.sh /\nLABEL of=one-for-many")
    async with make(execd_image=tag) as runtime:
        before = volumes_of(bench)
        plans = [bench.plan() for _ in range(4)]
        made = await asyncio.gather(*(create(runtime, plan) for plan in plans))
        assert {each.phase for each in made} == {Phase.RUNNING}
        assert len(volumes_of(bench) - before) == 1
        for plan in plans:
            await runtime.delete(plan.id)


async def test_a_volume_that_is_gone_is_filled_again(runtime: DockerRuntime, bench: Bench) -> None:
    first = bench.plan()
    await create(runtime, first)
    volume = bench.container(first.id).attrs["Config"]["Labels"][VOLUME]
    bench.client.volumes.get(volume).remove()
    second = bench.plan()
    assert (await create(runtime, second)).phase is Phase.RUNNING
    assert volume in volumes_of(bench)


async def used_by(runtime: DockerRuntime, bench: Bench) -> str:
    """The volume that a new sandbox has execd from."""
    plan = bench.plan(command=LOOK)
    assert (await create(runtime, plan)).phase is Phase.RUNNING
    assert "bootstrap.sh" in output(bench, plan.id, "writable")
    name: str = bench.container(plan.id).attrs["Config"]["Labels"][VOLUME]
    await runtime.delete(plan.id)
    return name


def shell(bench: Bench, volume: str, script: str) -> str:
    """What a shell says that has the volume at ``/v``."""
    run = bench.client.containers.run
    return str(run(IMAGE, ["sh", "-c", script], volumes={volume: {"bind": "/v"}}, remove=True).decode())


@pytest.mark.parametrize(
    "harm",
    ["rm /v/execd", "echo evil >/v/bootstrap.sh", "chmod 777 /v/execd", "rm /v/execd; ln -s /bin/sh /v/execd"],
)
async def test_files_that_are_not_what_was_put_in_are_put_in_again(make: Make, bench: Bench, harm: str) -> None:
    tag = image_without(bench, "COPY --from=shoal-test/execd:latest /execd /bootstrap.sh /\nLABEL of=changed")
    sums = "ls -l /v; cat /v/* | sha256sum"
    async with make(execd_image=tag) as runtime:
        name = await used_by(runtime, bench)
    before = shell(bench, name, sums)
    shell(bench, name, harm)
    async with make(execd_image=tag) as runtime:
        assert await used_by(runtime, bench) == name
    assert shell(bench, name, sums) == before


async def test_a_volume_that_somebody_else_made_is_not_used(make: Make, bench: Bench) -> None:
    tag = image_without(bench, "COPY --from=shoal-test/execd:latest /execd /bootstrap.sh /\nLABEL of=foreign")
    name = bench.volumes[-1]
    bench.volumes.append(f"{name}-2")
    bench.client.volumes.create(name, labels={"opensandbox.io/volume-managed-by": "server"})
    shell(bench, name, "echo evil >/v/execd; echo evil >/v/bootstrap.sh; chmod 755 /v/*")
    async with make(execd_image=tag) as runtime:
        assert await used_by(runtime, bench) == f"{name}-2"


async def test_a_caller_cannot_claim_a_volume_of_that_name(make: Make, bench: Bench) -> None:
    claim = Volume(name="v", mount_path="/v", pvc=ClaimVolume(claim_name="opensandbox-execd-0123456789abcdef"))
    async with make() as runtime:
        with pytest.raises(InvalidRequest):
            await runtime.check(bench.plan(volumes=[claim]))


@pytest.mark.parametrize("policy", ["IfNotPresent", "Never"])
async def test_an_image_that_was_pruned_is_not_missed(make: Make, bench: Bench, policy: str) -> None:
    tag = image_without(bench, "COPY --from=shoal-test/execd:latest /execd /bootstrap.sh /\nLABEL of=pruned")
    async with make(execd_image=tag, image_pull_policy=policy) as runtime:
        name = await used_by(runtime, bench)
        bench.client.images.remove(tag, force=True)
        assert await used_by(runtime, bench) == name
    async with make(execd_image=tag, image_pull_policy=policy) as runtime:  # the start's sweep leaves it
        assert await used_by(runtime, bench) == name
    shell(bench, name, "echo evil >/v/bootstrap.sh")
    async with make(execd_image=tag, image_pull_policy=policy) as runtime:
        with pytest.raises(EngineFailure):
            await create(runtime, bench.plan())


async def test_a_container_that_a_crash_left_is_swept_and_one_that_is_swept_is_made_again(
    make: Make, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = image_without(bench, "COPY --from=shoal-test/execd:latest /execd /bootstrap.sh /\nLABEL of=swept")
    name, container = bench.volumes[-1], ExecdVolumes._container
    left: list[str] = []

    async def container_swept_once(execd: ExecdVolumes, volume: str | None, image: EngineImage) -> str:
        made = await container(execd, volume, image)
        if not left:
            left.append(made)
            async with make(execd_image=tag):  # another server starts
                pass
        return made

    monkeypatch.setattr(ExecdVolumes, "_container", container_swept_once)
    plan = bench.plan()
    async with make(execd_image=tag) as runtime:
        assert (await create(runtime, plan)).phase is Phase.RUNNING
        await runtime.delete(plan.id)
    assert left
    assert bench.client.api.containers(all=True, filters={"label": f"{VOLUME}={name}"}) == []


async def test_an_image_without_it_fails_with_the_contracts_code(make: Make, bench: Bench) -> None:
    tag = image_without(bench, "LABEL of=nothing")
    async with make(execd_image=tag) as runtime:
        with pytest.raises(EngineFailure, match="/execd") as failed:
            await create(runtime, bench.plan())
        assert failed.value.code == "DOCKER::SANDBOX_EXECD_DISTRIBUTION_FAILED"


async def test_old_versions_go_once_no_sandbox_has_them(make: Make, bench: Bench) -> None:
    tag = image_without(bench, "COPY --from=shoal-test/execd:latest /execd /bootstrap.sh /\nLABEL of=old")
    name, plan = bench.volumes[-1], bench.plan()
    async with make(execd_image=tag) as runtime:
        await create(runtime, plan)
    async with make(execd_image=EXECD) as runtime:
        assert name in volumes_of(bench)
        await runtime.delete(plan.id)
    async with make(execd_image=EXECD):
        assert name not in volumes_of(bench)


async def test_without_an_execd_image_the_command_runs_as_it_is(make: Make, bench: Bench) -> None:
    plan = bench.plan()
    async with make() as runtime:
        await create(runtime, plan)
        config = bench.container(plan.id).attrs["Config"]
        assert (config["Entrypoint"], config["Cmd"] or []) == (plan.command, [])
        with pytest.raises(docker.errors.NotFound):
            bench.container(plan.id).get_archive("/opt/opensandbox")
        await runtime.delete(plan.id)


async def test_an_engine_that_loses_the_image_is_told_of(make: Make, bench: Bench) -> None:
    async with make(execd_image="127.0.0.1:1/no/execd:latest", image_pull_policy="Never") as runtime:
        assert isinstance(runtime.engine, Engine)
        with pytest.raises(EngineFailure, match="no/execd"):
            await create(runtime, bench.plan())


@pytest.mark.needs("dockerd")
async def test_a_container_that_a_crash_left_before_there_was_a_volume_is_swept(make: Make) -> None:
    with own_engine() as engine:
        client = docker.DockerClient(base_url=engine.host, timeout=60)
        try:
            client.api.create_container(EXECD, command=["/execd"], labels={VOLUME: "none"})
            async with make(execd_image=EXECD, host=engine.host, network_mode="none"):
                assert client.api.containers(all=True) == []
        finally:
            client.close()
