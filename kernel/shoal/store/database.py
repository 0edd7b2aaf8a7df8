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

from shoal.errors import ConfigError
from shoal.store import schema

BUSY_TIMEOUT_SECONDS = 5.0
WAL_SIZE_LIMIT_BYTES = 16 * 1024 * 1024
"""What a burst may leave behind as the size of the write-ahead log, once it is checkpointed."""

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # in WAL mode, less would lose the last commits to a power cut
    "PRAGMA secure_delete = ON",
    f"PRAGMA journal_size_limit = {WAL_SIZE_LIMIT_BYTES}",
)


class Database:
    """An open, migrated database with the lock that makes it ours."""

    def __init__(self, connection: sqlite3.Connection, locks: Sequence[int]) -> None:
        self.connection = connection
        self._locks = locks

    def close(self) -> None:
        """Close it; the last commits move from the write-ahead log to the file. The lock goes last."""
        try:
            self.connection.close()
        finally:
            _release(self._locks)


def open_database(path: Path) -> Database:
    """Open ``path``, creating it and its folder, and migrate it to the present schema.

    To be called, used and closed on one thread. Raises ConfigError if the path cannot be used, another server uses it,
    or its content is damaged or of a newer version.
    """
    file = Path(os.path.realpath(path))
    locks = [_lock(file, path)]
    try:
        locks.append(_lock_itself(file, path))
        return Database(_connect(file), locks)
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
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise ConfigError(f"store.path {path} cannot be locked: {error.strerror} ({beside})") from error
        who = f" (process {holder})" if holder else ""
        remedy = "stop it, or give this one a store.path of its own"
        raise ConfigError(f"store.path {path} is in use by another server{who}; {remedy}") from None
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    try:
        _make_private(path)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"store.path {path} cannot be opened: {error}") from error
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        _check(connection, path)
        schema.migrate(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"store.path {path} is not a database that can be used: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        # A file taken over from another server may be open to all; one that another user owns stays as it is.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            path.with_name(path.name + suffix).chmod(0o600)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise ConfigError(f"store.path {path} is damaged ({' '.join(problem.split())}); restore it from a backup")
