"""A real Docker engine, a runtime on it, and a promise to leave nothing of ours behind."""

from __future__ import annotations

import io
import json
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from msgspec.structs import replace
from tests.docker_runtime import leftovers
from tests.docker_runtime.engines import DOCKER_HOST, EXECD, IMAGE
from tests.servers import ServerProcess

from shoal.config.settings import RuntimeSettings, ServerSettings, Settings, StorageSettings, StoreSettings
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Workload
from shoal.plugin.interfaces import Agent
from shoal_docker.config import DockerSettings, SecureRuntimeSettings
from shoal_docker.runtime import DockerRuntime

LONG = ["sleep", "600"]
MADE: set[str] = set()
"""Ids and names of everything that this run's benches were told of."""


class Bench:
    """One test's share of the engine: everything it makes is told to it, and removed at the end."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client: Any = client  # its stubs are stricter than it is
        self.ids: set[str] = set()
        self.images: list[str] = []
        self.volumes: list[str] = []
        self.networks: list[str] = []

    def new_id(self) -> str:
        """A sandbox id whose containers and volumes are removed in the end."""
        made = str(uuid.uuid4())
        self.ids.add(made)
        return made

    def plan(self, **changes: Any) -> WorkloadPlan:
        """A plan under an id of its own that runs for long."""
        plan = WorkloadPlan(
            id=self.new_id(), runtime="docker", created_at=datetime.now(UTC), command=list(LONG), image=IMAGE
        )
        return replace(plan, **changes)

    def container(self, sandbox_id: str, sidecar: str = "") -> Any:
        """The sandbox's own container, or a sidecar's. Raises docker.errors.NotFound."""
        middle = f"{sidecar}-" if sidecar else ""
        return self.client.containers.get(f"sandbox-{middle}{sandbox_id}")

    def run(self, sandbox_id: str, labels: dict[str, str], *, image: str = IMAGE, **more: Any) -> Any:
        """A container as another server would have made it."""
        self.ids.add(sandbox_id)
        more = {"name": f"sandbox-{sandbox_id}", "command": LONG, **more}
        return self.client.containers.run(
            image, detach=True, labels={"opensandbox.io/id": sandbox_id, **labels}, **more
        )

    def image(self, dockerfile: str, base: str = IMAGE) -> str:
        """An image built from the lines after ``FROM``."""
        tag = f"shoal-test/made-{uuid.uuid4().hex[:12]}:latest"
        self.client.images.build(fileobj=io.BytesIO(f"FROM {base}\n{dockerfile}\n".encode()), tag=tag, rm=True)
        self.images.append(tag)
        return tag

    def network(self, name: str) -> str:
        """A user-defined network."""
        self.client.networks.create(name)
        self.networks.append(name)
        return name

    def left(self, sandbox_id: str) -> list[str]:
        """Names of containers and volumes that are still there for a sandbox."""
        containers = self.client.api.containers(all=True, filters={"name": sandbox_id})
        volumes = self.client.api.volumes(filters={"name": sandbox_id})["Volumes"] or []
        return [c["Names"][0] for c in containers] + [v["Name"] for v in volumes]

    def clear(self) -> None:
        """Remove whatever is left."""
        MADE.update(self.ids, self.images, self.volumes, self.networks)
        api = self.client.api
        for sandbox_id in self.ids:
            for found in api.containers(all=True, filters={"name": sandbox_id}):
                _quietly(api.remove_container, found["Id"], force=True, v=True)
            for volume in api.volumes(filters={"name": sandbox_id})["Volumes"] or []:
                _quietly(api.remove_volume, volume["Name"])
        for tag in self.images:
            _quietly(api.remove_image, tag, force=True)
        for name in self.volumes:
            _quietly(api.remove_volume, name)
        for name in self.networks:
            _quietly(api.remove_network, name)


def _quietly(work: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    try:
        work(*args, **kwargs)
    except docker.errors.APIError as error:
        assert error.status_code in (404, 409)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No container, volume, network or image of ours outlives the tests of this directory."""
    try:
        client = docker.DockerClient(base_url=DOCKER_HOST, timeout=60)
    except docker.errors.DockerException:
        yield  # no engine, nothing on it
        return
    before = leftovers.of_ours(client.api)
    yield
    left = leftovers.left(client.api, before, MADE)
    leftovers.drop_execd(client.api)
    client.close()
    assert not left, f"left on the engine: {sorted(left)}"


@pytest.fixture
def bench() -> Iterator[Bench]:
    client = docker.DockerClient(base_url=DOCKER_HOST, timeout=60)
    made = Bench(client)
    try:
        yield made
    finally:
        made.clear()
        client.close()


Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``async with make(known=…, network_mode=…) as runtime``: a started runtime with those ``[docker]`` settings."""

    @asynccontextmanager
    async def started(
        *,
        known: Callable[[str], bool] = lambda sandbox_id: True,
        server: ServerSettings | None = None,
        execd_image: str | None = None,
        agent: Agent | None = None,
        required: bool = True,
        secure: SecureRuntimeSettings | None = None,
        storage: StorageSettings | None = None,
        **docker_settings: Any,
    ) -> AsyncIterator[DockerRuntime]:
        settings = Settings(
            server=server or ServerSettings(host="127.0.0.1"),
            store=StoreSettings(path=str(tmp_path / "shoal.db")),
            runtime=RuntimeSettings(
                type="docker", execd_image=execd_image or (agent.name if agent and required else None)
            ),
            storage=storage or StorageSettings(),
        )
        own = DockerSettings(**{"network_mode": "bridge", **docker_settings})
        runtime = DockerRuntime(
            settings, own, secure or SecureRuntimeSettings(), known=known, agent=agent, execd_image=execd_image
        )
        await runtime.start()
        try:
            yield runtime
        finally:
            await runtime.stop()

    return started


async def create(runtime: DockerRuntime, plan: WorkloadPlan) -> Workload:
    """As the engine does it: checked first."""
    await runtime.check(plan)
    return await runtime.create(plan, lambda reason, message: None)


async def listed(runtime: DockerRuntime, sandbox_id: str) -> Workload | None:
    """The workload as the list shows it."""
    found = [workload for workload in await runtime.list() if workload.id == sandbox_id]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.fixture
def docker_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """``docker_server(network_mode="bridge", …)``: a real server on Docker; stopped in the end, sandboxes left."""
    servers: list[ServerProcess] = []

    def make(extra: str = "", *, execd: str | None = EXECD, **docker_settings: Any) -> ServerProcess:
        low = random.SystemRandom().randrange(20000, 59000)
        keys = {"network_mode": "bridge", "port_range_min": low, "port_range_max": low + 2000, **docker_settings}
        table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
        agent = "" if execd is None else f'execd_image = "{execd}"\n'
        server = ServerProcess(tmp_path, f'[runtime]\ntype = "docker"\n{agent}[docker]\n{table}\n{extra}')
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()
