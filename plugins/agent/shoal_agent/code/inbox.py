"""What comes from an interpreter, in the order in which it was written, in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

CHUNK = 64 * 1024
FULL = 512 * 1024
"""Bytes that wait for the client before the interpreter is no longer read, and has to wait itself."""

Item = tuple[str, Any]
"""``("stdout", bytes)``, ``("stderr", bytes)``, ``("message", object)`` or ``("exit", code)``."""


class DriverInbox:
    """Reads the pipes of output and the socket of messages. Between `end` and `begin` output is thrown away.

    `parse` takes the socket's bytes and returns the messages that are complete. A message comes after all output that
    was in the pipes when it was read.
    """

    def __init__(self, stdout: int, stderr: int, control: socket.socket, parse: Callable[[bytes], list[Any]]) -> None:
        self._pipes = {"stdout": stdout, "stderr": stderr}
        self._control = control
        self._parse = parse
        self._items: deque[Item] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._reading = False
        self._open = True
        self.listening = True
        """Whether output is kept."""
        for fd in self._pipes.values():
            os.set_blocking(fd, False)
        control.setblocking(False)
        self._read_on()

    def begin(self) -> None:
        """Throws away what the pipes hold from before, and keeps what comes from now on."""
        self._drain()
        self._items = deque(item for item in self._items if item[0] == "exit")
        self._size = 0
        self.listening = True

    def end(self) -> None:
        """Throws output away again."""
        self.listening = False
        self._size = 0
        self._read_on()

    async def get(self, patience: float | None = None) -> Item | None:
        """The next item; None after `patience` seconds without one."""
        while not self._items:
            self._arrived.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        kind, value = self._items.popleft()
        if kind in self._pipes:
            self._size -= len(value)
            if self._size < FULL // 2:
                self._read_on()
        return kind, value

    def exited(self, code: int) -> None:
        """Notes that the process ended, after the output that it left."""
        while self._open and self._hear():
            pass
        self._drain()
        self._put(("exit", code))

    def close(self) -> None:
        """Stops reading and closes the descriptors."""
        if self._open:
            self._stop()
            self._open = False
            for fd in self._pipes.values():
                os.close(fd)
            self._control.close()

    def _put(self, item: Item) -> None:
        self._items.append(item)
        self._arrived.set()

    def _read_on(self) -> None:
        if self._reading or not self._open:
            return
        loop = asyncio.get_running_loop()
        for name, fd in self._pipes.items():
            loop.add_reader(fd, self._read, name)
        loop.add_reader(self._control, self._hear)
        self._reading = True

    def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        for fd in self._pipes.values():
            loop.remove_reader(fd)
        loop.remove_reader(self._control)
        self._reading = False

    def _read(self, name: str) -> bool:
        """Takes one chunk. Returns whether there may be more."""
        try:
            data = os.read(self._pipes[name], CHUNK)
        except BlockingIOError:
            return False
        if not data:
            asyncio.get_running_loop().remove_reader(self._pipes[name])
            return False
        if self.listening:
            self._size += len(data)
            self._put((name, data))
            if self._size >= FULL and self._reading:
                self._stop()
        return True

    def _hear(self) -> bool:
        """Takes what the socket holds. Returns whether there may be more."""
        try:
            data = self._control.recv(CHUNK)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._control)
            return False
        messages = self._parse(data)
        if messages:
            self._drain()
        for message in messages:
            self._put(("message", message))
        return True

    def _drain(self) -> None:
        """Reads each pipe until it is empty. Bounded, since a process may go on writing."""
        if not self._open:
            return
        for name in self._pipes:
            for _ in range(2 * 1024 * 1024 // CHUNK):
                with contextlib.suppress(OSError):
                    if self._read(name):
                        continue
                break
