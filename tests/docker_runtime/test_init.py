"""Process 1 of a sandbox, and what becomes of orphans."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.docker_runtime.engines import EXECD
from tests.support.bench import Bench, Make, create

from shoal.models.workload import Phase

pytestmark = pytest.mark.needs("docker")

ORPHANS = "for i in $(seq 20); do (sleep 0.1 &); done"
STATES = "cat /proc/[0-9]*/status 2>/dev/null | grep ^State | cut -f2 | cut -c1 | sort | uniq -c"
SLEEPERS = "pidof sleep | wc -w"


def said(container: Any, script: str) -> str:
    return str(container.exec_run(["sh", "-c", script]).output.decode())


def zombies_after_orphans(container: Any, others: int) -> bool:
    """Whether any is left of processes whose parent went first, once all of them have ended."""
    said(container, ORPHANS)
    while True:
        states = said(container, STATES)
        if "Z" in states:
            time.sleep(0.5)  # one that was about to be reaped is not there any more
            if "Z" in said(container, STATES):
                return True
        elif int(said(container, SLEEPERS)) <= others:
            return False
        time.sleep(0.05)


@pytest.mark.parametrize("execd", [None, EXECD])
async def test_orphans_are_reaped(bench: Bench, make: Make, execd: str | None) -> None:
    plan = bench.plan(command=["tail", "-f", "/dev/null"])
    async with make(execd_image=execd) as runtime:
        assert (await create(runtime, plan)).phase is Phase.RUNNING
        assert not zombies_after_orphans(bench.container(plan.id), 0)


async def test_an_exit_code_is_the_commands(bench: Bench, make: Make) -> None:
    plan = bench.plan(command=["sh", "-c", "exit 7"])
    async with make() as runtime:
        await create(runtime, plan)
        assert bench.container(plan.id).wait()["StatusCode"] == 7


async def test_it_can_be_turned_off_and_is_where_execd_is_process_1(bench: Bench, make: Make) -> None:
    for settings, env in (({"init": False}, {}), ({}, {"EXECD_INIT": "1"})):
        plan = bench.plan(env=env)
        async with make(**settings) as runtime:
            await create(runtime, plan)
            assert not bench.container(plan.id).attrs["HostConfig"].get("Init")


async def test_an_engine_without_an_init_is_told_of_once(
    bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shoal_docker.engine import Engine, EngineError

    real, refused = Engine.call, []

    async def call(engine: Engine, method: str, /, *args: Any, **kwargs: Any) -> Any:
        if method == "create_container_from_config" and args[0]["HostConfig"].get("Init"):
            refused.append(args[1])
            raise EngineError(500, "container-init binary not found on the host")
        return await real(engine, method, *args, **kwargs)

    monkeypatch.setattr(Engine, "call", call)
    async with make() as runtime:
        for _ in range(2):
            assert (await create(runtime, bench.plan())).phase is Phase.RUNNING
    assert len(refused) == 1
