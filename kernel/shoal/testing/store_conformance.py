"""The suite that every store must pass (docs/writing-a-store.md): what is kept, together, across restarts and kills.

A store's author subclasses `StoreConformance` and provides one fixture, ``store_conformance``, that returns a
`StoreHarness`. The tests need pytest and pytest-asyncio in auto mode.
"""

# ruff: noqa: S101 - this module is a test suite, and asserts are how it speaks
from __future__ import annotations

import asyncio
import os
import signal
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from shoal.errors import Conflict, ShoalError
from shoal.models.plan import WorkloadPlan
from shoal.models.pools import CapacitySpec, PoolRecord
from shoal.models.requests import ImageAuth
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.secret import Secret
from shoal.plugin.interfaces import IdempotencyKey, SnapshotRecord, Store


@dataclass
class StoreHarness:
    """What the suite needs to know of a store.

    Attributes:
        make: a new, unstarted Store object over the same medium each time, as a restarted server makes it. The medium
            is empty when a test begins.
    """

    make: Callable[[], Store]

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Store]:
        """A started store, as a server begins to use it; stopped afterwards."""
        store = self.make()
        await store.start()
        try:
            await store.set_aside()
            yield store
        finally:
            await store.stop()


def a_sandbox() -> tuple[SandboxRecord, WorkloadPlan, IdempotencyKey]:
    """A new sandbox with what is hard to keep: microseconds, a None, a password, texts of several scripts."""
    now, id_ = datetime.now(UTC), str(uuid.uuid4())
    record = SandboxRecord(
        id=id_,
        runtime="any",
        state=State.PENDING,
        since=now,
        created_at=now.replace(microsecond=1),
        entrypoint=["sh", "-c", "printf 'ü\\n\u2028'"],
        expires_at=now + timedelta(hours=1, microseconds=7),
        metadata={"team": "a", "empty": ""},
        owner="Åsa",
    )
    plan = WorkloadPlan(
        id=id_,
        runtime="any",
        created_at=record.created_at,
        command=record.entrypoint,
        image="registry.example/image",
        image_auth=ImageAuth(username="me", password=Secret("p\"ä's")),
        env={"SET": "1", "UNSET": None},
    )
    key = IdempotencyKey(
        key=uuid.uuid4().hex, fingerprint="f" * 64, sandbox_id=id_, expires_at=now + timedelta(hours=1)
    )
    return record, plan, key


def a_snapshot() -> SnapshotRecord:
    """A snapshot that is being made."""
    now = datetime.now(UTC)
    return SnapshotRecord(
        id=str(uuid.uuid4()),
        sandbox_id=str(uuid.uuid4()),
        runtime="any",
        state="Creating",
        created_at=now,
        updated_at=now,
        name="ü",
    )


def a_pool(name: str) -> PoolRecord:
    """A pool."""
    capacity = CapacitySpec(buffer_max=2, buffer_min=1, pool_max=4, pool_min=0)
    template = {"image": {"uri": "any"}, "env": {"UNSET": None}}
    return PoolRecord(
        id=str(uuid.uuid4()),
        name=name,
        runtime="any",
        created_at=datetime.now(UTC),
        template=template,
        capacity=capacity,
    )


class StoreConformance:
    """Subclass this in a test module of your own; every test takes the ``store_conformance`` fixture."""

    async def test_it_is_empty_at_first_and_can_work(self, store_conformance: StoreHarness) -> None:
        async with store_conformance.started() as store:
            assert store.name
            await store.ping()
            kept = (store.sandboxes(), store.idempotency_keys(), store.snapshots(), store.pools())
            assert [await each for each in kept] == [[], [], [], []]
            assert await store.plan(str(uuid.uuid4())) is None

    async def test_a_new_sandbox_its_plan_and_its_key_come_back_as_they_were(
        self, store_conformance: StoreHarness
    ) -> None:
        record, plan, key = a_sandbox()
        async with store_conformance.started() as store:
            await store.add(record, plan, key)
            assert await store.plan(record.id) == plan
        async with store_conformance.started() as store:
            assert await store.sandboxes() == [record]
            assert await store.plan(record.id) == plan
            assert await store.idempotency_keys() == [key]

    async def test_an_id_that_is_taken_is_a_conflict_that_changes_nothing(
        self, store_conformance: StoreHarness
    ) -> None:
        record, plan, key = a_sandbox()
        async with store_conformance.started() as store:
            await store.add(record, plan, None)
            with pytest.raises(Conflict):
                await store.add(replace(record, owner="another"), replace(plan, image="another"), key)
        async with store_conformance.started() as store:
            assert (await store.sandboxes(), await store.plan(record.id)) == ([record], plan)
            assert await store.idempotency_keys() == []

    async def test_save_replaces_the_record_and_forgets_the_plan_only_if_told(
        self, store_conformance: StoreHarness
    ) -> None:
        record, plan, key = a_sandbox()
        async with store_conformance.started() as store:
            await store.add(record, plan, None)
            pulling = replace(record, reason="PULLING")
            await store.save(pulling)
            assert (await store.sandboxes(), await store.plan(record.id)) == ([pulling], plan)
            running = replace(record, state=State.RUNNING)
            await store.save(running, forget_plan=True, key=key)
        async with store_conformance.started() as store:
            assert (await store.sandboxes(), await store.plan(record.id)) == ([running], None)
            assert await store.idempotency_keys() == [key]

    async def test_save_of_an_unknown_sandbox_makes_it(self, store_conformance: StoreHarness) -> None:
        record, _, _ = a_sandbox()
        async with store_conformance.started() as store:
            await store.save(record)
        async with store_conformance.started() as store:
            assert (await store.sandboxes(), await store.plan(record.id)) == ([record], None)

    async def test_remove_keeps_the_key_and_may_be_repeated(self, store_conformance: StoreHarness) -> None:
        record, plan, key = a_sandbox()
        async with store_conformance.started() as store:
            await store.add(record, plan, key)
            await store.remove(record.id)
            await store.remove(record.id)
        async with store_conformance.started() as store:
            assert (await store.sandboxes(), await store.plan(record.id)) == ([], None)
            assert await store.idempotency_keys() == [key]

    async def test_a_key_is_replaced_by_a_later_one_and_one_that_expired_may_be_used_again(
        self, store_conformance: StoreHarness
    ) -> None:
        record, plan, key = a_sandbox()
        other, other_plan, _ = a_sandbox()
        async with store_conformance.started() as store:
            await store.add(record, plan, key)
            await store.save(record, key=replace(key, expires_at=datetime.now(UTC)))
            assert await store.idempotency_keys() == []
            used_again = replace(key, sandbox_id=other.id)
            await store.add(other, other_plan, used_again)
        async with store_conformance.started() as store:
            assert await store.idempotency_keys() == [used_again]

    async def test_forget_keys_drops_those_before_and_no_others(self, store_conformance: StoreHarness) -> None:
        now = datetime.now(UTC)
        async with store_conformance.started() as store:
            keys = []
            for hours in (1, 2, 3):
                record, plan, key = a_sandbox()
                keys.append(replace(key, expires_at=now + timedelta(hours=hours)))
                await store.add(record, plan, keys[-1])
            await store.forget_keys(now + timedelta(hours=2))
        async with store_conformance.started() as store:
            assert sorted(await store.idempotency_keys(), key=lambda key: key.expires_at) == keys[1:]

    async def test_snapshots_are_inserted_replaced_and_removed(self, store_conformance: StoreHarness) -> None:
        snapshot = a_snapshot()
        ready = replace(snapshot, state="Ready", image="ref", last_transition_at=datetime.now(UTC))
        async with store_conformance.started() as store:
            await store.save_snapshot(snapshot)
            assert await store.snapshots() == [snapshot]
            await store.save_snapshot(ready)
        async with store_conformance.started() as store:
            assert await store.snapshots() == [ready]
            await store.remove_snapshot(ready.id)
            await store.remove_snapshot(ready.id)
            assert await store.snapshots() == []

    async def test_pools_are_inserted_replaced_and_removed(self, store_conformance: StoreHarness) -> None:
        pool = a_pool("warm")
        larger = replace(pool, capacity=CapacitySpec(buffer_max=9, buffer_min=1, pool_max=9, pool_min=0))
        async with store_conformance.started() as store:
            await store.save_pool(pool)
            await store.save_pool(larger)
            with pytest.raises(Conflict):
                await store.save_pool(a_pool("warm"))
        async with store_conformance.started() as store:
            assert await store.pools() == [larger]
            await store.remove_pool(pool.id)
            await store.remove_pool(pool.id)
            await store.save_pool(a_pool("warm"))
            assert [each.name for each in await store.pools()] == ["warm"]

    async def test_many_calls_at_once(self, store_conformance: StoreHarness) -> None:
        made = [a_sandbox() for _ in range(100)]
        async with store_conformance.started() as store:
            await asyncio.gather(*(store.add(*each) for each in made))
            await asyncio.gather(*(store.remove(record.id) for record, _, _ in made[:50]))
        async with store_conformance.started() as store:
            assert {record.id for record in await store.sandboxes()} == {record.id for record, _, _ in made[50:]}
            assert len(await store.idempotency_keys()) == 100

    async def test_a_call_whose_caller_leaves_is_finished_or_has_no_effect(
        self, store_conformance: StoreHarness
    ) -> None:
        made = [a_sandbox() for _ in range(20)]
        async with store_conformance.started() as store:
            calls = [asyncio.ensure_future(store.add(*each)) for each in made]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await store.add(*a_sandbox())
            seen = {record.id for record in await store.sandboxes()}
        async with store_conformance.started() as store:
            assert {record.id for record in await store.sandboxes()} == seen
            assert {key.sandbox_id for key in await store.idempotency_keys()} == seen
            assert {record.id for record, _, _ in made if await store.plan(record.id) is not None} <= seen

    async def test_a_store_that_is_not_open_says_so(self, store_conformance: StoreHarness) -> None:
        async with store_conformance.started() as store:
            await store.ping()
        with pytest.raises(ShoalError):
            await store.save(a_sandbox()[0])
        with pytest.raises(ShoalError):
            await store.ping()

    def test_what_was_answered_survives_a_kill(self, store_conformance: StoreHarness) -> None:
        record, plan, key = a_sandbox()
        running = replace(record, state=State.RUNNING)
        gone, gone_plan, gone_key = a_sandbox()
        snapshot, pool = a_snapshot(), a_pool("warm")

        async def write() -> None:
            store = store_conformance.make()
            await store.start()
            await store.add(record, plan, key)
            await store.add(gone, gone_plan, gone_key)
            await store.save(running, forget_plan=True)
            await store.remove(gone.id)
            await store.save_snapshot(snapshot)
            await store.save_pool(pool)
            os.kill(os.getpid(), signal.SIGKILL)

        async def read() -> None:
            async with store_conformance.started() as store:
                assert (await store.sandboxes(), await store.plan(record.id)) == ([running], None)
                assert {each.key for each in await store.idempotency_keys()} == {key.key, gone_key.key}
                assert (await store.snapshots(), await store.pools()) == ([snapshot], [pool])

        assert _in_a_child(write) == -signal.SIGKILL, "the store failed before it was killed"
        asyncio.run(read())


def _in_a_child(work: Callable[[], Coroutine[None, None, None]]) -> int:
    """Run a coroutine in a process of its own; its exit code, or the negative number of the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of this process are none of the child's
        child = os.fork()
    if child == 0:
        with suppress(BaseException):
            asyncio.run(work())
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
