"""Agents for tests: one per module, or as many as a test starts."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
from tests.agent.program import USER, AgentProcess, StartAgent, interpreter


def _starter(base: Path) -> Iterator[StartAgent]:
    started: list[AgentProcess] = []

    def start(
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        uid: int | None = None,
        prefix: Sequence[str] = (),
    ) -> AgentProcess:
        """Starts an agent; skips the test if it cannot run as `uid` here."""
        if interpreter(uid) is None:
            pytest.skip(f"no Python here runs as uid {uid}: that takes root, setpriv and a Python that it may read")
        home = base / f"agent{len(started)}"
        home.mkdir()
        started.append(AgentProcess(home, flags, env, uid, prefix))
        return started[-1]

    yield start
    for agent in started:
        agent.stop()


@pytest.fixture
def start_agent() -> Iterator[StartAgent]:
    """Starts agents with flags, variables, a user; they stop with the test."""
    with _open_folder() as base:
        yield from _starter(base)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent as this process's user, one per test module."""
    for start in _starter(tmp_path_factory.mktemp("agent")):
        yield start()


@pytest.fixture(scope="module")
def user_agent() -> Iterator[AgentProcess]:
    """An agent as an ordinary user, one per test module."""
    with _open_folder() as base:
        for start in _starter(base):
            yield start(uid=USER)


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[httpx.Client]:
    """A client of the module's agent."""
    with agent.client() as client:
        yield client


@contextlib.contextmanager
def _open_folder() -> Iterator[Path]:
    """A folder that every user may enter. pytest's own are for their owner, and each new run closes them again."""
    with tempfile.TemporaryDirectory(prefix="shoal-agent-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path
