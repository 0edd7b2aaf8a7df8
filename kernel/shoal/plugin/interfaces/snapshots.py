"""Snapshots that an engine lists by itself, for every server that works on it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from shoal.plugin.interfaces.store import SnapshotRecord


class SnapshotCatalogue(ABC):
    """A runtime's `Runtime.catalogue`: then the kernel keeps none of its snapshots in the store.

    Reads answer from memory, and are level-triggered: what another server took, finished or deleted shows as soon as
    the engine reports. ``state`` is ``Creating``, ``Ready``, ``Failed`` or ``Deleting``; a ``Ready`` one has its image.
    """

    @abstractmethod
    def all(self) -> list[SnapshotRecord]:
        """Every snapshot, in no particular order."""

    @abstractmethod
    def get(self, snapshot_id: str) -> SnapshotRecord | None:
        """One of them; None once `Runtime.delete_snapshot` of any server has returned, and this one has heard of it."""

    @abstractmethod
    async def accept(self, row: SnapshotRecord) -> None:
        """Make a snapshot known to every server, and have the engine make it; `Runtime.snapshot` is not called.

        On the request path: quick. One that is there already is completed by what it lacks of the row. Raises a
        ShoalError; then nothing is listed, or the engine was away and may list it later.
        """

    @abstractmethod
    async def captured(self, sandbox_id: str) -> None:
        """Returns once no snapshot of that sandbox is being made."""
