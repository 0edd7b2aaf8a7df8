"""``ossfs`` volumes, with programs on PATH that act as ossfs does: they read the file, check its mode, and mount.

The real programs need a bucket. These write down what they were given and mount a tmpfs that holds the bucket's name,
so that arguments, credential file, mounting, sharing, unmounting and what a container sees are all the real thing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.docker_runtime.one_container import output, started_engine, unique

from shoal.config.settings import StorageSettings
from shoal.errors import EngineFailure, InternalError, InvalidRequest
from shoal.models.requests import OssVolume, Volume
from shoal.models.secret import Secret
from shoal_docker.volumes import Volumes, ossfs
from shoal_docker.volumes.buckets import OSSFS_MOUNTS, Buckets
from shoal_docker.volumes.mounts import mount_points

mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
PROGRAM = """#!/bin/sh
# Stands in for $PROGRAM: {behaviour}
file=$(printf '%s\\n' "$@" | sed -n 's/^passwd_file=//p')
[ "$1" = mount ] && {{ path=$2; file=$4; }} || path=$2
{{ printf '%s\\n' "$(basename "$0")" "$@"; echo "mode $(stat -c %a "$file")"; cat "$file"; }} > {log}/$$-call
{behaviour}
"""
MOUNTS = 'mount -t tmpfs bucket "$path" && cp {log}/$$-call "$path/call" && echo a "$path" >> {log}/mounted'


class Stand:
    """Programs on PATH, and what they were called with."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.log, self.root = folder / "bin", folder / "log", folder / "oss"
        for each in (self.bin, self.log):
            each.mkdir()
        self.acts(MOUNTS)

    def acts(self, behaviour: str) -> None:
        for name in ("ossfs", "ossfs2"):
            text = PROGRAM.format(behaviour=behaviour.format(log=self.log), log=self.log)
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def calls(self) -> list[list[str]]:
        """Program, arguments, the mode of the file, and its lines."""
        return [file.read_text().splitlines() for file in self.log.glob("*-call")]

    def mounted(self) -> list[str]:
        return sorted(path for path in mount_points() if path.startswith(f"{self.root}/"))


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    files = tmp_path / "tmp"
    files.mkdir()
    monkeypatch.setenv("PATH", f"{stand.bin}:{os.environ['PATH']}")
    monkeypatch.setattr("tempfile.tempdir", str(files))
    yield stand
    for path in stand.mounted():
        subprocess.run(["umount", path], check=False)
    assert list(files.iterdir()) == [], "no file of credentials may stay"


def volume(sub_path: str | None = None, **fields: Any) -> Volume:
    bucket = OssVolume(
        bucket="pictures", endpoint="oss.example.com", access_key_id="the-key", access_key_secret=Secret("s3cret")
    )
    return Volume(name="v", mount_path="/data", sub_path=sub_path, ossfs=replace(bucket, **fields))


def sandbox() -> str:
    return str(uuid.uuid4())


def tmpfs(path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "test", path], check=True)


def unmounted(path: Path | str) -> None:
    subprocess.run(["umount", path], check=True)


# --- Rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"bucket": "   "}, "VOLUME::INVALID_OSSFS_BUCKET"),
        ({"bucket": "PICTURES"}, "SANDBOX::INVALID_PARAMETER"),
        ({"bucket": "a.b.c"}, "SANDBOX::INVALID_PARAMETER"),
        ({"bucket": "../etc"}, "SANDBOX::INVALID_PARAMETER"),
        ({"bucket": "-ab"}, "SANDBOX::INVALID_PARAMETER"),
        ({"endpoint": " "}, "VOLUME::INVALID_OSSFS_ENDPOINT"),
        ({"endpoint": "a;b"}, "SANDBOX::INVALID_PARAMETER"),
        ({"endpoint": "a b"}, "SANDBOX::INVALID_PARAMETER"),
        ({"endpoint": "a\nb"}, "SANDBOX::INVALID_PARAMETER"),
        ({"options": [""]}, "VOLUME::INVALID_OSSFS_OPTION"),
        ({"options": ["-o x"]}, "VOLUME::INVALID_OSSFS_OPTION"),
        ({"options": ["a$(id)"]}, "SANDBOX::INVALID_PARAMETER"),
        ({"options": ["a\n--oss_bucket=other"]}, "SANDBOX::INVALID_PARAMETER"),
        ({"options": ["allow_other,passwd_file=/etc/shadow"]}, "VOLUME::INVALID_OSSFS_OPTION"),
        ({"options": ["use_cache=/etc"]}, "VOLUME::INVALID_OSSFS_OPTION"),
        ({"options": ["oss_bucket=other"]}, "VOLUME::INVALID_OSSFS_OPTION"),
        ({"options": ["LOG_DIR=/etc"]}, "VOLUME::INVALID_OSSFS_OPTION"),
        ({"access_key_id": " "}, "VOLUME::INVALID_OSSFS_CREDENTIALS"),
        ({"access_key_id": "a:b"}, "VOLUME::INVALID_OSSFS_CREDENTIALS"),
        ({"access_key_secret": Secret("a\n--x")}, "VOLUME::INVALID_OSSFS_CREDENTIALS"),
    ],
)
def test_refused(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Buckets("/mnt/ossfs").check(volume(**fields))
    assert caught.value.code == code
    assert "s3cret" not in caught.value.message


def test_accepted() -> None:
    options = ["allow_other", "uid=1000", "max_stat_cache_size=1,umask=022"]
    for version in ("1.0", "2.0"):
        Buckets("/mnt/ossfs").check(volume("a b/c", version=version, options=options, endpoint="http://oss:80/x?y=1"))


def test_where_it_cannot_be() -> None:
    with pytest.raises(InternalError) as caught:
        Buckets("mnt/ossfs").check(volume())
    assert caught.value.code == "VOLUME::INVALID_OSSFS_MOUNT_ROOT"
    with pytest.raises(InvalidRequest, match="subPath"):
        Buckets("/mnt/ossfs").check(volume("a;b"))
    elsewhere = Buckets("/mnt/ossfs")
    elsewhere.shared = False
    with pytest.raises(InvalidRequest, match="engine does not see"):
        elsewhere.check(volume())


# --- Mounting --------------------------------------------------------------------------------------------------------


@mounts
async def test_version_1(stand: Stand) -> None:
    path = await Buckets(str(stand.root)).hold(sandbox(), volume("a//b/", version="1.0", options=["allow_other"]))
    call = stand.calls()[0]
    assert call[:5] == ["ossfs", "pictures:/a/b", path, "-o", "url=https://oss.example.com"]
    assert call[6].startswith("passwd_file=")
    assert call[7:] == ["-o", "allow_other", "mode 600", "pictures:the-key:s3cret"]
    assert stand.mounted() == [path]
    assert not Path(call[6].removeprefix("passwd_file=")).exists()  # noqa: ASYNC240 - one look


@mounts
async def test_version_2(stand: Stand) -> None:
    asked = volume("a/b", endpoint="http://oss:80", options=["allow_other", "uid=5"])
    path = await Buckets(str(stand.root)).hold(sandbox(), asked)
    call = stand.calls()[0]
    assert call[:4] == ["ossfs2", "mount", path, "-c"]
    assert call[5:] == [
        "mode 600",
        "--oss_endpoint=http://oss:80",
        "--oss_bucket=pictures",
        "--oss_access_key_id=the-key",
        "--oss_access_key_secret=s3cret",
        "--oss_bucket_prefix=a/b/",
        "--allow_other",
        "--uid=5",
    ]


@mounts
async def test_shared_only_by_what_is_alike(stand: Stand) -> None:
    """Known weakness of opensandbox-server: a mount is shared by its path alone, whatever its credentials."""
    buckets = Buckets(str(stand.root))
    different = [
        volume(),
        volume("sub"),
        volume(access_key_secret=Secret("other")),
        volume(access_key_id="other"),
        volume(endpoint="oss2.example.com"),
        volume(endpoint="http://oss.example.com"),
        volume(version="1.0"),
        volume(options=["ro"]),
    ]
    held = [await buckets.hold(sandbox(), each) for each in different]
    assert len(set(held)) == len(different)
    assert await buckets.hold(sandbox(), volume(endpoint="https://oss.example.com")) == held[0]
    assert sorted(held) == stand.mounted()
    assert len(stand.calls()) == len(different)


@mounts
async def test_the_last_one_unmounts(stand: Stand) -> None:
    buckets, one, other = Buckets(str(stand.root)), sandbox(), sandbox()
    path = await buckets.hold(one, volume())
    assert await buckets.hold(one, volume()) == path
    assert await buckets.hold(other, volume()) == path
    await buckets.release(one, [path])
    assert stand.mounted() == [path]
    await buckets.release(one, [path])
    assert stand.mounted() == [path], "letting go twice counts once"
    await buckets.release(other, [])
    assert stand.mounted() == []
    assert list(stand.root.iterdir()) == []
    assert await buckets.hold(one, volume()) == path
    assert stand.mounted() == [path]


@mounts
async def test_many_at_once_mount_once(stand: Stand) -> None:
    """And a slow mount keeps nobody from another bucket: known weakness of opensandbox-server."""
    stand.acts('case "$path" in */slow-*) while [ ! -e {log}/go ]; do sleep 0.05; done;; esac; ' + MOUNTS)
    buckets = Buckets(str(stand.root))
    slow = [asyncio.create_task(buckets.hold(sandbox(), volume(bucket="slow"))) for _ in range(4)]
    async with asyncio.timeout(20):
        await buckets.hold(sandbox(), volume(bucket="quick"))
    assert not any(task.done() for task in slow)
    (stand.log / "go").touch()
    assert len(set(await asyncio.gather(*slow))) == 1
    assert len(stand.calls()) == 2


@mounts
async def test_counts_come_from_labels_after_a_restart(stand: Stand) -> None:
    """Also those of a mount that opensandbox-server made, whose directory bears another name."""
    theirs = stand.root / "pictures" / "sub"
    theirs.mkdir(parents=True)
    tmpfs(theirs)
    one, other, forgotten = sandbox(), sandbox(), sandbox()
    before = Buckets(str(stand.root))
    ours, left = await before.hold(one, volume()), await before.hold(forgotten, volume("left"))
    after = Buckets(str(stand.root))
    labels = {"opensandbox.io/id": one, OSSFS_MOUNTS: f'["{ours}","{theirs}"]'}
    foreign = {OSSFS_MOUNTS: '["/proc","/","not json"]'}
    broken = {"opensandbox.io/id": sandbox(), OSSFS_MOUNTS: '{"no": "list"'}
    await after.recall({"c1": labels, "c2": {**labels, "opensandbox.io/id": other}, "c3": foreign, "c4": broken})
    assert stand.mounted() == sorted([ours, str(theirs)]), f"{left} was held by nobody"
    await after.release(one, [ours, str(theirs)])
    assert stand.mounted() == sorted([ours, str(theirs)])
    await after.release(other, [ours, str(theirs)])
    assert stand.mounted() == []
    assert theirs.is_dir(), "a directory of opensandbox-server stays"
    assert "/proc" in mount_points()


@mounts
async def test_a_label_never_unmounts_what_is_elsewhere(stand: Stand, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stand.root.mkdir()
    tmpfs(elsewhere)
    try:
        for path in (elsewhere, stand.root / ".." / "elsewhere"):
            await Buckets(str(stand.root)).release(sandbox(), [str(path)])
        assert str(elsewhere) in mount_points()
    finally:
        unmounted(elsewhere)


@mounts
async def test_a_mount_that_a_reboot_took_is_made_again(stand: Stand) -> None:
    """Known weakness of opensandbox-server: by its count the bucket is there, and a sandbox gets an empty directory."""
    buckets, one = Buckets(str(stand.root)), sandbox()
    path = await buckets.hold(one, volume())
    unmounted(path)
    assert await buckets.hold(sandbox(), volume()) == path
    assert stand.mounted() == [path]


# --- Failing ---------------------------------------------------------------------------------------------------------


async def failure(stand: Stand, **fields: Any) -> str:
    buckets, one = Buckets(str(stand.root)), sandbox()
    with pytest.raises(EngineFailure) as caught:
        await buckets.hold(one, volume(**fields))
    assert caught.value.code == "VOLUME::OSSFS_MOUNT_FAILED"
    await buckets.release(one, [])
    assert stand.mounted() == []
    return caught.value.message


@mounts
async def test_the_programs_own_words_without_secrets(stand: Stand) -> None:
    stand.acts('echo "bad key the-key / s3cret for $path" >&2; exit 3')
    message = await failure(stand)
    assert "ended with 3" in message
    assert "bad key ******** / ********" in message


@mounts
async def test_a_program_that_lies(stand: Stand) -> None:
    stand.acts("exit 0")
    assert "was not mounted" in await failure(stand)


async def test_no_program(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ossfs", "ossfs2"):
        (stand.bin / name).unlink()
    monkeypatch.setenv("PATH", str(stand.bin))
    assert "ossfs2 cannot be run" in await failure(stand)
    assert "ossfs cannot be run" in await failure(stand, version="1.0")


@mounts
async def test_a_program_that_takes_too_long(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known weakness of opensandbox-server: a plain 500. Nothing of the program is left."""
    stand.acts("echo $$ > {log}/pid; sleep 1000 & wait")
    monkeypatch.setattr(ossfs, "MOUNT_SECONDS", 1.0)
    assert "took longer than 1 seconds" in await failure(stand)
    await gone(int((stand.log / "pid").read_text()))


@mounts
async def test_a_cancelled_create_leaves_no_program(stand: Stand) -> None:
    stand.acts("echo $$ > {log}/pid; sleep 1000")
    buckets, one = Buckets(str(stand.root)), sandbox()
    task = asyncio.create_task(buckets.hold(one, volume()))
    async with asyncio.timeout(20):
        while not (stand.log / "pid").exists() or not (stand.log / "pid").read_text():  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(int((stand.log / "pid").read_text()))
    await buckets.release(one, [])
    assert list(stand.root.iterdir()) == []


async def gone(group: int) -> None:
    """Every process of the group has ended."""
    async with asyncio.timeout(20):
        while True:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.02)


@mounts
async def test_a_program_that_stays_in_the_background(stand: Stand) -> None:
    """As the real ones do: what they leave behind keeps their output open, and nobody waits for it."""
    stand.acts(MOUNTS + "; sleep 1000 & echo $! > {log}/pid")
    try:
        async with asyncio.timeout(20):
            await Buckets(str(stand.root)).hold(sandbox(), volume())
    finally:
        os.kill(int((stand.log / "pid").read_text()), signal.SIGKILL)


def test_files_that_a_killed_server_left(stand: Stand, tmp_path: Path) -> None:
    old, new, other = (tmp_path / "tmp" / name for name in ("shoal-ossfs-1", "shoal-ossfs-2", "else"))
    for file in (old, new, other):
        file.write_text("secret")
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    ossfs.remove_old_files()
    assert not old.exists()
    for file in (new, other):
        file.unlink()


# --- In a container --------------------------------------------------------------------------------------------------


@mounts
@pytest.mark.needs("docker")
async def test_in_a_container_and_after_a_restart(stand: Stand) -> None:
    sandbox_id, name = sandbox(), unique("ossfs")
    storage = StorageSettings(ossfs_mount_root=str(stand.root))
    async with started_engine() as engine:
        made = await Volumes(engine, storage).prepare(sandbox_id, [volume()])
        printed = await output(engine, ["sh", "-c", "echo x > /data/f; cat /data/call"], {"Mounts": made.mounts})
        assert "--oss_bucket=pictures" in printed.splitlines()
        assert (Path(made.buckets[0]) / "f").read_text() == "x\n"
        labels = {**made.labels(), "opensandbox.io/id": sandbox_id}
        body = {"Image": "shoal-test/busybox:latest", "Cmd": ["true"], "Labels": labels}
        await engine.call("create_container_from_config", body, name)
        try:
            after = Volumes(engine, storage)
            await after.start()
            assert stand.mounted() == made.buckets
        finally:
            await engine.call("remove_container", name, force=True)
        await after.release(sandbox_id, labels)
        assert stand.mounted() == []
