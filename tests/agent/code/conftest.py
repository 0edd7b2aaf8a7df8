"""Agents whose python3 is the one that runs the tests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.agent.program import TEST_PATH, AgentProcess


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent without a Jupyter server, one per test module."""
    env = {"PATH": TEST_PATH, "EXECD_ACCESS_TOKEN": "s3cret", "JUPYTER_TOKEN": "s3cret", "SEEN": "yes"}
    started = AgentProcess(tmp_path_factory.mktemp("agent"), env=env)
    yield started
    started.stop()


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[httpx.Client]:
    """A client of the module's agent, with its token."""
    with agent.client(X_EXECD_ACCESS_TOKEN="s3cret") as client:
        yield client
