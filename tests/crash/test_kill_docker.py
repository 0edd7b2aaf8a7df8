"""The crash test of `test_kill` on a Docker engine: after every kill -9, the view equals the engine's containers.

The engine is the test's own, so that whatever it holds was made here.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from tests.crash.test_kill import CLIENTS, Client, adopt_in_doubt, promises_hold, settled, work_until_killed
from tests.docker_runtime.engines import EXECD, IMAGE
from tests.docker_runtime.own_engine import own_engine
from tests.support.servers import ServerProcess

SECONDS = float(os.environ.get("SHOAL_DOCKER_CRASH_SECONDS", "50"))
PATIENCE = 30.0
RUNS = {"Running": "running", "Paused": "paused"}


@pytest.fixture
def host() -> Iterator[str]:
    with own_engine() as engine:
        yield engine.host


@pytest.fixture
def engine(host: str) -> Iterator[Any]:
    client = docker.DockerClient(base_url=host, timeout=60)
    yield client.api
    client.close()


@pytest.fixture
def server(engine: Any, host: str, tmp_path: Path) -> Iterator[ServerProcess]:
    config = f'[runtime]\ntype = "docker"\nexecd_image = "{EXECD}"\n[docker]\nhost = "{host}"\nnetwork_mode = "none"\n'
    server = ServerProcess(tmp_path, config)
    yield server
    server.kill()
    server.start()
    for item in settled(server.base):
        httpx.delete(f"{server.base}/v1/sandboxes/{item}", timeout=60)
    server.stop()
    assert containers(engine) == {}
    volumes = [volume["Name"] for volume in engine.volumes()["Volumes"] or []]
    assert len(volumes) <= 1, f"leaked: {volumes}"


def containers(engine: Any) -> dict[str, str]:
    """State by name of everything on the engine."""
    return {each["Names"][0].lstrip("/"): each["State"] for each in engine.containers(all=True)}


def check(server: ServerProcess, engine: Any, clients: list[Client]) -> None:
    """The view equals what the engine has, state by state, and what each client was told holds."""
    deadline = time.monotonic() + PATIENCE
    while True:  # an expiry may fire between the looks; then they differ for a moment
        before = datetime.now(UTC)
        seen, there = settled(server.base), containers(engine)
        after = datetime.now(UTC)
        states = {f"sandbox-{each}": str(item["status"]["state"]) for each, item in seen.items()}  # type: ignore[index]  # JSON
        if {name: RUNS.get(state) for name, state in states.items()} == there:
            break
        assert time.monotonic() < deadline, f"view: {states}\nengine: {there}"
        time.sleep(0.1)
    promises_hold(clients, seen, before, after)


@pytest.mark.needs("docker", "dockerd")
@pytest.mark.timeout(600)
def test_kill_at_random_instants(server: ServerProcess, engine: Any) -> None:
    seed = int(os.environ.get("SHOAL_CRASH_SEED", str(random.SystemRandom().randrange(2**32))))
    print(f"SHOAL_CRASH_SEED={seed}")
    chance, token = random.Random(seed), uuid.uuid4().hex
    clients = [Client(server.base, token, random.Random(chance.random()), IMAGE) for _ in range(CLIENTS)]
    end, rounds = time.monotonic() + SECONDS, 0
    while rounds < 2 or time.monotonic() < end:
        server.start()
        adopt_in_doubt(server, clients)
        check(server, engine, clients)
        work_until_killed(server, clients, chance.uniform(0.1, 1.5))
        rounds += 1
    server.start()
    adopt_in_doubt(server, clients)
    check(server, engine, clients)
    total = sum((client.counts for client in clients), Counter[str]())
    print(f"{rounds} rounds: {dict(total)}")
    assert total["create"] > 0
