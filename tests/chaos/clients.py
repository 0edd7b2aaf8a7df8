"""Clients that create, renew, patch, pause, resume, snapshot, take from a pool and delete, at random, under faults.

A client works on sandboxes of its own and writes down what it was told. Trouble is an answer that no fault explains: a
status that the operation does not have, an end before its time, an error that is not one of ours.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from tests.chaos.promises import Promise

POOL = "chaos"

AWAY = frozenset({429, 500, 502, 503, 504})
"""What may be answered while something is away. A 500 must carry a code that names what failed."""
BUG = "GENERAL::"
Body = dict[str, Any]


@dataclass
class Client:
    """Works until `over` is set.

    Args:
        bases: the servers; the client talks to the first, and deletes through any of them.
        body: what every create sends besides its own.
        pooled_body: the same of those that take from a pool.
        abilities: names of the operations that this world has beyond the common ones.
        ahead: seconds by which the server's clock may have been ahead of ours since the last look.
        meddled: ids of the sandboxes whose workload somebody removes behind the server's back.
        late_ends: something besides the servers ends what is over, and may not have heard of a renewal yet.
    """

    bases: list[str]
    body: Body
    pooled_body: Body
    chance: random.Random
    over: threading.Event
    ahead: Callable[[], float]
    meddled: set[str] = field(default_factory=set)
    tell_access: Callable[[str, datetime], None] = lambda _sandbox_id, _at: None
    abilities: frozenset[str] = frozenset()
    late_ends: bool = False
    known: dict[str, Promise] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    unanswered: str | None = None
    source: str | None = None
    snapshots: set[str] = field(default_factory=set)
    dropped_snapshots: set[str] = field(default_factory=set)
    gone_snapshots: set[str] = field(default_factory=set)
    trouble: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def work(self) -> None:
        """The thread's body."""
        with httpx.Client(timeout=60) as http:
            while not self.over.is_set():
                try:
                    self.step(http)
                except httpx.TransportError:
                    self.counts["unanswered"] += 1
                    self.over.wait(0.05)

    def step(self, http: httpx.Client) -> None:
        """One operation."""
        promise = self.chance.choice(list(self.known.values())) if self.known else None
        if self.unanswered or promise is None or (len(self.known) < 4 and self.chance.random() < 0.4):
            self.create(http)
            return
        choices = [self.renew, self.renew, self.shorten, self.patch, self.patch, self.pause, self.resume, self.delete]
        if "snapshot" in self.abilities and self.chance.random() < 0.15:
            choices = [self.snapshot, self.drop_snapshot]
        if "access" in self.abilities:
            choices.append(self.access)
        operation = self.delete if promise.deleting else self.chance.choice(choices)
        operation(http, promise)

    def create(self, http: httpx.Client) -> None:
        """A new sandbox, or the same request again if its answer never came."""
        if self.unanswered is None:
            kind = self.chance.choice(self.kinds())
            self.source = self.chance.choice(sorted(self.snapshots)) if kind == "restore" else None
            self.unanswered = f"{kind}-{uuid.uuid4()}"
        kind = self.unanswered.partition("-")[0]
        body = self.pooled_body if kind == "pool" else self.body
        body = {**body, "timeout": 600, "metadata": {"patched": "0", "key": self.unanswered}}
        if self.source is not None:
            del body["image"]
            body["snapshotId"] = self.source
        answer = http.post(
            f"{self.bases[0]}/v1/sandboxes", json=body, headers={"Idempotency-Key": self.unanswered}, timeout=60
        )
        if answer.status_code == 409 or (answer.status_code == 404 and kind != "plain"):
            self.unanswered = None  # it was made and is over by now; or what it is made from is not there, or not yet
        elif self.fits(kind.replace("plain", "create"), answer, 202):
            made = answer.json()
            self.unanswered = None
            expires_at = datetime.fromisoformat(made["expiresAt"])
            superseded: set[datetime] | None = set() if self.late_ends else None
            self.known[made["id"]] = Promise(made["id"], expires_at, pooled=kind == "pool", superseded=superseded)
        elif answer.status_code == 429:
            self.unanswered = None

    def kinds(self) -> list[str]:
        """Of creates, each as often as it is to be chosen."""
        kinds = ["plain"] * 5
        if "pool" in self.abilities:
            kinds += ["pool"] * 2
        return [*kinds, "restore"] if self.snapshots else kinds

    def renew(self, http: httpx.Client, promise: Promise) -> None:
        self._renew("renew", http, promise, self.chance.uniform(120, 900))

    def shorten(self, http: httpx.Client, promise: Promise) -> None:
        self._renew("shorten", http, promise, self.chance.uniform(0.5, 4))

    def _renew(self, name: str, http: httpx.Client, promise: Promise, seconds: float) -> None:
        wanted = datetime.now(UTC) + timedelta(seconds=seconds)
        promise.ask(wanted)
        answer = http.post(
            f"{self.bases[0]}/v1/sandboxes/{promise.id}/renew-expiration", json={"expiresAt": wanted.isoformat()}
        )
        if answer.status_code == 400 and self.clock() >= wanted:
            promise.perhaps_expires_at.discard(wanted)  # it was in the past by the time that it got there
        elif answer.status_code in (404, 409):
            self.must_have_ended(promise, answer)
        elif self.fits(name, answer, 200):
            promise.told(wanted)

    def patch(self, http: httpx.Client, promise: Promise) -> None:
        wanted = max({promise.patched} | promise.perhaps_patched) + 1
        promise.perhaps_patched.add(wanted)
        answer = http.patch(f"{self.bases[0]}/v1/sandboxes/{promise.id}/metadata", json={"patched": str(wanted)})
        if answer.status_code == 404:
            self.must_have_ended(promise, answer)
        elif self.fits("patch", answer, 200):
            promise.patched, promise.perhaps_patched = wanted, set()

    def pause(self, http: httpx.Client, promise: Promise) -> None:
        """Of a native pool's members the real controller keeps the objects for good once they were paused."""
        if not (promise.pooled and self.late_ends):
            self._freeze(http, promise, "pause")

    def resume(self, http: httpx.Client, promise: Promise) -> None:
        self._freeze(http, promise, "resume")

    def _freeze(self, http: httpx.Client, promise: Promise, what: str) -> None:
        answer = http.post(f"{self.bases[0]}/v1/sandboxes/{promise.id}/{what}")
        if answer.status_code == 404:
            self.must_have_ended(promise, answer)
        else:
            self.fits(what, answer, 202, 409, 501)

    def snapshot(self, http: httpx.Client, promise: Promise) -> None:
        answer = http.post(f"{self.bases[0]}/v1/sandboxes/{promise.id}/snapshots", json={"name": "chaos"})
        if answer.status_code == 404:
            self.must_have_ended(promise, answer)
        elif self.fits("snapshot", answer, 202, 409) and answer.status_code == 202:
            self.snapshots.add(answer.json()["id"])

    def drop_snapshot(self, http: httpx.Client, promise: Promise) -> None:
        if not self.snapshots:
            return
        snapshot = self.chance.choice(sorted(self.snapshots))
        self.dropped_snapshots.add(snapshot)  # from here on it may be there or not
        answer = http.delete(f"{self.chance.choice(self.bases)}/v1/snapshots/{snapshot}")
        if self.fits("drop snapshot", answer, 204, 404, 409) and answer.status_code != 409:
            self.snapshots.discard(snapshot)
            if answer.status_code == 204:
                self.gone_snapshots.add(snapshot)

    def access(self, http: httpx.Client, promise: Promise) -> None:
        """Tell of an access, as a gateway does: it may renew, now or later, or be lost with Redis."""
        now = datetime.now(UTC)
        promise.accessed_at = promise.accessed_at or now
        self.tell_access(promise.id, now)
        self.counts["access"] += 1

    def delete(self, http: httpx.Client, promise: Promise) -> None:
        """Through any of the servers: what another has not seen yet is a 404 there, and is deleted here."""
        base = self.chance.choice(self.bases)
        unseen = promise.deleting or base is not self.bases[0]
        promise.deleting = True
        answer = http.delete(f"{base}/v1/sandboxes/{promise.id}")
        if answer.status_code == 404 and base is not self.bases[0]:
            return
        if answer.status_code == 404 and not unseen:
            promise.deleting = False
            self.must_have_ended(promise, answer)
        elif self.fits("delete", answer, 204, 404):
            self.over_with(promise)

    def must_have_ended(self, promise: Promise, answer: httpx.Response) -> None:
        """The server says that it is over; true only if it may be."""
        now = self.clock()
        if promise.id not in self.meddled and not promise.may_be_gone(now):
            self.trouble.append(f"ended early: {answer.status_code} {answer.text} at {now}: {promise}")
        if answer.status_code == 404:
            self.over_with(promise)

    def clock(self) -> datetime:
        """The latest that the server's clock may show."""
        return datetime.now(UTC) + timedelta(seconds=self.ahead())

    def over_with(self, promise: Promise) -> None:
        """It is gone, and must stay so."""
        self.gone.add(promise.id)
        self.known.pop(promise.id, None)

    def fits(self, name: str, answer: httpx.Response, *wanted: int) -> bool:
        """Whether it was carried out. What neither the operation nor a fault explains is trouble."""
        if answer.status_code in wanted:
            self.counts[name] += 1
            return True
        code = str(_json(answer).get("code", ""))
        if answer.status_code in AWAY and code and not (answer.status_code == 500 and code.startswith(BUG)):
            self.counts["refused"] += 1
            self.over.wait(0.02)
        else:
            self.trouble.append(f"{answer.request.method} {answer.url.path}: {answer.status_code} {answer.text[:300]}")
        return False


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
