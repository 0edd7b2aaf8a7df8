"""`IdleTimeout`: from accesses and transitions to an end, a pause, or a waking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import structlog

from shoal.errors import Conflict, InvalidRequest, NotFound, ShoalError
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin import Lifecycle
from shoal.plugin.interfaces import (
    WEBSOCKET_NEWS_SECONDS,
    Access,
    Capabilities,
    Observer,
    Renewal,
    Transition,
)
from shoal_idle.clock import IdleClock
from shoal_idle.policy import ACTION, KEYS, RESUME, TIMEOUT, IdlePolicy, read

log = structlog.get_logger("shoal.idle")

RETRY_SECONDS = 30.0
"""Wait before an end or a pause that failed is tried again."""
IDLE = "IDLE"
"""Reason of a sandbox's end."""


class IdleTimeout(Renewal, Observer):
    """Watches the sandboxes that asked for it; the others cost a dictionary look-up an access.

    Whether a sandbox is idle is judged on its lane, when the turn to end it has come: an access that came first wins.
    """

    name: ClassVar[str] = "idle-timeout"
    extensions = KEYS

    def __init__(self, lifecycle: Lifecycle, now: Callable[[], float] = time.monotonic) -> None:
        self._lifecycle = lifecycle
        self.clock = IdleClock(self._due, now)
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Take up the sandboxes that are there: their idle time starts at nought."""
        for record in self._lifecycle.records():
            self._follow(record)
        self.clock.start()

    async def stop(self) -> None:
        """Fire nothing more; an operation that was begun goes on without being waited for."""
        self.clock.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self, plan: WorkloadPlan, capabilities: Capabilities) -> None:
        """Raise InvalidRequest for a value out of bounds, and for a pause where the runtime has none."""
        try:
            policy = read(plan.extensions)
        except ValueError as error:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"extensions: {error}.") from None
        if policy.timeout is not None and capabilities.shared:
            message = f"extensions: {TIMEOUT}: other servers reach the sandboxes of the {plan.runtime} runtime too."
            raise InvalidRequest(codes.INVALID_PARAMETER, message)
        for key, wanted in ((ACTION, policy.action == "pause"), (RESUME, policy.on_access)):
            if wanted and not capabilities.pause:
                message = f"extensions: {key}: the {plan.runtime} runtime cannot pause sandboxes."
                raise InvalidRequest(codes.INVALID_PARAMETER, message)

    # --- What happens ------------------------------------------------------------------------------------------------

    def accessed(self, access: Access) -> None:
        """Stamp the time. Only an HTTP exchange reports its end; what reports at intervals counts until the next."""
        if access.transport == "http":
            self.clock.enter(access.sandbox_id)
        else:
            self.clock.touch(access.sandbox_id, WEBSOCKET_NEWS_SECONDS)

    def finished(self, sandbox_id: str) -> None:
        """An HTTP exchange is over."""
        self.clock.leave(sandbox_id)

    def transition(self, event: Transition) -> None:
        """Idle time counts while the sandbox runs, and starts when it begins to."""
        if event.after is None:
            self.clock.forget(event.record.id)
        else:
            self._follow(event.record)

    def _follow(self, record: SandboxRecord) -> None:
        if record.state is State.STOPPING:
            self.clock.forget(record.id)
        elif record.state is not State.RUNNING:
            self.clock.rest(record.id)
        elif (timeout := _policy(record).timeout) is not None:
            self.clock.run(record.id, timeout)

    # --- Ending ------------------------------------------------------------------------------------------------------

    def _due(self, sandbox_id: str) -> None:
        record = self._lifecycle.find(sandbox_id)
        if record is not None:
            pauses = _policy(record).action == "pause"
            self._spawn(self._guarded(sandbox_id, self._pause if pauses else self._delete))

    async def _guarded(self, sandbox_id: str, act: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        delay = 0.0
        try:
            await act(sandbox_id)
        except (NotFound, Conflict):
            pass  # it is gone, or another operation has changed its state
        except ShoalError as error:
            delay = RETRY_SECONDS
            log.warning("idle sandbox could not be ended", sandbox_id=sandbox_id, error=str(error), after=delay)
        except Exception:
            delay = RETRY_SECONDS
            log.exception("idle sandbox could not be ended", sandbox_id=sandbox_id, after=delay)
        self.clock.arm(sandbox_id, delay)

    async def _delete(self, sandbox_id: str) -> None:
        await self._lifecycle.delete(sandbox_id, reason=IDLE, unless=self._in_use)

    async def _pause(self, sandbox_id: str) -> None:
        """Pause, and take it back if a request slipped in between the judgement and its becoming visible."""
        uses: int | None = None

        def in_use(record: SandboxRecord) -> bool:
            nonlocal uses
            if self._in_use(record):
                return True
            uses = self.clock.uses(sandbox_id)
            return False

        await self._lifecycle.pause(sandbox_id, unless=in_use)
        if uses is not None and self.clock.uses(sandbox_id) != uses:
            await self._lifecycle.resume(sandbox_id)

    def _in_use(self, record: SandboxRecord) -> bool:
        return record.state is not State.RUNNING or not self.clock.idle(record.id)

    # --- Waking ------------------------------------------------------------------------------------------------------

    async def wake(self, record: SandboxRecord) -> bool:
        """Resume it once for all the requests that wait. Raises what resuming raises."""
        if not _policy(record).on_access:
            return False
        task = self._waking.get(record.id)
        if task is None:
            task = self._waking[record.id] = self._spawn(self._resume(record.id))
            task.add_done_callback(lambda _: self._waking.pop(record.id))
        await asyncio.shield(task)
        return True

    async def _resume(self, sandbox_id: str) -> None:
        try:
            await self._lifecycle.resume(sandbox_id)
        except Conflict:
            return  # somebody else has resumed it, or it has ended; whoever waits looks again
        log.info("sandbox resumed on access", sandbox_id=sandbox_id)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: those who waited for it may all have left


def _policy(record: SandboxRecord) -> IdlePolicy:
    """What the record asks for; an adopted one may ask for nonsense, which is as if it asked for nothing."""
    try:
        return read(record.extensions)
    except ValueError:
        return IdlePolicy()
