"""Snapshots end in a definite state, whatever is away or killed in the middle."""

from __future__ import annotations

import asyncio

import pytest
from tests.kernel.lifecycle.fakes import Boundary, MemoryRuntime, Server, StoreContent, World, fails, more, request
from tests.support.waiting import until

from shoal.errors import Conflict, EngineFailure, NotFound, NotSupported, Unavailable
from shoal.lifecycle import snapshot_rows
from shoal.models.sandbox import State
from shoal.plugin.interfaces import Capabilities, SnapshotRecord


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_rows, "RETRY_SECONDS", 0.02)


async def ready(server: Server, sandbox_id: str) -> SnapshotRecord:
    """A snapshot of it, once it is Ready."""
    made = await server.lifecycle.snapshots.create(sandbox_id, "kept")
    await until(lambda: server.lifecycle.snapshots.get(made.id).state == "Ready")
    return server.lifecycle.snapshots.get(made.id)


async def test_captured_restored_and_deleted() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        made = await ready(server, sandbox_id)
        assert (made.reason, made.image) == ("snapshot_runtime_ready", f"image-of-{made.id}")
        assert made.message == "The snapshot is ready."
        restored = await server.running(image=None, snapshot_id=made.id)
        record = server.lifecycle.find(restored)
        assert record is not None
        assert record.snapshot_id == made.id
        await server.lifecycle.snapshots.delete(made.id)
        assert not server.disk.snapshots
        with pytest.raises(NotFound):
            server.lifecycle.snapshots.get(made.id)


async def test_the_answer_is_what_clients_compare() -> None:
    async with Server() as server:
        made = await server.lifecycle.snapshots.create(await server.running(), None)
        told = (made.state, made.reason, made.message)
        assert told == ("Creating", "snapshot_accepted", "Snapshot creation accepted.")
        await until(lambda: server.lifecycle.snapshots.get(made.id).state == "Ready")


async def test_a_failure_of_the_runtime_is_told() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        server.world.fault = fails("snapshot", EngineFailure("MEMORY::NO", "the disk is full"))
        made = await server.lifecycle.snapshots.create(sandbox_id, None)
        await until(lambda: server.lifecycle.snapshots.get(made.id).state == "Failed")
        failed = server.lifecycle.snapshots.get(made.id)
        assert (failed.reason, failed.message) == ("snapshot_runtime_failed", "the disk is full")
        await server.lifecycle.snapshots.delete(made.id)


async def test_an_engine_that_is_away_is_waited_for_and_the_sandbox_stays_free() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        server.world.fault = fails("snapshot", Unavailable("MEMORY::AWAY", "away"))
        made = await server.lifecycle.snapshots.create(sandbox_id, None)
        await more(server.world.tried, "snapshot")
        assert server.lifecycle.snapshots.get(made.id).state == "Creating"
        await server.lifecycle.pause(sandbox_id)
        await server.lifecycle.resume(sandbox_id)
        server.world.fault = lambda call, sandbox: None
        await until(lambda: server.lifecycle.snapshots.get(made.id).state == "Ready")


async def test_a_store_that_is_away_at_the_end_is_waited_for() -> None:
    async with Server() as server:
        sandbox_id = await server.running()

        def away(call: str, _: str) -> None:
            if call == "save_snapshot" and server.world.snapshots:
                raise Unavailable("STORE::AWAY", "away")

        server.disk.fault = away
        made = await server.lifecycle.snapshots.create(sandbox_id, None)
        await until(lambda: made.id in server.world.snapshots)
        await more(server.disk.tried, "save_snapshot")
        assert server.lifecycle.snapshots.get(made.id).state == "Creating"
        server.disk.fault = lambda call, sandbox: None
        await until(lambda: server.lifecycle.snapshots.get(made.id).state == "Ready")


async def test_one_that_is_in_use_stays_ready() -> None:
    async with Server() as server:
        made = await ready(server, await server.running())
        server.world.fault = fails("delete_snapshot", Conflict("SNAPSHOT::DELETE_CONFLICT", "in use"))
        with pytest.raises(Conflict):
            await server.lifecycle.snapshots.delete(made.id)
        assert server.disk.snapshots[made.id].state == "Ready"
        server.world.fault = lambda call, sandbox: None
        await server.lifecycle.snapshots.delete(made.id)


async def test_one_that_is_just_restored_from_is_kept() -> None:
    async with Server() as server:
        made = await ready(server, await server.running())
        gate = asyncio.Event()

        async def held() -> None:
            await gate.wait()

        server.world.fault = lambda call, sandbox: held() if call == "create" else None
        entry = await server.lifecycle.sandboxes.create(request(image=None, snapshot_id=made.id))
        with pytest.raises(Conflict):
            await server.lifecycle.snapshots.delete(made.id)
        gate.set()
        await server.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 10)
        await server.lifecycle.snapshots.delete(made.id)


@pytest.mark.parametrize("held", ["add", "save_snapshot"])
async def test_of_a_delete_and_a_restore_at_one_moment_one_is_refused(held: str) -> None:
    """Whichever comes first is only on its way to the store when the other comes."""
    async with Server() as server:
        made = await ready(server, await server.running())
        gate, reached = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            reached.set()
            await gate.wait()

        server.disk.fault = lambda call, _: hold() if call == held else None
        restore = request(image=None, snapshot_id=made.id)
        if held == "add":
            first = asyncio.ensure_future(server.lifecycle.sandboxes.create(restore))
            await reached.wait()
            with pytest.raises(Conflict) as refused:
                await server.lifecycle.snapshots.delete(made.id)
        else:
            first = asyncio.ensure_future(server.lifecycle.snapshots.delete(made.id))  # type: ignore[arg-type]  # either
            await reached.wait()
            with pytest.raises(Conflict) as refused:
                await server.lifecycle.sandboxes.create(restore)
        assert refused.value.code == ("SNAPSHOT::DELETE_CONFLICT" if held == "add" else "SNAPSHOT::NOT_READY")
        gate.set()
        await first
        assert bool(server.disk.snapshots) is (held == "add")


async def test_a_sandbox_that_is_still_being_made_is_waited_for() -> None:
    async with Server() as server:
        gate = asyncio.Event()
        server.world.fault = lambda call, _: gate.wait() if call == "create" else None  # type: ignore[assignment,return-value]  # the result is dropped
        made = await server.lifecycle.sandboxes.create(request())
        asked = asyncio.ensure_future(server.lifecycle.snapshots.create(made.record.id, None))
        await asyncio.sleep(0)
        assert not asked.done()
        gate.set()
        assert (await asked).sandbox_id == made.record.id


async def test_where_no_runtime_has_any_there_are_none() -> None:
    world = World()
    runtime = MemoryRuntime(world)
    runtime.capabilities = Capabilities()
    async with Server(world, runtimes={"memory": runtime}) as server:
        assert server.lifecycle.snapshots.all() == []
        with pytest.raises(NotFound):
            server.lifecycle.snapshots.get("none")
        with pytest.raises(NotSupported):
            await server.lifecycle.snapshots.create(await server.running(), None)


async def test_a_delete_that_the_engine_cannot_do_now_is_done_later() -> None:
    async with Server() as server:
        made = await ready(server, await server.running())
        server.world.fault = fails("delete_snapshot", Unavailable("MEMORY::AWAY", "away"))
        with pytest.raises(Unavailable):
            await server.lifecycle.snapshots.delete(made.id)
        assert server.lifecycle.snapshots.get(made.id).state == "Deleting"
        with pytest.raises(Conflict):
            await server.lifecycle.sandboxes.create(request(image=None, snapshot_id=made.id))
        server.world.fault = lambda call, sandbox: None
        await until(lambda: not server.disk.snapshots)


async def test_a_delete_that_is_repeated_while_the_engine_is_away_waits_once() -> None:
    async with Server() as server:
        made = await ready(server, await server.running())
        tries = 0

        async def away(call: str, _: str) -> None:
            nonlocal tries
            if call == "delete_snapshot":
                tries += 1
                raise Unavailable("MEMORY::AWAY", "away")

        server.world.fault = away
        for _ in range(5):
            with pytest.raises(Unavailable):
                await server.lifecycle.snapshots.delete(made.id)
        asked, began = tries, asyncio.get_running_loop().time()
        await until(lambda: tries >= asked + 5)
        assert asyncio.get_running_loop().time() - began >= 5 * snapshot_rows.RETRY_SECONDS
        server.world.fault = lambda call, sandbox: None
        await until(lambda: not server.disk.snapshots)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("die_at", range(1, 7))
async def test_killed_at_any_call_it_ends_definitely(die_at: int, *, after: bool) -> None:
    """Of the calls to store and engine between the request and its end, any may be the process's last."""
    world, disk = World(), StoreContent()
    async with Server(world, disk) as first:
        sandbox_id = await first.running()
    boundary = Boundary()
    server = Server(world, disk, boundary)
    await server.lifecycle.start()
    boundary.die_at, boundary.after = boundary.calls + die_at, after
    snapshot = asyncio.ensure_future(_snapshot_and_delete(server, sandbox_id))
    dead = asyncio.ensure_future(boundary.dead.wait())
    await asyncio.wait({snapshot, dead}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    await server.die()
    async with Server(world, disk) as again:
        await until(lambda: all(row.state in ("Ready", "Failed") for row in disk.snapshots.values()))
        kept = {row.id for row in disk.snapshots.values() if row.state == "Ready"}
        assert set(world.snapshots) == kept
        assert again.state(sandbox_id) is State.RUNNING
        for snapshot_id in kept:
            await again.lifecycle.snapshots.delete(snapshot_id)
    assert not world.snapshots


async def _snapshot_and_delete(server: Server, sandbox_id: str) -> None:
    made = await ready(server, sandbox_id)
    await server.lifecycle.snapshots.delete(made.id)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_delete_that_could_not_be_carried_out_and_is_refused_later_leaves_it_ready(restarted: bool) -> None:
    world, disk = World(), StoreContent()
    server = await Server(world, disk).__aenter__()
    made = await ready(server, await server.running())
    world.fault = fails("delete_snapshot", Unavailable("MEMORY::AWAY", "away"))
    with pytest.raises(Unavailable):
        await server.lifecycle.snapshots.delete(made.id)
    assert server.lifecycle.snapshots.get(made.id).state == "Deleting"
    world.fault = fails("delete_snapshot", Conflict("SNAPSHOT::DELETE_CONFLICT", "in use"))
    if restarted:
        await server.die()
        server = await Server(world, disk).__aenter__()
    await until(lambda: server.lifecycle.snapshots.get(made.id).state == "Ready")
    assert server.lifecycle.snapshots.get(made.id).message == "The snapshot is ready."
    assert disk.snapshots[made.id].state == "Ready"
    await server.lifecycle.stop()
