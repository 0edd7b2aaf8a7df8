"""Where the clients and the faults meet: a server, an engine, and what the engine says that it has."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import docker
import docker.errors
import msgspec
import redis
import requests
from tests.chaos.clients import Body
from tests.chaos.faults import Clock, Fault, Redis, full_disk, of_server
from tests.crash.test_kill import TOKEN, running
from tests.docker_runtime.engines import EXECD, IMAGE
from tests.docker_runtime.own_engine import OwnEngine, own_engine
from tests.servers import ServerProcess

ENGINE = "[lifecycle]\npool_settle_seconds = 0\n"


class World(Protocol):
    """What a run is played in.

    Attributes:
        servers: the first one is every client's, unless there are several.
        body: what creates send.
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

    def leftovers(self) -> list[str]:
        """What nobody needs once every sandbox is deleted."""
        ...


class _OneServer:
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

    def close(self) -> None:
        self.server.kill()
        if self._redis is not None:
            self._redis.kill()


class LocalWorld(_OneServer):
    """Process trees of this machine; the truth is in /proc."""

    def __init__(self, home: Path, token: str) -> None:
        super().__init__(home, "", token, "host")
        self._token = token
        self._sandboxes = self.server.state_dir / "sandboxes"

    def truth(self) -> set[str]:
        """A command that was frozen before it began has not got our token yet; its frame has its id."""
        kept = set(self.leftovers())
        return running(self._token) | {each for each in _frames().values() if each in kept}

    def leftovers(self) -> list[str]:
        return [path.name for path in self._sandboxes.glob("*-*-*-*-*")]

    def close(self) -> None:
        """Of a run that failed, nothing goes on."""
        super().close()
        kept = set(self.leftovers())
        for pid, sandbox_id in _frames().items():
            if sandbox_id in kept:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _frames() -> dict[int, str]:
    """Sandbox id by process, of the processes that the local runtime starts around its sandboxes."""
    found = {}
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            marks = [v for v in environ.read_bytes().split(b"\0") if v.startswith(b"SHOAL_SANDBOX=")]
            found.update({int(environ.parent.name): mark.partition(b"=")[2].decode() for mark in marks})
    return found


class DockerWorld(_OneServer):
    """Containers of an engine of the run's own, which outlive it."""

    def __init__(self, home: Path, engine: OwnEngine, token: str) -> None:
        config = (
            f'[runtime]\ntype = "docker"\nexecd_image = "{EXECD}"\n'
            f'[docker]\nhost = "{engine.host}"\nnetwork_mode = "none"\napi_timeout = 5\n'
        )
        super().__init__(home, config, token, IMAGE)
        self.abilities |= {"snapshot"}
        self._engine = engine
        self.faults += [
            Fault("the engine hangs", "engine", lambda _chance: engine.hang(), engine.go_on),
            Fault("the engine is restarted", "engine", lambda _chance: engine.stop(), self._start_engine),
            Fault("kill -9 of the engine", "engine", lambda _chance: engine.kill(), self._start_engine),
            Fault("a container removed behind its back", "container", self._meddle),
        ]

    def _start_engine(self) -> None:
        if not self._engine.answers():
            self._engine.start()

    def _meddle(self, chance: random.Random) -> None:
        with _client(self._engine) as client, suppress(docker.errors.APIError, requests.RequestException):
            there = sorted(self._containers(client))
            if there:
                victim = chance.choice(there)
                self.meddled.add(victim)
                client.api.remove_container(f"sandbox-{victim}", force=True)

    def _containers(self, client: docker.DockerClient) -> set[str]:
        found = client.api.containers(all=True, filters={"label": "opensandbox.io/id"})
        return {each["Labels"]["opensandbox.io/id"] for each in found}

    def truth(self) -> set[str]:
        with _client(self._engine) as client:
            return self._containers(client)

    def images(self) -> set[str]:
        with _client(self._engine) as client:
            tags = [tag for image in client.api.images() for tag in image["RepoTags"] or []]
        return {tag.partition(":")[2] for tag in tags if tag.startswith("opensandbox-snapshots:")}

    def leftovers(self) -> list[str]:
        with _client(self._engine) as client:
            names = [name for each in client.api.containers(all=True) for name in each["Names"]]
            volumes = [volume["Name"] for volume in client.api.volumes()["Volumes"] or []]
        return names + [name for name in volumes if not name.startswith("opensandbox-execd-")]


@contextmanager
def _client(engine: OwnEngine) -> Iterator[Any]:
    # With a version it asks nothing yet, so that an engine that is away is an error of the first call.
    client = docker.DockerClient(base_url=engine.host, timeout=30, version="1.40")
    try:
        yield client
    finally:
        client.close()


@contextmanager
def local_world(home: Path, token: str) -> Iterator[LocalWorld]:
    """Its home is a small file system of its own, so that a full one harms nobody else."""
    with small_disk(home, 256):
        world = LocalWorld(home, token)
        try:
            yield world
        finally:
            world.close()


@contextmanager
def docker_world(home: Path, token: str) -> Iterator[DockerWorld]:
    """The engine's store is not on the server's disk."""
    with small_disk(home, 64), own_engine(live_restore=True) as engine:
        world = DockerWorld(home, engine, token)
        try:
            yield world
        finally:
            world.close()


@contextmanager
def small_disk(home: Path, megabytes: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", home], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", home], check=True)
