"""An agent that a plugin provides, on a real engine: brought without an image of its own, and with a token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from msgspec.structs import replace
from tests.docker_runtime.engines import IMAGE
from tests.docker_runtime.test_execd import output, shell, volumes_of
from tests.support.bench import Bench, Make, create
from tests.support.servers import ServerProcess

from shoal.errors import EngineFailure
from shoal.models.workload import Phase
from shoal.plugin.interfaces import AGENT_PORT, AGENT_TOKEN_HEADER, AGENT_TOKEN_LABEL, Agent, AgentFiles
from shoal_agent.bundle.build import build
from shoal_docker.execd import VOLUME
from shoal_docker.runtime import DockerRuntime

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(180)]

BOOTSTRAP = '#!/bin/sh\n/opt/opensandbox/execd &\nexec "$@"\n'
EXECD = "#!/bin/sh\ncat /opt/opensandbox/deep/er/file\n"


class Provided(Agent):
    """A shell script, for one platform."""

    name: ClassVar[str] = "provided"
    takes_token = True

    def __init__(self, folder: Path, platform: str | None) -> None:
        self.folder, self.platform = folder, platform
        self.asked: list[str] = []

    async def files(self, platform: str) -> AgentFiles | None:
        self.asked.append(platform)
        digest = "sha256:" + "".join(f"{ord(each):02x}" for each in self.folder.name)[-32:].rjust(32, "0")
        return AgentFiles(self.folder, digest) if platform == self.platform else None

    def command(self, folder: str) -> list[str]:
        return [f"{folder}/execd"]

    def environment(self, token: str) -> dict[str, str]:
        return {"TOKEN_DIGEST": token[::-1]}


@pytest.fixture
def agent(tmp_path: Path, bench: Bench) -> Provided:
    folder = tmp_path / f"agent-{time.time_ns()}"
    (folder / "deep/er").mkdir(parents=True)
    for name, content in (("execd", EXECD), ("bootstrap.sh", BOOTSTRAP)):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    (folder / "deep/er/file").write_text("the agent ran\n")
    version = bench.client.version()
    made = Provided(folder, f"linux/{ {'x86_64': 'amd64'}.get(version['Arch'], version['Arch']) }")
    bench.volumes.append("opensandbox-execd-" + asyncio.run(made.files(made.platform or "")).digest[7:23])  # type: ignore[union-attr]
    return made


@pytest.fixture
async def runtime(make: Make, agent: Provided) -> AsyncIterator[DockerRuntime]:
    async with make(agent=agent) as runtime:
        yield runtime


async def test_its_files_are_brought_without_an_image_and_bound_read_only(
    runtime: DockerRuntime, agent: Provided, bench: Bench
) -> None:
    before = {image.id for image in bench.client.images.list()}
    plan = bench.plan(command=["sh", "-c", "touch /opt/opensandbox/deep/x || echo closed; exec sleep 600"])
    assert (await create(runtime, plan)).phase is Phase.RUNNING
    assert "the agent ran" in output(bench, plan.id, "the agent ran")
    output(bench, plan.id, "closed")
    attrs = bench.container(plan.id).attrs
    assert attrs["Config"]["Entrypoint"] == ["/opt/opensandbox/bootstrap.sh"]
    assert {mount["Destination"]: mount["RW"] for mount in attrs["Mounts"]} == {
        "/opt/opensandbox/execd": False,
        "/opt/opensandbox/bootstrap.sh": False,
        "/opt/opensandbox/deep": False,
    }
    assert {image.id for image in bench.client.images.list()} == before
    assert attrs["Config"]["Labels"][VOLUME] in volumes_of(bench)


async def test_the_sandbox_is_given_what_the_agent_makes_of_the_token_and_not_the_token(
    runtime: DockerRuntime, bench: Bench
) -> None:
    plan = bench.plan(command=["sh", "-c", "cat /proc/*/environ | tr '\\0' '\\n'; echo done; exec sleep 600"])
    plan = replace(plan, labels={AGENT_TOKEN_LABEL: "abcdefghijkl"})
    workload = await create(runtime, plan)
    assert workload.labels[AGENT_TOKEN_LABEL] == "abcdefghijkl"
    told = output(bench, plan.id, "done")
    assert "TOKEN_DIGEST=lkjihgfedcba" in told
    assert "abcdefghijkl" not in told
    assert "abcdefghijkl" not in await runtime.inspect(plan.id)


@pytest.mark.parametrize("harm", ["rm /v/deep/er/file", "echo evil >/v/deep/er/file", "chmod 777 /v/execd"])
async def test_what_somebody_changed_is_put_right_at_the_next_start(
    make: Make, agent: Provided, bench: Bench, harm: str
) -> None:
    name = bench.volumes[-1]
    for _ in range(2):
        async with make(agent=agent) as runtime:
            plan = bench.plan()
            assert (await create(runtime, plan)).phase is Phase.RUNNING
            output(bench, plan.id, "the agent ran")
            await runtime.delete(plan.id)
        assert shell(bench, name, "cat /v/deep/er/file; stat -c %a /v/execd") == "the agent ran\n755\n"
        shell(bench, name, harm)


async def test_another_version_has_another_volume_and_the_old_one_goes(
    make: Make, agent: Provided, bench: Bench, tmp_path: Path
) -> None:
    old = bench.volumes[-1]
    async with make(agent=agent) as runtime:
        plan = bench.plan()
        await create(runtime, plan)
    newer = Provided(agent.folder.rename(tmp_path / f"newer-{time.time_ns()}"), agent.platform)
    files = await newer.files(agent.platform or "")
    assert files is not None
    bench.volumes.append("opensandbox-execd-" + files.digest[7:23])
    async with make(agent=newer) as runtime:
        assert old in volumes_of(bench)
        other = bench.plan()
        await create(runtime, other)
        assert bench.container(other.id).attrs["Config"]["Labels"][VOLUME] == bench.volumes[-1]
        await runtime.delete(plan.id)
    async with make(agent=newer):
        deadline = time.monotonic() + 30
        while old in volumes_of(bench):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_an_image_without_a_shell_is_started_by_the_agent(make: Make, agent: Provided, bench: Bench) -> None:
    bench.volumes.append(bench.volumes[-1])
    tag = bench.image("RUN rm /bin/sh")
    async with make(agent=agent) as runtime:
        for _ in range(2):
            plan = bench.plan(image=tag, command=["/bin/busybox", "sleep", "600"])
            await create(runtime, plan)
            config = bench.container(plan.id).attrs["Config"]
            assert config["Entrypoint"] == ["/opt/opensandbox/execd", "--init", "--"]
            assert config["Cmd"] == ["/bin/busybox", "sleep", "600"]


@pytest.mark.parametrize("required", [True, False])
async def test_a_platform_that_it_has_no_files_for(
    make: Make, agent: Provided, bench: Bench, *, required: bool
) -> None:
    agent.platform = "linux/none"
    async with make(agent=agent, required=required) as runtime:
        plan = bench.plan()
        if required:
            with pytest.raises(EngineFailure, match="no files for linux/") as failed:
                await create(runtime, plan)
            assert failed.value.code == "DOCKER::SANDBOX_EXECD_DISTRIBUTION_FAILED"
        else:
            await create(runtime, plan)
            assert bench.container(plan.id).attrs["Config"]["Entrypoint"] == plan.command


@pytest.fixture(scope="module")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Settings for the real agent, so that servers with homes of their own need not build it each."""
    folder = tmp_path_factory.mktemp("builtin") / "bundle"
    build(folder)
    return f'[agent]\nbundle = "{folder}"\n'


def created(client: httpx.Client, bench: Bench, image: str, entrypoint: list[str]) -> str:
    """The sandbox's id, and the path of its agent behind the server's proxy."""
    body = {"image": {"uri": image}, "entrypoint": entrypoint, "resourceLimits": {}, "timeout": 600}
    sandbox: str = client.post("/v1/sandboxes", json=body).json()["id"]
    bench.ids.add(sandbox)
    return sandbox


def test_the_default_agent_answers_at_the_first_try_and_wants_its_token(
    builtin: str, bench: Bench, docker_server: Callable[..., ServerProcess]
) -> None:
    """Through the server's own proxy and at its published port."""
    server = docker_server(builtin, execd=None)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        sandbox = created(client, bench, IMAGE, ["sleep", "600"])
        assert client.get(f"/v1/sandboxes/{sandbox}/proxy/{AGENT_PORT}/ping").status_code == 200
        assert client.get(f"/v1/sandboxes/{sandbox}/proxy/{AGENT_PORT}/no/such/route").status_code == 404
        endpoint = client.get(f"/v1/sandboxes/{sandbox}/endpoints/{AGENT_PORT}").json()
        token = endpoint["headers"][AGENT_TOKEN_HEADER]
        direct = f"http://{endpoint['endpoint']}"
        assert httpx.get(f"{direct}/ping", headers={AGENT_TOKEN_HEADER: token}).status_code == 200
        assert httpx.get(f"{direct}/metrics").status_code == 401
        assert httpx.get(f"{direct}/no/such/route", headers={AGENT_TOKEN_HEADER: token}).status_code == 404
        assert "headers" not in client.get(f"/v1/sandboxes/{sandbox}/endpoints/8080").json()
        server.stop()
        server.start()
        assert client.get(f"/v1/sandboxes/{sandbox}/endpoints/{AGENT_PORT}").json()["headers"] == endpoint["headers"]
        assert token not in server.log.read_text()


def test_an_endpoint_that_leads_through_the_agent_comes_with_what_it_wants(
    builtin: str, bench: Bench, docker_server: Callable[..., ServerProcess]
) -> None:
    """An SDK asks for the sandbox's own address by default, and sends the endpoint's headers."""
    server = docker_server(builtin, execd=None)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        sandbox = created(client, bench, IMAGE, ["httpd", "-f", "-p", "8000", "-h", "/etc"])
        client.get(f"/v1/sandboxes/{sandbox}/proxy/{AGENT_PORT}/ping").raise_for_status()
        endpoint = client.get(f"/v1/sandboxes/{sandbox}/endpoints/8000").json()
        page = httpx.get(f"http://{endpoint['endpoint']}/passwd", headers=endpoint.get("headers"))
        assert (page.status_code, "root" in page.text) == (200, True), page.text
        assert client.get(f"/v1/sandboxes/{sandbox}/proxy/8000/passwd").text == page.text


def test_the_default_agent_in_an_image_with_nothing_but_a_program(
    builtin: str, bench: Bench, docker_server: Callable[..., ServerProcess]
) -> None:
    """No shell: the agent starts the command, whose end is the sandbox's."""
    server = docker_server(builtin, execd=None)
    program = bench.image("COPY --from=shoal-test/busybox:latest /bin/busybox /busybox", base="scratch")
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        sandbox = created(client, bench, program, ["/busybox", "sleep", "600"])
        agent = f"/v1/sandboxes/{sandbox}/proxy/{AGENT_PORT}"
        assert client.get(f"{agent}/ping").status_code == 200
        told = client.post(f"{agent}/command", json={"argv": ["/busybox", "id", "-u"]}).text
        assert '"text":"0"' in told
        ending = created(client, bench, program, ["/busybox", "false"])
        waited = client.get(f"/v1/sandboxes/{ending}", params={"wait": "Terminated", "timeout": 30}).json()
        assert waited["status"]["state"] == "Failed", waited


def test_each_sandbox_on_the_hosts_network_has_an_agent_at_a_port_of_its_own(
    builtin: str, bench: Bench, docker_server: Callable[..., ServerProcess]
) -> None:
    server = docker_server(builtin, execd=None, network_mode="host")
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client, ThreadPoolExecutor(3) as pool:
        command = ["sleep", "600"]
        sandboxes = list(pool.map(lambda _: created(client, bench, IMAGE, command), range(3)))
        places = set()
        for sandbox in (*sandboxes, *sandboxes):
            agent = f"/v1/sandboxes/{sandbox}/proxy/{AGENT_PORT}"
            told = client.post(f"{agent}/command", json={"command": "echo id=$OPENSANDBOX_ID"})
            assert (told.status_code, f"id={sandbox}" in told.text) == (200, True), told.text
            endpoint = client.get(f"/v1/sandboxes/{sandbox}/endpoints/{AGENT_PORT}").json()
            direct = httpx.get(f"http://{endpoint['endpoint']}/metrics", headers=endpoint["headers"])
            assert direct.status_code == 200
            places.add(endpoint["endpoint"])
            assert client.get(f"/v1/sandboxes/{sandbox}/endpoints/8080").json()["endpoint"].endswith(":8080")
        assert len(places) == 3
        server.stop()
        server.start()
        later = {client.get(f"/v1/sandboxes/{each}/endpoints/{AGENT_PORT}").json()["endpoint"] for each in sandboxes}
        assert later == places
