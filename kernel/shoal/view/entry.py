"""One sandbox in the view: its durable record, its workload as last seen, and its JSON, encoded once a change."""

from __future__ import annotations

import msgspec

from shoal.models.sandbox import SandboxRecord, public
from shoal.models.workload import Workload

_encoder = msgspec.json.Encoder()


class Entry:
    """A snapshot in time, never changed: the view holds another Entry after each change.

    Attributes:
        record: what the store holds (while Pending, with the latest progress in ``reason`` and ``message``).
        workload: what the engine was last seen to hold; None before the first sight.
    """

    __slots__ = ("_json", "record", "workload")

    def __init__(self, record: SandboxRecord, workload: Workload | None = None) -> None:
        self.record = record
        self.workload = workload
        self._json: bytes | None = None

    @property
    def json(self) -> bytes:
        """The public `Sandbox` of this entry as JSON."""
        if self._json is None:
            self._json = _encoder.encode(public(self.record, self.workload.pool if self.workload else None))
        return self._json

    @property
    def sort_key(self) -> tuple[float, str]:
        """Newest first, then by id, so that equal times have one order (docs/wire/api.md section 7)."""
        return (-self.record.created_at.timestamp(), self.record.id)
