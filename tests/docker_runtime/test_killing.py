"""Removing what does not end at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.docker_runtime.engines import IMAGE
from tests.support.bench import Bench, Make, create

from shoal.models.plan import Sidecar

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(300)]

MANY = "i=0; while [ $i -lt 700 ]; do sleep 1000 & i=$((i+1)); done; touch /tmp/all; wait"


async def starved(container: Any) -> None:
    """Return once it has all of its processes, and next to no CPU for them."""
    while container.exec_run(["test", "-e", "/tmp/all"]).exit_code:  # noqa: ASYNC110 - a container has no event to offer
        await asyncio.sleep(0.1)
    answer = container.client.api.post(
        f"{container.client.api.base_url}/containers/{container.id}/update", json={"NanoCpus": 10_000_000}
    )
    answer.raise_for_status()


async def test_hundreds_of_processes_without_cpu_are_removed(bench: Bench, make: Make) -> None:
    plan = bench.plan(command=["sh", "-c", MANY])
    async with make() as runtime:
        await create(runtime, plan)
        await starved(bench.container(plan.id))
        await runtime.delete(plan.id)
        assert bench.left(plan.id) == []


async def test_so_are_those_of_a_sidecar(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[Sidecar(name="many", image=IMAGE, command=["sh", "-c", MANY])])
    async with make() as runtime:
        await create(runtime, plan)
        await starved(bench.container(plan.id, "many"))
        await runtime.delete(plan.id)
        assert bench.left(plan.id) == []


async def test_one_that_has_ended_or_is_frozen_is_removed(bench: Bench, make: Make) -> None:
    async with make() as runtime:
        for change in ("kill", "pause"):
            plan = bench.plan()
            await create(runtime, plan)
            getattr(bench.container(plan.id), change)()
            await runtime.delete(plan.id)
            assert bench.left(plan.id) == []
