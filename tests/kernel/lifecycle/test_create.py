"""Create: durable before it is answered, first come first served, Failed with its reason, and overtaken by a delete."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import Server, fails, more, request
from tests.support.waiting import until

from shoal.errors import ConfigError, Conflict, EngineFailure, InvalidRequest, NotFound, Unavailable
from shoal.lifecycle.ledger import utcnow
from shoal.models import create
from shoal.models.pools import CapacitySpec, CreatePool
from shoal.models.requests import ImageSpec, PlatformSpec
from shoal.models.sandbox import Failure, SandboxRecord, State
from shoal.models.workload import Phase, Workload
from shoal.plugin.interfaces import Principal
from shoal.view.entry import Entry


async def test_create_is_durable_and_pending_at_once_and_running_soon() -> None:
    async with Server() as server:
        entry = await server.lifecycle.sandboxes.create(request(metadata={"team": "x"}))
        assert entry.record.state is State.PENDING
        assert entry.record.id in server.disk.records
        assert entry.record.id in server.disk.plans
        running = await server.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        assert running.record.state is State.RUNNING
        assert running.record.metadata == {"team": "x"}
        assert server.disk.plans == {}
        assert server.recorder.of(entry.record.id) == [State.PENDING, State.RUNNING]


async def test_progress_shows_while_pending() -> None:
    async with Server() as server:
        go = asyncio.Event()
        server.world.delay = lambda: go.wait()  # type: ignore[assignment, return-value]  # only its end matters
        entry = await server.lifecycle.sandboxes.create(request())
        await until(lambda: server.lifecycle.sandboxes.entry(entry.record.id).record.reason == "PULLING")
        go.set()
        await server.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)


async def test_a_permanent_failure_ends_as_failed_with_its_reason_and_leaves_nothing() -> None:
    async with Server() as server:

        def fault(call: str, sandbox_id: str) -> None:
            if call == "create":
                raise InvalidRequest("MEMORY::NO_SUCH_IMAGE", "There is no such image.")

        server.world.fault = fault
        entry = await server.lifecycle.sandboxes.create(request())
        failed = await server.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        assert (failed.record.state, failed.record.reason) == (State.FAILED, "NO_SUCH_IMAGE")
        assert failed.record.message == "There is no such image."
        assert failed.record.purge_at is not None
        assert failed.record.purge_at - failed.record.since >= timedelta(seconds=3599)
        assert server.disk.plans == {}
        assert server.world.calls["delete", entry.record.id] == 1
        assert entry.record.id in server.releases.released_ids
        await server.lifecycle.delete(entry.record.id)
        assert server.state(entry.record.id) is None


async def test_a_failed_create_is_forgotten_after_its_time() -> None:
    async with Server(pending_failure_ttl_seconds=1) as server:
        server.world.fault = fails("create", RuntimeError("a bug with a secret in it"))
        entry = await server.lifecycle.sandboxes.create(request())
        failed = await server.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        assert failed.record.state is State.FAILED
        assert "secret" not in (failed.record.message or "")
        await until(lambda: server.state(entry.record.id) is None)
        assert server.disk.records == {}


async def test_a_temporary_failure_is_tried_again() -> None:
    async with Server() as server:
        tries = []

        def fault(call: str, sandbox_id: str) -> None:
            if call == "create":
                tries.append(sandbox_id)
                if len(tries) < 3:
                    raise EngineFailure("MEMORY::RESTARTING", "The engine is restarting.", retry_after=0.01)

        server.world.fault = fault
        sandbox_id = await server.running()
        assert tries == [sandbox_id] * 3
        assert server.world.started[sandbox_id] == 1


async def test_tries_are_bounded() -> None:
    async with Server(provision_attempts=2) as server:
        server.world.fault = fails("create", EngineFailure("MEMORY::AWAY", "away", retry_after=0.0))
        entry = await server.lifecycle.sandboxes.create(request())
        failed = await server.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        assert (failed.record.state, failed.record.reason) == (State.FAILED, "AWAY")


async def test_a_runtime_that_cancels_itself_fails_the_create() -> None:
    async with Server() as server:
        server.world.fault = fails("create", asyncio.CancelledError())
        entry = await server.lifecycle.sandboxes.create(request())
        failed = await server.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        assert failed.record.state is State.FAILED


async def test_remains_of_a_failed_create_are_cleared_as_soon_as_the_engine_lets_us() -> None:
    async with Server() as server:

        def fault(call: str, sandbox_id: str) -> None:
            if call == "delete":
                raise EngineFailure("MEMORY::AWAY", "away")
            if call == "create":
                server.world.workloads[sandbox_id] = Workload(id=sandbox_id, phase=Phase.PENDING)
                raise EngineFailure("MEMORY::BROKEN", "half made")

        server.world.fault = fault
        entry = await server.lifecycle.sandboxes.create(request())
        await server.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        await more(server.world.tried, "delete")
        assert entry.record.id in server.world.workloads
        server.world.fault = lambda call, sandbox_id: None
        await until(lambda: not server.world.workloads)
        assert server.state(entry.record.id) is State.FAILED


async def test_engine_calls_are_bounded_and_first_come_first_served() -> None:
    async with Server(provision_concurrency=3) as server:
        order: list[str] = []

        def fault(call: str, sandbox_id: str) -> None:
            if call == "create":
                order.append(sandbox_id)

        server.world.fault = fault
        entries = [await server.lifecycle.sandboxes.create(request()) for _ in range(30)]
        ids = [entry.record.id for entry in entries]
        for sandbox_id in ids:
            await server.lifecycle.sandboxes.wait(sandbox_id, frozenset({State.RUNNING}), 30)
        assert order == ids
        assert server.world.most_at_once <= 3


async def test_a_delete_overtakes_a_create_that_waits_for_its_turn() -> None:
    async with Server(provision_concurrency=1) as server:
        go = asyncio.Event()

        async def fault_first() -> None:
            await go.wait()

        server.world.fault = lambda call, sandbox_id: fault_first() if call == "create" else None
        await server.lifecycle.sandboxes.create(request())
        waiting = await server.lifecycle.sandboxes.create(request())
        deleting = asyncio.create_task(server.lifecycle.delete(waiting.record.id))
        await until(lambda: server.state(waiting.record.id) is State.STOPPING)
        go.set()
        await deleting
        assert server.world.started[waiting.record.id] == 0
        assert server.state(waiting.record.id) is None


async def test_a_delete_overtakes_a_create_that_waits_to_try_again() -> None:
    async with Server() as server:
        server.world.fault = fails("create", EngineFailure("MEMORY::AWAY", "away", retry_after=3600.0))
        entry = await server.lifecycle.sandboxes.create(request())
        await until(lambda: server.world.tried["create"])
        await asyncio.wait_for(server.lifecycle.delete(entry.record.id), 30)
        assert server.disk.records == {}


async def test_a_create_goes_on_if_the_delete_that_overtook_it_could_not_be_written_down() -> None:
    async with Server() as server:
        go = asyncio.Event()
        server.world.delay = lambda: go.wait()  # type: ignore[assignment, return-value]  # only its end matters
        entry = await server.lifecycle.sandboxes.create(request())
        await until(lambda: server.world.tried["create"])
        server.disk.fault = fails("save", Unavailable("STORE::FULL", "The disk is full."))
        with pytest.raises(Unavailable):
            await server.lifecycle.delete(entry.record.id)
        server.disk.fault = lambda call, sandbox_id: None
        go.set()
        await until(lambda: server.state(entry.record.id) is State.RUNNING)
        assert server.world.started[entry.record.id] == 1


async def test_a_delete_ends_a_create_that_the_engine_is_busy_with() -> None:
    async with Server() as server:
        entered = asyncio.Event()

        async def pull_for_ever() -> None:
            entered.set()
            await asyncio.Event().wait()

        server.world.fault = lambda call, sandbox_id: pull_for_ever() if call == "create" else None
        entry = await server.lifecycle.sandboxes.create(request())
        await entered.wait()
        await asyncio.wait_for(server.lifecycle.delete(entry.record.id), 30)
        assert server.state(entry.record.id) is None
        assert not server.world.workloads
        assert not server.disk.records


async def test_what_is_changed_during_a_create_is_kept_and_reaches_the_engine() -> None:
    async with Server() as server:
        go = asyncio.Event()
        server.world.delay = lambda: go.wait()  # type: ignore[assignment, return-value]  # only its end matters
        entry = await server.lifecycle.sandboxes.create(request(timeout=600))
        sandbox_id = entry.record.id
        later = utcnow() + timedelta(hours=5)
        await asyncio.wait_for(server.lifecycle.renew(sandbox_id, later), 30)
        await asyncio.wait_for(server.lifecycle.sandboxes.patch_metadata(sandbox_id, {"team": "y"}), 30)
        assert server.state(sandbox_id) is State.PENDING
        go.set()
        running = await server.lifecycle.sandboxes.wait(sandbox_id, frozenset({State.RUNNING}), 30)
        assert (running.record.expires_at, running.record.metadata) == (later, {"team": "y"})
        await until(lambda: server.world.calls["apply", sandbox_id] == 1)


async def test_a_pause_waits_for_the_create() -> None:
    async with Server() as server:
        entry = await server.lifecycle.sandboxes.create(request())
        await server.lifecycle.pause(entry.record.id)
        assert server.state(entry.record.id) is State.PAUSED


async def test_a_create_outlasts_an_engine_that_is_away() -> None:
    async with Server(provision_attempts=1) as server:
        server.world.fault = fails("create", Unavailable("MEMORY::UNAVAILABLE", "The engine is away."))
        entry = await server.lifecycle.sandboxes.create(request())
        await until(lambda: server.lifecycle.sandboxes.entry(entry.record.id).record.reason == "ENGINE_UNAVAILABLE")
        assert server.state(entry.record.id) is State.PENDING
        server.world.fault = lambda call, sandbox_id: None
        await server.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30)
        assert server.state(entry.record.id) is State.RUNNING


async def test_a_create_that_the_store_refuses_leaves_nothing() -> None:
    async with Server() as server:
        server.disk.fault = fails("add", Unavailable("STORE::FULL", "The disk is full."))
        with pytest.raises(Unavailable):
            await server.lifecycle.sandboxes.create(request(), idempotency_key="k")
        assert len(server.lifecycle.view) == 0
        assert not server.world.workloads
        server.disk.fault = lambda call, sandbox_id: None
        entry = await server.lifecycle.sandboxes.create(request(), idempotency_key="k")
        assert entry.record.id in server.disk.records


async def test_an_unknown_runtime_is_refused() -> None:
    async with Server() as server:
        with pytest.raises(InvalidRequest, match="memory"):
            await server.lifecycle.sandboxes.create(request(extensions={"runtime": "nowhere"}))


async def test_one_idempotency_key_makes_one_sandbox_however_concurrently() -> None:
    async with Server() as server:
        entries = await asyncio.gather(
            *(server.lifecycle.sandboxes.create(request(), idempotency_key="k") for _ in range(50))
        )
        assert len({entry.record.id for entry in entries}) == 1
        assert len(server.lifecycle.view) == 1


async def test_another_body_or_principal_under_the_same_key() -> None:
    async with Server() as server:
        first = await server.lifecycle.sandboxes.create(request(), idempotency_key="k")
        with pytest.raises(Conflict):
            await server.lifecycle.sandboxes.create(request(metadata={"other": "body"}), idempotency_key="k")
        someone = Principal(name="someone")
        other = await server.lifecycle.sandboxes.create(request(), principal=someone, idempotency_key="k")
        assert other.record.id != first.record.id


async def test_a_key_whose_caller_went_away_still_makes_one_sandbox() -> None:
    async with Server() as server:
        go = asyncio.Event()

        async def hold() -> None:
            await go.wait()

        server.disk.fault = lambda call, sandbox_id: hold() if call == "add" else None
        impatient = asyncio.create_task(server.lifecycle.sandboxes.create(request(), idempotency_key="k"))
        await until(lambda: server.disk.tried["add"])
        impatient.cancel()
        again = asyncio.create_task(server.lifecycle.sandboxes.create(request(), idempotency_key="k"))
        await asyncio.sleep(0)  # it begins
        go.set()
        entry = await again
        assert list(server.disk.records) == [entry.record.id]


async def test_a_key_outlives_its_sandbox_and_the_process() -> None:
    async with Server() as server:
        entry = await server.lifecycle.sandboxes.create(request(), idempotency_key="k")
        await server.lifecycle.delete(entry.record.id)
        with pytest.raises(Conflict):
            await server.lifecycle.sandboxes.create(request(), idempotency_key="k")
    async with Server(server.world, server.disk) as second:
        with pytest.raises(Conflict):
            await second.lifecycle.sandboxes.create(request(), idempotency_key="k")
        assert len(second.lifecycle.view) == 0


async def test_every_delete_of_a_pending_sandbox_but_one_finds_nothing() -> None:
    async with Server() as server:
        entry = await server.lifecycle.sandboxes.create(request())
        outcomes = await asyncio.gather(
            *(server.lifecycle.delete(entry.record.id) for _ in range(20)), return_exceptions=True
        )
        assert sum(outcome is None for outcome in outcomes) == 1
        assert sum(isinstance(outcome, NotFound) for outcome in outcomes) == 19
        assert not server.world.workloads
        assert not server.disk.records


async def test_a_plan_that_cannot_be_read_back_fails_the_create_and_nothing_else() -> None:
    async with Server() as server:
        server.world.fault = fails("create", Unavailable("MEMORY::AWAY", "away"))
        made = (await server.lifecycle.sandboxes.create(request())).record.id
        await server.die()
    server.world.fault = lambda call, _: None
    server.disk.fault = fails("plan", ConfigError("the plan cannot be read"))
    async with Server(server.world, server.disk) as again:
        failed = await again.lifecycle.sandboxes.wait(made, frozenset({State.FAILED}), 30)
        assert failed.record.failure == Failure("GENERAL::INTERNAL_ERROR", 500)


async def test_a_bug_while_the_outcome_is_written_is_no_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server() as server:
        write = server.lifecycle._core.ledger.write

        async def broken(record: SandboxRecord, **changes: Any) -> Entry:
            assert changes.get("state") is not State.RUNNING, "a bug"
            return await write(record, **changes)

        monkeypatch.setattr(server.lifecycle._core.ledger, "write", broken)
        made = (await server.lifecycle.sandboxes.create(request())).record.id
        failed = await server.lifecycle.sandboxes.wait(made, frozenset({State.FAILED}), 30)
        assert failed.record.reason == "INTERNAL_ERROR"
        assert server.world.workloads == {}


async def test_a_create_is_checked_and_its_platform_normalized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[PlatformSpec] = []
    normalize = create.normalize_platform

    def noted(platform: PlatformSpec) -> PlatformSpec:
        seen.append(platform)
        return normalize(platform)

    monkeypatch.setattr(create, "normalize_platform", noted)
    async with Server() as server:
        server.runtime.capabilities = replace(server.runtime.capabilities, platforms=frozenset({"linux/amd64"}))
        pool = CreatePool(
            name="warm",
            template={"image": {"uri": "host"}, "entrypoint": ["sleep", "1"]},
            capacity_spec=CapacitySpec(buffer_min=0, buffer_max=0, pool_min=0, pool_max=1),
        )
        await server.lifecycle.pools.create(pool)
        wanted = request(image=ImageSpec(uri=" host "), platform=PlatformSpec(os=" Linux ", arch="AMD64"))
        entry = await server.lifecycle.sandboxes.create(wanted)
    assert entry.record.platform == PlatformSpec(os="linux", arch="amd64")
    assert entry.record.image == "host"
    assert len(seen) == 1
