"""Starting a process for a client: its group, its user, its variables."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from shoal_agent.accounts import MAX_ID, Accounts
from shoal_agent.children import Children
from shoal_agent.environment import encoded


class StartError(Exception):
    """The process could not be started; the text says which and why."""


def credentials(uid: int | None, gid: int | None, accounts: Accounts) -> dict[str, Any]:
    """`subprocess` keywords that make a process another user's; none if it is the agent's own.

    The primary group is that of the account, for an unknown number the same number: never the agent's. The agent's own
    user needs no privileges. Raises OSError for numbers that no process can have.
    """
    if uid is None:
        return {}
    if uid > MAX_ID or (gid or 0) > MAX_ID:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    user = accounts.user(uid)
    group = gid if gid is not None else user.gid if user is not None else uid
    if uid == os.geteuid() and (gid is None or group == os.getegid()):
        return {}
    return {"user": uid, "group": group, "extra_groups": accounts.groups(uid, group)}


def launch(
    children: Children,
    file: str,
    argv: list[str],
    environment: Mapping[str, str],
    cwd: str,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int,
    stderr: int,
    identity: dict[str, Any] | None = None,
    preexec: Callable[[], None] | None = None,
) -> tuple[int, asyncio.Future[int]]:
    """Starts `file` as the leader of a session of its own. Returns its pid and a future of its return code.

    Raises `StartError`.
    """
    try:
        return children.popen(
            [argument.encode("utf-8", "surrogateescape") for argument in argv],
            executable=os.fsencode(file),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd.encode("utf-8", "surrogateescape"),
            env=encoded({**environment, "PWD": cwd}),
            start_new_session=True,
            preexec_fn=preexec,
            **(identity or {}),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise failed(file, error) from None


def failed(file: str, error: Exception) -> StartError:
    """What went wrong, in the words that clients know."""
    number = error.errno if isinstance(error, OSError) else None
    text = os.strerror(number) if number else str(error)
    return StartError(f"fork/exec {file}: {text[:1].lower()}{text[1:]}")
