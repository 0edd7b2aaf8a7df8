"""A real Docker engine, a runtime on it, and a promise to leave nothing of ours behind."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from tests.docker_runtime import leftovers
from tests.docker_runtime.engines import DOCKER_HOST, EXECD
from tests.support.bench import MADE, Bench, Make
from tests.support.servers import ServerProcess

from shoal.config.settings import RuntimeSettings, ServerSettings, Settings, StorageSettings, StoreSettings
from shoal.plugin.interfaces import Agent
from shoal_docker.config import DockerSettings, SecureRuntimeSettings
from shoal_docker.runtime import DockerRuntime


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
