"""The contexts of an agent: made, found, run in, interrupted, deleted."""

from __future__ import annotations

import asyncio
import os

from shoal_agent.agent import RunningAgent
from shoal_agent.code import events
from shoal_agent.code.interpreter import Interpreter, InterpreterUnavailable
from shoal_agent.code.languages import Languages
from shoal_agent.code.run import Run
from shoal_agent.http.errors import CONTEXT_NOT_FOUND, RUNTIME_ERROR, ApiError
from shoal_agent.log import LOG

BUSY = "CONTEXT_BUSY"


class Context:
    """What clients know by its id."""

    def __init__(self, identifier: str, language: str, interpreter: Interpreter) -> None:
        self.id = identifier
        self.language = language
        self.interpreter = interpreter
        self.busy = False
        """Whether code runs in it, or is about to."""
        self.deleted = False
        self.run: Run | None = None
        """The last one, so that its stream can be taken up again."""


class Contexts:
    """All of one agent. A context runs one code at a time; another one meanwhile is refused, and not queued."""

    def __init__(self, agent: RunningAgent, languages: Languages) -> None:
        self._agent = agent
        self._languages = languages
        self._contexts: dict[str, Context] = {}
        self._defaults: dict[str, Context] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def create(self, language: str, directory: str | None) -> Context:
        """A context whose interpreter has started. Raises `ApiError` 400, 500, 501."""
        interpreter = await self._languages.make(language, directory)
        identifier = interpreter.identifier or _identifier()
        context = Context(identifier, language, interpreter)
        self._contexts[identifier] = context
        return context

    def get(self, identifier: str) -> Context:
        """Raises `ApiError` 404."""
        context = self._contexts.get(identifier)
        if context is None:
            raise ApiError(404, CONTEXT_NOT_FOUND, f"there is no context {identifier}")
        return context

    def all(self, language: str | None = None) -> list[Context]:
        """The contexts of `language`, or all, in the order in which they were made."""
        return [context for context in self._contexts.values() if language in (None, context.language)]

    async def default(self, language: str) -> Context:
        """The context of code that names none; made when it is first needed. Raises as `create`."""
        async with self._locks.setdefault(language, asyncio.Lock()):
            context = self._defaults.get(language)
            if context is None or context.deleted:
                context = self._defaults[language] = await self.create(language, None)
        return context

    async def begin(self, context: Context, code: str) -> Run:
        """Starts `code`. The run goes on without its client. Raises `ApiError` 404, 409, 500."""
        if context.busy:
            raise ApiError(409, BUSY, f"the context {context.id} runs other code: wait for its end or interrupt it")
        context.busy = True
        try:
            await context.interpreter.prepare()
        except InterpreterUnavailable as error:
            raise ApiError(500, RUNTIME_ERROR, str(error)) from None
        finally:
            context.busy = False
        if context.deleted:
            raise ApiError(404, CONTEXT_NOT_FOUND, f"there is no context {context.id}")
        context.busy = True
        run = context.run = Run(context.id)
        self._agent.run_in_background(self._carry_out(context, code, run))
        return run

    async def _carry_out(self, context: Context, code: str, run: Run) -> None:
        failure: events.Event | None
        try:
            failure = await context.interpreter.run(code, run.emit)
        except Exception as error:
            LOG.error("a run of %s code failed", context.language, cause=error)
            failure = events.failure("InternalError", f"the agent failed: {type(error).__name__}", [])
        if context.deleted:
            failure = events.failure("ContextDeleted", "the context was deleted while its code ran", [])
        context.busy = False  # first: who reads the end may run the next code at once
        run.end(failure)

    async def interrupt(self, identifier: str) -> bool:
        """Interrupts what runs in a context, if anything does. False if the id is unknown."""
        context = self._contexts.get(identifier)
        if context is None:
            return False
        await context.interpreter.interrupt()
        return True

    async def delete(self, context: Context) -> None:
        """Ends its interpreter and the processes of its code. Raises `ApiError` 500 if a server refuses."""
        context.deleted = True
        self._contexts.pop(context.id, None)
        try:
            await context.interpreter.close()
        except InterpreterUnavailable as error:
            raise ApiError(500, RUNTIME_ERROR, str(error)) from None

    async def close(self) -> None:
        """At the agent's end."""
        for context in self.all():
            await context.interpreter.abandon()


def _identifier() -> str:
    """A random UUID."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
