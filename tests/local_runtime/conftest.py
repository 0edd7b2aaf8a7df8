"""Runtimes over real processes. `runtime` comes once for each way of isolating that works on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.local_runtime.machine import Start, can_bubblewrap, can_unshare, local, settings

from shoal.plugin.interfaces import Agent
from shoal_local.config import LocalSettings
from shoal_local.runtime import LocalRuntime


@pytest.fixture(params=["unshare", "bubblewrap"])
def isolation(request: pytest.FixtureRequest) -> str:
    method = str(request.param)
    if method == "unshare" and not can_unshare():
        pytest.skip("user namespaces do not work here")
    if method == "bubblewrap" and not can_bubblewrap():
        pytest.skip("bubblewrap is not installed, or does not work here")
    return method


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts runtimes on one state directory, one at a time; removes every sandbox in the end."""
    running: list[LocalRuntime] = []

    async def begin(local: LocalSettings, allowed: tuple[str, ...] = ()) -> LocalRuntime:
        for runtime in running:
            await runtime.stop()
        runtime = LocalRuntime(settings(tmp_path, allowed=allowed), local)
        running[:] = [runtime]
        await runtime.start()
        return runtime

    yield begin
    for runtime in running:
        for workload in await runtime.list():
            await runtime.delete(workload.id)
        await runtime.stop()


@pytest.fixture
async def runtime(start: Start, isolation: str) -> LocalRuntime:
    return await start(local(isolation=isolation))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's files, built once."""
    pytest.importorskip("shoal_agent.placement", reason="the agent is not installed")
    folder = tmp_path_factory.mktemp("agent") / "bundle"
    subprocess.run([sys.executable, "-m", "shoal_agent.bundle", str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def agent(bundle: Path) -> Agent:
    """The real one."""
    from shoal_agent.placement import AgentSettings, BuiltinAgent

    return BuiltinAgent(AgentSettings(bundle=str(bundle)))
