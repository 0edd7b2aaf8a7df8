"""Provisioning: makes a plan real behind the 202, and ends it as Running or as Failed with the reason.

A create that a delete overtakes while it waits for its turn is given up at once. One that a crash interrupts begins
again at the next start, from the durable plan; the runtime completes or replaces what the first try left.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import structlog

from shoal.config.settings import EngineSettings
from shoal.engine import states
from shoal.engine.expiry import ExpiryScheduler
from shoal.engine.hosts import Hosts
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


class GivenUp(Exception):
    """A delete overtook the create."""


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
        """A delete is coming: a create that still waits for its turn, or to try again, ends now."""
        if sandbox_id in self._stops:
            self._stops[sandbox_id].set()

    async def provision(self, sandbox_id: str, plan: WorkloadPlan | None = None) -> None:
        """Realise the plan (read back from the store when not given) of a Pending sandbox. Never raises ShoalError."""
        entry = self._view.get(sandbox_id)
        if entry is None or entry.record.state is not State.PENDING:
            return
        stop = self._stops.setdefault(sandbox_id, asyncio.Event())
        try:
            plan = plan or await self._store.plan(sandbox_id)
            if plan is None:
                raise InternalError(codes.INTERNAL_ERROR, "The plan of this sandbox is lost.")
            workload = await self._attempts(entry.record, plan, stop)
        except GivenUp:
            return
        except ShoalError as error:
            await self._failed(entry.record, error)
        except Exception:
            log.exception("runtime failed in an unforeseen way", sandbox_id=sandbox_id, runtime=entry.record.runtime)
            await self._failed(
                entry.record, InternalError(codes.INTERNAL_ERROR, "The runtime failed in an unforeseen way.")
            )
        else:
            await self._succeeded(entry.record, workload)
        finally:
            del self._stops[sandbox_id]

    async def _attempts(self, record: SandboxRecord, plan: WorkloadPlan, stop: asyncio.Event) -> Workload:
        host = self._hosts.of(record)
        attempts = self._settings.provision_attempts
        for attempt in range(1, attempts + 1):
            try:
                async with host.call(record.id) as runtime:
                    if stop.is_set():
                        raise GivenUp
                    return await runtime.create(plan, lambda *said: self._ledger.progress(record.id, *said))
            except EngineFailure as error:
                if error.retry_after is None or attempt == attempts:
                    raise
                delay = error.retry_after
                log.warning(
                    "create will be retried", sandbox_id=record.id, attempt=attempt, after=delay, code=error.code
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _succeeded(self, record: SandboxRecord, workload: Workload) -> None:
        current = self._view.get(record.id)
        assert current is not None  # noqa: S101 - only this lane removes it
        self._ledger.see(workload)
        await self._ledger.write(
            current.record,
            forget_plan=True,
            state=states.settled(workload.phase),
            reason=workload.reason,
            message=workload.message,
        )

    async def _failed(self, record: SandboxRecord, error: ShoalError) -> None:
        """Clean up what there is, then show the failure for its time; the scheduler cleans up what could not be now."""
        try:
            await self._remover.clear(record)
        except Exception as second:
            log.warning("clean-up after a failed create failed", sandbox_id=record.id, error=str(second))
        failed = await self._ledger.write(
            record,
            forget_plan=True,
            state=State.FAILED,
            reason=error.code.rpartition("::")[2],
            message=error.message,
            purge_at=utcnow() + timedelta(seconds=self._settings.pending_failure_ttl_seconds),
        )
        self._expiry.arm(record.id, due_time(failed.record))
