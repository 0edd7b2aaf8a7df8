"""What a client asks to run, checked: `docs/wire/execd.md` section 4."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from shoal_agent.http.errors import invalid_body
from shoal_agent.http.fields import Fields
from shoal_agent.http.response import dump
from shoal_agent.paths import Paths

MAX_ID = 2**32 - 1
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CommandSpec(NamedTuple):
    """One command."""

    content: str
    """As status shows it: the command, or its arguments as JSON."""
    command: str | None
    """For a shell; None if `argv` is given."""
    argv: list[str]
    cwd: str
    """Absolute; an existing directory."""
    envs: dict[str, str]
    background: bool
    timeout: float
    """Seconds; 0 is none."""
    uid: int | None
    gid: int | None


def parse(fields: Fields, paths: Paths) -> CommandSpec:
    """Raises `ApiError` 400."""
    command, argv = fields.text("command", ""), fields.texts("argv")
    if bool(command) == ("argv" in fields):
        raise invalid_body("exactly one of command and argv is needed")
    if "argv" in fields and (not argv or not argv[0]):
        raise invalid_body("argv needs a first element, the program")
    envs = fields.text_map("envs")
    check_texts(command, argv, envs)
    uid = fields.optional_integer("uid", most=MAX_ID)
    gid = fields.optional_integer("gid", most=MAX_ID)
    if gid is not None and uid is None:
        raise invalid_body("gid needs uid")
    return CommandSpec(
        content=command or dump(argv).decode("ascii"),
        command=command or None,
        argv=argv,
        cwd=directory(fields.text("cwd", ""), paths),
        envs=envs,
        background=fields.flag("background"),
        timeout=fields.integer("timeout", 0) / 1000,
        uid=uid,
        gid=gid,
    )


def check_texts(command: str, argv: list[str], envs: Mapping[str, str]) -> None:
    """Raises `ApiError` 400 for what no process can be given."""
    if "\0" in command or any("\0" in argument for argument in argv):
        raise invalid_body("a command cannot hold a NUL")
    for name, value in envs.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise invalid_body(f"{name!r} in envs is no variable that a process can have")


def directory(text: str, paths: Paths) -> str:
    """An absolute path for `text` (the working directory for none). Raises `ApiError` 400 if it is no directory."""
    path = paths.resolve(text or ".")
    if not os.path.isdir(path):
        reason = "is not a directory" if os.path.exists(path) else "does not exist"
        raise invalid_body(f"cwd {path} {reason}")
    return path


def shell(environment: Mapping[str, str]) -> str | None:
    """bash if it is on the agent's PATH, else sh; None in an image without either."""
    entries = (environment.get("PATH") or DEFAULT_PATH).split(":")
    return _find("bash", entries) or _find("sh", entries) or _find("sh", ["/bin"])


def program(name: str, environment: Mapping[str, str], cwd: str) -> str | None:
    """The file of `argv[0]`: relative to `cwd` with a slash, else sought in absolute entries of the child's PATH."""
    if "/" in name:
        return os.path.join(cwd, name)
    entries = (environment.get("PATH") or DEFAULT_PATH).split(":")
    return _find(name, [entry for entry in entries if entry.startswith("/")])


def _find(name: str, entries: list[str]) -> str | None:
    """The first executable file of that name. By access(2) first: it is asked at every command."""
    for entry in entries:
        path = f"{entry or '.'}/{name}"
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None
