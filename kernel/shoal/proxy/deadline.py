"""A deadline that is moved far more often than it passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Deadline:
    """Calls ``passed`` once the moment set last has come, unless it was cleared.

    One timer, moved lazily: a later moment costs an assignment, and the timer looks when it fires whether it came too
    early. A request that goes well arms no timer of its own.
    """

    __slots__ = ("_loop", "_moment", "_passed", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._moment: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, limit: float) -> None:
        """``limit`` seconds from now, whatever was set before."""
        self._moment = moment = self._loop.time() + limit
        if self._timer is not None:
            if self._timer.when() <= moment:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(moment, self._look)

    def clear(self) -> None:
        """No moment, for now."""
        self._moment = None

    def stop(self) -> None:
        """No moment, ever again; lets go of the timer."""
        self._moment = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._moment is None:
            return
        if self._loop.time() < self._moment:
            self._timer = self._loop.call_at(self._moment, self._look)
        else:
            self._moment = None
            self._passed()
