"""The runtimes in use, each with its gate: how many engine calls may be under way at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from shoal.errors import InternalError, InvalidRequest, Unavailable
from shoal.lifecycle.gate import Gate, Priority
from shoal.models import codes
from shoal.models.sandbox import Doubt, SandboxRecord
from shoal.models.workload import Workload
from shoal.plugin.calls import contained, wrong
from shoal.plugin.components import Part
from shoal.plugin.interfaces import Capabilities, Runtime

RUNTIME_EXTENSION = "runtime"
"""``extensions["runtime"]`` of a create picks a runtime other than the default."""


class Host:
    """One runtime and its gate.

    Attributes:
        part: names the runtime and its plugin.
        away: why the runtime has not answered yet since the server started, for everybody; None once it has.
    """

    def __init__(self, runtime: Runtime, concurrency: int | None, part: Part | None = None) -> None:
        self.runtime = runtime
        self.part = part or Part(plugin=type(runtime).__module__, family="runtime", component=runtime)
        self.away: str | None = None
        self._gate = Gate(concurrency or runtime.concurrency)
        self._last_call: dict[str, float] = {}

    @asynccontextmanager
    async def call(self, sandbox_id: str, priority: Priority = Priority.NORMAL) -> AsyncIterator[Runtime]:
        """Wait for a place, then the runtime, for one engine call on that sandbox."""
        async with self._gate.place(priority):
            try:
                with contained(self.part):
                    yield self.runtime
            finally:
                self._last_call[sandbox_id] = time.monotonic()

    def doubt(self) -> Doubt | None:
        """What is to be said of its sandboxes while it is away."""
        if self.away is None:
            return None
        return Doubt("RUNTIME_UNAVAILABLE", f"The runtime {self.runtime.name!r} has not answered yet: {self.away}.")

    def present(self) -> Host:
        """Itself. Raises Unavailable while it is away."""
        doubt = self.doubt()
        if doubt is not None:
            raise Unavailable(codes.RUNTIME_UNAVAILABLE, doubt.message)
        return self

    def checked(self, method: str, sandbox_id: str, answer: object) -> Workload:
        """What a call on a sandbox returned, if it is its workload. Raises InternalError, and logs the plugin."""
        if not isinstance(answer, Workload):
            raise wrong(self.part, f"returned from {method} a {type(answer).__name__}, and not a Workload")
        if answer.id != sandbox_id:
            raise wrong(self.part, f"returned from {method} the workload of another sandbox")
        return answer

    def changed_since(self, sandbox_id: str, moment: float) -> bool:
        """Whether an engine call on it ended after ``moment`` (monotonic), so that what was seen before it is stale."""
        return self._last_call.get(sandbox_id, -1.0) >= moment

    def prune(self, before: float) -> None:
        """Drop what no observation can be older than any more; called after each full comparison."""
        self._last_call = {key: moment for key, moment in self._last_call.items() if moment >= before}


class Hosts:
    """All runtimes by name."""

    def __init__(
        self,
        runtimes: Mapping[str, Runtime],
        default: str,
        concurrency: int | None,
        parts: Mapping[str, Part] | None = None,
    ) -> None:
        known = parts or {}
        self._hosts = {name: Host(runtime, concurrency, known.get(name)) for name, runtime in runtimes.items()}
        self.default = self._hosts[default]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def of(self, record: SandboxRecord) -> Host:
        """The host of a sandbox. Raises Unavailable if its runtime is not enabled any more, or has not answered yet."""
        return self.named(record.runtime)

    def named(self, runtime: str) -> Host:
        """The host of the runtime of that name. Raises Unavailable if it is not enabled, or has not answered yet."""
        host = self._hosts.get(runtime)
        if host is None:
            raise Unavailable(codes.RUNTIME_NOT_ENABLED, _not_enabled(runtime).message)
        return host.present()

    def doubt(self, record: SandboxRecord) -> Doubt | None:
        """Why a record may not be what is on the engine: its runtime is not enabled, or has not answered yet."""
        host = self._hosts.get(record.runtime)
        return _not_enabled(record.runtime) if host is None else host.doubt()

    def enabled(self, record: SandboxRecord) -> bool:
        """Whether the runtime of a sandbox is enabled."""
        return record.runtime in self._hosts

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
        """The host that a create asks for. Raises InvalidRequest for a name that is not enabled, Unavailable."""
        name = extensions.get(RUNTIME_EXTENSION, "").strip()
        if not name:
            return self.default.present()
        if name not in self._hosts:
            known = ", ".join(sorted(self._hosts))
            message = f'extensions["runtime"] names no enabled runtime; known: {known}.'
            raise InvalidRequest(codes.INVALID_PARAMETER, message)
        return self._hosts[name].present()


def _not_enabled(runtime: str) -> Doubt:
    return Doubt("RUNTIME_NOT_ENABLED", f"The runtime {runtime!r} of this sandbox is not enabled on this server.")


def priority_of(record: SandboxRecord) -> Priority:
    """How urgent work on a sandbox is: nobody waits for one that nobody knows of."""
    return Priority.REFILL if record.hidden else Priority.NORMAL


@contextmanager
def own_cancellation() -> Iterator[None]:
    """Let CancelledError through only if it is this task that is cancelled, and SystemExit not at all.

    A runtime that cancels a task of its own and awaits it raises the same exception; taken at face value, it would end
    the operation without a trace. Raises InternalError for that.
    """
    try:
        yield
    except SystemExit:
        raise InternalError(codes.INTERNAL_ERROR, "The runtime tried to end the server.") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise InternalError(codes.INTERNAL_ERROR, "The runtime cancelled its own work.") from None
