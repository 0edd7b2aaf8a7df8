"""Child processes: when each of them ends, without a thread per child, and zombies when the agent is PID 1."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import Any


class Children:
    """Every process that the agent starts is started or watched here.

    As PID 1 (or a subreaper) it also reaps what others left. Then a `subprocess.Popen` that is not watched may find
    its child already reaped, so rooms use `popen`.
    """

    def __init__(self) -> None:
        self._watched: dict[int, asyncio.Future[int]] = {}
        self.adopts = False
        """Whether unknown children are reaped too."""

    def start(self) -> None:
        """Begins to listen to SIGCHLD, in the running loop of the main thread."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def popen(self, arguments: list[str] | list[bytes], **keywords: Any) -> tuple[int, asyncio.Future[int]]:
        """Starts a process by `subprocess.Popen`. Returns its pid and a future of its return code.

        The code is that of `subprocess`: negative for a signal. Pipes are the caller's own: pass file descriptors, not
        PIPE. Raises OSError. Call it in the loop's thread.
        """
        process = subprocess.Popen(arguments, **keywords)  # noqa: S603  # running commands is what the agent is for
        process.returncode = 0  # it is reaped here; the object must not try, nor warn
        return process.pid, self.watch(process.pid)

    def watch(self, pid: int) -> asyncio.Future[int]:
        """A future of the return code of a child that was just started in the loop's thread."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watched[pid] = future
        return future

    def _reap(self) -> None:
        if self.adopts:
            self._reap_all()
            return
        for pid in tuple(self._watched):
            self._wait(pid)

    def _reap_all(self) -> None:
        while self._wait(-1):
            pass

    def _wait(self, pid: int) -> bool:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            if pid > 0:
                self._ended(pid, 0)  # somebody else reaped it, and took its status away
            return False
        if ended:
            self._ended(ended, os.waitstatus_to_exitcode(status))
        return ended > 0

    def _ended(self, pid: int, code: int) -> None:
        future = self._watched.pop(pid, None)
        if future is not None and not future.done():
            future.set_result(code)
