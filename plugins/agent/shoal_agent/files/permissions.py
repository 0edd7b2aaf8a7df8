"""Owner, group and mode as clients ask for them."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from shoal_agent.accounts import Accounts
from shoal_agent.files import modes
from shoal_agent.files.failures import reported
from shoal_agent.http.errors import INVALID_REQUEST_BODY, ApiError
from shoal_agent.http.fields import Fields


class Change(NamedTuple):
    """What is to change; None and -1 leave it."""

    mode: int | None = None
    uid: int = -1
    gid: int = -1

    def chown(self, path: str | int) -> None:
        """Sets owner and group, through links. Raises OSError."""
        if self.uid >= 0 or self.gid >= 0:
            try:
                os.chown(path, self.uid, self.gid)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The user namespace does not map them: a sandbox of the local runtime has one user.
                raise PermissionError(
                    errno.EPERM, "this sandbox has one user, and can give files to no other"
                ) from error

    def apply(self, path: str | int) -> None:
        """Sets all, through links; the mode last, since a change of owner takes bits away. Raises OSError."""
        self.chown(path)
        if self.mode is not None:
            os.chmod(path, self.mode)


def parse(fields: Fields, accounts: Accounts, code: str = INVALID_REQUEST_BODY) -> Change:
    """`owner`, `group`, `mode` of a request. Raises `ApiError` 400 before anything is done."""
    number = fields.integer("mode", 0, least=-(2**63))
    owner, group = fields.text("owner", ""), fields.text("group", "")
    uid = accounts.uid(owner) if owner else -1
    gid = accounts.gid(group) if group else -1
    if uid is None:
        raise ApiError(400, code, f"there is no user {owner!r}")
    if gid is None:
        raise ApiError(400, code, f"there is no group {group!r}")
    return Change(modes.from_wire(number, code), uid, gid)


def change_all(changes: dict[str, Change]) -> None:
    """Applies changes by path; nothing changes if one of the paths is missing. Raises `ApiError`."""
    for path in changes:
        with reported(path):
            os.stat(path)
    for path, change in changes.items():
        with reported(path):
            change.apply(path)
