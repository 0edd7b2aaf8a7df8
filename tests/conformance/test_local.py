"""The conformance suite against the embedded local runtime, with real processes, for each way of isolating them."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shoal.config.settings import Settings, StoreSettings
from shoal.errors import ConfigError
from shoal.models.plan import WorkloadPlan
from shoal.testing.conformance import Harness, RuntimeConformance

config = pytest.importorskip("shoal_local.config", reason="the local runtime is not installed")
runtime = pytest.importorskip("shoal_local.runtime", reason="the local runtime is not installed")


def greeter(port: int) -> str:
    """A line of shell."""
    program = (
        f"import socket; s = socket.create_server(('127.0.0.1', {port}));\n"
        "while True: c, _ = s.accept(); c.sendall(b'hello'); c.close()\n"
    )
    return f"exec /usr/bin/python3 -c {shlex.quote(program)}"


@pytest.fixture(params=["unshare", "bubblewrap"])
async def conformance(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    settings = Settings(store=StoreSettings(path=str(tmp_path / "shoal.db")))
    local = config.LocalSettings(isolation=request.param, state_dir=str(tmp_path / "local"))
    plan = WorkloadPlan(id="", runtime="local", created_at=datetime.now(UTC), command=["true"], image="host")
    harness = Harness(make=lambda: runtime.LocalRuntime(settings, local), plan=plan, listen=greeter)
    try:
        async with harness.started():
            pass
    except ConfigError as error:
        pytest.skip(f"isolation by {request.param} does not work here: {error}")
    return harness


class TestLocalRuntime(RuntimeConformance):
    pass
