"""Accepting a create: everything from a valid request to a durable intent, and to the engine's knowledge of it."""

from __future__ import annotations

import structlog
from msgspec.structs import replace

from shoal.errors import Conflict, Unavailable
from shoal.lifecycle import admission
from shoal.lifecycle.core import Core
from shoal.lifecycle.hosts import Host
from shoal.lifecycle.idempotency import check_same, follow
from shoal.lifecycle.pools.pools import Pools, Reserved
from shoal.lifecycle.provision import Provisioner
from shoal.lifecycle.removal import Remover
from shoal.lifecycle.snapshots import Snapshots
from shoal.models import codes
from shoal.models.create import SandboxSpec, parse_create
from shoal.models.plan import WorkloadPlan
from shoal.models.requests import CreateSandbox
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.calls import contained
from shoal.plugin.interfaces import IdempotencyKey, Principal, SharedTruth
from shoal.view.entry import Entry

log = structlog.get_logger("shoal.lifecycle")


class Creation:
    """Accepts creates; `shoal.lifecycle.provision` then makes them real."""

    def __init__(
        self, core: Core, pools: Pools, snapshots: Snapshots, provisioner: Provisioner, remover: Remover
    ) -> None:
        self._longest = core.settings.server.max_sandbox_timeout_seconds
        self._networks = core.networks
        self._renewals = core.components.renewals
        self._view = core.view
        self._ledger = core.ledger
        self._hosts = core.hosts
        self._lanes = core.lanes
        self._keys = core.keys
        self._arm = core.arm
        self._pools = pools
        self._snapshots = snapshots
        self._provisioner = provisioner
        self._remover = remover
        self._withdrawn: set[str] = set()  # refused by their engine, and not yet Stopping

    async def create(self, request: CreateSandbox, principal: Principal | None, idempotency_key: str | None) -> Entry:
        """The sandbox, or the one that this key made before. Raises as `Sandboxes.create`."""
        spec = parse_create(request, longest_timeout=self._longest)
        if idempotency_key is None:
            return await self._admit(spec, principal, None)
        name, fingerprint = self._keys.name(idempotency_key, principal), admission.fingerprint(request)
        return await self._lanes.run(name, lambda: self._create_once(spec, principal, name, fingerprint))

    async def _create_once(self, spec: SandboxSpec, principal: Principal | None, name: str, fingerprint: str) -> Entry:
        """Runs on the key's own lane: requests with one key come one after another, and one begun is finished."""
        known = self._keys.find(name, fingerprint)
        if known is None:
            return await self._admit(spec, principal, (name, fingerprint))
        entry = self._view.get(known)
        if entry is None or entry.record.hidden:
            raise Conflict(codes.IDEMPOTENCY_MISMATCH, "The sandbox that this Idempotency-Key made is gone.")
        return self._certain(entry)

    def _certain(self, entry: Entry) -> Entry:
        """A sandbox that a key made, if it may be answered with once more. Raises Unavailable while that is in doubt.

        Where the engine holds the truth, a create may be about to be let go of: its engine refused it, or a restart
        does not find it there.
        """
        record = entry.record
        truth = self._hosts.of(record).runtime.truth if self._hosts.shares_truth(record) else None
        if truth is None:
            return entry
        unknown = record.state is State.PENDING and truth.held(record.id) is None
        if unknown or record.state is State.STOPPING or record.id in self._withdrawn:
            raise Unavailable(codes.KEY_IN_DOUBT, "What this Idempotency-Key made before may be on its way out.")
        return entry

    async def _admit(self, spec: SandboxSpec, principal: Principal | None, key: tuple[str, str] | None) -> Entry:
        host = self._pools.host_of(spec) or self._hosts.pick(spec.extensions)
        with self._snapshots.restoring(spec.snapshot_id) as snapshot:
            admission.refuse_unsupported(spec, host)
            draft = admission.draw_up(spec, host, snapshot)
            admission.check_access(draft, host, self._renewals)
            served = await self._pools.serve(spec, host, principal, key)
            if isinstance(served, Entry):
                return served
            if served is None:
                return await self._admit_plan(draft, host, principal, key)
            return await self._admit_reserved(served, host, principal, key)

    async def _admit_reserved(
        self, served: Reserved, host: Host, principal: Principal | None, key: tuple[str, str] | None
    ) -> Entry:
        """A new member of a pool, for the caller at once."""
        try:
            with self._snapshots.restoring(served.spec.snapshot_id) as snapshot:
                draft = served.marked(admission.draw_up(served.spec, host, snapshot))
                return await self._admit_plan(draft, host, principal, key, served)
        except BaseException:
            self._pools.release(served)
            raise

    async def _admit_plan(
        self,
        draft: WorkloadPlan,
        host: Host,
        principal: Principal | None,
        key: tuple[str, str] | None,
        reserved: Reserved | None = None,
    ) -> Entry:
        if key is not None and host.runtime.truth is not None:
            draft = follow(draft, *key)
            made = self._view.get(draft.id)
            if made is not None:
                return check_same(self._certain(made), key[1])
        plan = await self._networks.amend(draft)
        with contained(host.part):
            await host.runtime.check(plan)
        record = admission.first_record(plan, principal)
        if reserved is not None:
            record = replace(record, pool=reserved.pool.place(idle=False))
        used_key = None if key is None else self._keys.draw_up(*key, plan.id)
        return await self._lanes.run(record.id, lambda: self._accept(record, plan, used_key))

    async def _accept(self, record: SandboxRecord, plan: WorkloadPlan, key: IdempotencyKey | None) -> Entry:
        """From here on the create happens, whether or not the caller is still there."""
        entry = await self._ledger.add(record, plan, key)
        if plan.warnings:
            log.warning("create accepted, but", sandbox_id=record.id, warnings=plan.warnings)
        if key is not None:
            self._keys.remember(key)
        self._arm(record)
        host = self._hosts.of(record)
        if host.runtime.truth is not None:
            await self._publish(host, host.runtime.truth, record, plan)
        self._provisioner.begin(record.id, plan)
        return entry

    async def _publish(self, host: Host, truth: SharedTruth, record: SandboxRecord, plan: WorkloadPlan) -> None:
        """Let every server know of it. Raises what the runtime refuses it with; then it is on its way out."""
        try:
            with contained(host.part):
                await truth.accept(plan)
        except Exception:
            self._withdrawn.add(record.id)
            self._lanes.post(record.id, lambda: self._withdraw(record))
            await self._ledger.release(record, self._keys.lose(record.id))
            raise

    async def _withdraw(self, record: SandboxRecord) -> None:
        """Remove what the engine did not take; the scheduler tries again what cannot be done now."""
        try:
            await self._remover.remove(record, "REFUSED")
        except Exception as error:
            log.warning("a refused create could not be cleaned up yet", sandbox_id=record.id, error=str(error))
        finally:
            self._withdrawn.discard(record.id)
