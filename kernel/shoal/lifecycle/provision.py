"""Provisioning: makes a plan real behind the 202, and ends it as Running or as Failed with the reason.

A create may take minutes (an image to pull), so it runs beside the sandbox's lane, which stays free: it can be renewed,
patched and deleted meanwhile. Only the outcome is written on the lane. A removal ends a create that it overtakes, and
goes on once nothing of it runs any more. A create that a crash interrupts begins again at the next start, from the
durable plan; the runtime completes or replaces what the first try left. While engine or store are away, it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from msgspec.structs import replace

from shoal.errors import EngineFailure, InternalError, NotFound, ShoalError, Unavailable
from shoal.kit.backoff import Backoff
from shoal.lifecycle import states
from shoal.lifecycle.core import Core
from shoal.lifecycle.expiry import due_time
from shoal.lifecycle.gate import Priority
from shoal.lifecycle.hosts import Host, priority_of
from shoal.lifecycle.ledger import utcnow
from shoal.lifecycle.removal import Remover
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import Failure, SandboxRecord, State
from shoal.models.workload import Workload
from shoal.plugin.interfaces import SharedTruth

log = structlog.get_logger("shoal.lifecycle")
T = TypeVar("T")

STORE_BACKOFF_FIRST, STORE_BACKOFF_MAX = 0.5, 30.0
"""Seconds between two tries of a store call that provisioning cannot go on without."""
ENGINE_BACKOFF_FIRST, ENGINE_BACKOFF_MAX = 0.5, 4.0
"""Seconds between two tries of a create whose engine is away."""


class Provisioner:
    """Makes plans real, each in a task of its own (`CreatesUnderWay`)."""

    def __init__(self, core: Core, remover: Remover) -> None:
        self._settings = core.settings.lifecycle
        self._view = core.view
        self._ledger = core.ledger
        self._store = core.store
        self._hosts = core.hosts
        self._lanes = core.lanes
        self._expiry = core.expiry
        self._keys = core.keys
        self._creates = core.creates
        self._remover = remover

    def begin(self, sandbox_id: str, plan: WorkloadPlan | None = None) -> None:
        """Realise the plan (read back from the store when not given) of a Pending sandbox; returns at once.

        A sandbox whose runtime is not enabled stays Pending until a server that has it takes it up.
        """
        self._creates.begin(sandbox_id, self._provision(sandbox_id, plan))

    async def _provision(self, sandbox_id: str, plan: WorkloadPlan | None) -> None:
        entry = self._view.get(sandbox_id)
        if entry is None or entry.record.state is not State.PENDING:
            return
        try:
            host = self._hosts.of(entry.record)
        except ShoalError as error:
            log.warning("create cannot go on", sandbox_id=sandbox_id, error=str(error))
            return
        if plan is None:
            plan = await self._insist(lambda: self._read_back(sandbox_id), sandbox_id)
            if host.runtime.truth is not None and not await self._recovered(host.runtime.truth, sandbox_id, plan):
                return
        made = plan and self._up_to_date(plan, entry.record)
        outcome = await self._outcome(host, entry.record, made)
        try:
            await self._settle(sandbox_id, made, outcome)
        except Exception:
            log.exception(
                "what came of a create could not be taken", sandbox_id=sandbox_id, runtime=entry.record.runtime
            )
            failure = InternalError(codes.INTERNAL_ERROR, "The server failed in an unforeseen way.")
            await self._settle(sandbox_id, made, failure)

    async def _settle(self, sandbox_id: str, plan: WorkloadPlan | None, outcome: Workload | ShoalError) -> None:
        await self._insist(
            lambda: self._lanes.run(sandbox_id, lambda: self._conclude(sandbox_id, plan, outcome)), sandbox_id
        )

    async def _recovered(self, truth: SharedTruth, sandbox_id: str, plan: WorkloadPlan | None) -> bool:
        """Whether there is a create to go on with, of those that a restart finds; what is gone is not made again."""
        if plan is None:
            return False  # another server is making it: it was adopted
        if truth.recover(plan):
            return True
        log.warning("a create was not found on the engine: it was deleted there, or never came", sandbox_id=sandbox_id)
        await self._insist(lambda: self._lanes.run(sandbox_id, lambda: self._never_came(sandbox_id)), sandbox_id)
        return False

    async def _never_came(self, sandbox_id: str) -> None:
        """The same as `_vanish`, for one whose key may be used again."""
        entry = self._view.get(sandbox_id)
        if entry is not None and entry.record.state is State.PENDING:
            await self._ledger.release(entry.record, self._keys.lose(sandbox_id))
        await self._vanish(sandbox_id)

    async def _vanish(self, sandbox_id: str) -> None:
        """Let go of a create whose workload is gone; runs on the lane."""
        entry = self._view.get(sandbox_id)
        if entry is not None and entry.record.state is State.PENDING:
            await self._remover.clear(entry.record)
            await self._ledger.erase(entry.record)
            self._expiry.disarm(sandbox_id)

    async def _outcome(self, host: Host, record: SandboxRecord, plan: WorkloadPlan | None) -> Workload | ShoalError:
        """What came of it; never raises an Exception."""
        try:
            if plan is None:
                return InternalError(codes.INTERNAL_ERROR, "The plan of this sandbox is lost.")
            return await self._attempts(host, plan, priority_of(record))
        except ShoalError as error:
            return error
        except Exception:
            log.exception("a create failed in an unforeseen way", sandbox_id=record.id, runtime=record.runtime)
            return InternalError(codes.INTERNAL_ERROR, "The server failed in an unforeseen way.")

    def _up_to_date(self, plan: WorkloadPlan, record: SandboxRecord) -> WorkloadPlan:
        """The plan with what may have changed since it was drawn up."""
        return replace(plan, expires_at=record.expires_at, metadata=record.metadata)

    async def _attempts(self, host: Host, plan: WorkloadPlan, priority: Priority) -> Workload:
        """Call the engine until it answers for good: for ever while it is away, else the configured number of times."""
        failures, backoff = 0, Backoff(ENGINE_BACKOFF_FIRST, ENGINE_BACKOFF_MAX)
        while True:
            try:
                async with host.call(plan.id, priority) as runtime:
                    made = await runtime.create(plan, lambda *said: self._ledger.progress(plan.id, *said))
                    return host.checked("create", plan.id, made)
            except Unavailable as error:
                self._ledger.progress(
                    plan.id, "ENGINE_UNAVAILABLE", f"{error.message} The create goes on once it is back."
                )
                cause: ShoalError = error
                delay = backoff.next()
            except EngineFailure as error:
                failures += 1
                if error.retry_after is None or failures == self._settings.provision_attempts:
                    raise
                cause, delay = error, error.retry_after
            log.warning("create will be retried", sandbox_id=plan.id, after=delay, code=cause.code)
            await asyncio.sleep(delay)

    async def _conclude(self, sandbox_id: str, plan: WorkloadPlan | None, outcome: Workload | ShoalError) -> None:
        """Write down what came of it; runs on the lane. A removal that came first has the last word."""
        entry = self._view.get(sandbox_id)
        if entry is None or entry.record.state is not State.PENDING:
            return
        if isinstance(outcome, NotFound) and self._hosts.shares_truth(entry.record):
            await self._vanish(sandbox_id)
        elif isinstance(outcome, ShoalError):
            await self._failed(entry.record, outcome)
        else:
            await self._succeeded(entry.record, plan, outcome)

    async def _succeeded(self, record: SandboxRecord, plan: WorkloadPlan | None, workload: Workload) -> None:
        self._ledger.see(workload)
        state = states.settled(workload.phase)
        entry = await self._ledger.write(
            record, forget_plan=True, state=state, reason=workload.reason, message=workload.message
        )
        asks_itself = self._hosts.of(record).runtime.truth is not None
        if plan is not None and not asks_itself and _changed_since(plan, record):
            await self._apply(entry.record)

    async def _apply(self, record: SandboxRecord) -> None:
        """It was renewed or patched while it was made: the engine may hold such things itself."""
        try:
            await self._hosts.of(record).runtime.apply(record)
        except Exception as error:
            log.warning(
                "a change made during the create did not reach the engine", sandbox_id=record.id, error=str(error)
            )

    async def _failed(self, record: SandboxRecord, error: ShoalError) -> None:
        """Clean up what there is, then show the failure for its time; reconciliation clears what could not be now."""
        outcome: dict[str, Any] = {
            "state": State.FAILED,
            "reason": error.code.rpartition("::")[2],
            "message": error.message,
            "failure": Failure(error.code, error.status),
            "purge_at": utcnow() + timedelta(seconds=self._settings.pending_failure_ttl_seconds),
        }
        await self._remember(replace(record, since=utcnow(), **outcome))
        try:
            await self._remover.clear(record)
        except Exception as second:
            log.warning("clean-up after a failed create failed", sandbox_id=record.id, error=str(second))
        failed = await self._ledger.write(record, forget_plan=True, **outcome)
        self._expiry.arm(record.id, due_time(failed.record))

    async def _remember(self, record: SandboxRecord) -> None:
        """Where several servers share an engine, the others report the reason too."""
        truth = self._hosts.of(record).runtime.truth
        if truth is None or record.hidden:
            return
        try:
            await truth.remember(record)
        except Exception as error:
            log.warning("a failed create is known to this server only", sandbox_id=record.id, error=str(error))

    async def _read_back(self, sandbox_id: str) -> WorkloadPlan | None:
        """The plan; None if there is none that can be read. Raises Unavailable."""
        try:
            return await self._store.plan(sandbox_id)
        except Unavailable:
            raise
        except Exception:
            log.exception("the plan of a sandbox cannot be read", sandbox_id=sandbox_id)
            return None

    async def _insist(self, call: Callable[[], Awaitable[T]], sandbox_id: str) -> T:
        """Call until store and engine are there: there is no caller to answer. Raises whatever else it raises."""
        backoff = Backoff(STORE_BACKOFF_FIRST, STORE_BACKOFF_MAX)
        while True:
            try:
                return await call()
            except (Unavailable, EngineFailure) as error:
                cause, delay = str(error), backoff.next()
            log.warning("store or engine is away, will be tried again", sandbox_id=sandbox_id, error=cause, after=delay)
            await asyncio.sleep(delay)


def _changed_since(plan: WorkloadPlan, record: SandboxRecord) -> bool:
    """Whether it was renewed or patched after the plan was drawn up."""
    return (plan.expires_at, plan.metadata) != (record.expires_at, record.metadata)
