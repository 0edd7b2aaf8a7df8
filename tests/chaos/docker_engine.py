"""A server with the Docker runtime, on an engine of the run's own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests
from tests.chaos.faults import Fault
from tests.chaos.worlds import OneServer, small_disk
from tests.docker_runtime.engines import EXECD, IMAGE
from tests.docker_runtime.own_engine import OwnEngine, own_engine


class DockerWorld(OneServer):
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
def docker_world(home: Path, token: str) -> Iterator[DockerWorld]:
    """The engine's store is not on the server's disk."""
    with small_disk(home, 64), own_engine(live_restore=True) as engine:
        world = DockerWorld(home, engine, token)
        try:
            yield world
        finally:
            world.close()
