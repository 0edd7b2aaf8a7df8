"""The conformance suite against a real Docker engine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from shoal.config.settings import Settings, StoreSettings
from shoal.models.plan import WorkloadPlan
from shoal.testing.conformance import Harness, RuntimeConformance

config = pytest.importorskip("shoal_docker.config", reason="the Docker runtime is not installed")
runtime = pytest.importorskip("shoal_docker.runtime", reason="the docker package is not installed")

pytestmark = pytest.mark.needs("docker")


@pytest.fixture(params=["bridge", "host", "none"])
def conformance(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    settings = Settings(store=StoreSettings(path=str(tmp_path / "shoal.db")))
    docker = config.DockerSettings(network_mode=request.param)
    plan = WorkloadPlan(
        id="", runtime="docker", created_at=datetime.now(UTC), command=["true"], image="shoal-test/busybox:latest"
    )
    return Harness(
        make=lambda: runtime.DockerRuntime(settings, docker, config.SecureRuntimeSettings()), plan=plan
    )


class TestDockerRuntime(RuntimeConformance):
    pass
