"""Snapshots that an engine lists by itself: this server keeps none, and hands over what it had."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import MemoryRuntime, Server, StoreContent, World
from tests.support.waiting import until

from shoal.errors import Conflict, NotFound, Unavailable
from shoal.lifecycle import sandboxes
from shoal.plugin.interfaces import SnapshotCatalogue, SnapshotRecord


class Listing(SnapshotCatalogue):
    """What an engine holds; ``finish`` is its word that one is made."""

    def __init__(self, *rows: SnapshotRecord) -> None:
        self.rows = {row.id: row for row in rows}
        self.away = False
        self._finished = asyncio.Event()

    def all(self) -> list[SnapshotRecord]:
        return list(self.rows.values())

    def get(self, snapshot_id: str) -> SnapshotRecord | None:
        return self.rows.get(snapshot_id)

    async def accept(self, row: SnapshotRecord) -> None:
        if self.away:
            raise Unavailable("MEMORY::AWAY", "away")
        self.rows[row.id] = replace(self.rows.get(row.id, row), name=row.name)

    async def captured(self, sandbox_id: str) -> None:
        if any(row.sandbox_id == sandbox_id and row.state == "Creating" for row in self.rows.values()):
            await self._finished.wait()

    def finish(self, snapshot_id: str) -> None:
        self.rows[snapshot_id] = replace(self.rows[snapshot_id], state="Ready", image="made")
        self._finished.set()


class ListingRuntime(MemoryRuntime):
    """A memory runtime whose engine lists snapshots."""

    def __init__(self, world: World, listing: Listing) -> None:
        super().__init__(world)
        self.catalogue = listing

    async def delete_snapshot(self, snapshot_id: str, image: str) -> None:
        assert isinstance(self.catalogue, Listing)
        self.catalogue.rows.pop(snapshot_id, None)


def server(listing: Listing, disk: StoreContent | None = None) -> Server:
    world = World()
    return Server(world, disk, runtimes={"memory": ListingRuntime(world, listing)})


def row(snapshot_id: str, state: str = "Ready", **changes: str | None) -> SnapshotRecord:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = SnapshotRecord(
        id=snapshot_id, sandbox_id="s", runtime="memory", state=state, created_at=now, updated_at=now, image="kept"
    )
    return replace(made, **changes)


async def test_what_the_engine_lists_is_told_and_nothing_is_stored() -> None:
    listing = Listing()
    async with server(listing) as one:
        sandbox_id = await one.running()
        made = await one.lifecycle.snapshots.create(sandbox_id, "mine")
        assert (made.state, made.reason) == ("Creating", "snapshot_accepted")
        assert [each.id for each in one.lifecycle.snapshots.all()] == [made.id]
        with pytest.raises(Conflict):
            await one.lifecycle.snapshots.delete(made.id)
        listing.finish(made.id)
        listing.rows["another"] = row("another")
        assert one.lifecycle.snapshots.get("another").state == "Ready"
        restored = await one.running(image=None, snapshot_id="another")
        found = one.lifecycle.find(restored)
        assert found is not None
        assert found.snapshot_id == "another"
        await one.lifecycle.snapshots.delete("another")
        assert set(listing.rows) == {made.id}
        with pytest.raises(NotFound):
            one.lifecycle.snapshots.get("another")
        assert not one.disk.snapshots


async def test_one_that_the_engine_did_not_take_is_not_there() -> None:
    listing = Listing()
    async with server(listing) as one:
        sandbox_id = await one.running()
        listing.away = True
        with pytest.raises(Unavailable):
            await one.lifecycle.snapshots.create(sandbox_id, None)
        assert one.lifecycle.snapshots.all() == []


@pytest.mark.parametrize("end", ["delete", "pause"])
async def test_what_ends_a_sandbox_waits_for_its_snapshot_and_a_change_does_not(end: str) -> None:
    listing = Listing()
    async with server(listing) as one:
        sandbox_id = await one.running()
        made = await one.lifecycle.snapshots.create(sandbox_id, None)
        await one.lifecycle.sandboxes.patch_metadata(sandbox_id, {"a": "b"})
        ended: Callable[[str], Awaitable[None]] = getattr(one.lifecycle, end)
        ending = asyncio.ensure_future(ended(sandbox_id))
        await asyncio.sleep(0.05)
        assert not ending.done()
        listing.finish(made.id)
        await ending


async def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "CAPTURE_SECONDS", 0.01)
    async with server(Listing()) as one:
        sandbox_id = await one.running()
        await one.lifecycle.snapshots.create(sandbox_id, None)
        await one.lifecycle.delete(sandbox_id)
        assert one.state(sandbox_id) is None


async def test_rows_of_before_are_handed_over() -> None:
    disk = StoreContent()
    for each in (
        row("there", name="its name"),
        row("deleted elsewhere"),
        row("cut off", "Creating", image=None),
        row("failed", "Failed", image=None),
        row("being deleted", "Deleting"),
    ):
        disk.snapshots[each.id] = each
    listing = Listing(row("there"), row("being deleted"))
    async with server(listing, disk) as one:
        assert one.lifecycle.snapshots.get("there").name == "its name"
        assert one.lifecycle.snapshots.get("cut off").state == "Creating"
        assert one.lifecycle.snapshots.get("failed").state == "Failed"
        with pytest.raises(NotFound):
            one.lifecycle.snapshots.get("deleted elsewhere")
        await until(lambda: set(disk.snapshots) == {"failed"})
        assert set(listing.rows) == {"there", "cut off"}
        await one.lifecycle.snapshots.delete("failed")
        assert not disk.snapshots


async def test_rows_stay_while_the_engine_does_not_take_them() -> None:
    disk = StoreContent()
    disk.snapshots["there"] = row("there", name="its name")
    listing = Listing(row("there"))
    listing.away = True
    async with server(listing, disk) as one:
        assert one.lifecycle.snapshots.get("there").state == "Ready"
        assert set(disk.snapshots) == {"there"}
