"""Where the kernel counts what this sandbox uses: its own cgroup, of version 2 or 1."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")
UNLIMITED = 1 << 60
"""A limit of version 1 from here on means none."""


class CgroupMount(NamedTuple):
    """A mounted cgroup file system."""

    controllers: frozenset[str]
    """Empty in version 2."""
    root: str
    """The group that is seen at the mount point."""
    point: str


def mounts(text: str) -> list[CgroupMount]:
    """The cgroup file systems in a `/proc/self/mountinfo`."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = frozenset(kind[2].split(",")) if kind[0] == "cgroup" else frozenset[str]()
        found.append(CgroupMount(controllers, _unescaped(fields[3]), _unescaped(fields[4])))
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def groups(text: str) -> dict[str, str]:
    """The path of this process's group by controller, in a `/proc/self/cgroup`; "" for version 2."""
    found = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in [""] if number == "0" and not names else names.split(","):
            found[name] = path
    return found


class Cgroup:
    """The folders of one group per controller, from its own up to the highest that is visible."""

    def __init__(self, mounted: Iterable[CgroupMount], own: dict[str, str]) -> None:
        self._folders: dict[str, list[str]] = {}
        for mount in mounted:
            for controller in mount.controllers or {""}:
                if controller in own:
                    self._folders[controller] = _folders(mount, own[controller])

    @classmethod
    def of_this_process(cls) -> Cgroup:
        """What `/proc` says; without it, nothing."""
        return cls(mounts(read("/proc/self/mountinfo")), groups(read("/proc/self/cgroup")))

    def folders(self, controller: str) -> list[str]:
        """The folders with the files of `controller` ("" for version 2); empty if it is not mounted."""
        return self._folders.get(controller, [])


def _folders(mount: CgroupMount, path: str) -> list[str]:
    """A path that the mount does not show belongs to another namespace: what is at the mount point is then ours."""
    if mount.root not in ("/", path) and path.startswith(mount.root + "/"):
        path = path[len(mount.root) :]
    elif mount.root == path:
        path = "/"
    folder = os.path.normpath(f"{mount.point}/{path}")
    if not folder.startswith(mount.point) or not os.path.isdir(folder):
        folder = mount.point
    found = [folder]
    while folder != mount.point:
        folder = os.path.dirname(folder)
        found.append(folder)
    return found


def read(path: str) -> str:
    """The content of a small file; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def number(path: str) -> int | None:
    """The number in a file; None for `max` and where there is none."""
    text = read(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def entry(text: str, name: str) -> int | None:
    """The number behind `name` in a file of lines `name number`."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key.rstrip(":") == name:
            digits = value.split()[0] if value.split() else ""
            return int(digits) if digits.isdigit() else None
    return None
