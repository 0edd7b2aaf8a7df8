"""The routes of commands."""

from __future__ import annotations

import asyncio
import time
from typing import Any, BinaryIO

from shoal_agent.agent import RunningAgent
from shoal_agent.commands import spec
from shoal_agent.commands.command import CommandRun
from shoal_agent.commands.events import stream_headers
from shoal_agent.commands.journal import Journal
from shoal_agent.commands.table import Commands
from shoal_agent.http import ApiError, Fields, FileResponse, Request, Response, Routes, Stream, json_response
from shoal_agent.http.errors import INVALID_REQUEST_BODY, invalid_body
from shoal_agent.paths import Paths

CURSOR = "EXECD-COMMANDS-TAIL-CURSOR"


def add_routes(agent: RunningAgent, routes: Routes) -> None:
    """Registers them, and interrupts for all rooms."""
    room = CommandRoutes(agent)
    routes.post("/command", room.run)
    routes.get("/command/status/{id}", room.status)
    routes.get("/command/{id}/logs", room.logs)
    routes.get("/command/{id}/resume", room.resume)
    routes.delete("/command", room.interrupt)
    routes.delete("/code", room.interrupt)


class CommandRoutes:
    """Handlers."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._commands = Commands(agent)
        self._paths = Paths.of_daemon(agent.environment.daemon)
        agent.start_command = self.start
        agent.interrupters.append(self._commands.interrupt)
        self._sweeping: asyncio.Task[None] | None = None
        agent.on_stop.append(self._commands.close)

    async def run(self, request: Request) -> Stream:
        """Starts a command. The answer is its stream; the command goes on when the client does not."""
        return self.start(await request.fields())

    def start(self, fields: Fields) -> Stream:
        """The same for a body that has been read. Raises `ApiError` 400."""
        command = self._commands.start(spec.parse(fields, self._paths))
        if self._sweeping is None:
            self._sweeping = self._agent.run_in_background(self._commands.sweep_for_ever())
        return Stream(command.journal.follow(), headers=stream_headers())

    async def resume(self, request: Request) -> Stream:
        """The stream of a command from a byte offset of its body on: 0 is its beginning. 410 for what is forgotten."""
        return resumed(self._find(request.params["id"], 404).journal, request)

    async def status(self, request: Request) -> Response:
        """How a command is doing."""
        command = self._find(request.params["id"], 404)
        found: dict[str, Any] = {"id": command.id, "content": command.content, "running": command.running}
        if command.exit_code is not None:
            found["exit_code"] = command.exit_code
        if command.error:
            found["error"] = command.error
        found["started_at"] = _rfc3339(command.started_at)
        if command.finished_at is not None:
            found["finished_at"] = _rfc3339(command.finished_at)
        return json_response(found)

    async def logs(self, request: Request) -> FileResponse:
        """The raw output of a background command from a byte offset to its present end."""
        command = self._find(request.params["id"], 400)
        if command.output_file is None:
            raise invalid_body(f"command {command.id} does not run in the background: its output is its stream")
        cursor = _cursor(request.query("cursor") or "")
        file = _opened(command.output_file)
        end = file.seek(0, 2)
        start = max(min(cursor, end), min(command.output_start, end))
        headers = [("Content-Type", "text/plain; charset=utf-8"), (CURSOR, str(end))]
        return FileResponse(file, start, end - start, headers=headers)

    async def interrupt(self, request: Request) -> None:
        """Ends a run of any room; the answer comes when it has ended."""
        identifier = request.required_query("id")
        for interrupter in self._agent.interrupters:
            if await interrupter(identifier):
                return
        raise ApiError(404, "CONTEXT_NOT_FOUND", f"nothing runs with the id {identifier}")

    def _find(self, identifier: str, status: int) -> CommandRun:
        command = self._commands.find(identifier)
        if command is None:
            raise ApiError(status, INVALID_REQUEST_BODY, f"there is no command {identifier}")
        return command


def resumed(journal: Journal, request: Request) -> Stream:
    """The stream of a run from the byte that the query's `offset` names on.

    Raises `ApiError` 400 for what is no offset, 416 for one that is not reached yet, 410 for bytes that are forgotten.
    """
    text = request.query("offset") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise invalid_body("offset must be a number of bytes")
    offset = int(text)
    if offset > journal.end:
        raise ApiError(416, INVALID_REQUEST_BODY, f"the stream has only {journal.end} bytes so far")
    if offset < journal.start:
        raise ApiError(410, INVALID_REQUEST_BODY, f"only the bytes from {journal.start} on are still kept")
    return Stream(journal.follow(offset), headers=stream_headers())


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise ApiError(400, INVALID_REQUEST_BODY, f"the output is gone: {error.strerror}") from None


def _cursor(text: str) -> int:
    """No number, or one beyond 64 bits, counts as 0. Raises `ApiError` 400 for a negative one."""
    try:
        cursor = int(text) if text.isascii() and "_" not in text else 0
    except ValueError:
        return 0
    if cursor < 0:
        raise invalid_body("cursor must not be negative")
    return cursor if cursor < 2**63 else 0


def _rfc3339(seconds: float) -> str:
    millis = int(seconds * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000)) + f".{millis % 1000:03d}Z"
