"""The process of a terminal: on a pseudo-terminal or on pipes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable
from functools import partial

from shoal_agent.agent import RunningAgent
from shoal_agent.commands.group import Group, describe
from shoal_agent.commands.launch import StartError, failed, launch
from shoal_agent.commands.pipes import OutputPipe
from shoal_agent.commands.spec import shell
from shoal_agent.oom import offer
from shoal_agent.pty.stdin import StdinWriter

STDOUT, STDERR = 1, 2
COLUMNS, ROWS = 80, 24
DRAIN_TIMEOUT = 0.1
"""Seconds that output may still take after the process has ended, where others hold its terminal."""


class TerminalProcess:
    """`take(channel, data)` gets its output, `ended(exit_code)` its end when all output has been taken."""

    def __init__(self, take: Callable[[int, bytes], None], ended: Callable[[int], None]) -> None:
        self._take, self._ended = take, ended
        self._outputs: list[OutputPipe] = []
        self._terminal: int | None = None
        self._code: int | None = None
        self._over = False
        self._group: Group | None = None
        self.stdin: StdinWriter | None = None

    def start(self, agent: RunningAgent, command: str, cwd: str, envs: dict[str, str], terminal: bool) -> None:
        """Starts the shell, or `command` in it. Raises `StartError`."""
        file = shell(agent.environment.daemon)
        if file is None:
            raise StartError("this image has neither bash nor sh")
        name = os.path.basename(file)
        argv = [name, *(("--noprofile", "--norc") if name == "bash" else ()), *(("-c", command) if command else ())]
        environment = agent.environment.for_sessions(envs)
        try:
            if terminal:
                pid, ended = self._on_terminal(agent, file, argv, environment, cwd)
            else:
                pid, ended = self._on_pipes(agent, file, argv, environment, cwd)
        except OSError as error:
            raise failed(file, error) from None
        self._group = Group(pid)
        offer(pid)
        ended.add_done_callback(self._exited)

    def _on_terminal(
        self, agent: RunningAgent, file: str, argv: list[str], environment: dict[str, str], cwd: str
    ) -> tuple[int, asyncio.Future[int]]:
        master, slave = os.openpty()
        try:
            _set_size(master, COLUMNS, ROWS)
            started = launch(
                agent.children,
                file,
                argv,
                environment,
                cwd,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                preexec=_take_terminal,
            )
        except StartError:
            os.close(master)
            raise
        finally:
            os.close(slave)
        self._terminal = master
        self.stdin = StdinWriter(os.dup(master))
        self._outputs = [OutputPipe.of(os.dup(master), partial(self._take, STDOUT), self._output_ended)]
        return started

    def _on_pipes(
        self, agent: RunningAgent, file: str, argv: list[str], environment: dict[str, str], cwd: str
    ) -> tuple[int, asyncio.Future[int]]:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self._outputs = [OutputPipe(partial(self._take, channel), self._output_ended) for channel in (STDOUT, STDERR)]
        out, err = self._outputs
        try:
            started = launch(
                agent.children, file, argv, environment, cwd, stdin=reading, stdout=out.writing, stderr=err.writing
            )
        except StartError:
            os.close(writing)
            out.abandon()
            err.abandon()
            raise
        finally:
            os.close(reading)
        self.stdin = StdinWriter(writing)
        out.start()
        err.start()
        return started

    def hold(self) -> None:
        for output in self._outputs:
            output.hold()

    def release(self) -> None:
        for output in self._outputs:
            output.release()

    def resize(self, columns: int, rows: int) -> None:
        """Nothing on pipes."""
        if self._terminal is not None:
            with contextlib.suppress(OSError):
                _set_size(self._terminal, columns, rows)

    def signal(self, number: int) -> None:
        """To the shell's group, and to the job in the foreground of its terminal."""
        if self._group is None or self._over:
            return
        self._group.signal(number)
        if self._terminal is not None:
            with contextlib.suppress(OSError):
                foreground = os.tcgetpgrp(self._terminal)
                if foreground not in (0, self._group.pid):
                    os.killpg(foreground, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def _exited(self, ended: asyncio.Future[int]) -> None:
        self._code = describe(ended.result())[0]
        if self._group is not None:
            self._group.leader_ended()
        self.release()
        if any(output.open for output in self._outputs):
            asyncio.get_running_loop().call_later(DRAIN_TIMEOUT, self._complete)
        else:
            self._complete()

    def _output_ended(self) -> None:
        if self._code is not None and not any(output.open for output in self._outputs):
            self._complete()

    def _complete(self) -> None:
        if self._over:
            return
        self._over = True
        for output in self._outputs:
            output.drain()
            output.discard()
        if self.stdin is not None:
            self.stdin.close()
        if self._terminal is not None:
            for output in self._outputs:
                output.close()
            os.close(self._terminal)  # what else is on it gets SIGHUP, as when a window is closed
            self._terminal = None
        self._ended(self._code or 0)


def _set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _take_terminal() -> None:
    """In the child, which leads a session of its own: the terminal on its standard input becomes that session's."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
