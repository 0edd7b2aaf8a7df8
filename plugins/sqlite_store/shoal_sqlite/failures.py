"""What SQLite's errors mean to a caller: a 503 that may be repeated, or a conflict. The details stay in the log."""

from __future__ import annotations

import sqlite3
from typing import Final

from shoal.errors import Conflict, ShoalError, StoreFull, Unavailable

ALREADY_EXISTS: Final = "STORE::ALREADY_EXISTS"
BUSY: Final = "STORE::BUSY"
CLOSED: Final = "STORE::CLOSED"
CORRUPT: Final = "STORE::CORRUPT"
FAILED: Final = "STORE::FAILED"
FULL: Final = "STORE::FULL"
IO_ERROR: Final = "STORE::IO_ERROR"

_PRIMARY_CODE = 0xFF
"""SQLite's extended result codes carry the primary one in their lowest byte (https://sqlite.org/rescode.html)."""

_MEANINGS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: (FULL, "The store has no space left; nothing was changed."),
    sqlite3.SQLITE_IOERR: (IO_ERROR, "The store could not be written or read; nothing was changed."),
    sqlite3.SQLITE_BUSY: (BUSY, "The store is held by another program; nothing was changed."),
    sqlite3.SQLITE_LOCKED: (BUSY, "The store is held by another program; nothing was changed."),
    sqlite3.SQLITE_CORRUPT: (CORRUPT, "The store's file is damaged."),
    sqlite3.SQLITE_NOTADB: (CORRUPT, "The store's file is damaged."),
}


def translated(error: Exception) -> Exception:
    """A new ShoalError for an error of SQLite, with that as its cause; any other exception as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    meaning: ShoalError
    if isinstance(error, sqlite3.IntegrityError):
        meaning = Conflict(ALREADY_EXISTS, "The store already holds a record with this id.")
    else:
        # Errors of the Python module itself (a closed connection) carry no code.
        primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE
        kind = StoreFull if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) else Unavailable
        meaning = kind(*_MEANINGS.get(primary, (FAILED, "The store failed; nothing was changed.")))
    meaning.__cause__ = error
    return meaning


def closed() -> Unavailable:
    """The error for a call before `start`, or after `stop`."""
    return Unavailable(CLOSED, "The store is not open.")
