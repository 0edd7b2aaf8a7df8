"""Python and JavaScript: interpreters that run a driver of ours, which speaks length-prefixed JSON."""

from __future__ import annotations

import asyncio
import json
import signal
import struct
from typing import Any

from shoal_agent.children import Children
from shoal_agent.code import drivers, events
from shoal_agent.code.events import Emit
from shoal_agent.code.interpreter import INTERRUPT_TIMEOUT, InterpreterUnavailable, Local, not_started
from shoal_agent.code.process import InterpreterProcess

REPEAT_AFTER = (0.2, 1.0)
"""Seconds after an interrupt at which it is repeated if nobody noticed it."""
START_TIMEOUT = 60.0
"""Seconds that an interpreter has to say that it is ready."""


class Frames:
    """Splits a stream of bytes into messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def __call__(self, data: bytes) -> list[Any]:
        """The messages that are complete with `data`."""
        self._data += data
        found = []
        while len(self._data) >= 4:
            size = struct.unpack_from(">I", self._data)[0]
            if len(self._data) < 4 + size:
                break
            found.append(json.loads(self._data[4 : 4 + size]))
            del self._data[: 4 + size]
        return found


def frame(message: Any) -> bytes:
    """`message` as the drivers read it."""
    data = json.dumps(message).encode()
    return struct.pack(">I", len(data)) + data


class Driven(Local):
    """An interpreter with a driver. `environment` is what the interpreter sees."""

    def __init__(self, children: Children, program: str, environment: dict[str, str], cwd: str | None) -> None:
        super().__init__()
        self._children = children
        self._program = program
        self._environment = environment
        self._cwd = cwd

    def arguments(self) -> list[str]:
        """Those after the program."""
        raise NotImplementedError

    def greeting(self) -> bytes:
        """What the driver is sent first."""
        return b""

    async def start(self) -> InterpreterProcess:
        argv = [self._program, *self.arguments(), "{fd}"]
        try:
            process = InterpreterProcess.start(self._children, argv, self._environment, self._cwd, Frames())
        except OSError as error:
            raise not_started(self._program, self._cwd, error) from None
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._greet(process)
        except BaseException as error:
            await process.close()
            if isinstance(error, TimeoutError):
                raise InterpreterUnavailable(f"{self._program} did not start within {START_TIMEOUT:.0f} s") from None
            raise
        return process

    async def _greet(self, process: InterpreterProcess) -> None:
        await process.send(self.greeting())
        said = b""
        while True:
            item = await process.inbox.get()
            if item is None or item[0] == "message":
                break
            if item[0] == "exit":
                words = said.decode("utf-8", "replace").strip()[-1000:] or f"exit code {item[1]}"
                raise InterpreterUnavailable(f"{self._program} does not start: {words}")
            said += item[1]
        process.inbox.end()

    async def submit(self, process: InterpreterProcess, code: str) -> None:
        await process.send(frame({"code": code}))

    async def understand(self, process: InterpreterProcess, message: Any, emit: Emit) -> bool:
        kind = message["type"]
        if kind == "done":
            error = message["error"]
            self.failure = events.failure(error["ename"], error["evalue"], error["traceback"]) if error else None
            return True
        if kind == "result":
            await emit(events.count(message["count"]))
        if kind in ("result", "display"):
            await emit(events.result(message["data"]))
        if message.get("wait"):
            await process.send(frame({}))
        return False


class Python(Driven):
    """The image's own python3, 3.8 or later."""

    language = "python"

    def __init__(self, children: Children, program: str, environment: dict[str, str], cwd: str | None) -> None:
        super().__init__(children, program, environment, cwd)
        self._noticed = 0
        """The last run that noticed its interrupt."""

    def arguments(self) -> list[str]:
        return ["-c", drivers.PYTHON_LOADER]

    async def interrupt(self) -> None:
        """A signal that comes just before a system call that waits is noticed after it: then it is repeated."""
        await super().interrupt()
        for seconds in REPEAT_AFTER:
            self.later(seconds, self._repeat)

    def _repeat(self, process: InterpreterProcess) -> None:
        if self._noticed != self.runs:
            process.signal(signal.SIGINT)

    async def understand(self, process: InterpreterProcess, message: Any, emit: Emit) -> bool:
        if message["type"] == "interrupted":
            self._noticed = self.runs
            return False
        return await super().understand(process, message, emit)

    def greeting(self) -> bytes:
        return frame(drivers.PYTHON)


class JavaScript(Driven):
    """The image's own node."""

    language = "javascript"

    def arguments(self) -> list[str]:
        return ["-e", drivers.JAVASCRIPT]

    async def interrupt(self) -> None:
        """A program that starts just after the signal never had it: then it is repeated.

        Code that keeps the event loop busy inside of an `await` notices nothing: its process ends.
        """
        await super().interrupt()
        for seconds in REPEAT_AFTER:
            self.later(seconds, InterpreterProcess.signal, signal.SIGINT)
        self.later(INTERRUPT_TIMEOUT, InterpreterProcess.signal, signal.SIGKILL)
