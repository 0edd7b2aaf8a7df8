"""Unpacked images: one directory for each content, made once and shared read-only by all sandboxes."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from shoal_local.image.bounds import Bounds, Budget
from shoal_local.image.catalog import Kind, Source
from shoal_local.image.oci import Image, open_image
from shoal_local.image.unpack import Unpacker
from shoal_local.state.trees import remove_tree

_TEMPORARY: Final = ".unpacking-"
log: Final = structlog.get_logger("shoal.local")


class RootFs(Struct, frozen=True):
    """A root file system to run from; ``env`` and ``workdir`` are what the image suggests."""

    path: Path
    host: bool = False
    env: dict[str, str] = {}
    workdir: str | None = None


class _Meta(Struct):
    env: dict[str, str] = {}
    workdir: str | None = None


class RootFsCache:
    """Unpacks on demand; many callers wait for one unpack. All calls block.

    Args:
        folder: where unpacked images live.
        owner: (uid, gid) of the files; None leaves them to this process.
        bounds: how much each image may take.
    """

    def __init__(self, folder: Path, owner: tuple[int, int] | None, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - frozen
        self._folder = folder
        self._owner = owner
        self._bounds = bounds
        self._keys: dict[Source, tuple[tuple[int, int, int], RootFs]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, source: Source) -> RootFs:
        """The root file system of a source, unpacked if it is not yet. Raises EngineFailure if that fails."""
        if source.kind is Kind.HOST:
            return RootFs(Path("/"), host=True)
        if source.kind is Kind.DIRECTORY:
            return RootFs(Path(os.path.realpath(source.path)))
        stamp = _stamp(source)
        known = self._keys.get(source)
        if known is not None and known[0] == stamp:
            return known[1]
        budget = Budget(self._bounds)
        image = open_image(source, budget)
        rootfs = self._unpacked(image, budget)
        self._keys[source] = (stamp, rootfs)
        return rootfs

    def holds(self, rootfs: RootFs) -> bool:
        """Was it unpacked here?"""
        return rootfs.path.is_relative_to(self._folder)

    def sweep(self) -> None:
        """Remove what a killed server left half unpacked."""
        for entry in self._folder.glob(f"{_TEMPORARY}*"):
            remove_tree(entry)

    def _unpacked(self, image: Image, budget: Budget) -> RootFs:
        with self._guard:
            lock = self._locks.setdefault(image.key, threading.Lock())
        target = self._folder / image.key
        with lock, (self._folder / ".lock").open("w") as file:
            if not target.exists():
                fcntl.flock(file, fcntl.LOCK_EX)  # another server on the same state directory
            if not target.exists():
                self._unpack(image, target, budget)
            meta = msgspec.json.decode((target / "meta.json").read_bytes(), type=_Meta)
        return RootFs(target / "root", env=meta.env, workdir=meta.workdir)

    def _unpack(self, image: Image, target: Path, budget: Budget) -> None:
        log.info("unpacking image", digest=image.key)
        draft = self._folder / f"{_TEMPORARY}{image.key}"
        remove_tree(draft)
        root = draft / "root"
        root.mkdir(parents=True)
        if self._owner is not None:
            os.chown(root, *self._owner)
        unpacker = Unpacker(root, self._owner, budget)
        try:
            for layer in image.layers():
                unpacker.apply(layer)
        except BaseException:
            remove_tree(draft)
            raise
        unpacker.finish()
        run = image.config.config
        env = dict(entry.split("=", 1) for entry in (run.env or [] if run else []) if "=" in entry)
        meta = _Meta(env=env, workdir=(run.working_dir or None) if run else None)
        (draft / "meta.json").write_bytes(msgspec.json.encode(meta))
        draft.rename(target)
        log.info("unpacked image", digest=image.key, devices_left_out=unpacker.skipped_devices)


def _stamp(source: Source) -> tuple[int, int, int]:
    """Changes whenever the layout's index or the archive does."""
    path = source.path / "index.json" if source.kind is Kind.OCI_LAYOUT else source.path
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
