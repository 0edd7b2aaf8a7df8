"""Stores: what must survive the process.

The kernel writes an intent here before it calls an engine, and reads everything back at start. Every method that
changes something returns only when the change is durable; a call is atomic. A store without room raises StoreFull: new
sandboxes are refused then, and ending goes on, written as soon as there is room.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from msgspec import Struct

from shoal.models.plan import WorkloadPlan
from shoal.models.pools import PoolRecord
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.interfaces.component import Component


class IdempotencyKey(Struct, kw_only=True, frozen=True):
    """What an Idempotency-Key was first used for.

    Attributes:
        key: a digest of the caller and the key that it sent, so that two callers may use one key. A store keeps one
            `IdempotencyKey` for each and replaces it by a later one.
        fingerprint: SHA-256 of the request; another one under the same key is a conflict.
        sandbox_id: what the first use made; it may be gone by now.
        expires_at: when the key may be forgotten (UTC).
    """

    key: str
    fingerprint: str
    sandbox_id: str
    expires_at: datetime


class SnapshotRecord(Struct, kw_only=True, frozen=True):
    """The durable record of one snapshot (docs/wire/docker.md section 11).

    Attributes:
        sandbox_id: of which it was taken; that may be gone.
        runtime: name of the runtime that keeps its content.
        state: ``Creating``, ``Ready``, ``Failed`` or ``Deleting``.
        created_at, updated_at, last_transition_at: UTC; the last is when ``state`` changed.
        name: the caller's, if it gave one.
        namespace: of the tenant, as opensandbox-server keeps it; kept as it is.
        image: the runtime's own reference to the content; there once it is ``Ready``.
        reason, message: why it is in that state.
    """

    id: str
    sandbox_id: str
    runtime: str
    state: str
    created_at: datetime
    updated_at: datetime
    name: str | None = None
    namespace: str | None = None
    image: str | None = None
    reason: str | None = None
    message: str | None = None
    last_transition_at: datetime | None = None


class Store(Component, ABC):
    """Durable storage, in use if ``store.type`` is its name. `start` opens it, creating or migrating its schema.

    The rules, with a complete example, are in docs/writing-a-store.md. A record or a snapshot of which the store does
    not know the runtime has an empty ``runtime``: the default's.
    """

    async def set_aside(self) -> None:
        """Called once, before anything is read: put away what cannot be read, so that the rest can; the default does
        nothing.

        A sandbox must not be lost by it, or its workload would run on unseen: what is known of it stays among
        `sandboxes`, Failed with a message where not even its state can be read. The bytes are kept for people.
        """

    @abstractmethod
    async def sandboxes(self) -> list[SandboxRecord]:
        """Every record, in no particular order. Called once, at start.

        Raises ConfigError for one that cannot be read: to skip it would leave its workload running unseen.
        """

    @abstractmethod
    async def add(self, record: SandboxRecord, plan: WorkloadPlan, key: IdempotencyKey | None) -> None:
        """A new sandbox with its plan and, if given, its idempotency key, in one commit.

        A key that is there already is replaced: the kernel has seen that it is free. Raises Conflict if the id is
        taken, StoreFull without room; then nothing of it is kept, the key neither.
        """

    @abstractmethod
    async def save(
        self, record: SandboxRecord, *, forget_plan: bool = False, key: IdempotencyKey | None = None
    ) -> None:
        """The record as it now is, new or not, and the key if given, in one commit.

        With ``forget_plan`` the plan (and the secrets in it) goes in the same commit; without it the plan stays. A key
        replaces the one of its name, also by one that has expired: so the kernel takes a key back.
        """

    @abstractmethod
    async def plan(self, sandbox_id: str) -> WorkloadPlan | None:
        """The plan of a sandbox that is not provisioned yet; None once forgotten."""

    @abstractmethod
    async def remove(self, sandbox_id: str) -> None:
        """Forget a sandbox and its plan; absent is success. Its idempotency key stays until it expires.

        Repeated by the kernel until it succeeds, where it raises StoreFull.
        """

    @abstractmethod
    async def idempotency_keys(self) -> list[IdempotencyKey]:
        """Every key that has not expired. Called once, at start."""

    @abstractmethod
    async def forget_keys(self, before: datetime) -> None:
        """Drop the keys whose ``expires_at`` is before then (UTC), and no others. Called every ten minutes."""

    @abstractmethod
    async def snapshots(self) -> list[SnapshotRecord]:
        """Every snapshot. Called once, at start."""

    @abstractmethod
    async def save_snapshot(self, snapshot: SnapshotRecord) -> None:
        """Insert or replace."""

    @abstractmethod
    async def remove_snapshot(self, snapshot_id: str) -> None:
        """Forget a snapshot; absent is success."""

    @abstractmethod
    async def pools(self) -> list[PoolRecord]:
        """Every pool. Called once, at start."""

    @abstractmethod
    async def save_pool(self, pool: PoolRecord) -> None:
        """Insert or replace, by id. Raises Conflict if another pool has its name."""

    @abstractmethod
    async def remove_pool(self, pool_id: str) -> None:
        """Forget a pool; absent is success. Its members are the kernel's to remove."""
