"""One terminal session: a process that outlives its sockets, and the sockets."""

from __future__ import annotations

import asyncio
import time

from shoal_agent.agent import RunningAgent
from shoal_agent.pty.process import TerminalProcess
from shoal_agent.pty.ring import Ring

DELETED = -1
"""The exit code that sockets of a deleted session get."""


class TerminalSession:
    """Held by one socket at a time; viewers are not counted."""

    def __init__(self, identifier: str, cwd: str, command: str, envs: dict[str, str], agent: RunningAgent) -> None:
        self.id = identifier
        self.cwd, self.command, self.envs = cwd, command, envs
        self.ring = Ring(self._hold, self._release)
        self.process: TerminalProcess | None = None
        """The process that runs; None before it starts and after it has ended."""
        self.terminal = True
        """Whether it runs on a terminal, not on pipes."""
        self.exit_code: int | None = None
        """Of the last process; None while one runs."""
        self.deleted = False
        self.last_used = time.monotonic()
        self._agent = agent
        self._holder: asyncio.Event | None = None
        self._released = asyncio.Event()

    @property
    def running(self) -> bool:
        return self.process is not None

    @property
    def held(self) -> bool:
        return self._holder is not None

    def start(self, terminal: bool) -> None:
        """Raises `StartError`."""
        process = TerminalProcess(self.ring.append, self._ended)
        process.start(self._agent, self.command, self.cwd, self.envs, terminal)
        self.process, self.terminal, self.exit_code = process, terminal, None

    def _ended(self, code: int) -> None:
        self.process = None
        self.exit_code = DELETED if self.deleted else code
        self.last_used = time.monotonic()
        self.ring.wake()

    def _hold(self) -> None:
        if self.process is not None:
            self.process.hold()

    def _release(self) -> None:
        if self.process is not None:
            self.process.release()

    def delete(self) -> None:
        """Kills what runs; its sockets get the end."""
        self.deleted = True
        if self.process is not None:
            self.process.kill()
        else:
            self.exit_code = DELETED
        self.ring.wake()

    # Who holds it.

    def attach(self) -> asyncio.Event:
        """Makes the caller the holder. The event is set when another takes over. Call `detach` in the end."""
        self._holder = asyncio.Event()
        self._released.clear()
        return self._holder

    def detach(self, holder: asyncio.Event) -> None:
        if self._holder is holder:
            self._holder = None
            self.ring.follower = None
            self.ring.regulate()
            self._released.set()
        self.last_used = time.monotonic()

    async def take_over(self, seconds: float) -> None:
        """Tells the holder to leave and waits until it has, but no longer than `seconds`."""
        if self._holder is None:
            return
        self._holder.set()
        self.ring.wake()
        try:
            async with asyncio.timeout(seconds):
                await self._released.wait()
        except TimeoutError:
            self._holder = None
            self.ring.follower = None
