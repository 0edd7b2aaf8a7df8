"""Tables and migrations.

The file may be shared with another server of the same API, which keeps its snapshots in the table ``snapshots``
(docs/wire/docker.md section 11): that table keeps its shape, whoever made it, and gains one column that the other
server need not know. Everything else is in tables of our own, whose names begin ``shoal_``; so is the version, since
``PRAGMA user_version`` belongs to the file and not to us.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from shoal.errors import ConfigError

_OWN_TABLES = (
    "CREATE TABLE shoal_sandboxes (id TEXT PRIMARY KEY, record BLOB NOT NULL)",
    "CREATE TABLE shoal_plans (sandbox_id TEXT PRIMARY KEY, plan BLOB NOT NULL)",
    # expires_at in microseconds since 1970, UTC
    "CREATE TABLE shoal_idempotency_keys (key TEXT PRIMARY KEY, expires_at INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE INDEX shoal_idempotency_keys_expiry ON shoal_idempotency_keys (expires_at)",
)

_POOLS = "CREATE TABLE shoal_pools (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL)"

_SNAPSHOTS = (
    """CREATE TABLE snapshots (
        id TEXT PRIMARY KEY,
        source_sandbox_id TEXT NOT NULL,
        namespace TEXT,
        name TEXT,
        description TEXT,
        restore_config TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        message TEXT,
        last_transition_at TEXT,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL
    )""",
    "CREATE INDEX idx_snapshots_source_sandbox_id ON snapshots (source_sandbox_id)",
    "CREATE INDEX idx_snapshots_state ON snapshots (state)",
    "CREATE INDEX idx_snapshots_created_at ON snapshots (created_at DESC)",
    "CREATE INDEX idx_snapshots_name_namespace ON snapshots (name, namespace)",
)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest version, one transaction a step.

    Raises ConfigError if it is newer than this code; ``path`` is for that message.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS shoal_schema (version INTEGER NOT NULL)")
    version = _version(connection)
    newest = len(MIGRATIONS)
    if version > newest:
        message = f"store.path {path} has schema version {version}, and this shoal knows none above {newest}"
        raise ConfigError(f"{message}; use the newer shoal that made it, or another store.path")
    for number in range(version, newest):
        connection.execute("BEGIN IMMEDIATE")
        try:
            MIGRATIONS[number](connection)
            connection.execute("DELETE FROM shoal_schema")
            connection.execute("INSERT INTO shoal_schema (version) VALUES (?)", (number + 1,))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT max(version) FROM shoal_schema").fetchone()
    return int(row[0] or 0)


# --- The steps: append, never change ---------------------------------------------------------------------------------


def _first(connection: sqlite3.Connection) -> None:
    for statement in _OWN_TABLES:
        connection.execute(statement)
    if not _columns(connection):
        for statement in _SNAPSHOTS:
            connection.execute(statement)
    _let_namespace_be_null(connection)
    if "shoal_runtime" not in _columns(connection):
        connection.execute("ALTER TABLE snapshots ADD COLUMN shoal_runtime TEXT")


def _second(connection: sqlite3.Connection) -> None:
    connection.execute(_POOLS)


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_first, _second]
"""Step *n* leads from version *n* to *n* + 1."""


def _let_namespace_be_null(connection: sqlite3.Connection) -> None:
    """Older files of the other server lack the column ``namespace``, or have it NOT NULL; null is "no tenants" now."""
    not_null = _columns(connection).get("namespace")
    if not_null is False:
        return
    if not_null is None:
        connection.execute("ALTER TABLE snapshots ADD COLUMN namespace TEXT")
        return
    indexes = _indexes_on_namespace(connection)
    for name in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    connection.execute("ALTER TABLE snapshots RENAME COLUMN namespace TO namespace_before")
    connection.execute("ALTER TABLE snapshots ADD COLUMN namespace TEXT")
    connection.execute("UPDATE snapshots SET namespace = nullif(namespace_before, '')")
    connection.execute("ALTER TABLE snapshots DROP COLUMN namespace_before")
    for definition in indexes.values():
        connection.execute(definition)


def _columns(connection: sqlite3.Connection) -> dict[str, bool]:
    """Column name → is it NOT NULL; empty if there is no such table."""
    return {row[1]: bool(row[3]) for row in connection.execute("PRAGMA table_info(snapshots)")}


def _indexes_on_namespace(connection: sqlite3.Connection) -> dict[str, str]:
    """Name → definition of each index that names the column."""
    rows = connection.execute(
        "SELECT m.name, m.sql FROM sqlite_master AS m JOIN pragma_index_info(m.name) AS i"
        " WHERE m.type = 'index' AND m.tbl_name = 'snapshots' AND m.sql IS NOT NULL AND i.name = 'namespace'"
    )
    return dict(rows.fetchall())
