"""Where the clients and the faults meet: a server, an engine, and what the engine says that it has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec
import redis
from tests.chaos.clients import POOL, Body
from tests.chaos.faults import Clock, Fault, Redis, full_disk, of_server
from tests.crash.test_kill import TOKEN
from tests.support.servers import ServerProcess

ENGINE = "[lifecycle]\npool_settle_seconds = 0\n"


class World(Protocol):
    """What a run is played in.

    Attributes:
        servers: the first one is every client's, unless there are several.
        body: what creates send.
        pool: the request that makes the pool, and ``pooled_body`` what creates send that take from it.
        sees_idle: whether idle members of the pool are in `truth`.
        abilities: operations beyond the common ones: ``pool``, ``snapshot``, ``access``.
        faults: what may happen.
        lacking: what cannot happen here, and why.
        meddled: ids of the sandboxes whose workload was removed behind the server's back.
        late_ends: a controller of the engine ends what is over as well, by what it has seen.
        patience: how long everything may take to settle once nothing is wrong any more, in seconds.
        logs: files that tell what happened, kept of a run that failed.
    """

    servers: list[ServerProcess]
    body: Body
    pool: Body
    pooled_body: Body
    sees_idle: bool
    abilities: frozenset[str]
    faults: list[Fault]
    lacking: list[str]
    meddled: set[str]
    late_ends: bool
    patience: float
    logs: list[Path]

    def ahead(self, *, reset: bool = False) -> float:
        """Seconds by which a server's clock has been ahead of ours at most, since the last reset."""
        ...

    def tell_access(self, sandbox_id: str, at: datetime) -> None:
        """Tell of an access as a gateway does."""
        ...

    def truth(self) -> set[str]:
        """Ids of everything that runs or is frozen, by the engine alone."""
        ...

    def held(self) -> set[str]:
        """Ids of everything that the engine has anything of."""
        ...

    def images(self) -> set[str]:
        """Ids of the snapshots that the engine holds an image of."""
        ...

    def lingering(self) -> list[str]:
        """What of deleted sandboxes has to go before their pool does."""
        ...

    def leftovers(self) -> list[str]:
        """What nobody needs once every sandbox is deleted."""
        ...


class OneServer:
    """What the worlds with a single server share: its faults, a disk of its own, a clock, a Redis."""

    def __init__(self, home: Path, config: str, token: str, image: str) -> None:
        self.lacking: list[str] = []
        self.meddled: set[str] = set()
        self.faults: list[Fault] = [full_disk(home)]
        self._clock = self._with_clock(home)
        self._redis = self._with_redis(home)
        renewal = "[renew_intent]\nenabled = true\nmin_interval_seconds = 1\n"
        if self._redis is not None:
            renewal += f'redis.enabled = true\nredis.dsn = "redis://127.0.0.1:{self._redis.port}/0"\n'
        environment = self._clock.environment if self._clock is not None else {}
        self.server = ServerProcess(home, f"{config}{ENGINE}{renewal}", environment)
        self.servers = [self.server]
        self.logs = [self.server.log]
        self.patience = 120.0
        self.late_ends = False
        self.faults += of_server(self.server)
        self.body = {
            "image": {"uri": image},
            "entrypoint": ["sleep", "3600"],
            "resourceLimits": {},
            "env": {TOKEN: token},
            "extensions": {"access.renew.extend.seconds": "300"},
        }
        template = {key: self.body[key] for key in ("image", "entrypoint", "env")}
        capacity = {"bufferMin": 1, "bufferMax": 2, "poolMin": 0, "poolMax": 12}
        self.pool = {"name": POOL, "template": template, "capacitySpec": capacity}
        self.pooled_body = {"resourceLimits": {}, "extensions": {"poolRef": POOL}}
        self.sees_idle = True
        self.abilities = frozenset({"pool"} | ({"access"} if self._redis else set()))

    def _with_clock(self, home: Path) -> Clock | None:
        missing = Clock.missing()
        if missing:
            self.lacking.append(f"a moved clock: {missing}")
            return None
        clock = Clock(home)
        self.faults.append(clock.fault)
        return clock

    def _with_redis(self, home: Path) -> Redis | None:
        missing = Redis.missing()
        if missing:
            self.lacking.append(f"Redis away: {missing}")
            return None
        redis = Redis(home)
        self.faults.append(redis.fault)
        return redis

    def ahead(self, *, reset: bool = False) -> float:
        if self._clock is None:
            return 0.0
        if reset:
            self._clock.ahead = 0.0
        return self._clock.ahead

    def tell_access(self, sandbox_id: str, at: datetime) -> None:
        assert self._redis is not None
        intent = msgspec.json.encode({"sandbox_id": sandbox_id, "observed_at": at})
        with suppress(redis.RedisError), redis.Redis(port=self._redis.port, socket_timeout=1) as client:
            client.lpush("opensandbox:renew:intent", intent)

    def truth(self) -> set[str]:
        raise NotImplementedError

    def held(self) -> set[str]:
        return self.truth()

    def images(self) -> set[str]:
        return set()

    def lingering(self) -> list[str]:
        return []

    def close(self) -> None:
        self.server.kill()
        if self._redis is not None:
            self._redis.kill()


@contextmanager
def small_disk(home: Path, megabytes: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", home], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", home], check=True)
