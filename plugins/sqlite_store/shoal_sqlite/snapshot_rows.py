"""Snapshots as rows of a table that is shared with another server (docs/wire/docker.md section 11)."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from shoal.plugin.interfaces import SnapshotRecord

SELECT = (
    "SELECT id, source_sandbox_id, shoal_runtime, state, created_at, updated_at, name, namespace, restore_config,"
    " reason, message, last_transition_at FROM snapshots"
)

UPSERT = (
    "INSERT INTO snapshots (id, source_sandbox_id, shoal_runtime, state, created_at, updated_at, name, namespace,"
    " restore_config, reason, message, last_transition_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET source_sandbox_id = excluded.source_sandbox_id,"
    " shoal_runtime = excluded.shoal_runtime, state = excluded.state, created_at = excluded.created_at,"
    " updated_at = excluded.updated_at, name = excluded.name, namespace = excluded.namespace,"
    " restore_config = excluded.restore_config, reason = excluded.reason, message = excluded.message,"
    " last_transition_at = excluded.last_transition_at"
)
"""Leaves the columns alone that are not ours to write (``description``)."""


class _RestoreConfig(Struct):
    """The JSON of ``restore_config``."""

    backend: str | None = None
    image: str | None = None


_restore_config = msgspec.json.Decoder(_RestoreConfig)


def to_row(snapshot: SnapshotRecord) -> tuple[str | None, ...]:
    """The parameters of `UPSERT`."""
    return (
        snapshot.id,
        snapshot.sandbox_id,
        snapshot.runtime,
        snapshot.state,
        snapshot.created_at.isoformat(),
        snapshot.updated_at.isoformat(),
        snapshot.name,
        snapshot.namespace,
        msgspec.json.encode(_RestoreConfig(image=snapshot.image)).decode(),
        snapshot.reason,
        snapshot.message,
        None if snapshot.last_transition_at is None else snapshot.last_transition_at.isoformat(),
    )


def from_row(row: sqlite3.Row | tuple[str, ...]) -> SnapshotRecord:
    """A snapshot from a row of `SELECT`.

    One of the other server names no runtime. Raises ValueError for a row that makes no sense.
    """
    (id_, source, runtime, state, created, updated, name, namespace, restore, reason, message, transition) = row
    return SnapshotRecord(
        id=id_,
        sandbox_id=source,
        runtime=runtime or "",
        state=state,
        created_at=_time(created),
        updated_at=_time(updated),
        name=name,
        namespace=namespace,
        image=_restore_config.decode(restore).image if restore else None,
        reason=reason,
        message=message,
        last_transition_at=_time(transition) if transition else None,
    )


def _time(text: str) -> datetime:
    """ISO 8601; a time without a zone is UTC."""
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
