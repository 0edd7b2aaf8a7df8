"""What cannot be read is set aside, so that one bad row does not keep a server from all the others.

The row's bytes are kept in a table of their own. A sandbox gets a record of what could be read of it, so that its
workload is neither lost nor leaked: it is listed, judged by its engine, and can be deleted.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec.structs import fields

from shoal.models.sandbox import SandboxRecord, State
from shoal.models.secret import decode_hook

UNREADABLE: Final = "RECORD_UNREADABLE"
"""Reason of a sandbox of whose record only parts could be read."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS shoal_unreadable"
    " (kind TEXT NOT NULL, id TEXT NOT NULL, content BLOB NOT NULL, set_aside_at TEXT NOT NULL)"
)


def keep(connection: sqlite3.Connection, kind: str, id_: str, content: bytes) -> None:
    """Keep the bytes of a row that cannot be read."""
    connection.execute(_TABLE)
    connection.execute(
        "INSERT INTO shoal_unreadable (kind, id, content, set_aside_at) VALUES (?, ?, ?, ?)",
        (kind, id_, content, datetime.now(UTC).isoformat()),
    )


def salvaged(id_: str, content: bytes) -> SandboxRecord:
    """A record of what can be read of a sandbox; Failed where not even its state can, of no runtime likewise."""
    raw = _object(content)
    kept: dict[str, Any] = {}
    for field in fields(SandboxRecord):
        if field.encode_name in raw:
            try:
                kept[field.name] = msgspec.convert(raw[field.encode_name], field.type, dec_hook=decode_hook)
            except msgspec.ValidationError:
                continue
    lost = [name for name in raw if name not in kept and name != "id"] or ["all of it"]
    now = datetime.now(UTC)
    known = {
        "state": State.FAILED,
        "runtime": "",
        "since": now,
        "created_at": now,
        "entrypoint": [],
        **kept,
    }
    message = f"Its record could not be read in full; lost: {', '.join(sorted(lost))}."
    return SandboxRecord(**{**known, "id": id_, "reason": UNREADABLE, "message": message})


def _object(content: bytes) -> dict[str, Any]:
    try:
        raw = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return {}
    return raw if isinstance(raw, dict) else {}
