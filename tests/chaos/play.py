"""One run: rounds of work under faults, and after each a look at everything by the one who knows what was told."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from tests.chaos.clients import POOL, Client
from tests.chaos.faults import Fault
from tests.chaos.worlds import World

CLIENTS = 6
MOVING = {"Pending", "Pausing", "Resuming", "Stopping"}
Items = dict[str, dict[str, Any]]


@dataclass
class Report:
    """What a run did."""

    seed: int
    rounds: int = 0
    seconds: float = 0.0
    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    slowest_settling: float = 0.0

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.rounds} rounds in {self.seconds:.0f} s"]
        lines += [f"  operations: {_listed(self.operations)}", f"  faults: {_listed(self.faults)}"]
        lines.append(f"  settled after a round within {self.slowest_settling:.1f} s")
        return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


class Play:
    """A run in a world.

    Args:
        seed: decides operations, faults and their moments; the threads' turns it cannot decide.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._clients = [self._client(index) for index in range(CLIENTS)]
        self.report = Report(seed)

    def _client(self, index: int) -> Client:
        bases = [server.base for server in self._world.servers]
        turn = index % len(bases)
        return Client(
            bases[turn:] + bases[:turn],
            self._world.body,
            self._world.pooled_body,
            random.Random(self._chance.random()),
            self._over,
            self._world.ahead,
            self._world.meddled,
            self._world.tell_access,
            self._world.abilities,
            self._world.late_ends,
        )

    def run(self, seconds: float) -> Report:
        """Rounds for that long, two at least. Raises AssertionError with the seed in it."""
        began = time.monotonic()
        for server in self._world.servers:
            server.start(self._world.patience)
        self._make_pool()
        try:
            while self.report.rounds < 2 or time.monotonic() - began < seconds:
                self._round()
                self.report.rounds += 1
                self.report.seconds = time.monotonic() - began
            self._end()
        except Exception as error:
            kept = [shutil.copy(log, f"{tempfile.mkdtemp(prefix='chaos-')}/") for log in self._world.logs]
            raise AssertionError(f"{self.report}\n{error}\nlogs: {kept}") from error
        self.report.operations = sum((client.counts for client in self._clients), Counter[str]())
        return self.report

    def _make_pool(self) -> None:
        if "pool" not in self._world.abilities:
            return
        answer = httpx.post(f"{self._base}/v1/pools", json=self._world.pool, timeout=30)
        assert answer.status_code == 201, answer.text

    @property
    def _base(self) -> str:
        return self._world.servers[0].base

    def _round(self) -> None:
        self._over.clear()
        threads = [threading.Thread(target=client.work) for client in self._clients]
        for thread in threads:
            thread.start()
        struck = self._choose()
        strikes = [threading.Thread(target=self._strike, args=(fault, self._chance.random())) for fault in struck]
        for strike in strikes:
            strike.start()
        for strike in strikes:
            strike.join()
        time.sleep(self._chance.uniform(0.2, 2.0))
        self._heal(struck)
        time.sleep(self._chance.uniform(0.0, 0.5))
        self._over.set()
        for thread in threads:
            thread.join()
        self._judge()

    def _choose(self) -> list[Fault]:
        """One to three faults, none of them to the same target."""
        chosen: dict[str, Fault] = {}
        for fault in self._chance.sample(self._world.faults, k=self._chance.randint(1, 3)):
            chosen.setdefault(fault.target, fault)
        return list(chosen.values())

    def _strike(self, fault: Fault, chance: float) -> None:
        own = random.Random(chance)
        time.sleep(own.uniform(0.1, 2.0))
        self.report.faults[fault.name] += 1
        fault.strike(own)

    def _heal(self, struck: list[Fault]) -> None:
        """What a server needs first, then the servers."""
        for fault in sorted(struck, key=lambda fault: fault.target in ("server", "other server")):
            fault.heal()

    def _judge(self) -> None:
        """Everything settles, and then all that was told holds."""
        began = time.monotonic()
        deadline = began + self._world.patience
        while True:
            views = [view(server.base) for server in self._world.servers]
            wrong = self._unsettled(views)
            if not wrong:
                self.report.slowest_settling = max(self.report.slowest_settling, time.monotonic() - began)
                break
            assert time.monotonic() < deadline, f"stuck: {wrong}"
            time.sleep(0.1)
        for client in self._clients:
            assert not client.trouble, "\n".join(client.trouble)
            for seen in views:
                self._promises_hold(client, seen)
        self._keys_are_single(views[0])
        self._snapshots_hold()
        self._world.ahead(reset=True)

    def _unsettled(self, views: list[Items]) -> str:
        """What still moves or does not add up; empty once everything does."""
        seen, there = views[0], self._world.truth()
        alive = {each for each, item in seen.items() if item["status"]["state"] in ("Running", "Paused")}
        moving = {each: item["status"]["state"] for each, item in seen.items() if item["status"]["state"] in MOVING}
        now = datetime.now(UTC)
        # A create that failed is kept as Failed for a time of its own.
        lasting = {each: item for each, item in seen.items() if item["status"]["state"] != "Failed"}
        overdue = [each for each, item in lasting.items() if datetime.fromisoformat(item["expiresAt"]) < now]
        idle = (there | self._world.held()) - set(seen)
        if moving or overdue:
            return f"moving {moving}, overdue {overdue}"
        if any(set(other) != set(seen) for other in views[1:]):
            return f"servers disagree: {[set(other) ^ set(seen) for other in views[1:]]}"
        torn = [each for each in seen if len({_told(other[each]) for other in views}) > 1]
        if torn:
            return f"servers tell different things: {[[other[each] for other in views] for each in torn]}"
        if not alive <= there:
            return f"shown as alive without a workload: {alive - there}"
        if len(idle) != self._available():
            return f"{idle} run unseen, {self._available()} of them in the pool"
        return ""

    def _available(self) -> int:
        if "pool" not in self._world.abilities or not self._world.sees_idle:
            return 0
        return int(httpx.get(f"{self._base}/v1/pools/{POOL}", timeout=30).json()["status"]["available"])

    def _promises_hold(self, client: Client, seen: Items) -> None:
        back = client.gone & {each for each, item in seen.items() if item["status"]["state"] in ("Running", "Paused")}
        assert not back, f"came back: {back}"
        now = datetime.now(UTC) + timedelta(seconds=self._world.ahead())
        for promise in list(client.known.values()):
            item = seen.get(promise.id)
            if item is None:
                assert promise.id in client.meddled or promise.may_be_gone(now), f"lost: {promise}"
                client.over_with(promise)
                continue
            wrong = promise.found(item, now)
            assert wrong is None, wrong

    def _keys_are_single(self, seen: Items) -> None:
        keys = Counter(item["metadata"]["key"] for item in seen.values())
        doubled = [key for key, count in keys.items() if count > 1]
        assert not doubled, f"one key, several sandboxes: {doubled}"

    def _snapshots_hold(self) -> None:
        """Each that was acknowledged is there in a definite state; images are exactly those that are Ready."""
        if "snapshot" not in self._world.abilities:
            return
        deadline = time.monotonic() + self._world.patience
        while True:
            lists = [snapshots(server.base) for server in self._world.servers]
            found = lists[0]
            ready = {each for each, state in found.items() if state == "Ready"}
            images = self._world.images()
            alike = all(other == found for other in lists)
            if alike and not {"Creating", "Deleting"} & set(found.values()) and ready == images:
                break
            assert time.monotonic() < deadline, f"snapshots are stuck: {lists}, images {images}"
            time.sleep(0.1)
        for client in self._clients:
            lost = client.snapshots - client.dropped_snapshots - set(found)
            assert not lost, f"lost snapshots: {lost}"
            back = client.gone_snapshots & set(found)
            assert not back, f"snapshots came back: {back}"
            client.snapshots &= set(found)

    def _end(self) -> None:
        """Everything is deleted, and nothing is left anywhere."""
        with httpx.Client(base_url=self._base, timeout=60) as http:
            for sandbox_id in view(self._base):
                assert http.delete(f"/v1/sandboxes/{sandbox_id}").status_code in (204, 404)
            for snapshot in snapshots(self._base):
                assert http.delete(f"/v1/snapshots/{snapshot}").status_code in (204, 404)
            self._gone(self._world.lingering)
            if "pool" in self._world.abilities:
                assert http.delete(f"/v1/pools/{POOL}").status_code == 204
        self._gone(lambda: [*self._world.truth(), *self._world.leftovers(), *self._world.images()])

    def _gone(self, what: Callable[[], list[str]]) -> None:
        deadline = time.monotonic() + self._world.patience
        while left := what():
            assert time.monotonic() < deadline, f"left over: {left}"
            time.sleep(0.1)


def _told(item: dict[str, Any]) -> tuple[Any, ...]:
    """What every server must say of a sandbox alike."""
    return item["status"]["state"], item["expiresAt"], tuple(sorted(item["metadata"].items()))


def view(base: str) -> Items:
    """Every sandbox by id."""
    found: Items = {}
    page = 1
    while True:
        answer = httpx.get(f"{base}/v1/sandboxes", params={"page": page, "pageSize": 200}, timeout=60).json()
        found.update({item["id"]: item for item in answer["items"]})
        if not answer["pagination"]["hasNextPage"]:
            return found
        page += 1


def snapshots(base: str) -> dict[str, str]:
    """State by id of every snapshot."""
    answer = httpx.get(f"{base}/v1/snapshots", params={"pageSize": 200}, timeout=60)
    return {item["id"]: item["status"]["state"] for item in answer.json().get("items", [])}
