"""One scheduler over one heap for all sandboxes: ends what has run out, never early.

The heap holds (time, id) and may hold outdated pairs; the table of due times decides. Whether something is really due
is judged again on the sandbox's own lane, so a renewal that came first has won.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from datetime import datetime

LONGEST_SLEEP = 5.0
"""Seconds; bounds how late an expiry fires after the wall clock was set forward."""


class ExpiryScheduler:
    """Calls ``due(sandbox_id)`` once its time has come, and forgets it; the callee arms it again if it was not done.

    Args:
        due: called on the event loop; must return at once.
        clock: Unix seconds; another one in tests.
    """

    def __init__(self, due: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._due = due
        self._clock = clock
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    def __len__(self) -> int:
        return len(self._times)

    def start(self) -> None:
        """Begin; what is overdue fires at once."""
        self._running = True
        self._plan()

    def stop(self) -> None:
        """Fire nothing more; what is armed stays armed."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def arm(self, sandbox_id: str, at: datetime | float | None) -> None:
        """Fire at that time (aware datetime or Unix seconds) instead of any other; None disarms."""
        if at is None:
            self.disarm(sandbox_id)
            return
        moment = at if isinstance(at, (int, float)) else at.timestamp()
        if self._times.get(sandbox_id) == moment:
            return
        self._times[sandbox_id] = moment
        heapq.heappush(self._heap, (moment, sandbox_id))
        self._compact()
        if self._heap[0] == (moment, sandbox_id):
            self._plan()

    def disarm(self, sandbox_id: str) -> None:
        """Never fire for it; not being armed is fine."""
        self._times.pop(sandbox_id, None)

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running and self._heap:
            delay = min(max(0.0, self._heap[0][0] - self._clock()), LONGEST_SLEEP)
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._clock()
        try:
            while self._heap and self._heap[0][0] <= now:
                moment, sandbox_id = heapq.heappop(self._heap)
                if self._times.get(sandbox_id) == moment:
                    del self._times[sandbox_id]
                    self._due(sandbox_id)
        finally:
            self._plan()  # whatever one callee does, the others are still to come

    def _compact(self) -> None:
        """Frequent renewals leave outdated pairs behind; rebuild before they outnumber the armed ones."""
        if len(self._heap) > 64 + 2 * len(self._times):
            self._heap = [(moment, sandbox_id) for sandbox_id, moment in self._times.items()]
            heapq.heapify(self._heap)
