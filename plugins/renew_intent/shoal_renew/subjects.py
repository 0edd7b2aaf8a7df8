"""The sandboxes that opted in to renewal on access; all others cost one look-up in this table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from shoal.models.sandbox import SandboxRecord, State

EXTENSION = "access.renew.extend.seconds"
MIN_SECONDS, MAX_SECONDS = 300, 86400


class Subject:
    """One sandbox that opted in.

    Attributes:
        extend: how long it lives at least after an access.
        next_at: monotonic seconds before which no signal counts: the cool-down.
        queued: a signal of the proxy waits for a worker.
        busy: it is being renewed.
    """

    __slots__ = ("busy", "extend", "next_at", "queued")

    def __init__(self, extend: timedelta) -> None:
        self.extend = extend
        self.next_at = float("-inf")
        self.queued = False
        self.busy = False


class Subjects:
    """By sandbox id; as many as there are sandboxes that opted in and still live."""

    def __init__(self) -> None:
        self._known: dict[str, Subject] = {}
        self.get = self._known.get

    def __len__(self) -> int:
        return len(self._known)

    def follow(self, record: SandboxRecord) -> None:
        """Note a sandbox, or that it is on its way out."""
        if record.state is State.STOPPING:
            self.forget(record.id)
        elif record.id not in self._known and (extend := wish(record.extensions)) is not None:
            self._known[record.id] = Subject(extend)

    def forget(self, sandbox_id: str) -> None:
        """It is gone."""
        self._known.pop(sandbox_id, None)


def wish(extensions: Mapping[str, str]) -> timedelta | None:
    """What a create asked for; None if nothing, or (of an adopted sandbox) nothing readable."""
    try:
        seconds = int(extensions.get(EXTENSION, "").strip())
    except ValueError:
        return None
    return timedelta(seconds=seconds) if MIN_SECONDS <= seconds <= MAX_SECONDS else None
