"""Shell code: one interactive shell per context, without a terminal, that is fed over its standard input.

An interactive shell is the one that outlives an interrupt: it leaves what runs and reads on.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
import time
from typing import Any

from shoal_agent.children import Children
from shoal_agent.code import events
from shoal_agent.code.events import Emit
from shoal_agent.code.interpreter import INTERRUPT_TIMEOUT, InterpreterUnavailable, Local, not_started
from shoal_agent.code.process import InterpreterProcess, ignores

START_TIMEOUT = 20.0
"""Seconds that a shell has to answer its first line."""
REPEATS, REPEAT_INTERVAL = 8, 0.1
"""How often, and after how many seconds each, an interrupt is repeated for those that missed it."""
SWEEP_INTERVAL = 0.02
"""Seconds between two looks at what missed it."""
MAX_SOURCED_BYTES = 32 * 1024
"""Bytes of code up to which bash sources it; a here-string beyond would need a temporary file."""
BASH = ["--noprofile", "--norc", "--noediting", "-i"]
COMMON = "exec 8>&2 2>/dev/null\nunset TMOUT MAIL MAILPATH MAILCHECK\n"
"""Real standard error is descriptor 8; on 2 a shell prints its prompts and its notes on jobs."""
SETUP_BASH = COMMON + "set +H +o history; unset HISTFILE PROMPT_COMMAND\n. /dev/fd/7 7<<<:\n"
"""Its status tells whether bash can source a here-string."""
SETUP_SH = COMMON + "unset PS1 PS2; PS1= PS2=\n"
"""BusyBox prints its prompts on standard output."""


def quoted(text: str) -> str:
    """`text` as one word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


class MarkSplitter:
    """Splits what comes from the shell into ``(run, status)``."""

    def __init__(self) -> None:
        self._data = b""

    def __call__(self, data: bytes) -> list[tuple[int, int]]:
        *lines, self._data = (self._data + data).split(b"\n")
        words = [line.split() for line in lines]
        return [(int(word[0]), int(word[1])) for word in words if len(word) == 2 and word[0].isdigit()]


class Shell(Local):
    """bash where the image has it, else its sh."""

    language = "bash"

    def __init__(self, children: Children, program: str, environment: dict[str, str], cwd: str | None) -> None:
        super().__init__()
        self._children = children
        self._program = program
        self._bash = os.path.basename(program) == "bash"
        self._environment = environment
        self._cwd = cwd
        self._sources = False
        self._interrupted = False
        self._since = 0.0
        """What was started later may have missed the interrupt."""

    async def start(self) -> InterpreterProcess:
        environment = self._environment if self._bash else {**self._environment, "PS1": "", "PS2": ""}
        environment = dict(environment)
        own = environment.pop("ENV", None)  # an interactive sh would run the file of that name
        argv = [self._program, *(BASH if self._bash else ["-i"])]
        try:
            process = InterpreterProcess.start(
                self._children, argv, environment, self._cwd, MarkSplitter(), on_stdin=True
            )
        except OSError as error:
            raise not_started(self._program, self._cwd, error) from None
        setup = f"export ENV={quoted(own)}\n" if own is not None else ""
        setup += SETUP_BASH if self._bash else SETUP_SH
        try:
            async with asyncio.timeout(START_TIMEOUT):
                self._sources = await self._greet(process, setup.encode()) == 0 and self._bash
        except BaseException as error:
            await process.close()
            if isinstance(error, TimeoutError):
                raise InterpreterUnavailable(f"{self._program} did not start within {START_TIMEOUT:.0f} s") from None
            raise
        return process

    async def _greet(self, process: InterpreterProcess, setup: bytes) -> int:
        await self._mark(process, setup, 0)
        while True:
            item = await process.inbox.get()
            if item is not None and item[0] == "message":
                process.inbox.end()
                return int(item[1][1])
            if item is not None and item[0] == "exit":
                raise InterpreterUnavailable(f"{self._program} does not start: exit code {item[1]}")

    async def submit(self, process: InterpreterProcess, code: str) -> None:
        self._interrupted = False
        rest = "</dev/null 2>&8 8>&-"
        if self._sources and len(code.encode()) < MAX_SOURCED_BYTES:
            line = f"{{ . /dev/fd/7; }} {rest} 7<<<{quoted(code)}\n"
        else:
            line = f"eval {quoted(code)} {rest}\n"
        await self._mark(process, line.encode("utf-8", "replace"), self.runs)

    async def _mark(self, process: InterpreterProcess, line: bytes, run: int) -> None:
        """Sends `line`, then one that reports its exit status.

        bash reads byte by byte. Other shells read ahead, and forget what they read when code is abandoned: they get
        the second line once they took the first.
        """
        await process.send(line)
        if not self._bash:
            await _taken(process)
        await process.send(b"command printf '%s %%s\\n' \"$?\" >&0\n" % str(run).encode())

    async def understand(self, process: InterpreterProcess, message: Any, emit: Emit) -> bool:
        run, status = message
        if run != self.runs:
            return False  # of a run before: its code wrote to the shell's input
        self.failure = self.ended(status) if status or self._interrupted else None
        if self._interrupted:
            await _sweep(process, self._since)
        return True

    def ended(self, code: int) -> events.Event | None:
        """`exit` ends the shell with the code's own status."""
        if self._interrupted:
            return events.interrupted(str(code))
        if code < 0:
            return events.died(self.language, code)
        return events.exit_failure(code) if code else None

    async def interrupt(self) -> None:
        self._interrupted = self._interrupted or self.running
        self._since = time.clock_gettime(time.CLOCK_BOOTTIME) - REPEAT_INTERVAL
        await super().interrupt()
        for number in range(1, REPEATS + 1):
            self.later(number * REPEAT_INTERVAL, _repeat, self._since)
        self.later(INTERRUPT_TIMEOUT, _end_if_stuck)


def _repeat(process: InterpreterProcess, since: float) -> None:
    """Interrupts again what was started around the interrupt: a shell loses a signal that comes while it forks."""
    missed = [pid for pid in process.members(since) if not ignores(pid, signal.SIGINT)]
    _interrupt([process.pid, *missed] if missed else [])


async def _sweep(process: InterpreterProcess, since: float) -> None:
    """Ends what missed the interrupt although the shell noticed it: the shell would wait for it in the next run."""
    for _ in range(int(1 / SWEEP_INTERVAL)):
        missed = [pid for pid in process.members(since) if not ignores(pid, signal.SIGINT)]
        if not missed:
            return
        _interrupt(missed)
        await asyncio.sleep(SWEEP_INTERVAL)


def _interrupt(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGINT)


def _end_if_stuck(process: InterpreterProcess) -> None:
    """A shell that runs no program and still does not come back never will."""
    if not process.members():
        process.signal(signal.SIGKILL)


async def _taken(process: InterpreterProcess) -> None:
    """Waits until the shell has read all that was sent."""
    waiting = bytearray(4)
    while process.alive:
        try:
            fcntl.ioctl(process.control, termios.TIOCOUTQ, waiting)
        except OSError:
            waiting = bytearray(4)
        if not struct.unpack("i", waiting)[0]:
            return
        await asyncio.sleep(0.001)
