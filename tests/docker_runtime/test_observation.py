"""What happens behind the server's back shows; what is broken stays alone with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import docker.errors
import pytest
from tests.support.bench import LONG, Bench, Make, create, listed

from shoal.errors import Conflict, EngineFailure, NotFound, ShoalError
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.plugin.interfaces import LogQuery
from shoal_docker.engine import Engine, EngineError
from shoal_docker.runtime import DockerRuntime

pytestmark = pytest.mark.needs("docker")
PATIENCE = 30.0
Change = Workload | WorkloadGone


@asynccontextmanager
async def following(runtime: DockerRuntime) -> AsyncIterator[Callable[[str, Callable[[Change], bool]], Awaitable[Any]]]:
    """``await heard(sandbox_id, test)``: the first change of that sandbox that passes the test."""
    news: asyncio.Queue[Change] = asyncio.Queue()

    async def follow() -> None:
        async for change in runtime.watch():
            news.put_nowait(change)

    async def heard(sandbox_id: str, test: Callable[[Change], bool]) -> Change:
        async with asyncio.timeout(PATIENCE):
            while True:
                change = await news.get()
                if change.id == sandbox_id and test(change):
                    return change

    task = asyncio.create_task(follow())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def phase(wanted: Phase) -> Callable[[Change], bool]:
    return lambda change: isinstance(change, Workload) and change.phase is wanted


async def test_kill_pause_and_removal_by_hand(bench: Bench, make: Make) -> None:
    async with make() as runtime, following(runtime) as heard:
        plan = bench.plan()
        await create(runtime, plan)
        container = bench.container(plan.id)
        await asyncio.to_thread(container.pause)
        assert (await heard(plan.id, phase(Phase.PAUSED))).reason == "CONTAINER_PAUSED"
        await asyncio.to_thread(container.unpause)
        await heard(plan.id, phase(Phase.RUNNING))
        await asyncio.to_thread(container.kill)
        killed = await heard(plan.id, phase(Phase.FAILED))
        assert (killed.reason, "137" in killed.message) == ("CONTAINER_EXITED_ERROR", True)
        assert killed.since is not None
        assert await listed(runtime, plan.id) == killed
        await asyncio.to_thread(container.start)
        await heard(plan.id, phase(Phase.RUNNING))
        await asyncio.to_thread(container.remove, force=True)
        await heard(plan.id, lambda change: isinstance(change, WorkloadGone))
        assert await listed(runtime, plan.id) is None


async def test_a_memory_limit_that_is_exceeded_is_called_so(bench: Bench, make: Make) -> None:
    async with make() as runtime, following(runtime) as heard:
        plan = bench.plan(command=["sh", "-c", "sleep 0.3; tail /dev/zero"], resource_limits={"memory": "16Mi"})
        await create(runtime, plan)
        assert (await heard(plan.id, phase(Phase.FAILED))).reason == "OOM_KILLED"


async def test_a_sandbox_whose_image_is_gone_is_listed_like_any_other(bench: Bench, make: Make) -> None:
    image = bench.image("RUN true")
    async with make(known=lambda sandbox_id: False) as runtime:
        plan, sound = bench.plan(image=image), bench.plan()
        await create(runtime, plan)
        await create(runtime, sound)
    container = bench.container(plan.id)
    bench.client.images.remove(image, force=True)
    async with make(known=lambda sandbox_id: False) as runtime:
        found = await listed(runtime, plan.id)
        assert found is not None
        assert found.adoption is not None
        assert found.adoption.image == image, "as the caller wrote it"
        assert await listed(runtime, sound.id) is not None
        assert container.name in await runtime.inspect(plan.id)


async def test_one_container_that_cannot_be_described_never_fails_the_list(
    bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Engine.call
    broken, vanished, sound = (bench.plan(command=["sh", "-c", "exit 3"]) for _ in range(3))

    async def call(engine: Engine, method: str, /, *args: object, **kwargs: object) -> object:
        if method == "inspect_container" and args[0] == ids[broken.id]:
            raise EngineError(500, "device or resource busy")
        if method == "inspect_container" and args[0] == ids[vanished.id]:
            raise EngineError(404, "No such container")
        return await real(engine, method, *args, **kwargs)

    async with make() as runtime:
        for plan in (broken, vanished, sound):
            await create(runtime, plan)
            await asyncio.to_thread(bench.container(plan.id).wait)
    ids = {plan.id: bench.container(plan.id).id for plan in (broken, vanished, sound)}
    monkeypatch.setattr(Engine, "call", call)
    async with make(known=lambda sandbox_id: False) as later:
        found = {workload.id: workload for workload in await later.list()}
        assert found[sound.id].message == "The sandbox's command ended with exit code 3."
        assert found[broken.id].reason == "CONTAINER_STATE_UNKNOWN"
        assert found[broken.id].adoption is None
        assert vanished.id not in found


async def test_the_list_costs_three_calls_whatever_there_is(
    bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [bench.plan() for _ in range(3)]
    async with make() as runtime:
        for plan in plans:
            await create(runtime, plan)
        calls: list[str] = []
        real = Engine.call

        async def call(engine: Engine, method: str, /, *args: object, **kwargs: object) -> object:
            calls.append(method)
            return await real(engine, method, *args, **kwargs)

        monkeypatch.setattr(Engine, "call", call)
        await runtime._census.all()
        assert calls.count("containers") == 3
        assert "inspect_container" not in calls
        calls.clear()
        await create(runtime, bench.plan())
        made = [method for method in calls if method in ("create_container_from_config", "start")]
        assert made == ["create_container_from_config", "start"]
        assert "inspect_container" not in calls


# --- Creates that were begun before ----------------------------------------------------------------------------------


async def test_what_a_crash_left_is_kept_if_it_runs_and_replaced_if_not(bench: Bench, make: Make) -> None:
    plan = bench.plan(command=["sh", "-c", "echo ran; sleep 600"])
    async with make() as runtime:
        made = await create(runtime, plan)
        first = bench.container(plan.id).id
        assert await create(runtime, plan) == made
        assert bench.container(plan.id).id == first
        await runtime.delete(plan.id)
    half = bench.client.containers.create(
        plan.image, LONG, name=f"sandbox-{plan.id}", labels={"opensandbox.io/id": plan.id}
    )
    async with make() as runtime:
        assert (await create(runtime, plan)).phase is Phase.RUNNING
        assert bench.container(plan.id).id != half.id


async def test_a_command_that_ran_to_its_end_is_not_run_twice(bench: Bench, make: Make) -> None:
    plan = bench.plan(command=["sh", "-c", "echo ran; exit 4"])
    async with make() as runtime:
        await create(runtime, plan)
        await asyncio.to_thread(bench.container(plan.id).wait)
        again = await create(runtime, plan)
        assert (again.phase, again.reason) == (Phase.FAILED, "CONTAINER_EXITED_ERROR")
        assert (await runtime.logs(plan.id, LogQuery())).count("ran") == 1


async def test_a_name_that_somebody_elses_container_has(bench: Bench, make: Make) -> None:
    plan = bench.plan()
    bench.client.containers.run(plan.image, LONG, detach=True, name=f"sandbox-{plan.id}")
    async with make() as runtime:
        with pytest.raises(EngineFailure, match="taken by another container"):
            await create(runtime, plan)
        await runtime.delete(plan.id)
    assert bench.container(plan.id).status == "running", "it is not ours to remove"


async def test_a_start_that_the_engine_refuses(bench: Bench, make: Make) -> None:
    plan = bench.plan(command=["/no/such/program"])
    async with make(init=False) as runtime:
        with pytest.raises(EngineFailure, match="no such file") as caught:
            await create(runtime, plan)
        assert caught.value.code == "DOCKER::SANDBOX_START_FAILED"
        await runtime.delete(plan.id)
    assert bench.left(plan.id) == []


# --- Pause, resume, removal ------------------------------------------------------------------------------------------


async def test_pausing_what_has_ended_is_a_conflict(bench: Bench, make: Make) -> None:
    plan = bench.plan(command=["true"])
    async with make() as runtime:
        await create(runtime, plan)
        await asyncio.to_thread(bench.container(plan.id).wait)
        for operation, code in ((runtime.pause, "NOT_RUNNING"), (runtime.resume, "NOT_PAUSED")):
            with pytest.raises(Conflict) as caught:
                await operation(plan.id)
            assert caught.value.code == f"DOCKER::SANDBOX_{code}"


async def test_the_volumes_that_an_image_declares_go_with_the_sandbox(bench: Bench, make: Make) -> None:
    async with make() as runtime:
        plan = bench.plan(image=bench.image("VOLUME /data"))
        await create(runtime, plan)
        volume = bench.container(plan.id).attrs["Mounts"][0]["Name"]
        bench.volumes.append(volume)
        await runtime.delete(plan.id)
    with pytest.raises(docker.errors.NotFound):
        bench.client.volumes.get(volume)


async def test_two_removals_at_once_both_succeed(bench: Bench, make: Make) -> None:
    async with make() as runtime, make() as other:
        plan = bench.plan()
        await create(runtime, plan)
        await asyncio.gather(runtime.delete(plan.id), other.delete(plan.id))
        assert bench.left(plan.id) == []


async def test_containers_that_nobody_will_ever_start_are_swept(bench: Bench, make: Make) -> None:
    """Ours, of a create that no record knows of; another server's create may be younger than that."""
    labels = {"opensandbox.io/server": "shoal"}
    young, sidecar = bench.new_id(), bench.new_id()
    for name, sandbox_id, key in (("sandbox", young, "id"), ("sandbox-egress", sidecar, "egress-sidecar-for")):
        bench.client.containers.create(
            "shoal-test/busybox:latest",
            LONG,
            name=f"{name}-{sandbox_id}",
            labels={f"opensandbox.io/{key}": sandbox_id, **labels},
        )
    mine = {young, sidecar}
    async with make(known=lambda sandbox_id: sandbox_id not in mine) as runtime:
        await runtime.list()
        assert bench.left(young)
        runtime.remover.abandoned_seconds = -60.0
        await runtime.list()
        assert bench.left(young) == bench.left(sidecar) == []


@pytest.mark.parametrize("started", [False, True])
async def test_a_container_that_comes_after_its_removal_is_removed_and_never_told(
    bench: Bench, make: Make, started: bool
) -> None:
    """An engine that hung carries out a create that had given up on it."""
    plan = bench.plan()
    async with make(known=lambda sandbox_id: False) as runtime:
        await create(runtime, plan)
        await runtime.delete(plan.id)
        late = bench.client.containers.create(
            "shoal-test/busybox:latest",
            LONG,
            name=f"sandbox-{plan.id}",
            labels={"opensandbox.io/id": plan.id, "opensandbox.io/server": "shoal"},
        )
        if started:
            late.start()
        assert plan.id not in {workload.id for workload in await runtime.list()}
        assert bench.left(plan.id) == []


# --- The engine itself -----------------------------------------------------------------------------------------------


async def test_a_create_that_is_cancelled_in_the_middle_leaves_nothing_behind_later(bench: Bench, make: Make) -> None:
    async with make() as runtime:
        for delay in (0.0, 0.003, 0.01, 0.05, 0.15):
            plan: WorkloadPlan = bench.plan()
            task = asyncio.create_task(create(runtime, plan))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await runtime.delete(plan.id)
            await asyncio.sleep(0.3)
            assert bench.left(plan.id) == []


async def test_an_engine_that_is_away_is_said_to_be(tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = Engine("tcp://127.0.0.1:9", timeout=5, threads=2)
    with pytest.raises(ShoalError) as caught:
        await engine.start()
    assert (caught.value.status, caught.value.code) == (503, "DOCKER::ENGINE_UNAVAILABLE")
    assert engine.away is not None
    await engine.stop()


async def test_unknown_ids(make: Make, bench: Bench) -> None:
    nobody = bench.new_id()
    async with make() as runtime:
        for work in (runtime.pause(nobody), runtime.resume(nobody), runtime.inspect(nobody)):
            with pytest.raises(NotFound) as caught:
                await work
            assert caught.value.code == "DOCKER::SANDBOX_NOT_FOUND"
