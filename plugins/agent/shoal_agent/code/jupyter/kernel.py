"""A kernel of a Jupyter server as the interpreter of a context."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Any

from shoal_agent.code import events
from shoal_agent.code.events import Emit
from shoal_agent.code.interpreter import Interpreter, InterpreterUnavailable
from shoal_agent.code.jupyter import messages
from shoal_agent.code.jupyter.http import Address, JupyterError, request
from shoal_agent.code.jupyter.messages import Message
from shoal_agent.code.jupyter.websocket import JupyterWebSocket
from shoal_agent.code.shell import quoted
from shoal_agent.code.texts import split

MAX_WAITING = 64
"""Messages that wait for the client before the server is no longer read."""
STARTS_WITHIN = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds that each request to a kernel that starts waits for its answer before the next is sent."""
CHANGES_DIRECTORY = {
    "python": lambda path: f"__import__('os').chdir({path!r})",
    "bash": lambda path: f"cd {quoted(path)}",
    "javascript": lambda path: f"process.chdir({json.dumps(path)})",
    "typescript": lambda path: f"process.chdir({json.dumps(path)})",
}
"""A server roots its notebooks anywhere, so the kernel itself is told where to work."""


class Kernel(Interpreter):
    """One session of the server, which also makes its `identifier`. `directory` None is the server's own."""

    def __init__(self, server: Address, language: str, name: str, directory: str | None) -> None:
        self.language = language
        self._server = server
        self._name = name
        self._directory = directory
        self._kernel = ""
        self._socket: JupyterWebSocket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._messages: asyncio.Queue[Message] = asyncio.Queue(MAX_WAITING)
        self._lost = asyncio.Event()
        self._wanted: str | None = None
        """The id of the request whose answers are kept."""
        self._fresh = True
        """Whether the kernel has just started: it may not answer yet, and is in the server's directory."""
        self._interrupted = False

    async def prepare(self) -> None:
        try:
            if not self.identifier:
                await self._create()
            if self._socket is None:
                await self._connect()
            if self._fresh:
                await self._wait_until_it_answers()
                await self._enter_directory()
                self._fresh = False
        except JupyterError as error:
            raise InterpreterUnavailable(str(error)) from None

    async def _create(self) -> None:
        folder = (self._directory or "").strip("/")
        path = f"{folder}/{os.urandom(8).hex()}.ipynb".lstrip("/")
        made = await request(
            self._server,
            "POST",
            "/api/sessions",
            {"name": path, "path": path, "type": "notebook", "kernel": {"name": self._name}},
        )
        self.identifier, self._kernel = str(made["id"]), str(made["kernel"]["id"])

    async def _connect(self) -> None:
        path = f"/api/kernels/{self._kernel}/channels?session_id={self.identifier}"
        try:
            self._socket = await JupyterWebSocket.connect(self._server, path)
        except JupyterError as error:
            if error.status != 404:
                raise
            await self._replace()
            return await self._connect()
        self._lost.clear()
        self._reader = asyncio.create_task(self._read(self._socket))
        return None

    async def _replace(self) -> None:
        """The kernel is gone for good: the session gets another."""
        path = f"/api/sessions/{self.identifier}"
        made = await request(self._server, "PATCH", path, {"kernel": {"name": self._name}})
        self._kernel, self._fresh = str(made["kernel"]["id"]), True

    async def _wait_until_it_answers(self) -> None:
        """The server listens to what a new kernel publishes a moment after it talks to it: an answer may be lost."""
        for seconds in STARTS_WITHIN:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    if await self._ask(messages.kernel_info_request(self.identifier), _nothing) is None:
                        return
        raise JupyterError(f"the {self.language} kernel does not answer")

    async def _enter_directory(self) -> None:
        change = CHANGES_DIRECTORY.get(self.language)
        if self._directory is None or change is None:
            return
        message = messages.execute_request(change(self._directory), self.identifier, silent=True)
        try:
            async with asyncio.timeout(60):
                await self._ask(message, _nothing)
        except TimeoutError:
            raise JupyterError(f"the {self.language} kernel does not enter {self._directory}") from None

    async def _read(self, socket: JupyterWebSocket) -> None:
        """Keeps the answers to the present request; others, such as those of the code of a run before, go."""
        try:
            while (data := await socket.receive()) is not None:
                message = messages.decode(data)
                if message is None or self._wanted is None:
                    continue
                if messages.parent(message) == self._wanted or _death(message):
                    await self._messages.put(message)
        finally:
            self._socket = None
            socket.close()
            self._lost.set()

    async def run(self, code: str, emit: Emit) -> events.Event | None:
        try:
            return await self._ask(messages.execute_request(code, self.identifier), emit)
        except JupyterError as error:
            return events.failure("KernelUnreachable", str(error), [str(error)])

    async def _ask(self, message: Message, emit: Emit) -> events.Event | None:
        if self._socket is None:
            raise JupyterError("the connection to the kernel is gone")
        self._messages = asyncio.Queue(MAX_WAITING)
        self._wanted = message["header"]["msg_id"]
        self._interrupted = False
        try:
            await self._socket.send(json.dumps(message))
            return await self._follow(emit)
        finally:
            self._wanted = None
            while not self._messages.empty():  # the reader may wait for a place
                self._messages.get_nowait()

    async def _follow(self, emit: Emit) -> events.Event | None:
        """Emits what comes until the kernel is idle and has replied. Returns the failure."""
        idle = replied = False
        failure: events.Event | None = None
        while not (idle and replied):
            message = await self._next()
            if message is None:
                return events.failure("KernelUnreachable", "the connection to the kernel was lost", [])
            if _death(message):
                return self._died()
            kind, content = messages.kind(message), message["content"]
            if kind == "status":
                idle = idle or content.get("execution_state") == "idle"
            elif kind in ("execute_reply", "kernel_info_reply"):
                replied = True
                failure = failure or self._refusal(content)
            elif kind == "error":
                failure = _failure(content)
            else:
                await _show(kind, content, emit)
        return failure

    async def _next(self) -> Message | None:
        """The next answer; None when the connection is lost and all that came over it was taken."""
        if not self._messages.empty():
            return self._messages.get_nowait()
        answer, lost = asyncio.ensure_future(self._messages.get()), asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait((answer, lost), return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            answer.cancel()
            lost.cancel()

    def _died(self) -> events.Event:
        self._fresh = True
        evalue = f"the {self.language} kernel died; its state is lost, the next run starts a new one"
        return events.failure("InterpreterDied", evalue, [evalue])

    def _refusal(self, content: dict[str, Any]) -> events.Event | None:
        """The failure that only the reply tells of."""
        status = content.get("status", "ok")
        if status == "ok":
            return None
        if status == "error":
            return _failure(content)
        if self._interrupted:
            return events.interrupted("the run was interrupted")
        return events.failure("Aborted", "the kernel did not run the code", [])

    async def interrupt(self) -> None:
        if self._kernel and self._wanted is not None:
            self._interrupted = True
            with contextlib.suppress(JupyterError):
                await request(self._server, "POST", f"/api/kernels/{self._kernel}/interrupt", {})

    async def close(self) -> None:
        if self.identifier:
            try:
                await request(self._server, "DELETE", f"/api/sessions/{self.identifier}")
            except JupyterError as error:
                if error.status != 404:
                    raise InterpreterUnavailable(str(error)) from None
        await self.abandon()

    async def abandon(self) -> None:
        """Lets go of the server without ending the session. A run that goes on ends as one without a connection."""
        if self._reader is not None:
            self._reader.cancel()


async def _nothing(event: events.Event) -> None:
    pass


async def _show(kind: str, content: dict[str, Any], emit: Emit) -> None:
    if kind == "stream":
        stream = "stderr" if content.get("name") == "stderr" else "stdout"
        for text in split(str(content.get("text") or "")):
            await emit(events.output(stream, text))
    elif kind in ("execute_result", "display_data", "update_display_data"):
        if kind == "execute_result" and isinstance(content.get("execution_count"), int):
            await emit(events.count(content["execution_count"]))
        data = content.get("data")
        if isinstance(data, dict) and data:
            await emit(events.result(data))


def _death(message: Message) -> bool:
    content = message["content"]
    return messages.kind(message) == "status" and content.get("execution_state") in ("restarting", "dead")


def _failure(content: dict[str, Any]) -> events.Event:
    traceback = content.get("traceback")
    lines = [str(line) for line in traceback] if isinstance(traceback, list) else []
    ename, evalue = str(content.get("ename") or ""), str(content.get("evalue") or "")
    if not ename and evalue.isdigit():
        return events.exit_failure(int(evalue))  # bash's kernel names no error
    return events.failure(ename or "Error", evalue, lines)
