"""Provisioning: makes a plan real behind the 202, and ends it as Running or as Failed with the reason.

A create that a delete overtakes while it waits for its turn is given up at once. One that a crash interrupts begins
again at the next start, from the durable plan; the runtime completes or replaces what the first try left. While the
store is away, the outcome is kept until it can be written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

import structlog
from msgspec.structs import replace

from shoal.config.settings import EngineSettings
from shoal.engine import states
from shoal.engine.expiry import ExpiryScheduler
from shoal.engine.hosts import GivenUp, Hosts
from shoal.engine.ledger import Ledger, utcnow
from shoal.engine.removal import Remover, due_time
from shoal.errors import EngineFailure, InternalError, ShoalError
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Workload
from shoal.plugin.interfaces import Store
from shoal.view.index import View

log = structlog.get_logger("shoal.lifecycle")
T = TypeVar("T")

STORE_BACKOFF_FIRST, STORE_BACKOFF_MOST = 0.5, 30.0
"""Seconds between two tries of a store call that provisioning cannot go on without."""


class Provisioner:
    """Runs on a sandbox's lane."""

    def __init__(
        self,
        settings: EngineSettings,
        view: View,
        ledger: Ledger,
        store: Store,
        hosts: Hosts,
        remover: Remover,
        expiry: ExpiryScheduler,
    ) -> None:
        self._settings = settings
        self._view = view
        self._ledger = ledger
        self._store = store
        self._hosts = hosts
        self._remover = remover
        self._expiry = expiry
        self._stops: dict[str, asyncio.Event] = {}

    def give_up(self, sandbox_id: str) -> None:
        """A removal is coming: a create that still waits for its turn, or to try again, ends now and stays Pending.

        If the removal does not happen after all, the caller calls `provision` again.
        """
        if sandbox_id in self._stops:
            self._stops[sandbox_id].set()

    async def provision(self, sandbox_id: str, plan: WorkloadPlan | None = None) -> None:
        """Realise the plan (read back from the store when not given) of a Pending sandbox. Never raises ShoalError.

        A sandbox whose runtime is not enabled stays Pending until a server that has it takes it up.
        """
        entry = self._view.get(sandbox_id)
        if entry is None or entry.record.state is not State.PENDING:
            return
        try:
            self._hosts.of(entry.record)
        except ShoalError as error:
            log.warning("create cannot go on", sandbox_id=sandbox_id, error=str(error))
            return
        stop = self._stops[sandbox_id] = asyncio.Event()
        try:
            await self._settle(entry.record, plan, stop)
        except GivenUp:
            return
        finally:
            del self._stops[sandbox_id]

    async def _settle(self, record: SandboxRecord, plan: WorkloadPlan | None, stop: asyncio.Event) -> None:
        """Make the plan real and write down what came of it."""
        if plan is None:
            plan = await self._insist(lambda: self._store.plan(record.id), record.id, stop)
        try:
            if plan is None:
                raise InternalError(codes.INTERNAL_ERROR, "The plan of this sandbox is lost.")
            workload = await self._attempts(record, plan, stop)
        except GivenUp:
            raise
        except ShoalError as error:
            await self._failed(record, error, stop)
        except Exception:
            log.exception("runtime failed in an unforeseen way", sandbox_id=record.id, runtime=record.runtime)
            await self._failed(
                record, InternalError(codes.INTERNAL_ERROR, "The runtime failed in an unforeseen way."), stop
            )
        else:
            await self._succeeded(record, workload, stop)

    async def _attempts(self, record: SandboxRecord, plan: WorkloadPlan, stop: asyncio.Event) -> Workload:
        host = self._hosts.of(record)
        plan = replace(plan, expires_at=record.expires_at, metadata=record.metadata)  # changed since it was drawn up?
        attempts = self._settings.provision_attempts
        for attempt in range(1, attempts + 1):
            try:
                async with host.call(record.id, unless=stop) as runtime:
                    return await runtime.create(plan, lambda *said: self._ledger.progress(record.id, *said))
            except EngineFailure as error:
                if error.retry_after is None or attempt == attempts:
                    raise
                delay = error.retry_after
                log.warning(
                    "create will be retried", sandbox_id=record.id, attempt=attempt, after=delay, code=error.code
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await stop.wait()
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _succeeded(self, record: SandboxRecord, workload: Workload, stop: asyncio.Event) -> None:
        current = self._view.get(record.id)
        assert current is not None  # noqa: S101 - only this lane removes it
        self._ledger.see(workload)
        await self._insist(
            lambda: self._ledger.write(
                current.record,
                forget_plan=True,
                state=states.settled(workload.phase),
                reason=workload.reason,
                message=workload.message,
            ),
            record.id,
            stop,
        )

    async def _failed(self, record: SandboxRecord, error: ShoalError, stop: asyncio.Event) -> None:
        """Clean up what there is, then show the failure for its time; reconciliation clears what could not be now."""
        try:
            await self._remover.clear(record)
        except Exception as second:
            log.warning("clean-up after a failed create failed", sandbox_id=record.id, error=str(second))
        failed = await self._insist(
            lambda: self._ledger.write(
                record,
                forget_plan=True,
                state=State.FAILED,
                reason=error.code.rpartition("::")[2],
                message=error.message,
                purge_at=utcnow() + timedelta(seconds=self._settings.pending_failure_ttl_seconds),
            ),
            record.id,
            stop,
        )
        self._expiry.arm(record.id, due_time(failed.record))

    async def _insist(self, call: Callable[[], Awaitable[T]], sandbox_id: str, stop: asyncio.Event) -> T:
        """Call until the store takes it: there is no caller to tell. Raises GivenUp once a removal is waiting."""
        backoff = STORE_BACKOFF_FIRST
        while True:
            try:
                return await call()
            except Exception as error:
                log.warning(
                    "store is away, will be tried again", sandbox_id=sandbox_id, error=str(error), after=backoff
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff):
                    await stop.wait()
                raise GivenUp
            backoff = min(backoff * 2, STORE_BACKOFF_MOST)
