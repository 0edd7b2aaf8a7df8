"""The conformance suite against a real Docker engine, and against Podman behind the same API."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.docker_runtime.engines import IMAGE, bring_images

from shoal.config.settings import Settings, StoreSettings
from shoal.models.plan import WorkloadPlan
from shoal.testing.conformance import Harness, RuntimeConformance

config = pytest.importorskip("shoal_docker.config", reason="the Docker runtime is not installed")
runtime = pytest.importorskip("shoal_docker.runtime", reason="the docker package is not installed")


@pytest.fixture(
    params=[
        *(pytest.param(("docker", mode), marks=pytest.mark.needs("docker")) for mode in ("bridge", "host", "none")),
        pytest.param(("podman", "bridge"), marks=pytest.mark.needs("podman")),
    ],
    ids="-".join,
)
def conformance(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    engine, mode = request.param
    host = os.environ["SHOAL_TEST_PODMAN_HOST"] if engine == "podman" else None
    settings = Settings(store=StoreSettings(path=str(tmp_path / "shoal.db")))
    docker = config.DockerSettings(host=host, network_mode=mode)
    if engine == "podman":
        bring_images(host)
    plan = WorkloadPlan(id="", runtime="docker", created_at=datetime.now(UTC), command=["true"], image=IMAGE)
    return Harness(make=lambda: runtime.DockerRuntime(settings, docker, config.SecureRuntimeSettings()), plan=plan)


class TestDockerRuntime(RuntimeConformance):
    pass
