"""``kill -9`` at any instant: what was acknowledged is there afterwards, and each call wholly or not at all."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from shoal.models.sandbox import State
from shoal_sqlite.sqlite import SqliteStore

ROUNDS = 25

CLIENT = """
import asyncio, os, sys, uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.interfaces import IdempotencyKey
from shoal_sqlite.sqlite import SqliteStore

async def client(store):
    while True:
        now = datetime.now(UTC)
        id_ = str(uuid.uuid4())
        record = SandboxRecord(
            id=id_, runtime="local", state=State.PENDING, since=now, created_at=now, entrypoint=["x"]
        )
        plan = WorkloadPlan(id=id_, runtime="local", created_at=now, command=["x"], env={"A": "b" * 500})
        key = IdempotencyKey(key=id_, fingerprint="f", sandbox_id=id_, expires_at=now + timedelta(days=1))
        await store.add(record, plan, key)
        os.write(1, f"added {id_}\\n".encode())
        await store.save(replace(record, state=State.RUNNING), forget_plan=True)
        os.write(1, f"saved {id_}\\n".encode())

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.start()
    await asyncio.gather(*(client(store) for _ in range(20)))

asyncio.run(main())
"""


def acknowledged(path: Path, rest: float) -> dict[str, set[str]]:
    """Run a client, kill it ``rest`` seconds after its first answer, and return the ids it was told of, by call."""
    output, far_end = os.pipe()
    with subprocess.Popen([sys.executable, "-c", CLIENT, str(path)], stdout=far_end) as client:
        os.close(far_end)
        with os.fdopen(output, "rb") as lines:
            heard = lines.readline()
            try:
                client.wait(rest)
            except subprocess.TimeoutExpired:
                client.kill()
            # A pipe holds 64 KiB: a client that waits for a reader is killed as well as one that works.
            heard += lines.read()
    assert client.returncode == -signal.SIGKILL
    said: dict[str, set[str]] = {"added": set(), "saved": set()}
    for line in heard.decode().splitlines():
        call, id_ = line.split(" ")
        said[call].add(id_)
    return said


def planned(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {id_ for (id_,) in connection.execute("SELECT sandbox_id FROM shoal_plans")}


async def test_nothing_that_was_acknowledged_is_lost(path: Path) -> None:
    dice = random.Random(20)
    added: set[str] = set()
    saved: set[str] = set()
    for _ in range(ROUNDS):
        said = await asyncio.to_thread(acknowledged, path, dice.uniform(0, 0.15))
        assert said["added"]
        added |= said["added"]
        saved |= said["saved"]
        store = SqliteStore(path)
        await store.start()
        records = {record.id: record for record in await store.sandboxes()}
        keys = {key.sandbox_id for key in await store.idempotency_keys()}
        await store.stop()
        assert added <= records.keys()
        assert saved <= {id_ for id_, record in records.items() if record.state is State.RUNNING}
        assert keys == records.keys(), "record and key are of one commit"
        assert planned(path) == {id_ for id_, record in records.items() if record.state is State.PENDING}
