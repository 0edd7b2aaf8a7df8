"""The runtimes in use, each with its gate: how many engine calls may be under way at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from shoal.errors import InternalError, InvalidRequest, Unavailable
from shoal.lifecycle.gate import Gate, Priority
from shoal.models import codes
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.interfaces import Capabilities, Runtime

RUNTIME_EXTENSION = "runtime"
"""``extensions["runtime"]`` of a create picks a runtime other than the default."""


class Host:
    """One runtime and its gate."""

    def __init__(self, runtime: Runtime, concurrency: int | None) -> None:
        self.runtime = runtime
        self._gate = Gate(concurrency or runtime.concurrency)
        self._last_call: dict[str, float] = {}

    @asynccontextmanager
    async def call(self, sandbox_id: str, priority: Priority = Priority.NORMAL) -> AsyncIterator[Runtime]:
        """Wait for a place, then the runtime, for one engine call on that sandbox."""
        async with self._gate.place(priority):
            try:
                with own_cancellation():
                    yield self.runtime
            finally:
                self._last_call[sandbox_id] = time.monotonic()

    def changed_since(self, sandbox_id: str, moment: float) -> bool:
        """Whether an engine call on it ended after ``moment`` (monotonic), so that what was seen before it is stale."""
        return self._last_call.get(sandbox_id, -1.0) >= moment

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
        return self.named(record.runtime)

    def named(self, runtime: str) -> Host:
        """The host of the runtime of that name. Raises Unavailable if it is not enabled."""
        host = self._hosts.get(runtime)
        if host is None:
            raise Unavailable(codes.RUNTIME_NOT_ENABLED, f"The runtime {runtime!r} of this sandbox is not enabled.")
        return host

    def shares_truth(self, record: SandboxRecord) -> bool:
        """Whether the engine of a sandbox holds its truth, so that nothing of it need be taken up after a restart."""
        host = self._hosts.get(record.runtime)
        return host is not None and host.runtime.truth is not None

    def scope(self, record: SandboxRecord | None) -> str:
        """The scope of error codes about a sandbox; of an unknown one, the default runtime's."""
        host = self._hosts.get(record.runtime) if record is not None else None
        return (host or self.default).runtime.scope

    def capabilities(self, record: SandboxRecord | None) -> Capabilities:
        """What the runtime of a sandbox can do; of an unknown one, the default runtime."""
        host = self._hosts.get(record.runtime) if record is not None else None
        return (host or self.default).runtime.capabilities

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


def priority_of(record: SandboxRecord) -> Priority:
    """How urgent work on a sandbox is: nobody waits for one that nobody knows of."""
    return Priority.REFILL if record.hidden else Priority.NORMAL


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
