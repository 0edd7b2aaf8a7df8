"""Lanes: jobs of one sandbox one after another, of different ones side by side; nothing lost, nothing left behind."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from shoal.errors import Conflict, Unavailable
from shoal.lifecycle.lanes import Lanes


async def test_jobs_of_one_sandbox_do_not_overlap_and_keep_their_order() -> None:
    lanes, log = Lanes(), list[str]()

    async def job(number: int) -> int:
        log.append(f"begin {number}")
        await asyncio.sleep(0)
        log.append(f"end {number}")
        return number

    results = await asyncio.gather(*(lanes.run("a", lambda n=n: job(n)) for n in range(20)))  # type: ignore[misc]  # n is bound now
    assert results == list(range(20))
    assert log == [line for n in range(20) for line in (f"begin {n}", f"end {n}")]


async def test_different_sandboxes_run_side_by_side() -> None:
    lanes, meeting = Lanes(), asyncio.Barrier(10)
    await asyncio.wait_for(asyncio.gather(*(lanes.run(str(n), meeting.wait) for n in range(10))), 30)


async def test_a_failing_job_fails_its_own_caller_and_the_next_one_runs() -> None:
    lanes = Lanes()

    async def broken() -> None:
        raise Conflict("TEST::NO", "no")

    async def fine() -> str:
        return "fine"

    first, second = asyncio.create_task(lanes.run("a", broken)), asyncio.create_task(lanes.run("a", fine))
    with pytest.raises(Conflict):
        await first
    assert await second == "fine"


async def test_a_cancelled_caller_leaves_its_job_to_finish() -> None:
    lanes, go, done = Lanes(), asyncio.Event(), asyncio.Event()

    async def job() -> None:
        await go.wait()
        done.set()

    caller = asyncio.create_task(lanes.run("a", job))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go.set()
    await asyncio.wait_for(done.wait(), 30)


async def test_lanes_are_gone_when_idle() -> None:
    lanes = Lanes()
    await asyncio.gather(*(lanes.run(str(n % 7), asyncio.Barrier(1).wait) for n in range(50)))
    await asyncio.sleep(0)
    assert not any(lanes.busy(str(n)) for n in range(7))
    assert not lanes._running
    assert not lanes._waiting


async def test_a_job_sees_its_callers_context() -> None:
    lanes, request_id = Lanes(), contextvars.ContextVar("request_id", default="none")

    async def job() -> str:
        return request_id.get()

    async def caller(name: str) -> str:
        request_id.set(name)
        return await lanes.run("a", job)

    assert list(await asyncio.gather(caller("one"), caller("two"))) == ["one", "two"]


async def test_close_answers_503_to_everybody_who_still_waits() -> None:
    lanes, forever = Lanes(), asyncio.Event()
    running = asyncio.create_task(lanes.run("a", forever.wait))
    waiting = asyncio.create_task(lanes.run("a", forever.wait))
    await asyncio.sleep(0)
    await lanes.close(grace=0.01)
    for caller in (running, waiting, asyncio.create_task(lanes.run("b", forever.wait))):
        with pytest.raises(Unavailable):
            await caller
    assert not lanes.busy("a")


async def test_close_waits_for_what_ends_in_time_and_takes_no_more_jobs_from_it() -> None:
    lanes, log = Lanes(), list[str]()

    async def follow_up() -> None:
        log.append("follow-up")

    async def job() -> None:
        await asyncio.sleep(0.01)
        log.append("job")
        lanes.post("a", follow_up)

    caller = asyncio.create_task(lanes.run("a", job))
    await asyncio.sleep(0)
    await lanes.close(grace=30)
    await caller
    await asyncio.sleep(0)
    assert log == ["job"]


async def test_close_does_not_wait_for_a_job_that_will_not_be_cancelled() -> None:
    lanes, release = Lanes(), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    lanes.post("a", stubborn)
    await asyncio.sleep(0)
    await asyncio.wait_for(lanes.close(grace=0), 30)
    release.set()
    await asyncio.sleep(0.01)
