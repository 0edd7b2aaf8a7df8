"""A real server on a real engine with an egress image of this package's own, for all tests of a module."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import docker
import pytest
from tests.egress_policy import image as egress
from tests.egress_policy.parts import Parts, Serve
from tests.execd import image as execd
from tests.support.bench import Bench
from tests.support.servers import ServerProcess

BOTH = [
    pytest.param("stand-in", marks=pytest.mark.needs("debian")),
    pytest.param("real", marks=pytest.mark.needs("real", parts=["execd", "egress"])),
]


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
def module_bench() -> Iterator[Bench]:
    """The same for the tests of a module together."""
    with _bench() as made:
        yield made


@pytest.fixture(scope="module", params=BOTH)
def parts(request: pytest.FixtureRequest, module_bench: Bench) -> Parts:
    """The images of execd and of the sidecar: the stand-ins', then the real ones'."""
    if request.param == "real":
        return Parts(execd=execd.real_image(), egress=egress.real_image())
    made = module_bench.image
    return Parts(execd=made(execd.dockerfile()), egress=made(egress.dockerfile(), egress.BASE))


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, parts: Parts) -> Iterator[Serve]:
    """``serve(toml, network_mode=…)``: a server on Docker, stopped with the module; sandboxes are left."""
    with ExitStack() as stack:

        def started(toml: str, network_mode: str = "bridge") -> ServerProcess:
            low = random.SystemRandom().randrange(20000, 59000)
            runtime = f'[runtime]\ntype = "docker"\nexecd_image = "{parts.execd}"\n'
            own = f'network_mode = "{network_mode}"\nport_range_min = {low}\nport_range_max = {low + 2000}\n'
            server = ServerProcess(tmp_path_factory.mktemp("server"), f"{runtime}[docker]\n{own}{toml}")
            stack.callback(server.stop)
            server.start()
            return server

        yield started


@pytest.fixture(scope="module")
def server(serve: Serve, parts: Parts) -> ServerProcess:
    """One with that egress image, where addresses are filtered too."""
    return serve(f'[egress]\nimage = "{parts.egress}"\nmode = "dns+nft"\n')
