"""kill -9 at random instants of random operations: nothing lost, nothing leaked, no expiry early or lost.

Each round starts the server on what the last one left, checks that the view equals what runs, lets several clients work
at random, and kills the server in the middle. A client writes down what it was told, and only that must hold
afterwards: what was asked for without an answer may have happened or not.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from glob import glob
from pathlib import Path

import httpx
import pytest
from tests.support.servers import ServerProcess

ROUNDS = int(os.environ.get("SHOAL_CRASH_ROUNDS", "200"))
CLIENTS = 4
TOKEN = "SHOAL_CRASH_TEST"
SLACK = timedelta(seconds=2)
"""How late an expiry may be on a loaded machine before it counts as lost; never early, by any measure."""


@dataclass
class Known:
    """What one client knows of one sandbox of its own."""

    id: str
    expires_at: datetime
    maybe_expires_at: datetime | None = None
    patched: int = 0
    maybe_patched: int = 0
    deleting: bool = False

    @property
    def earliest_end(self) -> datetime:
        return min(self.expires_at, self.maybe_expires_at or self.expires_at)

    @property
    def latest_end(self) -> datetime:
        return max(self.expires_at, self.maybe_expires_at or self.expires_at)


@dataclass
class Client:
    """Works on its own sandboxes until the server is gone."""

    base: str
    token: str
    random: random.Random
    image: str = "host"
    known: dict[str, Known] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def work(self) -> None:
        with httpx.Client(base_url=self.base, timeout=30) as http:
            while True:
                try:
                    self.step(http)
                except httpx.TransportError:
                    return

    def step(self, http: httpx.Client) -> None:
        known = self.random.choice(list(self.known.values())) if self.known else None
        if known is None or (len(self.known) < 6 and self.random.random() < 0.4):
            self.create(http)
        else:
            operation = self.random.choice((self.renew, self.shorten, self.patch, self.pause, self.resume, self.delete))
            self.counts[operation.__name__] += 1
            operation(http, known)

    def create(self, http: httpx.Client) -> None:
        key = str(uuid.uuid4())
        self.keys[key] = ""
        body = {
            "image": {"uri": self.image},
            "entrypoint": ["sleep", "3600"],
            "resourceLimits": {},
            "timeout": 600,
            "env": {TOKEN: self.token},
            "metadata": {"patched": "0"},
        }
        answer = http.post("/v1/sandboxes", json=body, headers={"Idempotency-Key": key})
        if self.fits(answer, 202):
            made = answer.json()
            self.keys[key] = made["id"]
            self.known[made["id"]] = Known(made["id"], datetime.fromisoformat(made["expiresAt"]))
            self.counts["create"] += 1

    def renew(self, http: httpx.Client, known: Known) -> None:
        self._renew(http, known, timedelta(seconds=self.random.uniform(60, 900)))

    def shorten(self, http: httpx.Client, known: Known) -> None:
        self._renew(http, known, timedelta(seconds=self.random.uniform(0.5, 4)))

    def _renew(self, http: httpx.Client, known: Known, life: timedelta) -> None:
        wanted = datetime.now(UTC) + life
        known.maybe_expires_at = wanted
        answer = http.post(f"/v1/sandboxes/{known.id}/renew-expiration", json={"expiresAt": wanted.isoformat()})
        if answer.status_code in (404, 409):
            self.must_have_ended(known, answer)
        elif self.fits(answer, 200):
            known.expires_at, known.maybe_expires_at = wanted, None

    def patch(self, http: httpx.Client, known: Known) -> None:
        known.maybe_patched = known.patched + 1
        answer = http.patch(f"/v1/sandboxes/{known.id}/metadata", json={"patched": str(known.maybe_patched)})
        if answer.status_code == 404:
            self.must_have_ended(known, answer)
        elif self.fits(answer, 200):
            known.patched = known.maybe_patched

    def pause(self, http: httpx.Client, known: Known) -> None:
        self._freeze(http, known, "pause")

    def resume(self, http: httpx.Client, known: Known) -> None:
        self._freeze(http, known, "resume")

    def _freeze(self, http: httpx.Client, known: Known, what: str) -> None:
        answer = http.post(f"/v1/sandboxes/{known.id}/{what}")
        if answer.status_code == 404:
            self.must_have_ended(known, answer)
        else:
            self.fits(answer, 202, 409)

    def delete(self, http: httpx.Client, known: Known) -> None:
        known.deleting = True
        answer = http.delete(f"/v1/sandboxes/{known.id}")
        if self.fits(answer, 204, 404):
            if answer.status_code == 404:
                self.must_have_ended(known, answer)
            self.gone.add(known.id)
            self.known.pop(known.id, None)

    def must_have_ended(self, known: Known, answer: httpx.Response) -> None:
        """The server says that it is over: true only if it may have run out, or a delete was asked for before."""
        if datetime.now(UTC) < known.earliest_end and not known.deleting:
            self.trouble.append(f"{known.id} ended early: {answer.status_code} {answer.text}; due {known.earliest_end}")
        if answer.status_code == 404:
            self.gone.add(known.id)
            self.known.pop(known.id, None)

    def fits(self, answer: httpx.Response, *wanted: int) -> bool:
        if answer.status_code not in wanted:
            self.trouble.append(f"{answer.request.method} {answer.url.path}: {answer.status_code} {answer.text}")
        return answer.status_code in wanted


def running(token: str) -> set[str]:
    """Ids of the sandboxes whose processes carry our token, from /proc alone."""
    found: set[str] = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = environ.read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{TOKEN}={token}".encode() in variables:
            found.update(
                v.removeprefix(b"OPENSANDBOX_ID=").decode() for v in variables if v.startswith(b"OPENSANDBOX_ID=")
            )
    return found


def settled(base: str) -> dict[str, dict[str, object]]:
    """Every sandbox by id, once none is on its way from one state to another."""
    deadline = time.monotonic() + 30
    while True:
        items: list[dict[str, object]] = httpx.get(base + "/v1/sandboxes?pageSize=200", timeout=30).json()["items"]
        states = {str(item["id"]): item["status"]["state"] for item in items}  # type: ignore[index]  # JSON
        if not set(states.values()) & {"Pending", "Pausing", "Resuming", "Stopping"}:
            return {str(item["id"]): item for item in items}
        assert time.monotonic() < deadline, f"never settled: {states}"
        time.sleep(0.02)


def check(server: ServerProcess, clients: list[Client], token: str) -> None:
    """The view equals what runs, and what each client was told holds."""
    for _ in range(50):  # an expiry may fire between the looks; then they differ for a moment
        before = datetime.now(UTC)
        seen, alive = settled(server.base), running(token)
        directories = {
            entry.name for entry in (server.state_dir / "sandboxes").iterdir() if not entry.name.startswith(".")
        }
        after = datetime.now(UTC)
        if set(seen) == alive == directories:
            break
        time.sleep(0.1)
    assert set(seen) == alive, f"view {set(seen) - alive} only, running {alive - set(seen)} only"
    assert directories == set(seen), f"leaked directories: {directories ^ set(seen)}"
    gone = set().union(*(client.gone for client in clients))
    # Not Path.glob, for which a group that goes meanwhile is an error.
    groups = {Path(group).name for group in glob("/sys/fs/cgroup/*/shoal-*/*-*-*-*-*")} & gone  # noqa: PTH207
    assert not groups, f"leaked control groups: {groups}"
    promises_hold(clients, seen, before, after)


def promises_hold(clients: list[Client], seen: dict[str, dict[str, object]], before: datetime, after: datetime) -> None:
    """What each client was told is so in a view that was read between the two times."""
    for client in clients:
        assert not client.trouble, "\n".join(client.trouble)
        assert not client.gone & set(seen), f"came back: {client.gone & set(seen)}"
        for known in list(client.known.values()):
            item = seen.get(known.id)
            if item is None:
                assert known.deleting or after >= known.earliest_end, f"lost: {known}"
                client.gone.add(known.id)
                del client.known[known.id]
                continue
            assert before <= known.latest_end + SLACK, f"outlived its expiry: {known}"
            expires_at = datetime.fromisoformat(str(item["expiresAt"]))
            assert expires_at in (known.expires_at, known.maybe_expires_at), f"{known}: {expires_at}"
            patched = int(item["metadata"]["patched"])  # type: ignore[index]  # JSON
            assert patched in (known.patched, known.maybe_patched), f"{known}: patched {patched}"
            known.expires_at, known.maybe_expires_at = expires_at, None
            known.patched = known.maybe_patched = patched
            known.deleting = False


def adopt_in_doubt(server: ServerProcess, clients: list[Client]) -> None:
    """Sandboxes whose 202 was lost on the way: the same key finds them, and their client takes them on."""
    named = {known for client in clients for known in client.known} | {
        gone for client in clients for gone in client.gone
    }
    for item in settled(server.base).values():
        if item["id"] not in named:
            client = clients[0]
            client.known[str(item["id"])] = Known(str(item["id"]), datetime.fromisoformat(str(item["expiresAt"])))


def work_until_killed(server: ServerProcess, clients: list[Client], seconds: float) -> None:
    """All clients at once, for that long."""
    threads = [threading.Thread(target=client.work) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    server.kill()
    for thread in threads:
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    yield server
    server.kill()
    server.start()
    for item in settled(server.base):
        httpx.delete(f"{server.base}/v1/sandboxes/{item}", timeout=30)
    server.stop()


@pytest.mark.timeout(3600)
def test_kill_at_random_instants(server: ServerProcess) -> None:
    seed = int(os.environ.get("SHOAL_CRASH_SEED", str(random.SystemRandom().randrange(2**32))))
    print(f"SHOAL_CRASH_SEED={seed}")
    chance = random.Random(seed)
    token = uuid.uuid4().hex
    clients = [Client(server.base, token, random.Random(chance.random())) for _ in range(CLIENTS)]
    for _ in range(ROUNDS):
        server.start()
        adopt_in_doubt(server, clients)
        check(server, clients, token)
        work_until_killed(server, clients, chance.uniform(0.02, 0.6))
    server.start()
    adopt_in_doubt(server, clients)
    check(server, clients, token)
    total = sum((client.counts for client in clients), Counter[str]())
    print(f"{ROUNDS} rounds: {dict(total)}")
    assert total["create"] > 0
