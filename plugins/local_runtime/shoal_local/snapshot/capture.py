"""Taking a snapshot of a running sandbox: its processes stand still while what they wrote is copied. Blocks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from shoal.errors import Conflict, EngineFailure
from shoal.models import codes
from shoal_local.image.cache import RootFs
from shoal_local.limit.cgroups import Cgroups
from shoal_local.limit.disk import FOLDER
from shoal_local.limit.freeze import freeze, frozen, thaw
from shoal_local.run.spawn import no_space
from shoal_local.snapshot.copying import CODE, GONE, CopyJob, copy, copy_folder, full
from shoal_local.snapshot.library import NO_LAYER, LayerSnapshot, Library, SnapshotOrigin, captured_parts, overlaid
from shoal_local.state.box import Box, Spec, Started
from shoal_local.state.observe import alive
from shoal_local.state.trees import remove_tree

NOT_NOW: Final = "SNAPSHOT::RUNTIME_PREFLIGHT_FAILED"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def check(spec: Spec | None) -> None:
    """Raises Conflict for a sandbox of which no snapshot can be taken."""
    if spec is None:
        return  # it is gone, which its state tells
    if spec.isolation == "none":
        text = "The sandbox has no layer of its own to capture: it runs without isolation, on this machine's files."
        raise Conflict(NO_LAYER, text)
    if spec.rootfs is None:
        text = "The sandbox was made by an earlier version of the server, which did not note what its image was."
        raise Conflict(NOT_NOW, text)


def take(box: Box, groups: Cgroups, library: Library, snapshot_id: str) -> None:
    """Capture a sandbox; one that is there under this id is kept. Raises Conflict, EngineFailure."""
    try:
        if library.find(snapshot_id) is None:
            _take(box, groups, library, snapshot_id)
    except OSError as error:
        if no_space(error):
            raise full() from None
        raise EngineFailure(CODE, f"the snapshot cannot be written: {error.strerror}") from None
    except msgspec.MsgspecError:
        raise EngineFailure(CODE, "the files of an earlier snapshot are damaged") from None


def _take(box: Box, groups: Cgroups, library: Library, snapshot_id: str) -> None:
    spec, started = box.spec(), box.started()
    check(spec)
    if spec is None or spec.rootfs is None or started is None or not alive(box, started):
        raise Conflict(codes.SNAPSHOT_INVALID_SOURCE_STATE, "The sandbox does not run.")
    source = open_layers(box, spec, started)
    try:
        parts = captured_parts(os.listdir(source))  # noqa: PTH208 - of a descriptor
        draft, layers = library.draft(snapshot_id)
        try:
            _start_from(_base(library, spec), layers)
            with held(box, groups):
                copy(source, layers, CopyJob(parts, below=_images(spec.rootfs, parts)))
            remove_tree(layers / GONE)
            parts = captured_parts(entry.name for entry in layers.iterdir())
            origin = SnapshotOrigin(spec.id, spec.adoption.image, spec.rootfs, parts, spec.uid, spec.gid)
            library.keep(draft, snapshot_id, origin)
        except BaseException:
            library.drop(draft)
            raise
    finally:
        os.close(source)


def open_layers(box: Box, spec: Spec, started: Started) -> int:
    """The directory of a running sandbox's layers; the caller closes it. Raises EngineFailure.

    With a bound of their size they lie on a file system that only the sandbox's own mount namespace has.
    """
    if spec.enforced.disk is None:
        return os.open(box.path, _FOLDER)
    outside = box.path.stat().st_dev
    for process in (started.top, started.init):
        with suppress(OSError):
            if process is None:
                continue
            handle = os.open(f"/proc/{process.pid}/root{box.path / FOLDER}", _FOLDER)
            # The number may have been reused before it was opened; seen alive after that, it has not been.
            if os.fstat(handle).st_dev != outside and process.alive():
                return handle
            os.close(handle)
    raise EngineFailure(CODE, "the sandbox's disk cannot be reached")


def discard(library: Library, boxes: Iterable[Box], snapshot_id: str) -> None:
    """Remove a snapshot; absent is fine.

    Raises Conflict while a sandbox that was made of it is there, EngineFailure.
    """
    for box in boxes:
        spec = box.spec()
        if spec is not None and spec.adoption.snapshot_id == snapshot_id:
            raise Conflict(codes.SNAPSHOT_DELETE_CONFLICT, "A sandbox still uses the snapshot.")
    try:
        library.remove(snapshot_id)
    except OSError as error:
        text = f"the snapshot's files cannot be removed: {error.strerror}"
        raise EngineFailure(CODE, text, retry_after=5.0) from None


@contextmanager
def held(box: Box, groups: Cgroups) -> Iterator[None]:
    """No process of the sandbox runs before the block ends. A killed server's next start lets them go on."""
    if frozen(box, groups):
        yield
        return
    box.mark_captured(True)
    try:
        freeze(box, groups)
        yield
    finally:
        release(box, groups)


def release(box: Box, groups: Cgroups) -> None:
    """Let a sandbox go on after a capture. Raises EngineFailure."""
    thaw(box, groups)
    box.mark_captured(False)


def _base(library: Library, spec: Spec) -> LayerSnapshot | None:
    """The snapshot that the sandbox was made of. Raises EngineFailure if it has gone."""
    if spec.adoption.snapshot_id is None:
        return None
    found = library.find(spec.adoption.snapshot_id)
    if found is None:
        raise EngineFailure(CODE, "the snapshot that the sandbox was made of is gone")
    return found


def _start_from(base: LayerSnapshot | None, layers: Path) -> None:
    """A snapshot holds all that differs from the image, so one of a restored sandbox begins with the one below it."""
    if base is not None and (parts := overlaid(base.origin.parts)):
        copy_folder(base.layers, layers, CopyJob(parts, link=True))


def _images(rootfs: RootFs, parts: tuple[str, ...]) -> dict[str, str]:
    """The directories of the image that the layers lie over; the top one of ``host`` lies over empty directories."""
    if not rootfs.host:
        return {"upper": str(rootfs.path)}
    return {name: f"/{name.removeprefix('upper-')}" for name in parts if name.startswith("upper-")}
