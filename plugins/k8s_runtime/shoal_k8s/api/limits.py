"""Token buckets: how many requests per second this server may send, so that it never crowds out the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class TokenBucket:
    """Holds back whoever comes too early, in the order in which they came.

    Args:
        qps: requests per second in the long run; 0 = unlimited.
        burst: how many may come at once; 0 = as ``qps``, at least 1.
        clock: monotonic seconds; another one in tests.
    """

    def __init__(self, qps: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._qps = qps
        self._burst = float(burst or max(1.0, qps))
        self._clock = clock
        self._tokens = self._burst
        self._at = clock()

    def reserve(self) -> float:
        """Take a token; seconds to wait until it is there."""
        if not self._qps:
            return 0.0
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._qps) - 1.0
        self._at = now
        return max(0.0, -self._tokens / self._qps)

    async def take(self) -> None:
        """Wait for a token on the event loop; a waiter that is cancelled loses its token."""
        delay = self.reserve()
        if delay:
            await asyncio.sleep(delay)
