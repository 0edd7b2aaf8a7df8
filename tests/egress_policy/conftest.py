"""A real server on a real engine with an egress image of this package's own, for all tests of a module."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import docker
import pytest
from tests.docker_runtime.conftest import Bench
from tests.egress_policy.image import dockerfile
from tests.servers import ServerProcess

RUNTIME = '[runtime]\ntype = "docker"\nexecd_image = "shoal-test/execd:latest"\n'
Serve = Callable[..., ServerProcess]


@contextmanager
def _bench() -> Iterator[Bench]:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    client = docker.DockerClient(base_url=host, timeout=60)
    made = Bench(client)
    try:
        yield made
    finally:
        made.clear()
        client.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """What a test makes on the engine is removed at its end."""
    with _bench() as made:
        yield made


@pytest.fixture(scope="module")
def egress_image() -> Iterator[str]:
    with _bench() as made:
        yield made.image(dockerfile())


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """``serve(toml, network_mode=…)``: a server on Docker, stopped with the module; sandboxes are left."""
    with ExitStack() as stack:

        def started(toml: str, network_mode: str = "bridge") -> ServerProcess:
            low = random.SystemRandom().randrange(20000, 59000)
            own = f'network_mode = "{network_mode}"\nport_range_min = {low}\nport_range_max = {low + 2000}\n'
            server = ServerProcess(tmp_path_factory.mktemp("server"), f"{RUNTIME}[docker]\n{own}{toml}")
            stack.callback(server.stop)
            server.start()
            return server

        yield started


@pytest.fixture(scope="module")
def server(serve: Serve, egress_image: str) -> ServerProcess:
    """One whose egress image is this package's."""
    return serve(f'[egress]\nimage = "{egress_image}"\n')
