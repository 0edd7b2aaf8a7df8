"""The unmodified SDK (``opensandbox`` on PyPI) takes local sandboxes through their whole life."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from opensandbox import Sandbox, SandboxManager, SandboxManagerSync, SandboxSync
from opensandbox.config import ConnectionConfig, ConnectionConfigSync
from opensandbox.exceptions import SandboxApiException, SandboxException
from opensandbox.models.sandboxes import SandboxFilter, SnapshotFilter
from tests.contract.key import KEY
from tests.support.servers import ServerProcess

COMMAND = ["sh", "-c", "echo hello from the sandbox; sleep 600"]


@pytest.fixture
def config(server: ServerProcess) -> ConnectionConfigSync:
    return ConnectionConfigSync(domain=f"127.0.0.1:{server.port}", api_key=KEY)


def running(sandbox: SandboxSync) -> SandboxSync:
    """Create answers Pending at once, and ``skip_health_check`` waits for nothing."""
    deadline = time.monotonic() + 30
    while sandbox.get_info().status.state == "Pending" and time.monotonic() < deadline:
        time.sleep(0.02)
    return sandbox


@pytest.fixture
def sandbox(config: ConnectionConfigSync) -> Iterator[SandboxSync]:
    made = SandboxSync.create(
        "host",
        entrypoint=COMMAND,
        timeout=timedelta(minutes=5),
        metadata={"team": "contract"},
        skip_health_check=True,
        connection_config=config,
    )
    yield running(made)
    try:
        made.kill()
    except SandboxApiException as error:
        assert error.status_code == 404
    made.close()


def test_get_info(sandbox: SandboxSync) -> None:
    info = sandbox.get_info()
    assert info.id == sandbox.id
    assert info.status.state == "Running"
    assert info.entrypoint == COMMAND
    assert info.metadata == {"team": "contract"}
    assert info.expires_at is not None
    assert timedelta(minutes=4) < info.expires_at - datetime.now(UTC) <= timedelta(minutes=5)


def test_renew_moves_the_expiry(sandbox: SandboxSync) -> None:
    before = sandbox.get_info().expires_at
    answer = sandbox.renew(timedelta(minutes=30))
    after = sandbox.get_info().expires_at
    assert before is not None
    assert after is not None
    assert after == answer.expires_at
    assert after - before > timedelta(minutes=20)


def test_pause_and_resume(sandbox: SandboxSync, config: ConnectionConfigSync) -> None:
    sandbox.pause()
    assert sandbox.get_info().status.state == "Paused"
    resumed = SandboxSync.resume(sandbox.id, connection_config=config, skip_health_check=True)
    assert resumed.get_info().status.state == "Running"
    resumed.close()


def test_connect(sandbox: SandboxSync, config: ConnectionConfigSync) -> None:
    other = SandboxSync.connect(sandbox.id, connection_config=config, skip_health_check=True)
    assert other.get_info().id == sandbox.id
    other.close()


def test_patch_metadata(sandbox: SandboxSync) -> None:
    assert sandbox.patch_metadata({"team": None, "stage": "two"}).metadata == {"stage": "two"}
    assert sandbox.get_info().metadata == {"stage": "two"}


def test_endpoint(sandbox: SandboxSync) -> None:
    assert sandbox.get_endpoint(8000).endpoint.endswith(f"/sandboxes/{sandbox.id}/proxy/8000")


def test_diagnostics(sandbox: SandboxSync) -> None:
    while "hello from the sandbox" not in (sandbox.get_diagnostic_logs("container").content or ""):
        time.sleep(0.05)  # it runs before it has written; the test's time limit bounds this
    assert sandbox.get_diagnostic_events("runtime").content


def test_kill_ends_it(sandbox: SandboxSync) -> None:
    sandbox.kill()
    with pytest.raises(SandboxApiException) as caught:
        sandbox.get_info()
    assert caught.value.status_code == 404


def test_a_snapshot_taken_listed_restored_and_deleted(config: ConnectionConfigSync, sandbox: SandboxSync) -> None:
    manager = SandboxManagerSync.create(config)
    sandbox.commands.run("echo kept >/root/kept")
    taken = sandbox.create_snapshot("kept")
    deadline = time.monotonic() + 60
    while (state := manager.get_snapshot(taken.id).status.state) == "Creating":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert state == "Ready"
    listed = manager.list_snapshots(SnapshotFilter(sandbox_id=sandbox.id))
    assert [info.id for info in listed.snapshot_infos] == [taken.id]
    restored = SandboxSync.create(
        snapshot_id=taken.id, entrypoint=["sh", "-c", "cat /root/kept; exec sleep 600"], connection_config=config
    )
    assert restored.files.read_file("/root/kept") == "kept\n"
    with pytest.raises(SandboxApiException) as used:
        manager.delete_snapshot(taken.id)
    assert used.value.status_code == 409
    restored.kill()
    restored.close()
    manager.delete_snapshot(taken.id)
    with pytest.raises(SandboxApiException) as gone:
        manager.get_snapshot(taken.id)
    assert gone.value.status_code == 404
    manager.close()


def test_a_readiness_check_of_the_users_own(config: ConnectionConfigSync) -> None:
    """Without ``skip_health_check`` the SDK asks for endpoints 44772 and 18080 straight after create."""
    made = SandboxSync.create(
        "host", entrypoint=["sleep", "60"], connection_config=config, health_check=lambda sandbox: bool(sandbox.id)
    )
    assert running(made).get_info().status.state == "Running"
    made.kill()
    made.close()


def test_wrong_key(server: ServerProcess) -> None:
    config = ConnectionConfigSync(domain=f"127.0.0.1:{server.port}", api_key="wrong")
    with pytest.raises(SandboxApiException) as caught:
        SandboxSync.create("host", connection_config=config, skip_health_check=True)
    assert caught.value.status_code == 401
    assert caught.value.error.code == "INVALID_API_KEY"


def test_unmapped_image(config: ConnectionConfigSync) -> None:
    with pytest.raises(SandboxApiException) as caught:
        SandboxSync.create("python:3.11", connection_config=config, skip_health_check=True)
    assert caught.value.status_code == 400
    assert "local.images" in str(caught.value)


def test_manager_lists_by_metadata_and_state(config: ConnectionConfigSync, sandbox: SandboxSync) -> None:
    manager = SandboxManagerSync.create(config)
    try:
        found = manager.list_sandbox_infos(
            SandboxFilter(metadata={"team": "contract"}, states=["RUNNING"], page_size=5)
        )
        assert sandbox.id in {info.id for info in found.sandbox_infos}
        assert found.pagination.total_items >= 1
        nothing = manager.list_sandbox_infos(SandboxFilter(metadata={"team": "no such team"}))
        assert nothing.sandbox_infos == []
        assert nothing.pagination.total_items == 0
    finally:
        manager.close()


async def test_async_client(server: ServerProcess) -> None:
    config = ConnectionConfig(domain=f"127.0.0.1:{server.port}", api_key=KEY)
    async with await Sandbox.create(
        "host", entrypoint=["sleep", "60"], timeout=None, connection_config=config, skip_health_check=True
    ) as sandbox:
        info = await sandbox.get_info()
        assert info.expires_at is None
        await sandbox.pause()
        assert (await sandbox.get_info()).status.state == "Paused"
        await sandbox.kill()
    async with await SandboxManager.create(config) as manager:
        listed = await manager.list_sandbox_infos(SandboxFilter(page_size=200))
        assert info.id not in {one.id for one in listed.sandbox_infos}


def test_a_create_that_fails_after_its_202_says_why(config: ConnectionConfigSync) -> None:
    with pytest.raises(SandboxException) as caught:
        SandboxSync.create("host", entrypoint=["/no/such/command"], connection_config=config)
    assert caught.value.error.code == "LOCAL::SANDBOX_START_FAILED"
    assert "/no/such/command" in (caught.value.error.message or "")


def test_an_unknown_snapshot_says_so(config: ConnectionConfigSync) -> None:
    with pytest.raises(SandboxException) as caught:
        SandboxSync.create(snapshot_id="none", connection_config=config)
    assert caught.value.error.code == "SNAPSHOT::NOT_FOUND"
