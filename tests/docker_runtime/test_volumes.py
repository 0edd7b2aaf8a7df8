"""All volumes of one sandbox together: where they may be mounted, what its container is told, and letting go."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest
from tests.docker_runtime.one_container import output, started_engine, unique
from tests.docker_runtime.plans import plan

from shoal.config.settings import StorageSettings
from shoal.errors import InvalidRequest
from shoal.models.requests import ClaimVolume, HostVolume, Volume
from shoal_docker.engine import Engine
from shoal_docker.volumes import Prepared, Volumes
from shoal_docker.volumes.mounting import shares_files


def host(path: Path | str, mount_path: str, sub_path: str | None = None) -> Volume:
    return Volume(name="v", mount_path=mount_path, sub_path=sub_path, host=HostVolume(path=str(path)))


def volumes(*allowed: Path | str, binds: tuple[str, ...] = ()) -> Volumes:
    engine = Engine(None, timeout=10, threads=1)
    return Volumes(engine, StorageSettings(allowed_host_paths=list(map(str, allowed))), binds)


def refused(checked: Volumes, *asked: Volume) -> str:
    with pytest.raises(InvalidRequest) as caught:
        checked.check(plan(volumes=list(asked)))
    return caught.value.code


@pytest.mark.parametrize("target", ["/", "//", "/a/..", "/./", "/a\0b"])
def test_nowhere(target: str) -> None:
    """opensandbox-server lets the engine say so, as a failed start."""
    assert refused(volumes("/srv"), host("/srv", target)) == "SANDBOX::INVALID_PARAMETER"


def test_not_at_one_place_twice() -> None:
    assert refused(volumes("/srv"), host("/srv", "/a"), host("/srv", "/b/../a/")) == "SANDBOX::INVALID_PARAMETER"
    assert refused(volumes("/srv", binds=("/x:/a:ro",)), host("/srv", "/a")) == "SANDBOX::INVALID_PARAMETER"
    volumes("/srv", binds=("/x:/a:ro",)).check(plan(volumes=[host("/srv", "/a/below"), host("/srv", "/b")]))


def test_each_kind_is_checked() -> None:
    assert refused(volumes(), host("/srv", "/a")) == "VOLUME::HOST_PATH_NOT_ALLOWED"
    claim = Volume(name="v", mount_path="/a", pvc=ClaimVolume(claim_name="opensandbox-runtime-x"))
    assert refused(volumes(), claim) == "SANDBOX::INVALID_PARAMETER"
    assert refused(volumes("/srv"), host("/srv", "/a", sub_path="x\0y")) == "VOLUME::INVALID_SUB_PATH"


async def test_what_was_allowed_once_is_looked_at_again() -> None:
    """A create that outlives a restart finds the configuration as it then is, on an engine with other files too."""
    for shared in (True, False):
        stricter = volumes("/srv/other")
        stricter._host.shared = shared
        with pytest.raises(InvalidRequest):
            await stricter.prepare(str(uuid.uuid4()), [host("/srv", "/a")])


def test_labels() -> None:
    assert Prepared().labels() == {}
    found = Prepared(managed=["a"], buckets=["/mnt/b"]).labels("opensandbox-runtime-x")
    assert found == {
        "opensandbox.io/volume-managed-by": '["a","opensandbox-runtime-x"]',
        "opensandbox.io/ossfs-mounts": '["/mnt/b"]',
    }


def test_whose_files(tmp_path: Path) -> None:
    engine = Engine("unix:///var/run/docker.sock", timeout=10, threads=1)
    engine.info = {"DockerRootDir": str(tmp_path)}
    assert shares_files(engine)
    engine.info = {"DockerRootDir": str(tmp_path / "elsewhere")}
    assert not shares_files(engine)
    assert not shares_files(Engine("tcp://192.0.2.1:2375", timeout=10, threads=1))


@pytest.mark.needs("docker")
async def test_from_check_to_release(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("the operator's")
    name, sandbox_id = unique("claim"), str(uuid.uuid4())
    asked = [
        host(tmp_path, "/host", sub_path="made"),
        Volume(
            name="w",
            mount_path="/claim",
            pvc=ClaimVolume(claim_name=name, delete_on_sandbox_termination=True),
        ),
    ]
    async with started_engine() as engine:
        shop = Volumes(engine, StorageSettings(allowed_host_paths=[str(tmp_path)]))
        await shop.start()
        shop.check(plan(volumes=asked))
        try:
            made = await shop.prepare(sandbox_id, asked)
            assert made.managed == [name]
            assert json.loads(made.labels()["opensandbox.io/volume-managed-by"]) == [name]
            await output(engine, ["sh", "-c", "echo 1 > /host/f; echo 2 > /claim/f"], {"Mounts": made.mounts})
            again = await shop.prepare(sandbox_id, asked)
            assert (again.managed, len(again.mounts)) == (made.managed, len(made.mounts))
            assert await output(engine, ["cat", "/host/f", "/claim/f"], {"Mounts": again.mounts}) == "1\n2\n"
            own = await shop.prepare(sandbox_id, [host(tmp_path / "own", "/own")], trusted=True)
            assert await output(engine, ["cat", "/own"], {"Mounts": own.mounts}) == "the operator's"
        finally:
            await shop.release(sandbox_id, {})
        listed = await engine.call("volumes", filters={"name": [name]})
    assert listed["Volumes"] in (None, [])
    assert os.listdir(tmp_path / "made") == ["f"]  # noqa: PTH208 - one look
