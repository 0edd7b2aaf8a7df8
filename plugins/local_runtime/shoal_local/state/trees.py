"""Removing directory trees whose owner did not want them removed: closed ones, deep ones, ones that still change."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

_DEEPEST: Final = 64
"""Levels that are walked down; a directory below that is first moved to the top, whatever the depth of the tree."""
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and all below it, directories with mode 000 included; absent is fine. Raises OSError."""
    try:
        around = os.open(folder.parent, _LOOK)
    except FileNotFoundError:
        return
    try:
        _remove(around, folder.name)
    finally:
        os.close(around)


def _remove(around: int, name: str) -> None:
    """Remove one entry; what is gone already is fine."""
    try:
        top = _open(around, name)
    except NotADirectoryError:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=around)
        return
    except FileNotFoundError:
        return
    try:
        while _clear(top, top, 0):
            pass  # what was moved to the top comes next
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=around)


def _clear(folder: int, top: int, depth: int) -> bool:
    """Remove what is in a directory; were any moved to ``top`` because they are too deep?"""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    moved = False
    for name, directory in found:
        with suppress(FileNotFoundError):
            if not directory:
                os.unlink(name, dir_fd=folder)
            elif depth < _DEEPEST:
                moved |= _clear_below(folder, name, top, depth + 1)
            else:
                os.close(_open(folder, name))  # it can be moved only with its owner's right to write in it
                os.rename(name, uuid4().hex, src_dir_fd=folder, dst_dir_fd=top)
                moved = True
    return moved


def _clear_below(folder: int, name: str, top: int, depth: int) -> bool:
    try:
        below = _open(folder, name)
    except NotADirectoryError:  # swapped meanwhile
        os.unlink(name, dir_fd=folder)
        return False
    try:
        moved = _clear(below, top, depth)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=folder)
    return moved


def _open(around: int, name: str) -> int:
    """A directory, opened with every right of its owner. Raises NotADirectoryError for all else, a link included."""
    handle = os.open(name, _LOOK, dir_fd=around)
    try:
        with suppress(PermissionError):
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101 - the directory behind the descriptor
        return os.open(".", _READ, dir_fd=handle)
    finally:
        os.close(handle)
