"""Several servers on one engine: what one of them ended, or the engine is about to do by itself, holds for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
from tests.kernel.lifecycle.fakes import Server, World, request
from tests.kernel.lifecycle.test_shared_truth import SharedRuntime, Two
from tests.support.waiting import until

from shoal.errors import Conflict, NotFound, Unavailable
from shoal.models.sandbox import State
from shoal.models.workload import Phase, Workload


class SlowRuntime(SharedRuntime):
    """Its engine is asked to pause and to resume, and does so when it likes."""

    name: ClassVar[str] = "memory"

    async def pause(self, sandbox_id: str) -> Workload:
        await self._call("pause", sandbox_id, lambda: self.world.change(sandbox_id, Phase.PAUSING))
        return self.world.workloads[sandbox_id]

    async def resume(self, sandbox_id: str) -> Workload:
        await self._call("resume", sandbox_id, lambda: self.world.change(sandbox_id, Phase.RESUMING))
        return self.world.workloads[sandbox_id]


class TwoSlow(Two):
    def __init__(self) -> None:
        self.world, self.charge = World(), list[object]()
        self.runtimes = [SlowRuntime(self.world, self.charge) for _ in range(2)]
        self.charge.append(self.runtimes[0])
        self.one, self.other = (Server(self.world, runtimes={"memory": runtime}) for runtime in self.runtimes)


@pytest.fixture
async def two() -> AsyncIterator[TwoSlow]:
    both = TwoSlow()
    async with both.one, both.other:
        await until(lambda: both.world.watched == 2)
        yield both


async def running(two: Two) -> str:
    sandbox_id = (await two.one.lifecycle.sandboxes.create(request(timeout=60))).record.id
    for server in (two.one, two.other):
        await until(lambda server=server: server.state(sandbox_id) is State.RUNNING)  # type: ignore[misc]  # bound now
    return sandbox_id


async def unknown(server: Server, sandbox_id: str) -> None:
    await until(lambda: server.lifecycle.find(sandbox_id) is None)
    with pytest.raises(NotFound):
        server.lifecycle.sandboxes.entry(sandbox_id)


@pytest.mark.parametrize("how", ["by the other server", "behind everybody's back"])
async def test_what_is_deleted_while_it_is_being_made_is_gone_on_both(two: Two, how: str) -> None:
    two.runtimes[0].may_start.clear()
    sandbox_id = (await two.one.lifecycle.sandboxes.create(request(timeout=60))).record.id
    await until(lambda: two.other.state(sandbox_id) is State.PENDING)
    if how == "by the other server":
        await two.other.lifecycle.delete(sandbox_id)
    else:
        two.world.vanish(sandbox_id)
    await unknown(two.one, sandbox_id)
    await unknown(two.other, sandbox_id)
    two.runtimes[0].may_start.set()
    assert (two.world.started[sandbox_id], two.world.workloads) == (1, {})


async def test_what_is_deleted_while_its_maker_is_down_is_not_made_again(two: Two) -> None:
    two.runtimes[0].may_start.clear()
    sandbox_id = (await two.one.lifecycle.sandboxes.create(request(timeout=60), idempotency_key="k")).record.id
    await until(lambda: two.other.state(sandbox_id) is State.PENDING)
    await two.one.__aexit__(None, None, None)
    await two.other.lifecycle.delete(sandbox_id)
    async with Server(two.world, two.one.disk, runtimes={"memory": two.runtimes[0]}) as again:
        two.runtimes[0].may_start.set()
        await unknown(again, sandbox_id)
        assert (two.world.started[sandbox_id], two.world.workloads) == (1, {})
        entry = await again.lifecycle.sandboxes.create(request(timeout=60), idempotency_key="k")
        await until(lambda: again.state(entry.record.id) is State.RUNNING)


async def test_a_key_is_not_answered_with_a_create_that_a_restart_does_not_find(two: Two) -> None:
    two.runtimes[0].may_start.clear()
    sandbox_id = (await two.one.lifecycle.sandboxes.create(request(timeout=60), idempotency_key="k")).record.id
    await until(lambda: two.other.state(sandbox_id) is State.PENDING)
    await two.one.__aexit__(None, None, None)
    await two.other.lifecycle.delete(sandbox_id)
    async with Server(two.world, two.one.disk, runtimes={"memory": two.runtimes[0]}) as again:
        two.runtimes[0].may_start.set()
        with pytest.raises(Unavailable):  # before it is known whether it is there
            await again.lifecycle.sandboxes.create(request(timeout=60), idempotency_key="k")
        await unknown(again, sandbox_id)
        entry = await again.lifecycle.sandboxes.create(request(timeout=60), idempotency_key="k")
        await until(lambda: again.state(entry.record.id) is State.RUNNING)


async def test_a_pause_that_the_engine_does_in_its_own_time_is_answered_before_that(two: Two) -> None:
    sandbox_id = await running(two)
    await two.one.lifecycle.pause(sandbox_id)
    assert two.one.state(sandbox_id) is State.PAUSING
    await until(lambda: two.other.state(sandbox_id) is State.PAUSING)
    with pytest.raises(Conflict):
        await two.one.lifecycle.pause(sandbox_id)
    await two.one.lifecycle.sandboxes.patch_metadata(sandbox_id, {"still": "works"})
    two.world.change(sandbox_id, Phase.PAUSED)
    await until(lambda: two.one.state(sandbox_id) is two.other.state(sandbox_id) is State.PAUSED)
    await two.other.lifecycle.resume(sandbox_id)
    assert two.other.state(sandbox_id) is State.RESUMING
    two.world.change(sandbox_id, Phase.RUNNING)
    await until(lambda: two.one.state(sandbox_id) is two.other.state(sandbox_id) is State.RUNNING)


async def test_a_pause_that_comes_to_nothing_says_why(two: Two) -> None:
    sandbox_id = await running(two)
    await two.one.lifecycle.pause(sandbox_id)
    two.world.change(sandbox_id, Phase.RUNNING, reason="PAUSE_FAILED", message="no registry")
    await until(lambda: two.one.state(sandbox_id) is State.RUNNING)
    assert two.one.lifecycle.sandboxes.entry(sandbox_id).record.message == "no registry"


async def test_a_pause_outlives_the_server_that_asked_for_it(two: Two) -> None:
    sandbox_id = await running(two)
    await two.one.lifecycle.pause(sandbox_id)
    await two.one.__aexit__(None, None, None)
    async with Server(two.world, two.one.disk, runtimes={"memory": two.runtimes[0]}) as again:
        assert again.state(sandbox_id) is State.PAUSING
        two.world.change(sandbox_id, Phase.PAUSED)
        await until(lambda: again.state(sandbox_id) is State.PAUSED)
    assert two.world.calls["pause", sandbox_id] == 1


async def test_what_the_engine_starts_again_is_pending_meanwhile(two: Two) -> None:
    sandbox_id = await running(two)
    two.world.change(sandbox_id, Phase.RESTARTING, reason="RESTARTING", message="It ended.")
    await until(lambda: two.one.state(sandbox_id) is two.other.state(sandbox_id) is State.PENDING)
    await asyncio.sleep(0)
    assert two.one.lifecycle.sandboxes.entry(sandbox_id).record.message == "It ended."
    two.world.change(sandbox_id, Phase.RUNNING)
    await until(lambda: two.one.state(sandbox_id) is two.other.state(sandbox_id) is State.RUNNING)


async def test_what_others_removed_and_something_holds_is_stopping_and_nobody_hurries_it(two: Two) -> None:
    sandbox_id = await running(two)
    two.world.change(sandbox_id, Phase.STOPPING)
    for server in (two.one, two.other):
        await until(lambda server=server: server.state(sandbox_id) is State.STOPPING)  # type: ignore[misc]  # bound now
    with pytest.raises(Conflict):
        await two.other.lifecycle.pause(sandbox_id)
    await two.one.__aexit__(None, None, None)
    async with Server(two.world, two.one.disk, runtimes={"memory": two.runtimes[0]}) as again:
        assert again.state(sandbox_id) is State.STOPPING
        await again.lifecycle._core.lanes.run(sandbox_id, lambda: asyncio.sleep(0))  # after what was taken up
        assert sandbox_id in two.world.workloads
        two.world.vanish(sandbox_id)
        await unknown(again, sandbox_id)
        await unknown(two.other, sandbox_id)


async def test_one_that_others_removed_is_deleted_by_a_caller_all_the_same(two: Two) -> None:
    sandbox_id = await running(two)
    two.world.change(sandbox_id, Phase.STOPPING)
    await until(lambda: two.other.state(sandbox_id) is State.STOPPING)
    await two.other.lifecycle.delete(sandbox_id)
    assert two.other.state(sandbox_id) is None
    await unknown(two.one, sandbox_id)
