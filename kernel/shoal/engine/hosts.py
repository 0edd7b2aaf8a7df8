"""The runtimes in use, each with its gate: how many engine calls may be under way at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Literal

from shoal.errors import InternalError, InvalidRequest, Unavailable
from shoal.models import codes
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.interfaces import Runtime

RUNTIME_EXTENSION = "runtime"
"""``extensions["runtime"]`` of a create picks a runtime other than the default."""


class GivenUp(Exception):
    """The call is not wanted any more; its place in the queue was given back and nothing was called."""


class Host:
    """One runtime and its gate. Waiters pass first come, first served (`asyncio.Semaphore` is fair)."""

    def __init__(self, runtime: Runtime, concurrency: int | None) -> None:
        self.runtime = runtime
        self._gate = asyncio.Semaphore(concurrency or runtime.concurrency)
        self._last_call: dict[str, float] = {}

    @asynccontextmanager
    async def call(self, sandbox_id: str, unless: asyncio.Event | None = None) -> AsyncIterator[Runtime]:
        """Wait for a place, then the runtime, for one engine call on that sandbox.

        Raises GivenUp, at once, if ``unless`` is set before the place is there.
        """
        await self._enter(unless)
        try:
            with own_cancellation():
                yield self.runtime
        finally:
            self._last_call[sandbox_id] = time.monotonic()
            self._gate.release()

    def changed_since(self, sandbox_id: str, moment: float) -> bool:
        """Whether an engine call on it ended after ``moment`` (monotonic), so that what was seen before it is stale."""
        return self._last_call.get(sandbox_id, -1.0) >= moment

    async def _enter(self, unless: asyncio.Event | None) -> None:
        if unless is None or not (self._gate.locked() or unless.is_set()):
            await self._gate.acquire()
            return
        place = asyncio.ensure_future(self._gate.acquire())
        given_up = asyncio.ensure_future(unless.wait())
        try:
            await asyncio.wait((place, given_up), return_when=asyncio.FIRST_COMPLETED)
            if not unless.is_set():
                return
            self._leave(place)
            raise GivenUp
        except asyncio.CancelledError:
            self._leave(place)
            raise
        finally:
            given_up.cancel()

    def _leave(self, place: asyncio.Future[Literal[True]]) -> None:
        """Give up a place, whether it was reached or not."""
        if not place.cancel():
            self._gate.release()

    def prune(self, before: float) -> None:
        """Drop what no observation can be older than any more; called after each full comparison."""
        self._last_call = {key: moment for key, moment in self._last_call.items() if moment >= before}


class Hosts:
    """All runtimes by name."""

    def __init__(self, runtimes: Mapping[str, Runtime], default: str, concurrency: int | None) -> None:
        self._hosts = {name: Host(runtime, concurrency) for name, runtime in runtimes.items()}
        self.default = self._hosts[default]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def of(self, record: SandboxRecord) -> Host:
        """The host of a sandbox. Raises Unavailable if its runtime is not enabled any more: it may still be running."""
        host = self._hosts.get(record.runtime)
        if host is None:
            message = f"The runtime {record.runtime!r} of this sandbox is not enabled."
            raise Unavailable(codes.RUNTIME_NOT_ENABLED, message)
        return host

    def scope(self, record: SandboxRecord | None) -> str:
        """The scope of error codes about a sandbox; of an unknown one, the default runtime's."""
        host = self._hosts.get(record.runtime) if record is not None else None
        return (host or self.default).runtime.scope

    def pick(self, extensions: Mapping[str, str]) -> Host:
        """The host that a create asks for. Raises InvalidRequest for a name that is not enabled."""
        name = extensions.get(RUNTIME_EXTENSION, "").strip()
        if not name:
            return self.default
        if name not in self._hosts:
            known = ", ".join(sorted(self._hosts))
            message = f'extensions["runtime"] names no enabled runtime; known: {known}.'
            raise InvalidRequest(codes.INVALID_PARAMETER, message)
        return self._hosts[name]


@contextmanager
def own_cancellation() -> Iterator[None]:
    """Let CancelledError through only if it is this task that is cancelled.

    A runtime that cancels a task of its own and awaits it raises the same exception; taken at face value, it would end
    the operation without a trace. Raises InternalError for that.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise InternalError(codes.INTERNAL_ERROR, "The runtime cancelled its own work.") from None
