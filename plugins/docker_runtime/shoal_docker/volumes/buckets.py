"""``ossfs`` volumes: buckets mounted on this machine and given to sandboxes as directories.

A mount is shared only by volumes that are alike in everything, credentials and endpoint included: its directory is
named after a digest of all of it. A mount that another server made under a plainer name keeps its directory and is let
go of when its last sandbox is (docs/wire/docker.md section 9). Who holds what is read from the containers' labels at
start; whether something is mounted is always asked of the kernel, so that a mount that a reboot or a crash took away is
made again with the next sandbox.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import structlog

from shoal.errors import EngineFailure, InternalError
from shoal.models.requests import OssVolume, Volume
from shoal_docker.labels import ID, PREFIX, json_list
from shoal_docker.volumes import mounts, ossfs, paths

log = structlog.get_logger("shoal.docker")

OSSFS_MOUNTS: Final = PREFIX + "ossfs-mounts"
DIGEST_SIZE: Final = 16
"""Hexadecimal digits of the digest in a directory's name."""
_OWN: Final = re.compile(rf"[a-z0-9-]+-[0-9a-f]{{{DIGEST_SIZE}}}")
_INVALID_ROOT: Final = "VOLUME::INVALID_OSSFS_MOUNT_ROOT"


class Buckets:
    """Mounted buckets, and who holds them.

    Args:
        root: ``storage.ossfs_mount_root``.

    Attributes:
        shared: whether the engine sees the files that this server sees.
    """

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")
        self._holders: dict[str, set[str]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.shared = True

    def check(self, volume: Volume) -> None:
        """Raise InvalidRequest for a volume that cannot be mounted, InternalError for a root that cannot hold one."""
        ossfs.check(volume, shared=self.shared)
        if not self._root.startswith("/"):
            raise InternalError(_INVALID_ROOT, "storage.ossfs_mount_root must be an absolute path.")

    async def recall(self, containers: Mapping[str, Mapping[str, str]]) -> None:
        """Count what containers hold, by their labels; let go of mounts of ours that none does, and of old files."""
        for container, labels in containers.items():
            for path in json_list(labels.get(OSSFS_MOUNTS, "")):
                self._hold(path, labels.get(ID) or container)
        await asyncio.to_thread(ossfs.remove_old_files)
        for path in await asyncio.to_thread(mounts.mount_points):
            own = posixpath.dirname(path) == self._root and _OWN.fullmatch(posixpath.basename(path))
            if own and path not in self._holders:
                log.info("unmounting a bucket that nobody holds", path=path)
                await self._unmount(path)

    async def hold(self, sandbox_id: str, volume: Volume) -> str:
        """The directory of the bucket, mounted; held until `release`, also if this fails.

        Raises EngineFailure ``VOLUME::OSSFS_MOUNT_FAILED``.
        """
        path = self._path(volume)
        self._hold(path, sandbox_id)
        async with self._lock(path):
            if not await asyncio.to_thread(ossfs.is_usable, path):
                await self._mount(volume, path)
        return path

    async def release(self, sandbox_id: str, labelled: Iterable[str]) -> None:
        """Let go of everything that a sandbox holds; the last one to do so unmounts. A failure is only logged."""
        held = {path for path, holders in self._holders.items() if sandbox_id in holders}
        for path in held | {path for path in labelled if self._is_below(path)}:
            async with self._lock(path):
                holders = self._holders.get(path, set())
                holders.discard(sandbox_id)
                if holders:
                    continue
                self._holders.pop(path, None)
                await self._unmount(path)

    def _hold(self, path: str, sandbox_id: str) -> None:
        if self._is_below(path):
            self._holders.setdefault(path, set()).add(sandbox_id)

    def _is_below(self, path: str) -> bool:
        """A label may have come from anywhere."""
        return posixpath.normpath(path) == path and path != self._root and paths.is_within(path, [self._root])

    def _lock(self, path: str) -> asyncio.Lock:
        return self._locks.setdefault(path, asyncio.Lock())

    def _path(self, volume: Volume) -> str:
        bucket = _bucket(volume)
        return f"{self._root}/{bucket.bucket}-{_digest(bucket, volume.sub_path)}"

    async def _mount(self, volume: Volume, path: str) -> None:
        try:
            await asyncio.to_thread(_make_empty, path)
        except OSError as error:
            message = f"The bucket of {volume.name} has no directory to be mounted at: {error.strerror}."
            raise EngineFailure(ossfs.MOUNT_FAILED, message) from None
        await ossfs.mount(volume, path)
        if not await asyncio.to_thread(ossfs.is_usable, path):
            message = f"The bucket of {volume.name} was not mounted, though its command reported success."
            raise EngineFailure(ossfs.MOUNT_FAILED, message)
        log.info("bucket mounted", volume=volume.name, path=path)

    async def _unmount(self, path: str) -> None:
        if path in await asyncio.to_thread(mounts.mount_points):
            problem = await ossfs.unmount(path)
            if problem is not None:
                log.warning("a bucket could not be unmounted", path=path, problem=problem)
                return
            log.info("bucket unmounted", path=path)
        if _OWN.fullmatch(posixpath.basename(path)):
            await asyncio.to_thread(_remove_empty, path)


def _bucket(volume: Volume) -> OssVolume:
    assert volume.ossfs is not None  # noqa: S101 - the caller looked
    return volume.ossfs


def _digest(bucket: OssVolume, sub_path: str | None) -> str:
    """Of everything that makes two mounts different. Secrets are long and random, and 64 bits of it reveal nothing."""
    secret = bucket.access_key_secret.reveal() if bucket.access_key_secret is not None else ""
    fields = [
        bucket.version,
        ossfs.endpoint(bucket),
        bucket.bucket,
        ossfs.prefix(sub_path),
        bucket.options or [],
        bucket.access_key_id,
        secret,
    ]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:DIGEST_SIZE]


def _make_empty(path: str) -> None:
    """The directory; what is left of a mount whose process died is detached first. Blocks."""
    if path in mounts.mount_points():
        mounts.detach(path)
    Path(path).mkdir(mode=0o755, parents=True, exist_ok=True)


def _remove_empty(path: str) -> None:
    try:
        Path(path).rmdir()
    except OSError as error:
        log.debug("mount directory stays", path=path, problem=error.strerror)
