"""Volumes that a sandbox changes while another one gets them, and volumes in volumes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
from tests.local_runtime.layouts import layer, tools
from tests.local_runtime.machine import ROOT, Start, ignore, local, plan, run

from shoal.errors import EngineFailure, InvalidRequest
from shoal.kit import walk
from shoal.models.requests import HostVolume, Volume
from shoal_local.image.unpack import Unpacker
from shoal_local.root import volumes
from shoal_local.run import spawn
from shoal_local.runtime import LocalRuntime

OWNER = (64000, 64000)


def volume(name: str, path: Path, target: str, *, read_only: bool = False) -> Volume:
    return Volume(name=name, mount_path=target, host=HostVolume(path=str(path)), read_only=read_only)


@pytest.fixture
async def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    for name in ("a/sub", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "here").write_text(f"{name}\n")
    (folder / "a/file").write_text("old\n")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    return folder


@pytest.fixture
async def runtime(start: Start, isolation: str, shared: Path) -> LocalRuntime:
    return await start(local(isolation=isolation), (str(shared),))


# --- Walking ----------------------------------------------------------------------------------------------------------


def swap_at(monkeypatch: pytest.MonkeyPatch, name: str, swap: Callable[[], object]) -> None:
    """``swap`` happens right before ``name`` is opened or made in its directory: the worst moment there is."""
    done: list[bool] = []

    def before(real: Callable[..., object]) -> Callable[..., object]:
        def call(path: object, *args: object, **keys: object) -> object:
            if path == name and "dir_fd" in keys and not done:
                done.append(True)
                swap()
            return real(path, *args, **keys)

        return call

    real_open, real_mkdir = before(os.open), before(os.mkdir)
    monkeypatch.setattr(os, "open", real_open)
    monkeypatch.setattr(os, "mkdir", real_mkdir)


@pytest.mark.parametrize("moment", ["one", "two", "three"])
def test_a_link_swapped_in_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    victim, volume = tmp_path / "victim", tmp_path / "volume"
    (victim / "two/three").mkdir(parents=True)
    volume.mkdir()
    before = [(path, path.stat().st_uid) for path in (victim, *victim.rglob("*"))]

    def swap() -> None:
        above = {"one": volume, "two": volume / "one", "three": volume / "one/two"}[moment]
        target = {"one": victim, "two": victim / "two", "three": victim / "two/three"}[moment]
        (above / moment).symlink_to(target)

    swap_at(monkeypatch, moment, swap)
    with pytest.raises(OSError, match="link"):
        walk.open_path(volume / "one/two/three", make=True, owner=OWNER if ROOT else None)
    assert [(path, path.stat().st_uid) for path in (victim, *victim.rglob("*"))] == before


def test_only_what_was_made_gets_an_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with content, moved to where a new one was made just now, stays whose it is."""
    if not ROOT:
        pytest.skip("only root gives files away")
    (tmp_path / "other/kept").mkdir(parents=True)
    real = os.mkdir

    def swapping(name: str, mode: int, *, dir_fd: int) -> None:
        real(name, mode, dir_fd=dir_fd)
        (tmp_path / "new").rename(tmp_path / "aside")
        (tmp_path / "other").rename(tmp_path / "new")

    monkeypatch.setattr(os, "mkdir", swapping)
    os.close(walk.open_path(tmp_path / "new", make=True, owner=OWNER))
    assert (tmp_path / "new").stat().st_uid == 0


def test_what_is_made_belongs_to_the_sandbox(tmp_path: Path) -> None:
    owner = OWNER if ROOT else None
    os.close(walk.open_path(tmp_path / "one/two", make=True, owner=owner))
    uid = OWNER[0] if ROOT else os.geteuid()
    assert [(tmp_path / name).stat().st_uid for name in ("one", "one/two")] == [uid, uid]


# --- Volumes in volumes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_the_order_in_the_request_does_not_matter(
    runtime: LocalRuntime, shared: Path, order: tuple[int, ...]
) -> None:
    (shared / "a/file").write_text("old\n")
    nested = (
        volume("outer", shared / "a", "/w"),
        volume("inner", shared / "b", "/w/sub/deep"),
        volume("file", shared / "b/here", "/w/file"),
    )
    script = "cat /w/sub/here /w/sub/deep/here /w/file; touch /w/sub/deep/made"
    wanted = plan("sh", "-c", script, volumes=tuple(nested[number] for number in order))
    await runtime.check(wanted)
    assert (await run(runtime, wanted))[1] == "a/sub\nb\nb\n"
    assert (shared / "b/made").exists()
    assert (shared / "a/file").read_text() == "old\n"


async def test_read_only_in_writable_and_the_reverse(runtime: LocalRuntime, shared: Path) -> None:
    outer, inner = volume("o", shared / "a", "/w"), volume("i", shared / "b", "/w/sub", read_only=True)
    _, output = await run(runtime, plan("sh", "-c", "touch /w/x && echo yes; touch /w/sub/x", volumes=(inner, outer)))
    assert output.splitlines()[0] == "yes"
    assert not (shared / "b/x").exists()
    outer, inner = volume("o", shared / "a", "/w", read_only=True), volume("i", shared / "b", "/w/sub")
    _, output = await run(runtime, plan("sh", "-c", "touch /w/sub/x && echo yes; touch /w/y", volumes=(inner, outer)))
    assert output.splitlines()[0] == "yes"
    assert not (shared / "a/y").exists()


@pytest.mark.parametrize(
    ("target", "source", "reason"),
    [
        ("/w/link/x", "b", "symbolic link"),
        ("/w/link", "b", "symbolic link"),
        ("/w/file", "b", "is a file in the volume outer"),
        ("/w/sub", "b/here", "is a directory in the volume outer"),
        ("/w/file/x", "b", "Not a directory"),
    ],
)
async def test_places_that_cannot_be(
    runtime: LocalRuntime, shared: Path, target: str, source: str, reason: str
) -> None:
    (shared / "a/link").symlink_to("/etc")
    wanted = plan("true", volumes=(volume("outer", shared / "a", "/w"), volume("inner", shared / source, target)))
    with pytest.raises(InvalidRequest, match=reason):
        await runtime.create(wanted, ignore)
    await runtime.delete(wanted.id)


async def test_nothing_is_made_in_a_volume_that_is_read_only(runtime: LocalRuntime, shared: Path) -> None:
    outer = volume("outer", shared / "a", "/w", read_only=True)
    wanted = plan("true", volumes=(outer, volume("inner", shared / "b", "/w/new")))
    with pytest.raises(InvalidRequest, match="No such file"):
        await runtime.create(wanted, ignore)
    assert not (shared / "a/new").exists()


async def test_one_place_twice(runtime: LocalRuntime, shared: Path) -> None:
    for other in ("/w", "/w/", "/./w"):
        wanted = plan("true", volumes=(volume("a", shared / "a", "/w"), volume("b", shared / "b", other)))
        with pytest.raises(InvalidRequest, match="same mountPath"):
            await runtime.check(wanted)


async def test_a_place_swapped_for_a_link_is_noticed(
    runtime: LocalRuntime, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a volume is mounted on in another one leads to this machine's programs at the moment of mounting."""
    real = spawn.start
    marker = shared / "b/ran"
    (shared / "b/stat").write_text(f"#!/bin/sh\ntouch {marker}\n")
    (shared / "b/stat").chmod(0o755)

    def swapping(*args: object) -> object:
        (shared / "a/sub").rename(shared / "a/moved")
        (shared / "a/sub").symlink_to("/usr/bin")
        return real(*args)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr("shoal_local.run.maker.start", swapping)
    nested = (volume("outer", shared / "a", "/w"), volume("inner", shared / "b", "/w/sub"))
    wanted = plan("true", volumes=nested)
    with pytest.raises((EngineFailure, InvalidRequest), match=r"no longer what it was|a symbolic link is in the way"):
        await runtime.create(wanted, ignore)
    await runtime.delete(wanted.id)
    assert not marker.exists()


async def test_a_link_swapped_into_an_image_is_not_mounted_on(
    start: Start, isolation: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is a directory, changed at the last moment by somebody who may write to it."""
    runtime = await start(local(isolation=isolation, image_roots=[str(tmp_path)]), (str(shared),))
    image = tmp_path / "image"
    for folder in (image, tmp_path / "outside"):
        folder.mkdir()
    tar = layer([*tools(), ("data/", "")])
    subject = Unpacker(image, None)
    subject.apply(io.BytesIO(tar))
    subject.finish()
    image.chmod(0o755)
    real = spawn._spawn

    def swapping(*args: object) -> object:
        (image / "data").rename(image / "moved")
        (image / "data").symlink_to(tmp_path / "outside")
        return real(*args)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(spawn, "_spawn", swapping)
    wanted = plan("sh", "-c", "true", image=f"dir:{image}", volumes=(volume("v", shared / "b", "/data"),))
    with pytest.raises(EngineFailure, match="no longer what it was"):
        await runtime.create(wanted, ignore)
    await runtime.delete(wanted.id)


def test_descriptors_are_closed(shared: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    host = volumes.HostVolumes([str(shared)], None)
    with host.prepared([volume("a", shared / "a", "/w"), volume("b", shared / "b", "/w/sub")]) as binds:
        assert [bind.target for bind in binds] == ["/w", "/w/sub"]
    with (
        pytest.raises(InvalidRequest),
        host.prepared([volume("a", shared / "a", "/w"), volume("b", shared / "b", "/w/file")]),
    ):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
