"""A store in a folder of its own, and records to put into it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord, State
from shoal_sqlite.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "shoal.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
def sandbox() -> Callable[[], tuple[SandboxRecord, WorkloadPlan]]:
    """Makes a new record and its plan."""

    def make() -> tuple[SandboxRecord, WorkloadPlan]:
        now = datetime.now(UTC)
        id_ = str(uuid.uuid4())
        record = SandboxRecord(
            id=id_,
            runtime="local",
            state=State.PENDING,
            since=now,
            created_at=now,
            entrypoint=["sleep", "60"],
            expires_at=now + timedelta(minutes=5),
            metadata={"team": "a"},
        )
        plan = WorkloadPlan(id=id_, runtime="local", created_at=now, command=["sleep", "60"], image="host")
        return record, plan

    return make
