"""Sandboxes that are left alone, and those that are not, through the whole server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs
from tests.idle_timeout.clocks import Idle
from tests.kernel.lifecycle.fakes import World, fails
from tests.support.sites import Site, site
from tests.support.waiting import until

from shoal.errors import EngineFailure
from shoal.models.sandbox import State
from shoal.plugin.interfaces import Access

DELETES = {"access.idle.timeout.seconds": "60"}
PAUSES = {**DELETES, "access.idle.action": "pause"}
SLEEPER = {**PAUSES, "access.resume": "on-access"}


@pytest.fixture
def idle() -> Idle:
    return Idle()


@pytest.fixture
async def here(tmp_path: Path, idle: Idle) -> AsyncIterator[Site]:
    async with site(tmp_path, idle=idle) as running:
        yield running


async def settled(here: Site) -> None:
    """Let everything that was begun come to its end."""
    await until(lambda: not here.lifecycle._core.lanes._running)
    for _ in range(10):
        await asyncio.sleep(0)
    await until(lambda: not here.lifecycle._core.lanes._running)


async def test_left_alone_it_ends_and_says_why(here: Site, idle: Idle) -> None:
    left, other = await here.running(DELETES), await here.running({})
    idle.advance(59)
    await settled(here)
    assert here.state(left) is State.RUNNING
    idle.advance(1)
    await until(lambda: here.state(left) is None)
    ends = [event for event in here.recorder.told if event.record.id == left and event.after is State.STOPPING]
    assert [event.record.reason for event in ends] == ["IDLE"]
    assert here.state(other) is State.RUNNING
    assert len(idle.plugin.clock) == 0


async def test_a_request_begins_its_idle_time_anew(here: Site, idle: Idle) -> None:
    busy = await here.running(DELETES)
    for _ in range(5):
        idle.advance(59)
        assert (await here.reach(busy)).text == "ok"
    idle.advance(59)
    await settled(here)
    assert here.state(busy) is State.RUNNING
    idle.advance(1)
    await until(lambda: here.state(busy) is None)


async def test_a_request_that_takes_long_keeps_it(here: Site, idle: Idle) -> None:
    busy = await here.running(DELETES)
    here.backend.open.clear()
    asked = asyncio.create_task(here.reach(busy))
    await until(lambda: here.backend.requests == 1)
    for _ in range(5):
        idle.advance(3600)
        await settled(here)
    here.backend.open.set()
    assert (await asked).text == "ok"
    idle.advance(59)
    await settled(here)
    assert here.state(busy) is State.RUNNING
    idle.advance(1)
    await until(lambda: here.state(busy) is None)


async def test_a_request_that_fails_ends_as_well(here: Site, idle: Idle) -> None:
    busy = await here.running(DELETES)
    nobody = f"/v1/sandboxes/{busy}/proxy/1/"
    assert (await here.http.get(nobody)).status_code == 502
    idle.advance(60)
    await until(lambda: here.state(busy) is None)


@pytest.mark.parametrize("transport", ["websocket", "gateway"])
async def test_what_tells_at_intervals_counts_until_the_next_news(here: Site, idle: Idle, transport: str) -> None:
    busy = await here.running(DELETES)
    idle.advance(59)
    if transport == "websocket":
        here.lifecycle.reach.accessed(busy, 80, "websocket")
    else:
        here.lifecycle.reach.notify(Access(busy, None, "gateway", datetime.now(UTC)))
    idle.advance(119)
    await settled(here)
    assert here.state(busy) is State.RUNNING
    idle.advance(1)
    await until(lambda: here.state(busy) is None)


async def test_a_request_that_asks_to_be_skipped_does_not_count(here: Site, idle: Idle) -> None:
    probed, sleeper = await here.running(DELETES), await here.running(SLEEPER)
    idle.advance(59)
    assert (await here.reach(probed, **{"OpenSandbox-Access-Renew": "skip"})).status_code == 200
    idle.advance(1)
    await until(lambda: here.state(probed) is None)
    await until(lambda: here.state(sleeper) is State.PAUSED)
    assert (await here.reach(sleeper, **{"OpenSandbox-Access-Renew": "skip"})).status_code == 409
    assert here.state(sleeper) is State.PAUSED


async def test_an_access_before_the_judgement_wins(here: Site, idle: Idle) -> None:
    """The end is already asked for when the request comes, but its turn has not."""
    busy = await here.running(DELETES)
    idle.advance(60)
    assert (await here.reach(busy)).status_code == 200
    await settled(here)
    assert here.state(busy) is State.RUNNING
    idle.advance(60)
    await until(lambda: here.state(busy) is None)


async def test_renewing_and_reading_do_not_count(here: Site, idle: Idle) -> None:
    left = await here.running(DELETES)
    idle.advance(59)
    later = "2099-01-01T00:00:00Z"
    path = f"/v1/sandboxes/{left}"
    assert (await here.http.post(f"{path}/renew-expiration", json={"expiresAt": later})).status_code == 200
    assert (await here.http.get(path)).status_code == 200
    idle.advance(1)
    await until(lambda: here.state(left) is None)


async def test_paused_it_stays_until_it_is_wanted(here: Site, idle: Idle) -> None:
    sleeper = await here.running(SLEEPER)
    idle.advance(60)
    await until(lambda: here.state(sleeper) is State.PAUSED)
    idle.advance(100_000)
    await settled(here)
    assert here.state(sleeper) is State.PAUSED
    answers = await asyncio.gather(*(here.reach(sleeper) for _ in range(50)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "ok")}
    assert here.world.calls["resume", sleeper] == 1
    idle.advance(59)
    await settled(here)
    assert here.state(sleeper) is State.RUNNING
    idle.advance(1)
    await until(lambda: here.state(sleeper) is State.PAUSED)
    assert here.world.calls["pause", sleeper] == 2


async def test_paused_and_not_to_be_woken_it_is_a_conflict(here: Site, idle: Idle) -> None:
    sleeper = await here.running(PAUSES)
    idle.advance(60)
    await until(lambda: here.state(sleeper) is State.PAUSED)
    answer = await here.reach(sleeper)
    assert (answer.status_code, answer.json()["code"]) == (409, "MEMORY::SANDBOX_NOT_RUNNING")
    assert (await here.http.post(f"/v1/sandboxes/{sleeper}/resume")).status_code == 202
    assert (await here.reach(sleeper)).status_code == 200


async def test_one_paused_through_the_api_is_woken_too(here: Site) -> None:
    sleeper = await here.running({"access.resume": "on-access"})
    assert (await here.http.post(f"/v1/sandboxes/{sleeper}/pause")).status_code == 202
    await until(lambda: here.state(sleeper) is State.PAUSED)
    assert (await here.reach(sleeper)).text == "ok"
    assert (await here.http.get("/v1/sandboxes/none/proxy/80/")).status_code == 404


async def test_a_request_during_the_pause_wakes_it_right_after(here: Site, idle: Idle) -> None:
    sleeper = await here.running(SLEEPER)
    going = asyncio.Event()

    async def slowly() -> None:
        await going.wait()

    here.world.fault = lambda call, _: slowly() if call == "pause" else None
    idle.advance(60)
    await until(lambda: here.state(sleeper) is State.PAUSING)
    asked = asyncio.create_task(here.reach(sleeper))
    await asyncio.sleep(0.02)
    assert not asked.done()
    going.set()
    assert (await asked).text == "ok"
    assert here.state(sleeper) is State.RUNNING


async def test_a_request_between_judgement_and_pause_is_not_left_frozen(here: Site, idle: Idle) -> None:
    """The judgement has fallen and the state is being written when the request gets its address."""
    busy = await here.running(PAUSES)
    here.world.fault = lambda call, _: here.lifecycle.reach.accessed(busy, 80, "http") if call == "pause" else None
    idle.advance(60)
    await until(lambda: here.world.calls["resume", busy] == 1)
    await until(lambda: here.state(busy) is State.RUNNING)
    here.lifecycle.reach.finished(busy)


async def test_a_waking_that_takes_too_long_answers_what_clients_poll_on(tmp_path: Path) -> None:
    idle, going = Idle(), asyncio.Event()

    async def slowly() -> None:
        await going.wait()

    async with site(tmp_path, raw={"lifecycle": {"endpoint_wait_seconds": 0.05}}, idle=idle) as here:
        sleeper = await here.running(SLEEPER)
        idle.advance(60)
        await until(lambda: here.state(sleeper) is State.PAUSED)
        here.world.fault = lambda call, _: slowly() if call == "resume" else None
        answer = await here.reach(sleeper)
        assert (answer.status_code, answer.json()["code"]) == (404, "KUBERNETES::POD_IP_NOT_AVAILABLE")
        going.set()
        await until(lambda: here.state(sleeper) is State.RUNNING)
        assert (await here.reach(sleeper)).text == "ok"
        assert here.world.calls["resume", sleeper] == 1


async def test_a_waking_that_fails_is_told_and_may_be_tried_again(here: Site, idle: Idle) -> None:
    sleeper = await here.running(SLEEPER)
    idle.advance(60)
    await until(lambda: here.state(sleeper) is State.PAUSED)
    here.world.fault = fails("resume", EngineFailure("MEMORY::TIRED", "It would not wake."))
    answers = await asyncio.gather(*(here.reach(sleeper) for _ in range(5)))
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(500, "MEMORY::TIRED")}
    here.world.fault = lambda call, sandbox_id: None
    assert (await here.reach(sleeper)).text == "ok"


async def test_nobody_without_its_token_wakes_it(here: Site, idle: Idle) -> None:
    sleeper = await here.running(SLEEPER)
    token = {"OpenSandbox-Secure-Access": "sesame"}
    here.world.workloads[sleeper] = replace(here.world.workloads[sleeper], headers=token)
    idle.advance(60)
    await until(lambda: here.state(sleeper) is State.PAUSED)
    assert (await here.reach(sleeper)).status_code == 401
    assert here.world.calls["resume", sleeper] == 0
    assert (await here.reach(sleeper, **token)).status_code == 200


async def test_one_that_is_deleted_while_it_is_woken_is_not_found(here: Site, idle: Idle) -> None:
    sleeper = await here.running(SLEEPER)
    idle.advance(60)
    await until(lambda: here.state(sleeper) is State.PAUSED)
    deleted = asyncio.create_task(here.http.delete(f"/v1/sandboxes/{sleeper}"))
    await until(lambda: here.state(sleeper) is not State.PAUSED)
    assert (await here.reach(sleeper)).status_code in (404, 409)
    assert (await deleted).status_code == 204


async def test_a_pause_that_fails_is_tried_again(here: Site, idle: Idle) -> None:
    sleeper = await here.running(SLEEPER)
    here.world.fault = fails("pause", EngineFailure("MEMORY::BUSY", "Not now."))
    with capture_logs() as logs:
        idle.advance(60)
        await until(lambda: any(line["event"] == "idle sandbox could not be ended" for line in logs))
    await until(lambda: here.state(sleeper) is State.RUNNING)
    here.world.fault = lambda call, sandbox_id: None
    idle.advance(60)
    await until(lambda: here.state(sleeper) is State.PAUSED)


async def test_expiry_comes_on_time_whatever_the_idle_time(here: Site, idle: Idle) -> None:
    sleeper = await here.running(SLEEPER)
    idle.advance(60)
    await until(lambda: here.state(sleeper) is State.PAUSED)
    soon = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 0.3, UTC)
    await here.lifecycle.renew(sleeper, soon)
    await until(lambda: here.state(sleeper) is None)
    assert datetime.now(UTC) >= soon
    assert [e.record.reason for e in here.recorder.told if e.after is State.STOPPING] == ["EXPIRED"]


async def test_a_restart_gives_everybody_the_whole_time_again(tmp_path: Path) -> None:
    world, before, after = World(), Idle(), Idle()
    async with site(tmp_path, world=world, idle=before) as here:
        left = await here.running(DELETES)
        before.advance(59)
    async with site(tmp_path, world=world, idle=after) as here:
        after.advance(59)
        await settled(here)
        assert here.state(left) is State.RUNNING
        after.advance(1)
        await until(lambda: here.state(left) is None)


async def test_the_real_timer_fires(here: Site, idle: Idle) -> None:
    """The one test in which nobody calls `fire`: the heap's moment comes by the loop's own clock."""
    left = await here.running({})
    idle.plugin.clock.run(left, 0.05)
    idle.now.seconds += 0.05
    await until(lambda: here.state(left) is None)
