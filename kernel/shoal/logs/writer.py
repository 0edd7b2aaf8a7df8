"""The one thread that writes log lines.

A `SinkQueue` takes finished lines from any thread and returns at once: it appends to a list under a lock that is never
held while writing. The `LogWriter` wakes on the first line, waits a moment for more, and writes all of them together.
What does not fit because the destination is stuck is dropped and counted, and the count is logged once it flows again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from shoal.logs.sinks import Sink

LIMIT_BYTES = 4 * 1024 * 1024
"""Lines of one channel that may wait; about 15,000 access lines."""
GATHER_SECONDS = 0.005
CLOSE_SECONDS = 2.0
"""How long the end of the process waits for a destination that is stuck."""

DroppedLine = Callable[[int], bytes]
"""Renders the line that says how many lines were dropped."""


class SinkQueue:
    """Lines on their way to one sink.

    Args:
        sink: where they go; used by the writer's thread only.
        dropped_line: see `DroppedLine`.
        limit: bytes that may wait.
    """

    def __init__(self, sink: Sink, dropped_line: DroppedLine, limit: int = LIMIT_BYTES) -> None:
        self.sink = sink
        self._dropped_line = dropped_line
        self._limit = limit
        # Reentrant: the garbage collector may run a finalizer that logs while this thread holds it.
        self._lock = threading.RLock()
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self.wake: Callable[[], None] = lambda: None

    def put(self, line: bytes) -> None:
        """Take one line, newline included; drop it if too many wait."""
        with self._lock:
            if self._size + len(line) > self._limit:
                self._dropped += 1
                return
            first = not self._lines
            self._lines.append(line)
            self._size += len(line)
        if first:
            self.wake()

    def write_out(self) -> None:
        """Write what waits, and how many lines were dropped since the last time."""
        with self._lock:
            lines, self._lines = self._lines, []
            self._size = 0
            dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(self._dropped_line(dropped))
        if lines:
            self.sink.write(lines)


class LogWriter:
    """A thread that empties channels until it is closed."""

    def __init__(self, channels: Sequence[SinkQueue]) -> None:
        self._channels = channels
        # A SimpleQueue's put is reentrant, unlike an Event's set.
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closing = threading.Event()
        for channel in channels:
            channel.wake = lambda: self._tokens.put(None)
        self._thread = threading.Thread(target=self._run, name="shoal-log", daemon=True)
        self._thread.start()

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Write what waits and close the sinks; False if a destination is stuck for longer than ``seconds``."""
        self._closing.set()
        self._tokens.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._tokens.get()
            time.sleep(GATHER_SECONDS)
            self._write_out()
        self._write_out()
        for channel in self._channels:
            channel.sink.close()

    def _write_out(self) -> None:
        for channel in self._channels:
            channel.write_out()
