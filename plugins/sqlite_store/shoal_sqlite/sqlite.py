"""The embedded store: every record as JSON in one SQLite file, written by one thread.

Reads go through the same thread, so a call sees everything that was called before it. The kernel reads the whole store
once, at start, and serves from memory afterwards; there is nothing to gain from a second connection.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from shoal.errors import ConfigError
from shoal.kit import hindrance
from shoal.models.plan import WorkloadPlan
from shoal.models.pools import PoolRecord
from shoal.models.sandbox import SandboxRecord
from shoal.models.secret import decode_hook, encode_hook
from shoal.plugin.interfaces import IdempotencyKey, SnapshotRecord, Store
from shoal_sqlite import salvage, snapshot_rows
from shoal_sqlite.database import Database, open_database
from shoal_sqlite.space import Space
from shoal_sqlite.writer import Writer

log = structlog.get_logger("shoal.sqlite")
T = TypeVar("T")

_INSERT_SANDBOX: Final = "INSERT INTO shoal_sandboxes (id, record) VALUES (?, ?)"
_SAVE_SANDBOX: Final = _INSERT_SANDBOX + " ON CONFLICT (id) DO UPDATE SET record = excluded.record"
_REMOVE_SANDBOX: Final = "DELETE FROM shoal_sandboxes WHERE id = ?"
_INSERT_PLAN: Final = "INSERT INTO shoal_plans (sandbox_id, plan) VALUES (?, ?)"
_REMOVE_PLAN: Final = "DELETE FROM shoal_plans WHERE sandbox_id = ?"
# Replaces a key that expired and was not swept yet: the kernel has already decided that it is free.
_SAVE_KEY: Final = "INSERT OR REPLACE INTO shoal_idempotency_keys (key, expires_at, value) VALUES (?, ?, ?)"

_SAVE_POOL: Final = (
    "INSERT INTO shoal_pools (id, name, record) VALUES (?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record"
)

_FORGET: Final = {
    "pool": "DELETE FROM shoal_pools WHERE id = ?",
    "key": "DELETE FROM shoal_idempotency_keys WHERE key = ?",
}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder(enc_hook=encode_hook).encode
_record = msgspec.json.Decoder(SandboxRecord, dec_hook=decode_hook)
_plan = msgspec.json.Decoder(WorkloadPlan, dec_hook=decode_hook)
_key = msgspec.json.Decoder(IdempotencyKey)
_pool = msgspec.json.Decoder(PoolRecord)


class SqliteStore(Store):
    """A `Store` in one file that no other server may use at the same time.

    Beyond the interface, calls that change something raise Unavailable with a ``STORE::`` code when the file cannot be
    written (no space, an I/O error); nothing of such a call is kept, and the store goes on once it can.

    Args:
        path: the file; it and its folder are made if need be, for their owner alone.
    """

    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._skipped: set[str] = set()
        self._space = Space(Path(os.path.realpath(path)))
        self._writer = Writer(self._open)

    def check_config(self) -> None:
        """Raises ConfigError if the file could not be written or made."""
        why = hindrance(self._path)
        if why is not None:
            raise ConfigError(f"store.path: {why}")

    async def start(self) -> None:
        """Open the file, lock it and migrate it. Raises ConfigError (see `shoal_sqlite.database.open_database`)."""
        await self._writer.start()

    async def stop(self) -> None:
        """Commit what was accepted and close the file."""
        await self._writer.stop()

    async def ping(self) -> None:
        """A durable write that changes nothing. Raises Unavailable, also where there is no room for new sandboxes."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE shoal_schema SET version = version")
            self._space.require()

        await self._writer.run(work)

    async def set_aside(self) -> None:
        """Put away what cannot be read, in one transaction; a sandbox stays with what can be read of it.

        Snapshots stay in their table, which another server may read better, and are left out of `snapshots`.
        """

        def work(connection: sqlite3.Connection) -> list[tuple[str, str]]:
            return [
                *self._salvage_sandboxes(connection),
                *self._put_away(connection, "pool", _pool, "SELECT id, record FROM shoal_pools"),
                *self._put_away(connection, "key", _key, "SELECT key, value FROM shoal_idempotency_keys"),
                *self._skip_snapshots(connection),
            ]

        for kind, id_ in await self._writer.run(work):
            log.error("what the store holds could not be read and was set aside", kind=kind, id=id_)

    def _salvage_sandboxes(self, connection: sqlite3.Connection) -> list[tuple[str, str]]:
        rows = connection.execute("SELECT id, record FROM shoal_sandboxes").fetchall()
        bad = [(id_, blob) for id_, blob in rows if not _readable(_record, blob)]
        for id_, blob in bad:
            salvage.keep(connection, "sandbox", id_, blob)
            record = salvage.salvaged(id_, blob)
            connection.execute(_SAVE_SANDBOX, (id_, _encode(record)))
        return [("sandbox", id_) for id_, _ in bad]

    def _put_away(
        self, connection: sqlite3.Connection, kind: str, decoder: msgspec.json.Decoder[Any], select: str
    ) -> list[tuple[str, str]]:
        bad = [(id_, blob) for id_, blob in connection.execute(select).fetchall() if not _readable(decoder, blob)]
        for id_, blob in bad:
            salvage.keep(connection, kind, id_, blob)
            connection.execute(_FORGET[kind], (id_,))
        return [(kind, id_) for id_, _ in bad]

    def _skip_snapshots(self, connection: sqlite3.Connection) -> list[tuple[str, str]]:
        for row in connection.execute(snapshot_rows.SELECT).fetchall():
            try:
                self._snapshot(row)
            except ConfigError:
                self._skipped.add(row[0])
        return [("snapshot", id_) for id_ in sorted(self._skipped)]

    async def sandboxes(self) -> list[SandboxRecord]:
        """Every record. Raises ConfigError naming one that cannot be read: skipping it would leak its workload."""

        def work(connection: sqlite3.Connection) -> list[SandboxRecord]:
            return [
                self._decoded(_record, blob, f"sandbox {id_}")
                for id_, blob in connection.execute("SELECT id, record FROM shoal_sandboxes")
            ]

        return await self._writer.run(work)

    async def add(self, record: SandboxRecord, plan: WorkloadPlan, key: IdempotencyKey | None) -> None:
        """A new sandbox, its plan and its key. Raises Conflict if the id is taken, Unavailable on a full disk."""
        sandbox = (record.id, _encode(record))
        planned = (record.id, _encode(plan))
        keyed = _keyed(key)

        def work(connection: sqlite3.Connection) -> None:
            self._space.require()
            connection.execute(_INSERT_SANDBOX, sandbox)
            connection.execute(_INSERT_PLAN, planned)
            if keyed is not None:
                connection.execute(_SAVE_KEY, keyed)

        await self._writer.run(work)

    async def save(
        self, record: SandboxRecord, *, forget_plan: bool = False, key: IdempotencyKey | None = None
    ) -> None:
        """The record as it now is, new or not, and its key."""
        sandbox = (record.id, _encode(record))
        keyed = _keyed(key)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_SAVE_SANDBOX, sandbox)
            if forget_plan:
                connection.execute(_REMOVE_PLAN, (record.id,))
            if keyed is not None:
                connection.execute(_SAVE_KEY, keyed)

        await self._writer.run(work)

    async def plan(self, sandbox_id: str) -> WorkloadPlan | None:
        """The plan; None once forgotten."""

        def work(connection: sqlite3.Connection) -> WorkloadPlan | None:
            row = connection.execute("SELECT plan FROM shoal_plans WHERE sandbox_id = ?", (sandbox_id,)).fetchone()
            return None if row is None else self._decoded(_plan, row[0], f"the plan of sandbox {sandbox_id}")

        return await self._writer.run(work)

    async def remove(self, sandbox_id: str) -> None:
        """Forget record and plan."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_REMOVE_SANDBOX, (sandbox_id,))
            connection.execute(_REMOVE_PLAN, (sandbox_id,))

        await self._writer.run(work)

    async def idempotency_keys(self) -> list[IdempotencyKey]:
        """Every key that is still in force."""
        now = _microseconds(datetime.now(UTC))

        def work(connection: sqlite3.Connection) -> list[IdempotencyKey]:
            rows = connection.execute("SELECT value FROM shoal_idempotency_keys WHERE expires_at > ?", (now,))
            return [self._decoded(_key, blob, "an idempotency key") for (blob,) in rows]

        return await self._writer.run(work)

    async def forget_keys(self, before: datetime) -> None:
        """Drop the keys that expired before then."""
        bound = _microseconds(before)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM shoal_idempotency_keys WHERE expires_at < ?", (bound,))

        await self._writer.run(work)

    async def snapshots(self) -> list[SnapshotRecord]:
        """Every snapshot, those of another server included. Raises ConfigError naming one that cannot be read."""

        def work(connection: sqlite3.Connection) -> list[SnapshotRecord]:
            rows = connection.execute(snapshot_rows.SELECT)
            return [self._snapshot(row) for row in rows if row[0] not in self._skipped]

        return await self._writer.run(work)

    async def save_snapshot(self, snapshot: SnapshotRecord) -> None:
        """Insert or replace."""
        row = snapshot_rows.to_row(snapshot)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(snapshot_rows.UPSERT, row)

        await self._writer.run(work)

    async def remove_snapshot(self, snapshot_id: str) -> None:
        """Forget a snapshot."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM snapshots WHERE id = ?", (snapshot_id,))

        await self._writer.run(work)

    async def pools(self) -> list[PoolRecord]:
        """Every pool. Raises ConfigError naming one that cannot be read."""

        def work(connection: sqlite3.Connection) -> list[PoolRecord]:
            rows = connection.execute("SELECT name, record FROM shoal_pools")
            return [self._decoded(_pool, blob, f"pool {name}") for name, blob in rows]

        return await self._writer.run(work)

    async def save_pool(self, pool: PoolRecord) -> None:
        """Insert or replace. Raises Conflict if another pool has its name."""
        row = (pool.id, pool.name, _encode(pool))

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_SAVE_POOL, row)

        await self._writer.run(work)

    async def remove_pool(self, pool_id: str) -> None:
        """Forget a pool."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM shoal_pools WHERE id = ?", (pool_id,))

        await self._writer.run(work)

    def _open(self) -> Database:
        return open_database(self._path, self._space)

    def _decoded(self, decoder: msgspec.json.Decoder[T], blob: bytes, what: str) -> T:
        try:
            return decoder.decode(blob)
        except msgspec.MsgspecError:
            # Without msgspec's own text or cause: a plan may hold secrets.
            raise self._unreadable(what) from None

    def _snapshot(self, row: tuple[str, ...]) -> SnapshotRecord:
        try:
            return snapshot_rows.from_row(row)
        except (ValueError, TypeError) as error:
            raise self._unreadable(f"snapshot {row[0]}") from error

    def _unreadable(self, what: str) -> ConfigError:
        return ConfigError(f"store.path {self._path} holds {what} in a form that cannot be read")


def _readable(decoder: msgspec.json.Decoder[Any], blob: bytes) -> bool:
    try:
        decoder.decode(blob)
    except msgspec.MsgspecError:
        return False
    return True


def _keyed(key: IdempotencyKey | None) -> tuple[str, int, bytes] | None:
    return None if key is None else (key.key, _microseconds(key.expires_at), _encode(key))


def _microseconds(at: datetime) -> int:
    """Since 1970: whole numbers, so that a time survives the round trip."""
    return (at - _EPOCH) // timedelta(microseconds=1)
