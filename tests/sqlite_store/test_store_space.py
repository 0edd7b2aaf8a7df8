"""A full disk is a 503 with nothing half-done, and the store goes on when there is space again."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from shoal.errors import Unavailable
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord
from shoal_sqlite.sqlite import SqliteStore

NewSandbox = Callable[[], tuple[SandboxRecord, WorkloadPlan]]


async def fill(store: SqliteStore, sandbox: NewSandbox) -> tuple[set[str], set[str]]:
    """Add sandboxes side by side until one does not fit; returns the ids that were accepted and those that were not."""
    accepted: set[str] = set()
    rejected: set[str] = set()

    async def add() -> None:
        record, plan = sandbox()
        plan = replace(plan, env={"PADDING": "x" * 2000})
        try:
            await store.add(record, plan, None)
        except Unavailable as error:
            if error.code not in ("STORE::FULL", "STORE::IO_ERROR"):
                raise
            rejected.add(record.id)
        else:
            accepted.add(record.id)

    for _ in range(500):
        await asyncio.gather(*(add() for _ in range(10)))
        if rejected:
            break
    return accepted, rejected


async def ids(store: SqliteStore) -> set[str]:
    return {record.id for record in await store.sandboxes()}


async def test_a_page_limit_of_the_database(store: SqliteStore, sandbox: NewSandbox) -> None:
    def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
        return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    await store._writer.run(limit(60))
    accepted, rejected = await fill(store, sandbox)
    assert accepted
    assert rejected
    assert await ids(store) == accepted
    assert [id_ for id_ in rejected if await store.plan(id_) is not None] == []
    await store._writer.run(limit(100_000))
    record, plan = sandbox()
    await store.add(record, plan, None)
    assert await ids(store) == accepted | {record.id}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("mount is not installed")
    command = [mount, "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.splitlines()[0]}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


async def test_a_full_disk(small_disk: Path, sandbox: NewSandbox) -> None:
    store = SqliteStore(small_disk / "shoal.db")
    await store.start()
    ballast = small_disk / "ballast"
    await asyncio.to_thread(ballast.write_bytes, b"x" * 100 * 1024)
    accepted, rejected = await fill(store, sandbox)
    assert accepted
    assert rejected
    assert await ids(store) == accepted
    await asyncio.to_thread(ballast.unlink)
    await store.ping()
    record, plan = sandbox()
    await store.add(record, plan, None)
    await store.stop()
    again = SqliteStore(small_disk / "shoal.db")
    await again.start()
    assert await ids(again) == accepted | {record.id}
    await again.stop()


LIMITED = """
import asyncio, json, resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path

from shoal.errors import Unavailable
from shoal.models.sandbox import SandboxRecord, State
from shoal_sqlite.sqlite import SqliteStore

def record(number):
    now = datetime.now(UTC)
    return SandboxRecord(id=str(number), runtime="local", state=State.PENDING, since=now, created_at=now,
                         entrypoint=["x" * 1000])

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.start()
    outcome = {"accepted": [], "codes": []}
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    for start in range(0, 5000, 10):
        calls = [store.save(record(number)) for number in range(start, start + 10)]
        for number, error in enumerate(await asyncio.gather(*calls, return_exceptions=True), start):
            if isinstance(error, Unavailable):
                outcome["codes"].append(error.code)
            elif error is None:
                outcome["accepted"].append(str(number))
            else:
                raise error
        if outcome["codes"]:
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.save(record("after"))
    outcome["accepted"].append("after")
    await store.stop()
    print(json.dumps(outcome))

asyncio.run(main())
"""


async def test_a_commit_that_cannot_be_written(path: Path) -> None:
    """The limit on file sizes makes the write-ahead log fail in the middle of a commit; needs no privilege."""
    run = [sys.executable, "-c", LIMITED, str(path)]
    done = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    *logged, last = done.stdout.splitlines()
    assert any("store commit failed" in line for line in logged + done.stderr.splitlines())
    outcome = json.loads(last)
    assert outcome["codes"]
    assert set(outcome["codes"]) <= {"STORE::FULL", "STORE::IO_ERROR"}
    store = SqliteStore(path)
    await store.start()
    assert await ids(store) == set(outcome["accepted"])
    await store.stop()
