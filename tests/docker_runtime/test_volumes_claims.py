"""``pvc`` volumes on the real engine: made, shared, parts of them, and removed with the sandbox that made them."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from tests.docker_runtime.one_container import output, started_engine, unique

from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.requests import ClaimVolume, Volume
from shoal_docker.engine import Engine, EngineError
from shoal_docker.volumes import claims as claims_module
from shoal_docker.volumes.claims import Claims

pytestmark = pytest.mark.needs("docker")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root sees the engine's volumes")


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with started_engine() as engine:
        yield engine


@pytest.fixture
async def name(engine: Engine) -> AsyncIterator[str]:
    """Of a volume that does not outlive the test."""
    name = unique("claim")
    yield name
    await discard(engine, name)


async def discard(engine: Engine, name: str) -> None:
    if await exists(engine, name):
        await engine.call("remove_volume", name, force=True)


async def exists(engine: Engine, name: str) -> bool:
    try:
        await engine.call("inspect_volume", name)
    except EngineError as error:
        assert error.status == 404
        return False
    return True


def volume(name: str, sub_path: str | None = None, **claim: bool) -> Volume:
    return Volume(name="v", mount_path="/data", sub_path=sub_path, pvc=replace(ClaimVolume(claim_name=name), **claim))


def sandbox() -> str:
    return str(uuid.uuid4())


async def test_made_where_absent_and_kept(engine: Engine, name: str) -> None:
    claims, one = Claims(engine), sandbox()
    mount, goes = await claims.mount(volume(name), one)
    assert mount == {"Type": "volume", "Source": name, "Target": "/data", "ReadOnly": False}
    assert not goes
    assert (await engine.call("inspect_volume", name))["Labels"] == {"opensandbox.io/volume-managed-by": "server"}
    await output(engine, ["sh", "-c", "echo kept > /data/f"], {"Mounts": [mount]})
    await claims.release(one, None)
    assert await output(engine, ["cat", "/data/f"], {"Mounts": [mount]}) == "kept\n"


async def test_goes_with_the_sandbox_that_made_it(engine: Engine, name: str) -> None:
    claims, one, other = Claims(engine), sandbox(), sandbox()
    asked = volume(name, delete_on_sandbox_termination=True)
    assert (await claims.mount(asked, one))[1]
    assert (await claims.mount(asked, one))[1], "a create that is tried again owns it as before"
    assert not (await claims.mount(asked, other))[1], "it was there when this one came"
    await claims.release(other, [])
    assert await exists(engine, name)
    await claims.release(one, [name])
    assert not await exists(engine, name)
    await claims.release(one, [name])


async def test_found_by_its_own_label_when_the_containers_is_gone(engine: Engine, name: str) -> None:
    """Known weakness of opensandbox-server: what a failed clean-up leaves is forgotten with the labels."""
    one = sandbox()
    await Claims(engine).mount(volume(name, delete_on_sandbox_termination=True), one)
    await Claims(engine).release(one, None)
    assert not await exists(engine, name)


async def test_swept_at_start(engine: Engine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known weakness of opensandbox-server: volumes of creates that a crash cut short stay for ever."""
    one, other, holder = sandbox(), unique("other"), unique("holder")
    await Claims(engine).mount(volume(name, delete_on_sandbox_termination=True), one)
    await Claims(engine).sweep()
    assert await exists(engine, name), "its container may be on its way"
    monkeypatch.setattr(claims_module, "ABANDONED_SECONDS", -60.0)
    labels = {"opensandbox.io/id": one}
    body = {"Image": "shoal-test/busybox:latest", "Cmd": ["true"], "Labels": labels}
    await engine.call("create_container_from_config", body, holder)
    try:
        await Claims(engine).sweep()
        assert await exists(engine, name)
    finally:
        await engine.call("remove_container", holder, force=True)
    await engine.call("create_volume", other, labels={"opensandbox.io/volume-managed-by": "server"})
    try:
        await Claims(engine).sweep()
        assert not await exists(engine, name)
        assert await exists(engine, other), "it goes with nobody"
    finally:
        await discard(engine, other)


async def test_never_removes_what_no_server_made(engine: Engine, name: str) -> None:
    """Whatever a container's label says."""
    await engine.call("create_volume", name)
    claims, one = Claims(engine), sandbox()
    assert not (await claims.mount(volume(name, delete_on_sandbox_termination=True), one))[1]
    await claims.release(one, [name])
    assert await exists(engine, name)


async def test_not_while_another_container_holds_it(engine: Engine, name: str) -> None:
    claims, one, other = Claims(engine), sandbox(), sandbox()
    mount, _ = await claims.mount(volume(name, delete_on_sandbox_termination=True), one)
    holder = unique("holder")
    body = {"Image": "shoal-test/busybox:latest", "Cmd": ["true"], "HostConfig": {"Mounts": [mount]}}
    await engine.call("create_container_from_config", body, holder)
    try:
        await claims.release(one, [name])
        assert await exists(engine, name)
    finally:
        await engine.call("remove_container", holder, force=True)
    await claims.release(other, None)
    assert not await exists(engine, name)


async def test_of_two_creates_at_once_one_made_it(engine: Engine, name: str) -> None:
    claims = Claims(engine)
    asked = volume(name, delete_on_sandbox_termination=True)
    made = await asyncio.gather(*(claims.mount(asked, sandbox()) for _ in range(6)))
    assert [goes for _, goes in made].count(True) == 1


async def test_absent_and_not_to_be_made(engine: Engine, name: str) -> None:
    await refused(Claims(engine), volume(name, create_if_not_exists=False), "VOLUME::PVC_NOT_FOUND")
    assert not await exists(engine, name)


async def test_the_engines_refusal_is_told(engine: Engine) -> None:
    with pytest.raises(EngineFailure) as caught:
        await Claims(engine).mount(volume("-" + "x" * 20), sandbox())
    assert caught.value.code == "VOLUME::PVC_INSPECT_FAILED"


@pytest.mark.parametrize("name", ["a", "opensandbox-runtime-1", "opensandbox-win-oem-1"])
async def test_names_that_are_not_a_callers(engine: Engine, name: str) -> None:
    """The volumes of those names hold what runs in other sandboxes."""
    with pytest.raises(InvalidRequest) as caught:
        Claims(engine).check(volume(name))
    assert caught.value.code == "SANDBOX::INVALID_PARAMETER"


async def test_a_volume_of_the_servers_own_is_not_a_callers(engine: Engine, name: str) -> None:
    await engine.call("create_volume", name, labels={"opensandbox.io/anything-else": "x"})
    await refused(Claims(engine), volume(name), "SANDBOX::INVALID_PARAMETER")


@root_only
async def test_a_part_is_made_like_the_volume(engine: Engine, name: str) -> None:
    """Known weakness of opensandbox-server: a missing part belongs to root, whoever the volume belongs to."""
    claims, one = Claims(engine), sandbox()
    whole, _ = await claims.mount(volume(name), one)
    await output(engine, ["sh", "-c", "chown 1234:77 /data; chmod 770 /data"], {"Mounts": [whole]})
    mount, _ = await claims.mount(volume(name, "deep/er"), one)
    assert await output(engine, ["stat", "-c", "%u:%g %a", "/data"], {"Mounts": [mount]}) == "1234:77 770\n"
    await output(engine, ["sh", "-c", "echo part > /data/f"], {"Mounts": [mount]})
    assert await output(engine, ["cat", "/data/deep/er/f"], {"Mounts": [whole]}) == "part\n"


@root_only
@pytest.mark.parametrize("target", ["/etc", "../..", "/", "../../../.."])
async def test_a_part_does_not_lead_out(engine: Engine, name: str, target: str) -> None:
    """A sandbox may put any link into its volume."""
    claims, one = Claims(engine), sandbox()
    whole, _ = await claims.mount(volume(name), one)
    await output(engine, ["ln", "-s", target, "/data/link"], {"Mounts": [whole]})
    for sub_path in ("link", "link/new"):
        await refused(claims, volume(name, sub_path), "VOLUME::INVALID_SUB_PATH")
    assert "new" not in os.listdir("/etc")  # noqa: PTH208 - one look


async def test_a_part_where_the_volumes_cannot_be_seen(engine: Engine, name: str) -> None:
    """Refused by an engine that would follow links; a newer one is asked for the part itself."""
    claims = Claims(engine)
    engine.remote = True
    engine.version = {**engine.version, "ApiVersion": "1.41"}
    await refused(claims, volume(name, "a"), "VOLUME::PVC_SUBPATH_UNSUPPORTED_DRIVER")
    engine.version = {**engine.version, "ApiVersion": "1.45"}
    mount, _ = await claims.mount(volume(name, "a//b"), sandbox())
    assert mount["VolumeOptions"] == {"Subpath": "a/b"}
    assert mount["Source"] == name


async def test_a_part_of_another_drivers_volume(engine: Engine) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await Claims(engine)._part(volume("n"), "a", {"Driver": "nfs", "Mountpoint": "/x"})
    assert caught.value.code == "VOLUME::PVC_SUBPATH_UNSUPPORTED_DRIVER"


async def refused(claims: Claims, asked: Volume, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await claims.mount(asked, sandbox())
    assert caught.value.code == code
