"""Renewal by proxied requests: the gates, one after another, and what a request pays for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs
from tests.kernel.lifecycle.fakes import fails
from tests.support.sites import Site, site
from tests.support.waiting import until

from shoal.errors import EngineFailure
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin import Lifecycle
from shoal.plugin.interfaces import Access
from shoal_renew.intent import Signal
from shoal_renew.plugin import QUEUE_LIMIT, RenewIntent
from shoal_renew.renewer import LIMIT_SECONDS, Alone, Renewer
from shoal_renew.subjects import Subjects

OPTED = {"access.renew.extend.seconds": "3600"}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, "renew_intent", raw={"renew_intent": {"enabled": True}}) as running:
        yield running


def plugin(here: Site) -> RenewIntent:
    [found] = [part for part in here.lifecycle.components.renewals if isinstance(part, RenewIntent)]
    return found


async def quiet(here: Site) -> None:
    """Until every signal that was taken has been dealt with."""
    renewing = plugin(here)
    await until(lambda: renewing._queue.empty() and not any(each.busy for each in renewing._subjects._known.values()))


def expiry(here: Site, sandbox_id: str) -> datetime:
    at = here.record(sandbox_id).expires_at
    assert at is not None
    return at


def reasons(logs: list[Any]) -> list[str]:
    return [line["renew_skip_reason"] for line in logs if line.get("renew_event") == "renew_skipped"]


async def test_a_request_moves_the_expiry_to_now_and_the_extension(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 60)
    with capture_logs() as logs:
        asked_at = datetime.now(UTC)
        assert (await here.reach(sandbox_id)).text == "ok"
        await until(lambda: expiry(here, sandbox_id) >= asked_at + timedelta(seconds=3600))
        await quiet(here)
    assert expiry(here, sandbox_id) <= datetime.now(UTC) + timedelta(seconds=3600)
    [line] = [line for line in logs if line.get("renew_event") == "renew_succeeded"]
    assert (line["renew_source"], line["renew_sandbox_id"]) == ("server_proxy", sandbox_id)
    stored = await here.http.get(f"/v1/sandboxes/{sandbox_id}")
    assert datetime.fromisoformat(stored.json()["expiresAt"]) == expiry(here, sandbox_id)


async def test_many_requests_within_the_cool_down_renew_once(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 60)
    await asyncio.gather(*(here.reach(sandbox_id) for _ in range(50)))
    await quiet(here)
    await asyncio.gather(*(here.reach(sandbox_id) for _ in range(50)))
    await quiet(here)
    assert here.world.calls["apply", sandbox_id] == 1


async def test_after_the_cool_down_it_is_renewed_again(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 60)
    seconds = 0.0
    plugin(here)._renewer.clock = lambda: seconds
    for turn in range(1, 4):
        seconds += 60.0
        await here.reach(sandbox_id)
        await until(lambda turn=turn: here.world.calls["apply", sandbox_id] == turn)  # type: ignore[misc]  # bound now
        await quiet(here)
        seconds += 59.9
        await here.reach(sandbox_id)
        await quiet(here)
        assert here.world.calls["apply", sandbox_id] == turn


async def test_an_expiry_that_is_late_enough_is_not_written(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 7200)
    before = here.record(sandbox_id)
    with capture_logs() as logs:
        await here.reach(sandbox_id)
        await quiet(here)
        await until(lambda: reasons(logs) == ["unchanged"])
    assert here.record(sandbox_id) is before
    assert here.world.calls["apply", sandbox_id] == 0


async def test_who_did_not_opt_in_is_not_even_looked_up(here: Site) -> None:
    sandbox_id = await here.running({}, 60)
    before = here.record(sandbox_id)
    with capture_logs() as logs:
        await here.reach(sandbox_id)
        assert plugin(here)._queue.empty()
        await quiet(here)
    assert (here.record(sandbox_id), reasons(logs), len(plugin(here)._subjects)) == (before, [], 0)


async def test_one_that_never_expires_stays_so(here: Site) -> None:
    sandbox_id = await here.running(OPTED, None)
    with capture_logs() as logs:
        await here.reach(sandbox_id)
        await until(lambda: reasons(logs) == ["no_expiry"])
    assert here.record(sandbox_id).expires_at is None


async def test_a_request_that_asks_to_be_skipped_renews_nothing(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 60)
    before = here.record(sandbox_id)
    await here.reach(sandbox_id, **{"OpenSandbox-Access-Renew": "skip"})
    await quiet(here)
    assert here.record(sandbox_id) is before
    await here.reach(sandbox_id, **{"OpenSandbox-Access-Renew": "SKIP"})
    await until(lambda: here.world.calls["apply", sandbox_id] == 1)


async def test_a_websocket_renews(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 60)
    here.lifecycle.reach.accessed(sandbox_id, 80, "websocket")
    await until(lambda: here.world.calls["apply", sandbox_id] == 1)


async def test_a_renewal_that_fails_is_logged_and_fails_no_request(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 60)
    here.world.fault = fails("apply", EngineFailure("MEMORY::BROKEN", "It broke."))
    with capture_logs() as logs:
        for _ in range(10):
            assert (await here.reach(sandbox_id)).status_code == 200
            await quiet(here)
    told = [line for line in logs if line.get("renew_event") == "renew_failed"]
    assert [(line["renew_sandbox_id"], line["log_level"]) for line in told] == [(sandbox_id, "warning")]


async def test_a_renewal_that_hangs_holds_up_no_request(here: Site) -> None:
    stuck, other = await here.running(OPTED, 60), await here.running(OPTED, 60)
    going, began = asyncio.Event(), asyncio.get_running_loop().time()

    async def hang() -> None:
        await going.wait()

    here.world.fault = lambda call, sandbox_id: hang() if (call, sandbox_id) == ("apply", stuck) else None
    async with asyncio.timeout(30):
        for _ in range(20):
            assert (await here.reach(stuck)).status_code == 200
        assert (await here.reach(other)).status_code == 200
        await until(lambda: here.world.calls["apply", other] == 1)
    assert asyncio.get_running_loop().time() - began < LIMIT_SECONDS
    going.set()
    await until(lambda: here.world.calls["apply", stuck] == 1)


async def test_what_is_gone_is_forgotten(here: Site) -> None:
    made = [await here.running(OPTED, 60) for _ in range(5)]
    assert len(plugin(here)._subjects) == 5
    for sandbox_id in made:
        await here.lifecycle.delete(sandbox_id)
    assert len(plugin(here)._subjects) == 0


async def test_sandboxes_of_an_earlier_server_are_known(tmp_path: Path) -> None:
    raw = {"renew_intent": {"enabled": True}}
    async with site(tmp_path, "renew_intent", raw=raw) as before:
        sandbox_id = await before.running(OPTED, 60)
        world = before.world
    async with site(tmp_path, "renew_intent", raw=raw, world=world) as after:
        await after.reach(sandbox_id)
        await until(lambda: after.world.calls["apply", sandbox_id] == 1)


async def test_without_the_plugin_its_extension_does_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        sandbox_id = await here.running(OPTED, 60)
        before = here.record(sandbox_id)
        assert (await here.reach(sandbox_id)).status_code == 200
        assert here.record(sandbox_id) is before


async def test_the_queue_is_bounded() -> None:
    """Nobody works, and more sandboxes are accessed than may wait."""
    subjects = Subjects()
    renewing = RenewIntent(cast("Lifecycle", None), subjects, Renewer(cast("Lifecycle", None), subjects, 60), workers=0)
    at = datetime.now(UTC)
    record = SandboxRecord(
        id="", runtime="x", state=State.RUNNING, since=at, created_at=at, entrypoint=["x"], extensions=OPTED
    )
    for number in range(QUEUE_LIMIT + 100):
        subjects.follow(replace(record, id=str(number)))
        for _ in range(2):
            renewing.accessed(Access(str(number), 80, "http", at))
    assert renewing._queue.qsize() == QUEUE_LIMIT


class SlowLock(Alone):
    """A lock across replicas that takes six minutes."""

    def __init__(self, renewer: Renewer) -> None:
        self.renewer = renewer
        self.held: list[int] = []

    async def take(self, sandbox_id: str, seconds: int) -> bool:
        later = self.renewer.now() + timedelta(minutes=6)
        self.renewer.now = lambda: later
        return True

    async def hold(self, sandbox_id: str, seconds: int) -> None:
        self.held.append(seconds)


async def test_old_news_is_judged_when_it_is_taken_and_before_it_is_acted_on(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 60)
    now = datetime.now(UTC)
    renewer = Renewer(cast("Lifecycle", here.lifecycle), plugin(here)._subjects, 60, now=lambda: now)
    renewer._replicas = lock = SlowLock(renewer)
    with capture_logs() as logs:
        await renewer.handle(Signal(sandbox_id, "redis_queue", now - timedelta(seconds=301)))
        assert (reasons(logs), lock.held) == (["stale"], [])
        await renewer.handle(Signal(sandbox_id, "redis_queue", now))
        assert (reasons(logs), lock.held) == (["stale", "stale"], [0])
        assert here.world.calls["apply", sandbox_id] == 0
        await renewer.handle(Signal(sandbox_id, "server_proxy"))
    assert here.world.calls["apply", sandbox_id] == 1
    assert lock.held == [0, 60]


async def test_one_at_a_time_whatever_the_source(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 60)
    renewer = plugin(here)._renewer
    now = datetime.now(UTC)
    with capture_logs() as logs:
        await asyncio.gather(*(renewer.handle(Signal(sandbox_id, "redis_queue", now)) for _ in range(20)))
        await renewer.handle(Signal(sandbox_id, "redis_queue", now))
    assert reasons(logs) == ["in_progress"] * 19 + ["cool_down"]
    assert here.world.calls["apply", sandbox_id] == 1


@pytest.mark.parametrize("early", [0.0, 0.004])
async def test_an_intent_at_each_end_of_the_cool_down_renews_each_time(here: Site, early: float) -> None:
    """A gateway sends one every 60 s; a renewal takes time, and so does the way here."""
    sandbox_id = await here.running(OPTED, 60)
    at, seconds = datetime.now(UTC), 0.0
    renewer = Renewer(cast("Lifecycle", here.lifecycle), plugin(here)._subjects, 60)
    renewer.clock, renewer.now = lambda: seconds, lambda: at + timedelta(seconds=seconds)

    async def slow(call: str, _: str) -> None:
        nonlocal seconds
        seconds += 0.5 if call == "apply" else 0.0

    here.world.fault = slow
    for turn, way in enumerate((0.4, 0.0, 0.2, 0.0)):
        observed = turn * (60.0 - early)
        seconds = observed + way
        await renewer.handle(Signal(sandbox_id, "redis_queue", at + timedelta(seconds=observed)))
        assert here.world.calls["apply", sandbox_id] == turn + 1


async def test_an_intent_at_the_end_of_a_cool_down_without_renewal_counts(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 3630)
    at, seconds = datetime.now(UTC), 0.4
    renewer = Renewer(cast("Lifecycle", here.lifecycle), plugin(here)._subjects, 60)
    renewer.clock, renewer.now = lambda: seconds, lambda: at + timedelta(seconds=seconds)
    await renewer.handle(Signal(sandbox_id, "redis_queue", at))
    assert here.world.calls["apply", sandbox_id] == 0
    seconds = 60.0
    await renewer.handle(Signal(sandbox_id, "redis_queue", at + timedelta(seconds=60)))
    assert here.world.calls["apply", sandbox_id] == 1


async def test_only_what_runs_is_renewed(here: Site) -> None:
    sandbox_id = await here.running(OPTED, 60)
    await here.lifecycle.pause(sandbox_id)
    with capture_logs() as logs:
        await plugin(here)._renewer.handle(Signal(sandbox_id, "redis_queue", datetime.now(UTC)))
        await plugin(here)._renewer.handle(Signal("nobody", "redis_queue", datetime.now(UTC)))
    assert reasons(logs) == ["not_running", "unknown_sandbox"]
