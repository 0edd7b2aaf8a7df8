"""An interpreter's process: a group of its own, pipes for its output and a socket for messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Any

from shoal_agent.children import Children
from shoal_agent.code.inbox import DriverInbox
from shoal_agent.environment import encoded
from shoal_agent.oom import offer


class InterpreterProcess:
    """One running interpreter. `start` it in the loop's thread."""

    def __init__(self, pid: int, ended: asyncio.Future[int], inbox: DriverInbox, control: socket.socket) -> None:
        self.pid = pid
        self.inbox = inbox
        self._ended = ended
        self.control = control
        """Our end of the socket."""
        ended.add_done_callback(self._exited)

    @classmethod
    def start(
        cls,
        children: Children,
        argv: list[str],
        environment: dict[str, str],
        cwd: str | None,
        parse: Callable[[bytes], list[Any]],
        *,
        on_stdin: bool = False,
    ) -> InterpreterProcess:
        """Runs `argv`; ``{fd}`` in it becomes the number of the socket, or with `on_stdin` the socket is its input.

        Raises OSError.
        """
        ours, theirs = socket.socketpair()
        pipes = [*os.pipe(), *os.pipe()]
        reads, writes = pipes[::2], pipes[1::2]
        encoded_environment = encoded({**environment, "PWD": cwd} if cwd else environment)
        try:
            pid, ended = children.popen(
                [part.replace("{fd}", str(theirs.fileno())) for part in argv],
                stdin=theirs if on_stdin else subprocess.DEVNULL,
                stdout=writes[0],
                stderr=writes[1],
                pass_fds=() if on_stdin else (theirs.fileno(),),
                env=encoded_environment,
                cwd=cwd,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            for fd in reads:
                os.close(fd)
            raise
        finally:
            theirs.close()
            for fd in writes:
                os.close(fd)
        offer(pid)
        return cls(pid, ended, DriverInbox(reads[0], reads[1], ours, parse), ours)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.done()

    def _exited(self, ended: asyncio.Future[int]) -> None:
        self.inbox.exited(ended.result())
        self._kill()  # at once: later the number of the group may be another's

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def send(self, data: bytes) -> None:
        """Sends `data` over the socket. An interpreter that is gone shows as the inbox's ``exit``."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self.control, data)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the interpreter and its children, unless it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def members(self, since: float = 0.0) -> list[int]:
        """The other processes of the group that were started at `since` (of the boot clock) or later."""
        ticks = os.sysconf("SC_CLK_TCK")
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == self.pid:
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.pid and fields[0] != b"Z" and int(fields[19]) / ticks >= since:
                found.append(int(name))
        return found

    async def close(self) -> None:
        """Ends the group and waits for the interpreter's end."""
        self.signal(signal.SIGKILL)
        await asyncio.shield(self._ended)
        self.inbox.close()


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether the process ignores that signal, or is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            masks = [line.split()[1] for line in file if line.startswith(b"SigIgn:")]
    except OSError:
        return True
    return bool(masks) and bool(int(masks[0], 16) >> (number - 1) & 1)
