"""The snapshots that there are: one directory for each, complete or not there at all.

::

    snapshots/<id>/snapshot.json   what it was made of
              <id>/layers/         what the sandbox had written: the directories of its layers, by their names
              .draft-…             one that is being taken
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog
from msgspec import Struct

from shoal_local.image.cache import RootFs
from shoal_local.state.records import decode, encode
from shoal_local.state.trees import remove_tree

log: Final = structlog.get_logger("shoal.local")

NO_LAYER: Final = "SNAPSHOT::UNSUPPORTED_RUNTIME"
"""The machine code where a sandbox has no layer to capture, or cannot have one that was captured."""
_PLAIN: Final = ("root", "private")
_COPIED: Final = "var-tmp"
_DRAFT: Final = ".draft-"
_META: Final = "snapshot.json"
_LAYERS: Final = "layers"
_libc: Final = ctypes.CDLL(None, use_errno=True)


class SnapshotOrigin(Struct, frozen=True, omit_defaults=True):
    """What a snapshot was made of.

    Attributes:
        sandbox_id: the sandbox that it was taken of.
        image: the name of its image, as the request had it; None for one that was made of a snapshot.
        rootfs: what lay below the sandbox's own layers.
        parts: the directories among its layers that were captured.
        uid, gid: who sandboxes were on this machine.
    """

    sandbox_id: str
    image: str | None
    rootfs: RootFs
    parts: tuple[str, ...]
    uid: int
    gid: int


def captured_parts(names: Iterable[str]) -> tuple[str, ...]:
    """Which directories among a sandbox's layers hold what it writes."""
    found = sorted(names)
    if "upper" in found:
        return tuple(name for name in found if _is_layer(name) or name == _COPIED)
    return tuple(name for name in _PLAIN if name in found)


def overlaid(parts: Iterable[str]) -> tuple[str, ...]:
    """Those that lie below a restored sandbox's own layers; the others are copied into it."""
    return tuple(name for name in parts if _is_layer(name))


def _is_layer(name: str) -> bool:
    return name == "upper" or name.startswith("upper-")


class LayerSnapshot(Struct, frozen=True):
    """One snapshot; nothing in it ever changes."""

    id: str
    path: Path
    origin: SnapshotOrigin

    @property
    def layers(self) -> Path:
        return self.path / _LAYERS


class Library:
    """All snapshots of one server. Every call blocks.

    Args:
        folder: where they lie.
        trash: where they are moved before their files are removed.
    """

    def __init__(self, folder: Path, trash: Path) -> None:
        self._folder = folder
        self._trash = trash

    def find(self, snapshot_id: str) -> LayerSnapshot | None:
        """None if there is none of that id. Raises OSError, MsgspecError for one that is damaged."""
        path = self._folder / snapshot_id
        try:
            origin = decode((path / _META).read_bytes(), SnapshotOrigin)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return LayerSnapshot(snapshot_id, path, origin)

    def draft(self, snapshot_id: str) -> tuple[Path, Path]:
        """A new directory for one that is being taken, and the one in it for its layers. Raises OSError."""
        path = self._folder / f"{_DRAFT}{snapshot_id}-{uuid4().hex[:8]}"
        path.mkdir(mode=0o700)
        (path / _LAYERS).mkdir(mode=0o755)
        return path, path / _LAYERS

    def keep(self, draft: Path, snapshot_id: str, origin: SnapshotOrigin) -> None:
        """Make a finished draft the snapshot of that id, in one step, once it is on the disk. Raises OSError."""
        (draft / _META).write_bytes(encode(origin))
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(handle) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            draft.rename(self._folder / snapshot_id)
            os.fsync(handle)
        finally:
            os.close(handle)

    def drop(self, draft: Path) -> None:
        """Remove a draft; what cannot be removed is left for `sweep`."""
        try:
            remove_tree(draft)
        except OSError as error:
            log.warning("an unfinished snapshot is left for the next start", path=str(draft), error=str(error))

    def remove(self, snapshot_id: str) -> None:
        """Remove a snapshot; absent is fine. It is gone in one step, its files follow. Raises OSError."""
        aside = self._trash / f"snapshot-{snapshot_id}-{uuid4().hex[:8]}"
        try:
            (self._folder / snapshot_id).rename(aside)
        except FileNotFoundError:
            return
        try:
            remove_tree(aside)
        except OSError as error:
            log.warning("files are left for the next sweep", snapshot_id=snapshot_id, error=str(error), path=str(aside))

    def sweep(self) -> None:
        """Remove what a killed server left half taken."""
        for entry in self._folder.glob(f"{_DRAFT}*"):
            self.drop(entry)
