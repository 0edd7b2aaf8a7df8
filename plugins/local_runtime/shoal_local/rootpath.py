"""Paths inside a root file system that is not this process's own.

A symlink in an image points into the image, so the operating system's own look-up would leave it.
"""

from __future__ import annotations

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
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    at, links = root, 0
    while todo:
        part = todo.pop()
        if part == "..":
            at = at if at == root else at.parent
            continue
        step = at / part
        if not step.is_symlink():
            at = step
            continue
        links += 1
        if links > MAX_LINKS:
            raise EngineFailure("LOCAL::IMAGE_INVALID", f"too many symbolic links on the way to {path}")
        target = str(step.readlink())
        at = root if target.startswith("/") else at
        todo.extend(piece for piece in reversed(target.split("/")) if piece not in ("", "."))
    return at


def executable(path: Path) -> bool:
    """Is it a regular file that somebody may execute?"""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)
