"""Reconciliation: the view becomes true again after anything that happens behind shoal's back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import MemoryRuntime, Server, World, expire_now, fails, more, request
from tests.support.waiting import until

from shoal.errors import EngineFailure, NotFound, Unavailable
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Adoption, Phase, Workload, WorkloadGone

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class OtherRuntime(MemoryRuntime):
    """A second runtime beside ``memory``."""

    name = "other"
    scope = "OTHER"


@pytest.mark.parametrize("deaf", [False, True], ids=["by the watch", "by comparison alone"])
async def test_a_change_behind_our_back_shows(deaf: bool) -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        await asyncio.sleep(0.01)
        server.world.deaf = deaf
        server.world.change(sandbox_id, Phase.FAILED, reason="OOM", message="exit code 137")
        await until(lambda: server.state(sandbox_id) is State.FAILED)
        record = server.lifecycle.sandboxes.entry(sandbox_id).record
        assert (record.reason, record.message) == ("OOM", "exit code 137")
        assert server.disk.records[sandbox_id] == record
        server.world.change(sandbox_id, Phase.RUNNING)
        await until(lambda: server.state(sandbox_id) is State.RUNNING)


@pytest.mark.parametrize("deaf", [False, True], ids=["by the watch", "by comparison alone"])
async def test_a_vanished_workload_takes_its_record_and_its_network_along(deaf: bool) -> None:
    async with Server() as server:
        sandbox_id = await server.running(timeout=600)
        server.world.deaf = deaf
        server.world.vanish(sandbox_id)
        await until(lambda: server.state(sandbox_id) is None)
        assert server.disk.records == {}
        assert server.releases.released_ids == [sandbox_id]
        assert len(server.lifecycle._core.expiry) == 0


async def test_a_broken_watch_is_taken_up_again() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        await until(lambda: server.world.watched == 1)
        server.world.tell(ConnectionError("stream lost"))
        await until(lambda: server.world.watched == 0)
        server.world.change(sandbox_id, Phase.PAUSED)
        await until(lambda: server.state(sandbox_id) is State.PAUSED)
        await until(lambda: server.world.watched == 1)


async def test_a_failing_comparison_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.lifecycle.reconcile.RETRY_SECONDS", 0.02)
    async with Server() as server:
        sandbox_id = await server.running()
        server.world.deaf = True
        for error in (EngineFailure("MEMORY::AWAY", "away"), RuntimeError("a bug"), asyncio.CancelledError()):
            server.world.fault = fails("list", error)
            await more(server.world.tried, "list")
        server.world.change(sandbox_id, Phase.PAUSED)
        server.world.fault = lambda call, _: None
        await until(lambda: server.state(sandbox_id) is State.PAUSED)


async def test_a_difference_that_could_not_be_written_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.lifecycle.reconcile.RETRY_SECONDS", 0.02)
    async with Server() as server:
        sandbox_id = await server.running()
        server.disk.fault = fails("save", Unavailable("STORE::AWAY", "away"))
        server.world.change(sandbox_id, Phase.EXITED)
        await more(server.disk.tried, "save")
        assert server.state(sandbox_id) is State.RUNNING
        server.disk.fault = lambda call, _: None
        await until(lambda: server.state(sandbox_id) is State.TERMINATED)


async def test_a_workload_that_nobody_recorded_is_adopted_with_its_expiry() -> None:
    world = World()
    world.workloads["stranger"] = foreign("stranger", expires_at=NOW)
    world.workloads["forever"] = foreign("forever")
    world.workloads["unknown"] = Workload(id="unknown", phase=Phase.RUNNING)
    async with Server(world) as server:
        assert server.state("forever") is State.RUNNING
        assert server.disk.records["forever"].metadata == {"made": "elsewhere"}
        await until(lambda: server.state("stranger") is None)
        assert set(world.workloads) == {"forever", "unknown"}
        world.workloads["late"] = foreign("late")
        world.tell(world.workloads["late"])
        await until(lambda: server.state("late") is State.RUNNING)


def foreign(sandbox_id: str, expires_at: datetime | None = None) -> Workload:
    adoption = Adoption(created_at=NOW, entrypoint=["sh"], expires_at=expires_at, metadata={"made": "elsewhere"})
    return Workload(id=sandbox_id, phase=Phase.RUNNING, adoption=adoption)


@pytest.mark.parametrize("lag", [0.0, 0.5], ids=["later than the lag", "within the lag"])
async def test_the_late_echo_of_a_deleted_workload_makes_no_ghost(lag: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.lifecycle.reconcile.MAX_EVENT_LAG", lag)
    async with Server() as server:
        for _ in range(20):
            sandbox_id = await server.running()
            echo = server.world.workloads[sandbox_id]
            await server.lifecycle.delete(sandbox_id)
            server.world.tell(echo)
            await server.world.heard()
            assert server.state(sandbox_id) is None
        await more(server.world.tried, "list", 3)
        assert server.disk.records == {}


async def test_the_late_end_of_an_earlier_try_does_not_end_the_sandbox() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        server.world.tell(WorkloadGone(id=sandbox_id))
        server.world.tell(Workload(id=sandbox_id, phase=Phase.EXITED))
        await server.world.heard()
        await more(server.world.tried, "list", 3)
        assert server.recorder.of(sandbox_id) == [State.PENDING, State.RUNNING]
        assert server.state(sandbox_id) is State.RUNNING


async def test_a_list_that_is_older_than_an_operation_decides_nothing() -> None:
    async with Server() as server:
        first = await server.running()
        old = list(server.world.workloads.values())
        held, asked = asyncio.Event(), asyncio.Event()

        async def stale_list() -> list[Workload]:
            asked.set()
            await held.wait()
            return old

        server.runtime.list = stale_list  # type: ignore[method-assign]  # an engine that answers late
        await asked.wait()
        second = await server.running()
        await server.lifecycle.pause(first)
        del server.runtime.list  # the next list is a true one again
        held.set()
        await more(server.world.tried, "list", 3)
        assert server.state(second) is State.RUNNING
        assert server.recorder.of(first) == [State.PENDING, State.RUNNING, State.PAUSING, State.PAUSED]


async def test_a_busy_sandbox_does_not_hold_up_the_others() -> None:
    async with Server() as server:
        quick = await server.running()
        go = asyncio.Event()

        async def hold() -> None:
            await go.wait()

        server.world.fault = lambda call, _: hold() if call == "create" else None
        already = server.world.tried["create"]
        slow = await server.lifecycle.sandboxes.create(request())
        await until(lambda: server.world.tried["create"] > already)
        server.world.workloads[slow.record.id] = Workload(id=slow.record.id, phase=Phase.PENDING)
        await more(server.world.tried, "list", 3)
        server.world.deaf = True
        server.world.change(quick, Phase.EXITED)
        await until(lambda: server.state(quick) is State.TERMINATED)
        assert len(server.lifecycle._core.lanes._waiting.get(slow.record.id, ())) <= 1
        del server.world.workloads[slow.record.id]
        go.set()
        await until(lambda: server.state(slow.record.id) is State.RUNNING)


async def test_two_runtimes_keep_to_their_own() -> None:
    here, there = World(), World()
    runtimes = {"memory": MemoryRuntime(here), "other": OtherRuntime(there)}
    async with Server(here, runtimes=runtimes) as server:
        mine = await server.running()
        theirs = await server.running(extensions={"runtime": "other"})
        assert (list(here.workloads), list(there.workloads)) == ([mine], [theirs])
        for world in (here, there):
            await more(world.tried, "list")
        assert (server.state(mine), server.state(theirs)) == (State.RUNNING, State.RUNNING)
        here.workloads[theirs] = Workload(id=theirs, phase=Phase.EXITED)
        await more(here.tried, "list")
        assert server.state(theirs) is State.RUNNING
        there.vanish(theirs)
        await until(lambda: server.state(theirs) is None)


async def test_a_start_that_cannot_list_changes_nothing_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.lifecycle.arrivals.BACKOFF_FIRST", 0.01)
    first = Server()
    async with first:
        sandbox_id = await first.running()
    kept = dict(first.disk.records)
    first.world.fault = fails("list", EngineFailure("MEMORY::AWAY", "away"))
    async with Server(first.world, first.disk) as second:
        assert second.lifecycle.sandboxes.entry(sandbox_id).state is State.UNKNOWN
        assert first.disk.records == kept
        first.world.fault = lambda call, _: None
        await second.lifecycle.sandboxes.wait(sandbox_id, frozenset({State.RUNNING}), 30.0)
        assert second.lifecycle.sandboxes.entry(sandbox_id).state is State.RUNNING


async def test_sandboxes_of_a_runtime_that_is_not_enabled_are_kept_as_they_are() -> None:
    there = World()
    both = {"memory": MemoryRuntime(World()), "other": OtherRuntime(there)}
    first = Server(runtimes=both)
    await first.lifecycle.start()
    kept = await first.running(extensions={"runtime": "other"}, timeout=60)
    there.fault = fails("create", EngineFailure("OTHER::AWAY", "away", retry_after=3600.0))
    pending = (await first.lifecycle.sandboxes.create(request(extensions={"runtime": "other"}))).record.id
    await first.lifecycle.stop(grace=0)
    there.fault = lambda call, _: None
    async with Server(disk=first.disk, runtimes={"memory": MemoryRuntime(World())}) as without:
        expire_now(without, kept)
        for change in (
            without.lifecycle.delete(kept),
            without.lifecycle.pause(kept),
            without.lifecycle.delete(pending),
        ):
            with pytest.raises(Unavailable):
                await change
        await asyncio.sleep(0.1)
        assert (without.state(kept), without.state(pending)) == (State.RUNNING, State.PENDING)
    again = {"memory": MemoryRuntime(World()), "other": OtherRuntime(there)}
    async with Server(disk=first.disk, runtimes=again) as server:
        await until(lambda: server.state(kept) is None)
        await until(lambda: server.state(pending) is State.RUNNING)
        assert list(there.workloads) == [pending]


async def test_a_failed_start_of_the_watch_alone_does_not_stop_the_server() -> None:
    server = Server()

    def broken_watch() -> object:
        raise NotFound("MEMORY::NO_STREAM", "no stream")

    server.runtime.watch = broken_watch  # type: ignore[method-assign, assignment]  # an engine without events
    async with server:
        sandbox_id = await server.running()
        server.world.change(sandbox_id, Phase.PAUSED)
        await until(lambda: server.state(sandbox_id) is State.PAUSED)


async def test_what_expired_while_down_is_ended_at_once() -> None:
    first = Server()
    async with first:
        sandbox_id = await first.running(timeout=60)
    record = first.disk.records[sandbox_id]
    assert isinstance(record, SandboxRecord)
    await asyncio.sleep(0)
    async with Server(first.world, first.disk) as second:
        assert second.lifecycle.sandboxes.entry(sandbox_id).record.expires_at == record.created_at + timedelta(
            seconds=60
        )
        expire_now(second, sandbox_id)
        await until(lambda: second.state(sandbox_id) is None)
    assert not first.world.workloads


async def test_what_names_no_runtime_is_of_the_default_one() -> None:
    async with Server() as first:
        sandbox_id = await first.running()
        snapshot_id = (await first.lifecycle.snapshots.create(sandbox_id, None)).id
        await until(lambda: first.disk.snapshots[snapshot_id].state == "Ready")
    first.disk.records[sandbox_id] = replace(first.disk.records[sandbox_id], runtime="")
    first.disk.snapshots[snapshot_id] = replace(first.disk.snapshots[snapshot_id], runtime="")
    async with Server(first.world, first.disk) as second:
        assert second.lifecycle.sandboxes.entry(sandbox_id).record.runtime == "memory"
        assert second.lifecycle.snapshots.get(snapshot_id).runtime == "memory"
        await second.lifecycle.snapshots.delete(snapshot_id)
        await second.lifecycle.delete(sandbox_id)
    assert first.world.workloads == {}
