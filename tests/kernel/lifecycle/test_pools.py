"""Warm pools: how many there are, who gets one, and that nobody sees them before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import MemoryRuntime, Server, World, fails, request
from tests.support.waiting import until

from shoal.errors import Conflict, EngineFailure, InvalidRequest, NotFound, NotSupported, RateLimited, Unavailable
from shoal.lifecycle.pools.pool import PoolState, desired_buffer
from shoal.models.plan import WorkloadPlan
from shoal.models.pools import CapacitySpec, CreatePool, Pool
from shoal.models.requests import CreateSandbox, ImageSpec
from shoal.models.sandbox import State
from shoal.models.workload import Phase, Workload
from shoal.plugin.interfaces import AGENT_PORT, Capabilities, NativePools, Progress
from shoal.view.listing import ListQuery

TEMPLATE = {"image": {"uri": "host"}, "entrypoint": ["sleep", "1"], "env": {"A": "1"}}


def capacity(low: int = 2, high: int = 2, most: int = 10, least: int = 0) -> CapacitySpec:
    return CapacitySpec(buffer_max=high, buffer_min=low, pool_max=most, pool_min=least)


def server(world: World | None = None, **more: object) -> Server:
    return Server(world, pool_settle_seconds=0, **more)  # type: ignore[arg-type]  # a test's own fields


async def make(server: Server, name: str = "warm", spec: CapacitySpec | None = None, **changes: object) -> PoolState:
    """A pool, once it is as full as it should be."""
    template = {**TEMPLATE, **changes}
    spec = spec or capacity()
    await server.lifecycle.pools.create(CreatePool(name=name, template=template, capacity_spec=spec))
    pool = state(server, name)
    await full(pool)
    return pool


def state(server: Server, name: str = "warm") -> PoolState:
    [pool] = [pool for pool in server.lifecycle._keeper.pools.values() if pool.record.name == name]
    return pool


async def full(pool: PoolState) -> None:
    """Wait until nothing is missing and every hidden member is frozen."""

    def settled() -> bool:
        frozen = all(member.state is State.PAUSED for member in pool.hidden.values())
        return frozen and not pool.starting and pool.change() == 0

    await until(settled)


def ref(name: str = "warm", **changes: object) -> CreateSandbox:
    return CreateSandbox(extensions={"poolRef": name}, **changes)  # type: ignore[arg-type]  # a test's own fields


async def take(server: Server, name: str = "warm", **changes: object) -> str:
    entry = await server.lifecycle.sandboxes.create(ref(name, **changes))
    return entry.record.id


# --- How many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "allocated", "buffer", "expected"),
    [
        (capacity(2, 6), 0, 0, 4),
        (capacity(2, 6), 5, 2, 2),
        (capacity(2, 6), 5, 1, 4),
        (capacity(2, 6), 0, 9, 4),
        (capacity(2, 2, most=3), 2, 2, 1),
        (capacity(2, 2, most=3), 5, 2, 0),
        (capacity(0, 0, least=4), 1, 0, 3),
        (capacity(0, 0, most=2, least=4), 0, 0, 2),
        (capacity(4, 2), 0, 0, 3),
        (capacity(0, 1), 0, 0, 0),
    ],
)
def test_desired_buffer(spec: CapacitySpec, allocated: int, buffer: int, expected: int) -> None:
    assert desired_buffer(spec, allocated, buffer) == expected


async def test_a_pool_fills_itself_and_its_members_are_frozen_and_invisible() -> None:
    async with server() as one:
        pool = await make(one, spec=capacity(3, 3))
        members = list(pool.hidden)
        assert [one.world.workloads[member].phase for member in members] == [Phase.PAUSED] * 3
        assert one.lifecycle.sandboxes.page(ListQuery()).total == 0
        assert list(one.lifecycle.records()) == []
        assert one.lifecycle.find(members[0]) is None
        for call in (one.lifecycle.delete, one.lifecycle.pause, one.lifecycle.resume):
            with pytest.raises(NotFound):
                await call(members[0])
        with pytest.raises(NotFound):
            await one.lifecycle.sandboxes.wait(members[0], frozenset({State.RUNNING}), 0)
        assert one.lifecycle.reach.address(members[0], 80) is None
        assert one.recorder.told == []
        status = (await one.lifecycle.pools.get("warm")).status
        assert status is not None
        assert (status.total, status.allocated, status.available) == (3, 0, 3)


class WithAgents(MemoryRuntime):
    """A runtime whose sandboxes have an agent, which listens at ``port``."""

    agent_starts = True
    port = 0

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        made = await super().create(plan, progress)
        return replace(made, ports={AGENT_PORT: f"127.0.0.1:{self.port}"})


@contextlib.asynccontextmanager
async def listening(world: World) -> AsyncIterator[tuple[WithAgents, list[list[Phase]]]]:
    """A runtime whose agents answer, and the phases of all sandboxes at each request to an agent."""
    asked = list[list[Phase]]()

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append([workload.phase for workload in world.workloads.values()])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    runtime = WithAgents(world)
    async with await asyncio.start_server(agent, "127.0.0.1", 0) as listener:
        runtime.port = listener.sockets[0].getsockname()[1]
        yield runtime, asked


async def test_the_agent_of_a_member_has_answered_before_it_is_frozen() -> None:
    world = World()
    async with listening(world) as (runtime, asked), server(world, runtimes={"memory": runtime}) as one:
        await make(one, spec=capacity(1, 1))
        assert asked == [[Phase.RUNNING]]


async def test_a_member_that_a_killed_server_left_running_has_its_agent_started_before_it_is_frozen() -> None:
    world = World()
    async with listening(world) as (runtime, asked):
        one = Server(world, runtimes={"memory": MemoryRuntime(world)}, pool_settle_seconds=600)
        await one.lifecycle.start()
        await one.lifecycle.pools.create(CreatePool(name="warm", template=TEMPLATE, capacity_spec=capacity(1, 1)))
        await until(lambda: [member.state for member in state(one).hidden.values()] == [State.RUNNING])
        await one.die()
        [(member, record)] = one.disk.records.items()
        one.disk.records[member] = replace(record, since=record.since - timedelta(hours=1))
        world.workloads[member] = replace(world.workloads[member], ports={AGENT_PORT: f"127.0.0.1:{runtime.port}"})
        assert asked == []
        async with server(world, disk=one.disk, runtimes={"memory": runtime}) as two:
            await full(state(two))
            assert list(state(two).hidden) == [member]
            assert asked == [[Phase.RUNNING]]


async def test_a_changed_capacity_grows_and_shrinks_it() -> None:
    async with server() as one:
        pool = await make(one)
        await one.lifecycle.pools.update("warm", capacity(5, 5))
        await until(lambda: len(one.world.workloads) == 5)
        await full(pool)
        await one.lifecycle.pools.update("warm", capacity(1, 1))
        await until(lambda: len(one.world.workloads) == 1)
        assert one.recorder.told == []


async def test_a_deleted_pool_leaves_only_what_was_taken() -> None:
    async with server() as one:
        await make(one)
        mine = await take(one)
        await one.lifecycle.pools.delete("warm")
        await until(lambda: list(one.world.workloads) == [mine])
        assert one.state(mine) is State.RUNNING
        with pytest.raises(NotFound):
            await one.lifecycle.pools.get("warm")
        again = await make(one)
        assert again.taken == set(), "the former pool's sandbox is not of this one"


@pytest.mark.parametrize("end", [Phase.FAILED, Phase.EXITED, Phase.RUNNING, None])
async def test_a_member_that_did_not_stay_is_replaced(end: Phase | None) -> None:
    async with server() as one:
        pool = await make(one)
        victim = next(iter(pool.hidden))
        if end is None:
            one.world.vanish(victim)
        else:
            one.world.change(victim, end)
        await until(lambda: victim not in pool.hidden and len(pool.hidden) == 2)
        await full(pool)
        assert victim not in one.world.workloads
        assert one.recorder.told == []


async def test_a_pool_whose_members_fail_says_why_and_tries_again() -> None:
    async with server() as one:
        one.world.fault = fails("create", EngineFailure("MEMORY::BROKEN", "No such image."))
        await one.lifecycle.pools.create(CreatePool(name="warm", template=TEMPLATE, capacity_spec=capacity()))
        pool = state(one)
        await until(lambda: pool.failures > 0)
        status = (await one.lifecycle.pools.get("warm")).status
        assert status is not None
        assert status.message == "No such image."
        one.world.fault = lambda call, sandbox_id: None
        await full(pool)
        assert pool.trouble is None
        assert one.lifecycle.sandboxes.page(ListQuery()).total == 0


# --- Who gets one ----------------------------------------------------------------------------------------------------


async def test_a_take_is_running_at_once_and_is_the_callers() -> None:
    async with server() as one:
        pool = await make(one)
        oldest = next(iter(pool.hidden))
        before = datetime.now(UTC)
        entry = await one.lifecycle.sandboxes.create(ref(timeout=600, metadata={"job": "7"}))
        record = entry.record
        assert (record.id, record.state) == (oldest, State.RUNNING)
        assert record.created_at >= before
        assert record.expires_at == record.created_at + timedelta(seconds=600)
        assert (record.metadata, record.image, record.entrypoint) == ({"job": "7"}, "host", ["sleep", "1"])
        assert one.world.workloads[oldest].phase is Phase.RUNNING
        assert b'"allocation":{"poolRef":"warm","mode":"pool","state":"allocated"}' in entry.json
        assert one.recorder.of(oldest) == [State.RESUMING, State.RUNNING]
        await until(lambda: one.world.calls["apply", oldest] == 1)
        await full(pool)
        await one.lifecycle.delete(oldest)
        assert one.recorder.of(oldest)[-1] is None
        assert pool.taken == set()


async def test_a_taken_one_expires_and_idle_ones_never_do() -> None:
    async with server() as one:
        pool = await make(one)
        mine = await take(one, timeout=600)
        await one.lifecycle.renew(mine, datetime.now(UTC) + timedelta(seconds=0.05))
        await until(lambda: one.state(mine) is None)
        assert mine not in one.world.workloads
        await full(pool)
        assert len(pool.hidden) == 2


async def test_sixteen_at_once_get_sixteen_different_ones() -> None:
    async with server() as one:
        await make(one, spec=capacity(16, 16, most=40))
        taken = await asyncio.gather(*(one.lifecycle.sandboxes.create(ref()) for _ in range(16)))
        assert len({entry.record.id for entry in taken}) == 16
        assert {entry.record.state for entry in taken} == {State.RUNNING}


async def test_an_empty_pool_makes_an_ordinary_one_of_its_shape_until_it_is_full() -> None:
    async with server() as one:
        pool = await make(one, spec=capacity(0, 0, most=2))
        first, second = await asyncio.gather(take(one), take(one))
        for made in (first, second):
            await one.lifecycle.sandboxes.wait(made, frozenset({State.RUNNING}), 30)
            assert one.state(made) is State.RUNNING
        assert pool.taken == {first, second}
        with pytest.raises(RateLimited) as refused:
            await take(one)
        assert refused.value.code == "KUBERNETES::POOL_CAPACITY_EXHAUSTED"
        assert int(refused.value.headers["Retry-After"]) >= 1
        await one.lifecycle.delete(first)
        assert await take(one) != second


async def test_with_the_pool_full_one_on_its_way_is_taken() -> None:
    async with server() as one:
        held = asyncio.Event()
        one.world.fault = lambda call, sandbox_id: held.wait() if call == "create" else None  # type: ignore[assignment,return-value]  # the result is dropped
        spec = capacity(1, 1, most=1)
        await one.lifecycle.pools.create(CreatePool(name="warm", template=TEMPLATE, capacity_spec=spec))
        pool = state(one)
        await until(lambda: [member.state for member in pool.hidden.values()] == [State.PENDING])
        entry = await one.lifecycle.sandboxes.create(ref(timeout=600, metadata={"a": "b"}))
        assert entry.record.state is State.PENDING
        with pytest.raises(RateLimited):
            await take(one)
        held.set()
        after = await one.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        assert (after.record.state, after.record.metadata) == (State.RUNNING, {"a": "b"})
        assert pool.hidden == {}


async def test_any_pool_that_fits() -> None:
    async with server() as one:
        await make(one, "a", env={"A": "other"})
        pool = await make(one, "b")
        entry = await one.lifecycle.sandboxes.create(ref("*", env={"A": "1"}))
        assert pool.taken == {entry.record.id}
        with pytest.raises(InvalidRequest, match="Every pool"):
            await one.lifecycle.sandboxes.create(ref("*", entrypoint=["neither"]))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image": ImageSpec(uri="another")}, "image"),
        ({"entrypoint": ["other"]}, "entrypoint"),
        ({"resource_limits": {"cpu": "2"}}, "resourceLimits"),
    ],
)
async def test_what_cannot_be_applied_any_more_is_refused(changes: dict[str, Any], field: str) -> None:
    async with server() as one:
        await make(one)
        with pytest.raises(InvalidRequest, match=field):
            await take(one, **changes)
        same = ImageSpec(uri=" host ")
        assert await take(one, image=same, entrypoint=["sleep", "1"], env={"A": "1"}, resource_limits={})


SDK: dict[str, Any] = {
    "image": ImageSpec(uri="host"),
    "entrypoint": ["tail", "-f", "/dev/null"],
    "resource_limits": {"cpu": "1", "memory": "2Gi"},
}


async def test_what_an_sdk_sends_of_itself_is_as_if_left_out() -> None:
    async with server() as one:
        pool = await make(one)
        entry = await one.lifecycle.sandboxes.create(ref(**SDK))
        assert entry.record.state is State.RUNNING
        assert entry.record.entrypoint == ["sleep", "1"]
        assert pool.taken == {entry.record.id}


async def test_an_environment_of_ones_own_gets_a_new_sandbox_of_the_pool() -> None:
    async with server() as one:
        pool = await make(one)
        entry = await one.lifecycle.sandboxes.create(ref(**SDK, env={"A": "2", "B": "3"}))
        plan = await one.lifecycle._core.store.plan(entry.record.id)
        assert plan is not None
        assert (plan.env, plan.command) == ({"A": "2", "B": "3"}, ["sleep", "1"])
        assert entry.record.pool is not None
        await one.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        assert pool.taken == {entry.record.id}


async def test_in_a_full_pool_it_takes_the_place_of_an_idle_one() -> None:
    async with server() as one:
        spec = CreatePool(name="warm", template=TEMPLATE, capacity_spec=capacity(1, 1, most=1))
        await one.lifecycle.pools.create(spec)
        pool = state(one)
        await full(pool)
        idle = set(pool.hidden)
        entry = await one.lifecycle.sandboxes.create(ref(env={"A": "2"}))
        await one.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        await until(lambda: pool.hidden == {})
        assert idle.isdisjoint(one.world.workloads)
        with pytest.raises(RateLimited):
            await one.lifecycle.sandboxes.create(ref(env={"A": "2"}))


async def test_a_create_that_matches_takes_one_unless_told_not_to() -> None:
    async with server() as one:
        pool = await make(one)
        matching = request(env={"A": "1"}, metadata={"x": "y"}, extensions={"opensandbox.extensions.k": "v"})
        entry = await one.lifecycle.sandboxes.create(matching)
        assert (entry.record.state, entry.record.metadata) == (State.RUNNING, {"x": "y"})
        assert pool.taken == {entry.record.id}
        await full(pool)
        for other in (request(env={"A": "2"}), request(env={"A": "1"}, extensions={"poolMatch": "off"})):
            entry = await one.lifecycle.sandboxes.create(other)
            assert entry.record.state is State.PENDING
            assert entry.record.pool is None


async def test_a_pool_may_be_for_those_who_name_it() -> None:
    async with server() as one:
        spec = CreatePool(name="warm", template=TEMPLATE, capacity_spec=capacity(), match_creates=False)
        await one.lifecycle.pools.create(spec)
        await full(state(one))
        assert (await one.lifecycle.sandboxes.create(request(env={"A": "1"}))).record.state is State.PENDING
        assert one.state(await take(one)) is State.RUNNING


async def test_a_key_takes_one_however_often_it_is_sent() -> None:
    async with server() as one:
        await make(one)
        entries = await asyncio.gather(*(one.lifecycle.sandboxes.create(ref(), idempotency_key="k") for _ in range(5)))
        assert len({entry.record.id for entry in entries}) == 1
        with pytest.raises(Conflict):
            await one.lifecycle.sandboxes.create(ref(timeout=60), idempotency_key="k")


async def test_a_member_that_cannot_be_thawed_is_replaced_by_the_next() -> None:
    async with server() as one:
        pool = await make(one)
        broken = next(iter(pool.hidden))

        def fault(call: str, sandbox_id: str) -> None:
            if (call, sandbox_id) == ("resume", broken):
                raise EngineFailure("MEMORY::BROKEN", "It is broken.")

        one.world.fault = fault
        entry = await one.lifecycle.sandboxes.create(ref(), idempotency_key="k")
        assert entry.record.id != broken
        assert (await one.lifecycle.sandboxes.create(ref(), idempotency_key="k")).record.id == entry.record.id
        await until(lambda: broken not in one.world.workloads)
        assert one.recorder.of(broken) == [State.RESUMING, None]


async def test_without_an_engine_the_create_waits_as_any_other() -> None:
    async with server() as one:
        pool = await make(one, spec=capacity(2, 2, most=9))
        idle = set(pool.hidden)
        one.world.fault = fails("resume", Unavailable("MEMORY::AWAY", "Away."))
        entry = await one.lifecycle.sandboxes.create(ref(), idempotency_key="k")
        assert entry.record.id not in idle
        assert set(pool.hidden) >= idle, "they are fit to be taken later"
        one.world.fault = lambda call, sandbox_id: None
        assert await take(one) in idle
        assert (await one.lifecycle.sandboxes.create(ref(), idempotency_key="k")).record.id == entry.record.id


async def test_a_store_that_is_full_gives_nothing_away() -> None:
    async with server() as one:
        pool = await make(one)
        idle = set(pool.hidden)
        one.disk.fault = fails("save", Unavailable("STORE::FULL", "Full."))
        with pytest.raises(Unavailable):
            await take(one)
        one.disk.fault = lambda call, sandbox_id: None
        assert set(pool.hidden) == idle
        assert await take(one) in idle


# --- Refusals --------------------------------------------------------------------------------------------------------


async def test_unknown_twice_and_nowhere() -> None:
    async with server() as one:
        await make(one)
        with pytest.raises(InvalidRequest) as unknown:
            await take(one, "other")
        assert unknown.value.code == "SANDBOX::UNSUPPORTED_POOL_REF"
        with pytest.raises(Conflict) as taken:
            await one.lifecycle.pools.create(CreatePool(name="warm", template=TEMPLATE, capacity_spec=capacity()))
        assert taken.value.code == "KUBERNETES::POOL_ALREADY_EXISTS"
        for call in (one.lifecycle.pools.get, one.lifecycle.pools.delete):
            with pytest.raises(NotFound):
                await call("other")
        with pytest.raises(NotFound):
            await one.lifecycle.pools.update("other", capacity())


async def test_a_runtime_that_cannot_pause_has_none() -> None:
    world = World()
    runtime = MemoryRuntime(world)
    runtime.capabilities = Capabilities()
    async with server(world, runtimes={"memory": runtime}) as one:
        with pytest.raises(NotSupported):
            await one.lifecycle.pools.all()
        with pytest.raises(NotSupported):
            await one.lifecycle.pools.create(CreatePool(name="warm", template=TEMPLATE, capacity_spec=capacity()))
        with pytest.raises(InvalidRequest) as refused:
            await take(one)
        assert refused.value.code == "SANDBOX::UNSUPPORTED_POOL_REF"


class ClusterPools(NativePools):
    """Pools that an engine keeps by itself."""

    def __init__(self) -> None:
        self.known: dict[str, Pool] = {}

    async def create(self, request: CreatePool) -> Pool:
        self.known[request.name] = Pool(name=request.name, capacity_spec=request.capacity_spec)
        return self.known[request.name]

    async def list(self) -> list[Pool]:
        return list(self.known.values())

    async def get(self, name: str) -> Pool:
        if name not in self.known:
            raise NotFound("KUBERNETES::POOL_NOT_FOUND", "There is none.")
        return self.known[name]

    async def update(self, name: str, capacity: CapacitySpec) -> Pool:
        self.known[name] = replace(await self.get(name), capacity_spec=capacity)
        return self.known[name]

    async def delete(self, name: str) -> None:
        await self.get(name)
        del self.known[name]


async def test_a_runtime_with_pools_of_its_own_keeps_them() -> None:
    world = World()
    cluster, plain = MemoryRuntime(world), MemoryRuntime(world)
    cluster.capabilities, cluster.pools = Capabilities(pools=True), ClusterPools()
    async with server(world, runtimes={"memory": plain, "cluster": cluster}) as one:
        pools = one.lifecycle.pools
        there = {"spec": {"containers": [{"securityContext": {}}]}, "extensions": {"runtime": "cluster"}}
        await pools.create(CreatePool(name="there", template=there, capacity_spec=capacity()))
        await pools.create(CreatePool(name="here", template=TEMPLATE, capacity_spec=capacity(0, 0)))
        assert [pool.name for pool in await pools.all()] == ["here", "there"]
        assert (await pools.update("there", capacity(5, 5))).capacity_spec == capacity(5, 5)
        assert (await pools.get("there")).status is None
        entry = await one.lifecycle.sandboxes.create(
            CreateSandbox(extensions={"poolRef": "there", "runtime": "cluster"}, entrypoint=["true"])
        )
        assert entry.record.extensions["poolRef"] == "there"
        assert entry.record.pool is None, "the cluster knows"
        await pools.delete("there")
        assert list(cluster.pools.known) == []
        for call in (pools.get, pools.delete):
            with pytest.raises(NotFound):
                await call("there")


# --- Restarts --------------------------------------------------------------------------------------------------------


async def test_the_next_server_goes_on_with_the_same_members() -> None:
    async with server() as one:
        pool = await make(one)
        mine = await take(one, timeout=600)
        await full(pool)
        members = set(pool.hidden)
    async with server(one.world, disk=one.disk) as two:
        assert set(state(two).hidden) == members
        assert state(two).taken == {mine}
        assert await take(two) in members
        assert two.lifecycle.sandboxes.page(ListQuery()).total == 2


async def test_members_of_a_pool_that_is_gone_are_removed_at_the_next_start() -> None:
    async with server() as one:
        await make(one)
        mine = await take(one)
    one.disk.pools.clear()
    async with server(one.world, disk=one.disk) as two:
        await until(lambda: list(two.world.workloads) == [mine])
        assert two.state(mine) is State.RUNNING
