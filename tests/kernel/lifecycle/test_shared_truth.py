"""Several servers on one engine that holds the truth: any of them answers, and nothing that one was told is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import MemoryRuntime, Server, World, expires_soon, fails, request
from tests.support.waiting import until

from shoal.errors import Conflict, EngineFailure, Forbidden, NotFound, Unavailable
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import State
from shoal.models.workload import Adoption, Phase, Workload
from shoal.plugin.interfaces import Held, Progress, SharedTruth


class WorldTruth(SharedTruth):
    """What the world holds; ``charge`` names the one server that ends what is over."""

    charge: list[object]

    def __init__(self, runtime: SharedRuntime, charge: list[object]) -> None:
        self.runtime, self.world, self.charge = runtime, runtime.world, charge

    def held(self, sandbox_id: str) -> Held | None:
        workload = self.world.workloads.get(sandbox_id)
        if workload is None or workload.adoption is None:
            return None
        return Held(expires_at=workload.adoption.expires_at, metadata=workload.adoption.metadata)

    async def accept(self, plan: WorkloadPlan) -> None:
        adoption = Adoption(
            created_at=plan.created_at, entrypoint=plan.command, expires_at=plan.expires_at, metadata=plan.metadata
        )
        made = Workload(id=plan.id, phase=Phase.PENDING, reason="SCHEDULED", labels=plan.labels, adoption=adoption)
        await self.runtime._call("accept", plan.id, lambda: self.runtime._put(made))

    async def edit(self, sandbox_id: str, change: Callable[[Held], Held]) -> Held:
        await self.world.delay()
        self.world.fault("edit", sandbox_id)
        workload, held = self.world.workloads.get(sandbox_id), self.held(sandbox_id)
        if workload is None or workload.adoption is None or held is None:
            raise NotFound("MEMORY::SANDBOX_NOT_FOUND", "There is no such workload.")
        after = change(held)
        adoption = replace(workload.adoption, expires_at=after.expires_at, metadata=after.metadata)
        self.world.workloads[sandbox_id] = replace(workload, adoption=adoption)
        self.world.tell(self.world.workloads[sandbox_id])
        return after

    async def end(self, sandbox_id: str, now: datetime) -> bool:
        held = self.held(sandbox_id)
        if held is not None and (held.expires_at is None or held.expires_at > now):
            return False
        await self.runtime._call("end", sandbox_id, lambda: self.runtime._drop(sandbox_id))
        return True

    def in_charge(self) -> bool:
        return self.runtime in self.charge


class SharedRuntime(MemoryRuntime):
    """Its engine holds expiry and metadata; making one means to let it start."""

    resync_interval = 30.0  # events must do

    def __init__(self, world: World, charge: list[object]) -> None:
        super().__init__(world)
        self.truth = WorldTruth(self, charge)
        self.may_start = asyncio.Event()
        self.may_start.set()

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        if plan.id not in self.world.workloads:
            await self.truth.accept(plan)  # type: ignore[union-attr]  # it has one
        await self.may_start.wait()
        await self._call("create", plan.id, lambda: self.world.change(plan.id, Phase.RUNNING))
        return self.world.workloads[plan.id]


class Two:
    """Two servers, each with a store of its own; the first is in charge."""

    def __init__(self) -> None:
        self.world, self.charge = World(), list[object]()
        self.runtimes = [SharedRuntime(self.world, self.charge) for _ in range(2)]
        self.charge.append(self.runtimes[0])
        self.one, self.other = (Server(self.world, runtimes={"memory": runtime}) for runtime in self.runtimes)


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    both = Two()
    async with both.one, both.other:
        await until(lambda: both.world.watched == 2)
        yield both


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_the_other_server_knows_of_a_create_before_it_is_done(two: Two) -> None:
    two.runtimes[0].may_start.clear()
    entry = await two.one.lifecycle.sandboxes.create(request(metadata={"a": "1"}, timeout=60))
    sandbox_id = entry.record.id
    await until(lambda: two.other.state(sandbox_id) is State.PENDING)
    seen = two.other.lifecycle.sandboxes.entry(sandbox_id).record
    assert (seen.metadata, seen.expires_at, seen.reason) == ({"a": "1"}, entry.record.expires_at, "SCHEDULED")
    two.runtimes[0].may_start.set()
    await until(lambda: two.other.state(sandbox_id) is State.RUNNING)
    await until(lambda: two.one.state(sandbox_id) is State.RUNNING)
    assert two.world.started[sandbox_id] == 1


async def test_a_refused_create_is_the_callers_answer_and_leaves_nothing(two: Two) -> None:
    two.world.fault = fails("accept", Forbidden("MEMORY::QUOTA_EXCEEDED", "exceeded quota"))
    with pytest.raises(Forbidden, match="exceeded quota"):
        await two.one.lifecycle.sandboxes.create(request())
    await until(lambda: len(two.one.lifecycle.view) == 0)
    assert not two.world.workloads
    assert not two.one.disk.records


async def test_a_refused_create_is_cleaned_up_once_the_engine_is_back(two: Two) -> None:
    def away(call: str, sandbox_id: str) -> None:
        if call in ("accept", "delete"):
            raise Unavailable("MEMORY::AWAY", "away")

    two.world.fault = away
    with pytest.raises(Unavailable):
        await two.one.lifecycle.sandboxes.create(request())
    (record,) = two.one.disk.records.values()
    await until(lambda: two.one.disk.records[record.id].state is State.STOPPING)
    two.world.fault = lambda call, sandbox_id: None
    two.one.lifecycle._remover.hurry(two.one.disk.records[record.id])
    await until(lambda: not two.one.disk.records)


async def test_a_key_is_not_answered_with_a_create_that_was_refused(two: Two) -> None:
    """The engine took it, and the word of that was lost: it is withdrawn, so nobody may be told that it is there."""
    reached = asyncio.Event()

    def cut(call: str, sandbox_id: str) -> None:
        if call == "delete" and not reached.is_set():
            raise Unavailable("MEMORY::AWAY", "away")
        if call == "accept":
            raise Unavailable("MEMORY::AWAY", "away")

    two.world.fault = cut
    with pytest.raises(Unavailable, match="away"):
        await two.one.lifecycle.sandboxes.create(request(), idempotency_key="k")
    for _ in range(5):
        with pytest.raises(Unavailable, match="on its way out"):
            await two.one.lifecycle.sandboxes.create(request(), idempotency_key="k")
        await asyncio.sleep(0)
    two.world.fault = lambda call, sandbox_id: None
    reached.set()
    (record,) = two.one.disk.records.values()
    await until(lambda: two.one.disk.records[record.id].state is State.STOPPING)
    two.one.lifecycle._remover.hurry(two.one.disk.records[record.id])
    await until(lambda: not two.one.disk.records)
    made = await two.one.lifecycle.sandboxes.create(request(), idempotency_key="k")
    await until(lambda: two.one.state(made.record.id) is State.RUNNING)


async def test_a_key_whose_create_was_refused_may_be_used_again_after_a_restart_too(two: Two) -> None:
    two.world.fault = fails("accept", Forbidden("MEMORY::NO", "exceeded quota"))
    with pytest.raises(Forbidden):
        await two.one.lifecycle.sandboxes.create(request(), idempotency_key="k")
    await until(lambda: not two.one.disk.records)
    two.world.fault = lambda call, sandbox_id: None
    async with Server(two.world, two.one.disk, runtimes={"memory": SharedRuntime(two.world, two.charge)}) as restarted:
        made = await restarted.lifecycle.sandboxes.create(request(), idempotency_key="k")
        await until(lambda: restarted.state(made.record.id) is State.RUNNING)


async def test_patches_and_renewals_by_both_at_once_are_all_kept(two: Two) -> None:
    sandbox_id = await two.one.running(timeout=60)
    await until(lambda: two.other.state(sandbox_id) is State.RUNNING)
    servers = [two.one.lifecycle.sandboxes, two.other.lifecycle.sandboxes]
    times = [soon(100 + turn) for turn in range(20)]
    await asyncio.gather(
        *(servers[turn % 2].patch_metadata(sandbox_id, {f"k{turn}": str(turn)}) for turn in range(20)),
        *(servers[turn % 2].renew(sandbox_id, at, only_later=True) for turn, at in enumerate(times)),
        return_exceptions=False,
    )
    for each in servers:
        await until(lambda each=each: len(each.entry(sandbox_id).record.metadata) == 20)  # type: ignore[misc]  # bound now
        await until(lambda each=each: each.entry(sandbox_id).record.expires_at == times[-1])  # type: ignore[misc]  # bound now
    for server in (two.one, two.other):
        assert server.lifecycle._core.expiry.time_of(sandbox_id) == times[-1].timestamp()


async def test_an_edit_that_the_engine_refuses_changes_nothing(two: Two) -> None:
    sandbox_id = await two.one.running(timeout=60)
    before = two.one.lifecycle.sandboxes.entry(sandbox_id).record
    two.world.fault = fails("edit", EngineFailure("MEMORY::NO", "no"))
    with pytest.raises(EngineFailure):
        await two.one.lifecycle.renew(sandbox_id, soon(500))
    with pytest.raises(EngineFailure):
        await two.one.lifecycle.sandboxes.patch_metadata(sandbox_id, {"a": "b"})
    assert two.one.lifecycle.sandboxes.entry(sandbox_id).record == before


async def test_only_who_is_in_charge_ends_what_is_over(two: Two) -> None:
    two.charge.clear()
    sandbox_id = await two.other.running(timeout=60)
    await expires_soon(two.other, sandbox_id)
    await asyncio.sleep(1.0)
    assert two.other.state(sandbox_id) is State.RUNNING
    two.charge.append(two.runtimes[0])
    await until(lambda: two.one.state(sandbox_id) is None)
    await until(lambda: two.other.state(sandbox_id) is None)
    assert two.world.calls["end", sandbox_id] == 1


async def test_what_the_other_renewed_is_not_ended_although_this_one_has_not_heard(two: Two) -> None:
    sandbox_id = await two.one.running(timeout=60)
    await until(lambda: two.other.state(sandbox_id) is State.RUNNING)
    await two.one.lifecycle.renew(sandbox_id, soon(1))
    two.world.deaf = True
    later = soon(300)
    await two.other.lifecycle.renew(sandbox_id, later)
    await asyncio.sleep(1.7)
    assert two.one.state(sandbox_id) is State.RUNNING
    assert two.world.workloads[sandbox_id].phase is Phase.RUNNING
    two.world.deaf = False
    two.world.tell(two.world.workloads[sandbox_id])
    await until(lambda: two.one.lifecycle.sandboxes.entry(sandbox_id).record.expires_at == later)


async def test_a_delete_at_one_is_gone_at_the_other(two: Two) -> None:
    sandbox_id = await two.one.running()
    await until(lambda: two.other.state(sandbox_id) is State.RUNNING)
    await two.other.lifecycle.delete(sandbox_id)
    await until(lambda: two.one.state(sandbox_id) is None)
    with pytest.raises(NotFound):
        await two.one.lifecycle.renew(sandbox_id, soon(60))


async def test_one_key_makes_one_sandbox_wherever_it_is_sent(two: Two) -> None:
    first = await two.one.lifecycle.sandboxes.create(request(), idempotency_key="k")
    await until(lambda: two.other.state(first.record.id) is State.RUNNING)
    again = await two.other.lifecycle.sandboxes.create(request(), idempotency_key="k")
    assert again.record.id == first.record.id
    with pytest.raises(Conflict):
        await two.other.lifecycle.sandboxes.create(request(entrypoint=["another"]), idempotency_key="k")
    assert two.world.started.total() == 1


async def test_a_server_that_dies_in_the_middle_leaves_the_create_to_be_seen(two: Two) -> None:
    """Its store is lost with it: the sandbox is in the cluster, and the next server finds it in the making."""
    two.runtimes[0].may_start.clear()
    entry = await two.one.lifecycle.sandboxes.create(request(timeout=60))
    sandbox_id = entry.record.id
    await until(lambda: two.other.state(sandbox_id) is State.PENDING)
    third = Server(two.world, two.other.disk, runtimes={"memory": SharedRuntime(two.world, two.charge)})
    async with third:
        assert third.state(sandbox_id) is State.PENDING
        two.world.change(sandbox_id, Phase.RUNNING)
        await until(lambda: third.state(sandbox_id) is State.RUNNING)
        two.world.vanish(sandbox_id)
        await until(lambda: third.state(sandbox_id) is None)
