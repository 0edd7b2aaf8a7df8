"""What a test of execd makes on the engine is removed at the end of its module."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest
from tests.docker_runtime.engines import DOCKER_HOST
from tests.support.bench import Bench


@pytest.fixture(scope="module")
def module_bench() -> Iterator[Bench]:
    client = docker.DockerClient(base_url=DOCKER_HOST, timeout=60)
    made = Bench(client)
    try:
        yield made
    finally:
        made.clear()
        client.close()
