"""Users of a sandbox, by name or number."""

from __future__ import annotations

from typing import NamedTuple

from opensandbox import Sandbox
from opensandbox.exceptions import SandboxApiException


class Account(NamedTuple):
    """A user as a command needs it."""

    uid: int
    gid: int | None
    home: str | None


async def find(sandbox: Sandbox, user: str) -> Account:
    """The account of that name or number in the sandbox's ``/etc/passwd``.

    Raises:
        LookupError: there is no such name.
    """
    try:
        passwd = await sandbox.files.read_file("/etc/passwd")
    except SandboxApiException:
        passwd = ""
    for line in passwd.splitlines():
        name, *rest = line.split(":")
        if len(rest) >= 5 and user in (name, rest[1]):
            return Account(int(rest[1]), int(rest[2]), rest[4] or None)
    if user.isdecimal():
        return Account(int(user), None, None)
    raise LookupError(f"unable to find user {user}: no matching entries in passwd file")
