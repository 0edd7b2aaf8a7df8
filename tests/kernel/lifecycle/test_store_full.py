"""Ending on a full store: it goes on, is written when it can be, and a process that dies before that loses nothing."""

from __future__ import annotations

import asyncio

import pytest
from tests.kernel.lifecycle.fakes import Fault, Server, expire_now, request
from tests.support.waiting import until

from shoal.errors import StoreFull
from shoal.models.sandbox import State
from shoal.models.workload import Phase


def full(*calls: str) -> Fault:
    """The store takes nothing, or not these calls."""

    def fault(call: str, sandbox_id: str) -> None:
        if call in (calls or ("add", "save", "remove")):
            raise StoreFull("STORE::FULL", "full")

    return fault


def room(call: str, sandbox_id: str) -> None:
    """The store takes everything."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.lifecycle.owed.RETRY_SECONDS", 0.02)


@pytest.mark.parametrize("calls", [(), ("save",), ("remove",)])
async def test_a_delete_goes_through_and_is_written_later(calls: tuple[str, ...]) -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        server.disk.fault = full(*calls)
        await server.lifecycle.delete(sandbox_id)
        assert server.state(sandbox_id) is None
        assert server.world.workloads == {}
        server.disk.fault = room
        await until(lambda: server.disk.records == {})
        assert server.recorder.of(sandbox_id)[-2:] == [State.STOPPING, None]


async def test_an_expiry_fires_once() -> None:
    async with Server() as server:
        sandbox_id = await server.running(timeout=600)
        server.disk.fault = full()
        expire_now(server, sandbox_id)
        await until(lambda: server.state(sandbox_id) is None)
        assert server.world.calls["delete", sandbox_id] == 1
        server.disk.fault = room
        await until(lambda: server.disk.records == {})
        assert server.recorder.of(sandbox_id)[-2:] == [State.STOPPING, None]


async def test_what_is_owed_is_written_by_a_clean_stop() -> None:
    async with Server() as server:
        sandbox_id = await server.running()
        server.disk.fault = full()
        await server.lifecycle.delete(sandbox_id)
        server.disk.fault = room
    assert server.disk.records == {}


@pytest.mark.parametrize("still_full", [True, False])
async def test_a_restart_before_it_was_written_finds_it_gone(still_full: bool) -> None:
    server = Server()
    await server.lifecycle.start()
    deleted, kept = await server.running(), await server.running()
    server.disk.fault = full()
    await server.lifecycle.delete(deleted)
    await server.lifecycle.stop(grace=0)
    assert set(server.disk.records) == {deleted, kept}
    server.disk.fault = full() if still_full else room
    async with Server(server.world, server.disk) as second:
        assert second.state(deleted) is None
        assert second.state(kept) is State.RUNNING
        assert server.world.started[deleted] == 1
        second.disk.fault = room
        await until(lambda: set(second.disk.records) == {kept})


async def test_a_start_on_a_full_store_bears_what_changed_meanwhile() -> None:
    server = Server()
    await server.lifecycle.start()
    ended, kept = await server.running(), await server.running()
    await server.lifecycle.stop(grace=0)
    server.world.change(ended, Phase.EXITED)
    server.disk.fault = full()
    async with Server(server.world, server.disk) as second:
        assert second.state(kept) is State.RUNNING
        await second.lifecycle.delete(ended)
        assert second.state(ended) is None
        assert list(second.world.workloads) == [kept]


async def test_a_pending_one_is_not_said_to_be_gone() -> None:
    """The next start would make it again."""
    async with Server() as server:
        go = asyncio.Event()
        server.world.delay = lambda: go.wait()  # type: ignore[assignment, return-value]  # only its end matters
        entry = await server.lifecycle.sandboxes.create(request())
        server.disk.fault = full()
        with pytest.raises(StoreFull):
            await server.lifecycle.delete(entry.record.id)
        assert server.state(entry.record.id) is State.PENDING
        server.disk.fault = room
        go.set()
        await until(lambda: server.state(entry.record.id) is State.RUNNING)


async def test_an_engine_that_fails_meanwhile_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.lifecycle.removal.RETRY_SECONDS", 0.02)
    async with Server() as server:
        sandbox_id = await server.running()
        server.disk.fault = full()

        def away(call: str, sandbox_id: str) -> None:
            if call == "delete":
                raise StoreFull("MEMORY::AWAY", "away")

        server.world.fault = away
        with pytest.raises(StoreFull):
            await server.lifecycle.delete(sandbox_id)
        assert server.state(sandbox_id) is State.STOPPING
        server.world.fault = room
        await until(lambda: server.state(sandbox_id) is None)
