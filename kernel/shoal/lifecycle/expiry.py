"""One scheduler for all sandboxes: ends what has run out, never early.

Whether something is really due is judged again on the sandbox's own lane, so a renewal that came first has won.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from shoal.kit.due import DueClock
from shoal.models.sandbox import SandboxRecord

MAX_SLEEP = 5.0
"""Seconds; bounds how late an expiry fires after the wall clock was set forward."""


class ExpiryScheduler(DueClock):
    """Calls ``due(sandbox_id)`` once its time has come, and forgets it; the callee arms it again if it was not done.

    Args:
        due: called on the event loop; must return at once.
        clock: Unix seconds; another one in tests.
    """

    def __init__(self, due: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        super().__init__(due, clock, MAX_SLEEP)

    def arm(self, key: str, moment: datetime | float | None) -> None:
        """Fire at that time (aware datetime or Unix seconds) instead of any other; None disarms."""
        if moment is None:
            self.disarm(key)
        else:
            super().arm(key, moment.timestamp() if isinstance(moment, datetime) else moment)


def due_time(record: SandboxRecord) -> float | None:
    """When the record is to be removed without anybody asking (Unix seconds); None for never.

    A create that failed is kept for its own time, whatever expiry was asked for.
    """
    moment = record.purge_at or record.expires_at
    return None if moment is None else moment.timestamp()
