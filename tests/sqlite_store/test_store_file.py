"""The file: private, ours alone, migrated, taken over; and one clear line for each way in which it cannot be used."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from shoal.errors import ConfigError
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.interfaces import SnapshotRecord
from shoal_sqlite import schema
from shoal_sqlite.sqlite import SqliteStore

NewSandbox = Callable[[], tuple[SandboxRecord, WorkloadPlan]]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def refused(path: Path) -> str:
    """The text of the ConfigError with which a store on ``path`` refuses to start."""
    store = SqliteStore(path)
    with pytest.raises(ConfigError) as caught:
        await store.start()
    await store.stop()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


async def test_files_and_folder_are_private(store: SqliteStore, path: Path, sandbox: NewSandbox) -> None:
    await store.save(sandbox()[0])
    assert mode(path.parent) == 0o700
    files = sorted(path.parent.iterdir())
    assert {file.name for file in files} == {
        f"shoal.db{suffix}" for suffix in ("", "-wal", "-shm", ".lock", ".reserve")
    }
    assert {mode(file) for file in files} == {0o600}


def put(path: Path, content: bytes) -> None:
    """A file that anyone may read."""
    path.parent.mkdir()
    path.touch(0o644)
    path.write_bytes(content)


async def test_a_file_that_was_open_to_all_becomes_private(path: Path) -> None:
    put(path, b"")
    store = SqliteStore(path)
    await store.start()
    await store.stop()
    assert mode(path) == 0o600


async def test_commits_are_synchronous_in_a_write_ahead_log(store: SqliteStore) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "busy_timeout", "secure_delete")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store._writer.run(pragmas) == ["wal", 2, 5000, 1]


# --- A second server -------------------------------------------------------------------------------------------------


async def test_a_second_server_is_refused_and_the_first_goes_on(
    store: SqliteStore, path: Path, sandbox: NewSandbox
) -> None:
    assert f"in use by another server (process {os.getpid()})" in await refused(path)
    await store.save(sandbox()[0])
    await store.stop()
    second = SqliteStore(path)
    await second.start()
    assert len(await second.sandboxes()) == 1
    await second.stop()


@pytest.mark.parametrize("link", [os.symlink, os.link])
async def test_a_second_server_is_refused_by_another_name_of_the_file(
    store: SqliteStore, path: Path, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    other = tmp_path / "other" / "name.db"
    other.parent.mkdir()
    link(path, other)
    assert "in use by another server" in await refused(other)
    await store.stop()
    second = SqliteStore(other)
    await second.start()
    assert "in use by another server" in await refused(path)
    await second.stop()


async def test_a_second_server_is_refused_by_another_name_of_the_folder(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").symlink_to(path.parent)
    assert "in use by another server" in await refused(tmp_path / "elsewhere" / path.name)


HOLD = """
import asyncio, sys
from pathlib import Path
from shoal_sqlite.sqlite import SqliteStore

async def main():
    await SqliteStore(Path(sys.argv[1])).start()
    print("open", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_the_lock_ends_with_its_process(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as holder:  # noqa: ASYNC220 - a test
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"
            assert f"process {holder.pid}" in await refused(path)
        finally:
            holder.kill()
    store = SqliteStore(path)
    await store.start()
    await store.stop()


# --- What cannot be used ---------------------------------------------------------------------------------------------


async def test_a_path_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be used" in await refused(tmp_path / "file" / "shoal.db")


async def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "shoal.db").mkdir()
    assert "cannot be opened" in await refused(tmp_path / "shoal.db")


async def test_a_folder_that_is_not_writable(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    if os.access(path.parent, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "cannot be used: Permission denied" in await refused(path)


async def test_a_file_that_is_no_database(path: Path) -> None:
    notes = b"-- notes, not a database --\n" * 500
    put(path, notes)
    assert "not a database" in await refused(path)
    assert await asyncio.to_thread(path.read_bytes) == notes, "it is left as it was found"


async def test_a_damaged_database(path: Path, sandbox: NewSandbox) -> None:
    store = SqliteStore(path)
    await store.start()
    for _ in range(200):
        await store.add(*sandbox(), None)
    await store.stop()
    with path.open("r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xff" * 4096 * 4)
    assert re.search("is damaged|malformed", await refused(path))


async def test_a_newer_schema(store: SqliteStore, path: Path) -> None:
    await store.stop()
    sql(path, "UPDATE shoal_schema SET version = 99")
    assert "schema version 99, and this shoal knows none above 2" in await refused(path)


async def test_a_migration_that_fails_changes_nothing(
    store: SqliteStore, path: Path, sandbox: NewSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE shoal_sandboxes")
        connection.execute("SELECT * FROM nowhere")

    record, plan = sandbox()
    await store.add(record, plan, None)
    await store.stop()
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, broken])
    assert "no such table: nowhere" in await refused(path)
    monkeypatch.undo()
    again = SqliteStore(path)
    await again.start()
    assert await again.sandboxes() == [record]
    await again.stop()


async def test_later_migrations_run_once_and_in_order(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.stop()
    second = "ALTER TABLE shoal_sandboxes ADD COLUMN zone TEXT"
    third = "CREATE INDEX shoal_sandboxes_zone ON shoal_sandboxes (zone)"
    steps = [lambda connection, text=text: connection.execute(text) for text in (second, third)]
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, *steps])
    for _ in range(2):
        again = SqliteStore(path)
        await again.start()
        await again.stop()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM shoal_schema").fetchall() == [(4,)]


# --- A file of the other server --------------------------------------------------------------------------------------

FOREIGN_COLUMNS = (
    "id TEXT PRIMARY KEY, source_sandbox_id TEXT NOT NULL, {namespace} name TEXT, description TEXT, "
    "restore_config TEXT NOT NULL, state TEXT NOT NULL, reason TEXT, message TEXT, last_transition_at TEXT, "
    "created_at TEXT NOT NULL, updated_at TEXT NOT NULL"
)
FOREIGN_ROW = (
    "INSERT INTO snapshots (id, source_sandbox_id, name, description, restore_config, state, reason,"
    " last_transition_at, created_at, updated_at{column}) VALUES ('s1', 'b1', 'nightly', 'kept',"
    " '{{\"backend\":null,\"image\":\"opensandbox-snapshots:s1\"}}', 'Ready', 'snapshot_runtime_ready',"
    " '2026-01-02T03:04:05.678901+00:00', '2026-01-02T03:04:05Z', '2026-01-02T03:04:06'{value})"
)
SHAPES = {
    "present": ("namespace TEXT,", "", ""),
    "without-namespace": ("", "", ""),
    "namespace-not-null": ("namespace TEXT NOT NULL,", ", namespace", ", ''"),
}


@pytest.fixture(params=SHAPES)
def foreign(request: pytest.FixtureRequest, path: Path) -> Path:
    """A file as another server left it, with one snapshot."""
    namespace, column, value = SHAPES[request.param]
    path.parent.mkdir()
    statements = [f"CREATE TABLE snapshots ({FOREIGN_COLUMNS.format(namespace=namespace)})"]
    if namespace:
        statements.append("CREATE INDEX by_name ON snapshots (name, namespace)")
    sql(path, *statements, FOREIGN_ROW.format(column=column, value=value))
    return path


async def test_snapshots_of_another_server_are_taken_over(foreign: Path) -> None:
    store = SqliteStore(foreign)
    await store.start()
    (snapshot,) = await store.snapshots()
    await store.stop()
    assert snapshot == SnapshotRecord(
        id="s1",
        sandbox_id="b1",
        runtime="",
        state="Ready",
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        updated_at=datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
        name="nightly",
        image="opensandbox-snapshots:s1",
        reason="snapshot_runtime_ready",
        last_transition_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    )


async def test_what_is_not_ours_in_the_table_is_kept(foreign: Path) -> None:
    def indexes(connection: sqlite3.Connection) -> list[str]:
        query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'snapshots' AND sql IS NOT NULL"
        return [text for (text,) in connection.execute(query)]

    with closing(sqlite3.connect(foreign)) as connection:
        indexes_before = indexes(connection)
    store = SqliteStore(foreign)
    await store.start()
    (snapshot,) = await store.snapshots()
    await store.save_snapshot(replace(snapshot, state="Deleting"))
    await store.stop()
    with closing(sqlite3.connect(foreign)) as connection:
        row = connection.execute("SELECT description, namespace, state, restore_config FROM snapshots").fetchone()
        assert indexes(connection) == indexes_before
    assert row == ("kept", None, "Deleting", '{"backend":null,"image":"opensandbox-snapshots:s1"}')


async def test_another_server_can_still_write_its_rows(foreign: Path) -> None:
    store = SqliteStore(foreign)
    await store.start()
    await store.remove_snapshot("s1")
    await store.stop()
    sql(foreign, FOREIGN_ROW.format(column=", namespace", value=", NULL"))
    await store.start()
    assert [snapshot.runtime for snapshot in await store.snapshots()] == [""]
    await store.stop()


async def test_a_snapshot_that_cannot_be_read_is_named(foreign: Path) -> None:
    sql(foreign, "UPDATE snapshots SET created_at = 'yesterday'")
    store = SqliteStore(foreign)
    await store.start()
    with pytest.raises(ConfigError, match="holds snapshot s1 in a form that cannot be read"):
        await store.snapshots()
    await store.stop()


async def test_it_is_left_where_it_is_and_out_of_the_list(foreign: Path) -> None:
    sql(foreign, "UPDATE snapshots SET created_at = 'yesterday'")
    store = SqliteStore(foreign)
    await store.start()
    await store.set_aside()
    assert await store.snapshots() == []
    await store.stop()
    with closing(sqlite3.connect(foreign)) as connection:
        assert connection.execute("SELECT created_at FROM snapshots").fetchall() == [("yesterday",)]
