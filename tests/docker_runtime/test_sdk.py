"""The unmodified SDK (``opensandbox`` on PyPI) and a server on Docker: what its lifecycle part can, readiness checked.

Create, readiness, pause, resume and removal, directly and by the server's proxy, are in `test_execd`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import pytest
from opensandbox import Sandbox, SandboxManagerSync, SandboxSync
from opensandbox.config import ConnectionConfig, ConnectionConfigSync
from opensandbox.exceptions import SandboxApiException, SandboxException
from opensandbox.models.sandboxes import PVC, PlatformSpec, SandboxFilter, SnapshotFilter, Volume
from tests.docker_runtime.engines import IMAGE
from tests.support.bench import Bench
from tests.support.servers import ServerProcess

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(180)]

WEB = ["sh", "-c", "echo hello; mkdir /www; echo page >/www/index.html; exec httpd -f -p 8000 -h /www"]
Create = Callable[..., SandboxSync]


@pytest.fixture
def server(docker_server: Callable[..., ServerProcess]) -> ServerProcess:
    return docker_server()


@pytest.fixture
def config(server: ServerProcess) -> ConnectionConfigSync:
    return ConnectionConfigSync(domain=f"127.0.0.1:{server.port}", use_server_proxy=True)


@pytest.fixture
def create(config: ConnectionConfigSync, bench: Bench) -> Iterator[Create]:
    """``create(image, …)``: ready, and removed in the end."""
    made: list[SandboxSync] = []

    def create(image: str | None = IMAGE, **more: object) -> SandboxSync:
        sandbox = SandboxSync.create(image, connection_config=config, **more)  # type: ignore[arg-type]  # passed through
        bench.ids.add(sandbox.id)
        made.append(sandbox)
        return sandbox

    yield create
    for sandbox in made:
        try:
            sandbox.kill()
        except SandboxApiException as error:
            assert error.status_code == 404
        sandbox.close()


@pytest.fixture
def manager(config: ConnectionConfigSync) -> Iterator[SandboxManagerSync]:
    manager = SandboxManagerSync.create(config)
    yield manager
    manager.close()


def test_read_list_patch_and_diagnose(create: Create, manager: SandboxManagerSync, bench: Bench) -> None:
    team = f"sdk-{bench.new_id()[:8]}"
    sandbox = create(entrypoint=WEB, metadata={"team": team}, env={"GREETING": "hi"})
    again = SandboxSync.connect(sandbox.id, connection_config=sandbox.connection_config)
    assert again.is_healthy()
    again.close()
    assert sandbox.patch_metadata({"stage": "two"}).metadata == {"team": team, "stage": "two"}
    found = manager.list_sandbox_infos(SandboxFilter(metadata={"team": team}, states=["RUNNING"]))
    assert [info.id for info in found.sandbox_infos] == [sandbox.id]
    assert "hello" in (sandbox.get_diagnostic_logs("container").content or "")
    assert sandbox.id in (sandbox.get_diagnostic_events("runtime").content or "")


def test_a_port_through_the_servers_proxy(create: Create) -> None:
    endpoint = create(entrypoint=WEB).get_endpoint(8000)
    deadline = time.monotonic() + 30
    while (page := httpx.get(f"http://{endpoint.endpoint}/index.html", timeout=10)).status_code != 200:
        assert time.monotonic() < deadline, page.text
        time.sleep(0.1)
    assert page.text == "page\n"


def test_a_snapshot_taken_listed_restored_and_deleted(create: Create, manager: SandboxManagerSync) -> None:
    source = create(entrypoint=["sh", "-c", "echo kept >/kept; exec sleep 600"])
    taken = source.create_snapshot("kept")
    deadline = time.monotonic() + 60
    while (state := manager.get_snapshot(taken.id).status.state) == "Creating":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert state == "Ready"
    listed = manager.list_snapshots(SnapshotFilter(sandbox_id=source.id))
    assert [info.id for info in listed.snapshot_infos] == [taken.id]
    restored = create(None, snapshot_id=taken.id, entrypoint=["sh", "-c", "cat /kept; exec sleep 600"])
    assert "kept" in (restored.get_diagnostic_logs("container").content or "")
    restored.kill()
    manager.delete_snapshot(taken.id)
    with pytest.raises(SandboxApiException) as gone:
        manager.get_snapshot(taken.id)
    assert gone.value.status_code == 404


def test_volume_platform_and_limits(create: Create, bench: Bench) -> None:
    claim = f"shoal-sdk-{bench.new_id()}"
    bench.volumes.append(claim)
    sandbox = create(
        entrypoint=["sh", "-c", "touch /data/mine; exec sleep 600"],
        volumes=[Volume(name="data", pvc=PVC(claimName=claim), mountPath="/data")],
        platform=PlatformSpec(os="linux", arch=bench.client.version()["Arch"]),
        resource={"cpu": "500m", "memory": "64Mi"},
    )
    host = bench.container(sandbox.id).attrs["HostConfig"]
    assert (host["NanoCpus"], host["Memory"]) == (500_000_000, 64 << 20)
    assert [mount["Name"] for mount in bench.container(sandbox.id).attrs["Mounts"] if "Name" in mount] == [claim]


def test_what_the_server_refuses_is_told(create: Create) -> None:
    with pytest.raises(SandboxApiException) as refused:
        create(resource={"cpu": "0"})
    assert refused.value.status_code == 400
    assert refused.value.error.code == "SANDBOX::INVALID_PARAMETER"


async def test_the_asynchronous_client(server: ServerProcess, bench: Bench) -> None:
    config = ConnectionConfig(domain=f"127.0.0.1:{server.port}")
    async with await Sandbox.create(
        IMAGE, entrypoint=["sleep", "600"], timeout=timedelta(minutes=5), connection_config=config
    ) as sandbox:
        bench.ids.add(sandbox.id)
        assert await sandbox.is_healthy()
        await sandbox.pause()
        assert (await sandbox.get_info()).status.state == "Paused"
        await sandbox.kill()
    assert bench.left(sandbox.id) == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"image": "127.0.0.1:9/no/such:image"}, "DOCKER::SANDBOX_IMAGE_PULL_FAILED"),
        ({"resource": {"memory": "1Mi"}}, "SANDBOX::INVALID_PARAMETER"),
        (
            {
                "volumes": [
                    Volume(name="v", mountPath="/v", pvc=PVC(claimName="no-such-claim", createIfNotExists=False))
                ]
            },
            "VOLUME::PVC_NOT_FOUND",
        ),
        ({"extensions": {"poolRef": "no-such-pool"}}, "SANDBOX::UNSUPPORTED_POOL_REF"),
    ],
)
def test_what_a_create_cannot_have_is_told_by_its_code(create: Create, fields: dict[str, object], code: str) -> None:
    with pytest.raises(SandboxException) as caught:
        create(**fields)
    assert caught.value.error.code == code
    assert caught.value.error.message


def test_where_there_is_one_container_it_is_the_one_that_is_meant(create: Create, server: ServerProcess) -> None:
    sandbox = create(entrypoint=["sh", "-c", "echo said; exec sleep 600"])
    deadline = time.monotonic() + 30
    url = f"{server.base}/v1/sandboxes/{sandbox.id}/diagnostics/logs"
    while "said" not in (answer := httpx.get(url, params={"container": "main"})).text:
        assert answer.status_code == 200
        assert time.monotonic() < deadline
        time.sleep(0.1)
