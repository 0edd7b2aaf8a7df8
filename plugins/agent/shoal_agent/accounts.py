"""Users and groups by name and number, read from `/etc/passwd` and `/etc/group`.

Read here and not through the C library: an image's name service modules need not fit the agent's own library.
"""

from __future__ import annotations

import os
from typing import NamedTuple

MAX_ID = 0xFFFFFFFE


class User(NamedTuple):
    """A line of `/etc/passwd`."""

    name: str
    uid: int
    gid: int
    home: str


class _Table:
    """The lines of a file, read again once it changes."""

    def __init__(self, path: str, columns: int) -> None:
        self._path = path
        self._columns = columns
        self._seen: tuple[int, int, int] | None = None
        self._lines: list[list[str]] = []

    def lines(self) -> list[list[str]]:
        try:
            status = os.stat(self._path)
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                    rows = [line.rstrip("\n").split(":") for line in file]
                self._lines = [row for row in rows if len(row) >= self._columns and row[2].isdigit()]
                self._seen = seen
        except OSError:
            return []
        return self._lines


class Accounts:
    """The accounts of this sandbox."""

    def __init__(self, folder: str = "/etc") -> None:
        self._passwd = _Table(f"{folder}/passwd", 6)
        self._group = _Table(f"{folder}/group", 4)

    def user(self, uid: int) -> User | None:
        """The account with the number `uid`."""
        return next((user for user in self._users() if user.uid == uid), None)

    def uid(self, name: str) -> int | None:
        """The number of a user's name, or of a number in text; None if there is no such user."""
        found = next((user.uid for user in self._users() if user.name == name), None)
        return _number(name) if found is None else found

    def gid(self, name: str) -> int | None:
        """The number of a group's name, or of a number in text; None if there is no such group."""
        found = next((int(row[2]) for row in self._group.lines() if row[0] == name), None)
        return _number(name) if found is None else found

    def user_names(self) -> dict[int, str]:
        """Names by number, the first of each number."""
        return {int(row[2]): row[0] for row in reversed(self._passwd.lines())}

    def group_names(self) -> dict[int, str]:
        """Names by number, the first of each number."""
        return {int(row[2]): row[0] for row in reversed(self._group.lines())}

    def groups(self, uid: int, gid: int) -> list[int]:
        """The groups of the account `uid`, `gid` first."""
        user = self.user(uid)
        if user is None:
            return [gid]
        members = [int(row[2]) for row in self._group.lines() if user.name in row[3].split(",")]
        return list(dict.fromkeys([gid, *members]))

    def _users(self) -> list[User]:
        return [User(row[0], int(row[2]), int(row[3]), row[5]) for row in self._passwd.lines() if row[3].isdigit()]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= MAX_ID else None
