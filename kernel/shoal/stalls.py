"""Names the plugin whose code holds up the event loop: everything else waits while it does.

A thread asks the loop for a sign of life. Where none comes in time, the loop's own stack says what it is at.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Final

import structlog

from shoal.plugin.components import Part

log = structlog.get_logger("shoal.plugin")

POLL_INTERVAL: Final = 0.2
LIMIT_SECONDS: Final = 0.8
"""What blocks for a second is seen: it begins within `POLL_INTERVAL` before the loop is asked."""
_OWN: Final = "shoal"


class StallWatch:
    """Watches one event loop, from `start` to `stop`.

    Args:
        parts: the components whose code may run on it.
    """

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = {id(part.component): part for part in parts}
        modules = {type(part.component).__module__.partition(".")[0]: part.plugin for part in self._parts.values()}
        self._packages = {name: plugin for name, plugin in modules.items() if name != _OWN}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch the running loop."""
        self._stopped.clear()
        arguments = (asyncio.get_running_loop(), threading.get_ident())
        self._thread = threading.Thread(target=self._watch, args=arguments, name="shoal-stalls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; fine if there is none."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while not self._stopped.wait(POLL_INTERVAL):
            asked, sign = time.monotonic(), threading.Event()
            try:
                loop.call_soon_threadsafe(sign.set)
            except RuntimeError:
                return  # the loop is closed
            if sign.wait(LIMIT_SECONDS):
                continue
            found = self._culprit(thread)
            if found is not None:
                log.error("a plugin blocks the event loop", plugin=found[0], where=found[1])
            while not sign.wait(POLL_INTERVAL) and not self._stopped.is_set():
                pass
            if found is not None:
                log.warning("the event loop was blocked", plugin=found[0], seconds=round(time.monotonic() - asked, 1))

    def _culprit(self, thread: int) -> tuple[str, str] | None:
        """The plugin whose code is innermost on the loop's stack, and where it is; None if there is none."""
        for frame in _stack(sys._current_frames().get(thread)):
            module = str(frame.f_globals.get("__name__", ""))
            part = self._parts.get(id(frame.f_locals.get("self")))
            plugin = part.plugin if part is not None else self._packages.get(module.partition(".")[0])
            if plugin is not None:
                return plugin, f"{module}.{frame.f_code.co_qualname}, line {frame.f_lineno}"
        return None


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and its callers, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back
