"""A sandbox that swaps a directory for a link between a volume's check and its mount, on the real engine."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from tests.docker_runtime.engines import DOCKER_HOST, IMAGE
from tests.docker_runtime.relay import EngineRelay
from tests.support.bench import Bench, Make, create
from tests.support.servers import ServerProcess

from shoal.config.settings import StorageSettings
from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.requests import ClaimVolume, HostVolume, Volume
from shoal_docker.runtime import DockerRuntime
from shoal_docker.volumes import mounts
from shoal_docker.volumes.pins import TOP

pytestmark = [
    pytest.mark.needs("docker"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts, and sees what the engine has mounted"),
]
SECRET = "what the victim keeps"
SHOW = ["sh", "-c", "cat /data/secret /data; echo in > /data/in; exec sleep 600"]
TRIES = 12


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An allowed path, of which a part is a volume."""
    folder = tmp_path / "tree"
    (folder / "part").mkdir(parents=True)
    return folder


def host_volume(tree: Path, sub_path: str = "part") -> Volume:
    return Volume(name="v", mount_path="/data", host=HostVolume(path=str(tree)), sub_path=sub_path)


def swapped(runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch, swap: Callable[[], None]) -> None:
    """Do that in the moment between the check and the engine's create; with an init there may be a second one."""
    call = runtime.engine.call

    async def calling(method: str, /, *args: Any, **kwargs: Any) -> Any:
        if method == "create_container_from_config":
            swap()
        return await call(method, *args, **kwargs)

    monkeypatch.setattr(runtime.engine, "call", calling)


def turn(part: Path, victim: Path) -> Callable[[], None]:
    def swap() -> None:
        if not part.is_symlink():
            part.rename(part.with_name("moved"))
            part.symlink_to(victim)

    return swap


def seen_swapping(part: Path) -> None:
    """Return once it was a directory and a link; the test's time limit ends a wait in vain."""
    for wanted in (True, False):
        while part.is_symlink() is not wanted:
            time.sleep(0.001)


def pins(sandbox_id: str) -> list[Path]:
    return list(Path(TOP).glob(f"*/{sandbox_id}/*"))


async def test_a_host_volume_is_what_was_checked(
    bench: Bench, make: Make, tree: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once the engine has started the container again; and nothing stays when the sandbox is gone."""
    plan = bench.plan(command=SHOW, volumes=[host_volume(tree)])
    async with make(init=False, storage=StorageSettings(allowed_host_paths=[str(tree)])) as runtime:
        swapped(runtime, monkeypatch, turn(tree / "part", victim))
        await create(runtime, plan)
        container = bench.container(plan.id)
        container.restart(timeout=0)
        assert container.exec_run(["ls", "/data"]).output == b"in\n"
        assert SECRET.encode() not in container.logs()
        assert (tree / "moved" / "in").exists()
        assert not (victim / "in").exists()
        assert len(pins(plan.id)) == 1
        await runtime.delete(plan.id)
    assert pins(plan.id) == []
    assert (tree / "moved" / "in").exists()


async def test_a_file_is_what_was_checked(
    bench: Bench, make: Make, tree: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "file").write_text("mine")
    plan = bench.plan(command=SHOW, volumes=[host_volume(tree, "file")])
    async with make(init=False, storage=StorageSettings(allowed_host_paths=[str(tree)])) as runtime:
        swapped(runtime, monkeypatch, turn(tree / "file", victim / "secret"))
        await create(runtime, plan)
        assert bench.container(plan.id).exec_run(["cat", "/data"]).output == b"mine"
        await runtime.delete(plan.id)
    assert pins(plan.id) == []


async def test_a_part_of_a_claim_is_what_was_checked(
    bench: Bench, make: Make, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = bench.plan(command=SHOW)
    name = f"shoal-claim-{plan.id}"
    bench.volumes.append(name)
    asked = Volume(name="v", mount_path="/data", sub_path="part", pvc=ClaimVolume(claim_name=name))
    plan = replace(plan, volumes=[asked])
    async with make(init=False) as runtime:
        root = Path(bench.client.volumes.create(name, labels={}).attrs["Mountpoint"])
        swapped(runtime, monkeypatch, turn(root / "part", victim))
        await create(runtime, plan)
        assert bench.container(plan.id).exec_run(["ls", "/data"]).output == b"in\n"
        assert (root / "moved" / "in").exists()
        assert not (victim / "in").exists()
        await runtime.delete(plan.id)
    assert pins(plan.id) == []


async def test_without_pins_a_swap_ends_the_create(
    bench: Bench, make: Make, tree: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the engine can only be given a path, what it mounted is compared, and nothing runs on."""
    plan = bench.plan(command=SHOW, volumes=[host_volume(tree)])
    async with make(init=False, storage=StorageSettings(allowed_host_paths=[str(tree)])) as runtime:
        runtime._assembler.without_pins()
        await create(runtime, plan)
        await runtime.delete(plan.id)
        swapped(runtime, monkeypatch, turn(tree / "part", victim))
        with pytest.raises(InvalidRequest) as caught:
            await create(runtime, plan)
    assert caught.value.code == "VOLUME::HOST_PATH_NOT_ALLOWED"
    assert bench.left(plan.id) == []


async def test_an_engine_that_does_not_see_the_mounts_is_given_paths(
    bench: Bench, make: Make, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = bench.plan(command=SHOW, volumes=[host_volume(tree)])
    async with make(init=False, storage=StorageSettings(allowed_host_paths=[str(tree)])) as runtime:
        monkeypatch.setattr(mounts, "bind", lambda source, target: None)
        await create(runtime, plan)
        (source,) = [each["Source"] for each in bench.container(plan.id).attrs["Mounts"]]
        assert source == str(tree / "part")
        await runtime.delete(plan.id)
    assert pins(plan.id) == []


@pytest.mark.timeout(180)
async def test_a_sandbox_that_swaps_all_the_time(bench: Bench, make: Make, tree: Path, victim: Path) -> None:
    """Each try runs on what was checked, or is refused, or fails because that was removed meanwhile."""
    there, away = "rm -rf x; mv real x || mkdir x", f"mv x real; ln -s {victim} x"
    script = f"cd /vol; while :; do {there}; usleep 60000; {away}; usleep 60000; done"
    racer = bench.new_id()
    bench.run(racer, {}, command=["sh", "-c", script], volumes=[f"{tree}:/vol"])
    outcomes = set()
    async with make(init=False, storage=StorageSettings(allowed_host_paths=[str(tree)])) as runtime:
        for _ in range(TRIES):
            plan = bench.plan(command=SHOW, volumes=[host_volume(tree, "x")])
            try:
                await create(runtime, plan)
                assert SECRET.encode() not in bench.container(plan.id).logs()
                outcomes.add("ran")
            except (InvalidRequest, EngineFailure) as error:
                outcomes.add(error.code)
            await runtime.delete(plan.id)
            assert pins(plan.id) == []
        await asyncio.to_thread(seen_swapping, tree / "x")
        await runtime.delete(racer)
    assert outcomes <= {"ran", "VOLUME::HOST_PATH_NOT_ALLOWED", "DOCKER::SANDBOX_START_FAILED"}
    assert not (victim / "in").exists()


class HoldingRelay(EngineRelay):
    """Keeps every create of a sandbox to itself for as long as it is told to."""

    def __init__(self, path: Path, target: str) -> None:
        super().__init__(path, target)
        self.reached, self.free = threading.Event(), threading.Event()

    def passing(self, chunk: bytes) -> None:
        if b"/containers/create?name=sandbox-" in chunk and b"?name=sandbox-execd-" not in chunk:
            self.reached.set()
            self.free.wait()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[HoldingRelay]:
    made = HoldingRelay(tmp_path / "docker.sock", DOCKER_HOST)
    made.up()
    yield made
    made.free.set()
    made.down()


@pytest.mark.timeout(120)
def test_killed_between_mount_and_create(
    bench: Bench, docker_server: Callable[..., ServerProcess], relay: HoldingRelay, tree: Path
) -> None:
    """The create goes on after the restart, and its end takes away the mounts of both tries."""
    server = docker_server(f'[storage]\nallowed_host_paths = ["{tree}"]', host=relay.host)
    volumes = [{"name": "v", "mountPath": "/data", "host": {"path": str(tree)}, "subPath": "part"}]
    body = {"image": {"uri": IMAGE}, "entrypoint": SHOW, "resourceLimits": {}, "volumes": volumes, "timeout": 600}
    sandbox_id = httpx.post(f"{server.base}/v1/sandboxes", json=body).json()["id"]
    bench.ids.add(sandbox_id)
    assert relay.reached.wait(60)
    assert len(pins(sandbox_id)) == 1
    server.kill()
    relay.down()
    relay.free.set()
    relay.up()
    server.start()
    found = httpx.get(f"{server.base}/v1/sandboxes/{sandbox_id}?wait=Running&timeout=60", timeout=90).json()
    assert found["status"]["state"] == "Running"
    assert len(pins(sandbox_id)) >= 1
    httpx.delete(f"{server.base}/v1/sandboxes/{sandbox_id}", timeout=60).raise_for_status()
    assert pins(sandbox_id) == []
    assert not any(f"/{sandbox_id}/" in path for path in mounts.mount_points())
