"""The routes of code: `docs/wire/execd.md` section 7."""

from __future__ import annotations

import asyncio
import os

from shoal_agent.agent import RunningAgent
from shoal_agent.code.contexts import Context, Contexts
from shoal_agent.code.languages import Languages, named
from shoal_agent.code.run import Run
from shoal_agent.code.sql import Statements
from shoal_agent.commands.events import stream_headers
from shoal_agent.commands.routes import resumed
from shoal_agent.http import ApiError, Request, Response, Routes, Stream, json_response
from shoal_agent.http.errors import CONTEXT_NOT_FOUND, INVALID_REQUEST_BODY, invalid_body
from shoal_agent.http.fields import Fields
from shoal_agent.paths import Paths

SHELL = {"": False, "command": False, "background-command": True}
"""Languages that are a plain command, and whether it runs in the background."""
SQL = "sql"


def add_routes(agent: RunningAgent, routes: Routes) -> None:
    """Registers them."""
    room = CodeRoutes(agent)
    routes.post("/code", room.run)
    routes.post("/code/context", room.create)
    routes.get("/code/contexts", room.list)
    routes.delete("/code/contexts", room.delete_all)
    routes.get("/code/contexts/{id}", room.show)
    routes.delete("/code/contexts/{id}", room.delete)
    routes.get("/code/contexts/{id}/resume", room.resume)


class CodeRoutes:
    """Handlers."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._contexts = Contexts(agent, Languages(agent))
        self._statements = Statements(agent)
        self._paths = Paths.of_daemon(agent.environment.daemon)
        agent.interrupters.append(self._contexts.interrupt)
        agent.interrupters.append(self._statements.interrupt)
        agent.on_stop.append(self._contexts.close)

    async def run(self, request: Request) -> Stream:
        """Runs code in a context; a context that is named by its id decides on the language."""
        fields = await request.fields()
        code, wanted = fields.text("code"), fields.fields("context")
        if not code or "\0" in code:
            raise invalid_body("code must not be empty" if not code else "code cannot hold a NUL")
        identifier, language = wanted.text("id", ""), named(wanted.text("language", ""))
        if not identifier and language in SHELL:
            return self._command(code, background=SHELL[language])
        if not identifier and language == SQL:
            return _stream(self._statements.begin(code))
        context = self._contexts.get(identifier) if identifier else await self._contexts.default(language)
        return _stream(await self._contexts.begin(context, code))

    def _command(self, code: str, *, background: bool) -> Stream:
        fields = Fields({"command": code, "background": background})
        return self._agent.start_command(fields)

    async def create(self, request: Request) -> Response:
        """Makes a context, and its directory."""
        fields = await request.fields()
        language, cwd = named(fields.text("language", "")), fields.text("cwd", "")
        _contextual(language)
        directory = await asyncio.to_thread(_directory, self._paths.resolve(cwd)) if cwd else None
        context = await self._contexts.create(language, directory)
        return json_response({**_shown(context), **({"cwd": cwd} if cwd else {})})

    async def list(self, request: Request) -> Response:
        """All contexts, or those of a language."""
        language = named(request.query("language") or "")
        if language:
            _contextual(language)
        return json_response([_shown(context) for context in self._contexts.all(language or None)])

    async def show(self, request: Request) -> Response:
        """One."""
        return json_response(_shown(self._contexts.get(request.params["id"])))

    async def resume(self, request: Request) -> Stream:
        """The stream of a context's last run from a byte offset of its body on."""
        context = self._contexts.get(request.params["id"])
        if context.run is None:
            raise ApiError(404, CONTEXT_NOT_FOUND, f"no code has run in the context {context.id}")
        return resumed(context.run.journal, request)

    async def delete(self, request: Request) -> None:
        """Deletes one."""
        await self._contexts.delete(self._contexts.get(request.params["id"]))

    async def delete_all(self, request: Request) -> None:
        """Deletes those of a language."""
        for context in self._contexts.all(named(request.required_query("language"))):
            await self._contexts.delete(context)


def _stream(run: Run) -> Stream:
    return Stream(run.journal.follow(), headers=stream_headers())


def _shown(context: Context) -> dict[str, str]:
    return {"id": context.id, "language": context.language}


def _contextual(language: str) -> None:
    """Raises `ApiError` 400 for what has no contexts."""
    if not language:
        raise ApiError(400, INVALID_REQUEST_BODY, "language is required")
    if language in SHELL or language == SQL:
        raise ApiError(400, INVALID_REQUEST_BODY, f"{language} keeps no state and has no contexts")


def _directory(path: str) -> str:
    """`path`, made if it is missing. Raises `ApiError` 400."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise ApiError(400, INVALID_REQUEST_BODY, f"cwd {path} cannot be made: {error.strerror}") from None
    return path
