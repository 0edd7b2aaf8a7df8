"""Paths inside a root file system that is not this process's own.

A symlink in an image points into the image, so the operating system's own look-up would leave it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Final

from shoal.errors import EngineFailure

MAX_LINKS: Final = 40
"""As many as Linux follows in one look-up (path_resolution(7))."""


def resolve(root: Path, path: str) -> Path:
    """Where ``path`` leads inside ``root``, each symlink taken relative to it; what is missing is kept as written.

    Raises EngineFailure for a loop of symlinks.
    """
    top = str(root).rstrip("/")
    todo = path.split("/")[::-1]
    at, links = "", 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = at.rpartition("/")[0]
            continue
        try:
            target = os.readlink(f"{top}{at}/{part}")  # noqa: PTH115 - asked for every part of every path
        except OSError:
            at = f"{at}/{part}"
            continue
        links += 1
        if links > MAX_LINKS:
            raise EngineFailure("LOCAL::IMAGE_INVALID", f"too many symbolic links on the way to {path}")
        at = "" if target.startswith("/") else at
        todo.extend(target.split("/")[::-1])
    return Path(f"{top}{at}" or "/")


def shown(layers: Sequence[Path], inside: str) -> bool:
    """Does a stack of layers, the first on top, show anything at this path? No link is followed: one is something."""
    active = list(layers)
    for part in (part for part in inside.split("/") if part):
        below: list[Path] = []
        for layer in active:
            try:
                found = os.lstat(layer / part)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return True
            if stat.S_ISDIR(found.st_mode):
                below.append(layer / part)
                if _opaque(layer / part):
                    break
            elif below or (stat.S_ISCHR(found.st_mode) and found.st_rdev == 0):
                break  # a whiteout, or a file below a directory
            else:
                return True
        if not below:
            return False
        active = below
    return True


def _opaque(folder: Path) -> bool:
    """Does it hide what lies below? (overlayfs.rst, "whiteouts and opaque directories")"""
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            return os.getxattr(folder, name) == b"y"
        except OSError:
            continue
    return False


def enterable(root: Path, path: str, uid: int, groups: Container[int]) -> bool:
    """May a user without privileges go to the directory ``path`` inside ``root``? What is missing is in nobody's way.

    Access control lists are not looked at. Raises EngineFailure for a loop of symlinks.
    """
    at = root
    for part in resolve(root, path).relative_to(root).parts:
        at /= part
        try:
            found = at.lstat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        shift = 6 if found.st_uid == uid else 3 if found.st_gid in groups else 0
        if stat.S_ISDIR(found.st_mode) and not found.st_mode >> shift & 1:
            return False
    return True


def executable(path: Path) -> bool:
    """Is it a regular file that somebody may execute?"""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)
