"""One command: its process, its stream, how it ended."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial

from shoal_agent.commands import events
from shoal_agent.commands.group import Group, describe
from shoal_agent.commands.journal import Journal
from shoal_agent.commands.pipes import OutputPipe
from shoal_agent.commands.splitter import LineSplitter
from shoal_agent.oom import OutOfMemory, offer

IDLE_TIMEOUT = 0.4
"""Seconds of silence after which a line without end is shown as far as it got."""
DRAIN_TIMEOUT = 0.1
"""Seconds that output of children may still take after the shell has ended."""
NOT_STARTED = 255
"""The exit code in the status of a command that could not start."""
SHELL_SIGNALLED = 128
"""What a shell adds to the number of the signal that has killed a program."""


class CommandRun:
    """What clients know by its id. `finished` is called once, when it has ended."""

    __slots__ = (
        "_begun", "_code", "_finished", "_flush", "_heard", "_held", "_oom", "_pipes", "_splitters", "_timer",
        "background", "content", "error", "exit_code", "finished_at", "group", "id", "journal", "output_file",
        "output_start", "started_at",
    )  # fmt: skip

    def __init__(
        self,
        identifier: str,
        content: str,
        background: bool,
        oom: OutOfMemory,
        finished: Callable[[CommandRun], None],
    ) -> None:
        self.id = identifier
        self.content = content
        self.background = background
        self.started_at = time.time()
        self.finished_at: float | None = None
        self.exit_code: int | None = None
        self.error = ""
        self.output_file: str | None = None
        self.output_start = 0
        """Offset of the first byte that is still in it."""
        self.group: Group | None = None
        self.journal = Journal(self._hold, self._release)
        self._oom = oom
        self._finished = finished
        self._begun = time.monotonic()
        self._pipes: dict[str, OutputPipe] = {}
        self._splitters: dict[str, LineSplitter] = {}
        self._flush: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._held = False
        self._code: int | None = None

    @property
    def running(self) -> bool:
        return self.finished_at is None

    # The start.

    def open_pipes(self) -> tuple[int, int]:
        """What a foreground process writes to: stdout, stderr."""
        for kind in ("stdout", "stderr"):
            self._splitters[kind] = LineSplitter()
            self._pipes[kind] = OutputPipe(partial(self._take, kind), self._pipe_ended)
        return self._pipes["stdout"].writing, self._pipes["stderr"].writing

    def run(self, pid: int, ended: asyncio.Future[int], timeout: float) -> None:
        """The process has been started; after `timeout` seconds, if not 0, its whole group is killed."""
        self.group = Group(pid)
        offer(pid)
        for pipe in self._pipes.values():
            pipe.start()
        if timeout:
            self._timer = asyncio.get_running_loop().call_later(timeout, self.group.kill)
        ended.add_done_callback(self._exited)

    def not_started(self, reason: str) -> None:
        """It ends before it began."""
        for pipe in self._pipes.values():
            pipe.abandon()
        self.exit_code, self.error = NOT_STARTED, reason
        self._end(events.error("CommandExecError", reason, [reason]))

    # Its output.

    def _take(self, kind: str, data: bytes) -> None:
        texts = self._splitters[kind].feed(data)
        if texts:
            self.journal.append(events.output(kind, texts))
        self._heard = time.monotonic()
        if self._flush is None and self._splitters[kind].waits():
            self._flush = asyncio.get_running_loop().call_later(IDLE_TIMEOUT, self._idle)

    def _idle(self) -> None:
        """Shows lines that wait for their end, if it has been silent for long enough."""
        silent = 0.0 if self._held else time.monotonic() - self._heard
        if silent < IDLE_TIMEOUT * 0.9:
            self._flush = asyncio.get_running_loop().call_later(IDLE_TIMEOUT - silent, self._idle)
            return
        self._flush = None
        for kind, splitter in self._splitters.items():
            if texts := splitter.flush():
                self.journal.append(events.output(kind, texts))

    def _hold(self) -> None:
        self._held = True
        for pipe in self._pipes.values():
            pipe.hold()

    def _release(self) -> None:
        self._held, self._heard = False, time.monotonic()
        for pipe in self._pipes.values():
            pipe.release()

    # The end.

    def _pipe_ended(self) -> None:
        if self._code is not None and not any(pipe.open for pipe in self._pipes.values()):
            self._complete()

    def _exited(self, ended: asyncio.Future[int]) -> None:
        self._code = ended.result()
        if self.group is not None:
            self.group.leader_ended()
        if self._timer is not None:
            self._timer.cancel()
        self._release()
        if any(pipe.open for pipe in self._pipes.values()):
            asyncio.get_running_loop().call_later(DRAIN_TIMEOUT, self._complete)
        else:
            self._complete()

    def _complete(self) -> None:
        """Nothing that the shell wrote is lost; what its children write from now on is thrown away."""
        if not self.running:
            return
        for kind, pipe in self._pipes.items():
            pipe.drain()
            pipe.discard()
            if texts := self._splitters[kind].finish():
                self.journal.append(events.output(kind, texts))
        self.exit_code, text = describe(self._code or 0)
        if self.exit_code:
            self.error = text = f"{text} (out of memory)" if self._starved() else text
            self._end(events.error("CommandExecError", str(self.exit_code), [text]))
        else:
            self._end(events.complete(time.monotonic() - self._begun))

    def _starved(self) -> bool:
        """Whether it, or the last program that its shell ran, was probably killed for lack of memory."""
        killed = self._code in (-signal.SIGKILL, SHELL_SIGNALLED + signal.SIGKILL)
        return killed and not (self.group is not None and self.group.killed) and self._oom.struck()

    def _end(self, last: bytes) -> None:
        self.finished_at = time.time()
        if self._flush is not None:
            self._flush.cancel()
        if not self.background:
            self.journal.append(last)
            self.journal.finish()
        self._splitters, self._pipes, self._timer, self._flush = {}, {}, None, None
        self._finished(self)
