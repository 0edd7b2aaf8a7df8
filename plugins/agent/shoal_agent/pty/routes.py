"""The routes of terminals."""

from __future__ import annotations

import os
import time

from shoal_agent.agent import RunningAgent
from shoal_agent.commands.spec import check_texts
from shoal_agent.http import Answer, ApiError, Request, Response, Routes, json_response
from shoal_agent.http.errors import CONTEXT_NOT_FOUND, NOT_SUPPORTED
from shoal_agent.http.websocket import WebSocket, accept
from shoal_agent.paths import Paths
from shoal_agent.pty.session import TerminalSession
from shoal_agent.pty.socket import TerminalSocket
from shoal_agent.sessions.routes import made_directory, uuid

TAKE_OVER_SECONDS = 5.0
UNUSED_SECONDS = 24 * 3600.0
"""After so long without a process and a socket a session is forgotten."""


def add_routes(agent: RunningAgent, routes: Routes) -> None:
    """Registers them."""
    room = TerminalRoutes(agent)
    routes.post("/pty", room.create)
    routes.get("/pty/{id}", room.show)
    routes.delete("/pty/{id}", room.delete)
    routes.get("/pty/{id}/ws", room.connect)


class TerminalRoutes:
    """Handlers."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._sessions: dict[str, TerminalSession] = {}
        self._paths = Paths.of_daemon(agent.environment.daemon)

    async def create(self, request: Request) -> Response:
        """A session; its process starts with its first socket."""
        fields = await request.fields(optional=True)
        command, envs = fields.text("command", ""), fields.text_map("envs")
        check_texts(command, [], envs)
        cwd = made_directory(fields.text("cwd", ""), self._paths)
        _check_terminals()
        self._forget_unused()
        session = TerminalSession(uuid(), cwd, command, envs, self._agent)
        self._sessions[session.id] = session
        return json_response({"session_id": session.id}, 201)

    async def show(self, request: Request) -> Response:
        """Whether it runs, and how much it has written."""
        session = self._find(request)
        return json_response({"session_id": session.id, "running": session.running, "output_offset": session.ring.end})

    async def delete(self, request: Request) -> None:
        """Ends it; its sockets get the end."""
        session = self._find(request)
        del self._sessions[session.id]
        session.delete()

    async def connect(self, request: Request) -> Answer:
        """A socket to it."""
        session = self._find(request)
        viewer = request.query("mode") == "viewer"
        take_over = request.query("takeover") in ("1", "true")
        since, terminal = _offset(request.query("since") or ""), request.query("pty") not in ("0", "false")

        async def talk(socket: WebSocket) -> None:
            if viewer:
                holder = None
            else:
                await session.take_over(TAKE_OVER_SECONDS)
                holder = session.attach()
            await TerminalSocket(session, socket, holder, since, terminal).talk()

        answer = accept(request, talk)
        if viewer and not session.running:
            raise ApiError(409, "NOT_RUNNING", f"nothing runs in session {session.id} yet")
        if not viewer and session.held and not take_over:
            raise ApiError(409, "ALREADY_CONNECTED", f"session {session.id} has a socket; takeover=1 takes its place")
        return answer

    def _find(self, request: Request) -> TerminalSession:
        session = self._sessions.get(request.params["id"])
        if session is None:
            raise ApiError(404, CONTEXT_NOT_FOUND, f"there is no terminal session {request.params['id']}")
        return session

    def _forget_unused(self) -> None:
        oldest = time.monotonic() - UNUSED_SECONDS
        for session in tuple(self._sessions.values()):
            if not session.running and not session.held and session.last_used < oldest:
                del self._sessions[session.id]


def _check_terminals() -> None:
    try:
        for descriptor in os.openpty():
            os.close(descriptor)
    except OSError as error:
        raise ApiError(501, NOT_SUPPORTED, f"there are no pseudo-terminals here: {error.strerror}") from None


def _offset(text: str) -> int:
    try:
        return int(text) if len(text) < 20 else 0
    except ValueError:
        return 0
