"""Changes of one sandbox from many tasks: every answer that was given holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from tests.kernel.lifecycle.fakes import Server, StoreContent, expire_now, expires_soon, fails, more, request
from tests.support.waiting import until

from shoal.errors import Conflict, EngineFailure, InvalidRequest, NotFound, NotSupported, ShoalError, Unavailable
from shoal.models.sandbox import State
from shoal.models.workload import Phase
from shoal.plugin.interfaces import Capabilities


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_pause_and_resume() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        await server.lifecycle.pause(sandbox_id)
        assert server.state(sandbox_id) is State.PAUSED
        with pytest.raises(Conflict):
            await server.lifecycle.pause(sandbox_id)
        await server.lifecycle.resume(sandbox_id)
        with pytest.raises(Conflict):
            await server.lifecycle.resume(sandbox_id)
        assert server.state(sandbox_id) is State.RUNNING
        assert server.recorder.of(sandbox_id)[2:] == [State.PAUSING, State.PAUSED, State.RESUMING, State.RUNNING]


async def test_every_intent_is_durable_before_the_engine_is_called() -> None:
    async with Server() as server:
        met: list[tuple[str, State]] = []

        def note(call: str, sandbox_id: str) -> None:
            if sandbox_id:
                met.append((call, server.disk.records[sandbox_id].state))

        server.world.fault = note
        sandbox_id = await server.running(timeout=60)
        await server.lifecycle.pause(sandbox_id)
        await server.lifecycle.resume(sandbox_id)
        await server.lifecycle.delete(sandbox_id)
        assert met == [
            ("create", State.PENDING),
            ("pause", State.PAUSING),
            ("resume", State.RESUMING),
            ("delete", State.STOPPING),
        ]


async def test_a_pause_that_the_runtime_refuses_changes_nothing() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        for error in (EngineFailure("MEMORY::NO", "no"), RuntimeError("a bug"), asyncio.CancelledError()):
            server.world.fault = fails("pause", error)
            with pytest.raises(ShoalError):
                await server.lifecycle.pause(sandbox_id)
            assert server.state(sandbox_id) is State.RUNNING


async def test_a_runtime_without_pause_says_so() -> None:
    server = Server()
    server.runtime.capabilities = Capabilities()
    async with server:
        sandbox_id = await server.running()
        with pytest.raises(NotSupported):
            await server.lifecycle.pause(sandbox_id)


async def test_renew_rules() -> None:
    async with Server() as server:
        forever = await server.running()
        with pytest.raises(Conflict):
            await server.lifecycle.renew(forever, soon(60))
        sandbox_id = await server.running(timeout=60)
        with pytest.raises(InvalidRequest):
            await server.lifecycle.renew(sandbox_id, soon(-1))
        later, earlier = soon(600), soon(300)
        assert await server.lifecycle.renew(sandbox_id, later) == later
        assert await server.lifecycle.renew(sandbox_id, earlier, only_later=True) == later
        assert await server.lifecycle.renew(sandbox_id, earlier) == earlier
        assert server.disk.records[sandbox_id].expires_at == earlier
        with pytest.raises(NotFound):
            await server.lifecycle.renew("nobody", later)


async def test_a_renewal_that_the_runtime_refuses_is_undone() -> None:
    async with Server() as server:
        sandbox_id = await server.running(timeout=60)
        before = server.lifecycle.sandboxes.entry(sandbox_id).record.expires_at
        server.world.fault = fails("apply", EngineFailure("MEMORY::NO", "no"))
        with pytest.raises(EngineFailure):
            await server.lifecycle.renew(sandbox_id, soon(600))
        assert server.lifecycle.sandboxes.entry(sandbox_id).record.expires_at == before
        assert server.disk.records[sandbox_id].expires_at == before


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.PAUSED, Phase.EXITED, Phase.FAILED])
async def test_expiry_ends_a_sandbox_in_any_state(phase: Phase) -> None:
    async with Server() as server:
        sandbox_id = await server.running(timeout=60)
        if phase is not Phase.RUNNING:
            server.world.change(sandbox_id, phase)
            await until(lambda: server.state(sandbox_id) is not State.RUNNING)
        await expires_soon(server, sandbox_id)
        await until(lambda: server.state(sandbox_id) is None)
        assert not server.world.workloads
        assert server.recorder.of(sandbox_id)[-2:] == [State.STOPPING, None]


async def test_expiry_of_a_pending_sandbox_that_waits_to_try_again() -> None:
    async with Server() as server:
        server.world.fault = fails("create", EngineFailure("MEMORY::AWAY", "away", retry_after=3600.0))
        entry = await server.lifecycle.sandboxes.create(request(timeout=60))
        await until(lambda: server.world.tried["create"])
        expire_now(server, entry.record.id)
        await until(lambda: server.state(entry.record.id) is None)
        assert server.disk.records == {}


async def test_an_expiry_that_the_engine_refuses_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.lifecycle.removal.RETRY_SECONDS", 0.02)
    async with Server() as server:
        sandbox_id = await server.running(timeout=60)
        server.world.fault = fails("delete", EngineFailure("MEMORY::AWAY", "away"))
        await expires_soon(server, sandbox_id)
        await more(server.world.tried, "delete")
        assert server.state(sandbox_id) is State.STOPPING
        server.world.fault = lambda call, sandbox_id: None
        await until(lambda: server.state(sandbox_id) is None)
        assert not server.world.workloads


async def test_a_delete_whose_last_write_failed_is_finished_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.lifecycle.removal.RETRY_SECONDS", 0.02)
    async with Server() as server:
        sandbox_id = await server.running()
        server.disk.fault = fails("remove", Unavailable("STORE::FULL", "full"))
        with pytest.raises(Unavailable):
            await server.lifecycle.delete(sandbox_id)
        assert server.state(sandbox_id) is State.STOPPING
        server.disk.fault = lambda call, sandbox_id: None
        await until(lambda: server.state(sandbox_id) is None)
        assert server.disk.records == {}


async def test_the_outcome_of_a_create_is_kept_until_the_store_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.lifecycle.provision.STORE_BACKOFF_FIRST", 0.01)
    async with Server() as server:
        server.disk.fault = fails("save", Unavailable("STORE::FULL", "full"))
        entry = await server.lifecycle.sandboxes.create(request())
        await until(lambda: bool(server.world.workloads))
        await more(server.disk.tried, "save")
        assert server.state(entry.record.id) is State.PENDING
        server.disk.fault = lambda call, sandbox_id: None
        await until(lambda: server.state(entry.record.id) is State.RUNNING)
        assert server.world.started[entry.record.id] == 1


async def test_a_pause_whose_outcome_could_not_be_written_is_settled_by_what_runs() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        server.world.fault = lambda call, _: _close_the_disk(server.disk) if call == "pause" else None
        with pytest.raises(Unavailable):
            await server.lifecycle.pause(sandbox_id)
        assert server.state(sandbox_id) is State.PAUSING
        server.disk.fault = lambda call, sandbox_id: None
        await until(lambda: server.state(sandbox_id) is State.PAUSED)


def _close_the_disk(disk: StoreContent) -> None:
    disk.fault = fails("save", Unavailable("STORE::FULL", "full"))


async def test_a_store_outage_refuses_changes_and_changes_nothing() -> None:
    async with Server() as server:
        sandbox_id = await server.running(timeout=600, metadata={"a": "1"})
        before = server.lifecycle.sandboxes.entry(sandbox_id).record
        server.disk.fault = lambda call, _: fails(call, Unavailable("STORE::AWAY", "away"))(call, "")
        changes: list[Awaitable[object]] = [
            server.lifecycle.pause(sandbox_id),
            server.lifecycle.renew(sandbox_id, soon(3600)),
            server.lifecycle.sandboxes.patch_metadata(sandbox_id, {"a": "2"}),
            server.lifecycle.delete(sandbox_id),
            server.lifecycle.sandboxes.create(request()),
        ]
        for change in changes:
            with pytest.raises(Unavailable):
                await change
        assert server.lifecycle.sandboxes.entry(sandbox_id).record == before
        assert list(server.world.workloads) == [sandbox_id]


async def test_concurrent_patches_lose_no_update() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        await asyncio.gather(
            *(server.lifecycle.sandboxes.patch_metadata(sandbox_id, {f"k{n}": str(n)}) for n in range(100))
        )
        expected = {f"k{n}": str(n) for n in range(100)}
        assert server.lifecycle.sandboxes.entry(sandbox_id).record.metadata == expected
        assert server.disk.records[sandbox_id].metadata == expected
        await asyncio.gather(
            *(server.lifecycle.sandboxes.patch_metadata(sandbox_id, {f"k{n}": None}) for n in range(100))
        )
        assert server.lifecycle.sandboxes.entry(sandbox_id).record.metadata == {}


async def test_every_delete_but_one_finds_nothing() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        outcomes = await asyncio.gather(
            *(server.lifecycle.delete(sandbox_id) for _ in range(50)), return_exceptions=True
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["NotFound"] * 49
        assert server.world.calls["delete", sandbox_id] == 1


async def test_a_renewal_that_was_granted_keeps_it_alive_until_then() -> None:
    """Renewals race with the expiry itself, over and over; whoever is answered with a time gets that time."""
    async with Server() as server:
        for _ in range(20):
            sandbox_id = await server.running(timeout=60)
            await expires_soon(server, sandbox_id)
            granted = await _renew_until_too_late(server, sandbox_id)
            told = [event for event in server.recorder.told if event.record.id == sandbox_id]
            assert told[-2].after is State.STOPPING
            assert granted is None or told[-2].at >= granted


async def _renew_until_too_late(server: Server, sandbox_id: str) -> datetime | None:
    """The last time that was granted before the sandbox was gone."""
    granted = None
    while True:
        try:
            granted = await server.lifecycle.renew(sandbox_id, soon(random.uniform(0.001, 0.01)), only_later=True)
            assert server.state(sandbox_id) is State.RUNNING
        except InvalidRequest:  # on a busy machine that time is over before it is asked for
            pass
        except (NotFound, Conflict):
            await until(lambda: server.state(sandbox_id) is None)
            return granted
        await asyncio.sleep(random.uniform(0, 0.012))


@pytest.mark.parametrize("seed", range(15))
async def test_random_operations_on_one_sandbox_are_linearizable(seed: int) -> None:
    """Replay what was answered, in the order of the transitions: each answer fits the state that it met."""
    async with Server() as server:
        rng = random.Random(seed)
        sandbox_id = await server.running(timeout=3600)
        acknowledged: dict[str, str] = {}

        async def patch(number: int) -> None:
            await server.lifecycle.sandboxes.patch_metadata(sandbox_id, {f"k{number}": str(number)})
            acknowledged[f"k{number}"] = str(number)

        async def act(number: int) -> None:
            await asyncio.sleep(rng.uniform(0, 0.01))
            operations: dict[str, Callable[[], Awaitable[object]]] = {
                "pause": lambda: server.lifecycle.pause(sandbox_id),
                "resume": lambda: server.lifecycle.resume(sandbox_id),
                "renew": lambda: server.lifecycle.renew(sandbox_id, soon(3600 + number)),
                "patch": lambda: patch(number),
            }
            choice = rng.choice(list(operations))
            try:
                await operations[choice]()
            except Conflict:
                assert choice in ("pause", "resume")

        await asyncio.gather(*(act(number) for number in range(60)))
        record = server.lifecycle.sandboxes.entry(sandbox_id).record
        assert record.metadata == acknowledged
        assert record == server.disk.records[sandbox_id]
        phase = server.world.workloads[sandbox_id].phase
        assert record.state is {Phase.RUNNING: State.RUNNING, Phase.PAUSED: State.PAUSED}[phase]
        _assert_alternates(server.recorder.of(sandbox_id)[2:])


def _assert_alternates(told: list[State | None]) -> None:
    """Pausing is followed by Paused, then Resuming, Running, and so on: no operation ran into another."""
    cycle = [State.PAUSING, State.PAUSED, State.RESUMING, State.RUNNING]
    assert told == [cycle[step % 4] for step in range(len(told))]


async def test_stop_in_mid_operation_loses_nothing() -> None:
    server = Server()
    await server.lifecycle.start()
    sandbox_id = await server.running()
    stuck = asyncio.Event()

    async def hang() -> None:
        await stuck.wait()

    server.world.fault = lambda call, _: hang() if call in ("pause", "create") else None
    pausing = asyncio.create_task(server.lifecycle.pause(sandbox_id))
    renewing = asyncio.create_task(server.lifecycle.sandboxes.patch_metadata(sandbox_id, {"never": "acknowledged"}))
    pending = await server.lifecycle.sandboxes.create(request())
    await until(lambda: server.state(sandbox_id) is State.PAUSING)
    await server.lifecycle.stop(grace=0.05)
    for caller in (pausing, renewing):
        with pytest.raises(Unavailable):
            await caller
    server.world.fault = lambda call, _: None
    async with Server(server.world, server.disk) as second:
        await until(lambda: second.state(sandbox_id) is State.PAUSED)
        await until(lambda: second.state(pending.record.id) is State.RUNNING)
