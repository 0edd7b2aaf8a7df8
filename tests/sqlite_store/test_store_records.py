"""What is put into the store comes out of it again, also after it was closed and reopened."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from shoal.errors import ConfigError, Conflict, Unavailable
from shoal.models.plan import WorkloadPlan
from shoal.models.pools import CapacitySpec, PoolPlace, PoolRecord
from shoal.models.requests import ImageAuth, OssVolume, PlatformSpec, Volume
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.secret import Secret
from shoal.plugin.interfaces import IdempotencyKey, SnapshotRecord
from shoal_sqlite import salvage
from shoal_sqlite.sqlite import SqliteStore

NewSandbox = Callable[[], tuple[SandboxRecord, WorkloadPlan]]


async def reopened(store: SqliteStore, path: Path) -> SqliteStore:
    await store.stop()
    again = SqliteStore(path)
    await again.start()
    return again


async def test_a_record_and_its_plan_survive_reopening(store: SqliteStore, path: Path, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    record = replace(record, platform=PlatformSpec(os="linux", arch="arm64"), owner="ci")
    await store.add(record, plan, None)
    again = await reopened(store, path)
    assert await again.sandboxes() == [record]
    assert await again.plan(record.id) == plan
    await again.stop()


async def test_secrets_in_a_plan_survive_reopening(store: SqliteStore, path: Path, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    bucket = OssVolume(bucket="data", endpoint="oss.example.com", access_key_secret=Secret("key-secret"))
    plan = replace(plan, volumes=[Volume(name="data", mount_path="/data", ossfs=bucket)])
    plan = replace(plan, image_auth=ImageAuth(username="robot", password=Secret("registry-password")))
    await store.add(record, plan, None)
    again = await reopened(store, path)
    read = await again.plan(record.id)
    await again.stop()
    assert read == plan
    assert read is not None
    assert read.image_auth is not None
    assert read.image_auth.password.reveal() == "registry-password"


async def test_forgetting_a_plan_leaves_nothing_of_its_secrets_in_the_files(
    store: SqliteStore, path: Path, sandbox: NewSandbox
) -> None:
    record, plan = sandbox()
    plan = replace(plan, image_auth=ImageAuth(username="robot", password=Secret("registry-password")))
    await store.add(record, plan, None)
    running = replace(record, state=State.RUNNING)
    await store.save(running, forget_plan=True)
    assert await store.plan(record.id) is None
    assert await store.sandboxes() == [running]
    await store.stop()
    left = [file.name for file in path.parent.iterdir() if b"registry-password" in file.read_bytes()]
    assert left == []


async def test_saving_replaces_and_keeps_the_plan(store: SqliteStore, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    await store.add(record, plan, None)
    renewed = replace(record, expires_at=None)
    await store.save(renewed)
    assert await store.sandboxes() == [renewed]
    assert await store.plan(record.id) == plan


async def test_saving_a_record_that_was_never_added(store: SqliteStore, sandbox: NewSandbox) -> None:
    record, _ = sandbox()
    await store.save(record)
    assert await store.sandboxes() == [record]
    assert await store.plan(record.id) is None


async def test_removing_takes_record_and_plan_and_may_be_repeated(store: SqliteStore, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    await store.add(record, plan, None)
    await store.remove(record.id)
    await store.remove(record.id)
    assert await store.sandboxes() == []
    assert await store.plan(record.id) is None


async def test_an_id_is_added_once(store: SqliteStore, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    await store.add(record, plan, None)
    with pytest.raises(Conflict, match="STORE::ALREADY_EXISTS"):
        await store.add(replace(record, state=State.FAILED), plan, None)
    assert await store.sandboxes() == [record]


def key(name: str, sandbox_id: str, expires_at: datetime) -> IdempotencyKey:
    return IdempotencyKey(key=name, fingerprint="f" * 64, sandbox_id=sandbox_id, expires_at=expires_at)


async def test_a_key_outlives_its_sandbox_until_it_expires(store: SqliteStore, path: Path, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    kept = key("kept", record.id, datetime.now(UTC) + timedelta(hours=1, microseconds=1))
    await store.add(record, plan, kept)
    await store.remove(record.id)
    again = await reopened(store, path)
    assert await again.idempotency_keys() == [kept]
    await again.forget_keys(kept.expires_at)
    assert await again.idempotency_keys() == [kept]
    await again.forget_keys(kept.expires_at + timedelta(microseconds=1))
    assert await again.idempotency_keys() == []
    await again.stop()


async def test_an_expired_key_is_not_read_and_may_be_used_again(store: SqliteStore, sandbox: NewSandbox) -> None:
    (first, first_plan), (second, second_plan) = sandbox(), sandbox()
    await store.add(first, first_plan, key("again", first.id, datetime.now(UTC) - timedelta(seconds=1)))
    assert await store.idempotency_keys() == []
    fresh = key("again", second.id, datetime.now(UTC) + timedelta(hours=1))
    await store.add(second, second_plan, fresh)
    assert await store.idempotency_keys() == [fresh]


async def test_a_failed_add_leaves_no_key(store: SqliteStore, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    await store.save(record)
    with pytest.raises(Conflict):
        await store.add(record, plan, key("lost", record.id, datetime.now(UTC) + timedelta(hours=1)))
    assert await store.idempotency_keys() == []
    assert await store.plan(record.id) is None


async def test_snapshots_survive_reopening(store: SqliteStore, path: Path) -> None:
    now = datetime.now(UTC)
    snapshot = SnapshotRecord(
        id="s1", sandbox_id="b1", runtime="docker", state="Creating", created_at=now, updated_at=now, name="first"
    )
    await store.save_snapshot(snapshot)
    ready = replace(snapshot, state="Ready", image="opensandbox-snapshots:s1", reason="done", last_transition_at=now)
    await store.save_snapshot(ready)
    again = await reopened(store, path)
    assert await again.snapshots() == [ready]
    await again.remove_snapshot("s1")
    await again.remove_snapshot("s1")
    assert await again.snapshots() == []
    await again.stop()


async def test_a_call_sees_what_was_called_before_it(store: SqliteStore, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    versions = [replace(record, reason=str(number)) for number in range(50)]
    added = store.add(record, plan, None)
    *_, read = await asyncio.gather(added, *(store.save(version) for version in versions), store.sandboxes())
    assert read == [versions[-1]]


async def test_a_record_that_cannot_be_read_is_named(store: SqliteStore, path: Path, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    plan = replace(plan, image_auth=ImageAuth(username="robot", password=Secret("registry-password")))
    await store.add(record, plan, None)
    await store.stop()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE shoal_sandboxes SET record = '{\"id\":7}'")
        connection.execute("UPDATE shoal_plans SET plan = replace(plan, '\"robot\"', '7')")
    connection.close()
    again = SqliteStore(path)
    await again.start()
    with pytest.raises(ConfigError, match=record.id):
        await again.sandboxes()
    with pytest.raises(ConfigError, match=record.id) as caught:
        await again.plan(record.id)
    await again.stop()
    assert "registry-password" not in str(caught.value)


async def test_what_cannot_be_read_is_set_aside_and_the_rest_is_there(
    store: SqliteStore, path: Path, sandbox: NewSandbox
) -> None:
    (good, plan), (odd, _), (lost, _) = sandbox(), sandbox(), sandbox()
    key = IdempotencyKey(
        key="k", fingerprint="f", sandbox_id=good.id, expires_at=good.created_at + timedelta(days=9999)
    )
    await store.add(good, plan, key)
    for record in (odd, lost):
        await store.save(replace(record, state=State.RUNNING))
    await store.save_pool(pool())
    await store.stop()
    with sqlite3.connect(path) as connection:
        change = "UPDATE shoal_sandboxes SET record = {} WHERE id = ?"
        connection.execute(change.format("json_set(CAST(record AS TEXT), '$.metadata', 7)"), (odd.id,))
        connection.execute(change.format("x'00ff'"), (lost.id,))
        connection.execute("UPDATE shoal_pools SET record = '[]'")
        connection.execute("UPDATE shoal_idempotency_keys SET value = '{}'")
    connection.close()
    for _ in range(2):  # set aside once, and then as if it had always been so
        again = SqliteStore(path)
        await again.start()
        await again.set_aside()
        found = {record.id: record for record in await again.sandboxes()}
        assert found[good.id] == good
        assert (found[odd.id].state, found[odd.id].metadata, found[odd.id].reason) == (
            "Running",
            {},
            salvage.UNREADABLE,
        )
        assert found[odd.id].expires_at == odd.expires_at
        assert "metadata" in str(found[odd.id].message)
        assert (found[lost.id].state, found[lost.id].runtime) == ("Failed", "")
        assert await again.pools() == []
        assert await again.idempotency_keys() == []
        await again.stop()
    with sqlite3.connect(path) as connection:
        kept = dict(connection.execute("SELECT id, content FROM shoal_unreadable"))
    connection.close()
    assert kept.keys() == {odd.id, lost.id, "p1", "k"}
    assert kept[lost.id] == b"\x00\xff"


async def test_ping_answers_while_open(store: SqliteStore) -> None:
    await store.ping()
    await store.stop()
    with pytest.raises(Unavailable, match="STORE::CLOSED"):
        await store.ping()


async def test_a_store_that_was_never_started_refuses_and_stops(path: Path, sandbox: NewSandbox) -> None:
    store = SqliteStore(path)
    with pytest.raises(Unavailable, match="STORE::CLOSED"):
        await store.save(sandbox()[0])
    await store.stop()
    assert not await asyncio.to_thread(path.exists)


def pool(name: str = "warm", pool_id: str = "p1", most: int = 5) -> PoolRecord:
    return PoolRecord(
        id=pool_id,
        name=name,
        runtime="memory",
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
        template={"image": {"uri": "busybox"}, "env": {"A": None}},
        capacity=CapacitySpec(buffer_max=2, buffer_min=1, pool_max=most, pool_min=0),
    )


async def test_pools_survive_reopening_and_can_be_changed_and_forgotten(store: SqliteStore, path: Path) -> None:
    await store.save_pool(pool())
    await store.save_pool(pool("other", "p2"))
    await store.save_pool(pool(most=9))
    again = await reopened(store, path)
    assert sorted(await again.pools(), key=lambda each: each.id) == [pool(most=9), pool("other", "p2")]
    with pytest.raises(Conflict):
        await again.save_pool(pool("other", "p3"))
    await again.remove_pool("p1")
    await again.remove_pool("p1")
    assert await again.pools() == [pool("other", "p2")]
    await again.stop()


async def test_a_taken_member_and_its_key_are_one_commit(store: SqliteStore, path: Path, sandbox: NewSandbox) -> None:
    record, plan = sandbox()
    await store.add(replace(record, pool=PoolPlace(name="warm", pool_id="p1", idle=True)), plan, None)
    taken = replace(record, pool=PoolPlace(name="warm", pool_id="p1"))
    expiry = datetime.now(UTC) + timedelta(hours=1)
    key = IdempotencyKey(key="k", fingerprint="f", sandbox_id=record.id, expires_at=expiry)
    await store.save(taken, key=key)
    again = await reopened(store, path)
    assert await again.sandboxes() == [taken]
    assert await again.idempotency_keys() == [key]
    await again.stop()
