"""One heap and one timer for many deadlines.

The heap holds (time, key) and may hold outdated pairs; the table of due times decides.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable


class DueClock:
    """Calls ``due(key)`` once the key's time has come, and forgets it; the callee may arm it again.

    Args:
        due: called on the event loop; must return at once. What it raises reaches the loop's exception handler, and
            the other keys come due all the same.
        now: seconds, of the wall clock or monotonic.
        longest_sleep: seconds. Bounds how late a key comes due after a wall clock was set forward.
    """

    def __init__(self, due: Callable[[str], None], now: Callable[[], float], longest_sleep: float = math.inf) -> None:
        self._due = due
        self._now = now
        self._longest_sleep = longest_sleep
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    def __len__(self) -> int:
        return len(self._times)

    def start(self) -> None:
        """Begin; what is overdue comes due at once."""
        self._running = True
        self._plan()

    def stop(self) -> None:
        """Call nothing more; what is armed stays armed."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def time_of(self, key: str) -> float | None:
        """When it comes due; None if it is not armed."""
        return self._times.get(key)

    def arm(self, key: str, moment: float) -> None:
        """Come due at that moment instead of any other."""
        if self._times.get(key) == moment:
            return
        self._times[key] = moment
        heapq.heappush(self._heap, (moment, key))
        self._compact()
        if self._heap[0] == (moment, key):
            self._plan()

    def disarm(self, key: str) -> None:
        """Never come due; not being armed is fine."""
        self._times.pop(key, None)

    def fire(self) -> None:
        """Call ``due`` for every key whose time has come; the timer does this."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._now()
        try:
            while self._heap and self._heap[0][0] <= now:
                moment, key = heapq.heappop(self._heap)
                if self._times.get(key) == moment:
                    del self._times[key]
                    self._due(key)
        finally:
            self._plan()  # whatever one callee does, the others are still to come

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running and self._heap:
            delay = min(max(0.0, self._heap[0][0] - self._now()), self._longest_sleep)
            self._timer = asyncio.get_running_loop().call_later(delay, self.fire)

    def _compact(self) -> None:
        """Times that change often leave outdated pairs behind; rebuild before they outnumber the armed ones."""
        if len(self._heap) > 64 + 2 * len(self._times):
            self._heap = [(moment, key) for key, moment in self._times.items()]
            heapq.heapify(self._heap)
