"""Takes secrets out of what `/proc` shows of this process: its arguments and variables, as they were at its start."""

from __future__ import annotations

import os
from collections.abc import Iterable

_ARGUMENTS, _VARIABLES = 48, 50
"""Fields of `/proc/self/stat`, counted from 1, where these areas of memory begin; their ends are the fields after."""


def conceal(secrets: Iterable[str]) -> None:
    """Overwrites each of `secrets` there. What runs as the same user could otherwise read it by `cat`.

    Where the kernel does not let a process do that to itself, nothing happens.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            for first in (_ARGUMENTS, _VARIABLES):
                start, end = int(fields[first - 3]), int(fields[first - 2])
                _overwrite(memory.fileno(), start, end, secrets)
    except (OSError, ValueError, IndexError):
        return


def _overwrite(memory: int, start: int, end: int, secrets: Iterable[str]) -> None:
    area = os.pread(memory, max(end - start, 0), start)
    for secret in secrets:
        data = os.fsencode(secret)
        position = area.find(data)
        while data and position >= 0:
            os.pwrite(memory, b"*" * len(data), start + position)
            position = area.find(data, position + len(data))
