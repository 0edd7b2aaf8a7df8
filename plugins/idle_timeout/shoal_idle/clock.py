"""How long each sandbox has been idle: one clock for all of them.

An access only stamps a time. The clock holds the earliest moment at which a sandbox may be due; when it comes, the
stamp decides whether the sandbox is due or the moment moves on, so a busy sandbox costs one step per timeout.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shoal.kit import DueClock


class Watch:
    """One sandbox.

    Attributes:
        timeout: seconds.
        last: when it was last in use, on the clock.
        open: HTTP exchanges under way; while there is one it is in use.
        running: idleness counts only while it runs.
        uses: how often it was accessed.
    """

    __slots__ = ("last", "open", "running", "timeout", "uses")

    def __init__(self, timeout: float, now: float) -> None:
        self.timeout = timeout
        self.last = now
        self.open = 0
        self.running = False
        self.uses = 0


class IdleClock:
    """Calls ``due(sandbox_id)`` when a sandbox has been idle for its timeout, then not again until `arm`.

    Args:
        due: called on the event loop; must return at once.
        now: monotonic seconds; another clock in tests.
    """

    def __init__(self, due: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._due = due
        self._now = now
        self._watches: dict[str, Watch] = {}
        self._clock = DueClock(self._judge, now)

    def __len__(self) -> int:
        return len(self._watches)

    def start(self) -> None:
        """Begin to fire."""
        self._clock.start()

    def stop(self) -> None:
        """Fire nothing more."""
        self._clock.stop()

    # --- What happens to a sandbox -----------------------------------------------------------------------------------

    def run(self, sandbox_id: str, timeout: float) -> None:
        """It runs from now on: its idle time starts at nought."""
        now = self._now()
        watch = self._watches.get(sandbox_id)
        if watch is None:
            watch = self._watches[sandbox_id] = Watch(timeout, now)
        watch.last = max(watch.last, now)
        watch.running = True
        self._clock.arm(sandbox_id, watch.last + timeout)

    def rest(self, sandbox_id: str) -> None:
        """It does not run: its time stands still. Exchanges that were under way are still to be reported as over."""
        watch = self._watches.get(sandbox_id)
        if watch is not None:
            watch.running = False
            self._clock.disarm(sandbox_id)

    def forget(self, sandbox_id: str) -> None:
        """It is gone, or on its way out."""
        self._watches.pop(sandbox_id, None)
        self._clock.disarm(sandbox_id)

    def touch(self, sandbox_id: str, grace: float = 0.0) -> None:
        """It was used just now, and counts as in use for ``grace`` seconds more."""
        watch = self._watches.get(sandbox_id)
        if watch is not None:
            watch.uses += 1
            watch.last = max(watch.last, self._now() + grace)

    def enter(self, sandbox_id: str) -> None:
        """An HTTP exchange began."""
        watch = self._watches.get(sandbox_id)
        if watch is not None:
            watch.uses += 1
            watch.open += 1

    def leave(self, sandbox_id: str) -> None:
        """An HTTP exchange ended; its idle time starts here."""
        watch = self._watches.get(sandbox_id)
        if watch is not None:
            watch.open = max(0, watch.open - 1)
            watch.last = max(watch.last, self._now())

    # --- Judging -----------------------------------------------------------------------------------------------------

    def idle(self, sandbox_id: str) -> bool:
        """Whether it runs and has been idle for its timeout, as of now."""
        watch = self._watches.get(sandbox_id)
        return watch is not None and watch.running and self._deadline(watch) <= self._now()

    def uses(self, sandbox_id: str) -> int:
        """How often it was accessed since it is watched."""
        watch = self._watches.get(sandbox_id)
        return 0 if watch is None else watch.uses

    def arm(self, sandbox_id: str, delay: float = 0.0) -> None:
        """Let it become due again, not before ``delay`` seconds have passed."""
        watch = self._watches.get(sandbox_id)
        if watch is not None and watch.running and self._clock.time_of(sandbox_id) is None:
            self._clock.arm(sandbox_id, max(self._deadline(watch), self._now() + delay))

    def fire(self) -> None:
        """Call ``due`` for every sandbox that is; the timer does this."""
        self._clock.fire()

    def _judge(self, sandbox_id: str) -> None:
        watch = self._watches[sandbox_id]
        deadline = self._deadline(watch)
        if deadline > self._now():
            self._clock.arm(sandbox_id, deadline)
        else:
            self._due(sandbox_id)

    def _deadline(self, watch: Watch) -> float:
        """The earliest moment at which it may be due; moves while it is in use."""
        return (self._now() if watch.open else watch.last) + watch.timeout
