"""Paths inside a root file system that is not this process's own.

A symlink in an image points into the image, so the operating system's own look-up would leave it.
"""

from __future__ import annotations

import os
import stat
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


def executable(path: Path) -> bool:
    """Is it a regular file that somebody may execute?"""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)
