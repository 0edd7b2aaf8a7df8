"""What clients get of a file."""

from __future__ import annotations

import os
import stat
import time
from typing import Any

from shoal_agent.accounts import Accounts
from shoal_agent.files import modes
from shoal_agent.files.failures import shown

FileInfo = dict[str, Any]


class Describer:
    """Makes FileInfo of what `lstat` returns; looks accounts up once, so make one per request."""

    def __init__(self, accounts: Accounts) -> None:
        self._users = accounts.user_names()
        self._groups = accounts.group_names()

    def describe(self, path: str, status: os.stat_result) -> FileInfo:
        """The FileInfo of the absolute `path`."""
        return {
            "path": shown(path),
            "type": kind(status.st_mode),
            "size": status.st_size,
            "modified_at": rfc3339(status.st_mtime_ns),
            "created_at": rfc3339(status.st_ctime_ns),
            "owner": shown(self._users.get(status.st_uid, str(status.st_uid))),
            "group": shown(self._groups.get(status.st_gid, str(status.st_gid))),
            "mode": modes.to_wire(status.st_mode),
        }


def kind(mode: int) -> str:
    """The type of a file with this `st_mode`."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def rfc3339(nanoseconds: int) -> str:
    """A Unix time in nanoseconds as UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    t = time.gmtime(seconds)
    return f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}.{rest:09d}Z"
