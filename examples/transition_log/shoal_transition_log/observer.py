"""The component: `transition` only queues, for it runs on the server's event loop; one thread writes."""

from __future__ import annotations

import asyncio
from datetime import datetime
from io import RawIOBase
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Thread
from typing import ClassVar

import msgspec
import structlog
from msgspec import Struct

from shoal.errors import ConfigError, Unavailable
from shoal.plugin import Transition
from shoal.plugin.interfaces import Observer

log = structlog.get_logger("transition_log")


class Line(Struct, kw_only=True, omit_defaults=True):
    """One line of the file."""

    at: datetime
    sandbox: str
    before: str | None = None
    after: str | None = None
    reason: str | None = None
    owner: str | None = None


class TransitionLog(Observer):
    """Appends transitions to a file.

    Args:
        path: the file; made if it is not there.
        queue_size: lines that may wait for the disk; more are dropped.
    """

    name: ClassVar[str] = "transition_log"

    def __init__(self, path: Path, *, queue_size: int) -> None:
        self._path = path
        self._queue: Queue[bytes | None] = Queue(queue_size)
        self._thread: Thread | None = None
        self._failure: str | None = None
        self._dropped = 0  # by the event loop
        self._lost = 0  # by the thread

    async def start(self) -> None:
        """Open the file. Raises ConfigError if that fails."""
        try:
            file = await asyncio.to_thread(self._path.open, "ab", buffering=0)
        except OSError as error:
            raise ConfigError(f"transition_log.path: cannot open {self._path}: {error.strerror}") from error
        self._thread = Thread(target=self._write, args=(file,), name="transition-log")
        self._thread.start()

    async def stop(self) -> None:
        """Write what waits, and close the file."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.to_thread(self._queue.put, None)
            await asyncio.to_thread(thread.join)
        if self._dropped or self._lost:
            log.warning("transitions not logged", path=str(self._path), dropped=self._dropped, lost=self._lost)

    async def ping(self) -> None:
        """The last write must have worked."""
        if self._failure is not None:
            raise Unavailable("TRANSITION_LOG::WRITE_FAILED", f"the transition log cannot be written: {self._failure}")

    def transition(self, event: Transition) -> None:
        """Queue one line, or drop it if the disk is that far behind."""
        line = Line(
            at=event.at,
            sandbox=event.record.id,
            before=event.before,
            after=event.after,
            reason=event.record.reason,
            owner=event.record.owner,
        )
        try:
            self._queue.put_nowait(msgspec.json.encode(line) + b"\n")
        except Full:
            self._dropped += 1

    def _write(self, file: RawIOBase) -> None:
        """The thread: whatever waits goes out in one write."""
        with file:
            last = False
            while not last:
                lines, last = self._batch()
                if self._failure is not None:
                    lines.insert(0, b"\n")  # the failed write may have left half a line behind
                try:
                    _write_all(file, b"".join(lines))
                except OSError as error:
                    self._failure = error.strerror
                    self._lost += len(lines)
                else:
                    self._failure = None

    def _batch(self) -> tuple[list[bytes], bool]:
        """Every line that waits, after waiting for the first; True once it is the last batch."""
        lines: list[bytes] = []
        line = self._queue.get()
        while line is not None:
            lines.append(line)
            try:
                line = self._queue.get_nowait()
            except Empty:
                return lines, False
        return lines, True


def _write_all(file: RawIOBase, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]
