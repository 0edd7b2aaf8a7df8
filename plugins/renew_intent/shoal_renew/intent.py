"""One signal that a sandbox was accessed, and the JSON in which a gateway writes it (docs/wire/api.md section 17)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct

STALE_SECONDS = 300.0
"""A signal that was observed longer ago says nothing about the present."""
MAX_PAYLOAD_BYTES = 64 * 1024
"""Bytes; the request URI that a gateway adds may be long, but not that long."""

Source = Literal["server_proxy", "redis_queue"]


class Signal(Struct, frozen=True):
    """An access.

    Attributes:
        observed_at: when it happened; None for one of this process, which is never old.
    """

    sandbox_id: str
    source: Source
    observed_at: datetime | None = None
    port: int | None = None

    def age(self, now: datetime) -> float:
        """Seconds since it was observed; 0 for one of this process, and for one from a clock that is ahead."""
        return 0.0 if self.observed_at is None else max((now - self.observed_at).total_seconds(), 0.0)

    def stale(self, now: datetime) -> bool:
        """Whether it is too old to act on."""
        return self.age(now) > STALE_SECONDS


class _Payload(Struct):
    """What is read of a gateway's intent; ``request_uri``, ``namespace`` and whatever else it holds are not needed."""

    sandbox_id: str
    observed_at: datetime
    port: int | None = None


_decoder = msgspec.json.Decoder(_Payload)


def parse(payload: bytes) -> Signal | None:
    """The signal that a gateway wrote; None for anything else. A time without zone is UTC."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        return None
    try:
        intent = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    sandbox_id, at = intent.sandbox_id.strip(), intent.observed_at
    if not sandbox_id:
        return None
    return Signal(sandbox_id, "redis_queue", at if at.tzinfo else at.replace(tzinfo=UTC), intent.port)
