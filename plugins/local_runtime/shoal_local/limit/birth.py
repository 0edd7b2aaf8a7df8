"""A fork whose child is born in a control group of version 2.

A process that moves into a group, by writing to ``cgroup.procs``, waits for a grace period of the kernel's, some 10 ms,
and so does every fork on the machine meanwhile. One that is born in it (clone3(2), ``CLONE_INTO_CGROUP``) does not.

On the standard library alone: programs load this file by its path.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

CLONE3 = 435
"""Of every architecture."""
CLONE_INTO_CGROUP, CLONE_PARENT = 0x200000000, 0x8000
_SIZE = 88
"""Of struct clone_args, with the group (Linux 5.7)."""

_libc = ctypes.CDLL(None, use_errno=True)


def fork_into(group: int | None, *, sibling: bool = False) -> int:
    """Like `os.fork`, with the child in the group whose directory is open as ``group``, if that is not None.

    Args:
        sibling: the child is one of this process's parent, and not its own.

    Raises OSError where the kernel or a container does not permit it. Only for a process with one thread: nothing is
    told of the fork, so the child may execute a program or call `os.fork`, and little else.
    """
    flags = (0 if group is None else CLONE_INTO_CGROUP) | (CLONE_PARENT if sibling else 0)
    ending = 0 if sibling else int(signal.SIGCHLD)  # with CLONE_PARENT it is that of this process
    arguments = struct.pack("=11Q", flags, 0, 0, 0, ending, 0, 0, 0, 0, 0, group or 0)
    pid = int(_libc.syscall(ctypes.c_long(CLONE3), arguments, ctypes.c_size_t(_SIZE)))
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return pid
