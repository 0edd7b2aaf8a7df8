"""kill -9 while creates take from a warm pool of real sandboxes: none lost, none given to two, none leaked.

Each round starts the server on what the last one left, checks that it adds up, lets several clients take and delete,
and kills the server in the middle. A take that was cut off is sent again with its Idempotency-Key.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.crash.test_kill import TOKEN, running, settled
from tests.support.servers import ServerProcess

ROUNDS = int(os.environ.get("SHOAL_CRASH_ROUNDS", "30"))
CLIENTS = 4
BUFFER = 4
KEEPS = 10
"""Sandboxes that a client has at most: with all that may be cut off on top, the pool still has room for its buffer."""
CAPACITY = {"bufferMin": BUFFER, "bufferMax": BUFFER, "poolMin": 0, "poolMax": CLIENTS * (KEEPS + 2) + BUFFER}
SETTLE = "[lifecycle]\npool_settle_seconds = 0\n"


@dataclass
class Taker:
    """Takes sandboxes and deletes some of them, until the server is gone."""

    base: str
    random: random.Random
    pool: str = "warm"
    mine: dict[str, str] = field(default_factory=dict)
    """Sandbox id by key, of those that were answered."""
    open_key: str | None = None
    deleting: set[str] = field(default_factory=set)
    trouble: list[str] = field(default_factory=list)
    taken: int = 0
    at_once: int = 0

    def work(self) -> None:
        with httpx.Client(base_url=self.base, timeout=30) as http:
            while True:
                try:
                    if len(self.mine) < 4 or (len(self.mine) < KEEPS and self.random.random() < 0.5):
                        self.take(http)
                    else:
                        self.delete(http)
                except httpx.TransportError:
                    return

    def take(self, http: httpx.Client) -> None:
        key = self.open_key = self.open_key or str(uuid.uuid4())
        body = {"extensions": {"poolRef": self.pool}, "timeout": 3600, "metadata": {"key": key}}
        answer = http.post("/v1/sandboxes", json=body, headers={"Idempotency-Key": key})
        if answer.status_code == 202:
            self.mine[key] = answer.json()["id"]
            self.taken += 1
            self.at_once += answer.json()["status"]["state"] == "Running"
        elif answer.status_code not in (429, 503):
            self.trouble.append(f"take: {answer.status_code} {answer.text}")
        if answer.status_code != 503:
            self.open_key = None

    def delete(self, http: httpx.Client) -> None:
        key, sandbox_id = self.random.choice(list(self.mine.items()))
        self.deleting.add(sandbox_id)
        answer = http.delete(f"/v1/sandboxes/{sandbox_id}")
        if answer.status_code in (204, 404):
            del self.mine[key]
        elif answer.status_code != 503:
            self.trouble.append(f"delete: {answer.status_code} {answer.text}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, SETTLE)
    yield server
    server.kill()
    server.start()
    httpx.delete(f"{server.base}/v1/pools/warm", timeout=30)
    for item in settled(server.base):
        httpx.delete(f"{server.base}/v1/sandboxes/{item}", timeout=30)
    deadline = time.monotonic() + 30
    while any((server.state_dir / "sandboxes").glob("*-*-*-*-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    server.stop()


def status(base: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{base}/v1/pools/warm", timeout=30).json()["status"]
    return answer


def check(server: ServerProcess, takers: list[Taker], token: str) -> None:
    """What was answered is there, unpaused and its taker's; every other process is an idle member's."""
    deadline = time.monotonic() + 60
    while True:
        seen, alive, pool = settled(server.base), running(token), status(server.base)
        directories = {path.name for path in (server.state_dir / "sandboxes").glob("*-*-*-*-*")}
        idle = alive - set(seen)
        adds_up = set(seen) <= alive == directories and len(idle) == BUFFER == pool["available"]
        if adds_up and pool["allocated"] == len(seen):
            break
        assert time.monotonic() < deadline, f"{len(seen)} seen, {len(alive)} run, {len(directories)} kept, {pool}"
        time.sleep(0.05)
    owners: dict[str, str] = {}
    for taker in takers:
        assert not taker.trouble, "\n".join(taker.trouble)
        for key, sandbox_id in list(taker.mine.items()):
            assert owners.setdefault(sandbox_id, key) == key, f"{sandbox_id} was given to two"
            if sandbox_id not in seen:
                assert sandbox_id in taker.deleting, f"lost: {sandbox_id}"
                del taker.mine[key]
                continue
            assert seen[sandbox_id]["metadata"] == {"key": key}
            assert seen[sandbox_id]["status"]["state"] == "Running"  # type: ignore[index]  # JSON


@pytest.mark.timeout(3600)
def test_kill_while_creates_take(server: ServerProcess) -> None:
    seed = int(os.environ.get("SHOAL_CRASH_SEED", str(random.SystemRandom().randrange(2**32))))
    print(f"SHOAL_CRASH_SEED={seed}")
    chance, token = random.Random(seed), uuid.uuid4().hex
    takers = [Taker(server.base, random.Random(chance.random())) for _ in range(CLIENTS)]
    server.start()
    template = {"image": {"uri": "host"}, "entrypoint": ["sleep", "3600"], "env": {TOKEN: token}}
    pool = {"name": "warm", "template": template, "capacitySpec": CAPACITY}
    assert httpx.post(f"{server.base}/v1/pools", json=pool, timeout=30).status_code == 201
    for _ in range(ROUNDS):
        check(server, takers, token)
        threads = [threading.Thread(target=taker.work) for taker in takers]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.02, 0.6))
        server.kill()
        for thread in threads:
            thread.join()
        server.start()
    check(server, takers, token)
    print(f"{ROUNDS} rounds: {sum(t.taken for t in takers)} taken, {sum(t.at_once for t in takers)} of them at once")
    assert sum(taker.at_once for taker in takers) > 0
