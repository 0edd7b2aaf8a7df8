"""Signals to process groups, and whether anything of a group is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

TERMINATION_TIMEOUT = 3.0
"""Seconds between SIGTERM and SIGKILL."""
POLL_INTERVAL = 0.05
TEXTS = {
    1: "hangup", 2: "interrupt", 3: "quit", 4: "illegal instruction", 5: "trace/breakpoint trap", 6: "aborted",
    7: "bus error", 8: "floating point exception", 9: "killed", 10: "user defined signal 1", 11: "segmentation fault",
    12: "user defined signal 2", 13: "broken pipe", 14: "alarm clock", 15: "terminated", 16: "stack fault",
    24: "CPU time limit exceeded", 25: "file size limit exceeded", 26: "virtual timer expired",
    27: "profiling timer expired", 29: "I/O possible", 30: "power failure", 31: "bad system call",
}  # fmt: skip


class Group:
    """The processes of one run: a session of its own, named by the pid of its leader."""

    __slots__ = ("_led", "_over", "killed", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._over = False
        self._led = True
        self.killed = False
        """Whether the agent has sent SIGKILL."""

    def leader_ended(self) -> None:
        """Call it when the leader has been reaped. If it leaves nobody, its number may be another's from now on."""
        self._led = False
        self._over = not self.runs()

    def runs(self) -> bool:
        """Whether a process of the group still runs; a zombie does not."""
        if self._over or self._reused():
            return False
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _any_runs(self.pid)

    def _reused(self) -> bool:
        """A number is given out again only when no process has it as its group: so a leader now is a stranger."""
        if not self._led and os.path.exists(f"/proc/{self.pid}"):
            self._over = True
        return self._over

    def signal(self, number: int) -> None:
        """Sends it to all of the group that is left."""
        if not self._over and not self._reused():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        self.killed = True
        self.signal(signal.SIGKILL)

    async def terminate(self) -> None:
        """SIGTERM, and SIGKILL to what is left after `TERMINATION_TIMEOUT`. Returns when nothing runs any more."""
        self.signal(signal.SIGTERM)
        if not await self._gone(TERMINATION_TIMEOUT):
            self.kill()
            await self._gone(TERMINATION_TIMEOUT)

    async def _gone(self, seconds: float) -> bool:
        """Waits until nothing of the group runs. Returns False after `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.runs():
            left = deadline - loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(POLL_INTERVAL, left))
        return True


def _any_runs(group: int) -> bool:
    """Whether a process of `group` is more than a zombie."""
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return True
    for number in numbers:
        try:
            with open(f"/proc/{number}/stat", "rb") as file:
                state, _, member_of = file.read().rpartition(b")")[2].split(None, 3)[:3]
        except (OSError, ValueError):
            continue
        if int(member_of) == group and state not in (b"Z", b"X"):
            return True
    return False


def describe(code: int) -> tuple[int, str]:
    """The exit code and the text for a return code as `subprocess` counts: ``3``, ``exit status 3``."""
    if code >= 0:
        return code, f"exit status {code}"
    return -1, f"signal: {TEXTS.get(-code, f'signal {-code}')}"
