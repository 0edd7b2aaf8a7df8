"""The system calls that mount and unmount, and what is mounted. Everything blocks and needs privileges, but reading."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Final

_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_UNBINDABLE: Final = 1 << 17
_MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def bind(source: str, target: str) -> None:
    """Mount a file or directory, with what is mounted below, at another of the same kind. Raises OSError.

    Nothing that is done to the new mount changes the old one, nor the other way round.
    """
    _call("mount", os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(_MS_BIND | _MS_REC), None)
    make_private(target)


def make_private(path: str) -> None:
    """Part a mount, and those below it, from its peers. Raises OSError; EINVAL where nothing is mounted."""
    _call("mount", None, os.fsencode(path), None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)


def make_unbindable(path: str) -> None:
    """Leave a mount, and those below it, out of every recursive bind of what is above. Raises OSError."""
    _call("mount", None, os.fsencode(path), None, ctypes.c_ulong(_MS_UNBINDABLE), None)


def detach(path: str) -> None:
    """Take a mount, and those below it, out of the tree, whoever still has it open. Raises OSError."""
    _call("umount2", os.fsencode(path), _MNT_DETACH)


def mount_points() -> set[str]:
    """Every mount point that this process sees. Blocks on no file system."""
    return {path for _, path in listed("self")}


def listed(process: int | str) -> list[tuple[int, str]]:
    """Number and mount point of each mount that a process sees. Raises OSError."""
    text = Path(f"/proc/{process}/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    words = [line.split(" ", 5) for line in text.splitlines()]
    return [(int(each[0]), _unescaped(each[4])) for each in words]


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _unescaped(text: str) -> str:
    """A path of mountinfo, which writes spaces and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
