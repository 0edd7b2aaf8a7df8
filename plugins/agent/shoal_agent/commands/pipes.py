"""The reading end of a pipe that a process writes to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

READ = 64 * 1024
DRAIN = 1024 * 1024
"""The most that is read at once from a pipe whose writers do not stop."""


class OutputPipe:
    """Reads as the loop finds bytes; `hold` stops it, so the writer waits. `take` gets bytes, `ended` the end."""

    def __init__(
        self, take: Callable[[bytes], None], ended: Callable[[], None], ends: tuple[int, int] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._take, self._ended = take, ended
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC) if ends is None else ends
        """`writing` is for the process; `start` closes it here."""
        os.set_blocking(self._reading, False)
        self._held = False
        self.open = True
        """Whether somebody may still write."""

    @classmethod
    def of(cls, descriptor: int, take: Callable[[bytes], None], ended: Callable[[], None]) -> OutputPipe:
        """Reads a terminal; it has started."""
        pipe = cls(take, ended, (descriptor, -1))
        pipe.start()
        return pipe

    def start(self) -> None:
        """After the process has been started."""
        if self.writing >= 0:
            os.close(self.writing)
        self._loop.add_reader(self._reading, self._readable)

    def abandon(self) -> None:
        """When it could not be started."""
        os.close(self.writing)
        os.close(self._reading)
        self.open = False

    def hold(self) -> None:
        if self.open and not self._held:
            self._held = True
            self._loop.remove_reader(self._reading)

    def release(self) -> None:
        if self.open and self._held:
            self._held = False
            self._loop.add_reader(self._reading, self._readable)

    def drain(self) -> None:
        """Reads what is there now."""
        left = DRAIN
        while self.open and left > 0 and (count := self._read()):
            left -= count

    def discard(self) -> None:
        """From now on what comes is thrown away, so that whoever writes is neither stopped nor ended."""
        self._take, self._ended = _nothing, _nobody
        self.release()

    def close(self) -> None:
        """Reads no more, whoever still writes."""
        if self.open:
            self._shut()

    def _shut(self) -> None:
        if not self._held:
            self._loop.remove_reader(self._reading)
        os.close(self._reading)
        self.open = False

    def _readable(self) -> None:
        self._read()

    def _read(self) -> int:
        try:
            data = os.read(self._reading, READ)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            data = b""
        if data:
            self._take(data)
            return len(data)
        self._shut()
        self._ended()
        return 0


def _nothing(data: bytes) -> None:
    """Throws it away."""


def _nobody() -> None:
    """Tells nobody."""
