"""The routes of sessions."""

from __future__ import annotations

import os

from shoal_agent.agent import RunningAgent
from shoal_agent.commands.events import stream_headers
from shoal_agent.commands.routes import resumed
from shoal_agent.commands.spec import directory
from shoal_agent.commands.store import OutputStore, candidates
from shoal_agent.http import ApiError, Request, Response, Routes, Stream, json_response
from shoal_agent.http.errors import CONTEXT_NOT_FOUND, invalid_body
from shoal_agent.paths import Paths
from shoal_agent.sessions.session import ShellSession

DEFAULT_RUN_TIMEOUT = 24 * 3600.0
"""Seconds that a run may take when its request names no limit."""


def add_routes(agent: RunningAgent, routes: Routes) -> None:
    """Registers them."""
    room = SessionRoutes(agent)
    routes.post("/session", room.create)
    routes.post("/session/{id}/run", room.run)
    routes.get("/session/{id}/resume", room.resume)
    routes.delete("/session/{id}", room.delete)
    agent.interrupters.append(room.interrupt)
    agent.on_stop.append(room.stop)


class SessionRoutes:
    """Handlers."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._sessions: dict[str, ShellSession] = {}
        self._store = OutputStore(["/dev/shm", *candidates(agent.environment.daemon)])  # noqa: S108  # memory first
        self._paths = Paths.of_daemon(agent.environment.daemon)

    async def stop(self) -> None:
        """Removes what runs have written."""
        self._store.remove()

    async def create(self, request: Request) -> Response:
        """A session; its directory is made if it is missing."""
        fields = await request.fields(optional=True)
        cwd = made_directory(fields.text("cwd", ""), self._paths)
        session = ShellSession(uuid(), cwd, self._agent, self._store)
        self._sessions[session.id] = session
        return json_response({"session_id": session.id})

    async def run(self, request: Request) -> Stream:
        """Runs a command in a session; waits for its turn."""
        session = self._find(request.params["id"])
        fields = await request.fields()
        command, cwd = fields.text("command"), fields.text("cwd", "")
        if not command or "\0" in command:
            raise invalid_body("command must be a text that is not empty, without NUL")
        timeout = fields.integer("timeout", 0) / 1000 or DEFAULT_RUN_TIMEOUT
        run = await session.start(command, directory(cwd, self._paths) if cwd else None, timeout)
        if run is None:
            raise _unknown(session.id)
        return Stream(run.journal.follow(), headers=stream_headers())

    async def resume(self, request: Request) -> Stream:
        """The stream of the session's last run from a byte offset on."""
        session = self._find(request.params["id"])
        if session.run is None:
            raise ApiError(404, CONTEXT_NOT_FOUND, f"nothing has run in session {session.id} yet")
        return resumed(session.run.journal, request)

    async def delete(self, request: Request) -> None:
        """Ends a session and what runs in it."""
        session = self._find(request.params["id"])
        del self._sessions[session.id]
        session.delete()

    async def interrupt(self, identifier: str) -> bool:
        """Ends what runs in a session; the session stays. False if there is none with that id."""
        session = self._sessions.get(identifier)
        if session is not None:
            await session.interrupt()
        return session is not None

    def _find(self, identifier: str) -> ShellSession:
        session = self._sessions.get(identifier)
        if session is None:
            raise _unknown(identifier)
        return session


def made_directory(text: str, paths: Paths) -> str:
    """An absolute path for `text`, made with its parents if it is missing. Raises `ApiError` 400 if it cannot be."""
    path = paths.resolve(text or ".")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise invalid_body(f"cwd {path} cannot be a directory: {error.strerror}") from None
    return path


def uuid() -> str:
    """A random UUID."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _unknown(identifier: str) -> ApiError:
    return ApiError(404, CONTEXT_NOT_FOUND, f"there is no session {identifier}")
