"""Walking to a file without following a symbolic link, and making what is missing on the way.

A sandbox can swap a directory for a link between two look-ups of one path. So a path is looked up once, name by name,
each below the descriptor of the one before; what is made is changed through its own descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

Owner = tuple[int, int] | None
"""(uid, gid) that something made is given; None leaves it to this process."""

_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY


def open_path(path: Path, *, make: bool = False, owner: Owner = None, mode: int | None = None) -> int:
    """A descriptor (``O_PATH``) of an absolute path, without links in it; directories are made with ``make``.

    ``mode``: of what is made, whatever the umask; None is 0755 less the umask.

    Raises OSError; ELOOP for a symbolic link anywhere in the path. The caller closes it.
    """
    top = os.open("/", _LOOK | os.O_DIRECTORY)
    try:
        return descend(top, path.parts[1:], make=make, owner=owner, mode=mode)
    finally:
        os.close(top)


def descend(
    start: int, names: Sequence[str], *, make: bool = False, owner: Owner = None, mode: int | None = None
) -> int:
    """The same from a directory's descriptor on, which stays open."""
    at = os.dup(start)
    try:
        for name in names:
            below = _step(at, name, make=make, owner=owner, mode=mode)
            os.close(at)
            at = below
    except BaseException:
        os.close(at)
        raise
    return at


def make_file(folder: int, name: str, owner: Owner) -> int:
    """A descriptor of a new, empty file. Raises OSError, also if the name is taken. The caller closes it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(name, flags, 0o644, dir_fd=folder)
    if owner is not None:
        os.fchown(handle, *owner)
    return handle


def identity(handle: int) -> str:
    """``device:inode`` of an open file; nothing else has it for as long as the descriptor is open."""
    status = os.fstat(handle)
    return f"{status.st_dev}:{status.st_ino}"


def is_directory(handle: int) -> bool:
    """Is the open file a directory?"""
    return stat.S_ISDIR(os.fstat(handle).st_mode)


def _step(at: int, name: str, *, make: bool, owner: Owner, mode: int | None) -> int:
    try:
        return os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=at)
    except NotADirectoryError:
        return _no_link(os.open(name, _LOOK, dir_fd=at))
    except FileNotFoundError:
        if not make:
            raise
    return _make_directory(at, name, owner, mode)


def _no_link(handle: int) -> int:
    if stat.S_ISLNK(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.ELOOP, "a symbolic link is in the way")
    return handle


def _make_directory(at: int, name: str, owner: Owner, mode: int | None) -> int:
    try:
        os.mkdir(name, 0o755, dir_fd=at)
    except FileExistsError:  # made by somebody else meanwhile
        return _step(at, name, make=False, owner=owner, mode=mode)
    handle = os.open(name, _OPEN, dir_fd=at)
    try:
        # Who may write to the directory above can have put another one in place: that keeps its owner.
        if os.fstat(handle).st_uid == os.geteuid() and _empty(handle):
            if owner is not None:
                os.fchown(handle, *owner)
            if mode is not None:
                os.fchmod(handle, mode)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _empty(folder: int) -> bool:
    with os.scandir(folder) as entries:
        return not any(entries)
