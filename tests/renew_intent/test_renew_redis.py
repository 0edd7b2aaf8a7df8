"""Renewal by a real Redis: the gateway's list, the lock across replicas, and Redis when it is not there."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs
from tests.idle_timeout.clocks import Idle
from tests.renew_intent.redis_process import RedisProcess, installed
from tests.support.sites import Site, site
from tests.support.waiting import until

from shoal.models.secret import Secret
from shoal_renew.config import RedisSettings
from shoal_renew.plugin import RenewIntent
from shoal_renew.redis import LOCK_KEY, IntentList, ReplicaLocks

OPTED = {"access.renew.extend.seconds": "3600"}
pytestmark = pytest.mark.needs("redis")


@pytest.fixture
def shared() -> Iterator[redis.Redis]:
    """The test bed's Redis."""
    with redis.Redis.from_url(os.environ["SHOAL_TEST_REDIS_URL"]) as client:
        yield client


@pytest.fixture
def queue(shared: redis.Redis) -> Iterator[str]:
    """A list of this test's own."""
    name = f"shoal-test:{uuid.uuid4()}"
    yield name
    shared.delete(name)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisProcess]:
    """A Redis of this test's own, not started yet."""
    if not installed():
        pytest.skip("there is no redis-server to start")
    process = RedisProcess(tmp_path)
    yield process
    process.close()


def configured(dsn: str, queue: str, **more: Any) -> dict[str, Any]:
    linked = {"enabled": True, "dsn": dsn, "queue_key": queue, **more}
    return {"renew_intent": {"enabled": True, "redis": linked}}


@pytest.fixture
async def here(tmp_path: Path, queue: str, shared: redis.Redis) -> AsyncIterator[Site]:
    raw = configured(os.environ["SHOAL_TEST_REDIS_URL"], queue)
    async with site(tmp_path, "renew_intent", raw=raw) as running:
        yield running
        for sandbox_id in [record.id for record in running.lifecycle.records()]:
            shared.delete(LOCK_KEY.format(sandbox_id))


def intent(sandbox_id: str, age: float = 0.0) -> str:
    at = datetime.now(UTC) - timedelta(seconds=age)
    return json.dumps({"sandbox_id": sandbox_id, "observed_at": at.isoformat(), "port": 8080})


def link(here: Site) -> IntentList:
    [plugin] = [part for part in here.lifecycle.components.renewals if isinstance(part, RenewIntent)]
    [found] = [service for service in plugin.services if isinstance(service, IntentList)]
    return found


def renewals(here: Site, sandbox_id: str) -> int:
    return here.world.calls["apply", sandbox_id]


def reasons(logs: list[Any]) -> list[str]:
    return [line["renew_skip_reason"] for line in logs if line.get("renew_event") == "renew_skipped"]


async def test_what_the_gateway_pushes_renews(here: Site, shared: redis.Redis, queue: str) -> None:
    sandbox_id = await here.running(OPTED, 60)
    with capture_logs() as logs:
        shared.lpush(queue, intent(sandbox_id))
        await until(lambda: renewals(here, sandbox_id) == 1)
        await until(lambda: any(line.get("renew_event") == "renew_succeeded" for line in logs))
    [line] = [line for line in logs if line.get("renew_event") == "renew_succeeded"]
    assert (line["renew_source"], line["renew_sandbox_id"]) == ("redis_queue", sandbox_id)
    expires_at = here.record(sandbox_id).expires_at
    assert expires_at is not None
    assert expires_at > datetime.now(UTC) + timedelta(seconds=3500)
    assert shared.llen(queue) == 0


async def test_the_cool_down_applies_with_redis_too(here: Site, shared: redis.Redis, queue: str) -> None:
    sandbox_id = await here.running(OPTED, 60)
    for _ in range(50):
        shared.lpush(queue, intent(sandbox_id))
        await here.reach(sandbox_id)
    await until(lambda: shared.llen(queue) == 0)
    await until(lambda: renewals(here, sandbox_id) >= 1)
    last = await here.running(OPTED, 60)  # all before it has been dealt with once this one is
    shared.lpush(queue, intent(last))
    await until(lambda: renewals(here, last) == 1)
    assert renewals(here, sandbox_id) == 1


async def test_what_is_in_the_list_and_no_intent_is_dropped(here: Site, shared: redis.Redis, queue: str) -> None:
    sandbox_id, other = await here.running(OPTED, 60), await here.running({}, 60)
    with capture_logs() as logs:
        shared.lpush(queue, b"\xff", "{}", "[" * 5000, intent("nobody"), intent(other), intent(sandbox_id, age=400))
        await until(lambda: len(reasons(logs)) == 6)
    assert sorted(reasons(logs)) == ["malformed"] * 3 + ["not_opted_in", "stale", "unknown_sandbox"]
    shared.lpush(queue, intent(sandbox_id))
    await until(lambda: renewals(here, sandbox_id) == 1)


async def test_a_key_of_the_wrong_kind_is_lived_with(here: Site, shared: redis.Redis, queue: str) -> None:
    sandbox_id = await here.running(OPTED, 60)
    shared.set(queue, "not a list")
    await until(lambda: not link(here).connected)
    shared.delete(queue)
    shared.lpush(queue, intent(sandbox_id))
    await until(lambda: renewals(here, sandbox_id) == 1, 60)


async def test_what_the_gateway_tells_keeps_a_sandbox_from_being_idle(
    tmp_path: Path, shared: redis.Redis, queue: str
) -> None:
    idle = Idle()
    raw = configured(os.environ["SHOAL_TEST_REDIS_URL"], queue)
    async with site(tmp_path, "renew_intent", raw=raw, idle=idle) as here:
        sandbox_id = await here.running({"access.idle.timeout.seconds": "60"}, 600)
        idle.advance(59)
        shared.lpush(queue, intent(sandbox_id))
        await until(lambda: idle.plugin.clock.uses(sandbox_id) == 1)
        idle.advance(60)
        assert not idle.plugin.clock.idle(sandbox_id)


# --- Replicas --------------------------------------------------------------------------------------------------------


async def test_one_of_two_replicas_renews(here: Site, shared: redis.Redis) -> None:
    sandbox_id = await here.running(OPTED, 60)
    key = LOCK_KEY.format(sandbox_id)
    shared.set(key, "another", nx=True, ex=30)
    with capture_logs() as logs:
        await here.reach(sandbox_id)
        await until(lambda: "locked_by_replica" in reasons(logs))
    assert renewals(here, sandbox_id) == 0
    assert shared.get(key) == b"another"


async def test_the_lock_outlives_a_renewal_by_the_cool_down(here: Site, shared: redis.Redis) -> None:
    sandbox_id = await here.running(OPTED, 60)
    await here.reach(sandbox_id)
    key = LOCK_KEY.format(sandbox_id)
    await until(lambda: renewals(here, sandbox_id) == 1)
    await until(lambda: 30 < int(shared.ttl(key)) <= 60)


async def test_a_lock_that_is_kept_ends_before_the_cool_down_does(shared: redis.Redis) -> None:
    """Who comes at its end is another replica, with the next intent of a gateway."""
    replica = ReplicaLocks(RedisSettings(enabled=True, dsn=Secret(os.environ["SHOAL_TEST_REDIS_URL"])))
    name = f"test-{uuid.uuid4()}"
    try:
        for seconds, most in ((60, 59_000), (1, 100)):
            assert await replica.take(name, 30)
            await replica.hold(name, seconds)
            assert most - 1000 < int(shared.pttl(LOCK_KEY.format(name))) <= most
    finally:
        shared.delete(LOCK_KEY.format(name))
        await replica.stop()


async def test_locks_are_exclusive_and_given_back(shared: redis.Redis) -> None:
    settings = RedisSettings(enabled=True, dsn=Secret(os.environ["SHOAL_TEST_REDIS_URL"]))
    replicas = [ReplicaLocks(settings) for _ in range(5)]
    name = f"test-{uuid.uuid4()}"
    try:
        taken = await asyncio.gather(*(replica.take(name, 30) for replica in replicas))
        assert taken.count(True) == 1
        holder = replicas.pop(taken.index(True))
        assert await holder.take(name, 30)  # its own
        for other in replicas:
            await other.hold(name, 0)
        assert shared.exists(LOCK_KEY.format(name))
        await holder.hold(name, 0)
        assert not shared.exists(LOCK_KEY.format(name))
        assert await replicas[0].take(name, 30)
    finally:
        shared.delete(LOCK_KEY.format(name))
        for each in [*replicas, holder]:
            await each.stop()


# --- Redis comes and goes --------------------------------------------------------------------------------------------


async def test_absent_at_the_start_it_is_found_when_it_comes(tmp_path: Path, own: RedisProcess, queue: str) -> None:
    with capture_logs() as logs:
        async with site(tmp_path, "renew_intent", raw=configured(own.dsn, queue)) as here:
            assert (await here.http.get("/ready")).status_code == 200
            by_proxy, by_gateway = await here.running(OPTED, 60), await here.running(OPTED, 60)
            await here.reach(by_proxy)
            await until(lambda: renewals(here, by_proxy) == 1)
            await asyncio.to_thread(own.start)
            own.client.lpush(queue, intent(by_gateway))
            await until(lambda: renewals(here, by_gateway) == 1, 60)
    events = [line["renew_event"] for line in logs if line.get("renew_event", "").startswith("redis_")]
    assert events == ["redis_lost", "redis_connected"]


async def test_killed_and_started_again_under_load(tmp_path: Path, own: RedisProcess, queue: str) -> None:
    await asyncio.to_thread(own.start)
    raw = configured(own.dsn, queue) | {"log": {"access": False}}
    async with site(tmp_path, "renew_intent", raw=raw) as here:
        sandboxes = [await here.running(OPTED, 60) for _ in range(10)]
        await until(lambda: link(here).connected)
        statuses: set[int] = set()
        over = asyncio.Event()

        async def load(sandbox_id: str) -> None:
            while not over.is_set():
                statuses.add((await here.reach(sandbox_id)).status_code)
                await asyncio.sleep(0.005)

        loads = [asyncio.create_task(load(sandbox_id)) for sandbox_id in sandboxes]
        for _ in range(3):
            await asyncio.to_thread(own.kill)
            await until(lambda: not link(here).connected)
            fresh = await here.running(OPTED, 60)
            await here.reach(fresh)
            await until(lambda fresh=fresh: renewals(here, fresh) == 1)  # type: ignore[misc]  # bound now
            await asyncio.to_thread(own.start)
            await until(lambda: link(here).connected, 60)
            pushed = await here.running(OPTED, 60)
            own.client.lpush(queue, intent(pushed))
            await until(lambda pushed=pushed: renewals(here, pushed) == 1)  # type: ignore[misc]  # bound now
        over.set()
        await asyncio.gather(*loads)
        assert statuses == {200}
        assert [renewals(here, sandbox_id) for sandbox_id in sandboxes] == [1] * 10


async def test_one_that_hangs_holds_up_no_request(tmp_path: Path, own: RedisProcess, queue: str) -> None:
    await asyncio.to_thread(own.start)
    async with site(tmp_path, "renew_intent", raw=configured(own.dsn, queue)) as here:
        sandbox_id = await here.running(OPTED, 60)
        await until(lambda: link(here).connected)
        own.freeze()
        for _ in range(20):
            assert (await here.reach(sandbox_id)).status_code == 200
        await until(lambda: renewals(here, sandbox_id) == 1)
        own.thaw()
        pushed = await here.running(OPTED, 60)
        own.client.lpush(queue, intent(pushed))
        await until(lambda: renewals(here, pushed) == 1, 60)


async def test_a_wrong_password_is_told_without_being_shown(tmp_path: Path, own: RedisProcess, queue: str) -> None:
    await asyncio.to_thread(own.start)
    own.client.config_set("requirepass", "sesame")
    dsn = own.dsn.replace("//", "//:hunter2@")
    with capture_logs() as logs:
        async with site(tmp_path, "renew_intent", raw=configured(dsn, queue)) as here:
            await until(lambda: any(line.get("renew_event") == "redis_lost" for line in logs))
            assert (await here.http.get("/health")).status_code == 200
    assert "hunter2" not in repr(logs)


async def test_stopping_leaves_no_connection_behind(tmp_path: Path, own: RedisProcess, queue: str) -> None:
    await asyncio.to_thread(own.start)
    async with site(tmp_path, "renew_intent", raw=configured(own.dsn, queue)) as here:
        sandbox_id = await here.running(OPTED, 60)
        await here.reach(sandbox_id)
        await until(lambda: renewals(here, sandbox_id) == 1)
    mine = int(own.client.client_id())
    await until(lambda: [int(each["id"]) for each in own.client.client_list()] == [mine])
