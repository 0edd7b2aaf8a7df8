"""Growing waits between the tries of what keeps failing."""

from __future__ import annotations

import random


class Backoff:
    """The next wait is twice the last one, up to a bound.

    Args:
        first: seconds of the first wait.
        most: seconds of the longest wait.
        jitter: the share of each wait, 0 to 1, that is random, so that many clients do not come back at once.

    Attributes:
        failures: waits since the start or the last `reset`.
    """

    __slots__ = ("_first", "_jitter", "_most", "failures")

    def __init__(self, first: float, most: float, jitter: float = 0.0) -> None:
        self._first, self._most, self._jitter = first, most, jitter
        self.failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        self.failures += 1
        return self.after(self.failures)

    def after(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row, at least one; for callers that count by themselves."""
        longest = min(self._first * 2.0 ** min(failures - 1, 60), self._most)
        return longest * (1 - self._jitter * random.random())  # noqa: S311 - spreads tries, hides nothing

    def reset(self) -> None:
        """It worked: the next failure waits as the first one did."""
        self.failures = 0
