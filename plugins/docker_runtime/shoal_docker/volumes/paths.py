"""Paths below a directory that somebody else may be changing.

A path is resolved first and walked afterwards, from the root of the file system and through no symbolic link, so that
what was checked is what was found; whatever is missing is made on the way. The functions block.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath


class Unsafe(Exception):
    """The path is not what it was when it was resolved, or cannot be looked at."""


def is_within(path: str, prefixes: Iterable[str]) -> bool:
    """Whether the path is one of the prefixes or lies below one; texts only."""
    return any(path == prefix or path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)


def joined(path: str, sub_path: str | None) -> str:
    """The path of ``sub_path``, normalised, below ``path``; the caller has refused ``..`` and leading slashes."""
    return path if not sub_path else os.path.normpath(f"{path}/{sub_path}")


def resolved(path: str) -> str:
    """The path without symbolic links; what does not exist counts as ordinary directories."""
    return os.path.realpath(path)


def ensure(path: str, *, like: str | None = None) -> None:
    """Walk a resolved path and make the directories that are missing.

    Args:
        path: absolute, resolved; an existing file at its end is fine.
        like: an existing directory whose owner and mode new ones get; None: this process', 0755.

    Raises Unsafe where a symbolic link or a file stands in the way, or nobody may look; OSError where a directory
    cannot be made.
    """
    model = Path(like).stat() if like is not None else None
    parts = PurePosixPath(path).parts[1:]
    here = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        for index, part in enumerate(parts):
            below = _step(here, part, model, last=index == len(parts) - 1)
            os.close(here)
            here = below
    finally:
        os.close(here)


def _step(here: int, part: str, model: os.stat_result | None, *, last: bool) -> int:
    """One part further down: its descriptor."""
    try:
        below = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
    except FileNotFoundError:
        return _make(here, part, model)
    except OSError as error:
        raise Unsafe(error.strerror) from None
    mode = os.fstat(below).st_mode
    if stat.S_ISLNK(mode) or not (last or stat.S_ISDIR(mode)):
        os.close(below)
        raise Unsafe("a symbolic link or a file stands in its way")
    return below


def _make(here: int, part: str, model: os.stat_result | None) -> int:
    try:
        os.mkdir(part, 0o755, dir_fd=here)
    except FileExistsError:
        pass  # another create made it meanwhile; what it is shows below
    else:
        if model is not None:
            os.chown(part, model.st_uid, model.st_gid, dir_fd=here, follow_symlinks=False)
            os.chmod(part, stat.S_IMODE(model.st_mode), dir_fd=here)
    try:
        return os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=here)
    except OSError as error:
        raise Unsafe(error.strerror) from None
