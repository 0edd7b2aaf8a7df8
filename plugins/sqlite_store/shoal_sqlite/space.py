"""Room for endings on a full disk.

On the default layout a sandbox can fill the disk that the store is on. Deleting it must work even then, and deleting
writes. So blocks are kept for that while there are any: the write-ahead log has them allocated ahead of what it needs,
the database has free pages, so that the log can always be moved into it, and a file of nothing else (``.reserve``) is
given up when the log cannot get its blocks. New sandboxes are refused while the disk is low; what ends them, and every
change of those that exist, goes on.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Final

import structlog

from shoal.errors import StoreFull
from shoal_sqlite.failures import FULL

log = structlog.get_logger("shoal.sqlite")

LOG_BYTES: Final = 8 * 1024 * 1024
"""Kept allocated for the write-ahead log: twice what it grows to before a checkpoint begins it anew."""
SPARE_BYTES: Final = 2 * 1024 * 1024
"""Free pages in the database, for records that are made before the next look."""
RESERVE_BYTES: Final = 1024 * 1024
MIN_FREE_BYTES: Final = 16 * 1024 * 1024
"""With less than this free, the disk is low."""
_SHARE: Final = 16
"""None of these is more than this part of the file system (one 16th)."""
_PAGE_BYTES: Final = 4096
_INTERVAL_SECONDS: Final = 1.0
_INTERVAL_RECORDS: Final = 32


class Space:
    """The disk that the store at ``path`` is on. `require` and `free` may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._log = path.with_name(path.name + "-wal")
        self._reserve = path.with_name(path.name + ".reserve")
        self._tended_at = float("-inf")
        self._records = 0
        self._low = False

    def require(self) -> None:
        """Asked before each new record. Raises StoreFull if the disk is too full for it."""
        self._records += 1
        free, least = self._free()
        if free < least:
            text = (
                f"The store's disk is full: {free // 1024} KiB are free, and {least // 1024} KiB are kept for endings."
            )
            raise StoreFull(FULL, f"{text} Deletes and expiries go on.")

    def tend(self, connection: sqlite3.Connection, *, now: bool = False) -> None:
        """Keep the room allocated; does nothing soon after the last time, unless ``now``. Never raises.

        Called by the thread that owns the connection, between transactions.
        """
        soon = time.monotonic() - self._tended_at < _INTERVAL_SECONDS and self._records < _INTERVAL_RECORDS
        if soon and not now:
            return
        self._tended_at, self._records = time.monotonic(), 0
        try:
            self._tend(connection)
        except (OSError, sqlite3.Error) as error:
            log.warning("no room could be kept for endings on a full disk", error=str(error))

    def log_pages(self) -> int:
        """After how many pages the log is to be moved into the database: half of what is kept allocated for it."""
        return max(8, min(LOG_BYTES, self._total() // _SHARE) // 2 // _PAGE_BYTES)

    def give_up(self) -> bool:
        """Let go of the reserve; False if there was none."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        log.warning("the store's disk is full, its reserve was given up", path=str(self._reserve))
        return True

    def _tend(self, connection: sqlite3.Connection) -> None:
        free, least = self._free()
        if (free < least) is not self._low:
            self._low = not self._low
            log.warning("the store's disk is full" if self._low else "the store's disk has space again", free=free)
        most = self._total() // _SHARE
        wanted, spare, reserve = (min(size, most) for size in (LOG_BYTES, SPARE_BYTES, RESERVE_BYTES))
        if self._log.exists() and not _allocate(self._log, wanted) and self.give_up():
            _allocate(self._log, wanted)
        if free > least + 2 * spare:
            _keep_free_pages(connection, spare)
        if free > 2 * least + reserve and not self._reserve.exists() and not _allocate(self._reserve, reserve):
            self._reserve.unlink(missing_ok=True)

    def _free(self) -> tuple[int, int]:
        """Bytes that this process may still write, and below what that is too little."""
        disk = os.statvfs(self._folder)
        blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
        return blocks * disk.f_frsize, min(MIN_FREE_BYTES, disk.f_blocks * disk.f_frsize // _SHARE)

    def _total(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_blocks * disk.f_frsize


def _allocate(path: Path, size: int) -> bool:
    """Have blocks for the first ``size`` bytes of a file, whose content stays as it is; False if there are none.

    SQLite reads what follows the last commit in its log as nothing, so a log may be longer than it is.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if size > 0:
            os.posix_fallocate(handle, 0, size)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)
    return True


def _keep_free_pages(connection: sqlite3.Connection, size: int) -> None:
    """Have about ``size`` bytes of free pages in the file. Raises sqlite3.Error."""
    page, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "freelist_count"))
    if free * page >= size // 2:
        return
    # Written, committed and only then dropped: pages that were never written would be holes in the file.
    connection.execute("CREATE TABLE IF NOT EXISTS shoal_spare (content BLOB)")
    connection.execute("INSERT INTO shoal_spare (content) VALUES (zeroblob(?))", (size - free * page,))
    connection.execute("DROP TABLE shoal_spare")
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
