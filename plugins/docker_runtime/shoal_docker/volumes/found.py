"""What is really mounted in a container, by the kernel's own word."""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from shoal.kit.walk import descend, identity
from shoal_docker.volumes import mounts

_CREDENTIALS: Final = struct.Struct("3i")
_SECONDS: Final = 5.0


def engine_process(address: str) -> int | None:
    """The process that listens at the engine's socket; None if it cannot be seen from here. Blocks."""
    path = address.partition("://")[2] or address
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(_SECONDS)
        try:
            peer.connect(path)
            told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return None
    process: int = _CREDENTIALS.unpack(told)[0]
    return process or None


def identities(process: int) -> Counter[str] | None:
    """How often each ``device:inode`` is mounted in a container, of which this is a process; None if it cannot be seen.

    Blocks.
    """
    found: Counter[str] = Counter()
    try:
        root = os.open(f"/proc/{process}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        for number, path in mounts.listed(process):
            with suppress(OSError):
                found[_identity(root, number, path)] += 1
    except OSError:
        return None
    finally:
        os.close(root)
    return found


def _identity(root: int, number: int, path: str) -> str:
    """Of one mount, reached through no link. Raises OSError, also where another mount covers it."""
    handle = descend(root, PurePosixPath(path).parts[1:])
    try:
        if f"mnt_id:\t{number}\n" not in Path(f"/proc/self/fdinfo/{handle}").read_text():
            raise OSError(0, "another mount covers it")
        return identity(handle)
    finally:
        os.close(handle)
