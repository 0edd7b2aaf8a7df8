"""Whether a snapshot can be restored on this machine as it is now."""

from __future__ import annotations

import os

from msgspec import MsgspecError

from shoal.errors import Conflict
from shoal.models.codes import SNAPSHOT_NOT_READY
from shoal_local.run.scripts import Drop
from shoal_local.snapshot.library import NO_LAYER, LayerSnapshot, Library


def restorable(library: Library, reference: str) -> LayerSnapshot:
    """The snapshot. Raises Conflict if it, or the image that it was taken over, is not there."""
    try:
        found = library.find(reference)
    except (OSError, MsgspecError):
        found = None
    if found is None:
        raise Conflict(SNAPSHOT_NOT_READY, "The snapshot's files are not in local.state_dir, or are damaged.")
    if not found.origin.rootfs.path.is_dir():
        image = found.origin.rootfs.path
        raise Conflict(SNAPSHOT_NOT_READY, f"The snapshot was taken over the image {image}, which is gone.")
    return found


def check_user(snapshot: LayerSnapshot, drop: Drop | None, *, isolated: bool) -> None:
    """Raises Conflict where sandboxes have no layers, or are another user than the one that wrote these."""
    if not isolated:
        raise Conflict(NO_LAYER, "Without isolation no snapshot can be restored.")
    user = (os.geteuid(), os.getegid()) if drop is None else (drop.uid, drop.gid)
    owner = (snapshot.origin.uid, snapshot.origin.gid)
    if user != owner:
        text = f"The snapshot's files belong to the user {owner[0]}:{owner[1]}; sandboxes are {user[0]}:{user[1]} now"
        raise Conflict(NO_LAYER, f"{text} ([local] uid, gid).")
