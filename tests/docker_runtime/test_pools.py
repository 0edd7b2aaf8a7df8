"""Warm pools on a real Docker: takes at once, sixteen together, and a server that is killed while creates take."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from opensandbox import SandboxSync
from opensandbox.config import ConnectionConfigSync
from tests.crash.test_kill_pools import Taker
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(600)]

IMAGE = os.environ.get("SHOAL_TEST_IMAGE", "shoal-test/busybox:latest")
CONFIG = '[runtime]\ntype = "docker"\nexecd_image = "none"\n[lifecycle]\npool_settle_seconds = 0\n'
ROUNDS = int(os.environ.get("SHOAL_DOCKER_CRASH_ROUNDS", "6"))


@dataclass
class Bench:
    """A server, a pool of its own on the shared engine, and the engine's own word of both."""

    server: ServerProcess
    client: docker.DockerClient
    pool: str

    def containers(self) -> dict[str, str]:
        """State by sandbox id of everything that was started for the pool."""
        found = self.client.api.containers(all=True, filters={"label": [f"shoal.pool={self.pool}"]})
        return {each["Labels"]["opensandbox.io/id"]: each["State"] for each in found}

    def make(self, size: int, most: int = 60) -> None:
        capacity = {"bufferMin": size, "bufferMax": size, "poolMin": 0, "poolMax": most}
        template = {"image": {"uri": IMAGE}, "entrypoint": ["sleep", "3600"]}
        body = {"name": self.pool, "template": template, "capacitySpec": capacity}
        answer = httpx.post(f"{self.server.base}/v1/pools", json=body, timeout=60)
        assert answer.status_code == 201, answer.text
        self.eventually(lambda: list(self.containers().values()).count("paused") == size)
        self.eventually(lambda: self.status()["available"] == size)

    def take(self, **more: Any) -> httpx.Response:
        body = {"extensions": {"poolRef": self.pool}, "timeout": 600, **more}
        return httpx.post(f"{self.server.base}/v1/sandboxes", json=body, timeout=60)

    def status(self) -> dict[str, Any]:
        shown: dict[str, Any] = httpx.get(f"{self.server.base}/v1/pools/{self.pool}", timeout=30).json()["status"]
        return shown

    def shown(self) -> dict[str, str]:
        """State by id of every sandbox of the pool that can be seen."""
        items = httpx.get(f"{self.server.base}/v1/sandboxes?pageSize=200", timeout=30).json()["items"]
        ours = [item for item in items if item.get("allocation", {}).get("poolRef") == self.pool]
        return {item["id"]: item["status"]["state"] for item in ours}

    def eventually(self, condition: Callable[[], bool]) -> None:
        eventually(condition, told=lambda: (self.shown(), self.status(), self.containers()))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    client = docker.from_env()
    server = ServerProcess(tmp_path, CONFIG)
    bench = Bench(server, client, f"h5-{uuid.uuid4().hex[:10]}")
    try:
        server.start()
        yield bench
        server.stop()
    finally:
        for container in client.api.containers(all=True, filters={"label": [f"shoal.pool={bench.pool}"]}):
            client.api.remove_container(container["Id"], force=True, v=True)
        client.close()


def test_a_take_and_the_end_of_a_pool(bench: Bench) -> None:
    bench.make(2)
    made = bench.take(metadata={"job": "7"})
    assert (made.status_code, made.json()["status"]["state"]) == (202, "Running")
    mine = made.json()["id"]
    assert bench.containers()[mine] == "running"
    shown = httpx.get(f"{bench.server.base}/v1/sandboxes/{mine}", timeout=30).json()
    assert (shown["metadata"], shown["allocation"]["poolRef"]) == ({"job": "7"}, bench.pool)
    victim = next(sandbox for sandbox, state in bench.containers().items() if state == "paused")
    container = bench.client.containers.list(all=True, filters={"label": f"opensandbox.io/id={victim}"})[0]
    container.remove(force=True)
    bench.eventually(lambda: victim not in bench.containers() and bench.status()["available"] == 2)
    assert httpx.delete(f"{bench.server.base}/v1/pools/{bench.pool}", timeout=30).status_code == 204
    bench.eventually(lambda: bench.containers() == {mine: "running"})
    assert httpx.delete(f"{bench.server.base}/v1/sandboxes/{mine}", timeout=30).status_code == 204
    bench.eventually(lambda: bench.containers() == {})


def test_sixteen_at_once(bench: Bench) -> None:
    bench.make(16)
    with ThreadPoolExecutor(16) as clients:
        answers = [answer.json() for answer in clients.map(lambda _: bench.take(), range(16))]
    assert {answer["status"]["state"] for answer in answers} == {"Running"}
    taken = {answer["id"] for answer in answers}
    assert len(taken) == 16
    assert {bench.containers()[sandbox_id] for sandbox_id in taken} == {"running"}


def test_a_member_serves_as_soon_as_it_is_taken(bench: Bench) -> None:
    """What the pool started goes on where it was frozen."""
    bench.make(1)
    mine = bench.take().json()["id"]
    container = bench.client.containers.list(filters={"label": f"opensandbox.io/id={mine}"})[0]
    code, printed = container.exec_run(["echo", "awake"])
    assert (code, printed) == (0, b"awake\n")


def test_kill_while_creates_take(bench: Bench) -> None:
    size, chance = 3, random.Random(uuid.uuid4().int)
    bench.make(size)
    takers = [Taker(bench.server.base, random.Random(chance.random()), bench.pool) for _ in range(4)]
    for _ in range(ROUNDS):
        threads = [threading.Thread(target=taker.work) for taker in takers]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.05, 1.0))
        bench.server.kill()
        for thread in threads:
            thread.join()
        bench.server.start()
        bench.eventually(lambda: _adds_up(bench, size))
        _promises_hold(bench, takers)
    assert sum(taker.at_once for taker in takers) > 0


def _adds_up(bench: Bench, size: int) -> bool:
    """As many frozen ones as the pool should have, and every other one is somebody's."""
    seen, containers, status = bench.shown(), bench.containers(), bench.status()
    taken = {sandbox_id for sandbox_id, state in containers.items() if state == "running"}
    idle = {sandbox_id for sandbox_id, state in containers.items() if state == "paused"}
    return (
        set(seen) == taken
        and set(seen.values()) <= {"Running"}
        and taken | idle == set(containers)
        and len(idle) == size == status["available"]
        and status["allocated"] == len(taken)
    )


def _promises_hold(bench: Bench, takers: list[Taker]) -> None:
    owners: dict[str, str] = {}
    for taker in takers:
        assert not taker.trouble, "\n".join(taker.trouble)
        for key, sandbox_id in list(taker.mine.items()):
            assert owners.setdefault(sandbox_id, key) == key, f"{sandbox_id} was given to two"
            answer = httpx.get(f"{bench.server.base}/v1/sandboxes/{sandbox_id}", timeout=30)
            if answer.status_code == 404:
                assert sandbox_id in taker.deleting, f"lost: {sandbox_id}"
                del taker.mine[key]
            else:
                assert answer.json()["metadata"] == {"key": key}


def test_the_sdk_takes_one_and_gives_it_an_environment(bench: Bench) -> None:
    """The SDK always sends an entrypoint and limits."""
    bench.make(1)
    [idle] = bench.containers()
    config = ConnectionConfigSync(domain=f"127.0.0.1:{bench.server.port}")
    more: dict[str, Any] = {"connection_config": config, "skip_health_check": True}
    taken = SandboxSync.create(IMAGE, extensions={"poolRef": bench.pool}, **more)
    assert taken.id == idle
    own = SandboxSync.create(IMAGE, extensions={"poolRef": bench.pool}, env={"GREETING": "hi"}, **more)
    bench.eventually(lambda: bench.containers().get(own.id) == "running")
    found = bench.client.containers.get(f"sandbox-{own.id}")
    assert "GREETING=hi" in found.attrs["Config"]["Env"]
    assert bench.shown().keys() == {taken.id, own.id}
    for sandbox in (taken, own):
        sandbox.kill()
        sandbox.close()
