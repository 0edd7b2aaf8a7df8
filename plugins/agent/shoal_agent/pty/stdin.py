"""Input for a process, bounded by how fast it reads."""

from __future__ import annotations

import asyncio
import os

MAX_WAITING_BYTES = 1024 * 1024


class StdinWriter:
    """Writes to a descriptor of its own as the process takes it. Closed when the process reads no more."""

    def __init__(self, descriptor: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._room = asyncio.Event()
        self._room.set()
        self.open = True
        os.set_blocking(descriptor, False)

    async def write(self, data: bytes) -> None:
        """Waits while too much is not yet read. Raises `BrokenPipeError` if nobody reads."""
        await self._room.wait()
        if not self.open:
            raise BrokenPipeError
        if not self._waiting:
            self._loop.add_writer(self._descriptor, self._flush)
        self._waiting += data
        if len(self._waiting) > MAX_WAITING_BYTES:
            self._room.clear()

    def _flush(self) -> None:
        try:
            sent = os.write(self._descriptor, self._waiting[: 64 * 1024])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        del self._waiting[:sent]
        if len(self._waiting) <= MAX_WAITING_BYTES // 2:
            self._room.set()
        if not self._waiting:
            self._loop.remove_writer(self._descriptor)

    def close(self) -> None:
        if self.open:
            self.open = False
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._waiting.clear()
            self._room.set()
