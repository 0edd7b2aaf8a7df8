"""The database file: made private, locked against a second server, opened, checked, migrated.

Plans hold registry passwords and other secrets until their sandbox runs, so the file and its companions (``-wal``,
``-shm``, ``.lock``) are readable by their owner alone, and what is deleted is overwritten.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import structlog

from shoal.errors import ConfigError
from shoal_sqlite import schema
from shoal_sqlite.space import Space

log = structlog.get_logger("shoal.sqlite")

BUSY_TIMEOUT_SECONDS = 5.0
WAL_SIZE_LIMIT_BYTES = 16 * 1024 * 1024
"""What a burst may leave behind as the size of the write-ahead log, once it is checkpointed."""

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # in WAL mode, less would lose the last commits to a power cut
    "PRAGMA secure_delete = ON",
    f"PRAGMA journal_size_limit = {WAL_SIZE_LIMIT_BYTES}",
)


_NO_SPACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_CANTOPEN)
"""What SQLite says where the disk has no room for its files beside the database."""


class Database:
    """An open, migrated database with the lock that makes it ours."""

    def __init__(self, connection: sqlite3.Connection, locks: Sequence[int], space: Space) -> None:
        self.connection = connection
        self._locks = locks
        self._space = space

    def tend(self) -> None:
        """Between two transactions: keep room for endings on a full disk."""
        self._space.tend(self.connection)

    def close(self) -> None:
        """Close it; the last commits move from the write-ahead log to the file. The lock goes last."""
        try:
            self.connection.close()
        finally:
            _release(self._locks)


def open_database(path: Path, space: Space) -> Database:
    """Open ``path``, creating it and its folder, and migrate it to the present schema; also on a full disk.

    To be called, used and closed on one thread. Raises ConfigError if the path cannot be used, another server uses it,
    or its content is damaged or of a newer version.
    """
    file = Path(os.path.realpath(path))
    locks = [_lock(file, path)]
    try:
        locks.append(_lock_itself(file, path))
        connection = _connect(file, space)
        connection.execute(f"PRAGMA wal_autocheckpoint = {space.log_pages()}")
        space.tend(connection, now=True)
        return Database(connection, locks, space)
    except BaseException:
        _release(locks)
        raise


def _release(locks: Sequence[int]) -> None:
    for lock in locks:
        os.close(lock)


def _lock_itself(file: Path, path: Path) -> int:
    """The database file, open and locked: by another name of it no other server gets in either.

    It stays open for as long as SQLite has it: closing any descriptor of a file drops SQLite's own locks on it.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"store.path {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        message = "is in use by another server, by another name; stop it, or give this one a store.path of its own"
        raise ConfigError(f"store.path {path} {message}") from None
    except OSError:
        pass  # a file system without such locks: the file beside it has to do
    return descriptor


def _lock(file: Path, path: Path) -> int:
    """An open, locked file beside the database; the kernel lets go of it when the process ends, however it ends."""
    beside = file.with_name(file.name + ".lock")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"store.path {path} cannot be used: {error.strerror} ({beside})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):  # for people to read; a full disk has no room for it
            os.pwrite(descriptor, f"{os.getpid():<9}\n".encode(), 0)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise ConfigError(f"store.path {path} cannot be locked: {error.strerror} ({beside})") from error
        who = f" (process {holder})" if holder else ""
        remedy = "stop it, or give this one a store.path of its own"
        raise ConfigError(f"store.path {path} is in use by another server{who}; {remedy}") from None
    return descriptor


def _connect(path: Path, space: Space) -> sqlite3.Connection:
    """The open database. On a full disk the reserve is given up for it, then memory holds the index of the log."""
    try:
        return _opened(path, exclusive=False)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) not in _NO_SPACE:
            raise _unusable(path, error) from error
    try:
        return _opened(path, exclusive=not space.give_up())
    except sqlite3.Error:
        log.warning("the store's disk is full", path=str(path))
    try:
        return _opened(path, exclusive=True)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _opened(path: Path, *, exclusive: bool) -> sqlite3.Connection:
    try:
        _make_private(path)
    except OSError as error:
        raise ConfigError(f"store.path {path} cannot be opened: {error}") from error
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        if exclusive:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        _check(connection, path)
        schema.migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _unusable(path: Path, error: sqlite3.Error) -> ConfigError:
    return ConfigError(f"store.path {path} is not a database that can be used: {error}")


def _make_private(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        # A file taken over from another server may be open to all; one that another user owns stays as it is.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            path.with_name(path.name + suffix).chmod(0o600)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise ConfigError(f"store.path {path} is damaged ({' '.join(problem.split())}); restore it from a backup")
