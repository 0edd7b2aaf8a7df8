"""A disk that another program fills to the last byte: endings are durable, new sandboxes are refused, starts go on."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from shoal.errors import StoreFull
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord, State
from shoal_sqlite.sqlite import SqliteStore

NewSandbox = Callable[[], tuple[SandboxRecord, WorkloadPlan]]
SIZE = 8 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("mount is not installed")
    command = [mount, "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.splitlines()[0]}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(disk: Path) -> None:
    """Not a byte is left."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 16, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    assert os.statvfs(disk).f_bfree == 0


async def ids(store: SqliteStore) -> set[str]:
    return {record.id for record in await store.sandboxes()}


async def filled(disk: Path, sandbox: NewSandbox, count: int) -> tuple[SqliteStore, list[SandboxRecord]]:
    """A store with ``count`` sandboxes, on a disk that is then full."""
    store = SqliteStore(disk / "shoal.db")
    await store.start()
    records = []
    for _ in range(count):
        record, plan = sandbox()
        await store.add(record, plan, None)
        records.append(record)
    await asyncio.to_thread(fill, disk)
    return store, records


async def test_every_ending_is_durable(disk: Path, sandbox: NewSandbox) -> None:
    store, records = await filled(disk, sandbox, 150)
    for record in records[1:]:
        await store.save(replace(record, state=State.STOPPING), forget_plan=True)
        await store.remove(record.id)
    assert await ids(store) == {records[0].id}
    await store.stop()
    again = SqliteStore(disk / "shoal.db")
    await again.start()
    assert await ids(again) == {records[0].id}
    await again.stop()


async def test_new_ones_are_refused_and_readiness_tells(disk: Path, sandbox: NewSandbox) -> None:
    store, records = await filled(disk, sandbox, 1)
    with pytest.raises(StoreFull, match="full") as refused:
        await store.add(*sandbox(), None)
    assert (refused.value.code, refused.value.status) == ("STORE::FULL", 503)
    with pytest.raises(StoreFull):
        await store.ping()
    (disk / "ballast").unlink()
    await store.ping()
    await store.add(*sandbox(), None)
    await store.stop()
    assert len(records) == 1


KILLED = """
import asyncio, os, sys
from pathlib import Path
from shoal_sqlite.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.start()
    await store.forget_keys(__import__("datetime").datetime.now(__import__("datetime").UTC))
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("reserve", [True, False])
async def test_a_start_on_a_full_disk(disk: Path, sandbox: NewSandbox, killed: bool, reserve: bool) -> None:
    """After a clean stop the log and its index have to be made anew."""
    store, records = await filled(disk, sandbox, 20)
    await store.stop()
    if killed:
        run = [sys.executable, "-c", KILLED, str(disk / "shoal.db")]
        await asyncio.to_thread(subprocess.run, run, check=False)
    if not reserve:
        (disk / "shoal.db.reserve").unlink(missing_ok=True)
    await asyncio.to_thread(fill, disk)
    again = SqliteStore(disk / "shoal.db")
    await again.start()
    assert await ids(again) == {record.id for record in records}
    if reserve or killed:
        for record in records:
            await again.remove(record.id)
        assert await ids(again) == set()
    else:
        (disk / "ballast").unlink()
        await again.remove(records[0].id)
    await again.stop()


async def test_the_room_comes_back(disk: Path, sandbox: NewSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal_sqlite.space._INTERVAL_SECONDS", 0)
    store = SqliteStore(disk / "shoal.db")
    await store.start()
    record, plan = sandbox()
    await store.add(record, plan, None)
    await store.stop()
    await asyncio.to_thread(fill, disk)
    again = SqliteStore(disk / "shoal.db")
    await again.start()
    assert not (disk / "shoal.db.reserve").exists()
    (disk / "ballast").unlink()
    await again.remove(record.id)
    await again.ping()
    await again.stop()
    assert (disk / "shoal.db.reserve").exists()
