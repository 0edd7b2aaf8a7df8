"""What every language offers to a context, and the part that is the same for all that run as a process of ours."""

from __future__ import annotations

import abc
import asyncio
import signal
from collections.abc import Callable
from typing import Any

from shoal_agent.code import events
from shoal_agent.code.events import Emit
from shoal_agent.code.process import InterpreterProcess
from shoal_agent.code.texts import Texts

INTERRUPT_TIMEOUT = 5.0
"""Seconds after which an interrupt that an interpreter cannot notice ends its process."""
LINE_TIMEOUT = 0.02
"""Seconds without output after which an unfinished line is sent."""


class InterpreterUnavailable(Exception):
    """The interpreter cannot be started; the text says why."""


def not_started(program: str, cwd: str | None, error: OSError) -> InterpreterUnavailable:
    """What to say when a process cannot be started."""
    where = f" in {cwd}" if cwd else ""
    return InterpreterUnavailable(f"{program} cannot be started{where}: {error.strerror or error}")


class Interpreter(abc.ABC):
    """Keeps the state of one context. One run at a time."""

    language: str
    identifier = ""
    """The id that its context is to have; empty for any."""

    @abc.abstractmethod
    async def prepare(self) -> None:
        """Starts it, or starts it anew if it died. Raises `InterpreterUnavailable`."""

    @abc.abstractmethod
    async def run(self, code: str, emit: Emit) -> events.Event | None:
        """Runs `code`. Returns the error event, or None. Raises nothing that the code causes."""

    @abc.abstractmethod
    async def interrupt(self) -> None:
        """Interrupts what runs; nothing happens if nothing does."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Ends it and its processes. Raises `InterpreterUnavailable` where another server refuses."""

    async def abandon(self) -> None:
        """At the agent's end: ends it if it is the agent's own."""
        await self.close()


class Local(Interpreter):
    """An interpreter that is a process of ours. A subclass says how it is started, fed and understood."""

    def __init__(self) -> None:
        self.process: InterpreterProcess | None = None
        self.running = False
        self.runs = 0
        """Runs begun so far."""
        self.failure: events.Event | None = None
        self._texts = {"stdout": Texts(), "stderr": Texts()}

    @abc.abstractmethod
    async def start(self) -> InterpreterProcess:
        """A new process that has said that it is ready. Raises `InterpreterUnavailable`."""

    @abc.abstractmethod
    async def submit(self, process: InterpreterProcess, code: str) -> None:
        """Sends `code` to the process."""

    @abc.abstractmethod
    async def understand(self, process: InterpreterProcess, message: Any, emit: Emit) -> bool:
        """Emits what `message` stands for. Returns whether it ends the run; its failure is then in `self.failure`."""

    def ended(self, code: int) -> events.Event | None:
        """The failure of a run within which the process ended."""
        return events.died(self.language, code)

    async def prepare(self) -> None:
        if self.process is not None and not self.process.alive:
            await self.close()
        if self.process is None:
            self.process = await self.start()

    async def run(self, code: str, emit: Emit) -> events.Event | None:
        assert self.process is not None, "prepare() comes first"  # noqa: S101
        process = self.process
        self._texts = {"stdout": Texts(), "stderr": Texts()}
        self.failure = None
        process.inbox.begin()
        self.running = True
        self.runs += 1
        try:
            await self.submit(process, code)
            await self._follow(process, emit)
        finally:
            self.running = False
            process.inbox.end()
        return self.failure

    async def _follow(self, process: InterpreterProcess, emit: Emit) -> None:
        while True:
            holds = any(texts.holds for texts in self._texts.values())
            item = await process.inbox.get(LINE_TIMEOUT if holds else None)
            if item is None:
                await self._rest(emit)
            elif item[0] in self._texts:
                await self._output(item[0], item[1], emit)
            else:
                await self._rest(emit, final=item[0] == "exit")
                if item[0] == "exit":
                    self.failure = self.ended(item[1])
                    return
                if await self.understand(process, item[1], emit):
                    await self._rest(emit, final=True)
                    return

    async def _output(self, stream: str, data: bytes, emit: Emit) -> None:
        for other, texts in self._texts.items():
            if other != stream:
                for text in texts.rest():
                    await emit(events.output(other, text))
        for text in self._texts[stream].feed(data):
            await emit(events.output(stream, text))

    async def _rest(self, emit: Emit, *, final: bool = False) -> None:
        for stream, texts in self._texts.items():
            for text in texts.rest(final=final):
                await emit(events.output(stream, text))

    async def interrupt(self) -> None:
        if self.running and self.process is not None:
            self.process.signal(signal.SIGINT)

    def later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Calls ``action(process, *arguments)`` unless the present run has ended until then."""
        if self.running and self.process is not None:
            process, run = self.process, self.runs

            def act() -> None:
                if self.running and self.runs == run:
                    action(process, *arguments)

            asyncio.get_running_loop().call_later(seconds, act)

    async def close(self) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            await process.close()
