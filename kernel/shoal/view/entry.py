"""One sandbox in the view: its durable record, its workload as last seen, and its JSON, encoded once a change."""

from __future__ import annotations

import msgspec

from shoal.models.sandbox import Doubt, SandboxRecord, State, public, shown_state
from shoal.models.workload import Workload

_encoder = msgspec.json.Encoder()


class Entry:
    """A snapshot in time, never changed: the view holds another Entry after each change.

    Attributes:
        record: what the store holds (while Pending, with the latest progress in ``reason`` and ``message``).
        workload: what the engine was last seen to hold; None before the first sight.
        doubt: why the record may not be what is on the engine; None while the runtime is there.
    """

    __slots__ = ("_json", "doubt", "record", "workload")

    def __init__(self, record: SandboxRecord, workload: Workload | None = None, doubt: Doubt | None = None) -> None:
        self.record = record
        self.workload = workload
        self.doubt = doubt
        self._json: bytes | None = None

    @property
    def json(self) -> bytes:
        """The public `Sandbox` of this entry as JSON."""
        if self._json is None:
            pool = self.workload.pool if self.workload else None
            self._json = _encoder.encode(public(self.record, pool, self.doubt))
        return self._json

    @property
    def state(self) -> State:
        """The state that readers see: that of the record, or Unknown."""
        return shown_state(self.record, self.doubt)

    @property
    def sort_key(self) -> tuple[float, str]:
        """Newest first, then by id, so that equal times have one order (docs/wire/api.md section 7)."""
        return (-self.record.created_at.timestamp(), self.record.id)
